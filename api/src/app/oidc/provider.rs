//! The provider itself: what it publishes, and what it says of a person, verified.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use openidconnect::{
    AuthenticationFlow, AuthorizationCode, ClaimsVerificationError, ClientId, ClientSecret, CsrfToken,
    EndpointMaybeSet, EndpointNotSet, EndpointSet, HttpRequest, IssuerUrl, Nonce, PkceCodeChallenge,
    PkceCodeVerifier, RedirectUrl, RequestTokenError, Scope, TokenResponse,
    core::{CoreClient, CoreIdToken, CoreJwsSigningAlgorithm, CoreProviderMetadata, CoreResponseType},
};
use serde_json::Value;
use tokio::{sync::Semaphore, time::Instant};
use url::Url;

use super::{Pending, refused};
use crate::{
    app::{
        Error,
        outbound::{Http, Options, Ways},
    },
    config,
};

/// How long what the provider publishes is believed without asking again.
const KNOWN_FOR: Duration = Duration::from_secs(3_600);
/// The largest answer, in bytes: discovery documents and key sets have some thousands.
const MAX_ANSWER: usize = 256 * 1024;
/// Conversations with the provider at once; more are answered that it is not available.
const MAX_CONVERSATIONS: usize = 16;
/// The signatures that are accepted: those whose keys the provider publishes, and nothing made of a shared secret.
const SIGNATURES: [CoreJwsSigningAlgorithm; 9] = [
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha384,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha512,
    CoreJwsSigningAlgorithm::RsaSsaPssSha256,
    CoreJwsSigningAlgorithm::RsaSsaPssSha384,
    CoreJwsSigningAlgorithm::RsaSsaPssSha512,
    CoreJwsSigningAlgorithm::EcdsaP256Sha256,
    CoreJwsSigningAlgorithm::EcdsaP384Sha384,
    CoreJwsSigningAlgorithm::EdDsa,
];

type Discovered = CoreClient<
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointMaybeSet,
    EndpointMaybeSet,
>;

/// What the provider has said of a person, verified.
pub(super) struct Claims {
    /// Who they are to the provider.
    pub(super) subject: String,
    /// Everything.
    pub(super) all: Value,
}

/// The configured provider.
pub(super) struct Provider {
    pub(super) config: config::Oidc,
    /// Its issuer identifier, as it is written in tokens.
    pub(super) issuer: String,
    client_id: String,
    http: Http,
    conversations: Semaphore,
    known: Mutex<Option<(Instant, Arc<CoreProviderMetadata>)>>,
}

/// How the provider is talked to. One without TLS is on this machine, where there may be no certificate authorities.
fn options(config: &config::Oidc, issuer: &str) -> Options {
    Options {
        timeout: config.timeout,
        connect_timeout: config.timeout,
        max_answer: MAX_ANSWER,
        // Sign-ins are too rare to keep a connection for them.
        idle_connections: 0,
        ways: if issuer.starts_with("http:") {
            Ways::Plain
        } else {
            Ways::Encrypted
        },
        guard: None,
    }
}

impl Provider {
    /// The provider of this configuration, if there is one.
    ///
    /// # Errors
    /// When the system has no certificate authorities.
    pub(super) fn new(config: &config::Oidc) -> std::io::Result<Option<Self>> {
        let (Some(issuer), Some(client_id)) = (&config.issuer, &config.client_id) else {
            return Ok(None);
        };
        Ok(Some(Self {
            config: config.clone(),
            issuer: issuer.clone(),
            client_id: client_id.clone(),
            http: Http::new(&options(config, issuer))?,
            conversations: Semaphore::new(MAX_CONVERSATIONS),
            known: Mutex::default(),
        }))
    }

    /// Where a person goes to sign in (OpenID Connect Core, section 3.1.2.1, with PKCE, RFC 7636), and what must be
    /// remembered until they are back.
    ///
    /// # Errors
    /// [`Error::ProviderUnavailable`].
    pub(super) async fn authorize(&self, redirect: &str, return_to: String) -> Result<(Url, Pending), Error> {
        let _place = self.place()?;
        let client = self.client(redirect, false).await?;
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let (url, state, nonce) = client
            .authorize_url(
                AuthenticationFlow::<CoreResponseType>::AuthorizationCode,
                CsrfToken::new_random,
                Nonce::new_random,
            )
            .add_scopes(self.config.scopes.iter().cloned().map(Scope::new))
            .set_pkce_challenge(challenge)
            .url();
        let pending = Pending {
            state: state.into_secret(),
            nonce: nonce.secret().clone(),
            verifier: verifier.into_secret(),
            return_to,
            until: 0,
        };
        Ok((url, pending))
    }

