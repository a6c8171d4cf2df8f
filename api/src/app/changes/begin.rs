//! Beginning a change: select, judge, write down, commit, hint.

use std::{collections::HashMap, time::Duration};

use serde_json::json;
use setpoint_model::{
    Serial,
    change::{Abort, Canary, Outcome, plan::REFUSED_PERCENT},
    settings::{Document, Patch, Source},
};
use setpoint_store::changes::{NewChange, SelectedDevice};
use tokio::sync::SemaphorePermit;

use super::{
    Actor, App, ChangeProgress, Changes, Error, Selection,
    judge::{Author, Judged, Judgement},
    object,
    select::{Pages, unknown},
};
use crate::app::{policy::Action, settings::patched, tokens::new_id};

/// How often judging devices is tried that somebody else is at work on in another order.
const ATTEMPTS: usize = 3;

/// A change as it was asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct ChangeRequest {
    /// For which devices.
    pub selection: Selection,
    /// The merge patch.
    pub patch: Document,
    /// How many get it first.
    pub canary: Option<Canary>,
    /// How many devices a minute get it after those, from 1; as fast as possible without.
    pub rate_per_minute: Option<u32>,
    /// When it stops itself.
    pub abort: Thresholds,
}

/// When a change stops itself, as far as it was said.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Thresholds {
    /// More than this share of the devices that have it refused it; 10 percent unless said.
    pub refused_percent: Option<f64>,
    /// More than this share of them did not answer in time; 100 percent, which never is more, unless said.
    pub pending_percent: Option<f64>,
    /// How long a device has for its answer; `bulk_changes.answer_within` unless said.
    pub after: Option<Duration>,
}

impl Changes {
    /// A place among the selections under way.
    pub(super) async fn selection(&self) -> Result<SemaphorePermit<'_>, Error> {
        self.selections.acquire().await.map_err(|_| Error::Stopping)
    }

    fn abort(&self, thresholds: Thresholds) -> Abort {
        Abort {
            refused_percent: thresholds.refused_percent.unwrap_or(REFUSED_PERCENT),
            pending_percent: thresholds.pending_percent.unwrap_or(100.0),
            after: thresholds.after.unwrap_or(self.config.answer_within),
        }
    }
}

impl App {
    /// Whether the actor may begin a change: to be told before anything of what is wrong with it.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `settings:write` for all devices.
    pub fn authorize_change(&self, actor: &Actor) -> Result<(), Error> {
        self.authorize_all(actor, Action::WriteChanges)
    }

    /// Begins a change. Its devices are those that the selection means now.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `settings:write` for all devices; [`Error::Invalid`] for a selection of nothing, of
    /// too much or of what doesn't exist, and (by key) for a patch that is valid for none of the devices;
    /// [`Error::Conflict`] when too many changes are open.
    pub async fn begin_change(
        &self,
        actor: &Actor,
        request: &ChangeRequest,
    ) -> Result<ChangeProgress, Error> {
        self.authorize_change(actor)?;
        self.require_room(self.store.open_changes().await?)?;
        let _permit = self.changes.selection().await?;
        let at = self.clock.now();
        let new = self.new_change(actor, request);
        let id = new.id;
        let mut devices = self.judge_selection(actor, request).await?;
        let mut draft = self.store.draft_change(&new).await?;
        let mut fit = 0_usize;
        let mut refusal = None;
        while let Some(batch) = devices.next(self).await? {
            let selected: Vec<SelectedDevice> = batch.iter().map(selected).collect();
            fit += selected
                .iter()
                .filter(|device| device.outcome != Outcome::Invalid)
                .count();
            draft.add(&selected).await?;
            refusal = refusal.or(batch.into_iter().find_map(Judged::refusal));
        }
        if let (0, Some(refusal)) = (fit, refusal) {
            return Err(refusal);
        }
        let entry = self.entry(actor, "change.begin", object(id));
        let entry = entry.after(json!({
            "selection": new.selection, "settings": new.patch, "selected": devices.seen, "canary": new.canary,
            "rate_per_minute": new.rate_per_minute,
        }));
        let begun = draft
            .begin(request.canary, self.changes.config.max_open, at, &entry)
            .await?;
        let Some(state) = begun else {
            return Err(self.no_room());
        };
        if !state.is_open() {
            self.changes.ended(state);
        }
        tracing::info!(change = %id, devices = devices.seen, by = new.actor, "bulk change begun");
        self.hints.changes.everything();
        self.progress(id).await
    }

    fn new_change(&self, actor: &Actor, request: &ChangeRequest) -> NewChange {
        let at = self.clock.now();
        NewChange {
            id: new_id(at),
            patch: request.patch.clone(),
            selection: request.selection.to_json(),
            canary: request.canary.map(|canary| canary.to_string()),
            rate_per_minute: request
                .rate_per_minute
                .map(|rate| i32::try_from(rate).unwrap_or(i32::MAX)),
            abort: self.changes.abort(request.abort),
            actor: actor.label(),
            at,
        }
    }

