-- What the factory knows of serials comes in files of many lines. A file is staged line by line while it arrives, and
-- takes effect as a whole or not at all: a crash at any moment leaves either nothing or an import that is finished later.

-- What a device of this serial is called, and by which groups it is selected, from its first claim on.
alter table factory_serials
    add column name text  not null default '',
    add column tags jsonb not null default '{}' check (jsonb_typeof(tags) = 'object');

create table factory_imports (
    id          uuid        primary key,
    -- receiving -> checking -> done, or refused when a line is wrong
    state       text        not null default 'receiving' check (state in ('receiving', 'checking', 'done', 'refused')),
    -- what a dry run finds is told, and nothing changes
    dry_run     boolean     not null,
    -- who began it, for the audit log
    actor       text        not null,
    user_id     uuid,
    address     text,
    created_at  timestamptz not null,
    ended_at    timestamptz,
    lines       bigint      not null default 0,
    added       bigint      not null default 0,
    replaced    bigint      not null default 0,
    error_count bigint      not null default 0,
    -- the first of them: [{"line":2,"field":"serial","message":"..."}]
    errors      jsonb       not null default '[]'
);
create index factory_imports_waiting on factory_imports (created_at) where state in ('receiving', 'checking');

-- Lines of imports under way; they go with the end of theirs.
create table factory_import_lines (
    import_id   uuid   not null references factory_imports (id) on delete cascade,
    line        bigint not null,
    serial      text   collate "C" not null,
    model       text   not null,
    secret_hash bytea  check (length(secret_hash) = 32),
    name        text   not null,
    tags        jsonb  not null,
    primary key (import_id, line)
);
