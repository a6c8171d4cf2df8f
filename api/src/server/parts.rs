//! The application and its tasks: a place per part, in the order of the layers.

use std::sync::Arc;

use prometheus_client::registry::Registry;
use setpoint_broker::Handle;
use setpoint_model::Clock;
use setpoint_store::{Store, audit::NewEntry, peers::Notices};
use tokio::sync::mpsc::Receiver;
use uuid::Uuid;

use crate::{
    app::{
        Alerts, App, AuditLog, Error, Events, Hints, Ingest, Parts, PresenceBook, Timeline,
        changes::Changes,
        claims::Claiming,
        credentials::Credentials,
        enrolment::{Enrolment, Rules},
        factory::Factory,
        oidc::Oidc,
        peers::Peers,
        rights::Rights,
        sealing::ServerKey,
        sessions::SignIn,
        settings::{Acknowledgement, Engine},
        telemetry::{Batch, Readers},
        timeline::Noted,
        tokens::Tokens,
        webhooks::Webhooks,
    },
    config::Config,
    lifecycle::Tasks,
    tasks,
};

/// What the writers empty.
pub(super) struct Queues {
    telemetry: Receiver<Batch>,
    timeline: Receiver<Noted>,
    acknowledgements: Receiver<Acknowledgement>,
    refusals: Receiver<NewEntry>,
}

/// The application, and the queues of its writers.
pub(super) fn app(
    config: &Config,
    store: Store,
    broker: Handle,
    clock: Arc<dyn Clock>,
    (key, oidc): (ServerKey, Oidc),
    registry: &mut Registry,
) -> (App, Queues) {
    let (settings, acknowledgements) = Engine::new(&config.settings, registry);
    let registry = registry.sub_registry_with_prefix(super::PREFIX);
    let (timeline, entries) = Timeline::new(&config.timeline, registry);
    let run = u64::try_from(clock.now().timestamp_micros()).unwrap_or_default();
    let events = Events::new(run, &config.events, registry);
    let alerts = Alerts::new(config.alerts.clone(), registry);
    let (ingest, batches) = Ingest::new(
        store.clone(),
        Arc::clone(&clock),
        timeline.clone(),
        events.clone(),
        alerts.clone(),
        &config.telemetry,
        registry,
    );
    let reading = Readers::new(&config.telemetry, registry);
    let presence = PresenceBook::new(Uuid::new_v4(), config.timeline.last_seen_every);
    let (audit, refusals) = AuditLog::new(registry);
    let enrolment = Rules {
        model: config.mqtt.tls.enrol_model.clone(),
        per_minute: config.mqtt.tls.enrol_per_minute,
    };
    let enrolment = Enrolment::new(enrolment, registry);
    let changes = Changes::new(config.bulk_changes.clone(), registry);
    let webhooks = Webhooks::new(config.webhooks.clone(), registry);
    let app = App::new(Parts {
        store,
        broker,
        clock,
        hints: Hints::default(),
        tokens: Tokens::default(),
        rights: Rights::default(),
        peers: Peers::default(),
        credentials: Credentials::default(),
        enrolment,
        people: SignIn::new(config.sign_in.clone(), key),
        oidc,
        claiming: Claiming::new(config.claiming.clone()),
        factory: Factory::new(config.factory.clone()),
        audit,
        changes,
        settings,
        schedule_limits: config.schedules.clone(),
        alerts,
        ingest,
        reading,
        presence,
        events,
        timeline,
        webhooks,
    });
    (
        app,
        Queues {
            telemetry: batches,
            timeline: entries,
            acknowledgements,
            refusals,
        },
    )
}

/// What must be done before the first session and the first request: the database's partitions and presence, in the
/// broker every retained message, and in memory what devices sign in with.
/// Returns what other servers do meanwhile.
pub(super) async fn prepare(app: &App) -> Result<Notices, Error> {
    // Before anything is remembered, so that no change of it is missed.
    let notices = app.store.notices(app.presence.server()).await?;
    tasks::partitions::make(app).await?;
    tasks::presence_writer::take_over_at_start(app).await?;
    tasks::presence_writer::restore(app).await?;
    tasks::settings_publisher::restore(app).await?;
    app.load_credentials().await?;
    app.watch_alerts().await?;
    Ok(notices)
}

/// Starts every task.
pub(super) fn spawn(app: &App, queues: Queues, notices: Notices, config: &Config, tasks: &Tasks) {
    let stop = || tasks.stopping();
    tasks.background("peers", tasks::peers::run(app.clone(), Some(notices), stop()));
    let telemetry =
        tasks::telemetry_writer::run(app.clone(), queues.telemetry, config.telemetry.clone(), stop());
    tasks.essential("telemetry writer", telemetry);
    let every = config.settings.reconcile_every;
    let pulse = tasks.pulse("settings publisher", every);
    tasks.essential(
        "settings publisher",
        tasks::settings_publisher::run(app.clone(), every, pulse, stop()),
    );
    let pulse = tasks.pulse("settings layers", every);
    tasks.essential(
        "settings layers",
        tasks::settings_layers::run(app.clone(), every, pulse, stop()),
    );
    let pulse = tasks.pulse("bulk changes", every);
    tasks.essential(
        "bulk changes",
        tasks::changes::run(app.clone(), config.bulk_changes.clone(), every, pulse, stop()),
    );
    let pulse = tasks.pulse("webhooks", every);
    tasks.essential(
        "webhooks",
        tasks::webhooks::run(app.clone(), every, pulse, stop()),
    );
    let pulse = tasks.pulse("alerts", every);
    tasks.essential("alerts", tasks::alerts::run(app.clone(), every, pulse, stop()));
    tasks.essential(
        "settings acknowledgements",
        tasks::settings_acks::run(app.clone(), queues.acknowledgements, stop()),
    );
    tasks.background(
        "settings overdue",
        tasks::settings_overdue::run(app.clone(), every, stop()),
    );
    tasks.essential("settings marks", tasks::settings_marks::run(app.clone(), stop()));
    tasks.essential(
        "presence writer",
        tasks::presence_writer::run(app.clone(), stop()),
    );
    tasks.essential(
        "timeline writer",
        tasks::timeline_writer::run(app.clone(), queues.timeline, stop()),
    );
    let (every, lag) = (config.telemetry.rollup_every, config.telemetry.rollup_lag);
    let rollups = tasks::telemetry_rollups::run(app.clone(), every, lag, stop());
    tasks.background("telemetry roll-ups", rollups);
    tasks.essential(
        "telemetry partitions",
        tasks::partitions::run(app.clone(), stop()),
    );
    tasks.essential(
        "audit writer",
        tasks::audit_writer::run(app.clone(), queues.refusals, stop()),
    );
    let expiry = tasks::expiry::run(app.clone(), config.audit.clone(), stop());
    tasks.background("expiry", expiry);
    let retention = tasks::retention::run(
        app.clone(),
        config.telemetry.clone(),
        config.timeline.clone(),
        stop(),
    );
    tasks.background("retention", retention);
    tasks.background(
        "factory imports",
        tasks::factory_imports::run(app.clone(), stop()),
    );
    tasks.background(
        "home assistant",
        tasks::home_assistant::run(app.clone(), config.home_assistant.reconcile_every, stop()),
    );
    tasks.background("rights", tasks::rights::run(app.clone(), stop()));
    tasks.background("purges", tasks::purges::run(app.clone(), stop()));
    tasks.background("token use", tasks::token_use::run(app.clone(), stop()));
}
