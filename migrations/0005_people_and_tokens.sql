-- People and the API tokens they make. Passwords are argon2id; tokens are SHA-256 of 256 random bits.

create table users (
    id            uuid        primary key,
    username      text        not null constraint users_username_key unique check (username = lower(username)),
    email         text,
    role          text        not null check (role in ('admin', 'operator', 'viewer', 'owner')),
    password_hash text        not null,
    created_at    timestamptz not null default now(),
    updated_at    timestamptz not null default now()
);

create table api_tokens (
    id           uuid        primary key,
    name         text        not null,
    hash         bytea       not null constraint api_tokens_hash_key unique check (length(hash) = 32),
    scopes       text[]      not null,
    created_by   uuid        references users (id) on delete cascade,
    created_at   timestamptz not null default now(),
    expires_at   timestamptz,
    last_used_at timestamptz
);
