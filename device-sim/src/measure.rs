//! The benches: from arguments to reports.

use clap::Args;
use device_sim::{
    bench::{Bench, Changes, Target, peer::Mosquitto, report},
    endpoint::{MqttUrl, Scheme},
    fleet::serials,
    open_files,
    wire::Login,
};
use futures_util::TryStreamExt;

use crate::{
    cli::BenchOf,
    output,
    run::{Failure, ended_by_signal, registrar},
};

/// Registrations under way at once before a bench.
const REGISTRATIONS: usize = 16;

/// Measures the server, the peer, or both, and prints what was found.
pub(crate) async fn bench<T: Bench + Args>(args: BenchOf<T>) -> Result<(), Failure> {
    tokio::select! {
        outcome = Box::pin(measure(&args)) => outcome,
        () = ended_by_signal() => Err(Failure::Other("interrupted".to_owned())),
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
    let mut reports = Vec::new();
    let mut show = |report: report::Report| {
        if server.json {
            output::line(&report.to_json().to_string());
        }
        reports.push(report);
    };
    if !common.peer_only {
        let registrar = registrar(server)?;
        let credentials: Vec<_> = registrar
            .credentials(serials.clone(), REGISTRATIONS)
            .try_collect()
            .await?;
        tokio::time::sleep(common.settle).await;
        let logins = credentials.into_iter().map(|(serial, token)| Login {
            serial,
            token: Some(token),
        });
        let target = Target {
            name: "setpoint".to_owned(),
            addr: plain(&server.mqtt).await?,
            logins: logins.collect(),
            changes: Changes::Rest(registrar.rest().clone()),
            pid: common.pid,
        };
        show(bench.run(&target).await?);
    }
    if let Some(peer) = &common.peer {
        let logins = serials
            .into_iter()
            .map(|serial| Login { serial, token: None })
            .collect();
        let started = if peer == "mosquitto" {
            Some(Mosquitto::start().await?)
        } else {
            None
        };
        let (name, addr, pid) = match &started {
            Some(mosquitto) => ("mosquitto", mosquitto.addr(), mosquitto.pid()),
            None => {
                let url = peer
                    .parse::<MqttUrl>()
                    .map_err(|error| Failure::Usage(format!("--peer: {error}")))?;
                ("peer", plain(&url).await?, None)
            }
        };
        let target = Target {
            name: name.to_owned(),
            addr,
            logins,
            changes: Changes::Publish,
            pid,
        };
        show(bench.run(&target).await?);
    }
    if !server.json {
        output::line(&report::table(&reports));
    }
    Ok(())
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
