use super::*;

#[tokio::test]
async fn of_a_device_the_oldest_goes_first_and_others_go_on() {
    let database = testing::database().await;
    let store = database.store();
    let hook = hook(&store, "all", json!({"events": ["presence"]})).await;
    for serial in ["A", "B"] {
        device(&store, serial, json!({})).await;
        online(&store, serial, true, 1).await;
        online(&store, serial, false, 2).await;
    }
    let due = claim(&store, &hook, 9).await;
    assert_eq!(told(&due), [("presence", "A"), ("presence", "B")]);
    assert_eq!(claim(&store, &hook, 9).await, [], "they are taken");
    store
        .settle_deliveries(&[failed(&due[0], Some(150)), delivered(&due[1])])
        .await
        .unwrap();
    let second = claim(&store, &hook, 9).await;
    assert_eq!(told(&second), [("presence", "B")], "A waits for its first");
    assert_eq!(store.next_delivery_due(at(100)).await.unwrap(), Some(at(150)));
    let late = store.claim_deliveries(&hook, at(160), at(260), 9).await.unwrap();
    assert_eq!((late[0].seq, late[0].attempts), (due[0].seq, 1));
    store.settle_deliveries(&[failed(&late[0], None)]).await.unwrap();
    let next = store.claim_deliveries(&hook, at(160), at(260), 9).await.unwrap();
    assert_eq!(told(&next), [("presence", "A")], "the dead hold nobody up");
    // Whoever took it is gone: it is due again after its time.
    assert_eq!(
        store
            .claim_deliveries(&hook, at(259), at(400), 9)
            .await
            .unwrap()
            .len(),
        1,
        "B's second"
    );
    let again = store.claim_deliveries(&hook, at(260), at(400), 9).await.unwrap();
    assert_eq!((again.len(), again[0].id), (1, next[0].id));
    let counts = store.webhook_counts(&[hook.id]).await.unwrap();
    assert_eq!(counts, [Counts { pending: 2, dead: 1 }]);
    assert!(store.replay_delivery(hook.id, due[0].id).await.unwrap());
    assert!(
        !store.replay_delivery(hook.id, due[0].id).await.unwrap(),
        "it is pending"
    );
}

#[tokio::test]
async fn what_is_kept_has_bounds() {
    let database = testing::database().await;
    let store = database.store();
    let hook = hook(&store, "all", json!({"events": ["presence"]})).await;
    for number in 0..6 {
        let serial = format!("D-{number}");
        device(&store, &serial, json!({})).await;
        online(&store, &serial, true, number).await;
    }
    let keep = |waiting, ended, from| Keep {
        waiting,
        ended,
        delivered_from: at(from),
        dead_from: at(from),
    };
    let removed = store.keep_deliveries(&keep(4, 9, 0), at(100), 100).await.unwrap();
    assert_eq!(
        (removed.given_up, removed.undelivered, removed.delivered),
        (2, 0, 0)
    );
    let dead = store
        .webhook_deliveries(hook.id, Some(DeliveryState::Dead), None, 9)
        .await
        .unwrap();
    let serials: Vec<_> = dead
        .iter()
        .filter_map(|delivery| delivery.serial.as_deref())
        .collect();
    assert_eq!(serials, ["D-1", "D-0"]);
    let due = claim(&store, &hook, 2).await;
    store
        .settle_deliveries(&[delivered(&due[0]), delivered(&due[1])])
        .await
        .unwrap();
    let removed = store.keep_deliveries(&keep(4, 1, 0), at(100), 100).await.unwrap();
    assert_eq!(
        (removed.given_up, removed.undelivered, removed.delivered),
        (0, 1, 1)
    );
    let removed = store
        .keep_deliveries(&keep(4, 9, 1_000), at(100), 100)
        .await
        .unwrap();
    assert_eq!(
        (removed.given_up, removed.undelivered, removed.delivered),
        (0, 3, 1)
    );
}

#[tokio::test]
async fn there_are_no_more_than_there_may_be_and_a_name_is_one() {
    let database = testing::database().await;
    let store = database.store();
    let first = hook(&store, "a", json!({"events": ["presence"]})).await;
    let description = description(json!({"events": ["settings"]}));
    for (name, most, made) in [
        ("a", 2, Made::Exists),
        ("b", 1, Made::TooMany),
        ("b", 2, Made::Made),
    ] {
        let new = NewWebhook {
            id: Uuid::new_v4(),
            name: &name.parse().unwrap(),
            description: &description,
            headers: None,
            secret: b"sealed",
        };
        assert_eq!(
            store.create_webhook(&new, most, at(0), &entry()).await.unwrap(),
            made
        );
    }
    assert!(
        store
            .write_webhook(&first, &description, None, at(1), &entry())
            .await
            .unwrap()
    );
    assert!(
        !store
            .write_webhook(&first, &description, None, at(1), &entry())
            .await
            .unwrap()
    );
    let second = store.webhook(&first.name).await.unwrap().unwrap();
    assert_eq!((second.version, second.events.len()), (2, 1));
    assert!(
        store
            .rotate_webhook_secret(&second, b"new", at(9), at(2), &entry())
            .await
            .unwrap()
    );
    let third = store.webhook(&first.name).await.unwrap().unwrap();
    assert_eq!(third.previous, Some((b"sealed".to_vec(), at(9))));
    assert!(
        store
            .disable_webhook(&third, "gone", at(3), &entry())
            .await
            .unwrap()
    );
    let fourth = store.webhook(&first.name).await.unwrap().unwrap();
    assert_eq!(
        (fourth.enabled, fourth.disabled_reason.as_deref()),
        (false, Some("gone"))
    );
    assert!(!store.delete_webhook(&third, &entry()).await.unwrap());
    assert!(store.delete_webhook(&fourth, &entry()).await.unwrap());
}
