//! The command line.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use device_sim::{
    MqttUrl, Token,
    bench::{
        changes::ChangesBench, idle::Idle, peer::Peer, settings::SettingsBench, soak::SoakBench,
        storm::Storm, telemetry::TelemetryBench,
    },
};
use setpoint_model::Serial;
use url::Url;

/// Where a server on this machine leaves its administrator's token.
pub(crate) const ADMIN_TOKEN: &str = "data/admin-token";

const EXAMPLES: &str = "\
Examples:
  device-sim HOME-1                            register HOME-1 with ./data/admin-token and run it
  device-sim HOME-1 --token spd_...            run a device that has its token already
  device-sim HOME-1 --claim                    show a code; its owner enters it on the web
  device-sim HOME-1 --refuse privacyMode       refuse every change of one setting
  device-sim HOME-1 --offline-every 30s        go away every half a minute, and come back
  device-sim --fleet 1000 --prefix SIM-        a thousand devices, SIM-00001 to SIM-01000
  device-sim HOME-1 --mqtt mqtts://localhost --tls-ca data/ca.pem
  device-sim bench settings --devices 1000 --peer mosquitto

Ctrl-C says DISCONNECT for every device and ends. Exit code 2: a bad argument, or not authorized.";

/// Simulated devices for a Setpoint server: one with its story told line by line, or a fleet with a summary.
#[derive(Debug, Parser)]
#[command(name = "device-sim", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) run: Run,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Measure a server, and a plain MQTT broker beside it in the same run.
    #[command(subcommand)]
    Bench(Bench),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Hold many idle sessions: connections a second, and the server's memory for each.
    Idle(BenchOf<Idle>),
    /// Change settings: from the change to the device, and changes delivered a second.
    Settings(BenchOf<SettingsBench>),
    /// Change many devices at once: until all have it, and what single changes feel of it.
    Changes(BenchOf<ChangesBench>),
    /// Send telemetry at QoS 1: acknowledgements a second, and how long each takes.
    Telemetry(BenchOf<TelemetryBench>),
    /// Send telemetry for long, at half of what the server takes: its memory, its queue and its table meanwhile.
    Soak(BenchOf<SoakBench>),
    /// Drop all connections at once: how long until every device is back and holds its settings.
    Storm(BenchOf<Storm>),
}

#[derive(Debug, Args)]
pub(crate) struct BenchOf<T: Args> {
    #[command(flatten)]
    pub(crate) server: Server,
    #[command(flatten)]
    pub(crate) bench: T,
    #[command(flatten)]
    pub(crate) common: BenchCommon,
}

#[derive(Debug, Args)]
pub(crate) struct BenchCommon {
    /// Also measure, in the same run: `mosquitto`, once open to all and once with a password for each device; a plain
    /// broker at an mqtt:// address; our own edge without the server, as edge=mqtt://...; for telemetry also `copy`, a bare
    /// COPY into the server's table, and `mosquitto-psycopg`, a subscriber in Python that writes batches, or
    /// `mosquitto-psycopg-keyed`, one that loses and repeats nothing
    #[arg(long, value_name = "PEER", value_delimiter = ',')]
    pub(crate) peer: Vec<Peer>,
    /// Measure the peers alone
    #[arg(long, requires = "peer")]
    pub(crate) peer_only: bool,
    /// The server's database, for peers that write there [default: the embedded one under --data-dir]
    #[arg(long, value_name = "URL")]
    pub(crate) database: Option<Url>,
    /// The server's data directory
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub(crate) data_dir: PathBuf,
    /// Python with paho-mqtt and psycopg, for the peers `mosquitto-psycopg` and `mosquitto-psycopg-keyed`
    #[arg(long, value_name = "FILE", default_value = "python3")]
    pub(crate) python: PathBuf,
    /// Process id of the server, to read its memory and its processor time
    #[arg(long, value_name = "PID")]
    pub(crate) pid: Option<u32>,
    /// Wait this long after registering the devices: what that leaves the server to do is not what is measured
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "2s")]
    pub(crate) settle: Duration,
    /// How the devices are named
    #[arg(long, default_value = "BENCH-")]
    pub(crate) prefix: String,
}

