//! Changing models: every way leads through [`App::change_models`].
//!
//! The models are locked against the changes of settings that are judged by them, so that no value can slip in that the
//! new schema doesn't take; what is stored already is judged page by page.

use setpoint_model::{
    models::{Definition, Migration, Name, changed_settings, diff, sides},
    settings::{Document, Schema, document},
};
use setpoint_store::models::{LockedModels, Model, NewModelVersion};

use super::{
    misfits::Misfits,
    plan::{Edit, Plan, exists},
    stored::Stored,
};
use crate::app::{Actor, App, Error, FieldErrors, Precondition, policy::Action};

/// How often a change that ran into another transaction is tried in all.
const ATTEMPTS: usize = 3;

/// What became of a model.
#[derive(Debug, Clone)]
pub struct ModelChange {
    /// The model as it is now.
    pub model: Model,
    /// Whether it was there before.
    pub existed: bool,
    /// What changed; empty if nothing did.
    pub diff: Document,
    /// How many devices had values that were replaced.
    pub migrated_devices: i64,
}

impl App {
    /// Makes a model of a JSON object: `name`, `settings` and what else a definition has.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `models:write`; [`Error::Malformed`], [`Error::TooLarge`] and [`Error::Invalid`] (by
    /// field); [`Error::Conflict`] with `model_exists`.
    pub async fn create_model(&self, actor: &Actor, fields: &[u8]) -> Result<Model, Error> {
        self.authorize_all(actor, Action::WriteModels)?;
        let mut fields = document::parse(fields, self.settings.model_limits)?;
        let name = match fields.remove("name") {
            None => Err("is needed".to_owned()),
            Some(serde_json::Value::String(name)) => name.parse().map_err(|error| format!("{error}")),
            Some(_) => Err("must be a text".to_owned()),
        };
        let (name, definition) = match (name, Definition::parse(fields)) {
            (Ok(name), Ok(definition)) => (name, definition),
            (name, definition) => {
                let mut errors = definition.err().unwrap_or_default();
                if let Err(message) = name {
                    errors.insert("name".to_owned(), message);
                }
                return Err(Error::Invalid { errors });
            }
        };
        let plan = Plan::new(name, Edit::Create(definition), Document::new());
        self.change_model(actor, plan, &Precondition::None, false).await
    }

    /// Replaces a model as a whole. What is stored must fit the new schema, or be migrated by `migrate`.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `models:write`, [`Error::NotFound`], [`Error::VersionMismatch`]; [`Error::Malformed`],
    /// [`Error::TooLarge`] and [`Error::Invalid`] (by field); [`Error::Misfits`] for stored values that don't fit.
    pub async fn replace_model(
        &self,
        actor: &Actor,
        name: &str,
        fields: &[u8],
        precondition: &Precondition,
        dry_run: bool,
    ) -> Result<Model, Error> {
        self.authorize_all(actor, Action::WriteModels)?;
        let mut fields = document::parse(fields, self.settings.model_limits)?;
        let name = known_name(name)?;
        let migrate = migration(&mut fields)?;
        // What GET shows beside the definition may be sent back.
        for shown in ["version", "created_at", "updated_at"] {
            fields.remove(shown);
        }
        if fields.get("name").and_then(serde_json::Value::as_str) == Some(name.as_str()) {
            fields.remove("name");
        }
        let definition = Definition::parse(fields).map_err(|errors| Error::Invalid { errors })?;
        let plan = Plan::new(name, Edit::Replace(definition), migrate);
        self.change_model(actor, plan, precondition, dry_run).await
    }

    /// Applies a merge patch (RFC 7396) to a model; `migrate` in it is as for [`Self::replace_model`].
    ///
    /// # Errors
    /// As [`Self::replace_model`].
    pub async fn patch_model(
        &self,
        actor: &Actor,
        name: &str,
        patch: &[u8],
        precondition: &Precondition,
        dry_run: bool,
    ) -> Result<Model, Error> {
        self.authorize_all(actor, Action::WriteModels)?;
        let mut patch = document::parse(patch, self.settings.model_limits)?;
        let name = known_name(name)?;
        let migrate = migration(&mut patch)?;
        let plan = Plan::new(name, Edit::Patch(patch), migrate);
        self.change_model(actor, plan, precondition, dry_run).await
    }

