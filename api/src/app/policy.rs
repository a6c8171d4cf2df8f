//! Who may do what: the one table, and the one way to ask it.
//!
//! What is not in the table is denied. A person's scopes follow from it, a token may do what its scopes and the present
//! role of its maker both allow, and a device that an actor may not know of is not found rather than forbidden.

use setpoint_model::{Role, Scope, Serial};

use super::{Actor, App, Error};

/// How far a right goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Nowhere.
    None,
    /// To what is the actor's own: devices registered to or shared with them, tokens they made.
    Own,
    /// To everything.
    All,
}

macro_rules! table {
    ($($(#[$doc:meta])* $action:ident $name:literal $scope:ident [$admin:ident $operator:ident $viewer:ident $owner:ident],)+) => {
        /// Everything that takes a right.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Action {
            $($(#[$doc])* $action,)+
        }

        impl Action {
            /// Every action there is.
            pub const ALL: &[Self] = &[$(Self::$action,)+];

            /// Its name in the audit log.
            pub fn name(self) -> &'static str {
                match self { $(Self::$action => $name,)+ }
            }

            /// The scope that a token needs for it.
            pub fn scope(self) -> Scope {
                match self { $(Self::$action => Scope::$scope,)+ }
            }

            /// How far a person of this role may go.
            pub fn reach(self, role: Role) -> Reach {
                let row = match self { $(Self::$action => [Reach::$admin, Reach::$operator, Reach::$viewer, Reach::$owner],)+ };
                let [admin, operator, viewer, owner] = row;
                match role {
                    Role::Admin => admin,
                    Role::Operator => operator,
                    Role::Viewer => viewer,
                    Role::Owner => owner,
                }
            }
        }
    };
}

table! {
    // action          in the audit log         a token's scope  [admin operator viewer owner]
    /// Read devices, their presence and timeline.
    ReadDevice         "device.read"            DevicesRead      [All   All      All    Own ],
    /// Make a device with a credential of its own.
    CreateDevice       "device.create"          DevicesWrite     [All   All      None   None],
    /// Change a device's name, place and time zone; report it stolen or found.
    DescribeDevice     "device.update"          DevicesWrite     [All   All      None   Own ],
    /// Change a device's model and tags, by which groups select it.
    ClassifyDevice     "device.classify"        DevicesWrite     [All   All      None   None],
    /// Delete a device with all that is known of it.
    DeleteDevice       "device.delete"          DevicesWrite     [All   All      None   None],
    /// Give a device a new token.
    RotateCredential   "device.rotate"          DevicesWrite     [All   All      None   Own ],
    /// Take a device's token away.
    RevokeCredential   "device.revoke"          DevicesWrite     [All   All      None   Own ],
    /// Tell what the factory knows of serials.
    ImportSerials      "factory.import"         DevicesWrite     [All   All      None   None],
    /// Register a device to oneself by its code.
    ClaimDevice        "device.claim"           DevicesClaim     [All   All      None   Own ],
    /// Let another person in, or out.
    ShareDevice        "device.share"           DevicesClaim     [All   All      None   Own ],
    /// Take a device back from whoever holds it.
    Unregister         "device.unregister"      DevicesClaim     [All   All      None   Own ],
    /// Hear what happens to devices; settings and telemetry take the right to read them too.
    ReadEvents         "event.read"            DevicesRead      [All   All      All    Own ],
    /// Read settings, their history and status.
    ReadSettings       "settings.read"          SettingsRead     [All   All      All    Own ],
    /// Change settings.
    WriteSettings      "settings.write"         SettingsWrite    [All   All      None   Own ],
    /// Read schedules, and what they will do.
    ReadSchedules      "schedule.read"         SettingsRead     [All   All      All    Own ],
    /// Make, change and remove schedules.
    WriteSchedules     "schedule.write"        SettingsWrite    [All   All      None   Own ],
    /// Read bulk changes of settings.
    ReadChanges        "change.read"           SettingsRead     [All   All      All    None],
    /// Begin bulk changes of settings; hold, stop and take them back.
    WriteChanges       "change.write"          SettingsWrite    [All   All      None   None],
    /// Read telemetry.
    ReadTelemetry      "telemetry.read"         TelemetryRead    [All   All      All    Own ],
    /// Store telemetry on a device's behalf.
    WriteTelemetry     "telemetry.write"        TelemetryWrite   [All   All      None   None],
    /// Delete the samples of a metric.
    DeleteTelemetry    "telemetry.delete"       TelemetryWrite   [All   All      None   None],
    /// Read product models.
    ReadModels         "model.read"             ModelsRead       [All   All      All    All ],
    /// Change product models.
    WriteModels        "model.write"            ModelsWrite      [All   All      None   None],
    /// Connect to MQTT and hear devices.
    ConnectMqtt        "mqtt.connect"           Mqtt             [All   All      All    Own ],
    /// Speak on MQTT on a device's behalf.
    SpeakOnMqtt        "mqtt.speak"             Mqtt             [All   All      None   None],
    /// Read groups and who belongs to them.
    ReadGroups         "group.read"             GroupsRead       [All   All      All    None],
    /// Make, change and delete groups, and with them the settings of their members.
    WriteGroups        "group.write"            GroupsWrite      [All   All      None   None],
    /// Read webhooks and what became of their events.
    ReadWebhooks       "webhook.read"          WebhooksRead     [All   All      None   None],
    /// Make, change, test and delete webhooks, which carry events of all devices away.
    WriteWebhooks      "webhook.write"         WebhooksWrite    [All   All      None   None],
    /// See who is connected over MQTT.
    ReadMqttSessions   "mqtt_session.read"      DevicesRead      [All   All      All    Own ],
    /// End an MQTT session.
    EndMqttSession     "mqtt_session.end"       DevicesWrite     [All   All      None   Own ],
    /// Read alert rules, and where devices stand towards them.
    ReadAlerts         "alert.read"            AlertsRead       [All   All      All    Own ],
    /// Make, change and delete alert rules.
    WriteAlerts        "alert.write"           AlertsWrite      [All   All      None   None],
    /// Make, list and delete API tokens.
    ManageTokens       "token.manage"           TokensWrite      [All   Own      Own    Own ],
    /// Read Prometheus metrics.
    ReadMetrics        "metrics.read"           MetricsRead      [All   All      All    None],
    /// Read the audit log.
    ReadAudit          "audit.read"             AuditRead        [All   None     None   None],
    /// Add, change and remove people.
    ManageUsers        "user.manage"            Admin            [All   None     None   None],
}

/// Whether a role has anything of what a scope stands for.
pub fn grants(role: Role, scope: Scope) -> bool {
    of(scope).any(|action| action.reach(role) != Reach::None)
}

/// The scopes of a person of this role.
pub fn scopes(role: Role) -> Vec<Scope> {
    let all = Scope::ALL.iter().copied();
    all.filter(|scope| grants(role, *scope)).collect()
}

fn of(scope: Scope) -> impl Iterator<Item = Action> {
    Action::ALL
        .iter()
        .copied()
        .filter(move |action| action.scope() == scope)
}

impl App {
    /// How far the actor may go with `action`; never [`Reach::None`].
    ///
    /// # Errors
    /// [`Error::Forbidden`], which also goes to the audit log.
    pub fn authorize(&self, actor: &Actor, action: Action) -> Result<Reach, Error> {
        self.judge(actor, action, "")
    }

    /// Whether the actor may do `action` to everything.
    ///
    /// # Errors
    /// [`Error::Forbidden`], which also goes to the audit log.
    pub fn authorize_all(&self, actor: &Actor, action: Action) -> Result<(), Error> {
        match self.authorize(actor, action)? {
            Reach::All => Ok(()),
            Reach::Own | Reach::None => Err(self.refuse(actor, action, "")),
        }
    }

    /// Whether the actor may do `action` to this device. Whether there is such a device is not asked where the actor may
    /// reach all of them.
    ///
    /// # Errors
    /// [`Error::Forbidden`], which also goes to the audit log; [`Error::NotFound`] for a device that isn't theirs.
    pub async fn authorize_device(
        &self,
        actor: &Actor,
        action: Action,
        serial: &Serial,
    ) -> Result<Reach, Error> {
        let judged = self.judge(actor, action, serial.as_str());
        // Whoever sees only their own may not know of others, whatever they would do to them. That a token lacks a scope
        // tells nothing of the device.
        let own_only = [action, Action::ReadDevice].map(|action| action.reach(actor.role));
        let lacks_scope = judged.is_err() && action.reach(actor.role) != Reach::None;
        if own_only.contains(&Reach::Own) && !lacks_scope {
            let stranger = match actor.user() {
                Some(user) => !self.store.owns(user, serial).await?,
                None => judged.is_ok(),
            };
            if stranger {
                return Err(Error::NotFound { what: "device" });
            }
        }
        judged
    }

    fn judge(&self, actor: &Actor, action: Action, serial: &str) -> Result<Reach, Error> {
        match actor.reach(action) {
            Reach::None => Err(self.refuse(actor, action, serial)),
            reach => Ok(reach),
        }
    }

    fn refuse(&self, actor: &Actor, action: Action, serial: &str) -> Error {
        let object = if serial.is_empty() {
            String::new()
        } else {
            format!("device:{serial}")
        };
        self.audit.refused(self.entry(actor, action.name(), object));
        Error::Forbidden {
            scope: action.scope(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_administrator_may_do_everything() {
        for action in Action::ALL {
            assert_eq!(action.reach(Role::Admin), Reach::All, "{action:?}");
        }
        assert_eq!(scopes(Role::Admin), Scope::ALL);
    }

    #[test]
    fn every_scope_stands_for_something() {
        for scope in Scope::ALL {
            assert!(of(*scope).next().is_some(), "{scope}");
        }
    }

    #[test]
    fn nobody_has_more_than_an_operator_but_administrators() {
        for action in Action::ALL {
            let operator = action.reach(Role::Operator);
            for role in [Role::Viewer, Role::Owner] {
                let more = matches!(
                    (operator, action.reach(role)),
                    (Reach::None, Reach::Own | Reach::All) | (Reach::Own, Reach::All)
                );
                assert!(!more, "{role} and {action:?}");
            }
        }
    }

    #[test]
    fn a_viewer_changes_nothing_but_their_own_tokens() {
        let granted = Action::ALL
            .iter()
            .filter(|action| action.reach(Role::Viewer) != Reach::None);
        for action in granted {
            let reads = action.name().ends_with(".read") || *action == Action::ConnectMqtt;
            assert!(reads || *action == Action::ManageTokens, "{action:?}");
        }
    }

    #[test]
    fn names_tell_actions_apart() {
        let mut names: Vec<_> = Action::ALL.iter().map(|action| action.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Action::ALL.len());
    }
}
