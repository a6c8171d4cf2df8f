//! Lets connections go to permitted addresses alone.
//!
//! The address that is judged is the one that is connected to: names are looked up here, so that no second look-up can
//! say something else (DNS rebinding), and an address in the URL is judged before it is used.

use std::{
    error::Error,
    fmt, io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    vec,
};

use hyper::Uri;
use hyper_util::client::legacy::connect::{
    HttpConnector,
    dns::{GaiResolver, Name},
};
use setpoint_model::webhook::address::{Allowed, special};
use tower::Service;

type BoxError = Box<dyn Error + Send + Sync>;
type BoxFuture<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

/// Which addresses may be reached.
#[derive(Debug, Clone)]
pub struct Guard {
    /// Special addresses that may be.
    pub allowed: Allowed,
    /// Whether those of the public internet may be reached without TLS.
    pub plain: bool,
}

/// An address that may be reached with TLS alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlainRefused(IpAddr);

impl fmt::Display for PlainRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is reached over https alone: webhooks.allow_http", self.0)
    }
}

impl Error for PlainRefused {}

impl Guard {
    /// Lets an address pass, with TLS or without (`plain`).
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, address: IpAddr, plain: bool) -> Result<(), BoxError> {
        self.allowed.check(address)?;
        let trusted = match &self.allowed {
            Allowed::All => special(address).is_some(),
            Allowed::Networks(_) => self.allowed.names(address),
        };
        if plain && !self.plain && !trusted {
            return Err(PlainRefused(address).into());
        }
        Ok(())
    }
}

/// Looks names up, and passes on permitted addresses alone.
#[derive(Clone)]
pub(super) struct Resolver {
    guard: Option<Arc<Guard>>,
    plain: bool,
    inner: GaiResolver,
}

impl Service<Name> for Resolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = BoxError;
    type Future = BoxFuture<Self::Response, BoxError>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (guard, plain) = (self.guard.clone(), self.plain);
        let found = self.inner.call(name);
        Box::pin(async move {
            let (mut good, mut refused) = (Vec::new(), None);
            for address in found.await? {
                match guard.as_ref().map(|guard| guard.check(address.ip(), plain)) {
                    Some(Err(error)) => refused = Some(error),
                    Some(Ok(())) | None => good.push(address),
                }
            }
            match refused {
                Some(refused) if good.is_empty() => Err(refused),
                _ => Ok(good.into_iter()),
            }
        })
    }
}

/// Connects to permitted addresses alone.
#[derive(Clone)]
pub(super) struct Guarded {
    guard: Option<Arc<Guard>>,
    encrypted: HttpConnector<Resolver>,
    plain: HttpConnector<Resolver>,
}

impl Guarded {
    pub(super) fn new(
        guard: Option<Arc<Guard>>,
        connector: impl Fn(Resolver) -> HttpConnector<Resolver>,
    ) -> Self {
        let resolver = |plain| Resolver {
            guard: guard.clone(),
            plain,
            inner: GaiResolver::new(),
        };
        Self {
            encrypted: connector(resolver(false)),
            plain: connector(resolver(true)),
            guard,
        }
    }

    /// An address in the URL is looked up by nobody.
    fn judge(&self, uri: &Uri, plain: bool) -> Result<(), BoxError> {
        let host = uri.host().unwrap_or_default();
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        match (&self.guard, host.parse::<IpAddr>()) {
            (Some(guard), Ok(address)) => guard.check(address, plain),
            _ => Ok(()),
        }
    }
}

impl Service<Uri> for Guarded {
    type Response = <HttpConnector<Resolver> as Service<Uri>>::Response;
    type Error = BoxError;
    type Future = BoxFuture<Self::Response, BoxError>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match (self.encrypted.poll_ready(context), self.plain.poll_ready(context)) {
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Ok(())),
            (Poll::Ready(Err(error)), _) | (_, Poll::Ready(Err(error))) => Poll::Ready(Err(error.into())),
            _ => Poll::Pending,
        }
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let plain = match uri.scheme_str() {
            Some("https") => false,
            Some("http") => true,
            _ => return Box::pin(async { Err(io::Error::other("neither http nor https").into()) }),
        };
        if let Err(refused) = self.judge(&uri, plain) {
            return Box::pin(async { Err(refused) });
        }
        let connector = if plain {
            &mut self.plain
        } else {
            &mut self.encrypted
        };
        let connected = connector.call(uri);
        Box::pin(async { connected.await.map_err(Into::into) })
    }
}
