//! Where a request comes from: the address behind trusted proxies, and whether the client's side is encrypted.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::{
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, HeaderName, header, request::Parts},
    middleware::Next,
    response::Response,
};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// What is known of the client.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Client {
    /// Its address; `None` in a test without a connection.
    pub(super) address: Option<IpAddr>,
    /// Whether a proxy says that the client came by HTTPS.
    pub(super) secure: bool,
}

impl Client {
    /// That of a request which passed [`locate`].
    pub(super) fn of(parts: &Parts) -> Self {
        parts.extensions.get().copied().unwrap_or_default()
    }

    /// The scheme of this server's address as the client sees it.
    pub(super) fn scheme(self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }
}

/// The layer that finds it out.
pub(super) async fn locate(
    State(proxies): State<Arc<[IpAddr]>>,
    mut request: Request,
    next: Next,
) -> Response {
    let peer = request
        .extensions()
        .get::<ConnectInfo<SocketAddr>>()
        .map(|peer| peer.0.ip().to_canonical());
    let client = Client {
        address: peer.map(|peer| origin(peer, request.headers(), &proxies)),
        // Whoever lies here makes their own cookies stricter.
        secure: last(request.headers(), &FORWARDED_PROTO).is_some_and(|scheme| scheme == "https"),
    };
    request.extensions_mut().insert(client);
    next.run(request).await
}

/// The last address that no trusted proxy speaks for.
fn origin(peer: IpAddr, headers: &HeaderMap, proxies: &[IpAddr]) -> IpAddr {
    let mut address = peer;
    let named = headers.get_all(FORWARDED_FOR).iter().rev();
    let named = named.filter_map(|value| value.to_str().ok());
    for hop in named.flat_map(|value| value.rsplit(',')) {
        if !proxies.contains(&address) {
            break;
        }
        match hop.trim().parse::<IpAddr>() {
            Ok(before) => address = before.to_canonical(),
            Err(_) => break,
        }
    }
    address
}

fn last<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let value = headers.get_all(name).iter().next_back()?.to_str().ok()?;
    value.rsplit(',').next().map(str::trim)
}

/// The host that the client asked for, if it can stand in an address.
pub(super) fn host(headers: &HeaderMap) -> Option<&str> {
    let host = headers.get(header::HOST)?.to_str().ok()?;
    let well = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
    (!host.is_empty() && host.bytes().all(well)).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(peer: &str, forwarded: &[&str], proxies: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(FORWARDED_FOR, value.parse().unwrap());
        }
        let proxies: Vec<IpAddr> = proxies.iter().map(|proxy| proxy.parse().unwrap()).collect();
        origin(peer.parse().unwrap(), &headers, &proxies).to_string()
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        assert_eq!(from("10.0.0.1", &["1.2.3.4"], &[]), "10.0.0.1");
        assert_eq!(from("10.0.0.1", &["1.2.3.4"], &["10.0.0.1"]), "1.2.3.4");
        assert_eq!(from("10.0.0.1", &["6.6.6.6, 1.2.3.4"], &["10.0.0.1"]), "1.2.3.4");
        assert_eq!(
            from(
                "10.0.0.1",
                &["6.6.6.6", "1.2.3.4, 10.0.0.2"],
                &["10.0.0.1", "10.0.0.2"]
            ),
            "1.2.3.4"
        );
        assert_eq!(from("10.0.0.1", &["nonsense"], &["10.0.0.1"]), "10.0.0.1");
    }
}
