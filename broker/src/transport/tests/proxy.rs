use proptest::prelude::*;

use super::*;
use crate::{
    backend::Transport,
    transport::proxy::{Error as ProxyError, LONGEST, Progress, parse},
};

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// A header with the given command, family, addresses and TLVs.
fn header(version_and_command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
    let length = u16::try_from(addresses.len()).unwrap().to_be_bytes();
    [
        &SIGNATURE[..],
        &[version_and_command, family],
        &length[..],
        addresses,
    ]
    .concat()
}

/// 192.0.2.7:50000 to 192.0.2.1:1883.
const V4: &[u8] = &[192, 0, 2, 7, 192, 0, 2, 1, 0xc3, 0x50, 0x07, 0x5b];

fn v6() -> Vec<u8> {
    let source: std::net::Ipv6Addr = "2001:db8::7".parse().unwrap();
    let destination: std::net::Ipv6Addr = "2001:db8::1".parse().unwrap();
    [
        &source.octets()[..],
        &destination.octets(),
        &[0xc3, 0x50, 0x07, 0x5b],
    ]
    .concat()
}

fn source(bytes: &[u8]) -> Option<SocketAddr> {
    match parse(bytes).unwrap() {
        Progress::Done { source, length } => {
            assert_eq!(length, bytes.len());
            source
        }
        Progress::Needs(_) => panic!("incomplete"),
    }
}

#[test]
fn addresses_of_each_family() {
    assert_eq!(
        source(&header(0x21, 0x11, V4)),
        Some("192.0.2.7:50000".parse().unwrap())
    );
    assert_eq!(
        source(&header(0x21, 0x21, &v6())),
        Some("[2001:db8::7]:50000".parse().unwrap())
    );
    let mapped = [
        &[0; 10][..],
        &[0xff, 0xff, 192, 0, 2, 7],
        &[0; 16],
        &[0xc3, 0x50, 0, 0],
    ]
    .concat();
    assert_eq!(
        source(&header(0x21, 0x21, &mapped)),
        Some("192.0.2.7:50000".parse().unwrap())
    );
    // LOCAL, with and without addresses; unknown and Unix clients.
    assert_eq!(source(&header(0x20, 0x00, &[])), None);
    assert_eq!(source(&header(0x20, 0x11, V4)), None);
    assert_eq!(source(&header(0x21, 0x00, &[])), None);
    assert_eq!(source(&header(0x21, 0x31, &[0; 216])), None);
    // TLVs are skipped.
    let with_tlvs = [V4, &[0x04, 0, 3, 1, 2, 3]].concat();
    assert_eq!(
        source(&header(0x21, 0x11, &with_tlvs)),
        Some("192.0.2.7:50000".parse().unwrap())
    );
}

#[test]
fn what_is_not_such_a_header_is_refused_at_the_first_wrong_byte() {
    let refused = |bytes: &[u8]| parse(bytes).unwrap_err();
    assert!(matches!(
        refused(b"PROXY TCP4 192.0.2.7 192.0.2.1 50000 1883\r\n"),
        ProxyError::Missing
    ));
    assert!(matches!(refused(b"P"), ProxyError::Missing));
    assert!(matches!(refused(b"\x10\x10\0\x04MQTT"), ProxyError::Missing));
    assert!(matches!(refused(b"\r\n\r\n\0\r\nQUIT\r"), ProxyError::Missing));
    assert!(matches!(refused(&header(0x11, 0x11, V4)), ProxyError::Version(1)));
    assert!(matches!(refused(&header(0x22, 0x11, V4)), ProxyError::Command(2)));
    assert!(matches!(
        refused(&header(0x21, 0x12, V4)),
        ProxyError::Family(0x12)
    ));
    assert!(matches!(
        refused(&header(0x21, 0x11, &V4[..11])),
        ProxyError::TooShort
    ));
    assert!(matches!(refused(&header(0x21, 0x11, &[])), ProxyError::TooShort));
    assert!(matches!(refused(&header(0x21, 0x21, V4)), ProxyError::TooShort));
    let too_long = header(0x21, 0x11, &vec![0; LONGEST - 15]);
    assert!(
        matches!(refused(&too_long[..16]), ProxyError::TooLong(_)),
        "before the rest is read"
    );
    let longest = header(0x21, 0x11, &vec![0; LONGEST - 16]);
    assert!(parse(&longest).is_ok());
}

