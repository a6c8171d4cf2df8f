-- Telemetry, partitioned by UTC day. A sample is known by device, metric and time: a QoS 1 duplicate finds its
-- first copy and is stored once. Metric names are kept apart because they are repeated in every row.

create table metrics (
    id   integer generated always as identity primary key,
    name text    collate "C" not null constraint metrics_name_key unique
);

-- Which metrics a device has ever sent: bounds how many it may make up, and finds "the newest of each"
-- without a walk through all partitions.
create table device_metrics (
    device_id bigint  not null constraint device_metrics_device_fkey references devices (id) on delete cascade,
    metric_id integer not null references metrics (id),
    primary key (device_id, metric_id)
);

-- No foreign keys: a deleted device's rows leave in small batches (`purges`), not inside its DELETE.
create table telemetry (
    device_id bigint           not null,
    metric_id integer          not null,
    at        timestamptz      not null,
    -- exactly one of the three holds the value
    number    double precision,
    flag      boolean,
    text      text,
    primary key (device_id, metric_id, at),
    check (num_nonnulls(number, flag, text) = 1)
) partition by range (at);

-- Makes the partition of one UTC day, if it isn't there yet. It is attached when complete, because ATTACH lets
-- ingest and readers go on, and CREATE TABLE .. PARTITION OF does not.
create function telemetry_make_partition(day date) returns void language plpgsql as $$
declare
    partition text := 'telemetry_' || to_char(day, 'YYYYMMDD');
begin
    -- One server at a time.
    perform pg_advisory_xact_lock(hashtext('telemetry_make_partition'));
    if to_regclass(partition) is null then
        execute format('create table %I (like telemetry including all)', partition);
        execute format(
            'alter table telemetry attach partition %I for values from (%L) to (%L)',
            partition, day::timestamp at time zone 'UTC', (day + 1)::timestamp at time zone 'UTC');
    end if;
end
$$;

-- What devices bring from before this installation lives in `telemetry_past`. It is a range, not a default
-- partition: a default would be scanned under lock each time a day is added.
do $$
declare
    today date := (now() at time zone 'UTC')::date;
begin
    execute format(
        'create table telemetry_past partition of telemetry for values from (minvalue) to (%L)',
        today::timestamp at time zone 'UTC');
    perform telemetry_make_partition(today);
end
$$;