    /// Removes a model that no device is of; its versions stay.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `models:write`, [`Error::NotFound`], [`Error::VersionMismatch`];
    /// [`Error::Conflict`] with `model_in_use`.
    pub async fn delete_model(
        &self,
        actor: &Actor,
        name: &str,
        precondition: &Precondition,
    ) -> Result<(), Error> {
        self.authorize_all(actor, Action::WriteModels)?;
        let name = known_name(name)?;
        let mut locked = self.store.lock_models(&[name.as_str()]).await?;
        let model = locked.model(name.as_str()).cloned().ok_or(NOT_FOUND)?;
        precondition.check(model.version.into())?;
        let devices = locked.device_count(name.as_str()).await?;
        if devices > 0 {
            let are = if devices == 1 { "device is" } else { "devices are" };
            return Err(in_use(format!("{devices} {are} of this model")));
        }
        let entry = self.entry(actor, "model.delete", object(&name));
        locked
            .audit(&entry.before(model.definition.to_document().into()))
            .await?;
        locked
            .delete(name.as_str())
            .await
            .map_err(|error| match error.constraint() {
                Some("devices_model_fkey") => in_use("a device is of this model".to_owned()),
                Some("factory_serials_model_fkey") => {
                    in_use("the factory has made serials of this model".to_owned())
                }
                _ => error.into(),
            })?;
        locked.commit().await?;
        tracing::info!(model = %name, by = actor.label(), "model deleted");
        Ok(())
    }

    async fn change_model(
        &self,
        actor: &Actor,
        plan: Plan,
        precondition: &Precondition,
        dry_run: bool,
    ) -> Result<Model, Error> {
        let changes = self.change_models(actor, &[plan], precondition, dry_run).await?;
        let change = changes.into_iter().next();
        change.map(|change| change.model).ok_or(NOT_FOUND)
    }

    /// Changes models, all or none; with `dry_run` none, but with the same answer.
    pub(super) async fn change_models(
        &self,
        actor: &Actor,
        plans: &[Plan],
        precondition: &Precondition,
        dry_run: bool,
    ) -> Result<Vec<ModelChange>, Error> {
        let mut attempt = 1;
        loop {
            match self.change_models_once(actor, plans, precondition, dry_run).await {
                Err(error) if error.is_contended() && attempt < ATTEMPTS => attempt += 1,
                result => return result,
            }
        }
    }

    async fn change_models_once(
        &self,
        actor: &Actor,
        plans: &[Plan],
        precondition: &Precondition,
        dry_run: bool,
    ) -> Result<Vec<ModelChange>, Error> {
        let names: Vec<&str> = plans.iter().map(|plan| plan.name.as_str()).collect();
        let mut locked = self.store.lock_models(&names).await?;
        let mut misfits = Misfits::default();
        let mut changes = Vec::with_capacity(plans.len());
        for plan in plans {
            let before = locked.model(plan.name.as_str()).cloned();
            if let Some(model) = &before {
                precondition.check(model.version.into())?;
            }
            let after = plan.after(before.as_ref())?;
            let change = self.write_model(&mut locked, actor, plan, before, after, &mut misfits);
            changes.push(change.await?);
        }
        if !misfits.is_empty() {
            return Err(Error::Misfits(Box::new(misfits)));
        }
        if dry_run || changes.iter().all(|change| change.diff.is_empty()) {
            locked.release().await?;
            return Ok(changes);
        }
        locked.commit().await?;
        self.hints.layers.everything();
        for change in changes.iter().filter(|change| !change.diff.is_empty()) {
            let (model, version) = (&change.model.name, change.model.version);
            if change.diff.contains_key("telemetry") {
                self.ingest.refresh_model(model);
            }
            tracing::info!(model, version, by = actor.label(), "model changed");
        }
        Ok(changes)
    }

