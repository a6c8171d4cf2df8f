-- Presence as last seen by the broker, and the timeline of what happened to a device.

create table device_presence (
    device_id         bigint      primary key references devices (id) on delete cascade,
    online            boolean     not null,
    -- the session that came or went last, and when; null for a device that speaks HTTP alone
    session           uuid,
    since             timestamptz,
    last_seen         timestamptz not null,
    disconnect_reason text,
    -- the server process that holds the session: after an unclean stop its sessions are known to be gone
    server            uuid        not null
);
create index device_presence_online on device_presence (server) where online;

create table device_events (
    id        bigint      generated always as identity primary key,
    device_id bigint      not null references devices (id) on delete cascade,
    at        timestamptz not null,
    -- connected, disconnected, telemetry_rejected, ...: model::timeline::Kind
    kind      text        not null,
    data      jsonb       not null default '{}'
);
-- Newest first, by device; and how many a device has. By time, because entries come in by several ways.
create index device_events_of_device on device_events (device_id, at desc, id desc);
-- Retention deletes by age.
create index device_events_at on device_events using brin (at);
