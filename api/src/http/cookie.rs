//! The cookie that keeps a person signed in.

use axum::http::{HeaderMap, HeaderValue, header};

/// Its name.
const NAME: &str = "setpoint_session";

/// What the request's cookie holds.
pub(super) fn read(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter();
    let pairs = cookies
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'));
    pairs
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == NAME)
        .map(|(_, value)| value)
}

/// The header that sets it: out of reach for scripts, and not sent along by other sites' forms.
pub(super) fn set(value: &str, secure: bool) -> Option<HeaderValue> {
    write(value, secure, "")
}

/// The header that takes it away.
pub(super) fn clear(secure: bool) -> Option<HeaderValue> {
    write("", secure, "; Max-Age=0")
}

fn write(value: &str, secure: bool, more: &str) -> Option<HeaderValue> {
    let secure = if secure { "; Secure" } else { "" };
    let text = format!("{NAME}={value}; HttpOnly; SameSite=Lax; Path=/{secure}{more}");
    let mut header = HeaderValue::from_str(&text).ok()?;
    header.set_sensitive(true);
    Some(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_found_among_others() {
        let mut headers = HeaderMap::new();
        assert_eq!(read(&headers), None);
        headers.append(
            header::COOKIE,
            HeaderValue::from_static("a=b; xsetpoint_session=no"),
        );
        assert_eq!(read(&headers), None);
        headers.append(
            header::COOKIE,
            HeaderValue::from_static("c=d; setpoint_session=yes; e=f"),
        );
        assert_eq!(read(&headers), Some("yes"));
    }

    #[test]
    fn it_is_kept_from_scripts_and_other_sites() {
        let plain = set("x", false).unwrap();
        assert_eq!(plain, "setpoint_session=x; HttpOnly; SameSite=Lax; Path=/");
        assert!(
            clear(true)
                .unwrap()
                .to_str()
                .unwrap()
                .ends_with("; Secure; Max-Age=0")
        );
    }
}
