//! How bulk changes are shown.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use setpoint_model::{
    Serial,
    change::{Abort, Outcome, Stage},
    settings::Document,
};
use setpoint_store::changes::ChangeDevice;
use uuid::Uuid;

use crate::app::changes::{ChangeProgress, DryRun, Effect};

/// A bulk change.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = BulkChange)]
pub(super) struct ChangeBody {
    /// Its id.
    id: Uuid,
    /// `canary`, `waves` and `settling` while it runs; `paused`, `aborted`, `cancelled`, `completed`, `undoing`, `undone`.
    #[schema(example = "waves")]
    state: &'static str,
    /// For one that is paused, where it goes on: `canary`, `waves` or `settling`.
    stage: Option<&'static str>,
    /// How its devices stand at this moment.
    counts: CountsBody,
    /// How they were selected: `selector`, `group`, or `serials` with how many there were.
    #[schema(value_type = Object, example = json!({"selector": "site=oslo"}))]
    selection: Value,
    /// The merge patch.
    #[schema(value_type = Object, example = json!({"reportInterval": 120}))]
    settings: Document,
    /// How many devices get it first.
    #[schema(example = "5%")]
    canary: Option<String>,
    /// How many devices a minute get it after those.
    rate_per_minute: Option<i32>,
    /// When it stops itself.
    abort: AbortBody,
    /// Why it stopped itself.
    #[schema(example = "7 of the 20 devices that have it refused it: more than 10 %")]
    reason: Option<String>,
    /// Who began it.
    #[schema(example = "user:anna")]
    actor: String,
    /// When it began.
    created_at: DateTime<Utc>,
    /// When it ended.
    finished_at: Option<DateTime<Utc>>,
}

/// How many devices of a bulk change stand where; all but `selected` add up to it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = BulkChangeCounts)]
pub(super) struct CountsBody {
    /// All of them.
    selected: i32,
    /// The patch breaks a rule of their models: they are left alone.
    invalid: u32,
    /// They ran what the patch asks for already.
    unchanged: u32,
    /// They don't have the change yet, or will not get it where it was stopped.
    waiting: u32,
    /// They have it, and have not answered.
    pending: u32,
    /// They run it.
    synced: u32,
    /// They refused it.
    refused: u32,
    /// A later change of the same keys came before their answers.
    superseded: u32,
    /// They were deleted meanwhile.
    gone: u32,
    /// Their former overrides are put back.
    undone: u32,
    /// Somebody changed a key since, which was left so when others were put back.
    kept: u32,
}

/// When a bulk change stops itself.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = BulkChangeAbort)]
struct AbortBody {
    /// When more than this share of the devices that have it refused it.
    refused_percent: f64,
    /// When more than this share of them did not answer in time.
    pending_percent: f64,
    /// How long a device has for its answer.
    #[schema(example = "1m")]
    after: String,
}

impl From<Abort> for AbortBody {
    fn from(abort: Abort) -> Self {
        Self {
            refused_percent: abort.refused_percent,
            pending_percent: abort.pending_percent,
            after: humantime::format_duration(abort.after).to_string(),
        }
    }
}

impl From<ChangeProgress> for ChangeBody {
    fn from(ChangeProgress { change, counts }: ChangeProgress) -> Self {
        let paused = matches!(change.state, setpoint_model::change::State::Paused(_));
        Self {
            id: change.id,
            state: change.state.as_str(),
            stage: change.state.stage().filter(|_| paused).map(Stage::as_str),
            counts: CountsBody {
                selected: change.selected,
                invalid: counts.of(Outcome::Invalid),
                unchanged: counts.of(Outcome::Unchanged),
                waiting: counts.of(Outcome::Waiting),
                pending: counts.of(Outcome::Pending),
                synced: counts.of(Outcome::Synced),
                refused: counts.of(Outcome::Refused),
                superseded: counts.of(Outcome::Superseded),
                gone: counts.of(Outcome::Gone),
                undone: counts.of(Outcome::Undone),
                kept: counts.of(Outcome::Kept),
            },
            selection: change.selection,
            settings: change.patch,
            canary: change.canary,
            rate_per_minute: change.rate_per_minute,
            abort: change.abort.into(),
            reason: change.reason,
            actor: change.actor,
            created_at: change.created_at,
            finished_at: change.finished_at,
        }
    }
}

/// What became of a bulk change on one device.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = BulkChangeDevice)]
pub(super) struct DeviceBody {
    /// The device.
    #[schema(value_type = String, example = "HOME-1")]
    serial: Serial,
    /// Where it stands.
    state: Outcome,
    /// What the device said, what is wrong with the patch for it, or what was left as it is.
    #[schema(example = "reportInterval: 10..300 only")]
    message: Option<String>,
    /// The version that the change made.
    version: Option<i64>,
    /// When the change last wrote to it.
    changed_at: Option<DateTime<Utc>>,
}

impl From<ChangeDevice> for DeviceBody {
    fn from(device: ChangeDevice) -> Self {
        Self {
            serial: device.serial,
            state: device.outcome,
            message: device.message,
            version: device.version,
            changed_at: device.changed_at,
        }
    }
}

/// What a bulk change would do.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = BulkChangeDryRun)]
pub(super) struct DryRunBody {
    /// Always true: nothing was changed.
    dry_run: bool,
    /// How the devices would be sorted.
    counts: DryRunCounts,
    /// Key to what would happen to it.
    effects: BTreeMap<String, EffectBody>,
    /// The first 20 devices for which the patch breaks a rule; `counts.invalid` has them all.
    invalid: Vec<InvalidBody>,
}

/// How many devices a bulk change would mean.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = BulkChangeDryRunCounts)]
struct DryRunCounts {
    /// All of them.
    selected: u32,
    /// The patch breaks a rule of their models.
    invalid: u32,
    /// They run what it asks for already.
    unchanged: u32,
    /// They would get a new version.
    changing: u32,
}

/// What would happen to one key.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = BulkChangeEffect)]
struct EffectBody {
    /// On how many devices its value would change.
    devices: u32,
    /// From which value on how many of them; the first 20 values.
    from: Vec<FromBody>,
    /// How many of them have yet another value.
    others: u32,
}

/// A value that would change.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = BulkChangeFrom)]
struct FromBody {
    /// The value now in force; null where the key isn't there.
    #[schema(value_type = Object, nullable, example = 60)]
    value: Option<Value>,
    /// On how many devices.
    devices: u32,
}

/// A device for which the patch breaks a rule.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = BulkChangeInvalid)]
struct InvalidBody {
    /// The device.
    #[schema(value_type = String, example = "HOME-1")]
    serial: Serial,
    /// What is wrong.
    #[schema(example = "reportInterval: must be at least 10")]
    message: String,
}

impl From<Effect> for EffectBody {
    fn from(effect: Effect) -> Self {
        let from = |(value, devices)| FromBody { value, devices };
        Self {
            devices: effect.devices,
            from: effect.from.into_iter().map(from).collect(),
            others: effect.others,
        }
    }
}

impl From<DryRun> for DryRunBody {
    fn from(run: DryRun) -> Self {
        let effects = run.effects.into_iter();
        let invalid = run.invalid_devices.into_iter();
        Self {
            dry_run: true,
            counts: DryRunCounts {
                selected: run.selected,
                invalid: run.invalid,
                unchanged: run.unchanged,
                changing: run.changing,
            },
            effects: effects.map(|(key, effect)| (key, effect.into())).collect(),
            invalid: invalid
                .map(|(serial, message)| InvalidBody { serial, message })
                .collect(),
        }
    }
}
