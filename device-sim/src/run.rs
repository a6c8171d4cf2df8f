//! Devices at work: from arguments to running devices, and to an exit code.

use std::{path::Path, process::ExitCode, sync::Arc, time::Duration};

use device_sim::{
    Device, DeviceOptions, Ended, Endpoint, Fleet, FleetOptions, Registrar, Rest, Token,
    bench::BenchError,
    device::{Absence, MqttVersion, Session, TelemetryPlan},
    endpoint::{EndpointError, TlsFiles},
    event::{Observer, nobody},
    fleet::{measure_changes, serials},
    open_files::{self, TooFew},
    rest::RestError,
};
use setpoint_model::{Serial, SystemClock};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_util::task::TaskTracker;

use crate::{
    cli::{ADMIN_TOKEN, Run, Server, Version},
    output::{self, Summaries},
};

/// How long devices may take to say DISCONNECT; we promise to end within three seconds.
const FAREWELL: Duration = Duration::from_millis(2200);

/// Why the program ends without success.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// A bad argument.
    #[error("{0}")]
    Usage(String),
    /// A credential that was refused.
    #[error("{0}")]
    NotAuthorized(String),
    /// All else.
    #[error("{0}")]
    Other(String),
}

impl Failure {
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) | Self::NotAuthorized(_) => ExitCode::from(2),
            Self::Other(_) => ExitCode::FAILURE,
        }
    }
}

impl From<RestError> for Failure {
    fn from(error: RestError) -> Self {
        match error {
            RestError::NotAuthorized { .. } => Self::NotAuthorized(error.to_string()),
            error => Self::Other(error.to_string()),
        }
    }
}

impl From<BenchError> for Failure {
    fn from(error: BenchError) -> Self {
        match error {
            BenchError::Rest(error) => error.into(),
            BenchError::Options(_) => Self::Usage(error.to_string()),
            error => Self::Other(error.to_string()),
        }
    }
}

impl From<EndpointError> for Failure {
    fn from(error: EndpointError) -> Self {
        Self::Usage(error.to_string())
    }
}

impl From<TooFew> for Failure {
    fn from(error: TooFew) -> Self {
        Self::Usage(error.to_string())
    }
}

/// Runs one device or a fleet until a signal ends it.
pub(crate) async fn devices(run: Run) -> Result<(), Failure> {
    let files = TlsFiles {
        ca: run.tls_ca.clone(),
        identity: run.tls_cert.clone().zip(run.tls_key.clone()),
    };
    let endpoint = Endpoint::new(run.server.mqtt.clone(), &files)?;
    // A client certificate is a credential too; an administrator's token is then used only if it is given.
    let by_certificate = run.tls_cert.is_some() && run.server.admin_token_file.is_none();
    let needs_none = run.anonymous || run.token.is_some() || by_certificate || run.claim;
    let registrar = if needs_none {
        None
    } else {
        Some(registrar(&run.server)?)
    };
    match (&run.serial, run.fleet) {
        (Some(serial), _) => one(&run, serial.clone(), endpoint, registrar).await,
        (None, Some(count)) => fleet(&run, count, endpoint, registrar).await,
        (None, None) => Err(Failure::Usage("give a serial, or --fleet N".to_owned())),
    }
}

fn options(
    run: &Run,
    serial: Serial,
    token: Option<Token>,
    endpoint: &Endpoint,
    observer: Observer,
) -> DeviceOptions {
    let mut options = DeviceOptions::new(serial, token, endpoint.clone());
    options.version = match run.mqtt_version {
        Version::V3 => MqttVersion::V3,
        Version::V5 => MqttVersion::V5,
    };
    options.session = if run.persistent {
        Session::Persistent
    } else {
        Session::Clean
    };
    options.refuse.clone_from(&run.refuse);
    options.telemetry = Some(TelemetryPlan {
        every: run.telemetry_every,
        first_after: Duration::ZERO,
        at_least_once: run.qos == 1,
    });
    options.absence = run.offline_every.map(|every| Absence {
        every,
        away: run.offline_for,
    });
    options.observer = observer;
    options
}

