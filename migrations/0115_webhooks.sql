-- Webhooks: who outside is told of what happens to devices, and the outbox from which they are told. What is told of is
-- enqueued by triggers in the very transaction that makes it true, whoever makes it: a crash can't come in between, and
-- nothing is written for events that no webhook wants.

create table webhooks (
    -- its generation: what was sealed for one webhook is of no use to another of the same name
    id              uuid        primary key,
    name            text        collate "C" not null constraint webhooks_name_key unique
                                constraint webhooks_name_check check (name ~ '^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$'),
    url             text        not null,
    -- model::event::EventType
    events          text[]      not null,
    -- of which devices; at most one of these, and without any of all
    serial          text,
    group_name      text        collate "C",
    -- model::selector, in its canonical form, and the same as a predicate over tags
    selector        text,
    selector_path   jsonpath,
    every_device    boolean     not null generated always as
                                (serial is null and group_name is null and selector is null) stored,
    enabled         boolean     not null,
    -- why it was disabled by itself
    disabled_reason text,
    -- names of further headers; their values, which may be secrets, are sealed
    header_names    text[]      not null default '{}',
    headers_sealed  bytea,
    secret_sealed   bytea       not null,
    -- the secret before, which also signs until then
    previous_sealed bytea,
    previous_until  timestamptz,
    version         bigint      not null default 1,
    actor           text        not null,
    created_at      timestamptz not null,
    updated_at      timestamptz not null
);

create table webhook_deliveries (
    -- what the receiver knows it by, however often it is sent
    id              uuid        primary key default gen_random_uuid(),
    -- The order in which events of a device are delivered. No index begins with it: one would be tempting, and lead
    -- through all that was delivered before.
    seq             bigint      not null generated always as identity,
    webhook_id      uuid        not null constraint webhook_deliveries_webhook_fkey references webhooks (id) on delete cascade,
    type            text        not null,
    -- null for a ping; no reference: what happened to a device is told even if it is deleted meanwhile
    serial          text,
    at              timestamptz not null,
    data            jsonb       not null,
    state           text        not null default 'pending' check (state in ('pending', 'delivered', 'dead')),
    attempts        integer     not null default 0,
    -- While pending: not before then. Whoever takes it moves this to when another may take it over.
    next_at         timestamptz not null default '-infinity',
    last_at         timestamptz,
    last_status     integer,
    last_error      text,
    -- when it was delivered, or given up
    ended_at        timestamptz
);
-- The work list, in order, by device and by time; what ended is in none of them.
create index webhook_deliveries_waiting on webhook_deliveries (webhook_id, seq) where state = 'pending';
create index webhook_deliveries_of_device on webhook_deliveries (webhook_id, serial, seq) where state = 'pending';
create index webhook_deliveries_due on webhook_deliveries (webhook_id, next_at) where state = 'pending';
-- What is shown, and what retention looks through.
create index webhook_deliveries_shown on webhook_deliveries (webhook_id, state, seq);

-- Whether any webhook wants events of this type: nearly all there is to do where there is none.
create function webhooks_want(event text) returns boolean language sql stable as $$
    select exists (select from webhooks where enabled and event = any (events))
$$;

-- Whether a webhook wants what happens to a device.
create function webhook_wants(hook webhooks, device devices) returns boolean language sql stable as $$
    select (hook.serial is null or hook.serial = device.serial)
       and (hook.group_name is null or exists (
               select from group_members m where m.group_name = hook.group_name and m.device_id = device.id))
       and (hook.selector_path is null or device.tags @@ hook.selector_path)
$$;

