use std::{
    io::IoSlice,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::*;
use crate::transport::Duplex;

async fn tls_pair() -> (Io, TlsStream<TcpStream>, Directory) {
    let ca = Ca::new("CA");
    let directory = Directory::new(&ca.server("one"));
    let server = Server::new(Acceptor::tls(directory.load())).await;
    let config = Arc::new(client(&ca, None));
    let (accepted, connected) = tokio::join!(server.accept(), connect(server.address(), &config));
    (accepted.unwrap().0, connected.unwrap(), directory)
}

async fn plain_pair() -> (Io, TcpStream) {
    let server = Server::new(Acceptor::plain()).await;
    let (accepted, connected) = tokio::join!(server.accept(), TcpStream::connect(server.address()));
    (accepted.unwrap().0, connected.unwrap())
}

fn poll_ready(io: &mut Io) -> Poll<std::io::Result<()>> {
    io.poll_read_ready(&mut Context::from_waker(Waker::noop()))
}

/// Reads until there is nothing more, which is what makes an idle stream unready.
fn drain(io: &mut Io) {
    let mut buffer = [0; 64];
    let mut context = Context::from_waker(Waker::noop());
    while let Poll::Ready(read) = Pin::new(&mut *io).poll_read(&mut context, &mut ReadBuf::new(&mut buffer)) {
        read.unwrap();
    }
}

#[tokio::test]
async fn readiness_follows_the_bytes() {
    let (mut plain, mut plain_client) = plain_pair().await;
    let (mut tls, mut tls_client, _directory) = tls_pair().await;
    for io in [&mut plain, &mut tls] {
        drain(io);
        assert!(poll_ready(io).is_pending(), "{io:?} is idle");
    }
    plain_client.write_all(b"ab").await.unwrap();
    tls_client.write_all(b"ab").await.unwrap();
    tls_client.flush().await.unwrap();
    for io in [&mut plain, &mut tls] {
        timeout(PATIENCE, io.readable()).await.unwrap().unwrap();
        assert_eq!(io.read_u8().await.unwrap(), b'a');
        // The second byte waits in the socket of the one and, decrypted, in the other.
        timeout(PATIENCE, io.readable()).await.unwrap().unwrap();
        assert_eq!(io.read_u8().await.unwrap(), b'b');
        drain(io);
        assert!(poll_ready(io).is_pending(), "{io:?} is idle again");
    }
    drop(plain_client);
    tls_client.shutdown().await.unwrap();
    for io in [&mut plain, &mut tls] {
        timeout(PATIENCE, io.readable()).await.unwrap().unwrap();
        assert_eq!(io.read(&mut [0]).await.unwrap(), 0, "{io:?} has ended");
    }
}

#[tokio::test]
async fn vectored_writes_arrive_whole() {
    let (mut plain, mut plain_client) = plain_pair().await;
    let (mut tls, mut tls_client, _directory) = tls_pair().await;
    for io in [&mut plain, &mut tls] {
        assert!(io.is_write_vectored());
        assert_eq!(
            io.write_vectored(&[IoSlice::new(b"set"), IoSlice::new(b"point")])
                .await
                .unwrap(),
            8
        );
        io.flush().await.unwrap();
    }
    let mut buffer = [0; 8];
    plain_client.read_exact(&mut buffer).await.unwrap();
    assert_eq!(&buffer, b"setpoint");
    tls_client.read_exact(&mut buffer).await.unwrap();
    assert_eq!(&buffer, b"setpoint");
}

#[tokio::test]
async fn a_client_that_never_reads_stops_the_writer() {
    let (mut io, client, _directory) = tls_pair().await;
    let mut context = Context::from_waker(Waker::noop());
    let block = vec![0; 64 * 1024];
    let mut written = 0;
    // Loopback sockets hold some megabytes; without a bound this would go on until memory ends.
    while let Poll::Ready(wrote) = Pin::new(&mut io).poll_write(&mut context, &block) {
        written += wrote.unwrap();
        assert!(written < 256 << 20, "the writer is never held back");
        // Lets the socket's readiness be seen.
        tokio::task::yield_now().await;
    }
    assert!(written > 0);
    drop(client);
}
