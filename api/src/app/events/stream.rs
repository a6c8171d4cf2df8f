//! One reader's stream of events: its place in the log, what it wants, and what it may have.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    str::FromStr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use chrono::{DateTime, Utc};
use setpoint_model::{Serial, event::EventType};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{Events, LINGER, Lost, Numbered};
use crate::app::{
    Actor, App, Error,
    policy::{Action, Reach},
    rights::RightsWatch,
};

/// How often a stream asks again what its reader may have.
const REFRESH: Duration = Duration::from_secs(2);

/// The most events handed on at once.
const STEP: usize = 256;

/// The most serials in a filter.
pub const MAX_SERIALS: usize = 1_000;

/// What a reader asks for.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// The types; empty for all that the reader may have.
    pub types: Vec<EventType>,
    /// The devices; empty for all.
    pub serials: HashSet<Serial>,
    /// The group whose devices are wanted.
    pub group: Option<String>,
}

/// A place in the events of one run of one server, written `run-number`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    run: u64,
    number: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{}", self.run, self.number)
    }
}

/// The text is no position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoPosition;

impl FromStr for Position {
    type Err = NoPosition;

    fn from_str(text: &str) -> Result<Self, NoPosition> {
        let (run, number) = text.split_once('-').ok_or(NoPosition)?;
        Ok(Self {
            run: u64::from_str_radix(run, 16).map_err(|_| NoPosition)?,
            number: number.parse().map_err(|_| NoPosition)?,
        })
    }
}

/// Why a stream is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The reader fell behind what is kept.
    TooSlow,
    /// The reader may not have it any more.
    RightsEnded,
}

impl Ended {
    /// Its name in the stream's last event.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooSlow => "too_slow",
            Self::RightsEnded => "rights_ended",
        }
    }
}

/// A reader's stream.
pub struct EventStream {
    app: App,
    actor: Actor,
    rights: RightsWatch,
    wanted: Wanted,
    seen: Seen,
    number: u64,
    newest: watch::Receiver<u64>,
    refresh_at: Instant,
    /// Whether it begins elsewhere than its reader left off.
    gap: bool,
    _open: Open,
}

/// What the reader may have now.
#[derive(Debug, Default)]
struct Seen {
    types: Vec<EventType>,
    /// The only devices, and since when each is theirs.
    own: Option<HashMap<Serial, DateTime<Utc>>>,
    /// The devices of the group, if one was asked for.
    members: Option<HashSet<Serial>>,
}

impl App {
    /// Opens a stream behind `last`, or from now on.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `devices:read`, or for a type whose scope is missing; [`Error::NotFound`] for a
    /// device or group that the reader may not know of; [`Error::Busy`] when too many are open.
    pub async fn open_events(
        &self,
        actor: &Actor,
        wanted: Wanted,
        last: Option<&str>,
    ) -> Result<EventStream, Error> {
        self.authorize(actor, Action::ReadEvents)?;
        for kind in &wanted.types {
            self.authorize(actor, action(*kind))?;
        }
        for serial in &wanted.serials {
            self.authorize_device(actor, Action::ReadEvents, serial).await?;
        }
        let rights = self.watch_rights(actor, Action::ReadEvents).await?;
        let seen = self.seen(actor, &wanted).await?;
        let open = self.events.open(seen.types.contains(&EventType::Telemetry))?;
        let newest = self.events.0.newest.subscribe();
        let now = self.events.logs().number;
        let position = last.map(str::parse::<Position>);
        let (number, gap) = match position {
            None => (now, false),
            Some(Ok(position)) if position.run == self.events.0.run && position.number <= now => {
                (position.number, false)
            }
            Some(_) => (now, true),
        };
        let mut stream = EventStream {
            app: self.clone(),
            actor: actor.clone(),
            rights,
            wanted,
            seen,
            number,
            newest,
            refresh_at: Instant::now() + REFRESH,
            gap,
            _open: open,
        };
        if stream.read().is_err() {
            (stream.number, stream.gap) = (now, true);
        }
        Ok(stream)
    }

    /// What a reader may have of what it wants.
    async fn seen(&self, actor: &Actor, wanted: &Wanted) -> Result<Seen, Error> {
        let reach = self.authorize(actor, Action::ReadEvents)?;
        let readable = |kind: &EventType| actor.reach(action(*kind)) != Reach::None;
        let types = if wanted.types.is_empty() {
            EventType::ALL
        } else {
            &wanted.types
        };
        let own = match (reach, actor.user()) {
            (Reach::All, _) => None,
            (Reach::Own, Some(user)) => Some(self.store.owned_devices(user).await?.into_iter().collect()),
            (Reach::Own | Reach::None, _) => Some(HashMap::new()),
        };
        Ok(Seen {
            types: types.iter().copied().filter(readable).collect(),
            own,
            members: self.members(actor, wanted.group.as_deref()).await?,
        })
    }

    async fn members(&self, actor: &Actor, group: Option<&str>) -> Result<Option<HashSet<Serial>>, Error> {
        let Some(group) = group else { return Ok(None) };
        self.authorize_all(actor, Action::ReadEvents)?;
        let members = self.store.group_serials(group).await?;
        let members = members.ok_or(Error::NotFound { what: "group" })?;
        Ok(Some(members.into_iter().collect()))
    }
}

/// What a reader of these events must be allowed to do.
fn action(kind: EventType) -> Action {
    match kind {
        EventType::Presence | EventType::Commands | EventType::Firmware => Action::ReadEvents,
        EventType::Settings => Action::ReadSettings,
        EventType::Telemetry => Action::ReadTelemetry,
        EventType::Alert => Action::ReadAlerts,
    }
}

