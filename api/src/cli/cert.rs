//! `setpoint cert`: a certification authority for development, and certificates of it for a server and for devices.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use chrono::{DateTime, Datelike, TimeDelta, Utc};
use clap::{Args as ClapArgs, Subcommand};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use setpoint_model::{Clock, Serial};

/// Ten years: what nobody wants to renew by hand while developing.
const LONG: u32 = 3650;
/// The longest that browsers and phones take from a server.
const SERVER: u32 = 397;

/// Makes certificates for development: a CA, a server's, and devices'.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Example:\n  \
    setpoint cert ca\n  \
    setpoint cert server --name broker.example --san 192.0.2.10\n  \
    setpoint cert device HOME-1")]
pub struct Args {
    #[command(subcommand)]
    what: What,
    /// The directory of the files; made if it isn't there.
    #[arg(long, global = true, default_value = "certs")]
    dir: PathBuf,
    /// How many days the certificate is valid [default: 3650; for a server 397].
    #[arg(long, global = true, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    days: Option<u32>,
    /// Replace files that are there.
    #[arg(long, global = true)]
    force: bool,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The authority that signs the others: ca.pem, ca.key.
    Ca,
    /// A server's certificate: server.pem, server.key.
    Server {
        /// The host name that clients connect to.
        #[arg(long, default_value = "localhost")]
        name: String,
        /// A further name or IP address of the server; may be given several times. `localhost` has its loopback
        /// addresses without that.
        #[arg(long)]
        san: Vec<String>,
    },
    /// A device's certificate, its login in place of a token: device-SERIAL.pem, device-SERIAL.key.
    Device {
        /// The serial of the device; it becomes the certificate's common name.
        serial: Serial,
    },
}

/// Why no certificate was made. The text is fit for the person who asked for it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file is there already.
    #[error("{} exists; --force replaces it", .0.display())]
    Exists(PathBuf),
    /// There is no authority to sign with.
    #[error("no CA in {}; make one with: setpoint cert ca --dir {}", .0.display(), .0.display())]
    NoCa(PathBuf),
    /// The authority's files can't be used.
    #[error("the CA in {} is not usable: {source}", dir.display())]
    BadCa {
        /// The directory.
        dir: PathBuf,
        /// What is wrong.
        source: rcgen::Error,
    },
    /// A name that no certificate can carry.
    #[error("{name}: not a host name or IP address")]
    Name {
        /// The name.
        name: String,
    },
    /// A file can't be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
    /// The result can't be told.
    #[error("standard output: {0}")]
    Output(#[source] io::Error),
    /// The certificate could not be made.
    #[error("making the certificate: {0}")]
    Certificate(#[from] rcgen::Error),
}

/// Makes what is asked for and tells how to use it.
///
/// Keys are readable by their owner alone. Nothing is replaced without `--force`, and then each file in one step,
/// so that a running server that watches them never reads half of one.
///
/// # Errors
///
/// [`Error`]; the files are then as before, unless writing them was what failed.
pub fn run(args: &Args, clock: &dyn Clock, out: &mut impl Write) -> Result<(), Error> {
    let files = Files {
        dir: &args.dir,
        force: args.force,
    };
    let validity = |default| Validity {
        from: clock.now(),
        days: args.days.unwrap_or(default),
    };
    let text = match &args.what {
        What::Ca => make_ca(&files, validity(LONG))?,
        What::Server { name, san } => make_server(&files, validity(SERVER), name, san)?,
        What::Device { serial } => make_device(&files, validity(LONG), serial)?,
    };
    out.write_all(text.as_bytes()).map_err(Error::Output)
}

fn make_ca(files: &Files<'_>, validity: Validity) -> Result<String, Error> {
    let mut params = parameters("Setpoint development CA", validity);
    // It signs certificates, but no further authorities.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    let [certificate, secret] = files.write("ca", &params.self_signed(&key)?.pem(), &key)?;
    Ok(format!(
        "Wrote {certificate} and {secret}. Whoever has the key can be any of your devices: keep it from them.\n\
         Next, a certificate for the server:\n\n  setpoint cert server --dir {dir}\n",
        certificate = certificate.display(),
        secret = secret.display(),
        dir = files.dir.display(),
    ))
}

fn make_server(files: &Files<'_>, validity: Validity, name: &str, sans: &[String]) -> Result<String, Error> {
    let loopback = if name == "localhost" {
        &["127.0.0.1", "::1"][..]
    } else {
        &[]
    };
    let names = [name]
        .into_iter()
        .chain(loopback.iter().copied())
        .chain(sans.iter().map(String::as_str));
    let mut params = parameters(name, validity);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    for name in names {
        let parsed = CertificateParams::new([name.to_owned()]);
        let mut parsed = parsed.map_err(|_| Error::Name {
            name: name.to_owned(),
        })?;
        params.subject_alt_names.append(&mut parsed.subject_alt_names);
    }
    let [certificate, secret] = files.issue("server", &params)?;
    Ok(format!(
        "Wrote {certificate} and {secret}. Start the server with them:\n\n  \
         SETPOINT_MQTT__TLS__CERT={certificate} SETPOINT_MQTT__TLS__KEY={secret} \
         SETPOINT_MQTT__TLS__CLIENT_CA={ca} setpoint\n\n\
         Then, with a device's token:\n\n  \
         mosquitto_sub -h {name} -p 8883 --cafile {ca} -i SERIAL -u SERIAL -P TOKEN -t 'devices/SERIAL/#' -v\n\n\
         Or with a certificate in its place:\n\n  setpoint cert device SERIAL --dir {dir}\n",
        certificate = certificate.display(),
        secret = secret.display(),
        ca = files.path("ca.pem").display(),
        dir = files.dir.display(),
    ))
}

fn make_device(files: &Files<'_>, validity: Validity, serial: &Serial) -> Result<String, Error> {
    let mut params = parameters(serial.as_str(), validity);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let [certificate, secret] = files.issue(&format!("device-{serial}"), &params)?;
    Ok(format!(
        "Wrote {certificate} and {secret}. The device {serial} must exist on the server (or mqtt.tls.enrol_model make it); then:\n\n  \
         mosquitto_sub -h localhost -p 8883 --cafile {ca} --cert {certificate} --key {secret} -i {serial} \
         -t 'devices/{serial}/#' -v\n",
        certificate = certificate.display(),
        secret = secret.display(),
        ca = files.path("ca.pem").display(),
    ))
}

/// From when, and for how long.
#[derive(Clone, Copy)]
struct Validity {
    from: DateTime<Utc>,
    days: u32,
}

/// What all certificates have in common.
fn parameters(common_name: &str, validity: Validity) -> CertificateParams {
    let day = |at: DateTime<Utc>| {
        // Both fit: a month and a day of the month.
        let [month, day] = [at.month(), at.day()].map(|part| u8::try_from(part).unwrap_or(1));
        rcgen::date_time_ymd(at.year(), month, day)
    };
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    // A day early, for a device whose clock is behind.
    params.not_before = day(validity.from - TimeDelta::days(1));
    params.not_after = day(validity.from + TimeDelta::days(i64::from(validity.days)));
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params
}

/// The directory of the files.
struct Files<'a> {
    dir: &'a Path,
    force: bool,
}

