//! Models as one file: export and import.

use serde_json::Value;
use setpoint_model::{
    models::exchange::{File, write},
    settings::{Limits, document},
};
use setpoint_store::models::Model;

use super::{
    change::{ModelChange, NOT_FOUND, known_name},
    plan::{Edit, Plan},
};
use crate::app::{Actor, App, Error, Precondition, policy::Action};

/// Models that are read at once.
const PAGE: i64 = 50;

impl App {
    /// The file of all models, or of those of `names`.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `models:read`; [`Error::NotFound`] for a name that no model has.
    pub async fn export_models(&self, actor: &Actor, names: &[String]) -> Result<Value, Error> {
        self.authorize_all(actor, Action::ReadModels)?;
        let mut models: Vec<Model> = Vec::new();
        if names.is_empty() {
            loop {
                let after = models.last().map_or("", |model| model.name.as_str());
                let page = self.store.models(after, PAGE).await?;
                if page.is_empty() {
                    break;
                }
                models.extend(page);
            }
        } else {
            for name in names {
                let name = known_name(name)?;
                models.push(self.store.model(name.as_str()).await?.ok_or(NOT_FOUND)?);
            }
        }
        models.sort_by(|one, other| one.name.cmp(&other.name));
        models.dedup_by(|one, other| one.name == other.name);
        Ok(write(
            models
                .iter()
                .map(|model| (model.name.as_str(), &model.definition)),
        ))
    }

    /// Makes or replaces the models of a file, all or none; with `dry_run` none, but with the same answer.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `models:write`; [`Error::Malformed`], [`Error::TooLarge`] and [`Error::Invalid`] (by
    /// place); [`Error::Misfits`] for stored values that don't fit.
    pub async fn import_models(
        &self,
        actor: &Actor,
        file: &[u8],
        dry_run: bool,
    ) -> Result<Vec<ModelChange>, Error> {
        self.authorize_all(actor, Action::WriteModels)?;
        let limits = Limits {
            // The largest request is the bound here; each model has its own.
            bytes: usize::MAX,
            depth: self.settings.model_limits.depth.saturating_add(2),
        };
        let file = document::parse(file, limits)?;
        let mut file = File::parse(file).map_err(|errors| Error::Invalid { errors })?;
        let mut plans = Vec::with_capacity(file.models.len());
        for (name, definition) in std::mem::take(&mut file.models) {
            plans.push(Plan {
                migrate: file.migrate.remove(&name).unwrap_or_default(),
                places: [format!("models.{name}."), format!("migrate.{name}.")],
                name,
                edit: Edit::Import(definition),
            });
        }
        self.change_models(actor, &plans, &Precondition::None, dry_run)
            .await
    }
}
