//! Taking a change back, device by device: only where its keys still are as the change left them.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use setpoint_model::{
    DeviceId,
    change::{Outcome, State, undo::undo},
    settings::{Schema, Source},
};
use setpoint_store::{
    changes::{ClaimedChange, Taken, Undoable},
    settings::Settings,
};

use super::{
    App, Error,
    judge::{Author, Judgement},
    work::{Step, Written, batch},
};

impl App {
    /// Puts the next batch of devices back.
    pub(super) async fn undo_change(
        &self,
        mut claimed: ClaimedChange,
        now: DateTime<Utc>,
    ) -> Result<Step, Error> {
        let devices = claimed.undoable(batch()).await?;
        if devices.is_empty() {
            return self.end(claimed, State::Undone, now).await;
        }
        let serials: Vec<&str> = devices.iter().map(|device| device.serial.as_str()).collect();
        claimed.locked.lock(&serials).await?;
        let by_id: HashMap<DeviceId, &Undoable> =
            devices.iter().map(|device| (device.device_id, device)).collect();
        let actor = claimed.change.undo_actor.clone().unwrap_or_default();
        let author = Author {
            actor: &actor,
            source: Source::Undo,
        };
        let back = |settings: &Settings, _: &Schema| {
            let undone = by_id
                .get(&settings.device_id)
                .map(|device| undo(&device.before, &device.after, &settings.overrides).overrides);
            Ok(undone.unwrap_or_else(|| settings.overrides.clone()))
        };
        let judged = self.judge_devices(&mut claimed.locked, author, back).await?;
        let mut judged: HashMap<_, _> = judged
            .into_iter()
            .map(|judged| (judged.settings.device_id, judged))
            .collect();
        let (mut written, mut taken) = (Written::default(), Vec::with_capacity(devices.len()));
        for device in &devices {
            let Some(judged) = judged.remove(&device.device_id) else {
                taken.push(note(device, Outcome::Gone, None));
                continue;
            };
            let kept = undo(&device.before, &device.after, &judged.settings.overrides).kept;
            let mut noted = if kept.is_empty() {
                note(device, Outcome::Undone, None)
            } else {
                let message = format!("changed since: {}", kept.join(", "));
                note(device, Outcome::Kept, Some(message))
            };
            match judged.judgement {
                // Its model changed since.
                Judgement::Invalid(error) => noted = note(device, Outcome::Kept, Some(error.sentence())),
                Judgement::Nothing => {}
                Judgement::Overrides(overrides) => written.overrides(overrides),
                Judgement::Version(version) => written.version(judged.settings.serial, version),
            }
            taken.push(noted);
        }
        written.write(&mut claimed, now).await?;
        claimed.note_taken(&taken, now).await?;
        claimed.save(Some(now)).await?;
        claimed.commit().await?;
        self.versions_written(&written, Source::Undo);
        Ok(Step::Wrote)
    }
}

fn note(device: &Undoable, outcome: Outcome, message: Option<String>) -> Taken {
    Taken {
        place: device.place,
        outcome,
        message,
    }
}
