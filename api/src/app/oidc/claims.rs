//! What a provider's claims mean here: a name, an address, a role.

use serde_json::Value;
use setpoint_model::Role;

use crate::{app::users, config::Oidc};

/// What the claims say of a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mapped {
    /// It is this one.
    Role(Role),
    /// Nothing: it is this one at first, and then what an administrator says.
    AtFirst(Role),
    /// This person has no role here.
    Nobody,
}

/// The role of whom these claims are about: the highest that one of their values stands for.
pub(super) fn role(config: &Oidc, claims: &Value) -> Mapped {
    if config.roles.is_empty() {
        return config.default_role.map_or(Mapped::Nobody, Mapped::AtFirst);
    }
    let values = texts(find(claims, &config.role_claim));
    let mapped: Vec<Role> = values
        .iter()
        .filter_map(|value| config.roles.get(*value).copied())
        .collect();
    let highest = Role::ALL.into_iter().find(|role| mapped.contains(role));
    highest
        .or(config.default_role)
        .map_or(Mapped::Nobody, Mapped::Role)
}

/// What a new person is called: by the configured claim, or else by their e-mail address or subject.
pub(super) fn username(config: &Oidc, claims: &Value) -> Option<String> {
    [&*config.username_claim, "email", "sub"]
        .into_iter()
        .filter_map(|claim| find(claims, claim).as_str())
        .find_map(users::username)
}

/// Their e-mail address, if the provider tells one.
pub(super) fn email(claims: &Value) -> Option<String> {
    let text = find(claims, "email").as_str()?;
    users::email(text.to_owned()).ok()
}

/// A claim by its name, which may hold dots (as an address does), or by its path.
fn find<'a>(claims: &'a Value, path: &str) -> &'a Value {
    static NULL: Value = Value::Null;
    match claims.get(path) {
        Some(value) => value,
        None => path
            .split('.')
            .try_fold(claims, |value, name| value.get(name))
            .unwrap_or(&NULL),
    }
}

fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(values) => values.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::{Config, Sources};

    fn config(pairs: &[(&str, &str)]) -> Oidc {
        let sources = Sources::default()
            .with("sign_in.oidc.issuer", "https://login.example")
            .with("sign_in.oidc.client_id", "setpoint");
        let sources = pairs.iter().fold(sources, |sources, (key, value)| {
            sources.with(format!("sign_in.oidc.{key}"), *value)
        });
        Config::load(&sources).unwrap().sign_in.oidc
    }

    #[test]
    fn the_highest_role_counts() {
        let roles = r#"{staff = "operator", chiefs = "admin"}"#;
        let strict = config(&[("roles", roles)]);
        let lenient = config(&[("roles", roles), ("default_role", "owner")]);
        for (groups, expected) in [
            (json!(["staff", "chiefs", "x"]), Some(Role::Admin)),
            (json!("staff"), Some(Role::Operator)),
            (json!(["x", 1]), None),
            (json!({"staff": true}), None),
            (Value::Null, None),
        ] {
            let claims = json!({"groups": groups});
            let mapped = expected.map_or(Mapped::Nobody, Mapped::Role);
            assert_eq!(role(&strict, &claims), mapped, "{claims}");
            let mapped = Mapped::Role(expected.unwrap_or(Role::Owner));
            assert_eq!(role(&lenient, &claims), mapped, "{claims}");
        }
        let unmapped = config(&[("default_role", "viewer")]);
        assert_eq!(role(&unmapped, &json!({})), Mapped::AtFirst(Role::Viewer));
    }

    #[test]
    fn a_claim_is_found_by_name_or_path() {
        let nested = config(&[
            ("roles", r#"{a = "viewer"}"#),
            ("role_claim", "realm_access.roles"),
        ]);
        for claims in [
            json!({"realm_access": {"roles": ["a"]}}),
            json!({"realm_access.roles": "a"}),
        ] {
            assert_eq!(role(&nested, &claims), Mapped::Role(Role::Viewer));
        }
        assert_eq!(role(&nested, &json!({"realm_access": "a"})), Mapped::Nobody);
    }

    #[test]
    fn a_name_is_one_that_will_do() {
        let config = config(&[("default_role", "viewer")]);
        for (claims, expected) in [
            (json!({"sub": "1", "preferred_username": "Anna"}), Some("anna")),
            (
                json!({"sub": "1", "preferred_username": "Anna B", "email": "a@b.c"}),
                Some("a@b.c"),
            ),
            (json!({"sub": "1"}), Some("1")),
            (json!({"sub": "auth0|1"}), None),
        ] {
            assert_eq!(username(&config, &claims).as_deref(), expected, "{claims}");
        }
    }
}
