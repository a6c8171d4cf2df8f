use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::*;

#[tokio::test]
async fn a_changed_file_is_served_while_old_connections_live() {
    let ca = Ca::new("CA");
    let directory = Directory::new(&ca.server("one"));
    let certificates = directory.load();
    let server = Server::new(Acceptor::tls(Arc::clone(&certificates))).await;
    let address = server.address();
    let config = Arc::new(client(&ca, None));

    let stop = CancellationToken::new();
    let tracker = TaskTracker::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(server.echo());
    tracker.spawn(Arc::clone(&certificates).watch(Duration::from_millis(5), stop.clone()));

    // Load: connections that never stop talking, until they are told to.
    let enough = CancellationToken::new();
    let mut talkers = JoinSet::new();
    for _ in 0..10 {
        let mut stream = connect(address, &config).await.unwrap();
        assert_eq!(presented(&stream), "one");
        let enough = enough.clone();
        talkers.spawn(async move {
            while !enough.is_cancelled() {
                ping(&mut stream, "still here")
                    .await
                    .expect("a live connection is not touched");
            }
            presented(&stream)
        });
    }

    for name in ["two", "three"] {
        let reloaded = certificates.reloads();
        directory.replace(&ca.server(name));
        timeout(PATIENCE, reloaded).await.expect("the change is seen");
        let mut stream = connect(address, &config).await.unwrap();
        assert_eq!(presented(&stream), name);
        ping(&mut stream, "new").await.unwrap();
    }

    enough.cancel();
    while let Some(talker) = talkers.join_next().await {
        assert_eq!(talker.unwrap(), "one");
    }
    stop.cancel();
    tracker.close();
    timeout(PATIENCE, tracker.wait())
        .await
        .expect("the watch ends when told");
}

#[tokio::test]
async fn a_bad_file_keeps_the_old_certificate() {
    let ca = Ca::new("CA");
    let directory = Directory::new(&ca.server("one"));
    let certificates = directory.load();
    let server = Server::new(Acceptor::tls(Arc::clone(&certificates))).await;
    let config = Arc::new(client(&ca, None));
    let next = ca.server("two");

    for bad in ["", "-----BEGIN CERTIFICATE-----\nAAAA", &next.certificate] {
        // The last is sound in itself, but the key is still the old one's.
        directory.put(&directory.files.certificate, bad);
        certificates.reload().unwrap_err();
        let (accepted, connected) = tokio::join!(server.accept(), connect(server.address(), &config));
        accepted.unwrap();
        assert_eq!(presented(&connected.unwrap()), "one");
    }
    fs::remove_file(&directory.files.key).unwrap();
    certificates.reload().unwrap_err();
    assert_eq!(certificates.summary().subject, "CN=one");

    directory.put(&directory.files.key, &next.key);
    certificates.reload().unwrap();
    assert_eq!(certificates.summary().subject, "CN=two");
    let (accepted, connected) = tokio::join!(server.accept(), connect(server.address(), &config));
    accepted.unwrap();
    assert_eq!(presented(&connected.unwrap()), "two");
}

#[test]
fn a_change_is_loaded_once_and_only_at_rest() {
    let ca = Ca::new("CA");
    let directory = Directory::new(&ca.server("one"));
    let certificates = directory.load();
    let subject = || certificates.summary().subject;
    assert!(certificates.look(None).is_none(), "nothing changed");

    // Certificate first: seen, but not loaded before the next look.
    let next = ca.server("two");
    directory.put(&directory.files.certificate, &next.certificate);
    let half = certificates.look(None);
    assert!(half.is_some());
    // Then the key, so the files did not rest.
    directory.put(&directory.files.key, &next.key);
    let whole = certificates.look(half);
    assert!(whole.is_some());
    assert_eq!(subject(), "CN=one");
    assert!(certificates.look(whole).is_none());
    assert_eq!(subject(), "CN=two");

    // A broken file is tried once, until it changes again.
    directory.put(&directory.files.certificate, "broken");
    let broken = certificates.look(None);
    assert!(certificates.look(broken).is_none());
    assert!(certificates.look(None).is_none());
    assert_eq!(subject(), "CN=two");
    directory.replace(&ca.server("three"));
    let mended = certificates.look(None);
    assert!(certificates.look(mended).is_none());
    assert_eq!(subject(), "CN=three");
}