    /// Judges what is stored, and writes the model's next version with what follows from it.
    async fn write_model(
        &self,
        locked: &mut LockedModels,
        actor: &Actor,
        plan: &Plan,
        before: Option<Model>,
        definition: Definition,
        misfits: &mut Misfits,
    ) -> Result<ModelChange, Error> {
        let at = self.clock.now();
        let (schema, changed) = self.judged(plan, before.as_ref(), &definition)?;
        let migration =
            Migration::new(&schema, &changed, &plan.migrate).map_err(|errors| plan.invalid_values(errors))?;
        let difference = diff(before.as_ref().map(|model| &model.definition), &definition);
        if let Some(model) = before.clone().filter(|_| difference.is_empty()) {
            return Ok(ModelChange {
                model,
                existed: true,
                diff: difference,
                migrated_devices: 0,
            });
        }
        let name = plan.name.as_str();
        let label = actor.label();
        let stored = Stored {
            model: name,
            changed: &changed,
            migration: &migration,
            actor: &label,
            at,
        };
        let migrated_devices = stored.migrate_devices(locked, misfits).await?;
        if let Some(before) = &before {
            stored.migrate_layers(locked, &before.definition, misfits).await?;
        }
        let next = NewModelVersion {
            name,
            definition: &definition,
            diff: &difference,
            migrate: (!plan.migrate.is_empty()).then_some(&plan.migrate),
            migrated_devices,
            actor: &label,
            at,
        };
        let (version, entry) = match &before {
            None => {
                let version = locked.insert(&next).await.map_err(|error| taken(error, name))?;
                let entry = self.entry(actor, "model.create", object(&plan.name));
                (version, entry.after(definition.to_document().into()))
            }
            Some(_) => {
                let version = locked.update(&next).await?;
                let documents = ["settings", "schedules_in_document"];
                if documents.iter().any(|field| difference.contains_key(*field)) {
                    locked.mark_due(name, &label, at).await?;
                }
                let entry = self.entry(actor, "model.update", object(&plan.name));
                let (from, to) = sides(&difference);
                (version, entry.before(from.into()).after(to.into()))
            }
        };
        locked.audit(&entry).await?;
        let model = Model {
            name: name.to_owned(),
            definition,
            version,
            created_at: before.as_ref().map_or(at, |model| model.created_at),
            updated_at: at,
        };
        Ok(ModelChange {
            model,
            existed: before.is_some(),
            diff: difference,
            migrated_devices,
        })
    }

    /// The compiled schema, and the settings whose stored values it may not take.
    fn judged(
        &self,
        plan: &Plan,
        before: Option<&Model>,
        after: &Definition,
    ) -> Result<(Schema, Vec<String>), Error> {
        let schema = Schema::compile(&after.settings).map_err(Error::internal)?;
        let larger = |document: &Document, limit: usize| {
            serde_json::to_vec(document)
                .map(|text| text.len() > limit)
                .map_err(Error::internal)
        };
        let (whole, defaults) = (self.settings.model_limits.bytes, self.settings.limits.bytes);
        let message = if larger(&after.to_document(), whole)? {
            format!("the model is larger than {whole} bytes")
        } else if larger(&schema.defaults(), defaults)? {
            format!("the defaults are larger than {defaults} bytes, the most a device may have")
        } else {
            String::new()
        };
        if !message.is_empty() {
            return Err(plan.invalid(FieldErrors::from([("settings".to_owned(), message)])));
        }
        // A shorter one of the server's comes first anyway, whatever was agreed before.
        let longest = self.ingest.retention().num_seconds();
        if before.is_none_or(|before| before.definition.telemetry_retention != after.telemetry_retention)
            && after
                .telemetry_retention
                .is_some_and(|seconds| i64::from(seconds) > longest)
        {
            let message = format!("at most {longest}, for which this server keeps telemetry");
            let errors = FieldErrors::from([("telemetry_retention".to_owned(), message)]);
            return Err(plan.invalid(errors));
        }
        let changed = before.map_or_else(Vec::new, |before| changed_settings(&before.definition, after));
        Ok((schema, changed))
    }
}

/// Takes `migrate` out of a body.
fn migration(fields: &mut Document) -> Result<Document, Error> {
    match fields.remove("migrate") {
        None | Some(serde_json::Value::Null) => Ok(Document::new()),
        Some(serde_json::Value::Object(values)) => Ok(values),
        Some(_) => Err(Error::invalid(
            "migrate",
            "must be an object: setting key to value or null",
        )),
    }
}

/// A name from a path, which names nothing that exists unless it is well-formed.
pub(super) fn known_name(name: &str) -> Result<Name, Error> {
    name.parse().map_err(|_| NOT_FOUND)
}

pub(super) const NOT_FOUND: Error = Error::NotFound { what: "model" };

/// How the audit log names a model.
fn object(name: &Name) -> String {
    format!("model:{name}")
}

fn taken(error: setpoint_store::Error, name: &str) -> Error {
    match error.constraint() {
        Some("models_pkey") => exists(name),
        _ => error.into(),
    }
}

fn in_use(message: String) -> Error {
    Error::Conflict {
        code: "model_in_use",
        message,
    }
}
