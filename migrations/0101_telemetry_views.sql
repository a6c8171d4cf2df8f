-- Views for readers such as Grafana: a stable schema (docs/grafana.md) over tables that may change, and a role that can
-- read these and nothing else.

-- Where the roll-ups end. IMMUTABLE is not true, and on purpose: the planner then puts the time itself into the plan and
-- leaves out the partitions before it. A plan that is kept reads a little more of the samples and stays right.
create function telemetry_rolled() returns timestamptz language sql immutable parallel safe security definer
    set search_path from current as $$ select rolled from telemetry_rollup $$;
create function telemetry_hours_rolled() returns timestamptz language sql immutable parallel safe security definer
    set search_path from current as $$
    select date_bin('1 hour', rolled, '2001-01-01T00:00:00Z') from telemetry_rollup
$$;

create view telemetry_raw as
select t.at, d.serial, m.name as metric, coalesce(t.number, t.flag::int) as value, t.flag, t.text
from telemetry t join devices d on d.id = t.device_id join metrics m on m.id = t.metric_id;

-- Minutes up to this moment: what is rolled up, and behind it the samples. Each half joins by itself, so that a device and
-- a metric are looked for by index in both.
create view telemetry_minutes_until_now as
select b.at, d.serial, m.name as metric, b.samples::bigint, b.numbers::bigint, b.sum, b.min, b.max, b.last_at,
       coalesce(b.last_number, b.last_flag::int) as last, b.last_text
from telemetry_minutes b join devices d on d.id = b.device_id join metrics m on m.id = b.metric_id
where b.at < telemetry_rolled()
union all
select date_bin('1 minute', t.at, '2001-01-01T00:00:00Z') as at, d.serial, m.name as metric,
       count(*), count(t.number) + count(t.flag),
       sum(least(greatest(coalesce(t.number, t.flag::int), -1e290), 1e290)) filter (where t.text is null),
       min(coalesce(t.number, t.flag::int)), max(coalesce(t.number, t.flag::int)), max(t.at),
       (array_agg(coalesce(t.number, t.flag::int) order by t.at desc))[1], (array_agg(t.text order by t.at desc))[1]
from telemetry t join devices d on d.id = t.device_id join metrics m on m.id = t.metric_id
where t.at >= telemetry_rolled()
group by 1, 2, 3;

create view telemetry_1m as
select at, serial, metric, samples as count, sum / nullif(numbers, 0) as mean, min, max, sum, last, last_text, last_at
from telemetry_minutes_until_now;

create view telemetry_1h as
select b.at, d.serial, m.name as metric, b.samples::bigint as count, b.sum / nullif(b.numbers, 0) as mean, b.min, b.max,
       b.sum, coalesce(b.last_number, b.last_flag::int) as last, b.last_text, b.last_at
from telemetry_hours b join devices d on d.id = b.device_id join metrics m on m.id = b.metric_id
where b.at < telemetry_hours_rolled()
union all
select date_bin('1 hour', at, '2001-01-01T00:00:00Z') as at, serial, metric,
       sum(samples)::bigint, sum(sum) / nullif(sum(numbers), 0)::double precision, min(min), max(max), sum(sum),
       (array_agg(last order by last_at desc))[1], (array_agg(last_text order by last_at desc))[1], max(last_at)
from telemetry_minutes_until_now where at >= telemetry_hours_rolled()
group by 1, 2, 3;

create view devices_latest as
select d.serial, d.name, d.model, d.tags, coalesce(p.online, false) as online, p.last_seen,
       coalesce(l.latest, '{}') as latest, coalesce(l.latest_at, '{}') as latest_at
from devices d
left join device_presence p on p.device_id = d.id
left join lateral (
    select jsonb_object_agg(m.name, coalesce(to_jsonb(v.number), to_jsonb(v.flag), to_jsonb(v.text))) as latest,
           jsonb_object_agg(m.name, v.at) as latest_at
    from device_metrics dm join metrics m on m.id = dm.metric_id
    cross join lateral (
        select at, number, flag, text from (
            (select t.at, t.number, t.flag, t.text from telemetry t
             where t.device_id = dm.device_id and t.metric_id = dm.metric_id and t.at >= telemetry_rolled()
             order by t.at desc limit 1)
            union all
            (select b.last_at, b.last_number, b.last_flag, b.last_text from telemetry_minutes b
             where b.device_id = dm.device_id and b.metric_id = dm.metric_id
               and b.at >= telemetry_hours_rolled() and b.at < telemetry_rolled()
             order by b.at desc limit 1)
            union all
            (select b.last_at, b.last_number, b.last_flag, b.last_text from telemetry_hours b
             where b.device_id = dm.device_id and b.metric_id = dm.metric_id and b.at < telemetry_hours_rolled()
             order by b.at desc limit 1)
        ) as newest order by at desc limit 1) v
    where dm.device_id = d.id) l on true;

-- Lets the role `setpoint_reader` read the views. It makes the role if it may; false when there is none and it may not.
-- Called here and at every start: a backup that was restored on another server has no rights in it.
create function grant_reader() returns boolean language plpgsql as $$
declare
    view text;
begin
    if not exists (select from pg_roles where rolname = 'setpoint_reader') then
        begin
            create role setpoint_reader nologin;
        exception
            when insufficient_privilege then
                return false;
            -- Another database of this server was as quick.
            when duplicate_object or unique_violation then
                null;
        end;
    end if;
    perform pg_advisory_xact_lock(hashtext('grant_reader'));
    if not has_schema_privilege('setpoint_reader', current_schema(), 'usage') then
        execute format('grant usage on schema %I to setpoint_reader', current_schema());
    end if;
    foreach view in array array['telemetry_raw', 'telemetry_1m', 'telemetry_1h', 'devices_latest'] loop
        if not has_table_privilege('setpoint_reader', view, 'select') then
            execute format('grant select on %I to setpoint_reader', view);
        end if;
    end loop;
    return true;
end
$$;
do $$ begin perform grant_reader(); end $$;
