//! Who is asking, and what they may do.

use setpoint_model::{Scope, Serial, scope};
use uuid::Uuid;

use super::Error;

/// Whoever a request comes from, authenticated.
#[derive(Debug, Clone)]
pub struct Actor {
    /// Who it is.
    pub principal: Principal,
    /// What it may do.
    pub scopes: Vec<Scope>,
}

/// The kinds of those who ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
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
            scopes: vec![Scope::Admin],
        }
    }

    /// Whether the scope is among this actor's rights.
    pub fn may(&self, needed: Scope) -> bool {
        scope::allows(&self.scopes, needed)
    }

    /// # Errors
    /// [`Error::Forbidden`] unless [`Self::may`].
    pub fn require(&self, needed: Scope) -> Result<(), Error> {
        if self.may(needed) {
            Ok(())
        } else {
            Err(Error::Forbidden { scope: needed })
        }
    }

    /// How history names this actor: `token:ci`, `device:HOME-1`, `system:publisher`.
    pub fn label(&self) -> String {
        match &self.principal {
            Principal::Token { name, .. } => format!("token:{name}"),
            Principal::Device(serial) => format!("device:{serial}"),
            Principal::System(task) => format!("system:{task}"),
        }
    }
}
