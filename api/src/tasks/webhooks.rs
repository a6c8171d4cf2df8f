//! Tells webhooks what waits for them in the outbox: takes what is due for a while, sends it, notes what came of it.
//!
//! Any number of servers can do so. What one takes and never settles, because it was killed, is due again when its time
//! is over, so nothing is lost, and a receiver may see the same message twice.

use std::{collections::HashMap, sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use setpoint_store::webhooks::{Keep, Outcome, Webhook};
use tokio::{
    task::{Id, JoinError, JoinSet},
    time::{Instant, sleep_until, timeout_at},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    app::{
        App, Error,
        webhooks::{Attempt, OpenWebhook},
    },
    config,
    lifecycle::Pulse,
};

/// How much longer something is taken for than an attempt may last.
const MARGIN: Duration = Duration::from_secs(5);
/// The least pause before the next look when something should be due: others may be at it.
const LEAST: Duration = Duration::from_millis(20);
/// Pause before another attempt while Postgres is away.
const PAUSE: Duration = Duration::from_secs(1);
/// How long requests that end shortly after another are waited for, to be noted together with it.
const GATHER: Duration = Duration::from_millis(3);
/// How long requests under way may take at the end.
const GRACE: Duration = Duration::from_secs(1);
/// How often what was kept for long enough is removed.
const TIDY_EVERY: Duration = Duration::from_secs(60);
/// Rows removed in one statement, of each webhook.
const STEP: i64 = 1_000;

/// Requests under way.
#[derive(Default)]
struct UnderWay {
    requests: JoinSet<(Arc<OpenWebhook>, Attempt)>,
    taken: HashMap<Id, Taken>,
    per_hook: HashMap<Uuid, usize>,
    /// What came of requests that ended.
    ended: Vec<(Arc<OpenWebhook>, Attempt)>,
    /// The same, not noted yet: no more than were under way, since without the database no further ones are taken.
    unsettled: Vec<Outcome>,
    /// Webhooks of another server key, and in which version: told of once.
    sealed: HashMap<Uuid, i64>,
}

#[derive(Debug, Clone, Copy)]
struct Taken {
    webhook: Uuid,
    delivery: Uuid,
}

/// Delivers until `stop`: on a hint, when something is due, and `every` so often whatever the hints. `pulse` beats each
/// round.
pub async fn run(app: App, every: Duration, pulse: Pulse, stop: CancellationToken) {
    let mut under_way = UnderWay::default();
    let mut tidy_at = Instant::now();
    loop {
        if tidy_at <= Instant::now() {
            if stop.run_until_cancelled(tidy(&app)).await.is_none() {
                break;
            }
            tidy_at = Instant::now() + TIDY_EVERY;
        }
        let next = match stop.run_until_cancelled(under_way.take(&app, every)).await {
            None => break,
            Some(Ok(next)) => next,
            Some(Err(error)) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "webhooks wait");
                PAUSE
            }
        };
        pulse.beat();
        let wake_at = Instant::now() + next.max(LEAST).min(every);
        tokio::select! {
            () = stop.cancelled() => break,
            () = under_way.finished(), if !under_way.requests.is_empty() => {}
            _ = app.hints.webhooks.next() => {}
            () = sleep_until(wake_at) => {}
        }
    }
    under_way.end(&app).await;
}

impl UnderWay {
    /// Takes what is due and sends it. Returns how long there is nothing more to take, unless a request ends before.
    ///
    /// What ended is noted first: the next event of the same device waits for it.
    async fn take(&mut self, app: &App, every: Duration) -> Result<Duration, Error> {
        self.settle(app).await?;
        let config = app.webhooks.config();
        let now = app.clock.now();
        let mut took = false;
        let lease = TimeDelta::from_std(config.timeout + MARGIN).unwrap_or(TimeDelta::hours(1));
        for webhook in app.store.webhooks_due(now).await? {
            let free = self.free(&webhook, config);
            if free == 0 {
                continue;
            }
            if self.sealed.get(&webhook.id) == Some(&webhook.version) {
                continue;
            }
            let (id, version) = (webhook.id, webhook.version);
            let Some(open) = app.open_webhook(webhook) else {
                self.sealed.insert(id, version);
                continue;
            };
            let open = Arc::new(open);
            let limit = i64::try_from(free).unwrap_or(i64::MAX);
            let due = app.store.claim_deliveries(&open.webhook, now, now + lease, limit);
            for due in due.await? {
                let (app, open) = (app.clone(), Arc::clone(&open));
                let taken = Taken {
                    webhook: open.webhook.id,
                    delivery: due.id,
                };
                let request = async move {
                    let attempt = app.attempt_delivery(&open, &due).await;
                    (open, attempt)
                };
                took = true;
                let id = self.requests.spawn(request).id();
                self.taken.insert(id, taken);
                *self.per_hook.entry(taken.webhook).or_default() += 1;
            }
        }
        let under_way = i64::try_from(self.requests.len()).unwrap_or(i64::MAX);
        app.webhooks.metrics().in_flight.set(under_way);
        if took {
            // What ends of it is the next reason to look.
            return Ok(every);
        }
        let next: Option<DateTime<Utc>> = app.store.next_delivery_due(now).await?;
        Ok(next.map_or(every, |next| {
            (next - app.clock.now()).to_std().unwrap_or_default()
        }))
    }

