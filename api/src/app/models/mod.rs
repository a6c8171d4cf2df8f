//! Models: product types and their compiled settings schemas.

mod change;
mod exchange;
mod misfits;
mod plan;
mod stored;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use setpoint_model::{
    models::{component, header::header},
    settings::{Document, KeyErrors, Schema, schema},
};
use setpoint_store::{
    models::{Model, ModelVersion},
    settings::LockedSettings,
};

use super::{Actor, App, Error, FieldErrors, policy::Action};
use change::{NOT_FOUND, known_name};

pub use change::ModelChange;
pub use misfits::{MisfitDevice, MisfitGroup, MisfitSchedule, Misfits};

/// The most schemas kept compiled.
const MAX_COMPILED: usize = 256;

/// Models read at once where all are needed.
const PAGE: i64 = 100;

/// Compiled schemas by model. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Schemas(Arc<Mutex<Compiled>>);

/// A model's name to the version that was compiled, and its schema.
type Compiled = HashMap<String, (i32, Arc<Schema>)>;

impl Schemas {
    fn get(&self, model: &str, version: i32) -> Option<Arc<Schema>> {
        let compiled = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        compiled
            .get(model)
            .filter(|(known, _)| *known == version)
            .map(|(_, schema)| Arc::clone(schema))
    }

    fn compile(&self, model: &Model) -> Result<Arc<Schema>, Error> {
        let schema = Arc::new(Schema::compile(&model.definition.settings).map_err(Error::internal)?);
        let mut compiled = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if compiled.len() >= MAX_COMPILED {
            compiled.clear();
        }
        compiled.insert(model.name.clone(), (model.version, Arc::clone(&schema)));
        Ok(schema)
    }
}

impl App {
    /// A page of models by name, those behind `after`.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `models:read`.
    pub async fn models(&self, actor: &Actor, after: &str, limit: i64) -> Result<Vec<Model>, Error> {
        self.authorize_all(actor, Action::ReadModels)?;
        Ok(self.store.models(after, limit).await?)
    }

    /// One model.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `models:read`, [`Error::NotFound`].
    pub async fn model(&self, actor: &Actor, name: &str) -> Result<Model, Error> {
        self.authorize_all(actor, Action::ReadModels)?;
        self.store
            .model(known_name(name)?.as_str())
            .await?
            .ok_or(NOT_FOUND)
    }

    /// A page of a model's versions, newest first: those below `before`.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `models:read`, [`Error::NotFound`].
    pub async fn model_versions(
        &self,
        actor: &Actor,
        name: &str,
        before: Option<i32>,
        limit: i64,
    ) -> Result<Vec<ModelVersion>, Error> {
        let model = self.model(actor, name).await?;
        Ok(self.store.model_versions(&model.name, before, limit).await?)
    }

    /// One version of a model.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `models:read`, [`Error::NotFound`].
    pub async fn model_version(
        &self,
        actor: &Actor,
        name: &str,
        version: i32,
    ) -> Result<ModelVersion, Error> {
        let model = self.model(actor, name).await?;
        let version = self.store.one_model_version(&model.name, version).await?;
        version.ok_or(Error::NotFound { what: "version" })
    }

    /// The C header of a model, for its firmware.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `models:read`, [`Error::NotFound`].
    pub async fn model_header(&self, actor: &Actor, name: &str) -> Result<String, Error> {
        let model = self.model(actor, name).await?;
        Ok(header(&known_name(name)?, model.version, &model.definition))
    }

    /// The OpenAPI components of a model.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `models:read`, [`Error::NotFound`].
    pub async fn model_component(&self, actor: &Actor, name: &str) -> Result<serde_json::Value, Error> {
        let model = self.model(actor, name).await?;
        Ok(component::document(
            &known_name(name)?,
            model.version,
            &model.definition,
        ))
    }

    /// The present schema of a model; `None` if there is no such model.
    pub(super) async fn schema(&self, model: &str) -> Result<Option<Arc<Schema>>, Error> {
        let Some(version) = self.store.model_version(model).await? else {
            return Ok(None);
        };
        if let Some(schema) = self.settings.schemas.get(model, version) {
            return Ok(Some(schema));
        }
        let model = self.store.model(model).await?;
        model
            .map(|model| self.settings.schemas.compile(&model))
            .transpose()
    }

    /// The compiled schema of a model that was read.
    pub(super) fn compiled(&self, model: &Model) -> Result<Arc<Schema>, Error> {
        let known = self.settings.schemas.get(&model.name, model.version);
        known.map_or_else(|| self.settings.schemas.compile(model), Ok)
    }

    /// The present schemas of all models.
    pub(super) async fn every_schema(&self) -> Result<Vec<Arc<Schema>>, Error> {
        let (mut schemas, mut after) = (Vec::new(), String::new());
        loop {
            let models = self.store.models(&after, PAGE).await?;
            for model in &models {
                schemas.push(self.compiled(model)?);
            }
            match models.into_iter().last() {
                Some(last) => after = last.name,
                None => return Ok(schemas),
            }
        }
    }

    /// The schema of this version of a model, for devices that are locked.
    pub(super) async fn schema_of(
        &self,
        locked: &mut LockedSettings,
        model: &str,
        version: i32,
    ) -> Result<Arc<Schema>, Error> {
        if let Some(schema) = self.settings.schemas.get(model, version) {
            return Ok(schema);
        }
        let model = locked
            .model(model)
            .await?
            .ok_or(Error::NotFound { what: "model" })?;
        self.settings.schemas.compile(&model)
    }
}

/// Checks settings for devices of more than one model: each must be known and valid for at least one of `schemas`. They
/// stay as they are, since each model has its own way to write them.
pub(super) fn check_any(schemas: &[Arc<Schema>], settings: Document) -> Result<Document, KeyErrors> {
    let mut wrong = KeyErrors::new();
    for (key, value) in &settings {
        let alone = || Document::from_iter([(key.clone(), value.clone())]);
        // The first model that knows the setting says best what is wrong with its value.
        let mut refusals = Vec::new();
        let known = schemas.iter().filter(|schema| schema.contains(key));
        let valid = known
            .map(|schema| schema.check(alone()))
            .any(|checked| match checked {
                Ok(_) => true,
                Err(mut errors) => {
                    refusals.extend(errors.remove(key));
                    false
                }
            });
        if !valid {
            let first = refusals.into_iter().next();
            wrong.insert(key.clone(), first.unwrap_or_else(|| schema::UNKNOWN.to_owned()));
        }
    }
    if wrong.is_empty() {
        Ok(settings)
    } else {
        Err(wrong)
    }
}

/// What is wrong with settings, as fields of what they are a part of: `settings.KEY`.
pub(super) fn of_settings(errors: KeyErrors) -> FieldErrors {
    let field = |(key, message)| (format!("settings.{key}"), message);
    errors.into_iter().map(field).collect()
}
