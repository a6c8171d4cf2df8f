use chrono::TimeDelta;
use setpoint_model::{Clock, SystemClock};

use super::*;
use crate::testing::{TestDatabase, database};

async fn fixture(serials: &[&str]) -> (TestDatabase, Store, DateTime<Utc>) {
    let database = database().await;
    for serial in serials {
        database
            .execute(&format!(
                "INSERT INTO devices (serial, model) VALUES ('{serial}', 'home')"
            ))
            .await;
    }
    let store = database.store();
    (database, store, SystemClock.now())
}

fn change(serial: &str, online: bool, at: DateTime<Utc>) -> PresenceChange {
    let reason = (!online).then_some(DisconnectReason::KeepAliveTimeout);
    PresenceChange {
        serial: serial.parse().unwrap(),
        presence: Presence {
            online,
            since: at,
            session: Uuid::from_u128(7),
            reason,
        },
        last_seen: at,
    }
}

async fn all(store: &Store) -> Vec<(String, Presence)> {
    let page = store.presence_page(DeviceId(0), 100).await.unwrap();
    page.into_iter()
        .map(|stored| (stored.serial.to_string(), stored.presence))
        .collect()
}

#[tokio::test]
async fn presence_is_written_and_read_back_in_pages() {
    let (_database, store, now) = fixture(&["A", "B", "C"]).await;
    let server = Uuid::from_u128(1);
    let changes = [
        change("A", true, now),
        change("B", false, now),
        change("gone", true, now),
    ];
    store.write_presence(server, &changes).await.unwrap();
    let expected: Vec<_> = changes[..2]
        .iter()
        .map(|c| (c.serial.to_string(), c.presence.clone()))
        .collect();
    assert_eq!(all(&store).await, expected);

    let first = store.presence_page(DeviceId(0), 1).await.unwrap();
    let second = store.presence_page(first[0].device_id, 1).await.unwrap();
    assert_eq!(second[0].serial.as_str(), "B");
    assert_eq!(store.presence_page(second[0].device_id, 1).await.unwrap(), []);
}

#[tokio::test]
async fn a_server_that_lost_a_device_to_another_does_not_take_it_offline() {
    let (_database, store, now) = fixture(&["A"]).await;
    let (old, new) = (Uuid::from_u128(1), Uuid::from_u128(2));
    store
        .write_presence(old, &[change("A", true, now)])
        .await
        .unwrap();
    store
        .write_presence(new, &[change("A", true, now + TimeDelta::seconds(1))])
        .await
        .unwrap();
    store
        .write_presence(old, &[change("A", false, now + TimeDelta::seconds(2))])
        .await
        .unwrap();
    assert!(all(&store).await[0].1.online);
    store
        .write_presence(new, &[change("A", false, now + TimeDelta::seconds(3))])
        .await
        .unwrap();
    assert!(!all(&store).await[0].1.online);
}

#[tokio::test]
async fn last_seen_never_goes_back_and_needs_no_session() {
    let (database, store, now) = fixture(&["A"]).await;
    let (server, serial): (Uuid, Serial) = (Uuid::from_u128(1), "A".parse().unwrap());
    store
        .write_last_seen(server, &[(serial.clone(), now)])
        .await
        .unwrap();
    store
        .write_last_seen(server, &[(serial, now - TimeDelta::minutes(1))])
        .await
        .unwrap();
    assert_eq!(all(&store).await, [], "no session, nothing to retain");
    let seen = sqlx::query_as::<_, (bool, DateTime<Utc>)>("SELECT online, last_seen FROM device_presence");
    assert_eq!(seen.fetch_one(database.pool()).await.unwrap(), (false, now));
}

#[tokio::test]
async fn after_an_unclean_stop_the_others_devices_are_offline_and_know_why() {
    let (_database, store, now) = fixture(&["A", "B", "C"]).await;
    let (dead, me) = (Uuid::from_u128(1), Uuid::from_u128(2));
    store
        .write_presence(dead, &[change("A", true, now), change("B", false, now)])
        .await
        .unwrap();
    store.write_presence(me, &[change("C", true, now)]).await.unwrap();
    let later = now + TimeDelta::minutes(1);
    assert_eq!(
        store
            .take_over_presence(me, DisconnectReason::ServerStopped, later)
            .await
            .unwrap(),
        1
    );

    let all = all(&store).await;
    let stopped = Some(DisconnectReason::ServerStopped);
    assert_eq!(
        (all[0].1.online, all[0].1.since, all[0].1.reason),
        (false, later, stopped)
    );
    assert_eq!(all[1].1.reason, Some(DisconnectReason::KeepAliveTimeout));
    assert!(all[2].1.online);

    let a = store.device_id(&"A".parse().unwrap()).await.unwrap().unwrap();
    let entries = store.timeline(a, &[], None, 10).await.unwrap();
    assert_eq!(entries[0].kind, Kind::Disconnected.as_str());
    let facts = setpoint_model::timeline::Facts::Disconnected {
        session: Uuid::from_u128(7),
        reason: DisconnectReason::ServerStopped,
    };
    assert_eq!(entries[0].data, facts.to_json());
}

#[tokio::test]
async fn at_a_clean_end_a_server_takes_its_own_offline() {
    let (_database, store, now) = fixture(&["A", "B"]).await;
    let (me, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
    store.write_presence(me, &[change("A", true, now)]).await.unwrap();
    store
        .write_presence(other, &[change("B", true, now)])
        .await
        .unwrap();
    assert_eq!(
        store
            .end_presence(me, DisconnectReason::ServerShutdown, now)
            .await
            .unwrap(),
        1
    );
    let all = all(&store).await;
    assert_eq!(
        (all[0].1.reason, all[1].1.online),
        (Some(DisconnectReason::ServerShutdown), true)
    );
}
