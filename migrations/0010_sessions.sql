-- People stay signed in by a cookie. Only its SHA-256 is kept, so that a copy of the database signs nobody in.

create table sessions (
    id           uuid        primary key,
    hash         bytea       not null constraint sessions_hash_key unique check (length(hash) = 32),
    user_id      uuid        not null references users (id) on delete cascade,
    address      text,
    created_at   timestamptz not null,
    -- to about a minute; idle expiry is counted from here, absolute expiry from `created_at`
    last_used_at timestamptz not null
);
-- Sign-out everywhere.
create index sessions_user on sessions (user_id);
-- A demotion or a deletion ends what a person's tokens opened.
create index api_tokens_created_by on api_tokens (created_by);
