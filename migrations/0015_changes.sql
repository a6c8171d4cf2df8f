-- Several servers may share this database, and each remembers credentials and has sessions open. Whatever ends a right tells
-- all of them in its own transaction, whoever makes the change: a server, a command, or somebody with psql.

-- `server kind what` on the channel `setpoint`; the server that made the change knows already, and passes its own over.
create function tell_servers(kind text, what text) returns void language sql as $$
    select pg_notify('setpoint', concat_ws(' ', coalesce(nullif(current_setting('setpoint.server', true), ''), '-'), kind, what))
$$;

create function credential_changed() returns trigger language plpgsql as $$
declare
    serial text;
begin
    select d.serial into serial from devices d where d.id = old.device_id;
    -- Of a device that is deleted the devices' own trigger tells.
    if serial is null then
        return null;
    end if;
    -- Within its grace the former token goes on, and so do its sessions.
    if tg_op = 'UPDATE' and new.previous_hash is not distinct from old.hash then
        perform tell_servers('forget', serial);
    else
        perform tell_servers('end', serial);
    end if;
    return null;
end
$$;
create trigger credential_changed after update or delete on device_credentials
    for each row execute function credential_changed();

create function device_changed() returns trigger language plpgsql as $$
begin
    perform tell_servers(case tg_op when 'DELETE' then 'gone' else 'end' end, old.serial);
    return null;
end
$$;
create trigger device_gone after delete on devices for each row execute function device_changed();
create trigger device_stolen after update of stolen_at on devices for each row
    when (old.stolen_at is distinct from new.stolen_at) execute function device_changed();

create function token_gone() returns trigger language plpgsql as $$
begin
    perform tell_servers('token', old.id::text);
    return null;
end
$$;
create trigger token_gone after delete on api_tokens for each row execute function token_gone();

create function session_gone() returns trigger language plpgsql as $$
begin
    perform tell_servers('session', old.user_id || ' ' || old.id);
    return null;
end
$$;
create trigger session_gone after delete on sessions for each row execute function session_gone();

-- As JSON, because people get `disabled_at` in a later migration.
create function person_changed() returns trigger language plpgsql as $$
begin
    if tg_op = 'DELETE' or old.role is distinct from new.role
       or to_jsonb(old) -> 'disabled_at' is distinct from to_jsonb(new) -> 'disabled_at' then
        perform tell_servers('person', old.id::text);
    end if;
    return null;
end
$$;
create trigger person_changed after update or delete on users for each row execute function person_changed();

create function owner_changed() returns trigger language plpgsql as $$
begin
    perform tell_servers('owner', coalesce(new.user_id, old.user_id)::text);
    return null;
end
$$;
create trigger owner_changed after insert or delete on device_owners for each row execute function owner_changed();
