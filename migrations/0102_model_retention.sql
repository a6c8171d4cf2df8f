-- A model may keep the telemetry of its devices for less long than the server does. Seconds; null for `telemetry.retention`.
alter table models add column telemetry_retention integer
    constraint models_telemetry_retention_check check (telemetry_retention >= 86400);
