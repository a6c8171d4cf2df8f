-- Roll-ups of telemetry by minute and hour, so that a year is read as 8,760 rows and not as half a million.
--
-- They follow the samples by a watermark, a whole minute a little behind now. What is written at or after it needs no
-- note: the sweep that moves it aggregates the whole range at once, in order of time. What is written before it is late,
-- and its series and hour are noted in the transaction of the samples; a reconciler computes those minutes and hours
-- again from the samples. Until then readers take the samples themselves, so that an answer never depends on how far
-- the roll-ups are.

-- The sweep reads by time alone, and the primary key begins with the device. Samples come in order of time or nearly so,
-- which a few bytes per range of pages can tell; an insert hardly notices.
create index telemetry_at on telemetry using brin (at) with (pages_per_range = 32);

-- One series' samples of a minute. Fixed widths in falling order, for no padding.
create table telemetry_minutes (
    device_id   bigint      not null,
    at          timestamptz not null,
    -- the newest sample, of whatever type
    last_at     timestamptz not null,
    last_number double precision,
    -- of numbers, and of booleans as 0 and 1; null when all are texts
    min         double precision,
    max         double precision,
    sum         double precision,
    metric_id   integer     not null,
    -- all samples, and how many of them are numbers or booleans
    samples     integer     not null,
    numbers     integer     not null,
    last_flag   boolean,
    last_text   text,
    primary key (device_id, metric_id, at)
) partition by range (at);
create index telemetry_minutes_at on telemetry_minutes using brin (at) with (pages_per_range = 32);

-- The same of an hour. What aggregates need stands in the index as well: a year of one series is in 80 pages next to each
-- other, and not in 8,760 of them.
create table telemetry_hours (
    device_id   bigint      not null,
    at          timestamptz not null,
    last_at     timestamptz not null,
    last_number double precision,
    min         double precision,
    max         double precision,
    sum         double precision,
    metric_id   integer     not null,
    samples     integer     not null,
    numbers     integer     not null,
    last_flag   boolean,
    last_text   text,
    primary key (device_id, metric_id, at) include (samples, numbers, sum, min, max)
) partition by range (at);

-- Makes the partitions of one month (a date in it), if they aren't there yet.
create function telemetry_make_rollup_partitions(day date) returns void language plpgsql as $$
declare
    first date := date_trunc('month', day::timestamp)::date;
    parent text;
    partition text;
begin
    -- One server at a time.
    perform pg_advisory_xact_lock(hashtext('telemetry_make_partition'));
    foreach parent in array array['telemetry_minutes', 'telemetry_hours'] loop
        partition := parent || '_' || to_char(first, 'YYYYMM');
        if to_regclass(partition) is null then
            execute format('create table %I (like %I including all)', partition, parent);
            execute format(
                'alter table %I attach partition %I for values from (%L) to (%L)', parent, partition,
                first::timestamp at time zone 'UTC', (first + interval '1 month')::timestamp at time zone 'UTC');
        end if;
    end loop;
end
$$;

-- One row: how far the roll-ups are. Who moves anything holds it FOR UPDATE.
create table telemetry_rollup (
    id           boolean     primary key default true check (id),
    -- what is written before this is noted as late
    announced    timestamptz not null,
    -- the minutes before this are made, and the hours that end before it
    rolled       timestamptz not null,
    -- before these, samples, minutes and hours were dropped for their age
    raw_from     timestamptz not null default '0001-01-01T00:00:00Z',
    minutes_from timestamptz not null default '0001-01-01T00:00:00Z',
    hours_from   timestamptz not null default '0001-01-01T00:00:00Z',
    check (rolled <= announced)
);

-- What came late: a part of one hour of one series that is to be computed again. Without a key, so that writers never
-- wait for each other here.
create table telemetry_late (
    device_id bigint      not null,
    metric_id integer     not null,
    since     timestamptz not null,
    until     timestamptz not null
);
create index telemetry_late_of_series on telemetry_late (device_id, metric_id, since);
create index telemetry_late_since on telemetry_late (since);

-- What a writer calls first: it tells from which time on samples need no note, and holds the watermark where it is until
-- the writer's transaction has ended.
create function telemetry_hold() returns timestamptz language plpgsql as $$
begin
    perform pg_advisory_xact_lock_shared(hashtext('telemetry_rollup'));
    -- A statement of its own, and so with a snapshot from after the wait.
    return (select announced from telemetry_rollup);
end
$$;

-- Moves the watermark on: whoever writes before it from now on knows that. False when somebody else is at work on it; the
-- row comes first, so that writers never wait for a sweep.
create function telemetry_announce(until timestamptz) returns boolean language plpgsql as $$
begin
    perform from telemetry_rollup for update skip locked;
    if not found then
        return false;
    end if;
    perform pg_advisory_xact_lock(hashtext('telemetry_rollup'));
    update telemetry_rollup set announced = greatest(announced, until);
    return true;
end
$$;

-- Lets the index by time tell of the newest pages as well. A vacuum at work there is not waited for, nor broken off.
create function telemetry_summarize(day date) returns void language plpgsql set lock_timeout = '200ms' as $$
declare
    index regclass;
begin
    select i.indexrelid into index from pg_index i join pg_class c on c.oid = i.indexrelid join pg_am a on a.oid = c.relam
    where i.indrelid = to_regclass('telemetry_' || to_char(day, 'YYYYMMDD')) and a.amname = 'brin';
    if index is not null then
        perform brin_summarize_new_values(index);
    end if;
exception when lock_not_available then
    null;
end
$$;

do $$
declare
    today date := (now() at time zone 'UTC')::date;
    month timestamptz := date_trunc('month', now() at time zone 'UTC') at time zone 'UTC';
begin
    execute format(
        'create table telemetry_minutes_past partition of telemetry_minutes for values from (minvalue) to (%L)', month);
    execute format(
        'create table telemetry_hours_past partition of telemetry_hours for values from (minvalue) to (%L)', month);
    perform telemetry_make_rollup_partitions(today);
end
$$;

insert into telemetry_rollup (announced, rolled)
select date_trunc('minute', now()), date_trunc('minute', now());

-- What is there already is made up for like late samples.
insert into telemetry_late (device_id, metric_id, since, until)
select device_id, metric_id, hour, hour + interval '1 hour'
from (select distinct device_id, metric_id, date_bin('1 hour', at, '2001-01-01T00:00:00Z') as hour from telemetry) as hours;
