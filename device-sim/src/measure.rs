//! The benches: from arguments to reports.

use clap::Args;
use device_sim::{
    Token,
    bench::{
        Bench, BenchError, Changes, Report, Storage, Target,
        peer::{Access, Mosquitto, Peer, Queue, copy, database::Database, stack::Stack},
        publisher, report,
    },
    endpoint::{MqttUrl, Scheme},
    fleet::serials,
    open_files,
    wire::Login,
};
use futures_util::TryStreamExt;
use setpoint_model::{Channel, Serial};
use uuid::Uuid;

use crate::{
    cli::{BenchCommon, BenchOf, Server},
    output,
    run::{Failure, ended_by_signal, registrar},
};

/// Registrations under way at once before a bench.
const REGISTRATIONS: usize = 16;
/// The most clients of a bench that publish for a plain broker.
const PUBLISHERS: usize = 1000;

/// Measures the server, its peers, or both, and prints what was found.
pub(crate) async fn bench<T: Bench + Args>(args: BenchOf<T>) -> Result<(), Failure> {
    tokio::select! {
        outcome = Box::pin(measure(&args)) => outcome,
        () = ended_by_signal() => Err(Failure::Other("interrupted".to_owned())),
    }
}

/// Reports as they come, and all of them at the end.
struct Reports {
    json: bool,
    all: Vec<Report>,
}

impl Reports {
    fn add(&mut self, report: Report) {
        if self.json {
            output::line(&report.to_json().to_string());
        }
        self.all.push(report);
    }
}

async fn measure<T: Bench + Args>(args: &BenchOf<T>) -> Result<(), Failure> {
    let BenchOf {
        server,
        bench,
        common,
    } = args;
    let devices = bench.devices();
    if devices == 0 {
        return Err(Failure::Usage("a bench needs at least one device".to_owned()));
    }
    open_files::make_room(devices)?;
    let serials =
        serials(&common.prefix, devices).map_err(|error| Failure::Usage(format!("--prefix: {error}")))?;
    let mut reports = Reports {
        json: server.json,
        all: Vec::new(),
    };
    if !common.peer_only {
        let target = ours(server, common, serials.clone()).await?;
        reports.add(bench.run(&target).await?);
    }
    for peer in &common.peer {
        beside(bench, common, peer, &serials, &mut reports).await?;
    }
    if !server.json {
        output::line(&report::table(&reports.all));
    }
    Ok(())
}

/// The server, with the devices registered.
async fn ours(server: &Server, common: &BenchCommon, serials: Vec<Serial>) -> Result<Target, Failure> {
    let registrar = registrar(server)?;
    let credentials: Vec<_> = registrar
        .credentials(serials, REGISTRATIONS)
        .try_collect()
        .await?;
    tokio::time::sleep(common.settle).await;
    let logins = credentials.into_iter().map(|(serial, token)| Login {
        serial,
        token: Some(token),
    });
    Ok(Target {
        name: "setpoint".to_owned(),
        addr: plain(&server.mqtt).await?,
        logins: logins.collect(),
        changes: Changes::Rest(registrar.rest().clone()),
        pid: common.pid,
        storage: Storage::WhenAcknowledged,
        database: Database::find(common.database.as_ref(), &common.data_dir).ok(),
    })
}

/// Measures a peer.
async fn beside<T: Bench>(
    bench: &T,
    common: &BenchCommon,
    peer: &Peer,
    serials: &[Serial],
    reports: &mut Reports,
) -> Result<(), Failure> {
    match peer {
        Peer::Mosquitto => {
            let open = logins(serials, None);
            let mosquitto = Mosquitto::start(Access::Open, Queue::Default).await?;
            let target = broker("mosquitto", &mosquitto, open, None);
            reports.add(bench.run(&target).await?);
            drop(mosquitto);

            let password = Token::new(Uuid::new_v4().simple().to_string());
            let closed = logins(serials, Some(&password));
            let mut known = closed.clone();
            for number in 0..PUBLISHERS {
                known.push(publisher(number, Some(password.clone()))?);
            }
            let mosquitto = Mosquitto::start(Access::Passwords(&known), Queue::Default).await?;
            let target = broker("mosquitto, passwords", &mosquitto, closed, Some(password));
            reports.add(bench.run(&target).await?);
        }
        Peer::Broker(url) => {
            let target = Target {
                name: "peer".to_owned(),
                addr: plain(url).await?,
                logins: logins(serials, None),
                changes: Changes::Publish(None, Channel::Settings),
                pid: None,
                storage: Storage::Nowhere,
                database: None,
            };
            reports.add(bench.run(&target).await?);
        }
        Peer::Edge(url) => {
            let target = Target {
                name: "edge".to_owned(),
                addr: plain(url).await?,
                // With a password of any kind they are devices there, without one operators.
                logins: logins(serials, Some(&Token::new("any"))),
                changes: Changes::Publish(None, Channel::SettingsSet),
                pid: None,
                storage: Storage::Nowhere,
                database: None,
            };
            reports.add(bench.run(&target).await?);
        }
        Peer::Copy => {
            let telemetry = bench.telemetry().ok_or_else(|| only_telemetry("copy"))?;
            let database = Database::find(common.database.as_ref(), &common.data_dir)?;
            reports.add(copy::run(telemetry, &database).await?);
        }
        Peer::Stack(table) => {
            let telemetry = bench.telemetry().ok_or_else(|| only_telemetry(table.peer()))?;
            let database = Database::find(common.database.as_ref(), &common.data_dir)?;
            let queue = Queue::Unbounded {
                in_flight: table.in_flight(),
            };
            let mosquitto = Mosquitto::start(Access::Open, queue).await?;
            let stack = Stack::start(&common.python, *table, &mosquitto, &database).await?;
            let mut target = broker(table.peer(), &mosquitto, logins(serials, None), None);
            target.storage = Storage::Counted(stack.rows.clone());
            let outcome = telemetry.run(&target).await;
            stack.stop().await?;
            reports.add(outcome?);
        }
    }
    Ok(())
}

fn logins(serials: &[Serial], password: Option<&Token>) -> Vec<Login> {
    let login = |serial: &Serial| Login {
        serial: serial.clone(),
        token: password.cloned(),
    };
    serials.iter().map(login).collect()
}

fn broker(name: &str, mosquitto: &Mosquitto, logins: Vec<Login>, password: Option<Token>) -> Target {
    Target {
        name: name.to_owned(),
        addr: mosquitto.addr(),
        logins,
        changes: Changes::Publish(password, Channel::Settings),
        pid: mosquitto.pid(),
        storage: Storage::Nowhere,
        database: None,
    }
}

fn only_telemetry(peer: &str) -> BenchError {
    BenchError::Options(format!("--peer {peer} is a peer of `bench telemetry` alone"))
}

/// Benches measure plain TCP: TLS would measure the generator.
async fn plain(url: &MqttUrl) -> Result<std::net::SocketAddr, Failure> {
    if url.scheme() != Scheme::Mqtt {
        return Err(Failure::Usage(format!(
            "a bench needs an mqtt:// address, not {url}"
        )));
    }
    let resolved = tokio::net::lookup_host((url.host(), url.port())).await;
    let mut addresses = resolved.map_err(|error| Failure::Other(format!("cannot resolve {url}: {error}")))?;
    addresses
        .next()
        .ok_or_else(|| Failure::Other(format!("{url} has no address")))
}