impl Files<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Has the authority sign, and writes certificate and key.
    fn issue(&self, name: &str, params: &CertificateParams) -> Result<[PathBuf; 2], Error> {
        let read = |name| {
            let path = self.path(name);
            fs::read_to_string(&path).map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => Error::NoCa(self.dir.to_owned()),
                _ => Error::File { path, source },
            })
        };
        let (certificate, key) = (read("ca.pem")?, read("ca.key")?);
        let bad = |source| Error::BadCa {
            dir: self.dir.to_owned(),
            source,
        };
        let issuer =
            Issuer::from_ca_cert_pem(&certificate, KeyPair::from_pem(&key).map_err(bad)?).map_err(bad)?;
        let key = KeyPair::generate()?;
        self.write(name, &params.signed_by(&key, &issuer)?.pem(), &key)
    }

    /// Writes certificate and key; gives their paths in that order.
    fn write(&self, name: &str, certificate: &str, key: &KeyPair) -> Result<[PathBuf; 2], Error> {
        let paths = [format!("{name}.pem"), format!("{name}.key")].map(|name| self.path(&name));
        if !self.force {
            for path in &paths {
                // Also a symbolic link that leads nowhere.
                if path.symlink_metadata().is_ok() {
                    return Err(Error::Exists(path.clone()));
                }
            }
        }
        fs::create_dir_all(self.dir).map_err(|source| Error::File {
            path: self.dir.to_owned(),
            source,
        })?;
        let [certificate_path, key_path] = &paths;
        replace(key_path, &key.serialize_pem(), 0o600)?;
        replace(certificate_path, certificate, 0o644)?;
        Ok(paths)
    }
}

/// Puts a file in place in one step, with these permissions from the start.
fn replace(path: &Path, text: &str, mode: u32) -> Result<(), Error> {
    let failed = |source| Error::File {
        path: path.to_owned(),
        source,
    };
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    // One that an interrupted run left behind has who knows what permissions.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let mut file: File = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&new)
        .map_err(failed)?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(failed)?;
    fs::rename(&new, path).map_err(failed)
}

#[cfg(test)]
mod tests;