fn any_start() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..64),
        (
            any::<u8>(),
            any::<u8>(),
            proptest::collection::vec(any::<u8>(), 0..64)
        )
            .prop_map(|(command, family, addresses)| header(command, family, &addresses)),
        (
            0x20u8..0x22,
            proptest::sample::select(vec![0u8, 0x11, 0x21, 0x31]),
            any::<[u8; 40]>()
        )
            .prop_map(|(command, family, addresses)| header(command, family, &addresses)),
    ]
}

proptest! {
    #[test]
    fn any_bytes_give_an_answer_that_more_bytes_do_not_take_back(bytes in any_start()) {
        let whole = parse(&bytes);
        for length in 0..bytes.len() {
            match parse(&bytes[..length]) {
                Ok(Progress::Needs(needs)) => prop_assert!(needs > length && needs <= LONGEST),
                Ok(done) => prop_assert_eq!(Some(done), whole.as_ref().ok().copied()),
                Err(error) => {
                    prop_assert_eq!(whole.as_ref().unwrap_err().to_string(), error.to_string());
                }
            }
        }
        if let Ok(Progress::Done { length, .. }) = whole {
            prop_assert!(length <= bytes.len());
        }
    }
}

#[tokio::test]
async fn the_header_is_read_and_nothing_beyond_it() {
    let server = Server::new(Acceptor::plain().with_proxy_protocol(true)).await;
    for (header, expected) in [
        (header(0x21, 0x11, V4), Some("192.0.2.7:50000")),
        (header(0x21, 0x21, &v6()), Some("[2001:db8::7]:50000")),
        (header(0x20, 0x00, &[]), None),
    ] {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        let (accepted, ()) = tokio::join!(server.accept(), async {
            // In two parts, the second with the first MQTT bytes.
            let (first, second) = header.split_at(header.len() / 2);
            stream.write_all(first).await.unwrap();
            tokio::task::yield_now().await;
            stream.write_all(&[second, b"\x10MQTT"].concat()).await.unwrap();
        });
        let (mut io, peer) = accepted.unwrap();
        let expected = expected.map_or(stream.local_addr().unwrap(), |address| address.parse().unwrap());
        assert_eq!(
            peer,
            Peer {
                address: expected,
                transport: Transport::Tcp,
                certificate: None
            }
        );
        let mut rest = [0; 5];
        timeout(PATIENCE, io.read_exact(&mut rest))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(&rest, b"\x10MQTT");
    }
}

#[tokio::test]
async fn a_bad_or_missing_header_ends_that_connection() {
    let server = Server::new(Acceptor::plain().with_proxy_protocol(true)).await;
    for (bytes, reason) in [
        (&b"\x10\x10\0\x04MQTT\x04\x02\0\x1e\0\x04hurt"[..], "proxy_header"),
        (b"PROXY TCP4 192.0.2.7 192.0.2.1 50000 1883\r\n", "proxy_header"),
        (&header(0x21, 0x11, V4)[..20], "socket"),
        (b"", "socket"),
    ] {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(server.accept().await.unwrap_err().reason(), reason, "{bytes:?}");
    }
    // Without the option, such a header is just bytes for the codec to refuse.
    let server = Server::new(Acceptor::plain()).await;
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    stream.write_all(&header(0x21, 0x11, V4)).await.unwrap();
    let (_, peer) = server.accept().await.unwrap();
    assert_eq!(peer.address, stream.local_addr().unwrap());
}

#[tokio::test]
async fn the_header_comes_before_tls() {
    let ca = Ca::new("CA");
    let directory = Directory::new(&ca.server("one"));
    let server = Server::new(Acceptor::tls(directory.load()).with_proxy_protocol(true)).await;
    let config = Arc::new(client(&ca, None));
    let client = async {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        stream.write_all(&header(0x21, 0x11, V4)).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(config).connect(name, stream).await.unwrap()
    };
    let (accepted, _stream) = tokio::join!(server.accept(), client);
    let (_, peer) = accepted.unwrap();
    assert_eq!(peer.address, "192.0.2.7:50000".parse().unwrap());
    assert_eq!(peer.transport, Transport::Tls);
}
