//! The server's own key: what it keeps in the database for its own use, a copy of the database doesn't tell.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use super::Error;

/// Bytes of the key.
const KEY_BYTES: usize = 32;

/// A key of 256 bits for ChaCha20-Poly1305 (RFC 8439).
pub struct ServerKey(LessSafeKey);

/// Why the key can't be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Its file can't be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{}: not a key of 64 hexadecimal digits", .0.display())]
    NoKey(PathBuf),
    /// The operating system has no randomness to give.
    #[error("no randomness: {0}")]
    Randomness(#[from] getrandom::Error),
}

impl ServerKey {
    /// The key in this file, which is made, its owner's alone, if it isn't there.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let failed = |source| KeyError::File {
            path: path.to_owned(),
            source,
        };
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut bytes = [0; KEY_BYTES];
                getrandom::fill(&mut bytes)?;
                write(path, &hexadecimal(&bytes)).map_err(failed)?;
                // Another process may have been quicker: what stands there counts.
                fs::read_to_string(path).map_err(failed)?
            }
            read => read.map_err(failed)?,
        };
        let key = bytes(text.trim()).and_then(|bytes| UnboundKey::new(&CHACHA20_POLY1305, &bytes).ok());
        let key = key.ok_or_else(|| KeyError::NoKey(path.to_owned()))?;
        Ok(Self(LessSafeKey::new(key)))
    }

    /// Encrypts `clear`. What comes of it can be opened for the same `purpose` alone, so that one row's secret is of no
    /// use in another row.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn seal(&self, purpose: &str, clear: &[u8]) -> Result<Vec<u8>, Error> {
        // 96 random bits stay unique for far more secrets than there are people.
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).map_err(Error::internal)?;
        let mut sealed = clear.to_vec();
        self.0
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(purpose.as_bytes()),
                &mut sealed,
            )
            .map_err(|_| Error::internal(io::Error::other("sealing failed")))?;
        sealed.splice(0..0, nonce);
        Ok(sealed)
    }

    /// Decrypts what [`Self::seal`] gave; `None` if that was another key or purpose, or it was changed since.
    pub fn open(&self, purpose: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, rest) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut rest = rest.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let clear = self
            .0
            .open_in_place(nonce, Aad::from(purpose.as_bytes()), &mut rest);
        clear.ok().map(|clear| clear.to_vec())
    }
}

impl std::fmt::Debug for ServerKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServerKey(..)")
    }
}

/// Puts a new file in place, whole and on disk; one that is there stays.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let aside = path.with_extension(format!("new-{}", std::process::id()));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&aside)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    let linked = match fs::hard_link(&aside, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    };
    fs::remove_file(&aside)?;
    linked
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    if text.len() != 2 * KEY_BYTES {
        return None;
    }
    let digits: Option<Vec<u32>> = text.chars().map(|c| c.to_digit(16)).collect();
    let pairs = digits?;
    let pairs = pairs.chunks_exact(2).map(|pair| match pair {
        [high, low] => u8::try_from(high * 16 + low).ok(),
        _ => None,
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_key_is_made_once_and_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let sealed = ServerKey::load(&path).unwrap().seal("a", b"secret").unwrap();
        let again = ServerKey::load(&path).unwrap();
        assert_eq!(again.open("a", &sealed).as_deref(), Some(&b"secret"[..]));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_sealed_opens_for_its_purpose_and_key_alone() {
        let dir = tempfile::tempdir().unwrap();
        let key = ServerKey::load(&dir.path().join("one")).unwrap();
        let other = ServerKey::load(&dir.path().join("two")).unwrap();
        let sealed = key.seal("anna", b"secret").unwrap();
        assert!(!sealed.windows(6).any(|part| part == b"secret"));
        assert_ne!(
            sealed,
            key.seal("anna", b"secret").unwrap(),
            "never the same twice"
        );
        assert!(key.open("ben", &sealed).is_none());
        assert!(other.open("anna", &sealed).is_none());
        assert!(key.open("anna", &sealed[..10]).is_none());
        let mut changed = sealed;
        *changed.last_mut().unwrap() ^= 1;
        assert!(key.open("anna", &changed).is_none());
    }

    #[test]
    fn a_file_that_is_no_key_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        for text in ["", "abc", &"g".repeat(64), &"é".repeat(32)] {
            fs::write(&path, text).unwrap();
            assert!(
                matches!(ServerKey::load(&path), Err(KeyError::NoKey(_))),
                "{text}"
            );
        }
    }
}
