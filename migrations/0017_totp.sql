-- A second factor for people (TOTP, RFC 6238), and people who may not sign in for now.

-- The secret is encrypted with a key that is not in the database, so that a copy of the database makes no codes.
create table totp (
    user_id      uuid        primary key references users (id) on delete cascade,
    sealed       bytea       not null,
    -- null while the person has not shown a code yet
    confirmed_at timestamptz,
    -- the time step of the newest code that was accepted: it, and all before it, are refused (RFC 6238, section 5.2)
    last_step    bigint      not null default 0,
    created_at   timestamptz not null
);

-- For who lost their device: SHA-256 of 80 random bits each, removed when used.
create table recovery_codes (
    user_id uuid  not null references totp (user_id) on delete cascade,
    hash    bytea not null check (length(hash) = 32),
    primary key (user_id, hash)
);

alter table users add column disabled_at timestamptz;
