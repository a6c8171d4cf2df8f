//! A reader of Server-Sent Events, as the HTML standard reads them.

use std::{collections::VecDeque, pin::Pin};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use serde_json::Value;

use super::wait::within;

/// One event, or a comment.
#[derive(Debug, Clone, PartialEq)]
pub struct Heard {
    /// Its type; `message` if none is given.
    pub event: String,
    /// The last id given so far.
    pub id: String,
    /// Its data; null for a comment.
    pub data: Value,
    /// The comment, if it is one.
    pub comment: Option<String>,
}

/// An open stream.
pub struct EventReader {
    what: String,
    bytes: Pin<Box<dyn Stream<Item = reqwest::Result<Bytes>> + Send>>,
    buffer: Vec<u8>,
    heard: VecDeque<Heard>,
    id: String,
}

impl EventReader {
    pub(super) fn new(what: String, response: reqwest::Response) -> Self {
        assert_eq!(response.status(), 200, "{what}");
        let kind = response.headers()[reqwest::header::CONTENT_TYPE].clone();
        assert_eq!(kind, "text/event-stream", "{what}");
        Self {
            what,
            bytes: Box::pin(response.bytes_stream()),
            buffer: Vec::new(),
            heard: VecDeque::new(),
            id: String::new(),
        }
    }

    /// The last id that was given, in an event or by itself.
    pub fn last_id(&self) -> &str {
        &self.id
    }

    /// The next event or comment; `None` at the end of the stream.
    pub async fn next_or_end(&mut self) -> Option<Heard> {
        loop {
            if let Some(heard) = self.heard.pop_front() {
                return Some(heard);
            }
            let what = format!("an event of {}", self.what);
            match within(what, self.bytes.next()).await {
                Some(Ok(bytes)) => self.buffer.extend_from_slice(&bytes),
                Some(Err(_)) | None => return None,
            }
            self.parse();
        }
    }

    /// The next event that is no comment.
    ///
    /// # Panics
    /// At the end of the stream.
    pub async fn next(&mut self) -> Heard {
        let what = format!("an event, not a sign of life, of {}", self.what);
        let next = async {
            loop {
                let heard = self.next_or_end().await.expect("the stream goes on");
                if heard.comment.is_none() {
                    return heard;
                }
            }
        };
        within(what, next).await
    }

    /// The next event of a type, whatever comes before it.
    ///
    /// # Panics
    /// At the end of the stream.
    pub async fn next_of(&mut self, event: &str) -> Heard {
        let what = format!("an event {event} of {}", self.what);
        let next = async {
            loop {
                let heard = self.next().await;
                if heard.event == event {
                    return heard;
                }
            }
        };
        within(what, next).await
    }

    fn parse(&mut self) {
        while let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n") {
            let block: Vec<u8> = self.buffer.drain(..end + 2).collect();
            let text = String::from_utf8(block).expect("UTF-8");
            let (mut event, mut data, mut comment) = (String::from("message"), String::new(), None);
            for line in text.lines() {
                match line
                    .split_once(':')
                    .map(|(field, value)| (field, value.trim_start()))
                {
                    Some(("event", value)) => event = value.to_owned(),
                    Some(("data", value)) => data.push_str(value),
                    Some(("id", value)) => self.id = value.to_owned(),
                    Some(("", value)) => comment = Some(value.to_owned()),
                    _ => {}
                }
            }
            if data.is_empty() && comment.is_none() {
                continue;
            }
            let data = if data.is_empty() {
                Value::Null
            } else {
                serde_json::from_str(&data).expect("JSON")
            };
            self.heard.push_back(Heard {
                event,
                id: self.id.clone(),
                data,
                comment,
            });
        }
    }
}