/// Where the server is, and who we are.
#[derive(Debug, Args)]
pub(crate) struct Server {
    /// The server's REST API
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    pub(crate) api: Url,
    /// The server's MQTT address: mqtt://, mqtts://, ws:// or wss://
    #[arg(long, value_name = "URL", default_value = "mqtt://127.0.0.1:1883")]
    pub(crate) mqtt: MqttUrl,
    /// File with an administrator's API token, to register devices [default: data/admin-token, if there is one]
    #[arg(long, value_name = "FILE")]
    pub(crate) admin_token_file: Option<PathBuf>,
    /// Model of the devices it registers
    #[arg(long, default_value = "home")]
    pub(crate) model: String,
    /// One JSON object a line, for events, summaries and results
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Serial of the one device to run
    #[arg(required_unless_present = "fleet", conflicts_with = "fleet")]
    pub(crate) serial: Option<Serial>,
    #[command(flatten)]
    pub(crate) server: Server,
    /// The device's own token; nothing is registered then
    #[arg(long, env = "DEVICE_SIM_TOKEN", hide_env_values = true, conflicts_with_all = ["admin_token_file", "fleet"])]
    pub(crate) token: Option<Token>,
    /// Get a token by a code that the owner enters (RFC 8628): nothing but the serial is needed
    #[arg(long, conflicts_with_all = ["token", "admin_token_file", "anonymous", "fleet"])]
    pub(crate) claim: bool,
    /// The device's factory secret, where its model demands one to be claimed
    #[arg(
        long,
        env = "DEVICE_SIM_CLAIM_SECRET",
        hide_env_values = true,
        requires = "claim",
        value_name = "SECRET"
    )]
    pub(crate) claim_secret: Option<String>,
    /// Connect without any credential, to a broker that asks for none or for a client certificate
    #[arg(long, conflicts_with_all = ["token", "admin_token_file"])]
    pub(crate) anonymous: bool,
    /// Certificates of the authorities to trust with mqtts:// and wss://, as PEM
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_ca: Option<PathBuf>,
    /// The device's own certificate chain, as PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The key of that certificate, as PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Version of MQTT
    #[arg(long, value_enum, default_value = "3")]
    pub(crate) mqtt_version: Version,
    /// Keep the session at the server while away, instead of a clean one each time
    #[arg(long)]
    pub(crate) persistent: bool,
    /// A setting it refuses to change; may be given several times
    #[arg(long, value_name = "KEY")]
    pub(crate) refuse: Vec<String>,
    /// Time between two samples, instead of what the setting reportInterval says
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) telemetry_every: Option<Duration>,
    /// Quality of service of telemetry
    #[arg(long, value_name = "0|1", default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=1))]
    pub(crate) qos: u8,
    /// Say DISCONNECT after this time, and come back
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) offline_every: Option<Duration>,
    /// How long to stay away then
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "5s", requires = "offline_every")]
    pub(crate) offline_for: Duration,
    /// Run this many devices
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=99_999))]
    pub(crate) fleet: Option<u32>,
    /// How the devices of a fleet are named: this and a number of five digits
    #[arg(long, default_value = "SIM-")]
    pub(crate) prefix: String,
    /// New connections of a fleet per second
    #[arg(long, value_name = "N", default_value_t = 1000.0, value_parser = rate)]
    pub(crate) connect_rate: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Version {
    /// MQTT 3.1.1
    #[value(name = "3", alias = "3.1.1")]
    V3,
    /// MQTT 5.0
    #[value(name = "5", alias = "5.0")]
    V5,
}

/// `30s`, `500ms`, `5m`: never nought, which would be a flood.
fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if duration.is_zero() {
        Err("it must be more than nought".to_owned())
    } else {
        Ok(duration)
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate >= 0.1 => Ok(rate),
        _ => Err("it must be a number, at least 0.1".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn one_device_a_fleet_or_a_bench() {
        let cli = parse("device-sim HOME-1 --refuse a --refuse b --offline-every 30s --qos 0").unwrap();
        assert_eq!(cli.run.serial.unwrap().as_str(), "HOME-1");
        assert_eq!(cli.run.refuse, ["a", "b"]);
        assert_eq!(cli.run.offline_every, Some(Duration::from_secs(30)));
        assert_eq!(
            parse("device-sim --fleet 1000 --prefix X-").unwrap().run.fleet,
            Some(1000)
        );
        let cli = parse("device-sim bench idle --sessions 10 --json").unwrap();
        assert!(matches!(cli.command, Some(Command::Bench(Bench::Idle(idle))) if idle.bench.sessions == 10));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "device-sim",
            "device-sim HOME-1 --fleet 3",
            "device-sim a/b",
            "device-sim HOME-1 --qos 2",
            "device-sim HOME-1 --offline-every 0s",
            "device-sim HOME-1 --telemetry-every soon",
            "device-sim HOME-1 --mqtt http://x",
            "device-sim HOME-1 --token a --admin-token-file b",
            "device-sim HOME-1 --offline-for 3s",
            "device-sim --fleet 0",
            "device-sim --fleet 3 --connect-rate 0",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