impl EventStream {
    /// Whether events were missed between where the reader left off and where this stream begins.
    pub fn has_gap(&self) -> bool {
        self.gap
    }

    /// Where the stream stands.
    pub fn position(&self) -> Position {
        self.position_of(self.number)
    }

    /// Where an event stands.
    pub fn position_of(&self, number: u64) -> Position {
        Position {
            run: self.app.events.0.run,
            number,
        }
    }

    /// The next events, oldest first, at least one. Waits for them; may be dropped and asked again.
    ///
    /// # Errors
    /// [`Ended`].
    pub async fn next(&mut self) -> Result<Vec<Arc<Numbered>>, Ended> {
        loop {
            if Instant::now() >= self.refresh_at {
                self.refresh().await?;
            }
            let found = self.read().map_err(|Lost| {
                self.app.events.0.metrics.slow.inc();
                Ended::TooSlow
            })?;
            if let Some((events, number)) = found {
                self.number = number;
                if !events.is_empty() {
                    return Ok(events);
                }
                continue;
            }
            tokio::select! {
                () = self.rights.ended() => return Err(Ended::RightsEnded),
                changed = self.newest.changed() => if changed.is_err() {
                    return Err(Ended::TooSlow);
                },
                () = sleep_until(self.refresh_at) => {}
            }
        }
    }

    /// What of the log behind the present number the reader gets, and the number up to which that is all; `None` at
    /// the end of the log.
    #[expect(clippy::type_complexity, reason = "named where it is taken apart, once")]
    fn read(&mut self) -> Result<Option<(Vec<Arc<Numbered>>, u64)>, Lost> {
        self.newest.mark_unchanged();
        let logs = self.app.events.logs();
        let end = logs.number;
        if self.number >= end {
            return Ok(None);
        }
        let until = end.min(self.number.saturating_add(STEP as u64));
        let wants = |kind: EventType| self.seen.types.contains(&kind);
        let mut events = Vec::new();
        if self.seen.types.iter().any(|kind| *kind != EventType::Telemetry) {
            events.extend(logs.others.after(self.number, until)?.cloned());
        }
        if wants(EventType::Telemetry) {
            events.extend(logs.telemetry.after(self.number, until)?.cloned());
        }
        drop(logs);
        events.retain(|entry| self.gets(entry));
        events.sort_unstable_by_key(|entry| entry.number);
        Ok(Some((events, until)))
    }

    fn gets(&self, entry: &Numbered) -> bool {
        let event = &entry.event;
        let Seen { types, own, members } = &self.seen;
        let theirs = |own: &HashMap<Serial, DateTime<Utc>>| {
            // What happened before it was theirs is not theirs.
            own.get(&event.serial).is_some_and(|since| event.at >= *since)
        };
        types.contains(&event.kind)
            && (self.wanted.serials.is_empty() || self.wanted.serials.contains(&event.serial))
            && self.rights.sees(&event.serial)
            && own.as_ref().is_none_or(theirs)
            && members
                .as_ref()
                .is_none_or(|members| members.contains(&event.serial))
    }

    /// Asks again what the reader may have. While the database is away what was true holds.
    async fn refresh(&mut self) -> Result<(), Ended> {
        self.refresh_at = Instant::now() + REFRESH;
        match self.app.seen(&self.actor, &self.wanted).await {
            Ok(seen) => self.seen = seen,
            Err(error) if error.is_temporary() || matches!(error, Error::Internal(_)) => {}
            Err(_) => return Err(Ended::RightsEnded),
        }
        let lost = |own: &HashMap<Serial, DateTime<Utc>>| {
            let mut asked = self.wanted.serials.iter();
            asked.any(|serial| !own.contains_key(serial))
        };
        if self.seen.own.as_ref().is_some_and(lost) {
            return Err(Ended::RightsEnded);
        }
        Ok(())
    }
}

/// An open stream, counted until it is dropped.
#[derive(Debug)]
struct Open {
    events: Events,
    telemetry: bool,
}

impl Events {
    fn open(&self, telemetry: bool) -> Result<Open, Error> {
        let metrics = &self.0.metrics;
        let open = Open {
            events: self.clone(),
            telemetry,
        };
        if telemetry {
            self.0.telemetry_readers.fetch_add(1, Ordering::Relaxed);
        }
        let before = metrics.streams.inc();
        if usize::try_from(before).unwrap_or(0) >= self.0.limits.max_streams {
            metrics.refused.inc();
            return Err(Error::Busy {
                what: "streams of live events",
            });
        }
        Ok(open)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let shared = &self.events.0;
        shared.metrics.streams.dec();
        if self.telemetry {
            // A reader that was cut off comes back for what it missed.
            {
                let mut logs = self.events.logs();
                logs.telemetry_until = Some(Instant::now() + LINGER);
                shared.lingering.store(true, Ordering::Release);
            }
            // After that, so that who finds no reader finds this.
            shared.telemetry_readers.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_read_back_as_written() {
        let position = Position {
            run: 0x1f2e,
            number: 42,
        };
        assert_eq!(position.to_string(), "1f2e-42");
        assert_eq!("1f2e-42".parse(), Ok(position));
        for wrong in ["", "42", "x-42", "1f-", "1f--1", "1f-4-2"] {
            assert_eq!(wrong.parse::<Position>(), Err(NoPosition), "{wrong}");
        }
    }
}
