//! What is to become of a model, before it is known what is there.

use setpoint_model::{
    models::{Definition, Name},
    settings::Document,
};
use setpoint_store::models::Model;

use super::change::NOT_FOUND;
use crate::app::{Error, FieldErrors};

/// What is to become of a model.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) name: Name,
    pub(super) edit: Edit,
    /// Setting key to what replaces a stored value that doesn't fit any more; null for nothing.
    pub(super) migrate: Document,
    /// What stands before the name of a field that is wrong, and of one of `migrate`.
    pub(super) places: [String; 2],
}

/// A way to change a model.
#[derive(Debug, Clone)]
pub(super) enum Edit {
    /// Make it; there must be none.
    Create(Definition),
    /// Replace it; there must be one.
    Replace(Definition),
    /// Merge this patch into it; there must be one.
    Patch(Document),
    /// Make or replace it.
    Import(Definition),
}

impl Plan {
    pub(super) fn new(name: Name, edit: Edit, migrate: Document) -> Self {
        Self {
            name,
            edit,
            migrate,
            places: [String::new(), "migrate.".to_owned()],
        }
    }

    /// What the model is to be.
    pub(super) fn after(&self, before: Option<&Model>) -> Result<Definition, Error> {
        match (&self.edit, before) {
            (Edit::Create(_), Some(_)) => Err(exists(self.name.as_str())),
            (Edit::Replace(_) | Edit::Patch(_), None) => Err(NOT_FOUND),
            (Edit::Create(definition) | Edit::Replace(definition) | Edit::Import(definition), _) => {
                Ok(definition.clone())
            }
            (Edit::Patch(patch), Some(model)) => model
                .definition
                .patched(patch)
                .map_err(|errors| self.invalid(errors)),
        }
    }

    /// Fields of the model that are wrong.
    pub(super) fn invalid(&self, errors: FieldErrors) -> Error {
        let [place, _] = &self.places;
        placed(place, errors)
    }

    /// Values of `migrate` that are wrong.
    pub(super) fn invalid_values(&self, errors: FieldErrors) -> Error {
        let [_, place] = &self.places;
        placed(place, errors)
    }
}

fn placed(place: &str, errors: FieldErrors) -> Error {
    let errors = errors.into_iter();
    Error::Invalid {
        errors: errors
            .map(|(field, message)| (format!("{place}{field}"), message))
            .collect(),
    }
}

pub(super) fn exists(name: &str) -> Error {
    Error::Conflict {
        code: "model_exists",
        message: format!("there is a model called {name} already"),
    }
}
