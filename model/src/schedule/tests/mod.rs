mod clock_changes;
mod parse;
mod year;

use serde_json::{Value, json};

use super::{Definition, Owner, Schedule};
use crate::settings::testing::document;

fn definition(fields: Value) -> Definition {
    Definition::parse(document(fields)).unwrap()
}

/// A device's schedule, its settings left empty unless given.
fn schedule(name: &str, mut fields: Value) -> Schedule {
    let object = fields.as_object_mut().unwrap();
    object.entry("settings").or_insert_with(|| json!({}));
    Schedule {
        owner: Owner::Device,
        name: name.parse().unwrap(),
        definition: definition(fields),
    }
}