    /// How many more requests may go to a webhook: one always, so that those who are slow hold nobody up.
    fn free(&self, webhook: &Webhook, config: &config::Webhooks) -> usize {
        let of_hook = self.per_hook.get(&webhook.id).copied().unwrap_or(0);
        let in_all = config.max_requests.saturating_sub(self.requests.len());
        let free = config.max_requests_per_hook.saturating_sub(of_hook).min(in_all);
        if of_hook == 0 { free.max(1) } else { free }
    }

    /// Waits for requests that end. May be dropped and asked again.
    async fn finished(&mut self) {
        let Some(first) = self.requests.join_next_with_id().await else {
            return;
        };
        self.keep(first);
        let until = Instant::now() + GATHER;
        while let Ok(Some(next)) = timeout_at(until, self.requests.join_next_with_id()).await {
            self.keep(next);
        }
    }

    /// Keeps what came of a request.
    fn keep(&mut self, joined: Result<(Id, (Arc<OpenWebhook>, Attempt)), JoinError>) {
        match joined {
            Ok((id, attempt)) => {
                self.forget(id);
                self.ended.push(attempt);
            }
            Err(error) => {
                self.forget(error.id());
                // It is due again when its time is over.
                tracing::error!(error = &error as &dyn std::error::Error, "a request failed");
            }
        }
    }

    /// Notes what came of requests.
    async fn settle(&mut self, app: &App) -> Result<(), Error> {
        let mut given_up: HashMap<String, usize> = HashMap::new();
        let mut gone = Vec::new();
        for (hook, attempt) in self.ended.drain(..) {
            let outcome = attempt.outcome;
            if outcome.error.is_some() && outcome.again.is_none() {
                *given_up.entry(hook.webhook.name.to_string()).or_default() += 1;
            }
            self.unsettled.push(outcome);
            if attempt.gone {
                gone.push(hook);
            }
        }
        for (webhook, events) in given_up {
            tracing::warn!(webhook, events, "events could not be delivered and are given up");
        }
        disable(app, &gone).await;
        if !self.unsettled.is_empty() {
            app.store.settle_deliveries(&self.unsettled).await?;
            self.unsettled.clear();
        }
        Ok(())
    }

    fn forget(&mut self, id: Id) {
        let Some(taken) = self.taken.remove(&id) else {
            return;
        };
        if let Some(count) = self.per_hook.get_mut(&taken.webhook) {
            *count -= 1;
            if *count == 0 {
                self.per_hook.remove(&taken.webhook);
            }
        }
    }

    /// Waits a little for what is under way, and lets go of the rest: another server, or the next start, sends it.
    async fn end(mut self, app: &App) {
        let until = Instant::now() + GRACE;
        while !self.requests.is_empty() {
            match timeout_at(until, self.finished()).await {
                Ok(()) => {}
                Err(_) => break,
            }
        }
        if let Err(error) = self.settle(app).await {
            tracing::warn!(
                events = self.unsettled.len(),
                error = &error as &dyn std::error::Error,
                "what came of webhooks is not noted; they are told again"
            );
        }
        let left: Vec<Uuid> = self.taken.values().map(|taken| taken.delivery).collect();
        if !left.is_empty()
            && let Err(error) = app.store.release_deliveries(&left).await
        {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "what was under way to webhooks is sent again later"
            );
        }
    }
}

/// Disables webhooks whose receivers want nothing more. Should it fail, the next event is answered the same.
async fn disable(app: &App, gone: &[Arc<OpenWebhook>]) {
    for hook in gone {
        if let Err(error) = app.disable_webhook(&hook.webhook).await {
            tracing::warn!(
                webhook = %hook.webhook.name,
                error = &error as &dyn std::error::Error,
                "a webhook that is gone could not be disabled"
            );
        }
    }
}

/// Removes what was kept for long enough, and looks how much waits.
async fn tidy(app: &App) {
    if let Err(error) = keep(app).await {
        tracing::debug!(
            error = &error as &dyn std::error::Error,
            "old events of webhooks stay for now"
        );
    }
}

async fn keep(app: &App) -> Result<(), Error> {
    let (config, metrics, now) = (app.webhooks.config(), app.webhooks.metrics(), app.clock.now());
    let before = |kept: Duration| {
        let kept = TimeDelta::from_std(kept).ok();
        kept.and_then(|kept| now.checked_sub_signed(kept))
            .unwrap_or(DateTime::UNIX_EPOCH)
    };
    let keep = Keep {
        waiting: config.max_waiting.into(),
        ended: config.max_kept.into(),
        delivered_from: before(config.keep_delivered),
        dead_from: before(config.keep_dead),
    };
    loop {
        let removed = app.store.keep_deliveries(&keep, now, STEP).await?;
        metrics.overflowed.inc_by(removed.given_up);
        metrics.dropped.inc_by(removed.undelivered);
        if removed.given_up > 0 {
            tracing::warn!(
                events = removed.given_up,
                "too many events of a webhook were waiting"
            );
        }
        if removed.given_up + removed.undelivered + removed.delivered == 0 {
            break;
        }
    }
    let backlog = app.store.webhook_backlog().await?;
    metrics.waiting.set(backlog.waiting);
    let lag = backlog.oldest.and_then(|oldest| (now - oldest).to_std().ok());
    metrics.lag.set(lag.unwrap_or_default().as_secs_f64());
    Ok(())
}
