-- Groups: devices selected by their tags, with settings of their own; and which devices' effective documents are to be
-- computed again because a layer under them changed.

create table groups (
    name          text        collate "C" primary key constraint groups_name_check check (name ~ '^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$'),
    -- model::selector, in its canonical form
    selector      text        not null,
    -- of two groups that set the same key the one with the higher priority wins, then the one with the later name
    priority      integer     not null default 0,
    settings      jsonb       not null default '{}',
    -- rises with each change
    version       bigint      not null default 1,
    -- who made the last change: its members' versions tell
    actor         text        not null,
    -- After a change of the selector: the id of the last device whose membership agrees with it; null when all do.
    devices_after bigint      default 0,
    -- After a change of what members inherit: the id of the last member that is marked as due; null when all are.
    members_after bigint,
    -- Deleted groups count for nothing any more; the row goes when all members have left.
    deleted       boolean     not null default false,
    created_at    timestamptz not null,
    updated_at    timestamptz not null
);
-- The reconciler's work list: nearly always empty.
create index groups_unsettled on groups (name) where devices_after is not null or members_after is not null;

create table group_members (
    group_name text   collate "C" not null constraint group_members_group_fkey references groups (name) on delete cascade,
    device_id  bigint not null constraint group_members_device_fkey references devices (id) on delete cascade,
    primary key (group_name, device_id)
);
create index group_members_device on group_members (device_id);

-- Whether anything but the model and the device itself may have a part in its document (a group, a schedule). It stands
-- in the row that every change locks, so that a device without costs no further look. Never wrongly false.
alter table device_settings add column layered boolean not null default false;

-- "Compute this device's effective document again at due_at." A row goes, or gets its next time, in the transaction that
-- does it; actor and source are those of the change.
create table settings_due (
    device_id bigint      primary key constraint settings_due_device_fkey references devices (id) on delete cascade,
    due_at    timestamptz not null,
    actor     text        not null,
    source    text        not null
);
create index settings_due_at on settings_due (due_at);
