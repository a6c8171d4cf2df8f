//! How sessions that outlived their connection end.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use super::*;

#[tokio::test]
async fn a_session_ends_with_its_expiry() {
    let server = Server::start().await;
    let mut client = server.v5().await;
    assert!(!client.welcome(kept5("A", 100)).await.session_present);
    client.subscribe("devices/A/commands", QoS::AtLeastOnce).await;
    client.disconnect().await;
    gone(&server).await;
    assert_eq!(server.handle.counts().stored_sessions, 1);
    let mut client = server.v5().await;
    assert!(client.welcome(kept5("A", 1)).await.session_present);
    client.disconnect().await;
    eventually("the session expires", || {
        server.handle.counts().stored_sessions == 0
    })
    .await;
    let mut client = server.v5().await;
    assert!(!client.welcome(kept5("A", 100)).await.session_present);
    // An interval in DISCONNECT replaces the one in CONNECT.
    let disconnect = v5::Disconnect {
        session_expiry_interval_secs: Some(0),
        ..Default::default()
    };
    client.send(v5::Packet::Disconnect(disconnect)).await;
    client.closed().await;
    gone(&server).await;
    let mut client = server.v5().await;
    assert!(!client.welcome(kept5("A", 0)).await.session_present);
    // But none can't become some.
    let disconnect = v5::Disconnect {
        session_expiry_interval_secs: Some(5),
        ..Default::default()
    };
    client.send(v5::Packet::Disconnect(disconnect)).await;
    assert_eq!(client.disconnected().await, 0x82);
}

#[tokio::test]
async fn ending_a_device_drops_what_is_stored_for_it() {
    let server = Server::start().await;
    away(&server).await;
    command(&server, "1", QoS::AtLeastOnce).await;
    assert_eq!(
        server
            .handle
            .end_device(&serial("A"), DisconnectReason::CredentialRevoked)
            .await,
        0
    );
    assert_eq!(server.handle.counts().stored_sessions, 0);
    let mut client = server.v3().await;
    assert!(!client.welcome(kept3("A")).await);
    assert_eq!(
        server
            .handle
            .end_device(&serial("A"), DisconnectReason::CredentialRevoked)
            .await,
        1
    );
    client.closed().await;
    let mut client = server.v3().await;
    assert!(!client.welcome(kept3("A")).await);
    // A session that an administrator ends may come back.
    let session = server.handle.sessions()[0].info.id;
    assert!(server.handle.end_session(session, DisconnectReason::Kicked).await);
    assert!(!server.handle.end_session(session, DisconnectReason::Kicked).await);
    client.closed().await;
    assert!(server.v3().await.welcome(kept3("A")).await);
}

#[tokio::test]
async fn a_device_may_not_store_any_number_of_sessions() {
    let server = Server::with(|config| config.max_stored_sessions_per_device = 2).await;
    for n in 1..=3 {
        let mut client = server.v3().await;
        let client_id = format!("A:{n}").into();
        assert!(
            !client
                .welcome(v3::Connect {
                    client_id,
                    ..kept3("A")
                })
                .await
        );
        client.disconnect().await;
        gone(&server).await;
    }
    assert_eq!(server.handle.counts().stored_sessions, 2);
    for (n, present) in [(1, false), (3, true)] {
        let client_id = format!("A:{n}").into();
        let mut client = server.v3().await;
        assert_eq!(
            client
                .welcome(v3::Connect {
                    client_id,
                    ..kept3("A")
                })
                .await,
            present,
            "{n}"
        );
    }
}

/// Presence goes by the last word: an end that is told slowly is no later word than the beginning after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_client_that_comes_back_at_once_is_told_of_after_its_end() {
    let server = Server::start().await;
    let mut client = server.v3().await;
    client.welcome(connect3("A")).await;
    let overtaken = Arc::new(AtomicBool::new(false));
    let (comes, came) = std::sync::mpsc::channel();
    let (came, seen) = (Mutex::new(came), Arc::clone(&overtaken));
    *server.backend.on_event.lock().unwrap() = Some(Arc::new(move |event| match event {
        SessionEvent::Started(_) => comes.send(()).unwrap(),
        SessionEvent::Ended { .. } => {
            let early = came.lock().unwrap().recv_timeout(Duration::from_secs(1));
            seen.fetch_or(early.is_ok(), Ordering::SeqCst);
        }
        _ => {}
    }));
    drop(client);
    let mut client = server.v3().await;
    client.welcome(connect3("A")).await;
    gone(&server).await;
    assert!(!overtaken.load(Ordering::SeqCst));
}
