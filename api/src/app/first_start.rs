//! What the first start makes: the administrator, and a token for the person at the server's terminal.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use setpoint_model::{
    Clock, Role, Scope,
    credential::{API_TOKEN_PREFIX, Secret, SecretHash},
};
use setpoint_store::{Store, tokens::ApiToken};

use super::{
    Actor, Error, audit,
    tokens::new_id,
    users::{NewUser, create_user},
};

/// The name of the token's file in the data directory.
pub const TOKEN_FILE: &str = "admin-token";
/// How the audit log names the first start.
const FIRST_START: &str = "first_start";
/// The first administrator.
pub const ADMINISTRATOR: &str = "admin";

/// What came of it. Holds secrets in clear, hence no `Debug`.
pub struct FirstStart {
    /// The administrator's password, if this start made one up: to be shown this once.
    pub password: Option<String>,
    /// The administrator's API token.
    pub token: String,
    /// The file it stands in.
    pub token_file: PathBuf,
}

/// Why it failed.
#[derive(Debug, thiserror::Error)]
pub enum FirstStartError {
    /// The token's file can't be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The database or the system's randomness failed.
    #[error("the administrator can't be made: {0}")]
    App(#[from] Error),
}

/// Makes sure of the administrator and of a token in `{data_dir}/admin-token` that holds.
///
/// The file is written again when it is gone, or when the database doesn't know its token; somebody else's
/// database and data directory may have been put together.
///
/// # Errors
/// [`FirstStartError`].
pub async fn first_start(
    store: &Store,
    clock: &dyn Clock,
    data_dir: &Path,
    password: Option<&str>,
) -> Result<FirstStart, FirstStartError> {
    let password = administrator(store, clock, password).await?;
    let path = data_dir.join(TOKEN_FILE);
    let token = match read(&path)? {
        Some(token) if holds(store, clock, &token).await? => token,
        _ => {
            let token = make_token(store, clock).await?;
            write(&path, &token)?;
            token
        }
    };
    Ok(FirstStart {
        password,
        token,
        token_file: path,
    })
}

/// Makes the administrator if nobody is there yet; hashing a password is slow, so only then.
async fn administrator(
    store: &Store,
    clock: &dyn Clock,
    given: Option<&str>,
) -> Result<Option<String>, Error> {
    if store.has_users().await? {
        return Ok(None);
    }
    let (password, random) = match given {
        Some(given) => (given.to_owned(), None),
        None => {
            let random = random_password()?;
            (random.clone(), Some(random))
        }
    };
    let new = NewUser {
        username: ADMINISTRATOR.to_owned(),
        password,
        role: Role::Admin,
        email: None,
    };
    match create_user(store, clock, &Actor::system(FIRST_START), new).await {
        Ok(_) => Ok(random),
        // Another process on the same database was quicker.
        Err(Error::Conflict { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// 96 random bits in 24 characters: enough for a password that somebody types.
fn random_password() -> Result<String, Error> {
    let secret = Secret::generate("").map_err(Error::internal)?;
    Ok(secret.reveal().chars().take(24).collect())
}

async fn holds(store: &Store, clock: &dyn Clock, token: &str) -> Result<bool, Error> {
    let known = store.token_by_hash(&SecretHash::of(token.as_bytes())).await?;
    let now = clock.now();
    Ok(known.is_some_and(|known| known.expires_at.is_none_or(|end| end > now)))
}

async fn make_token(store: &Store, clock: &dyn Clock) -> Result<String, Error> {
    let secret = Secret::generate(API_TOKEN_PREFIX).map_err(Error::internal)?;
    let created_by = store.user_by_name(ADMINISTRATOR).await?.map(|user| user.id);
    let now = clock.now();
    let token = ApiToken {
        id: new_id(now),
        name: TOKEN_FILE.to_owned(),
        scopes: Scope::ALL.to_vec(),
        created_by,
        maker_role: created_by.map(|_| Role::Admin),
        created_at: now,
        expires_at: None,
        last_used_at: None,
    };
    let entry = audit::entry(
        &Actor::system(FIRST_START),
        "token.create",
        format!("token:{TOKEN_FILE}"),
        now,
    );
    store.insert_token(&token, &secret.hash(), &entry).await?;
    Ok(secret.reveal().to_owned())
}

fn read(path: &Path) -> Result<Option<String>, FirstStartError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(FirstStartError::File {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Writes the file aside and moves it into place: readable by its owner alone from its first byte on, and never
/// half written.
fn write(path: &Path, token: &str) -> Result<(), FirstStartError> {
    let aside = path.with_extension("new");
    let written = || {
        match fs::remove_file(&aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&aside)?;
        file.write_all(token.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&aside, path)
    };
    written().map_err(|source| FirstStartError::File {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_token_file_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(TOKEN_FILE);
        assert_eq!(read(&path).unwrap(), None);
        write(&path, "spt_1").unwrap();
        write(&path, "spt_2").unwrap();
        assert_eq!(read(&path).unwrap().as_deref(), Some("spt_2"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
