-- What a webhook is told of an alert that ended with its device has times as everything else: RFC 3339 with a Z.
create or replace function alert_device_gone() returns trigger language plpgsql as $$
begin
    insert into device_events (device_id, at, kind, data)
    select old.id, statement_timestamp(), 'alert_resolved', jsonb_build_object(
               'alert', a.name, 'title', a.title, 'severity', a.severity, 'condition', a.condition,
               'since', rfc3339(s.true_since), 'values', s.values, 'reason', 'device_gone',
               'message', 'the device was deleted or begins anew')
    from alert_states s join alerts a on a.id = s.rule_id where s.device_id = old.id and s.state = 'firing';
    insert into alert_ends (rule_id, serial, values, since)
    select rule_id, old.serial, values, coalesce(true_since, since)
    from alert_states where device_id = old.id and state = 'firing';
    return old;
end
$$;