    /// Redeems the code that a person came back with, and verifies what it is worth (section 3.1.3.7).
    ///
    /// # Errors
    /// [`Error::ProviderUnavailable`]; [`Error::SignInRefused`] for a code or a token that doesn't hold.
    pub(super) async fn redeem(
        &self,
        redirect: &str,
        pending: Pending,
        code: String,
        now: DateTime<Utc>,
    ) -> Result<Claims, Error> {
        let _place = self.place()?;
        let client = self.client(redirect, false).await?;
        let request = client
            .exchange_code(AuthorizationCode::new(code))
            .map_err(unavailable)?
            .set_pkce_verifier(PkceCodeVerifier::new(pending.verifier));
        let http = self.http.clone();
        let send = move |request: HttpRequest| {
            let http = http.clone();
            async move { http.send(request).await }
        };
        let answer = request.request_async(&send).await.map_err(|error| match error {
            // Its words are the provider's and may hold anything, so only that it refused is told.
            RequestTokenError::ServerResponse(_) => {
                refused("oidc_code", "the provider did not take the code")
            }
            error => unavailable(error),
        })?;
        let token = answer
            .id_token()
            .ok_or_else(|| refused("oidc_token", "the provider gave no ID token"))?;
        let nonce = Nonce::new(pending.nonce);
        match verify(&client, token, &nonce, now) {
            // The provider may have changed its keys since they were fetched (section 10.1.1).
            Err(ClaimsVerificationError::SignatureVerification(_)) => {
                let client = self.client(redirect, true).await?;
                verify(&client, token, &nonce, now)
            }
            verified => verified,
        }
        .map_err(|error| {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "an ID token does not hold"
            );
            refused("oidc_token", "the provider's ID token does not hold")
        })
    }

    fn place(&self) -> Result<tokio::sync::SemaphorePermit<'_>, Error> {
        self.conversations.try_acquire().map_err(unavailable)
    }

    async fn client(&self, redirect: &str, anew: bool) -> Result<Discovered, Error> {
        let known = self.discover(anew).await?;
        let redirect = RedirectUrl::new(redirect.to_owned()).map_err(unavailable)?;
        let secret = self.config.client_secret.clone().map(ClientSecret::new);
        let id = ClientId::new(self.client_id.clone());
        Ok(CoreClient::from_provider_metadata((*known).clone(), id, secret).set_redirect_uri(redirect))
    }

    /// What the provider publishes (OpenID Connect Discovery, section 4), its keys included.
    async fn discover(&self, anew: bool) -> Result<Arc<CoreProviderMetadata>, Error> {
        if let Some((at, known)) = &*self.known.lock().unwrap_or_else(PoisonError::into_inner)
            && !anew
            && at.elapsed() < KNOWN_FOR
        {
            return Ok(Arc::clone(known));
        }
        let issuer = IssuerUrl::new(self.issuer.clone()).map_err(unavailable)?;
        let http = self.http.clone();
        let send = move |request: HttpRequest| {
            let http = http.clone();
            async move { http.send(request).await }
        };
        let found = CoreProviderMetadata::discover_async(issuer, &send).await;
        let found = Arc::new(found.map_err(unavailable)?);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        *known = Some((Instant::now(), Arc::clone(&found)));
        Ok(found)
    }
}

fn verify(
    client: &Discovered,
    token: &CoreIdToken,
    nonce: &Nonce,
    now: DateTime<Utc>,
) -> Result<Claims, ClaimsVerificationError> {
    let verifier = client
        .id_token_verifier()
        .set_allowed_algs(SIGNATURES)
        .set_time_fn(move || now);
    let verified = token.claims(&verifier, nonce)?;
    Ok(Claims {
        subject: verified.subject().to_string(),
        all: payload(&token.to_string()).unwrap_or_default(),
    })
}

/// All claims of a token that was verified, those included that only its provider knows the meaning of.
fn payload(token: &str) -> Option<Value> {
    let payload = token.split('.').nth(1)?;
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

fn unavailable(cause: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::ProviderUnavailable(Box::new(cause))
}
