//! Making, changing and deleting rules.

use serde_json::Value;
use setpoint_model::{
    alert::{AlertName, Definition, Scope},
    settings::{Limits, Patch, document},
};
use setpoint_store::alerts::{Rule, RuleChange};

use super::{ListedRule, NOT_FOUND};
use crate::app::{Actor, App, Error, Precondition, policy::Action};

/// How large a rule may be as JSON.
const LIMITS: Limits = Limits {
    bytes: 16 * 1024,
    depth: 4,
};

impl App {
    /// Makes a rule of a JSON object that also names it.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `alerts:write`; [`Error::Malformed`], [`Error::TooLarge`] and [`Error::Invalid`] (by
    /// field); [`Error::Conflict`] with `alert_exists` or `too_many_alerts`.
    pub async fn create_alert(&self, actor: &Actor, fields: &[u8]) -> Result<ListedRule, Error> {
        self.authorize_all(actor, Action::WriteAlerts)?;
        let mut fields = document::parse(fields, LIMITS)?;
        let name = match fields.remove("name") {
            None => Err("is needed".to_owned()),
            Some(Value::String(text)) => text.parse::<AlertName>().map_err(|error| error.to_string()),
            Some(_) => Err("must be a text".to_owned()),
        };
        let (name, rule) = match (name, Definition::parse(fields)) {
            (Ok(name), Ok(rule)) => (name, rule),
            (name, rule) => {
                let mut errors = rule.err().unwrap_or_default();
                errors.extend(name.err().map(|message| ("name".to_owned(), message)));
                return Err(Error::Invalid { errors });
            }
        };
        let mut change = self.store.change_alert_rules().await?;
        if change.rule(name.as_str()).await?.is_some() {
            change.release().await?;
            return Err(Error::Conflict {
                code: "alert_exists",
                message: format!("there is an alert with the name {name} already"),
            });
        }
        self.write_alert(actor, &name, change, None, &rule).await
    }

    /// Makes a rule, or replaces what it says as a whole; whether it was made.
    ///
    /// # Errors
    /// As [`Self::create_alert`]; [`Error::VersionMismatch`].
    pub async fn put_alert(
        &self,
        actor: &Actor,
        name: &AlertName,
        fields: &[u8],
        precondition: &Precondition,
    ) -> Result<(ListedRule, bool), Error> {
        self.authorize_all(actor, Action::WriteAlerts)?;
        let fields = document::parse(fields, LIMITS)?;
        let rule = Definition::parse(fields).map_err(|errors| Error::Invalid { errors })?;
        let mut change = self.store.change_alert_rules().await?;
        let before = change.rule(name.as_str()).await?;
        let judged = match (&before, precondition) {
            (Some(before), precondition) => precondition.check(before.version),
            (None, Precondition::None) => Ok(()),
            (None, Precondition::Version(_)) => Err(NOT_FOUND),
        };
        if let Err(error) = judged {
            change.release().await?;
            return Err(error);
        }
        let is_new = before.is_none();
        let written = self.write_alert(actor, name, change, before, &rule).await?;
        Ok((written, is_new))
    }

    /// Applies a merge patch (RFC 7396) to what a rule says.
    ///
    /// # Errors
    /// As [`Self::put_alert`]; [`Error::NotFound`].
    pub async fn patch_alert(
        &self,
        actor: &Actor,
        name: &AlertName,
        patch: &[u8],
        precondition: &Precondition,
    ) -> Result<ListedRule, Error> {
        self.authorize_all(actor, Action::WriteAlerts)?;
        let patch = Patch::parse(patch, LIMITS)?;
        let mut change = self.store.change_alert_rules().await?;
        let before = change.rule(name.as_str()).await?;
        let patched = match &before {
            None => Err(NOT_FOUND),
            Some(before) => precondition.check(before.version).and_then(|()| {
                let patched = before.definition.patched(&patch);
                patched.map_err(|errors| Error::Invalid { errors })
            }),
        };
        match patched {
            Ok(rule) => self.write_alert(actor, name, change, before, &rule).await,
            Err(error) => {
                change.release().await?;
                Err(error)
            }
        }
    }

    /// Deletes a rule: what fires under it is resolved.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `alerts:write`, [`Error::NotFound`], [`Error::VersionMismatch`].
    pub async fn delete_alert(
        &self,
        actor: &Actor,
        name: &AlertName,
        precondition: &Precondition,
    ) -> Result<(), Error> {
        self.authorize_all(actor, Action::WriteAlerts)?;
        let mut change = self.store.change_alert_rules().await?;
        let before = change.rule(name.as_str()).await?;
        let before = before.ok_or(NOT_FOUND).and_then(|before| {
            precondition.check(before.version)?;
            Ok(before)
        });
        let before = match before {
            Ok(before) => before,
            Err(error) => {
                change.release().await?;
                return Err(error);
            }
        };
        change.delete(&before, self.clock.now()).await?;
        let entry = self.entry(actor, Action::WriteAlerts.name(), object(name));
        change.audit(&entry.before(shown(&before.definition))).await?;
        change.commit().await?;
        self.alerts.changed();
        tracing::info!(alert = %name, by = actor.label(), "alert rule deleted");
        Ok(())
    }

    /// Writes what a rule says, if that changes anything: over `before`, or as a new one without it.
    async fn write_alert(
        &self,
        actor: &Actor,
        name: &AlertName,
        mut change: RuleChange,
        before: Option<Rule>,
        rule: &Definition,
    ) -> Result<ListedRule, Error> {
        if let Some(before) = before.as_ref().filter(|before| before.definition == *rule) {
            let before = before.clone();
            change.release().await?;
            return self.listed_alert(before).await;
        }
        let most = self.alerts.config().max_rules;
        let refusal = if before.is_none() && change.count().await? >= most {
            Some(Error::Conflict {
                code: "too_many_alerts",
                message: format!("there are {most} alerts already: alerts.max_rules"),
            })
        } else if before
            .as_ref()
            .is_none_or(|before| before.definition.scope != rule.scope)
            && !change.knows(&rule.scope).await?
        {
            let what = match rule.scope {
                Scope::Group(_) => "group",
                Scope::Serial(_) => "device",
                Scope::Model(_) | Scope::All => "model",
            };
            Some(Error::invalid("scope", format!("there is no such {what}")))
        } else {
            None
        };
        if let Some(refusal) = refusal {
            change.release().await?;
            return Err(refusal);
        }
        let at = self.clock.now();
        let mut entry = self.entry(actor, Action::WriteAlerts.name(), object(name));
        match &before {
            Some(before) => {
                change.write(before, rule, at).await?;
                entry = entry.before(shown(&before.definition));
            }
            None => change.create(name.as_str(), rule, at).await?,
        }
        change.audit(&entry.after(shown(rule))).await?;
        let written = change.rule(name.as_str()).await?.ok_or(NOT_FOUND)?;
        change.commit().await?;
        // What is sent from now on is judged by it. If that fails now, the task tries again.
        if let Err(error) = self.watch_alerts().await {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "alert rules wait to be read"
            );
        }
        self.alerts.changed();
        tracing::info!(alert = %name, by = actor.label(), "alert rule changed");
        self.listed_alert(written).await
    }
}

fn object(name: &AlertName) -> String {
    format!("alert:{name}")
}

fn shown(rule: &Definition) -> Value {
    Value::Object(rule.to_document())
}
