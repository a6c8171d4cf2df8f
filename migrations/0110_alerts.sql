-- Alerts: rules over what devices send and how they are, and where each device stands towards each rule.
--
-- A sample costs no row here. Of a device to which nothing happens there is a row only under rules that wait for silence,
-- and that one says when to look next.

-- One for all rules, so that no version of a name is ever used twice, not even after a deletion.
create sequence alert_versions;

create table alerts (
    id               bigint      generated always as identity primary key,
    name             text        collate "C" not null check (name ~ '^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$'),
    title            text        not null,
    -- model::alert::Condition, in its canonical form; and what it is about: metrics, silence, offline, settings
    condition        text        not null,
    kind             text        not null,
    -- for which devices: of a model, of a group, of one serial, or all
    model            text,
    group_name       text        collate "C",
    serial           text        collate "C",
    severity         text        not null,
    enabled          boolean     not null,
    -- seconds; null for what the condition says
    resolve_after    integer     check (resolve_after >= 0),
    version          bigint      not null default nextval('alert_versions'),
    -- the version that last changed the condition, and when it began: what was before counts no more
    era              bigint      not null default currval('alert_versions'),
    begun_at         timestamptz not null,
    -- Deleted rules fire no more; the row goes when all that fired is resolved.
    deleted          boolean     not null default false,
    -- how far a look at all devices of the rule has come (their ids), null between two; and when the next one begins
    sweep_after      bigint      default 0,
    sweep_at         timestamptz not null,
    created_at       timestamptz not null,
    updated_at       timestamptz not null,
    check (num_nonnulls(model, group_name, serial) <= 1)
);
alter sequence alert_versions owned by alerts.version;
create unique index alerts_name_key on alerts (name) where not deleted;

create table alert_states (
    rule_id     bigint      not null constraint alert_states_rule_fkey references alerts (id) on delete cascade,
    device_id   bigint      not null constraint alert_states_device_fkey references devices (id) on delete cascade,
    -- of the rule when this began
    era         bigint      not null,
    -- ok (waiting for silence), pending, firing, resolved
    state       text        not null,
    since       timestamptz not null,
    true_since  timestamptz,
    false_since timestamptz,
    observed_at timestamptz,
    -- what was looked at: metric -> value
    values      jsonb       not null default '{}',
    -- when time alone changes it
    due_at      timestamptz,
    primary key (rule_id, device_id)
) with (fillfactor = 80);
create index alert_states_device on alert_states (device_id);
create index alert_states_due on alert_states (due_at) where due_at is not null;
create index alert_states_told on alert_states (rule_id, state) where state <> 'ok';

-- Devices to be looked at because something about them changed. No key: whoever adds one waits for nobody.
create table alert_looks (
    id        bigint generated always as identity primary key,
    device_id bigint not null
);

-- Alerts of devices that are gone: still to be told as resolved.
create table alert_ends (
    id      bigint      generated always as identity primary key,
    rule_id bigint      not null constraint alert_ends_rule_fkey references alerts (id) on delete cascade,
    serial  text        not null,
    values  jsonb       not null,
    since   timestamptz not null
);
create index alert_ends_rule on alert_ends (rule_id);

-- Has a device looked at, and wakes every server for it: also the one whose change it is.
create function alert_look(devices bigint[]) returns void language sql as $$
    insert into alert_looks (device_id) select unnest(devices);
    select pg_notify('setpoint', '- looks');
$$;

create function alert_device_changed() returns trigger language plpgsql as $$
begin
    if exists (select from alerts where not deleted) then
        perform alert_look(array[new.id]);
    end if;
    return null;
end
$$;
create trigger alert_device_made after insert on devices for each row execute function alert_device_changed();
create trigger alert_device_model after update of model on devices for each row
    when (old.model is distinct from new.model) execute function alert_device_changed();

-- The entry of the timeline goes with the device; what hangs on its being written (webhooks) stays.
create function alert_device_gone() returns trigger language plpgsql as $$
begin
    insert into device_events (device_id, at, kind, data)
    select old.id, statement_timestamp(), 'alert_resolved', jsonb_build_object(
               'alert', a.name, 'title', a.title, 'severity', a.severity, 'condition', a.condition,
               'since', s.true_since, 'values', s.values, 'reason', 'device_gone',
               'message', 'the device was deleted or begins anew')
    from alert_states s join alerts a on a.id = s.rule_id where s.device_id = old.id and s.state = 'firing';
    insert into alert_ends (rule_id, serial, values, since)
    select rule_id, old.serial, values, coalesce(true_since, since)
    from alert_states where device_id = old.id and state = 'firing';
    return old;
end
$$;
create trigger alert_device_gone before delete on devices for each row execute function alert_device_gone();

create function alert_member_changed() returns trigger language plpgsql as $$
begin
    if exists (select from alerts where group_name is not null and not deleted) then
        perform alert_look(array_agg(changed.device_id)) from changed
        where changed.group_name in (select group_name from alerts where not deleted) having count(*) > 0;
    end if;
    return null;
end
$$;
create trigger alert_member_added after insert on group_members referencing new table as changed
    for each statement execute function alert_member_changed();
create trigger alert_member_gone after delete on group_members referencing old table as changed
    for each statement execute function alert_member_changed();

create function alert_presence_changed() returns trigger language plpgsql as $$
begin
    if exists (select from alerts where kind = 'offline' and not deleted) then
        perform alert_look(array[new.device_id]);
    end if;
    return null;
end
$$;
create trigger alert_presence_made after insert on device_presence for each row
    execute function alert_presence_changed();
create trigger alert_presence_changed after update on device_presence for each row
    when ((old.online, old.since) is distinct from (new.online, new.since)) execute function alert_presence_changed();

-- Whether some setting waits for its answer.
create function settings_pending(status jsonb) returns boolean language sql immutable parallel safe as $$
    select status @? '$.*.state ? (@ == "pending")'
$$;

create function alert_settings_changed() returns trigger language plpgsql as $$
begin
    if exists (select from alerts where kind = 'settings' and not deleted)
       and settings_pending(old.status) <> settings_pending(new.status) then
        perform alert_look(array[new.device_id]);
    end if;
    return null;
end
$$;
create trigger alert_settings_changed after update of status on device_settings for each row
    when (old.status is distinct from new.status) execute function alert_settings_changed();
