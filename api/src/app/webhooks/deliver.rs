//! One attempt: sign, send, and judge the answer.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use hyper::{
    HeaderMap, Request, Response,
    header::{CONTENT_TYPE, RETRY_AFTER, USER_AGENT},
};
use serde::Serialize;
use serde_json::Value;
use setpoint_model::webhook::{Headers, PING, Retry};
use setpoint_store::webhooks::{Due, Outcome, Webhook};
use tokio::time::Instant;
use uuid::Uuid;

use super::{SigningSecret, object};
use crate::app::{App, Error, audit, policy::Action};

/// How requests name their sender.
const AGENT: &str = concat!("Setpoint/", env!("CARGO_PKG_VERSION"));
/// How much of an answer that refuses is shown, in characters.
const SHOWN: usize = 200;
/// How the audit log names what webhooks do by themselves.
const ACTOR: &str = "webhooks";

/// A webhook whose secrets were opened.
#[derive(Debug)]
pub struct OpenWebhook {
    /// The webhook.
    pub webhook: Webhook,
    headers: Headers,
    secret: SigningSecret,
    previous: Option<(SigningSecret, DateTime<Utc>)>,
}

/// What came of an attempt.
#[derive(Debug)]
pub struct Attempt {
    /// What is noted of it.
    pub outcome: Outcome,
    /// Whether the receiver said that it wants nothing more.
    pub gone: bool,
}

/// The body of a request.
#[derive(Serialize)]
struct Body<'a> {
    id: Uuid,
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    serial: Option<&'a str>,
    at: DateTime<Utc>,
    data: &'a Value,
}

impl App {
    /// Opens a webhook's secrets; `None` if they were sealed with another server key, which also goes to the log.
    pub fn open_webhook(&self, webhook: Webhook) -> Option<OpenWebhook> {
        let secret = self.webhook_secret(webhook.id, &webhook.secret);
        let (Some(secret), Some(headers)) = (secret, self.webhook_headers(&webhook)) else {
            tracing::error!(
                webhook = %webhook.name,
                "a webhook was sealed with another server key: restore that, or make it anew"
            );
            return None;
        };
        let previous = webhook.previous.as_ref().and_then(|(sealed, until)| {
            let secret = self.webhook_secret(webhook.id, sealed)?;
            Some((secret, *until))
        });
        Some(OpenWebhook {
            webhook,
            headers,
            secret,
            previous,
        })
    }

    /// Tries to deliver.
    pub async fn attempt_delivery(&self, hook: &OpenWebhook, due: &Due) -> Attempt {
        let metrics = self.webhooks.metrics();
        let began = Instant::now();
        let answer = self.send(hook, due).await;
        metrics.attempt_seconds.observe(began.elapsed().as_secs_f64());
        let at = self.clock.now();
        let status = answer.as_ref().ok().map(|answer| answer.status().as_u16());
        let wrong = match &answer {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(refusal(answer)),
            Err(sentence) => Some(sentence.clone()),
        };
        let gone = status == Some(410);
        let Some(wrong) = wrong else {
            metrics.delivered.inc();
            return Attempt {
                outcome: Outcome {
                    id: due.id,
                    at,
                    status,
                    error: None,
                    again: None,
                },
                gone,
            };
        };
        let asked = answer
            .as_ref()
            .ok()
            .and_then(|answer| retry_after(answer.headers(), at));
        let pause = self.retry(due).pause(failures(due), fastrand::f64(), asked);
        let again = pause.filter(|_| !gone).map(|pause| {
            // As long as the configuration may say at most.
            at + TimeDelta::from_std(pause).unwrap_or(TimeDelta::days(1))
        });
        metrics.failed.inc();
        if again.is_none() {
            metrics.dead.inc();
            tracing::debug!(
                webhook = %hook.webhook.name, delivery = %due.id, attempts = failures(due), wrong,
                "an event could not be delivered"
            );
        }
        Attempt {
            outcome: Outcome {
                id: due.id,
                at,
                status,
                error: Some(wrong),
                again,
            },
            gone,
        }
    }

    fn retry(&self, due: &Due) -> Retry {
        let retry = self.webhooks.config().retry();
        let attempts = if due.kind == PING { 1 } else { retry.attempts };
        Retry { attempts, ..retry }
    }

