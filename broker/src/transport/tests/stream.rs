use std::{
    io::IoSlice,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::*;

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

/// One read without waiting.
fn poll_read(io: &mut Io) -> Poll<std::io::Result<Vec<u8>>> {
    let mut buffer = [0; 64];
    let mut buffer = ReadBuf::new(&mut buffer);
    let mut context = Context::from_waker(Waker::noop());
    Pin::new(io)
        .poll_read(&mut context, &mut buffer)
        .map_ok(|()| buffer.filled().to_vec())
}

#[tokio::test]
async fn bytes_and_the_end_come_through() {
    let (mut plain, mut plain_client) = plain_pair().await;
    let (mut tls, mut tls_client, _directory) = tls_pair().await;
    for io in [&mut plain, &mut tls] {
        assert!(poll_read(io).is_pending(), "{io:?} is idle");
    }
    plain_client.write_all(b"ab").await.unwrap();
    tls_client.write_all(b"ab").await.unwrap();
    tls_client.flush().await.unwrap();
    for io in [&mut plain, &mut tls] {
        // One by one: the second byte waits in the socket of the one and, decrypted, in the other.
        assert_eq!(timeout(PATIENCE, io.read_u8()).await.unwrap().unwrap(), b'a');
        assert_eq!(timeout(PATIENCE, io.read_u8()).await.unwrap().unwrap(), b'b');
        assert!(poll_read(io).is_pending(), "{io:?} is idle again");
    }
    plain_client.shutdown().await.unwrap();
    tls_client.shutdown().await.unwrap();
    for io in [&mut plain, &mut tls] {
        assert_eq!(
            timeout(PATIENCE, io.read(&mut [0])).await.unwrap().unwrap(),
            0,
            "{io:?} has ended"
        );
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
