use rustls::HandshakeKind;

use super::*;

/// Connects with `identity` and gives what the server made of it.
async fn present(server: &Server, trusted: &Ca, identity: Option<&Pair>) -> Result<Peer, Error> {
    let config = Arc::new(client(trusted, identity));
    let client = async {
        let Ok(mut stream) = connect(server.address(), &config).await else {
            return;
        };
        // In TLS 1.3 the client hears of a refusal only here.
        let _ = stream.read(&mut [0]).await;
    };
    let server = async { server.accept().await.map(|(_, peer)| peer) };
    tokio::join!(server, client).0
}

#[tokio::test]
async fn the_common_name_is_read_and_tokens_still_work() {
    let ca = Ca::new("CA");
    let devices = Ca::new("device CA");
    let directory = Directory::new(&ca.server("one")).with_client_ca(&devices, false);
    let server = Server::new(Acceptor::tls(directory.load())).await;

    let peer = present(&server, &ca, Some(&devices.device("HOME-1")))
        .await
        .unwrap();
    assert_eq!(peer.certificate.as_deref(), Some("HOME-1"));
    assert_eq!(present(&server, &ca, None).await.unwrap().certificate, None);
}

#[tokio::test]
async fn a_certificate_that_does_not_verify_is_refused() {
    let ca = Ca::new("CA");
    let devices = Ca::new("device CA");
    let directory = Directory::new(&ca.server("one")).with_client_ca(&devices, false);
    let server = Server::new(Acceptor::tls(directory.load())).await;

    let client_auth = ExtendedKeyUsagePurpose::ClientAuth;
    let expired = devices.issue("HOME-1", client_auth.clone(), |params| {
        params.not_after = date_time_ymd(2021, 1, 1);
    });
    let future = devices.issue("HOME-1", client_auth, |params| {
        params.not_before = date_time_ymd(4000, 1, 1);
    });
    let stranger = Ca::new("device CA").device("HOME-1");
    let a_server = devices.server("HOME-1");
    for (pair, what) in [
        (stranger, "another CA"),
        (expired, "expired"),
        (future, "not yet valid"),
        (a_server, "a server's"),
    ] {
        let error = present(&server, &ca, Some(&pair)).await.expect_err(what);
        assert_eq!(error.reason(), "client_certificate", "{what}: {error}");
    }
    // The next one is none the worse for it.
    assert!(
        present(&server, &ca, Some(&devices.device("HOME-2")))
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn a_required_certificate_is_required() {
    let ca = Ca::new("CA");
    let devices = Ca::new("device CA");
    let directory = Directory::new(&ca.server("one")).with_client_ca(&devices, true);
    let server = Server::new(Acceptor::tls(directory.load())).await;

    let error = present(&server, &ca, None).await.unwrap_err();
    assert!(
        matches!(error, Error::Tls(rustls::Error::NoCertificatesPresented)),
        "{error}"
    );
    assert_eq!(error.reason(), "client_certificate");
    let peer = present(&server, &ca, Some(&devices.device("HOME-1")))
        .await
        .unwrap();
    assert_eq!(peer.certificate.as_deref(), Some("HOME-1"));
}

#[tokio::test]
async fn an_unclear_subject_names_nobody() {
    let ca = Ca::new("CA");
    let directory = Directory::new(&ca.server("one")).with_client_ca(&ca, false);
    let server = Server::new(Acceptor::tls(directory.load())).await;
    let nameless = ca.issue("HOME-1", ExtendedKeyUsagePurpose::ClientAuth, |params| {
        params.distinguished_name = rcgen::DistinguishedName::new();
    });
    assert_eq!(
        present(&server, &ca, Some(&nameless)).await.unwrap().certificate,
        None
    );
}

#[test]
fn an_expired_certificate_names_nobody() {
    // A resumed session skips the checks of a full handshake, so the name's reader has to look.
    let expired = Ca::new("CA").issue("HOME-1", ExtendedKeyUsagePurpose::ClientAuth, |params| {
        params.not_after = date_time_ymd(2021, 1, 1);
    });
    let expired = CertificateDer::from_pem_slice(expired.certificate.as_bytes()).unwrap();
    let error = crate::transport::certificate::common_name(&expired).unwrap_err();
    assert!(matches!(error, crate::transport::certificate::Error::NotValidNow));
}

#[tokio::test]
async fn a_resumed_session_keeps_its_name_until_the_client_ca_changes() {
    let ca = Ca::new("CA");
    let devices = Ca::new("device CA");
    let directory = Directory::new(&ca.server("one")).with_client_ca(&devices, false);
    let certificates = directory.load();
    let server = Server::new(Acceptor::tls(Arc::clone(&certificates))).await;
    let config = Arc::new(client(&ca, Some(&devices.device("HOME-1"))));

    for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
        let (accepted, connected) = tokio::join!(server.accept(), connect(server.address(), &config));
        let ((mut io, peer), mut stream) = (accepted.unwrap(), connected.unwrap());
        io.write_all(b"x").await.unwrap();
        io.flush().await.unwrap();
        stream.read_exact(&mut [0]).await.unwrap();
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(expected));
        assert_eq!(peer.certificate.as_deref(), Some("HOME-1"));
    }

    let path = directory.files.client_ca.as_ref().unwrap();
    directory.put(path, &Ca::new("its successor").certificate);
    certificates.reload().unwrap();
    let (accepted, connected) = tokio::join!(server.accept(), async {
        let mut stream = connect(server.address(), &config).await?;
        stream.read_exact(&mut [0]).await
    });
    assert_eq!(accepted.unwrap_err().reason(), "client_certificate");
    assert!(connected.is_err());
}
