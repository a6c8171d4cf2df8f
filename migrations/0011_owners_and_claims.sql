-- Devices belong to people: who owns which, how a device is claimed (RFC 8628), and how it is taken back.

-- An owner with `shared_by` was let in by another one, and goes without ending the registration.
create table device_owners (
    device_id bigint      not null constraint device_owners_device_fkey references devices (id) on delete cascade,
    user_id   uuid        not null constraint device_owners_user_fkey references users (id) on delete cascade,
    shared_by uuid        references users (id) on delete set null,
    shared    boolean     not null default false,
    since     timestamptz not null,
    primary key (device_id, user_id)
);
create index device_owners_user on device_owners (user_id, device_id);
-- One registration, many shares.
create unique index device_owners_registrant on device_owners (device_id) where not shared;

-- What the factory knows of a serial. It outlives every generation of the device.
create table factory_serials (
    serial      text        collate "C" primary key,
    model       text        not null constraint factory_serials_model_fkey references models (name),
    -- SHA-256; null where the model demands no secret
    secret_hash bytea       check (length(secret_hash) = 32),
    created_at  timestamptz not null
);

-- Whether a device of this model must show its factory secret to be claimed.
alter table models add column claim_secret boolean not null default false;

-- When it was reported stolen: it is refused, and each attempt is told.
alter table devices add column stolen_at timestamptz;

-- The token before the present one, and how long it still holds.
alter table device_credentials
    add column previous_hash  bytea check (length(previous_hash) = 32),
    add column previous_until timestamptz,
    add constraint device_credentials_previous check ((previous_hash is null) = (previous_until is null));
create index device_credentials_previous_until on device_credentials (previous_until) where previous_until is not null;

-- Claims under way. Both codes are kept as SHA-256, and a row goes when it is used, denied or out of date.
create table claims (
    id               uuid        primary key,
    device_code_hash bytea       not null constraint claims_device_code_key unique check (length(device_code_hash) = 32),
    user_code_hash   bytea       not null constraint claims_user_code_key unique check (length(user_code_hash) = 32),
    serial           text        collate "C" not null,
    -- whether the device showed its factory secret
    proven           boolean     not null,
    address          text,
    state            text        not null default 'pending' check (state in ('pending', 'approved', 'denied')),
    -- of an approved claim: who approved it, and the generation it is for
    user_id          uuid        references users (id) on delete cascade,
    device_id        bigint      references devices (id) on delete cascade,
    created_at       timestamptz not null,
    expires_at       timestamptz not null,
    last_polled_at   timestamptz,
    -- seconds between polls; five more after each that came too early (RFC 8628 section 3.5)
    poll_interval    integer     not null,
    check ((state = 'approved') = (user_id is not null and device_id is not null))
);
create index claims_expires on claims (expires_at);
