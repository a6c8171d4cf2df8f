-- Every version of a model, with what changed and who changed it: a change of a schema reaches a whole fleet.

alter table models add column description text not null default '';

create table model_versions (
    -- no foreign key: versions outlive their model, and one made again under its name goes on with the next
    model            text        not null,
    version          integer     not null,
    actor            text        not null,
    at               timestamptz not null,
    -- all of the model, in the form of export and import
    definition       jsonb       not null,
    -- field -> {"from", "to"}; within `settings` and `telemetry` key -> {"from", "to"}
    diff             jsonb       not null,
    -- setting key -> what replaced stored values that didn't fit any more; null for nothing
    migrate          jsonb,
    migrated_devices bigint      not null default 0,
    primary key (model, version)
);

insert into model_versions (model, version, actor, at, definition, diff)
select name, version, 'system:migration', updated_at, definition,
       (select jsonb_object_agg(key, jsonb_build_object('from', null, 'to', value)) from jsonb_each(definition))
from models cross join lateral jsonb_build_object(
    'title', title, 'description', description, 'settings', settings, 'telemetry', telemetry,
    'claim_secret', claim_secret, 'settings_expected_within', settings_expected_within) as definition;
