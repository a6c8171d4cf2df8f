//! The layers that a device's settings come from: model default < group < device < schedule.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use serde::{Serialize, Serializer};

use super::{Document, Schema};

/// The layer that a value came from, written `model`, `group:NAME`, `device` or `schedule:NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The model's default.
    Model,
    /// A group the device belongs to.
    Group(String),
    /// Set on the device itself.
    Device,
    /// A schedule that is in force.
    Schedule(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Model => f.write_str("model"),
            Self::Group(name) => write!(f, "group:{name}"),
            Self::Device => f.write_str("device"),
            Self::Schedule(name) => write!(f, "schedule:{name}"),
        }
    }
}

impl Serialize for Origin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The settings of one layer.
#[derive(Debug, Clone)]
pub struct Layer<'a> {
    /// Which layer it is.
    pub origin: Origin,
    /// What it sets.
    pub values: Cow<'a, Document>,
}

impl<'a> Layer<'a> {
    /// The defaults of a model: the lowest layer.
    pub fn model(schema: &Schema) -> Self {
        Self {
            origin: Origin::Model,
            values: Cow::Owned(schema.defaults()),
        }
    }

    /// What was set on the device itself.
    pub fn device(overrides: &'a Document) -> Self {
        Self {
            origin: Origin::Device,
            values: Cow::Borrowed(overrides),
        }
    }
}

/// What a device should run, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effective {
    /// Key to value.
    pub document: Document,
    /// Key to the layer its value came from, as text.
    pub origins: BTreeMap<String, String>,
}

/// Lays the layers over each other, the lowest first: for each key the last layer that has it wins, whole.
pub fn effective<'a>(layers: impl IntoIterator<Item = Layer<'a>>) -> Effective {
    let mut effective = Effective::default();
    for Layer { origin, values } in layers {
        let origin = origin.to_string();
        for (key, value) in values.into_owned() {
            effective.origins.insert(key.clone(), origin.clone());
            effective.document.insert(key, value);
        }
    }
    effective
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::settings::testing::{arbitrary_document, document};

    fn layer(origin: Origin, values: &Document) -> Layer<'_> {
        Layer {
            origin,
            values: Cow::Borrowed(values),
        }
    }

    #[test]
    fn the_upper_layer_wins_and_is_named() {
        let model = document(json!({"a": 1, "b": 1, "c": 1, "d": 1}));
        let group = document(json!({"b": 2, "c": 2, "d": 2}));
        let device = document(json!({"c": 3, "d": 3}));
        let night = document(json!({"d": 4}));
        let result = effective([
            layer(Origin::Model, &model),
            layer(Origin::Group("oslo".into()), &group),
            layer(Origin::Device, &device),
            layer(Origin::Schedule("night".into()), &night),
        ]);
        assert_eq!(result.document, document(json!({"a": 1, "b": 2, "c": 3, "d": 4})));
        let origins = [
            ("a", "model"),
            ("b", "group:oslo"),
            ("c", "device"),
            ("d", "schedule:night"),
        ];
        assert_eq!(
            result.origins,
            origins.map(|(key, origin)| (key.into(), origin.into())).into()
        );
    }

    proptest! {
        #[test]
        fn each_key_comes_from_the_last_layer_that_has_it(layers in prop::collection::vec(arbitrary_document(), 0..5)) {
            let named = layers.iter().enumerate().map(|(n, values)| layer(Origin::Group(n.to_string()), values));
            let result = effective(named);
            prop_assert_eq!(result.document.len(), result.origins.len());
            for key in layers.iter().flat_map(|values| values.keys()) {
                let (n, values) =
                    layers.iter().enumerate().rev().find(|(_, values)| values.contains_key(key)).unwrap();
                prop_assert_eq!(result.document.get(key), values.get(key));
                prop_assert_eq!(&result.origins[key], &format!("group:{n}"));
            }
        }
    }
}
