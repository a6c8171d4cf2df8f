//! The cookies: the one that keeps a person signed in, and others of few minutes.

use axum::http::{HeaderMap, HeaderValue, header};

/// A cookie's name, and the path that it is sent to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Name {
    pub(super) name: &'static str,
    pub(super) path: &'static str,
}

/// The one that keeps a person signed in.
const SESSION: Name = Name {
    name: "setpoint_session",
    path: "/",
};

/// What the request's session cookie holds.
pub(super) fn read(headers: &HeaderMap) -> Option<&str> {
    SESSION.read(headers)
}

/// The header that sets it until the browser is closed.
pub(super) fn set(value: &str, secure: bool) -> Option<HeaderValue> {
    SESSION.set(value, secure, None)
}

/// The header that takes it away.
pub(super) fn clear(secure: bool) -> Option<HeaderValue> {
    SESSION.set("", secure, Some(0))
}

impl Name {
    /// What the request's cookie of this name holds.
    pub(super) fn read(self, headers: &HeaderMap) -> Option<&str> {
        let cookies = headers.get_all(header::COOKIE).iter();
        let pairs = cookies
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(';'));
        pairs
            .filter_map(|pair| pair.trim().split_once('='))
            .find(|(name, _)| *name == self.name)
            .map(|(_, value)| value)
    }

    /// The header that sets it, for so many seconds: out of reach for scripts, and not sent along by other sites' forms.
    pub(super) fn set(self, value: &str, secure: bool, seconds: Option<i64>) -> Option<HeaderValue> {
        let Self { name, path } = self;
        let secure = if secure { "; Secure" } else { "" };
        let age = seconds.map_or_else(String::new, |seconds| format!("; Max-Age={seconds}"));
        let text = format!("{name}={value}; HttpOnly; SameSite=Lax; Path={path}{secure}{age}");
        let mut header = HeaderValue::from_str(&text).ok()?;
        header.set_sensitive(true);
        Some(header)
    }
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
