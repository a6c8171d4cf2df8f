//! A model as OpenAPI 3.1 components: its settings document, a patch of it, and its telemetry.

use serde_json::{Map, Value, json};

use super::{Definition, Name};
use crate::settings::{Document, schema::keywords::READ_ONLY};

/// An OpenAPI document that holds the schemas `{Name}Settings`, `{Name}SettingsPatch` and `{Name}Telemetry`.
pub fn document(name: &Name, version: i32, model: &Definition) -> Value {
    let title = if model.title.is_empty() {
        name.as_str()
    } else {
        &model.title
    };
    let prefix = pascal(name.as_str());
    let mut schemas = Map::new();
    schemas.insert(format!("{prefix}Settings"), settings(&model.settings));
    schemas.insert(format!("{prefix}SettingsPatch"), patch(&model.settings));
    schemas.insert(format!("{prefix}Telemetry"), telemetry(&model.telemetry));
    json!({
        "openapi": "3.1.0",
        "info": {"title": title, "description": model.description, "version": version.to_string()},
        "x-setpoint-model": name.as_str(),
        "paths": {},
        "components": {"schemas": schemas},
    })
}

/// The whole effective document, as a device gets it: what has a default is always there.
fn settings(settings: &Document) -> Value {
    let with_default = |(_, schema): &(&String, &Value)| schema.get("default").is_some();
    let required: Vec<&String> = settings.iter().filter(with_default).map(|(key, _)| key).collect();
    json!({
        "type": "object",
        "description": "The effective settings of a device of this model.",
        "properties": settings,
        "required": required,
        "additionalProperties": false,
    })
}

/// A merge patch: `null` drops what was set on the device itself.
fn patch(settings: &Document) -> Value {
    let writable = settings
        .iter()
        .filter(|(_, schema)| schema.get(READ_ONLY) != Some(&Value::Bool(true)));
    let properties: Document = writable
        .map(|(key, schema)| (key.clone(), json!({"anyOf": [schema, {"type": "null"}]})))
        .collect();
    json!({
        "type": "object",
        "description": "A merge patch (RFC 7396) of a device's own settings; null drops a value.",
        "properties": properties,
        "additionalProperties": false,
    })
}

/// One object of measurements; devices may send metrics that the model doesn't name.
fn telemetry(telemetry: &Document) -> Value {
    let metric = |(name, fields): (&String, &Value)| {
        let mut schema = fields.as_object().cloned().unwrap_or_default();
        schema
            .entry("type")
            .or_insert_with(|| json!(["number", "boolean", "string"]));
        (name.clone(), Value::Object(schema))
    };
    let mut properties: Document = telemetry.iter().map(metric).collect();
    let at = json!({"type": "string", "format": "date-time", "description": "When it was measured; now if left out."});
    properties.insert("at".to_owned(), at);
    json!({
        "type": "object",
        "description": "What a device of this model measures.",
        "properties": properties,
        "additionalProperties": {"type": ["number", "boolean", "string"]},
    })
}

/// `home-v2` as `HomeV2`.
fn pascal(name: &str) -> String {
    let mut begins = true;
    let mut text = String::new();
    for c in name.chars() {
        if c.is_ascii_alphanumeric() {
            text.push(if begins { c.to_ascii_uppercase() } else { c });
            begins = false;
        } else {
            begins = true;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::testing::document as object;

    #[test]
    fn the_three_schemas_of_a_model() {
        let model = Definition::parse(object(json!({
            "title": "Home device",
            "settings": {
                "hardware": {"type": "string", "default": "b", "readOnly": true},
                "label": {"type": "string", "maxLength": 40},
            },
            "telemetry": {"temperature": {"unit": "°C", "title": "Temperature"}},
        })));
        let document = document(&"home-v2".parse().unwrap(), 3, &model.unwrap());
        assert_eq!(
            document["info"],
            json!({"title": "Home device", "description": "", "version": "3"})
        );
        assert_eq!(document["openapi"], "3.1.0");
        let schemas = &document["components"]["schemas"];
        let settings = &schemas["HomeV2Settings"];
        assert_eq!(settings["required"], json!(["hardware"]));
        assert_eq!(
            settings["properties"]["label"],
            json!({"type": "string", "maxLength": 40})
        );
        assert_eq!(
            schemas["HomeV2SettingsPatch"]["properties"],
            json!({"label": {"anyOf": [{"type": "string", "maxLength": 40}, {"type": "null"}]}})
        );
        assert_eq!(
            schemas["HomeV2Telemetry"]["properties"]["temperature"],
            json!({"unit": "°C", "title": "Temperature", "type": ["number", "boolean", "string"]})
        );
        assert_eq!(schemas.as_object().unwrap().len(), 3);
    }
}
