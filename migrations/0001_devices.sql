-- Devices, the models (product types) they belong to, and their credentials.
--
-- `devices.id` is the device's generation: a serial that is deleted and made again gets a new id, so nothing
-- of the former device can be seen through the new one. `retired_serials` remembers how far the settings
-- versions of a deleted serial went, because versions never fall.

create table models (
    name        text        primary key check (name ~ '^[a-z0-9][a-z0-9_.-]{0,63}$'),
    title       text        not null default '',
    -- setting key -> JSON Schema 2020-12 of its value
    settings    jsonb       not null default '{}',
    -- metric name -> {"unit": ..., "title": ...}
    telemetry   jsonb       not null default '{}',
    version     integer     not null default 1,
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now()
);

create table devices (
    id          bigint      generated always as identity primary key,
    serial      text        collate "C" not null constraint devices_serial_key unique,
    name        text        not null default '',
    model       text        not null constraint devices_model_fkey references models (name),
    tags        jsonb       not null default '{}',
    time_zone   text        not null default 'UTC',
    -- a text or an object such as {"latitude": 59.9, "longitude": 10.7}
    location    jsonb,
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now()
);
-- Groups select devices by tag.
create index devices_tags on devices using gin (tags jsonb_path_ops);
create index devices_model on devices (model, serial);

create table retired_serials (
    serial           text   collate "C" primary key,
    settings_version bigint not null
);

-- SHA-256 of 256 random bits; no row means that the device can't sign in.
create table device_credentials (
    device_id  bigint      primary key references devices (id) on delete cascade,
    hash       bytea       not null check (length(hash) = 32),
    created_at timestamptz not null default now()
);

-- Devices whose telemetry is still to be removed after their deletion, by a background task in small steps.
create table purges (
    device_id    bigint      primary key,
    requested_at timestamptz not null default now()
);

-- The built-in model: the old prototype's home device.
insert into models (name, title, settings, telemetry) values (
    'home',
    'Home device',
    '{
        "privacyMode":     {"type": "boolean", "default": false, "title": "Privacy mode"},
        "reportInterval":  {"type": "integer", "minimum": 10, "maximum": 3600, "default": 60, "title": "Report interval", "unit": "s"},
        "temperatureUnit": {"type": "string", "enum": ["celsius", "fahrenheit"], "default": "celsius", "title": "Temperature unit"},
        "label":           {"type": "string", "maxLength": 40, "default": "", "title": "Label"}
    }',
    '{
        "temperature": {"unit": "°C", "title": "Temperature"},
        "humidity":    {"unit": "%", "title": "Relative humidity"}
    }'
);
