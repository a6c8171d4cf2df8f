//! Which devices a change is for: page by page, so that a fleet of any size is gone through in bounded memory.

use std::collections::HashSet;

use serde_json::{Value, json};
use setpoint_model::{DeviceId, Selector, Serial};

use super::{App, BATCH, Error};

/// The most serials that a message names.
const MAX_NAMED: usize = 10;

/// Which devices a change is for.
#[derive(Debug, Clone, PartialEq)]
pub enum Selection {
    /// Those that this means by their tags.
    Selector(Selector),
    /// Those that belong to this group.
    Group(String),
    /// These.
    Serials(Vec<Serial>),
}

impl Selection {
    /// The field of a request that it came from.
    pub(super) fn field(&self) -> &'static str {
        match self {
            Self::Selector(_) => "selector",
            Self::Group(_) => "group",
            Self::Serials(_) => "serials",
        }
    }

    /// How the change tells it; of serials only how many there are.
    pub(super) fn to_json(&self) -> Value {
        match self {
            Self::Selector(selector) => json!({"selector": selector.to_string()}),
            Self::Group(name) => json!({"group": name}),
            Self::Serials(serials) => json!({"serials": serials.len()}),
        }
    }
}

/// The devices of a selection, in the order in which they get the change.
#[derive(Debug)]
pub(super) enum Pages {
    /// Those that a selector means, by age.
    Matching(Selector, DeviceId),
    /// Those that were listed, in their order, the rest reversed.
    Listed(Vec<Serial>),
}

impl Pages {
    /// The next batch; empty at the end.
    pub(super) async fn next(&mut self, app: &App) -> Result<Vec<Serial>, Error> {
        match self {
            Self::Matching(selector, after) => {
                let limit = i64::try_from(BATCH).unwrap_or(i64::MAX);
                let page = app.store.select_devices(selector, *after, limit).await?;
                if let Some(last) = page.last() {
                    *after = last.id;
                }
                Ok(page.into_iter().map(|device| device.serial).collect())
            }
            Self::Listed(rest) => {
                let page = rest.split_off(rest.len().saturating_sub(BATCH));
                Ok(page.into_iter().rev().collect())
            }
        }
    }
}

impl App {
    /// The pages of a selection.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a group that doesn't exist.
    pub(super) async fn pages(&self, selection: &Selection) -> Result<Pages, Error> {
        match selection {
            Selection::Selector(selector) => Ok(Pages::Matching(selector.clone(), DeviceId(0))),
            Selection::Group(name) => {
                let group = self.store.group(name, self.clock.now()).await?;
                let group = group.ok_or_else(|| Error::invalid("group", "there is no such group"))?;
                Ok(Pages::Matching(group.description.selector, DeviceId(0)))
            }
            Selection::Serials(serials) => {
                let mut seen = HashSet::new();
                let mut listed: Vec<Serial> = serials
                    .iter()
                    .filter(|serial| seen.insert(*serial))
                    .cloned()
                    .collect();
                listed.reverse();
                Ok(Pages::Listed(listed))
            }
        }
    }
}

/// The refusal of serials without a device.
pub(super) fn unknown(serials: &[Serial]) -> Error {
    let named: Vec<&str> = serials.iter().take(MAX_NAMED).map(Serial::as_str).collect();
    let more = match serials.len().saturating_sub(named.len()) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Error::invalid("serials", format!("no such device: {}{more}", named.join(", ")))
}
