use rustls::{AlertDescription, HandshakeKind, ProtocolVersion};
use x509_parser::der_parser::der::parse_der_sequence;

use super::*;
use crate::{backend::Transport, transport::tls::LoadError};

#[tokio::test]
async fn both_protocol_versions_and_the_application_protocol() {
    let ca = Ca::new("CA");
    let directory = Directory::new(&ca.server("one"));
    let server = Server::new(Acceptor::tls(directory.load())).await;
    for (version, expected) in [
        (&rustls::version::TLS12, ProtocolVersion::TLSv1_2),
        (&rustls::version::TLS13, ProtocolVersion::TLSv1_3),
    ] {
        for alpn in [
            vec![],
            vec![b"mqtt".to_vec()],
            vec![b"h2".to_vec(), b"mqtt".to_vec()],
        ] {
            let mut config = client_with(&ca, None, &[version]);
            config.alpn_protocols = alpn.clone();
            let config = Arc::new(config);
            let (accepted, connected) = tokio::join!(server.accept(), connect(server.address(), &config));
            let ((mut io, peer), mut stream) = (accepted.unwrap(), connected.unwrap());

            assert_eq!(stream.get_ref().1.protocol_version(), Some(expected));
            let chosen = stream.get_ref().1.alpn_protocol();
            assert_eq!(chosen, (!alpn.is_empty()).then_some(tls::ALPN));
            assert_eq!(peer.transport, Transport::Tls);
            assert_eq!(peer.address, stream.get_ref().0.local_addr().unwrap());
            assert_eq!(peer.certificate, None);

            stream.write_all(b"up").await.unwrap();
            let mut buffer = [0; 2];
            io.read_exact(&mut buffer).await.unwrap();
            assert_eq!(&buffer, b"up");
            io.write_all(b"down").await.unwrap();
            io.flush().await.unwrap();
            let mut buffer = [0; 4];
            stream.read_exact(&mut buffer).await.unwrap();
            assert_eq!(&buffer, b"down");
        }
    }
}

#[tokio::test]
async fn a_client_that_wants_another_protocol_is_refused() {
    let ca = Ca::new("CA");
    let directory = Directory::new(&ca.server("one"));
    let server = Server::new(Acceptor::tls(directory.load())).await;
    let mut config = client(&ca, None);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let config = Arc::new(config);
    let (accepted, connected) = tokio::join!(server.accept(), connect(server.address(), &config));
    assert_eq!(accepted.unwrap_err().reason(), "tls_handshake");
    let alert = connected.unwrap_err().downcast::<rustls::Error>().unwrap();
    assert_eq!(
        alert,
        rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)
    );
}

#[tokio::test]
async fn garbage_ends_its_own_connection_with_a_typed_error() {
    let ca = Ca::new("CA");
    let directory = Directory::new(&ca.server("one"));
    let server = Server::new(Acceptor::tls(directory.load())).await;
    // MQTT without TLS, a browser, and a record that begins like TLS.
    for garbage in [
        &b"\x10\x10\0\x04MQTT\x04\x02\0\x1e\0\x04hurt"[..],
        b"GET /mqtt HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\0\x05zzzzz",
    ] {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        let error = server.accept().await.unwrap_err();
        assert!(matches!(error, Error::Tls(_)), "{error}");
        assert_eq!(error.reason(), "tls_handshake");
    }
    let stream = TcpStream::connect(server.address()).await.unwrap();
    drop(stream);
    assert_eq!(server.accept().await.unwrap_err().reason(), "socket");

    // A client that does not trust us says so.
    let config = Arc::new(client(&Ca::new("another"), None));
    let (accepted, connected) = tokio::join!(server.accept(), connect(server.address(), &config));
    assert_eq!(accepted.unwrap_err().reason(), "tls_alert");
    assert!(connected.is_err());
}

#[tokio::test]
async fn idle_connections_hold_up_nobody() {
    let ca = Ca::new("CA");
    let directory = Directory::new(&ca.server("one"));
    let server = Server::new(Acceptor::tls(directory.load())).await;
    let address = server.address();
    let mut tasks = JoinSet::new();
    tasks.spawn(server.echo());

    let mut idle = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // Half of them begin a record and stop.
        if idle.len() % 2 == 0 {
            stream.write_all(b"\x16\x03\x01\x02").await.unwrap();
        }
        idle.push(stream);
    }
    let mut stream = connect(address, &Arc::new(client(&ca, None))).await.unwrap();
    ping(&mut stream, "not held up").await.unwrap();
    drop(idle);
}

#[tokio::test]
async fn a_session_is_resumed_without_a_full_handshake() {
    let ca = Ca::new("CA");
    let directory = Directory::new(&ca.server("one"));
    let server = Server::new(Acceptor::tls(directory.load())).await;
    let address = server.address();
    let mut tasks = JoinSet::new();
    tasks.spawn(server.echo());
    let config = Arc::new(client(&ca, None));
    for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
        let mut stream = connect(address, &config).await.unwrap();
        // The ticket of TLS 1.3 comes with the first bytes.
        ping(&mut stream, "hello").await.unwrap();
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(expected));
    }
}

#[test]
fn unusable_files_are_named() {
    let ca = Ca::new("CA");
    let directory = Directory::new(&ca.server("one"));
    let files = &directory.files;
    let fails = |files: &tls::Files| Certificates::load(files.clone()).unwrap_err();

    let missing = tls::Files {
        key: directory.directory.path().join("nothing"),
        ..files.clone()
    };
    assert!(
        fails(&missing).to_string().contains("nothing"),
        "{}",
        fails(&missing)
    );

    let swapped = tls::Files {
        certificate: files.key.clone(),
        key: files.certificate.clone(),
        ..files.clone()
    };
    assert!(matches!(fails(&swapped), LoadError::Missing { .. }));

    let stranger = directory.directory.path().join("stranger.key");
    fs::write(&stranger, ca.server("two").key).unwrap();
    let mismatch = tls::Files {
        key: stranger,
        ..files.clone()
    };
    assert!(matches!(fails(&mismatch), LoadError::Mismatch { .. }));

    let text = directory.directory.path().join("text");
    fs::write(&text, "no PEM in here").unwrap();
    let no_ca = tls::Files {
        client_ca: Some(text.clone()),
        ..files.clone()
    };
    assert!(matches!(fails(&no_ca), LoadError::Missing { path, .. } if path == text));

    let required = tls::Files {
        client_required: true,
        ..files.clone()
    };
    assert!(matches!(fails(&required), LoadError::RequiredWithoutCa));
}

#[tokio::test]
async fn a_sec1_key_is_read() {
    let ca = Ca::new("CA");
    let mut pair = ca.server("one");
    // PKCS#8 wraps the SEC1 key in an octet string, its third element.
    let PrivateKeyDer::Pkcs8(key) = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap() else {
        panic!()
    };
    let (_, outer) = parse_der_sequence(key.secret_pkcs8_der()).unwrap();
    let sec1 = outer.as_sequence().unwrap()[2].as_slice().unwrap();
    pair.key = pem("EC PRIVATE KEY", sec1);
    let directory = Directory::new(&pair);
    assert_eq!(directory.load().summary().subject, "CN=one");
}

/// PEM text of one section.
fn pem(label: &str, der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut base64 = String::new();
    for chunk in der.chunks(3) {
        let bits =
            chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = (bits >> (18 - 6 * place)) as usize & 63;
            base64.push(if place <= chunk.len() {
                ALPHABET[digit].into()
            } else {
                '='
            });
        }
    }
    format!("-----BEGIN {label}-----\n{base64}\n-----END {label}-----\n")
}
