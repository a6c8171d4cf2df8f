//! `[sign_in.oidc]`.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;
use setpoint_model::Role;
use url::{Host, Url};

use super::{error::Invalid, units};

/// Sign-in with an OpenID Connect provider; off without an issuer.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Oidc {
    /// The provider, by its issuer identifier.
    pub issuer: Option<String>,
    /// What this server is to the provider.
    pub client_id: Option<String>,
    /// The secret that goes with it; `None` for a public client.
    pub client_secret: Option<String>,
    /// What the sign-in page calls the provider.
    pub name: String,
    /// Scopes asked for besides `openid`.
    pub scopes: Vec<String>,
    /// Whether somebody new becomes a person here.
    pub create: bool,
    /// The claim that a new person's name is taken from.
    pub username_claim: String,
    /// The claim that tells roles, by its path.
    pub role_claim: String,
    /// The roles by that claim's values.
    pub roles: BTreeMap<String, Role>,
    /// The role of somebody without such a value; `None` refuses them.
    pub default_role: Option<Role>,
    /// The longest that a request to the provider may take.
    #[serde(deserialize_with = "units::duration")]
    pub timeout: Duration,
}

impl std::fmt::Debug for Oidc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Oidc")
            .field("issuer", &self.issuer)
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}

impl Oidc {
    pub(super) fn validate(&self) -> Result<(), Invalid> {
        let Some(issuer) = &self.issuer else {
            return match self.client_id {
                Some(_) => Err(Invalid::new("sign_in.oidc.issuer", "needed with client_id")),
                None => Ok(()),
            };
        };
        if !is_private(issuer) {
            return Err(Invalid::new(
                "sign_in.oidc.issuer",
                "an address such as \"https://login.example/realms/home\" (http on loopback alone)",
            ));
        }
        if self.client_id.is_none() {
            return Err(Invalid::new("sign_in.oidc.client_id", "needed with issuer"));
        }
        if self.roles.is_empty() && self.default_role.is_none() {
            return Err(Invalid::new(
                "sign_in.oidc.roles",
                "roles or default_role is needed, or nobody could sign in",
            ));
        }
        if self.timeout.is_zero() {
            return Err(Invalid::new("sign_in.oidc.timeout", "more than 0s"));
        }
        Ok(())
    }
}

/// Whether nobody between this server and the provider can listen.
fn is_private(issuer: &str) -> bool {
    let Ok(url) = Url::parse(issuer) else { return false };
    let loopback = match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    };
    let bare = url.query().is_none() && url.fragment().is_none();
    bare && (url.scheme() == "https" || (url.scheme() == "http" && loopback))
}
