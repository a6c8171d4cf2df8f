-- A metric of a device has one type, as columns of any time-series database have: the one that its model declares, or else
-- that of its first sample. What is null (a metric from before this migration) is decided by the next sample.
alter table device_metrics add column type text
    constraint device_metrics_type_check check (type in ('number', 'boolean', 'string'));

-- Every server remembers what devices are and what their models say; whoever changes either tells the others, as
-- migration 0015 does for rights.
create function device_described() returns trigger language plpgsql as $$
begin
    perform tell_servers('device', new.serial);
    return null;
end
$$;
create trigger device_described after update of name, model on devices for each row
    when (old.name is distinct from new.name or old.model is distinct from new.model)
    execute function device_described();

create function model_changed() returns trigger language plpgsql as $$
begin
    perform tell_servers('model', new.name);
    return null;
end
$$;
create trigger model_changed after update on models for each row
    when (old.version is distinct from new.version) execute function model_changed();
