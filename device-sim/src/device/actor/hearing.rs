//! What a device does with what it hears from the server.

use std::sync::Arc;

use bytes::Bytes;
use setpoint_model::{Channel, Topic};
use tokio::time::Instant;

use super::Actor;
use crate::{
    behaviour::{self, Command, FirmwareOffer, Heard as Outcome, SettingsDocument},
    device::{PublishError, traffic::Purpose},
    event::Event,
    link::Heard,
};

impl Actor {
    pub(super) fn hear(&mut self, heard: Heard) {
        match heard {
            Heard::Subscribed { granted: true } => {
                self.state.send_modify(|state| state.ready = true);
                self.tell(&Event::Subscribed);
            }
            Heard::Subscribed { granted: false } => self.tell(&Event::SubscriptionRefused),
            Heard::Message { topic, payload } => self.hear_message(topic, &payload),
            Heard::Sent { id } => self.written(id),
            Heard::Acknowledged { id, refused } => self.acknowledged(id, refused),
            Heard::SaidGoodbye | Heard::Nothing | Heard::Connected { .. } | Heard::Lost(_) => {}
        }
    }

    fn hear_message(&mut self, topic: String, payload: &Bytes) {
        let heard = match topic.parse::<Topic>().map(|topic| topic.channel) {
            Ok(Channel::Settings) => behaviour::read(payload).map(|document| self.hear_settings(document)),
            Ok(Channel::Commands) => behaviour::read(payload).map(|command| self.hear_command(command)),
            // An empty payload withdraws a firmware.
            Ok(Channel::Firmware) if payload.is_empty() => Ok(()),
            Ok(Channel::Firmware) => behaviour::read(payload).map(|offer| self.hear_firmware(offer)),
            _ => Ok(()),
        };
        if let Err(error) = heard {
            self.tell(&Event::Unreadable {
                topic,
                reason: error.to_string(),
            });
        }
    }

    fn hear_settings(&mut self, document: SettingsDocument) {
        let wanted = Arc::new(document.settings.clone());
        match self.behaviour.hear_settings(document) {
            Outcome::Stale { version, current } => self.tell(&Event::StaleSettings { version, current }),
            Outcome::Applied(acknowledgement) => {
                let version = acknowledgement.version;
                let after_subscribe = self.subscribed_at.take().map(|at| at.elapsed());
                if let Some(sampler) = &mut self.sampler {
                    sampler.interval_changed(self.behaviour.report_interval(), Instant::now());
                }
                self.state.send_modify(|state| {
                    state.version = Some(version);
                    state.settings = Arc::clone(&acknowledgement.settings);
                });
                let purpose = Purpose::Acknowledgement { version };
                self.report(Channel::SettingsAck, &acknowledgement, purpose);
                let refused = acknowledgement.errors;
                self.tell(&Event::Settings {
                    version,
                    settings: wanted,
                    refused,
                    after_subscribe,
                });
            }
        }
    }

    fn hear_command(&mut self, command: Command) {
        let result = self.behaviour.obey(&command, self.options.clock.now());
        self.report(Channel::CommandResult(command.id), &result, Purpose::Report);
        self.tell(&Event::Command {
            id: command.id,
            name: command.name,
            code: result.code,
        });
    }

    fn hear_firmware(&mut self, offer: FirmwareOffer) {
        self.firmware = self.behaviour.install(offer).into();
        self.firmware_at = Some(Instant::now());
    }

    pub(super) fn report_firmware(&mut self, now: Instant) {
        if self.firmware_at.is_none_or(|at| at > now) {
            return;
        }
        if let Some(status) = self.firmware.pop_front() {
            self.report(Channel::FirmwareStatus, &status, Purpose::Report);
            self.tell(&Event::Firmware { status });
        }
        self.firmware_at = (!self.firmware.is_empty()).then(|| now + self.options.firmware_step);
    }

    fn written(&mut self, id: u16) {
        if let Some(sample) = self.traffic.written(id) {
            self.state.send_modify(|state| state.telemetry_sent += 1);
            self.tell(&Event::TelemetrySent { sample });
        }
    }

    fn acknowledged(&mut self, id: u16, refused: Option<String>) {
        let Some((purpose, took)) = self.traffic.acknowledged(id) else {
            return;
        };
        if let Some(reason) = refused {
            self.tell(&Event::PublishRefused { reason });
            return purpose.settle(Err(PublishError::Refused));
        }
        match purpose {
            Purpose::Acknowledgement { version } => {
                self.state.send_modify(|state| state.acknowledged = Some(version));
                self.tell(&Event::Acknowledged { version, took });
            }
            Purpose::Telemetry { .. } => {
                self.state.send_modify(|state| state.telemetry_acknowledged += 1);
                self.tell(&Event::TelemetryAcknowledged { took });
            }
            Purpose::Report | Purpose::Ordered { .. } => purpose.settle(Ok(())),
        }
    }
}
