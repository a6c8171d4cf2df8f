//! A small OpenID Connect provider: a real HTTP server with discovery, keys, authorization and tokens, which a test can
//! make lie.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Form, Json, Router,
    extract::{Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use chrono::{TimeDelta, Utc};
use ring::{
    digest::{SHA256, digest},
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use serde_json::{Value, json};
use setpoint_model::{Clock as _, SystemClock};
use tokio::{
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};

/// What this provider knows Setpoint by.
pub const CLIENT_ID: &str = "setpoint";
/// The secret that goes with it.
pub const CLIENT_SECRET: &str = "a-client-secret-of-mine";

/// The access tokens that it gives, which open nothing.
pub const ACCESS_TOKEN: &str = "an-access-token-of-mine";

/// How the next ID tokens are wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Lie {
    /// They aren't.
    #[default]
    None,
    /// Another nonce than was asked for.
    Nonce,
    /// Out of date.
    Expired,
    /// For another client.
    Audience,
    /// From another issuer.
    Issuer,
    /// Signed by a key that was never published.
    Signature,
    /// Not signed at all.
    Unsigned,
}

/// A provider that runs.
#[derive(Debug)]
pub struct Provider {
    issuer: String,
    shared: Arc<Shared>,
    task: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    issuer: String,
    state: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// What is claimed of whoever comes next.
    claims: Value,
    lie: Lie,
    key: (String, EcdsaKeyPair),
    codes: HashMap<String, Asked>,
    tokens: Vec<String>,
}

/// What a code stands for.
#[derive(Debug, Clone)]
struct Asked {
    nonce: Option<String>,
    challenge: String,
    redirect: String,
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn new_key(id: &str) -> (String, EcdsaKeyPair) {
    let random = SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key");
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random);
    (id.to_owned(), key.expect("a key"))
}

impl Shared {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Provider {
    /// Starts one on a port of its own.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let issuer = format!("http://{}", listener.local_addr().expect("its address"));
        let shared = Arc::new(Shared {
            issuer: issuer.clone(),
            state: Mutex::new(Inner {
                claims: json!({}),
                lie: Lie::None,
                key: new_key("first"),
                codes: HashMap::new(),
                tokens: Vec::new(),
            }),
        });
        let routes = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/keys", get(keys))
            .route("/authorize", get(authorize))
            .route("/token", post(token))
            .with_state(Arc::clone(&shared));
        let task = super::spawn(async move {
            let _ = axum::serve(listener, routes).await;
        });
        Self { issuer, shared, task }
    }

    /// Its issuer identifier.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Whoever comes next is this person.
    pub fn person(&self, claims: Value) {
        self.shared.inner().claims = claims;
    }

    /// The next ID tokens are wrong.
    pub fn lie(&self, lie: Lie) {
        self.shared.inner().lie = lie;
    }

    /// Signs with another key from now on, and publishes that alone.
    pub fn rotate(&self) {
        self.shared.inner().key = new_key("second");
    }

    /// Every code and token that it gave.
    pub fn given(&self) -> Vec<String> {
        self.shared.inner().tokens.clone()
    }

    /// Is gone: nobody can connect any more.
    pub async fn stop(&self) {
        self.task.abort();
        let address = self.issuer.trim_start_matches("http://");
        crate::eventually!(TcpStream::connect(address).await.is_err());
    }
}

async fn discovery(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let issuer = &shared.issuer;
    Json(json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"),
        "jwks_uri": format!("{issuer}/keys"),
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
        "code_challenge_methods_supported": ["S256"],
    }))
}

async fn keys(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let inner = shared.inner();
    let (id, key) = &inner.key;
    // An uncompressed point: 4, x, y.
    let (x, y) = key.public_key().as_ref()[1..].split_at(32);
    Json(json!({"keys": [{
        "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": id,
        "x": BASE64.encode(x), "y": BASE64.encode(y),
    }]}))
}