-- A time as the API writes it.
create function rfc3339(at timestamptz) returns text language sql stable as $$
    select to_char(at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
$$;

-- Wakes every server, also the one whose change it is.
create function webhooks_wake() returns void language sql as $$
    select pg_notify('setpoint', '- webhooks')
$$;

-- Presence: a session of a device began or ended. That it was heard of again is none.
create function presence_to_webhooks() returns trigger language plpgsql as $$
begin
    if not webhooks_want('presence') then
        return null;
    end if;
    if tg_op = 'INSERT' then
        insert into webhook_deliveries (webhook_id, type, serial, at, data)
        select w.id, 'presence', d.serial, p.since, jsonb_build_object('online', p.online, 'since', rfc3339(p.since),
               'session', p.session, 'reason', p.disconnect_reason)
        from changed p join devices d on d.id = p.device_id
             join webhooks w on w.enabled and 'presence' = any (w.events) and (w.every_device or webhook_wants(w, d))
        where p.session is not null and p.since is not null
        order by p.since, p.device_id;
    else
        insert into webhook_deliveries (webhook_id, type, serial, at, data)
        select w.id, 'presence', d.serial, p.since, jsonb_build_object('online', p.online, 'since', rfc3339(p.since),
               'session', p.session, 'reason', p.disconnect_reason)
        from changed p join former f on f.device_id = p.device_id join devices d on d.id = p.device_id
             join webhooks w on w.enabled and 'presence' = any (w.events) and (w.every_device or webhook_wants(w, d))
        where p.session is not null and p.since is not null
          and (p.online, p.session) is distinct from (f.online, f.session)
        order by p.since, p.device_id;
    end if;
    if found then
        perform webhooks_wake();
    end if;
    return null;
end
$$;
create trigger presence_made_to_webhooks after insert on device_presence
    referencing new table as changed for each statement execute function presence_to_webhooks();
create trigger presence_changed_to_webhooks after update on device_presence
    referencing old table as former new table as changed for each statement execute function presence_to_webhooks();

-- Settings: a version was made, and the device ran or refused it. That it was published and delivered is on its way there,
-- and told on the live stream alone.
create function settings_to_webhooks() returns trigger language plpgsql as $$
begin
    if not webhooks_want('settings') then
        return null;
    end if;
    if tg_op = 'INSERT' then
        insert into webhook_deliveries (webhook_id, type, serial, at, data)
        select w.id, 'settings', d.serial, v.at, jsonb_build_object('version', v.version, 'stage', 'requested',
               'actor', v.actor, 'source', v.source, 'diff', v.diff, 'settings', s.document)
        from changed v join devices d on d.id = v.device_id
             left join device_settings s on s.device_id = v.device_id and s.version = v.version
             join webhooks w on w.enabled and 'settings' = any (w.events) and (w.every_device or webhook_wants(w, d))
        order by v.device_id, v.version;
    else
        insert into webhook_deliveries (webhook_id, type, serial, at, data)
        select w.id, 'settings', d.serial, e.at, jsonb_build_object('version', v.version, 'stage', e.stage)
               || case e.stage when 'refused' then jsonb_build_object('errors', v.errors) else '{}' end
        from changed v join former f on f.device_id = v.device_id and f.version = v.version
             cross join lateral (values ('applied', v.applied_at, f.applied_at),
                                        ('refused', v.refused_at, f.refused_at)) as e (stage, at, before)
             join devices d on d.id = v.device_id
             join webhooks w on w.enabled and 'settings' = any (w.events) and (w.every_device or webhook_wants(w, d))
        where e.at is not null and e.before is null
        order by v.device_id, v.version;
    end if;
    if found then
        perform webhooks_wake();
    end if;
    return null;
end
$$;
create trigger settings_made_to_webhooks after insert on settings_versions
    referencing new table as changed for each statement execute function settings_to_webhooks();
create trigger settings_changed_to_webhooks after update on settings_versions
    referencing old table as former new table as changed for each statement execute function settings_to_webhooks();

-- What stands in the timeline alone. An entry whose kind begins with `alert_` is an event of the type `alert`, with the
-- entry's facts and the rest of the kind as the state: whoever commits a transition with its entry has told every webhook.
create function timeline_to_webhooks() returns trigger language plpgsql as $$
begin
    if not exists (select from webhooks where enabled and events && '{alert,commands,firmware,settings}') then
        return null;
    end if;
    insert into webhook_deliveries (webhook_id, type, serial, at, data)
    select w.id, t.type, d.serial, e.at,
           case t.type when 'settings' then e.data || '{"stage": "pending"}'
                       when 'firmware' then coalesce(e.data -> 'status', e.data)
                       when 'alert' then e.data || jsonb_build_object('state', substr(e.kind, length('alert_') + 1))
                       else e.data end
    from entries e
         join lateral (select case when e.kind = 'settings_pending' then 'settings'
                                   when e.kind = 'command_result' then 'commands'
                                   when e.kind = 'firmware_status' then 'firmware'
                                   when starts_with(e.kind, 'alert_') then 'alert' end as type) t on t.type is not null
         join devices d on d.id = e.device_id
         join webhooks w on w.enabled and t.type = any (w.events) and (w.every_device or webhook_wants(w, d))
    order by e.id;
    if found then
        perform webhooks_wake();
    end if;
    return null;
end
$$;
create trigger timeline_to_webhooks after insert on device_events
    referencing new table as entries for each statement execute function timeline_to_webhooks();
