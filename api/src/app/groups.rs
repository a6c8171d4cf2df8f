//! Groups: devices selected by their tags, with settings that they inherit.
//!
//! A change is committed with a mark that says from where the reconciler (`tasks::settings_layers`) has to go through
//! devices; the use case rings it and answers.

use serde_json::Value;
use setpoint_model::{
    GroupName,
    group::GroupDescription,
    settings::{Limits, Patch, document},
};
use setpoint_store::groups::{Group, LockedGroup};

use super::{
    Actor, App, Error, Precondition,
    models::{check_any, of_settings},
    policy::Action,
};

/// How large a group may be as JSON beside its settings, and how much deeper.
const AROUND_SETTINGS: Limits = Limits {
    bytes: 16 * 1024,
    depth: 1,
};

/// How often a change that ran into another one is tried in all.
const ATTEMPTS: usize = 3;

const NOT_FOUND: Error = Error::NotFound { what: "group" };

impl App {
    /// A page of groups by name, those behind `after`.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `groups:read`.
    pub async fn groups(&self, actor: &Actor, after: &str, limit: i64) -> Result<Vec<Group>, Error> {
        self.authorize_all(actor, Action::ReadGroups)?;
        Ok(self.store.groups(after, limit, self.clock.now()).await?)
    }

    /// One group.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `groups:read`, [`Error::NotFound`].
    pub async fn group(&self, actor: &Actor, name: &GroupName) -> Result<Group, Error> {
        self.authorize_all(actor, Action::ReadGroups)?;
        self.store
            .group(name.as_str(), self.clock.now())
            .await?
            .ok_or(NOT_FOUND)
    }

    /// Makes a group of a JSON object that also names it.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `groups:write`; [`Error::Malformed`], [`Error::TooLarge`] and [`Error::Invalid`] (by
    /// field; a setting as `settings.KEY`); [`Error::Conflict`] with `group_exists` or `too_many_groups`.
    pub async fn create_group(&self, actor: &Actor, fields: &[u8]) -> Result<Group, Error> {
        self.authorize_all(actor, Action::WriteGroups)?;
        let mut fields = document::parse(fields, self.group_limits())?;
        let name = match fields.remove("name") {
            None => Err("is needed".to_owned()),
            Some(Value::String(text)) => text.parse::<GroupName>().map_err(|error| error.to_string()),
            Some(_) => Err("must be a text".to_owned()),
        };
        let description = GroupDescription::parse(fields);
        let (name, description) = match (name, description) {
            (Ok(name), Ok(description)) => (name, description),
            (name, description) => {
                let mut errors = description.err().unwrap_or_default();
                errors.extend(name.err().map(|message| ("name".to_owned(), message)));
                return Err(Error::Invalid { errors });
            }
        };
        let description = self.judged_group(description).await?;
        match self.write_group(actor, &name, None, &description).await? {
            Some(group) => Ok(group),
            None => Err(Error::Conflict {
                code: "group_exists",
                message: format!("there is a group with the name {name} already"),
            }),
        }
    }

    /// Makes a group, or replaces what it says as a whole; whether it was made.
    ///
    /// # Errors
    /// As [`Self::create_group`]; [`Error::VersionMismatch`].
    pub async fn put_group(
        &self,
        actor: &Actor,
        name: &GroupName,
        fields: &[u8],
        precondition: &Precondition,
    ) -> Result<(Group, bool), Error> {
        self.authorize_all(actor, Action::WriteGroups)?;
        let fields = document::parse(fields, self.group_limits())?;
        let description = GroupDescription::parse(fields).map_err(|errors| Error::Invalid { errors })?;
        let description = self.judged_group(description).await?;
        for _ in 0..ATTEMPTS {
            let before = self.store.group(name.as_str(), self.clock.now()).await?;
            match (&before, precondition) {
                (Some(before), precondition) => precondition.check(before.version)?,
                (None, Precondition::None) => {}
                (None, Precondition::Version(_)) => return Err(NOT_FOUND),
            }
            if let Some(group) = self
                .write_group(actor, name, before.as_ref(), &description)
                .await?
            {
                return Ok((group, before.is_none()));
            }
        }
        Err(crowded())
    }

    /// Applies a merge patch (RFC 7396) to what a group says; `null` for a setting drops it here.
    ///
    /// # Errors
    /// As [`Self::put_group`]; [`Error::NotFound`].
    pub async fn patch_group(
        &self,
        actor: &Actor,
        name: &GroupName,
        patch: &[u8],
        precondition: &Precondition,
    ) -> Result<Group, Error> {
        self.authorize_all(actor, Action::WriteGroups)?;
        let patch = Patch::parse(patch, self.group_limits())?;
        for _ in 0..ATTEMPTS {
            let before = self
                .store
                .group(name.as_str(), self.clock.now())
                .await?
                .ok_or(NOT_FOUND)?;
            precondition.check(before.version)?;
            let patched = before.description.patched(&patch);
            let patched = patched.map_err(|errors| Error::Invalid { errors })?;
            let patched = self.judged_group(patched).await?;
            if let Some(group) = self.write_group(actor, name, Some(&before), &patched).await? {
                return Ok(group);
            }
        }
        Err(crowded())
    }