/// Whoever comes is signed in already, and agrees.
async fn authorize(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let of = |name: &str| query.get(name).cloned().unwrap_or_default();
    let scopes = of("scope");
    let well = of("client_id") == CLIENT_ID
        && of("response_type") == "code"
        && of("code_challenge_method") == "S256"
        && scopes.split(' ').any(|scope| scope == "openid");
    if !well {
        return StatusCode::BAD_REQUEST.into_response();
    }
    let mut inner = shared.inner();
    let code = uuid::Uuid::new_v4().to_string();
    let asked = Asked {
        nonce: query.get("nonce").cloned(),
        challenge: of("code_challenge"),
        redirect: of("redirect_uri"),
    };
    inner.tokens.push(code.clone());
    inner.codes.insert(code.clone(), asked);
    let iss = &shared.issuer;
    let back = format!(
        "{}?code={code}&state={}&iss={iss}",
        of("redirect_uri"),
        of("state")
    );
    Redirect::to(&back).into_response()
}

async fn token(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    Form(form): Form<HashMap<String, String>>,
) -> Response {
    let of = |name: &str| form.get(name).cloned().unwrap_or_default();
    let basic = base64::prelude::BASE64_STANDARD.encode(format!("{CLIENT_ID}:{CLIENT_SECRET}"));
    let presented = headers.get(header::AUTHORIZATION);
    let refuse = |error: &str| (StatusCode::BAD_REQUEST, Json(json!({"error": error}))).into_response();
    if presented.is_none_or(|value| *value != format!("Basic {basic}")) {
        return refuse("invalid_client");
    }
    let mut inner = shared.inner();
    let Some(asked) = inner.codes.remove(&of("code")) else {
        return refuse("invalid_grant");
    };
    let challenge = BASE64.encode(digest(&SHA256, of("code_verifier").as_bytes()));
    let well = of("grant_type") == "authorization_code"
        && challenge == asked.challenge
        && of("redirect_uri") == asked.redirect;
    if !well {
        return refuse("invalid_grant");
    }
    let id_token = id_token(&shared.issuer, &inner, &asked);
    inner.tokens.push(id_token.clone());
    Json(json!({
        "access_token": ACCESS_TOKEN, "token_type": "Bearer", "expires_in": 60, "id_token": id_token,
    }))
    .into_response()
}

fn id_token(issuer: &str, inner: &Inner, asked: &Asked) -> String {
    let now: chrono::DateTime<Utc> = SystemClock.now();
    let lie = inner.lie;
    let ends = if lie == Lie::Expired {
        now - TimeDelta::minutes(5)
    } else {
        now + TimeDelta::minutes(5)
    };
    let mut claims = inner.claims.clone();
    claims["iss"] = if lie == Lie::Issuer {
        "http://127.0.0.1:9"
    } else {
        issuer
    }
    .into();
    claims["aud"] = if lie == Lie::Audience {
        "another"
    } else {
        CLIENT_ID
    }
    .into();
    claims["iat"] = (now - TimeDelta::minutes(10)).timestamp().into();
    claims["exp"] = ends.timestamp().into();
    claims["nonce"] = match (lie, &asked.nonce) {
        (Lie::Nonce, _) => "another".into(),
        (_, nonce) => nonce.clone().into(),
    };
    let header = match lie {
        Lie::Unsigned => json!({"alg": "none"}),
        _ => json!({"alg": "ES256", "typ": "JWT", "kid": inner.key.0}),
    };
    let part = |value: &Value| BASE64.encode(value.to_string());
    let signed = format!("{}.{}", part(&header), part(&claims));
    let unpublished = new_key("first");
    let signature = match lie {
        Lie::Unsigned => return format!("{signed}."),
        Lie::Signature => &unpublished.1,
        _ => &inner.key.1,
    };
    let signature = signature
        .sign(&SystemRandom::new(), signed.as_bytes())
        .expect("a signature");
    format!("{signed}.{}", BASE64.encode(signature.as_ref()))
}
