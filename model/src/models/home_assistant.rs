//! What Home Assistant is told of a device, so that it finds it by itself: the document of its MQTT discovery for devices.
//!
//! Metrics become sensors, settings become switches, numbers, selections and texts. The templates are Jinja, as Home
//! Assistant renders them; names of metrics and settings have no character that could end a literal in them.

use serde_json::{Value, json};

use super::Definition;
use crate::{
    serial::Serial,
    settings::{Document, schema::keywords},
    telemetry::Kind,
    topic::{Channel, Topic},
};

/// The longest state of an entity, in characters.
const MAX_STATE: u64 = 255;

/// Bounds of a number without bounds of its own; Home Assistant's are 1 and 100.
const UNBOUNDED: f64 = 1e9;

/// A device, as Home Assistant shows it.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a> {
    /// Its serial.
    pub serial: &'a Serial,
    /// Its name; may be empty.
    pub name: &'a str,
    /// Its model's name.
    pub model: &'a str,
}

/// The discovery document of a device.
pub fn document(device: Shown<'_>, definition: &Definition) -> Value {
    let topic = |channel| Topic::new(device.serial.clone(), channel).to_string();
    let or = |text: &str, other: &str| {
        if text.is_empty() {
            other.to_owned()
        } else {
            text.to_owned()
        }
    };
    let mut components = Document::new();
    for (metric, fields) in &definition.telemetry {
        let sensor = sensor(metric, fields, &topic(Channel::Telemetry));
        insert(&mut components, device.serial, "telemetry", metric, sensor);
    }
    for (key, schema) in &definition.settings {
        if let Some(control) = control(
            key,
            schema,
            &topic(Channel::Settings),
            &topic(Channel::SettingsSet),
        ) {
            insert(&mut components, device.serial, "settings", key, control);
        }
    }
    json!({
        "dev": {
            "ids": [format!("setpoint_{}", device.serial)],
            "name": or(device.name, device.serial.as_str()),
            "mdl": or(&definition.title, device.model),
            "mdl_id": device.model,
            "sn": device.serial,
        },
        "o": {"name": "Setpoint", "sw": env!("CARGO_PKG_VERSION")},
        "availability_topic": topic(Channel::Presence),
        "availability_template": "{{ 'online' if value_json.online else 'offline' }}",
        "qos": 1,
        "cmps": components,
    })
}

fn set(component: &mut Document, field: &str, value: impl Into<Value>) {
    component.insert(field.to_owned(), value.into());
}

fn fields_of(object: Value) -> Document {
    match object {
        Value::Object(fields) => fields,
        _ => Document::new(),
    }
}

fn insert(components: &mut Document, serial: &Serial, kind: &str, name: &str, mut component: Document) {
    set(
        &mut component,
        "unique_id",
        format!("setpoint_{serial}_{kind}_{name}"),
    );
    components.insert(format!("{kind}_{name}"), Value::Object(component));
}

/// A metric. A message may be an object or an array of them, and need not have every metric: the last one counts, and
/// without one the state stays.
fn sensor(metric: &str, fields: &Value, state_topic: &str) -> Document {
    let text = |name: &str| {
        fields
            .get(name)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
    };
    let kind = text("type").and_then(|kind| kind.parse::<Kind>().ok());
    let unit = text("unit");
    let newest = |otherwise: &str, shown: &str| {
        format!(
            "{{% set ns = namespace(v={otherwise}) %}}\
             {{% for s in ([value_json] if value_json is mapping else value_json) %}}\
             {{% if s is mapping and '{metric}' in s %}}{{% set ns.v = s['{metric}'] %}}{{% endif %}}\
             {{% endfor %}}{{{{ {shown} }}}}"
        )
    };
    let mut sensor = fields_of(json!({
        "p": "sensor",
        "name": text("title").unwrap_or(metric),
        "state_topic": state_topic,
    }));
    match (kind, unit) {
        // An empty state is passed over.
        (Some(Kind::Boolean), _) => {
            set(&mut sensor, "p", "binary_sensor");
            set(
                &mut sensor,
                "value_template",
                newest("''", "ns.v if ns.v == '' else 'ON' if ns.v else 'OFF'"),
            );
        }
        (Some(Kind::Number), unit) | (None, unit @ Some(_)) => {
            set(&mut sensor, "value_template", newest("''", "ns.v"));
            set(&mut sensor, "state_class", "measurement");
            if let Some(unit) = unit {
                set(&mut sensor, "unit_of_measurement", unit);
                if let Some(class) = device_class(unit) {
                    set(&mut sensor, "device_class", class);
                    // Of an energy there is no measurement, only a total.
                    if class == "energy" {
                        set(&mut sensor, "state_class", "total");
                    }
                }
            }
        }
        (Some(Kind::String) | None, _) => {
            set(&mut sensor, "value_template", newest("this.state", "ns.v"));
        }
    }
    sensor
}

