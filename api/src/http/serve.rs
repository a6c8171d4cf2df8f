//! Serving a listener: each connection in a task of its own, bounded in number and in patience.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, extract::ConnectInfo};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::stall::Impatient;
use crate::{config::Http, lifecycle::Tasks};

/// How long to wait when the system has no more sockets to give.
const PAUSE: Duration = Duration::from_millis(100);

/// The largest head of a request, and the most that is read ahead of a body, in bytes.
const MAX_BUFFER: usize = 64 * 1024;

/// Serves `router` to the connections of `listener`, each a task among `connections`, until those are told to end;
/// then requests in hand are finished and no more are taken.
///
/// HTTP/1.1 alone: a proxy in front speaks what browsers speak, and hyper bounds how long a client may take over
/// its headers for this version only.
pub async fn serve(listener: TcpListener, router: Router, limits: Http, connections: Tasks) {
    let stop = connections.stopping();
    let places = Arc::new(Semaphore::new(limits.max_connections));
    loop {
        let Some(Ok(place)) = stop
            .run_until_cancelled(Arc::clone(&places).acquire_owned())
            .await
        else {
            return;
        };
        let accepted = match stop.run_until_cancelled(listener.accept()).await {
            Some(accepted) => accepted,
            None => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let connection = connection(stream, peer, router.clone(), limits.clone(), stop.clone());
                connections.short("http connection", async move {
                    connection.await;
                    drop(place);
                });
            }
            Err(error) => {
                // Out of file descriptors, most likely: others must close theirs first.
                tracing::warn!(%error, "an HTTP connection can't be accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    limits: Http,
    stop: CancellationToken,
) {
    // A failure costs some latency at worst.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        router.clone().oneshot(request.map(axum::body::Body::new))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(MAX_BUFFER)
        .serve_connection(
            TokioIo::new(Impatient::new(stream, limits.write_timeout)),
            service,
        )
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "an HTTP connection broke");
    }
}
