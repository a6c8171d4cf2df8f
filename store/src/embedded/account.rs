//! Whom Postgres runs as: it refuses to be root, so a server that is root hands it to another user.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use nix::unistd::{Gid, Uid, User};

use super::{Error, error::Describe, process};

/// The user that Postgres's processes and files belong to, when that is not simply ourselves.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    pub(crate) name: String,
}

impl Account {
    /// `None` unless we are root. Existing data decide: they can be served only as their owner. Otherwise it is
    /// `postgres`, else `nobody`.
    pub(crate) fn choose(data: &Path) -> Result<Option<Self>, Error> {
        let owner = fs::metadata(data).ok().map(|meta| meta.uid());
        if !Uid::effective().is_root() {
            return match owner {
                Some(owner) if owner != Uid::effective().as_raw() => Err(Error::WrongOwner {
                    data: data.to_owned(),
                    owner,
                }),
                _ => Ok(None),
            };
        }
        let owner = owner
            .filter(|owner| *owner != 0)
            .and_then(|owner| User::from_uid(Uid::from_raw(owner)).ok()?);
        let named = |name| User::from_name(name).ok().flatten();
        let user = owner
            .or_else(|| named("postgres"))
            .or_else(|| named("nobody"))
            .ok_or(Error::NoAccount)?;
        Ok(Some(Self {
            uid: user.uid,
            gid: user.gid,
            name: user.name,
        }))
    }

    /// Checks that this user can enter a directory, whose path has to be absolute and free of symlinks.
    pub(crate) fn check_reach(&self, dir: &Path) -> Result<(), Error> {
        let mut path: Vec<&Path> = dir.ancestors().collect();
        path.reverse();
        let Some(closed) = path.into_iter().find(|dir| !self.may_search(dir)) else {
            return Ok(());
        };
        // The mode does not show access lists, so let the system have the last word.
        let entered = process::command(Path::new("/bin/sh"), Some(self))
            .args(["-c", ":"])
            .current_dir(dir)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if entered.is_ok_and(|status| status.success()) {
            return Ok(());
        }
        Err(Error::NotSearchable {
            dir: closed.to_owned(),
            user: self.name.clone(),
        })
    }

    fn may_search(&self, dir: &Path) -> bool {
        fs::metadata(dir).is_ok_and(|meta| {
            let bit = if meta.uid() == self.uid.as_raw() {
                0o100
            } else if meta.gid() == self.gid.as_raw() {
                0o010
            } else {
                0o001
            };
            meta.mode() & bit != 0
        })
    }
}

/// Has a command run as that user.
pub(super) fn assume(command: &mut Command, account: &Account) {
    use std::os::unix::process::CommandExt;
    command.uid(account.uid.as_raw()).gid(account.gid.as_raw());
}

/// Makes a directory that only Postgres's user may enter, or takes over the one that is there.
pub(crate) fn private_directory(dir: &Path, account: Option<&Account>) -> Result<(), Error> {
    fs::create_dir_all(dir).describe("cannot create", dir)?;
    set_mode(dir, 0o700)?;
    if let Some(account) = account {
        chown(dir, Some(account.uid.as_raw()), Some(account.gid.as_raw()))
            .describe("cannot change the owner of", dir)?;
    }
    Ok(())
}

/// Makes a directory and those above it that are missing. Root's are for everybody to pass through, since
/// Postgres, which is somebody else, lives below; an ordinary user's are for that user alone.
pub(super) fn passable_directory(dir: &Path) -> Result<(), Error> {
    let missing: Vec<PathBuf> = dir
        .ancestors()
        .take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists())
        .map(Path::to_owned)
        .collect();
    fs::create_dir_all(dir).describe("cannot create", dir)?;
    let mode = if Uid::effective().is_root() { 0o755 } else { 0o700 };
    missing.iter().try_for_each(|dir| set_mode(dir, mode))
}

fn set_mode(dir: &Path, mode: u32) -> Result<(), Error> {
    fs::set_permissions(dir, fs::Permissions::from_mode(mode)).describe("cannot change the mode of", dir)
}