    /// The answer, or what is wrong.
    async fn send(&self, hook: &OpenWebhook, due: &Due) -> Result<Response<Vec<u8>>, String> {
        let at = self.clock.now();
        let request = hook.request(due, at).map_err(|error| error.to_string())?;
        let http = self.webhooks.http().map_err(|error| error.to_string())?;
        http.tell(request).await.map_err(|error| error.sentence())
    }

    /// Disables a webhook whose receiver answered that it is gone.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn disable_webhook(&self, webhook: &Webhook) -> Result<(), Error> {
        let at = self.clock.now();
        let actor = crate::app::Actor::system(ACTOR);
        let entry = audit::entry(&actor, Action::WriteWebhooks.name(), object(&webhook.name), at);
        let reason = "the receiver answered 410 Gone";
        let entry = entry.after(serde_json::json!({"enabled": false, "reason": reason}));
        if self.store.disable_webhook(webhook, reason, at, &entry).await? {
            tracing::warn!(webhook = %webhook.name, reason, "webhook disabled");
        }
        Ok(())
    }
}

impl OpenWebhook {
    /// The request of an attempt: it is signed with its own time, under the id of the delivery, which stays.
    fn request(&self, due: &Due, at: DateTime<Utc>) -> Result<Request<Vec<u8>>, Box<dyn std::error::Error>> {
        let id = due.id.to_string();
        let timestamp = at.timestamp();
        let body = serde_json::to_vec(&Body {
            id: due.id,
            kind: &due.kind,
            serial: due.serial.as_deref(),
            at: due.at,
            data: &due.data,
        })?;
        let mut signatures = self.secret.sign(&id, timestamp, &body);
        if let Some((previous, until)) = &self.previous
            && at < *until
        {
            signatures.push(' ');
            signatures.push_str(&previous.sign(&id, timestamp, &body));
        }
        let mut request = Request::post(self.webhook.url.as_str())
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, AGENT)
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signatures);
        for (name, value) in self.headers.iter() {
            request = request.header(name, value);
        }
        Ok(request.body(body)?)
    }
}

/// The attempts of a delivery that failed, when this one did.
fn failures(due: &Due) -> u32 {
    u32::try_from(due.attempts).unwrap_or(0).saturating_add(1)
}

/// What an answer says that is no success, with the beginning of its own words.
fn refusal(answer: &Response<Vec<u8>>) -> String {
    let status = answer.status();
    let mut sentence = format!("answered {}", status.as_u16());
    if status.is_redirection() {
        sentence.push_str("; redirects are not followed");
    }
    let words = String::from_utf8_lossy(answer.body());
    let words: String = words
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(SHOWN)
        .collect();
    let words = words.trim();
    if !words.is_empty() {
        sentence.push_str(": ");
        sentence.push_str(words);
    }
    sentence
}

/// `Retry-After` (RFC 9110, section 10.2.3): seconds, or a date.
fn retry_after(headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = DateTime::parse_from_rfc2822(text).ok()?;
    (date.to_utc() - now).to_std().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now: DateTime<Utc> = "2026-01-01T12:00:00Z".parse().unwrap();
        let asked = |text: &str| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]);
            retry_after(&headers, now)
        };
        assert_eq!(asked("120"), Some(Duration::from_secs(120)));
        assert_eq!(
            asked("Thu, 01 Jan 2026 12:01:00 GMT"),
            Some(Duration::from_secs(60))
        );
        assert_eq!(asked("Thu, 01 Jan 2026 11:00:00 GMT"), None, "it is over");
        assert_eq!(asked("soon"), None);
        assert_eq!(asked("-1"), None);
    }

    #[test]
    fn an_answer_that_refuses_is_shown_in_one_short_line() {
        let answer = |status: u16, body: &str| {
            refusal(
                &Response::builder()
                    .status(status)
                    .body(body.as_bytes().to_vec())
                    .unwrap(),
            )
        };
        assert_eq!(answer(500, ""), "answered 500");
        assert_eq!(answer(400, "no\n\0such thing\n"), "answered 400: no  such thing");
        assert_eq!(answer(302, ""), "answered 302; redirects are not followed");
        assert_eq!(answer(503, &"é".repeat(1_000)).chars().count(), 14 + SHOWN);
    }
}