    fn require_room(&self, open: i64) -> Result<(), Error> {
        if open < self.changes.config.max_open {
            Ok(())
        } else {
            Err(self.no_room())
        }
    }

    fn no_room(&self) -> Error {
        let most = self.changes.config.max_open;
        Error::Conflict {
            code: "too_many_changes",
            message: format!("{most} bulk changes run or are paused already: let one end, or cancel it"),
        }
    }

    /// The devices of a request, judged batch by batch.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an empty patch or an unknown group, [`Error::TooLarge`].
    pub(super) async fn judge_selection(
        &self,
        actor: &Actor,
        request: &ChangeRequest,
    ) -> Result<JudgedPages, Error> {
        if request.patch.is_empty() {
            return Err(Error::invalid("settings", "names no setting"));
        }
        let limit = self.settings.limits.bytes;
        if serde_json::to_vec(&request.patch).map_err(Error::internal)?.len() > limit {
            return Err(Error::TooLarge { limit });
        }
        Ok(JudgedPages {
            pages: self.pages(&request.selection).await?,
            field: request.selection.field(),
            patch: Patch::from(request.patch.clone()),
            actor: actor.label(),
            seen: 0,
        })
    }
}

/// The devices of a request, judged batch by batch.
pub(super) struct JudgedPages {
    pages: Pages,
    field: &'static str,
    patch: Patch,
    actor: String,
    /// How many there were so far.
    pub(super) seen: usize,
}

impl JudgedPages {
    /// The next batch; `None` at the end.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there is no device at all, too many, or none of a listed serial.
    pub(super) async fn next(&mut self, app: &App) -> Result<Option<Vec<Judged>>, Error> {
        loop {
            let serials = self.pages.next(app).await?;
            if serials.is_empty() {
                return match self.seen {
                    0 => Err(Error::invalid(self.field, "selects no device")),
                    _ => Ok(None),
                };
            }
            let judged = self.judge(app, &serials).await?;
            let mut by_serial: HashMap<_, _> = judged
                .into_iter()
                .map(|judged| (judged.settings.serial.clone(), judged))
                .collect();
            let (mut batch, mut missing) = (Vec::with_capacity(serials.len()), Vec::new());
            for serial in serials {
                match by_serial.remove(&serial) {
                    Some(judged) => batch.push(judged),
                    None => missing.push(serial),
                }
            }
            // Of those that a selector means, one may have been deleted a moment ago.
            if matches!(self.pages, Pages::Listed(_)) && !missing.is_empty() {
                return Err(unknown(&missing));
            }
            self.seen += batch.len();
            let most = app.changes.config.max_devices;
            if self.seen > most {
                let message = format!("selects more than {most} devices");
                return Err(Error::invalid(self.field, message));
            }
            if !batch.is_empty() {
                return Ok(Some(batch));
            }
        }
    }
}

impl JudgedPages {
    /// Judges these devices under their locks, which are let go again.
    async fn judge(&self, app: &App, serials: &[Serial]) -> Result<Vec<Judged>, Error> {
        let mut attempt = 1;
        loop {
            match self.judge_once(app, serials).await {
                Err(error) if error.is_contended() && attempt < ATTEMPTS => attempt += 1,
                result => return result,
            }
        }
    }

    async fn judge_once(&self, app: &App, serials: &[Serial]) -> Result<Vec<Judged>, Error> {
        let names: Vec<&str> = serials.iter().map(Serial::as_str).collect();
        let mut locked = app.store.lock_settings(&names).await?;
        let author = Author {
            actor: &self.actor,
            source: Source::Bulk,
        };
        let edit = |settings: &_, schema: &_| patched(settings, schema, &self.patch);
        let judged = app.judge_devices(&mut locked, author, edit).await?;
        locked.release().await?;
        Ok(judged)
    }
}

impl Judged {
    /// What is wrong with the patch for it, in the terms of a request.
    fn refusal(self) -> Option<Error> {
        match self.judgement {
            Judgement::Invalid(error) => Some(error),
            _ => None,
        }
    }
}

fn selected(judged: &Judged) -> SelectedDevice {
    let (outcome, message) = match &judged.judgement {
        Judgement::Invalid(error) => (Outcome::Invalid, Some(error.sentence())),
        Judgement::Nothing => (Outcome::Unchanged, None),
        // Its override is to be written, though it makes no version.
        Judgement::Overrides(_) | Judgement::Version(_) => (Outcome::Waiting, None),
    };
    SelectedDevice {
        device_id: judged.settings.device_id,
        serial: judged.settings.serial.clone(),
        outcome,
        message,
    }
}