async fn one(
    run: &Run,
    serial: Serial,
    endpoint: Endpoint,
    registrar: Option<Registrar>,
) -> Result<(), Failure> {
    let token = match registrar {
        Some(registrar) => Some(registrar.credential(&serial).await?),
        None if run.claim => Some(crate::enrol::enrol(run, &serial).await?),
        None => run.token.clone(),
    };
    if !run.server.json {
        let version = if run.mqtt_version == Version::V5 {
            "5.0"
        } else {
            "3.1.1"
        };
        output::line(&format!(
            "{serial} on {} (MQTT {version}); Ctrl-C ends it",
            endpoint.url()
        ));
    }
    let tracker = TaskTracker::new();
    let options = options(
        run,
        serial.clone(),
        token,
        &endpoint,
        output::printer(run.server.json),
    );
    let device = Device::start(options, &tracker);
    let ended = tokio::select! {
        // The device ends by itself only when its credential is refused.
        state = device.wait(Duration::MAX, |state| state.ended.is_some()) => state.ok().and_then(|state| state.ended),
        () = ended_by_signal() => None,
    };
    if ended == Some(Ended::NotAuthorized) {
        return Err(Failure::NotAuthorized(format!(
            "not authorized: the server refused the credential of {serial}"
        )));
    }
    // Whatever hasn't been said by then stays unsaid: the user wants to go.
    let _ = timeout(FAREWELL, device.stop()).await;
    Ok(())
}

async fn fleet(
    run: &Run,
    count: u32,
    endpoint: Endpoint,
    registrar: Option<Registrar>,
) -> Result<(), Failure> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    open_files::make_room(count)?;
    let serials =
        serials(&run.prefix, count).map_err(|error| Failure::Usage(format!("--prefix: {error}")))?;
    let tracker = TaskTracker::new();
    let mut fleet = Fleet::new(
        FleetOptions {
            connects_per_second: run.connect_rate,
        },
        tracker.clone(),
    );
    let summary = Arc::clone(fleet.summary());
    let observer = match &registrar {
        Some(registrar) => measure_changes(
            registrar.rest().clone(),
            Arc::new(SystemClock),
            Arc::clone(&summary),
            &tracker,
        ),
        None => nobody(),
    };
    let make = |serial: Serial, token: Option<Token>| {
        let mut options = options(run, serial, token, &endpoint, Arc::clone(&observer));
        if let Some(plan) = &mut options.telemetry {
            // Spread over an interval, so that the load is even.
            plan.first_after = plan
                .every
                .unwrap_or(Duration::from_secs(60))
                .mul_f64(fastrand::f64());
        }
        options
    };
    let mut summaries = Summaries::new(count, run.server.json);
    let mut ticks = interval(summaries.every());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut shown = Instant::now();
    let mut starting = Box::pin(async {
        let started = match &registrar {
            Some(registrar) => {
                fleet
                    .register(registrar, serials, |serial, token| make(serial, Some(token)))
                    .await
            }
            None => {
                serials
                    .into_iter()
                    .for_each(|serial| fleet.add(make(serial, None)));
                Ok(())
            }
        };
        started.map_err(Failure::from)
    });
    let mut started = false;
    let mut signal = Box::pin(ended_by_signal());
    let outcome = loop {
        tokio::select! {
            result = &mut starting, if !started => match result {
                Ok(()) => started = true,
                Err(failure) => break Err(failure),
            },
            _ = ticks.tick() => {
                let counts = summary.counts();
                summaries.show(counts, shown.elapsed());
                shown = Instant::now();
                if counts.not_authorized >= u64::try_from(count).unwrap_or(u64::MAX) {
                    break Err(Failure::NotAuthorized("not authorized: every credential was refused".to_owned()));
                }
            }
            () = &mut signal => break Ok(()),
        }
    };
    drop(starting);
    fleet.stop(FAREWELL).await;
    summaries.show(summary.counts(), shown.elapsed());
    summaries.finish();
    outcome
}

pub(crate) fn registrar(server: &Server) -> Result<Registrar, Failure> {
    let given = server.admin_token_file.as_deref();
    let path = given.unwrap_or(Path::new(ADMIN_TOKEN));
    let token = Token::from_file(path).map_err(|error| {
        let path = path.display();
        Failure::Usage(match given {
            Some(_) => format!("cannot read --admin-token-file {path}: {error}"),
            None => format!(
                "no credential: give --token or --admin-token-file, since {path} can't be read: {error}"
            ),
        })
    })?;
    Ok(Registrar::new(
        Rest::new(server.api.as_str(), Some(token))?,
        server.model.clone(),
    ))
}

/// Ends with Ctrl-C or SIGTERM.
pub(crate) async fn ended_by_signal() {
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        // Without a handler the signal ends the process by itself.
        _ = tokio::signal::ctrl_c() => {}
        () = terminated => {}
    }
}
