//! Devices and their credentials, made over REST with an administrator's token.

use futures_util::{Stream, StreamExt, stream};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::json;
use setpoint_model::Serial;

use crate::{
    credential::Token,
    rest::{Rest, RestError},
};

/// Registers devices. Nothing is stored: a device that exists already gets a new token, and its old one ends.
#[derive(Debug, Clone)]
pub struct Registrar {
    rest: Rest,
    model: String,
}

/// A credential as the server shows it, once: by itself after a rotation, within the device after creation.
#[derive(Deserialize)]
#[serde(untagged)]
enum Answer {
    Created { credential: Credential },
    Rotated(Credential),
}

#[derive(Deserialize)]
struct Credential {
    token: String,
}

impl From<Answer> for Token {
    fn from(answer: Answer) -> Self {
        let (Answer::Created { credential } | Answer::Rotated(credential)) = answer;
        Self::new(credential.token)
    }
}

impl Registrar {
    /// A registrar that makes devices of `model`.
    pub fn new(rest: Rest, model: impl Into<String>) -> Self {
        Self {
            rest,
            model: model.into(),
        }
    }

    /// The API it works through.
    pub fn rest(&self) -> &Rest {
        &self.rest
    }

    /// A token for `serial`: of a new device, or a new one for a device that exists.
    ///
    /// # Errors
    /// When the server can't be reached or refuses.
    pub async fn credential(&self, serial: &Serial) -> Result<Token, RestError> {
        let device = json!({ "serial": serial, "model": self.model });
        match self
            .rest
            .send::<Answer>(Method::POST, "/devices", Some(&device))
            .await
        {
            Err(error) if error.status() == Some(StatusCode::CONFLICT) => {
                let path = format!("/devices/{serial}/credential");
                Ok(self.rest.send::<Answer>(Method::POST, &path, None).await?.into())
            }
            answer => Ok(answer?.into()),
        }
    }

    /// Tokens for many, `at_once` requests at a time, in no particular order.
    pub fn credentials<I>(
        &self,
        serials: I,
        at_once: usize,
    ) -> impl Stream<Item = Result<(Serial, Token), RestError>> + use<'_, I>
    where
        I: IntoIterator<Item = Serial>,
    {
        let requests = serials.into_iter().map(async move |serial: Serial| {
            let token = self.credential(&serial).await?;
            Ok((serial, token))
        });
        stream::iter(requests).buffer_unordered(at_once.max(1))
    }
}

#[cfg(test)]
mod tests;
