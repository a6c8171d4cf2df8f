//! Mosquitto's password file: a line `name:$7$ITERATIONS$SALT$HASH` for each user, where the hash is PBKDF2 with
//! HMAC-SHA-512 (mosquitto_passwd(1)), salt and hash in Base64.

use std::{fmt::Write as _, num::NonZeroU32};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::pbkdf2;

/// What `mosquitto_passwd` uses unless it is told otherwise.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(101).unwrap();
/// Bytes of a salt.
const SALT: usize = 12;
/// Bytes of a hash.
const HASH: usize = 64;

/// The file's text for these names and passwords.
pub(super) fn file<'a>(users: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut text = String::new();
    for (name, password) in users {
        let salt: [u8; SALT] = std::array::from_fn(|_| fastrand::u8(..));
        // Writing to a string never fails.
        let _ = writeln!(text, "{}", line(name, password, &salt));
    }
    text
}

fn line(name: &str, password: &str, salt: &[u8]) -> String {
    let mut hash = [0; HASH];
    pbkdf2::derive(
        pbkdf2::PBKDF2_HMAC_SHA512,
        ITERATIONS,
        salt,
        password.as_bytes(),
        &mut hash,
    );
    format!(
        "{name}:$7${ITERATIONS}${}${}",
        STANDARD.encode(salt),
        STANDARD.encode(hash)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_what_mosquitto_passwd_writes() {
        // `mosquitto_passwd -b -c FILE HOME-1 secret` of Mosquitto 2.0.11.
        let written = "HOME-1:$7$101$RM6Bquy0swRf5CiV$MvZspo8A+A5SuguFejtrPkrJM89r8B2RcskYzjUVSr0xVvhFgIvFLGWTHQzwiz/+HPRURTwk5y8ARAlJ4k9e9A==";
        let salt = STANDARD.decode(written.split('$').nth(3).unwrap()).unwrap();
        assert_eq!(line("HOME-1", "secret", &salt), written);
        assert_eq!(file([("A", "x"), ("B", "y")]).lines().count(), 2);
    }
}
