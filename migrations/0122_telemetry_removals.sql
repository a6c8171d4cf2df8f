-- What is deleted of the telemetry goes in small steps, by a task that any server can go on with: a metric of a device
-- (one statement over years of its roll-ups was unbounded), and what deleted devices leave.

create table telemetry_removals (
    device_id    bigint      not null references devices (id) on delete cascade,
    metric_id    integer     not null references metrics (id),
    requested_at timestamptz not null,
    -- before this somebody is at work on it
    next_at      timestamptz not null,
    -- When nothing was left and its type was forgotten. The row stays for as long as samples of it may have been on their
    -- way to a commit: those are looked for once more.
    done_at      timestamptz,
    primary key (device_id, metric_id)
);

alter table purges add column next_at timestamptz not null default '-infinity';
