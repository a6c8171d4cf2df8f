//! Where PostgreSQL's programs are on this machine.

use std::{
    ffi::OsString,
    fmt, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{Error, Fetch, download};

/// The oldest major version that the queries are written for.
pub(crate) const OLDEST_MAJOR: u32 = 15;

/// A PostgreSQL release, such as 17.10.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The major version: the format of the data.
    pub major: u32,
    /// The minor version: bug fixes.
    pub minor: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl Version {
    /// Reads the answer of `postgres --version`: `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
    fn parse(text: &str) -> Option<Self> {
        let number = text.split_once("(PostgreSQL) ")?.1;
        // 19beta1 and 19devel count as 19.0.
        let mut parts = number
            .split(|c: char| !c.is_ascii_digit() && c != '.')
            .next()?
            .split('.');
        let major = parts.next()?.parse().ok()?;
        let minor = parts.next().and_then(|minor| minor.parse().ok()).unwrap_or(0);
        Some(Self { major, minor })
    }
}

/// A directory with `initdb` and `postgres`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Binaries {
    pub(crate) dir: PathBuf,
    pub(crate) version: Version,
}

impl Binaries {
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// Where to look, so that a test can look elsewhere.
#[derive(Debug, Clone)]
pub(crate) struct Search {
    /// The value of `PATH`.
    pub(crate) path: Option<OsString>,
    /// The root of the file system.
    pub(crate) root: PathBuf,
}

impl Search {
    /// This machine.
    pub(crate) fn system() -> Self {
        Self {
            path: std::env::var_os("PATH"),
            root: PathBuf::from("/"),
        }
    }

    /// Nowhere: only what is given or fetched.
    fn nowhere() -> Self {
        Self {
            path: None,
            root: PathBuf::from("/dev/null"),
        }
    }

    /// The directories with PostgreSQL's programs, best first, symlinks resolved, each once.
    pub(crate) fn candidates(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let path = self
            .path
            .iter()
            .flat_map(std::env::split_paths)
            .filter(|dir| dir.is_absolute());
        let places = [
            ("usr/lib/postgresql", "", "bin"),
            ("usr", "pgsql-", "bin"),
            ("opt/homebrew/opt", "postgresql@", "bin"),
            ("usr/local/opt", "postgresql@", "bin"),
            ("home/linuxbrew/.linuxbrew/opt", "postgresql@", "bin"),
            ("Applications/Postgres.app/Contents/Versions", "", "bin"),
        ];
        let installed = places
            .iter()
            .flat_map(|(parent, prefix, bin)| versions(&self.root.join(parent), prefix, bin));
        for dir in path.chain(installed) {
            // A link to `postgres` leads to the directory where initdb and the libraries are as well.
            let Some(dir) = fs::canonicalize(dir.join("postgres"))
                .ok()
                .and_then(|p| p.parent().map(Path::to_owned))
            else {
                continue;
            };
            if is_program(&dir.join("postgres")) && is_program(&dir.join("initdb")) && !found.contains(&dir) {
                found.push(dir);
            }
        }
        found
    }
}

/// `parent/{prefix}{version}/{bin}`, the newest version first.
fn versions(parent: &Path, prefix: &str, bin: &str) -> Vec<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let major = entry
                .file_name()
                .to_str()?
                .strip_prefix(prefix)?
                .split('.')
                .next()?
                .parse()
                .ok()?;
            Some((major, entry.path().join(bin)))
        })
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, dir)| dir).collect()
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// What `postgres --version` says there; `None` when it does not run on this machine.
pub(super) fn version_in(dir: &Path) -> Option<Version> {
    let output = Command::new(dir.join("postgres"))
        .arg("--version")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    Version::parse(&String::from_utf8_lossy(&output.stdout))
}

/// The first candidate that can serve the data: of the major version that made them, or new enough for new ones.
/// Otherwise the newest that is too old, for the message.
fn choose(
    candidates: impl IntoIterator<Item = PathBuf>,
    made_by: Option<u32>,
    version_in: impl Fn(&Path) -> Option<Version>,
) -> Result<Binaries, Option<Binaries>> {
    let mut too_old: Option<Binaries> = None;
    for dir in candidates {
        let Some(version) = version_in(&dir) else { continue };
        let found = Binaries { dir, version };
        let fits = made_by.map_or(version.major >= OLDEST_MAJOR, |major| version.major == major);
        if fits {
            return Ok(found);
        }
        if version.major < OLDEST_MAJOR && too_old.as_ref().is_none_or(|old| old.version < version) {
            too_old = Some(found);
        }
    }
    Err(too_old)
}

/// Finds PostgreSQL: the directory given, else one installed on this machine, else one fetched before into
/// `cache`, else (unless forbidden) one fetched now.
///
/// # Errors
/// [`Error::NotBinaries`], [`Error::TooOld`], [`Error::WrongMajor`], [`Error::NoBinaries`], [`Error::Fetch`].
pub(crate) fn find(
    given: Option<&Path>,
    fetch: Fetch,
    search: &Search,
    cache: &Path,
    data: &Path,
    made_by: Option<u32>,
) -> Result<Binaries, Error> {
    if let Some(dir) = given {
        return check_given(dir, data, made_by, version_in);
    }
    let nowhere = Search::nowhere();
    let search = if fetch == Fetch::Always { &nowhere } else { search };
    let too_old = match choose(search.candidates(), made_by, version_in) {
        Ok(found) => return Ok(found),
        Err(too_old) => too_old,
    };
    if let Some(found) = download::cached(cache, made_by) {
        return Ok(found);
    }
    let fetched = if fetch != Fetch::Never && download::possible(made_by) {
        download::fetch(cache, made_by)
    } else {
        Err(match too_old {
            Some(old) if made_by.is_none() => Error::TooOld {
                found: old.version,
                dir: old.dir,
            },
            _ => Error::NoBinaries { major: made_by },
        })
    };
    fetched.or_else(|error| download::cached_earlier(cache, made_by).ok_or(error))
}

fn check_given(
    dir: &Path,
    data: &Path,
    made_by: Option<u32>,
    version_in: impl Fn(&Path) -> Option<Version>,
) -> Result<Binaries, Error> {
    let not_binaries = || Error::NotBinaries { dir: dir.to_owned() };
    let postgres = fs::canonicalize(dir.join("postgres")).map_err(|_| not_binaries())?;
    let dir = postgres
        .parent()
        .filter(|dir| is_program(&dir.join("initdb")))
        .ok_or_else(not_binaries)?;
    let found = version_in(dir).ok_or_else(not_binaries)?;
    match made_by {
        Some(major) if major != found.major => Err(Error::WrongMajor {
            data: data.to_owned(),
            made_by: major,
            found,
        }),
        None if found.major < OLDEST_MAJOR => Err(Error::TooOld {
            found,
            dir: dir.to_owned(),
        }),
        _ => Ok(Binaries {
            dir: dir.to_owned(),
            version: found,
        }),
    }
}

#[cfg(test)]
#[path = "binaries_tests.rs"]
mod tests;
