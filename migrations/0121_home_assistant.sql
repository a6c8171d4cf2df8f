-- Home Assistant is told of the devices of a model that asks for it. What it is told follows the device's name and its
-- model, so each server hears of both, the one that made the change too: it keeps what it told in memory.
alter table models add column home_assistant boolean not null default false;

create or replace function device_described() returns trigger language plpgsql as $$
declare
    device devices := coalesce(new, old);
begin
    -- Of the many devices that are made and go, only those that Home Assistant knows matter.
    if tg_op = 'UPDATE' or exists (select from models m where m.name = device.model and m.home_assistant) then
        perform pg_notify('setpoint', '- device ' || device.serial);
    end if;
    return null;
end
$$;
create trigger device_made_or_gone after insert or delete on devices for each row execute function device_described();

create or replace function model_changed() returns trigger language plpgsql as $$
begin
    perform pg_notify('setpoint', '- model ' || new.name);
    return null;
end
$$;
