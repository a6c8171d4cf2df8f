-- Schedules: settings that hold at certain times, of one device or of all members of a group.

-- One for all schedules, so that no version of a name is ever used twice, not even after a deletion.
create sequence schedule_versions;

create table schedules (
    id         bigint      generated always as identity primary key,
    device_id  bigint      constraint schedules_device_fkey references devices (id) on delete cascade,
    group_name text        collate "C" constraint schedules_group_fkey references groups (name) on delete cascade,
    name       text        collate "C" not null,
    -- {"days", "from", "to"} or {"starts_at", "ends_at"}: model::schedule::Plan
    plan       jsonb       not null,
    settings   jsonb       not null,
    enabled    boolean     not null,
    priority   integer     not null,
    version    bigint      not null default nextval('schedule_versions'),
    created_at timestamptz not null,
    updated_at timestamptz not null,
    check (num_nonnulls(device_id, group_name) = 1)
);
create unique index schedules_device_key on schedules (device_id, name) where device_id is not null;
create unique index schedules_group_key on schedules (group_name, name) where group_name is not null;
alter sequence schedule_versions owned by schedules.version;

-- Whether devices of this model find their schedules in their settings document, to keep them while they are offline.
alter table models add column schedules_in_document boolean not null default false;