/// What is measured in this unit and nothing else.
fn device_class(unit: &str) -> Option<&'static str> {
    Some(match unit {
        "°C" | "°F" => "temperature",
        "V" | "mV" => "voltage",
        "A" | "mA" => "current",
        "W" | "kW" => "power",
        "Wh" | "kWh" | "MWh" => "energy",
        "VA" => "apparent_power",
        "Hz" | "kHz" | "MHz" | "GHz" => "frequency",
        "Pa" | "hPa" | "kPa" | "bar" | "mbar" | "psi" => "pressure",
        "lx" => "illuminance",
        "dBm" => "signal_strength",
        "ms" | "s" | "min" | "h" | "d" => "duration",
        "cm" | "m" | "km" => "distance",
        "g" | "kg" => "weight",
        _ => return None,
    })
}

/// A setting that can be changed; `None` for one that is read-only, or of a shape that no control has.
fn control(key: &str, schema: &Value, state_topic: &str, command_topic: &str) -> Option<Document> {
    if schema.get(keywords::READ_ONLY) == Some(&Value::Bool(true)) {
        return None;
    }
    let text = |name: &str| {
        schema
            .get(name)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
    };
    let number = |name: &str| schema.get(name).and_then(Value::as_f64);
    let value = |otherwise: &str| format!("{{{{ value_json.settings['{key}'] | default({otherwise}) }}}}");
    let command = |value: &str| format!("{{\"{key}\": {{{{ {value} }}}} }}");
    let mut control = fields_of(json!({
        "name": text("title").unwrap_or(key),
        "entity_category": "config",
        "state_topic": state_topic,
        "command_topic": command_topic,
        "value_template": value("'None'"),
    }));
    let kind = text("type");
    if let Some(choices) = schema.get("enum").and_then(Value::as_array) {
        let texts = choices.iter().all(Value::is_string);
        if choices.is_empty() || !(texts || choices.iter().all(Value::is_number)) {
            return None;
        }
        let shown = |choice: &Value| choice.as_str().map_or_else(|| choice.to_string(), str::to_owned);
        set(&mut control, "p", "select");
        set(
            &mut control,
            "options",
            choices.iter().map(shown).collect::<Vec<_>>(),
        );
        set(
            &mut control,
            "command_template",
            command(if texts { "value | to_json" } else { "value" }),
        );
        return Some(control);
    }
    match kind {
        Some("boolean") => {
            set(&mut control, "p", "switch");
            set(
                &mut control,
                "value_template",
                format!("{{{{ 'ON' if value_json.settings['{key}'] else 'OFF' }}}}"),
            );
            set(&mut control, "state_on", "ON");
            set(&mut control, "state_off", "OFF");
            set(&mut control, "payload_on", json!({key: true}).to_string());
            set(&mut control, "payload_off", json!({key: false}).to_string());
        }
        Some(kind @ ("integer" | "number")) => {
            let whole = kind == "integer";
            let beyond =
                |bound: Option<f64>, step: f64| bound.map(|bound| if whole { bound + step } else { bound });
            let least = number("minimum").or_else(|| beyond(number("exclusiveMinimum"), 1.0));
            let most = number("maximum").or_else(|| beyond(number("exclusiveMaximum"), -1.0));
            let (least, most) = (least.unwrap_or(-UNBOUNDED), most.unwrap_or(UNBOUNDED));
            // One without a choice is refused by Home Assistant.
            if least >= most {
                return None;
            }
            let step = number("multipleOf").unwrap_or(if whole { 1.0 } else { 0.001 });
            set(&mut control, "p", "number");
            set(&mut control, "min", least);
            set(&mut control, "max", most);
            set(&mut control, "step", step.max(0.001));
            set(&mut control, "mode", "box");
            set(&mut control, "command_template", command("value"));
            if let Some(unit) = text(keywords::UNIT) {
                set(&mut control, "unit_of_measurement", unit);
            }
        }
        Some("string") => {
            let length = |name: &str| schema.get(name).and_then(Value::as_u64);
            let (least, most) = (
                length("minLength").unwrap_or(0),
                length("maxLength").unwrap_or(MAX_STATE),
            );
            if least > most.min(MAX_STATE) {
                return None;
            }
            set(&mut control, "p", "text");
            set(&mut control, "min", least);
            set(&mut control, "max", most.min(MAX_STATE));
            set(&mut control, "value_template", value("''"));
            set(&mut control, "command_template", command("value | to_json"));
        }
        _ => return None,
    }
    Some(control)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::testing::document as object;

    fn components(fields: Value) -> Value {
        let definition = Definition::parse(object(fields)).unwrap();
        let serial = "LAMP.1".parse().unwrap();
        let shown = Shown {
            serial: &serial,
            name: "",
            model: "lamp",
        };
        document(shown, &definition)["cmps"].clone()
    }

    #[test]
    fn a_metric_is_a_sensor_of_its_kind() {
        let found = components(json!({"settings": {}, "telemetry": {
            "t": {"unit": "°C", "title": "Temperature"}, "used": {"unit": "kWh"}, "rh": {"unit": "%"},
            "door": {"type": "boolean", "unit": "x"}, "mode": {"type": "string"}, "any": {}, "n": {"type": "number"},
        }}));
        let of = |key: &str, field: &str| found[format!("telemetry_{key}")][field].clone();
        for (key, platform, class, state_class) in [
            ("t", "sensor", json!("temperature"), json!("measurement")),
            ("used", "sensor", json!("energy"), json!("total")),
            ("rh", "sensor", Value::Null, json!("measurement")),
            ("door", "binary_sensor", Value::Null, Value::Null),
            ("mode", "sensor", Value::Null, Value::Null),
            ("any", "sensor", Value::Null, Value::Null),
            ("n", "sensor", Value::Null, json!("measurement")),
        ] {
            assert_eq!(of(key, "p"), platform, "{key}");
            assert_eq!(of(key, "device_class"), class, "{key}");
            assert_eq!(of(key, "state_class"), state_class, "{key}");
            assert_eq!(of(key, "unique_id"), format!("setpoint_LAMP.1_telemetry_{key}"));
            assert_eq!(of(key, "state_topic"), "devices/LAMP.1/telemetry");
        }
        assert_eq!(
            (of("t", "name"), of("any", "name")),
            (json!("Temperature"), json!("any"))
        );
        assert_eq!(of("t", "unit_of_measurement"), "°C");
        assert_eq!(of("door", "unit_of_measurement"), Value::Null);
    }

    #[test]
    fn a_setting_is_the_control_that_fits() {
        let found = components(json!({"settings": {
            "on": {"type": "boolean"},
            "level": {"type": "integer", "minimum": 0, "exclusiveMaximum": 100, "unit": "%", "title": "Level"},
            "free": {"type": "number"},
            "mode": {"enum": ["a", "b"]},
            "baud": {"type": "integer", "enum": [9600, 115200]},
            "mixed": {"enum": [1, "a"]},
            "label": {"type": "string", "minLength": 1, "maxLength": 4000},
            "list": {"type": "array"},
            "fixed": {"type": "integer", "minimum": 5, "maximum": 5},
            "made": {"type": "string", "default": "x", "readOnly": true},
        }}));
        let of = |key: &str| found[format!("settings_{key}")].clone();
        for key in ["mixed", "list", "fixed", "made"] {
            assert_eq!(of(key), Value::Null, "{key} has no control");
        }
        let switch = of("on");
        assert_eq!(
            (&switch["p"], &switch["payload_on"]),
            (&json!("switch"), &json!("{\"on\":true}"))
        );
        let level = of("level");
        assert_eq!(
            (
                &level["p"],
                &level["min"],
                &level["max"],
                &level["step"],
                &level["unit_of_measurement"]
            ),
            (
                &json!("number"),
                &json!(0.0),
                &json!(99.0),
                &json!(1.0),
                &json!("%")
            )
        );
        assert_eq!(level["command_template"], "{\"level\": {{ value }} }");
        assert_eq!(
            (&of("free")["min"], &of("free")["step"]),
            (&json!(-1e9), &json!(0.001))
        );
        assert_eq!(of("mode")["options"], json!(["a", "b"]));
        assert_eq!(
            of("mode")["command_template"],
            "{\"mode\": {{ value | to_json }} }"
        );
        assert_eq!(of("baud")["options"], json!(["9600", "115200"]));
        assert_eq!(of("baud")["command_template"], "{\"baud\": {{ value }} }");
        assert_eq!(
            (&of("label")["p"], &of("label")["max"]),
            (&json!("text"), &json!(255))
        );
    }
}
