//! Who is asking, from where, and what they may do.

use std::net::IpAddr;

use setpoint_model::{Role, Scope, Serial, scope};
use uuid::Uuid;

use super::policy::{self, Action, Reach};

/// Whoever a request comes from, authenticated.
#[derive(Debug, Clone)]
pub struct Actor {
    /// Who it is.
    pub principal: Principal,
    /// What they are: with `scopes`, what `policy` says they may do.
    pub role: Role,
    /// What a token may do at most.
    pub scopes: Vec<Scope>,
    /// From where, if it came over the network.
    pub address: Option<IpAddr>,
}

/// The kinds of those who ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// A person who signed in.
    User {
        /// The person.
        id: Uuid,
        /// Their name.
        name: String,
        /// The session.
        session: Uuid,
    },
    /// The holder of an API token.
    Token {
        /// The token.
        id: Uuid,
        /// Its name.
        name: String,
        /// The person who made it; `None` for one made on the server itself.
        user: Option<Uuid>,
    },
    /// A device, with its own token, on the routes that take one.
    Device(Serial),
    /// The server itself: a task or a command on its terminal.
    System(&'static str),
}

impl Actor {
    /// The server itself acting as `task`, with every right.
    pub fn system(task: &'static str) -> Self {
        Self {
            principal: Principal::System(task),
            role: Role::Admin,
            scopes: vec![Scope::Admin],
            address: None,
        }
    }

    /// A device, which has no rights but those a route gives it for itself.
    pub fn device(serial: Serial) -> Self {
        Self {
            principal: Principal::Device(serial),
            role: Role::Owner,
            scopes: Vec::new(),
            address: None,
        }
    }

    /// The same, from an address.
    #[must_use]
    pub fn from(self, address: Option<IpAddr>) -> Self {
        Self { address, ..self }
    }

    /// The person behind it, if one is known.
    pub fn user(&self) -> Option<Uuid> {
        match &self.principal {
            Principal::User { id, .. } => Some(*id),
            Principal::Token { user, .. } => *user,
            Principal::Device(_) | Principal::System(_) => None,
        }
    }

    /// How far this actor may go with `action`.
    pub fn reach(&self, action: Action) -> Reach {
        if scope::allows(&self.scopes, action.scope()) {
            action.reach(self.role)
        } else {
            Reach::None
        }
    }

    /// Whether this actor may pass the scope on to a token of theirs.
    pub fn may_grant(&self, scope: Scope) -> bool {
        scope::allows(&self.scopes, scope) && policy::grants(self.role, scope)
    }

    /// How history names this actor: `user:anna`, `token:ci`, `device:HOME-1`, `system:publisher`.
    pub fn label(&self) -> String {
        match &self.principal {
            Principal::User { name, .. } => format!("user:{name}"),
            Principal::Token { name, .. } => format!("token:{name}"),
            Principal::Device(serial) => format!("device:{serial}"),
            Principal::System(task) => format!("system:{task}"),
        }
    }
}
