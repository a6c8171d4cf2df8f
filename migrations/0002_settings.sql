-- Settings: what each device should run, what it says it runs, and the history in between.

create table device_settings (
    device_id         bigint      primary key references devices (id) on delete cascade,
    version           bigint      not null check (version >= 1),
    -- where this device's versions begin: above 1 when the serial had another device before
    first_version     bigint      not null check (first_version between 1 and version),
    -- what was set on the device itself; the effective document adds what it inherits
    overrides         jsonb       not null default '{}',
    document          jsonb       not null,
    -- key -> the layer its effective value came from
    origins           jsonb       not null default '{}',
    -- key -> {"state", "since", "message", "version"}: see model::settings::status
    status            jsonb       not null default '{}',
    reported          jsonb,
    reported_version  bigint,
    reported_at       timestamptz,
    -- how far the publisher has come; behind `version` means that work is waiting
    published_version bigint      not null default 0,
    updated_at        timestamptz not null default now()
-- room on each page for the updates that follow: acknowledgements, delivery marks
) with (fillfactor = 80);
-- The publisher's work list: nearly always empty.
create index device_settings_unpublished on device_settings (device_id) where published_version < version;

create table settings_versions (
    device_id     bigint      not null references devices (id) on delete cascade,
    version       bigint      not null,
    actor         text        not null,
    -- created, rest, page, mqtt, schedule, group, bulk, revert, model
    source        text        not null,
    at            timestamptz not null,
    -- key -> {"from", "to"} of the effective document
    diff          jsonb       not null,
    -- what was set on the device itself, for a revert; the document can be told from the diffs
    overrides     jsonb       not null,
    published_at  timestamptz,
    delivered_at  timestamptz,
    applied_at    timestamptz,
    refused_at    timestamptz,
    superseded_at timestamptz,
    -- key -> {"code", "message"} as the device sent them
    errors        jsonb,
    primary key (device_id, version)
) with (fillfactor = 80);
