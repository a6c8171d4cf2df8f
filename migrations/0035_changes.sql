-- Bulk changes: one patch for many devices, in stages, and what became of it on each of them.
--
-- The devices are fixed when a change begins. A device's version and its row here are written in one transaction, so
-- that a crash leaves neither without the other; who works on a change holds its row in `changes`.

create table changes (
    id              uuid             primary key,
    -- canary, waves, settling, paused, aborted, cancelled, completed, undoing, undone
    state           text             not null,
    -- where a change that runs or is paused stands: canary, waves, settling
    stage           text,
    patch           jsonb            not null,
    -- how its devices were selected: {"selector"}, {"group"} or {"serials": how many}
    selection       jsonb            not null,
    selected        integer          not null default 0,
    -- as it was asked for: a count or a percentage
    canary          text,
    -- the last place of the canary
    canary_end      integer,
    rate_per_minute integer          check (rate_per_minute > 0),
    refused_percent double precision not null,
    pending_percent double precision not null,
    after_ms        bigint           not null,
    actor           text             not null,
    -- who has it taken back
    undo_actor      text,
    -- why it stopped itself
    reason          text,
    created_at      timestamptz      not null,
    finished_at     timestamptz,
    -- when the pace allows the next device
    next_at         timestamptz,
    -- when the answers were last looked at
    looked_at       timestamptz,
    -- when there is something to do again; null when there is nothing
    due_at          timestamptz
);
create index changes_due on changes (due_at) where due_at is not null;

create table change_devices (
    change_id  uuid        not null references changes (id) on delete cascade,
    -- the order in which devices get it, from 0
    place      integer     not null,
    -- no foreign key: the record outlives the device
    device_id  bigint      not null,
    serial     text        collate "C" not null,
    -- waiting, invalid, unchanged, pending, synced, refused, superseded, gone, undone, kept
    state      text        not null,
    message    text,
    -- the version that it made, and the keys that changed by it
    version    bigint,
    keys       text[],
    -- the overrides of the patch's keys before and after; null where nothing was written
    before     jsonb,
    after      jsonb,
    changed_at timestamptz,
    primary key (change_id, place)
);
create index change_devices_state on change_devices (change_id, state, place);

-- What devices say now of the versions that changes made. A key that has a later version since was changed by
-- somebody else; one that left the document is in place with the acknowledgement of that version or a later one.
create view change_answers as
select c.change_id, c.place, c.state as noted, c.changed_at,
       case when s.device_id is null then 'gone'
            when c.state = 'refused' and key.state <> 'synced' then 'refused'
            else key.state end as state,
       case when c.state = 'refused' then coalesce(key.message, c.message) else key.message end as message
from change_devices c
left join device_settings s on s.device_id = c.device_id
cross join lateral (
    select case when bool_or(own and status ->> 'state' = 'refused') then 'refused'
                when bool_or(own and status ->> 'state' = 'pending') then 'pending'
                when bool_or(own) then 'synced'
                when bool_or(status is not null) then 'superseded'
                when s.reported_version >= c.version then 'synced'
                else 'pending' end as state,
           string_agg(name || ': ' || (status ->> 'message'), '; ' order by name)
               filter (where own and status ->> 'state' <> 'synced' and status ->> 'message' is not null) as message
    from unnest(c.keys) as k (name)
    cross join lateral (select s.status -> name as status) as found
    cross join lateral (select (status ->> 'version')::bigint = c.version as own) as judged
) key
where c.state in ('pending', 'refused');
