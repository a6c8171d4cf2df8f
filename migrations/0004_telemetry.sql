-- Telemetry, partitioned by time. A sample is known by device, metric and time: a QoS 1 duplicate finds its
-- first copy and is stored once. Metric names are kept apart because they are repeated in every row.

create table metrics (
    id   integer generated always as identity primary key,
    name text    collate "C" not null constraint metrics_name_key unique
);

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

-- Samples older than the first made partition (a device that brings its past) live here; partitions are made
-- ahead of time for the present and the future only, and a sample from the future is stored at its arrival.
create table telemetry_past partition of telemetry default;

-- Makes the partition of one UTC day, if it isn't there yet.
create function telemetry_make_partition(day date) returns void language plpgsql as $$
declare
    partition text := 'telemetry_' || to_char(day, 'YYYYMMDD');
begin
    if to_regclass(partition) is null then
        execute format(
            'create table %I partition of telemetry for values from (%L) to (%L)',
            partition, day::timestamp at time zone 'UTC', (day + 1)::timestamp at time zone 'UTC');
    end if;
end
$$;
