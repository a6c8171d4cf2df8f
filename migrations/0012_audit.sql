-- Who did what to which object from where. Rows are only ever added; retention alone removes them, through its function.

create table audit (
    id       bigint      generated always as identity primary key,
    at       timestamptz not null,
    -- `user:anna`, `token:ci`, `device:HOME-1`, `system:terminal`, or the name somebody tried to sign in with
    actor    text        not null,
    -- no foreign key: the record outlives the person
    user_id  uuid,
    action   text        not null,
    object   text        not null default '',
    address  text,
    outcome  text        not null check (outcome in ('done', 'refused')),
    before   jsonb,
    after    jsonb
);
create index audit_at on audit using brin (at);
create index audit_object on audit (object, id);
create index audit_actor on audit (actor, id);

create function audit_is_append_only() returns trigger language plpgsql as $$
begin
    if tg_op = 'DELETE' and current_setting('setpoint.audit_retention', true) = 'on' then
        return old;
    end if;
    raise exception 'the audit log is append-only' using errcode = 'insufficient_privilege';
end
$$;
create trigger audit_append_only before update or delete on audit
    for each row execute function audit_is_append_only();
create trigger audit_no_truncate before truncate on audit
    for each statement execute function audit_is_append_only();

-- Removes at most `most` entries older than `horizon`; returns how many.
create function audit_expire(horizon timestamptz, most integer) returns bigint language plpgsql as $$
declare
    gone bigint;
begin
    perform set_config('setpoint.audit_retention', 'on', true);
    delete from audit where id in (select id from audit where at < horizon order by id limit most);
    get diagnostics gone = row_count;
    perform set_config('setpoint.audit_retention', 'off', true);
    return gone;
end
$$;