    /// Deletes a group: its members inherit nothing more from it.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `groups:write`, [`Error::NotFound`], [`Error::VersionMismatch`].
    pub async fn delete_group(
        &self,
        actor: &Actor,
        name: &GroupName,
        precondition: &Precondition,
    ) -> Result<(), Error> {
        self.authorize_all(actor, Action::WriteGroups)?;
        for _ in 0..ATTEMPTS {
            let before = self
                .store
                .group(name.as_str(), self.clock.now())
                .await?
                .ok_or(NOT_FOUND)?;
            precondition.check(before.version)?;
            let mut locked = self.store.lock_group(name.as_str()).await?;
            let at = self.clock.now();
            if locked
                .delete(name.as_str(), before.version, &actor.label(), at)
                .await?
            {
                self.finish_group(actor, name, locked, Some(&before.description), None)
                    .await?;
                tracing::info!(group = %name, by = actor.label(), "group deleted");
                return Ok(());
            }
        }
        Err(crowded())
    }

    /// Writes what a group says, if that changes anything: over `before`, or as a new group without it. `None` if the group
    /// was changed meanwhile.
    async fn write_group(
        &self,
        actor: &Actor,
        name: &GroupName,
        before: Option<&Group>,
        description: &GroupDescription,
    ) -> Result<Option<Group>, Error> {
        if let Some(before) = before.filter(|before| before.description == *description) {
            return Ok(Some(before.clone()));
        }
        let mut locked = self.store.lock_group(name.as_str()).await?;
        let (at, by) = (self.clock.now(), actor.label());
        let written = match before {
            Some(before) => {
                locked
                    .write(name.as_str(), before.version, description, &by, at)
                    .await?
            }
            None => {
                let most = self.settings.max_groups;
                let made = locked.create(name.as_str(), description, most, &by, at).await?;
                made.ok_or_else(|| Error::Conflict {
                    code: "too_many_groups",
                    message: format!("there are {most} groups already: settings.max_groups"),
                })?
            }
        };
        if !written {
            return Ok(None);
        }
        let earlier = before.map(|before| &before.description);
        self.finish_group(actor, name, locked, earlier, Some(description))
            .await?;
        tracing::info!(group = %name, by, "group changed");
        self.store
            .group(name.as_str(), self.clock.now())
            .await?
            .ok_or(NOT_FOUND)
            .map(Some)
    }

    /// Commits a change of a group with its entry in the audit log, and has its members follow.
    async fn finish_group(
        &self,
        actor: &Actor,
        name: &GroupName,
        mut locked: LockedGroup,
        before: Option<&GroupDescription>,
        after: Option<&GroupDescription>,
    ) -> Result<(), Error> {
        let shown = |description: &GroupDescription| Value::Object(description.to_document());
        let mut entry = self.entry(actor, Action::WriteGroups.name(), format!("group:{name}"));
        if let Some(before) = before {
            entry = entry.before(shown(before));
        }
        if let Some(after) = after {
            entry = entry.after(shown(after));
        }
        locked.audit(&entry).await?;
        locked.commit().await?;
        self.hints.layers.everything();
        Ok(())
    }

    /// The description, if each of its settings is known to some model and accepted by it.
    ///
    /// A group may have members of several models: for each the settings count that its model knows and accepts.
    async fn judged_group(&self, description: GroupDescription) -> Result<GroupDescription, Error> {
        let limit = self.settings.limits.bytes;
        let size = serde_json::to_vec(&description.settings)
            .map_err(Error::internal)?
            .len();
        if size > limit {
            return Err(Error::TooLarge { limit });
        }
        let schemas = self.every_schema().await?;
        let checked = check_any(&schemas, description.settings);
        let settings = checked.map_err(|errors| Error::Invalid {
            errors: of_settings(errors),
        })?;
        Ok(GroupDescription {
            settings,
            ..description
        })
    }

    fn group_limits(&self) -> Limits {
        let Limits { bytes, depth } = self.settings.limits;
        Limits {
            bytes: bytes.saturating_add(AROUND_SETTINGS.bytes),
            depth: depth.saturating_add(AROUND_SETTINGS.depth),
        }
    }
}

/// Others kept changing the same group.
fn crowded() -> Error {
    Error::Conflict {
        code: "group_changed",
        message: "the group was changed meanwhile; try again".to_owned(),
    }
}
