use std::os::unix::fs::PermissionsExt;

use clap::Parser;
use setpoint_broker::transport::{Certificates, certificate::Summary, tls};
use setpoint_model::{SystemClock, clock::ManualClock};
use tempfile::TempDir;

use super::*;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    args: Args,
}

/// Runs the command as typed; gives what it prints.
fn cert(dir: &Path, words: &str) -> Result<String, Error> {
    cert_at(dir, words, &SystemClock)
}

fn cert_at(dir: &Path, words: &str, clock: &dyn Clock) -> Result<String, Error> {
    let words = ["cert"].into_iter().chain(words.split(' '));
    let mut args = Command::try_parse_from(words).unwrap().args;
    args.dir = dir.to_owned();
    let mut out = Vec::new();
    run(&args, clock, &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

fn load(dir: &Path, name: &str) -> Summary {
    let files = tls::Files {
        certificate: dir.join(format!("{name}.pem")),
        key: dir.join(format!("{name}.key")),
        client_ca: Some(dir.join("ca.pem")),
        client_required: false,
    };
    Certificates::load(files).unwrap().summary()
}

#[test]
fn the_three_kinds_are_made_and_fit_together() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path().join("certs");
    cert(&dir, "ca").unwrap();
    let said = cert(&dir, "server --san broker.example --san 192.0.2.7").unwrap();
    assert!(
        said.contains("mosquitto_sub -h localhost -p 8883 --cafile"),
        "{said}"
    );
    let said = cert(&dir, "device HOME-1").unwrap();
    assert!(said.contains("-i HOME-1 -t 'devices/HOME-1/#'"), "{said}");

    for (name, subject) in [
        ("ca", "CN=Setpoint development CA"),
        ("server", "CN=localhost"),
        ("device-HOME-1", "CN=HOME-1"),
    ] {
        let summary = load(&dir, name);
        assert_eq!(summary.subject, subject);
        assert!(summary.valid_now);
        let mode = |ending| {
            fs::metadata(dir.join(format!("{name}.{ending}")))
                .unwrap()
                .permissions()
                .mode()
                & 0o777
        };
        assert_eq!(mode("key"), 0o600);
        assert_eq!(mode("pem") & 0o400, 0o400);
    }
    let left = fs::read_dir(&dir).unwrap().count();
    assert_eq!(left, 6, "and nothing else is left behind");
}

#[test]
fn nothing_is_replaced_unless_forced() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    cert(dir, "ca").unwrap();
    let before = fs::read(dir.join("ca.key")).unwrap();
    assert!(matches!(cert(dir, "ca").unwrap_err(), Error::Exists(path) if path == dir.join("ca.pem")));
    assert_eq!(fs::read(dir.join("ca.key")).unwrap(), before);

    // One of the two is enough to refuse.
    fs::remove_file(dir.join("ca.pem")).unwrap();
    assert!(matches!(cert(dir, "ca").unwrap_err(), Error::Exists(path) if path == dir.join("ca.key")));

    fs::set_permissions(dir.join("ca.key"), fs::Permissions::from_mode(0o644)).unwrap();
    cert(dir, "ca --force").unwrap();
    assert_ne!(fs::read(dir.join("ca.key")).unwrap(), before);
    assert_eq!(
        fs::metadata(dir.join("ca.key")).unwrap().permissions().mode() & 0o777,
        0o600
    );
}

#[test]
fn a_missing_or_broken_authority_is_told() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    let error = cert(dir, "server").unwrap_err();
    assert!(error.to_string().contains("setpoint cert ca"), "{error}");
    cert(dir, "ca").unwrap();
    fs::write(dir.join("ca.key"), "broken").unwrap();
    assert!(matches!(
        cert(dir, "device HOME-1").unwrap_err(),
        Error::BadCa { .. }
    ));
    assert!(!dir.join("device-HOME-1.key").exists());
}

#[test]
fn what_is_no_name_is_refused() {
    let dir = TempDir::new().unwrap();
    cert(dir.path(), "ca").unwrap();
    assert!(
        matches!(cert(dir.path(), "server --san gr\u{fc}n").unwrap_err(), Error::Name { name } if name == "gr\u{fc}n")
    );
    assert!(Command::try_parse_from(["cert", "device", "not/a/serial"]).is_err());
    assert!(Command::try_parse_from(["cert", "device", "HOME-1", "--days", "0"]).is_err());
}

#[test]
fn the_days_count_from_the_clock() {
    let dir = TempDir::new().unwrap();
    let clock = ManualClock::new("2030-01-31T12:00:00Z".parse().unwrap());
    cert_at(dir.path(), "ca", &clock).unwrap();
    cert_at(dir.path(), "server --days 29", &clock).unwrap();
    let server = load(dir.path(), "server");
    assert_eq!(
        server.not_after,
        "2030-03-01T00:00:00Z".parse::<DateTime<Utc>>().unwrap()
    );
    assert!(!server.valid_now, "it begins in the future");
}
