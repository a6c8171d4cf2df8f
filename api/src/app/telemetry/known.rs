//! The short way of a payload: everything it needs is known, and there is room. No future, no wait.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use setpoint_broker::{Ack, Outcome};
use setpoint_model::{
    Serial,
    telemetry::{self, Parsed},
};

use super::{
    catalog::Device,
    ingest::{Ingest, is_recent},
    queue::{Batch, Receipt, Room},
};

impl Ingest {
    /// Takes a payload from MQTT as [`Self::from_mqtt`] does, if nothing of it has to be looked up, waited for or told;
    /// otherwise nothing happens, and it gives `ack` back.
    pub fn take_at_once(
        &self,
        serial: &Serial,
        payload: &[u8],
        arrived: DateTime<Utc>,
        ack: Ack,
    ) -> Option<Ack> {
        let Some((device, parsed, ids)) = self.known(serial, payload, arrived) else {
            return Some(ack);
        };
        let shared = &self.0;
        let rows = u32::try_from(parsed.samples.len()).unwrap_or(u32::MAX);
        let (Ok(permit), Ok(place)) = (
            Arc::clone(&shared.space).try_acquire_many_owned(rows),
            shared.queue.try_reserve(),
        ) else {
            return Some(ack);
        };
        let prepared = self.encode(serial, &device, parsed, &ids, arrived);
        let room = Room::new(permit, prepared.rows.len(), &shared.metrics.queued);
        let receipt = Receipt::Mqtt(ack, Outcome::Accepted);
        place.send(Batch::new(prepared.rows, receipt, prepared.sequel, room));
        None
    }

    /// The device, the samples and their metrics' ids of a payload without fault of which everything is known.
    fn known<'a>(
        &self,
        serial: &Serial,
        payload: &'a [u8],
        arrived: DateTime<Utc>,
    ) -> Option<(Arc<Device>, Parsed<'a>, Vec<Option<i32>>)> {
        let device = self.0.catalog.known_device(serial)?;
        let parsed = telemetry::parse(payload, &self.0.limits, self.window(arrived)).ok()?;
        let faultless = parsed.problems.count() == 0 && parsed.skewed == 0 && !parsed.samples.is_empty();
        if !faultless || !is_recent(&parsed, arrived) {
            return None;
        }
        let names = parsed.samples.iter().map(|sample| &*sample.metric);
        let ids = self.0.catalog.known(names);
        let kinds = parsed.samples.iter().map(|sample| sample.value.kind());
        device
            .takes(ids.iter().copied().zip(kinds))
            .then_some((device, parsed, ids))
    }
}
