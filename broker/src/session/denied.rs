//! What the topic rules refuse.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use super::{
    connection::Connection,
    finish::End,
    window::{Answer, Kind},
};
use crate::{
    backend::{SessionEvent, Version},
    metrics::Limit,
};

/// What is refused when it is a message.
const PUBLISH: &str = "publish";

/// Something that the topic rules refused.
#[derive(Debug)]
pub(super) struct Denied {
    at: Instant,
    publish: bool,
}

/// Refusals of one session that are told within a minute.
const MAX_DENIED_TOLD: usize = 60;

impl<S> Connection<'_, S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    /// A message where the topic rules want none. MQTT 5 can be told; MQTT 3.1.1 gets the acknowledgement that keeps
    /// it from sending for ever, and an end if it goes on.
    pub(super) fn deny(&mut self, kind: Kind, topic: &str) -> Result<(), End> {
        self.denied(PUBLISH, topic);
        let v3 = self.live.info.version == Version::V3;
        if let Kind::Received(id) = kind {
            self.live.session.lock().received.finish(id, v3);
        }
        self.live.window(|window| window.push(kind, Some(Answer::Denied)));
        let max = usize::try_from(self.core.config.max_denied_per_minute).unwrap_or(usize::MAX);
        if v3 && max > 0 && self.denied.iter().filter(|denied| denied.publish).count() >= max {
            self.core.metrics.limit(Limit::Denied);
            return Err(End::Denied);
        }
        Ok(())
    }

    /// Counts, logs and tells what the topic rules refused, though not a flood of it.
    pub(super) fn denied(&mut self, what: &'static str, topic: &str) {
        self.core.metrics.denied(what);
        let now = Instant::now();
        self.denied
            .retain(|denied| now.saturating_duration_since(denied.at) < Duration::from_secs(60));
        if self.denied.len() < MAX_DENIED_TOLD {
            self.denied.push(Denied {
                at: now,
                publish: what == PUBLISH,
            });
            let what = format!("{what} {topic}");
            tracing::warn!(what, "denied");
            let session = Arc::clone(&self.live.info);
            self.backend.event(SessionEvent::Denied {
                session,
                what,
                at: self.core.clock.now(),
            });
        }
    }
}
