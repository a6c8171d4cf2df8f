//! Shared subscriptions.

use rmqtt_codec::{types::QoS, v5};

use crate::support::{Server, V5, operator5, publish, text};

#[tokio::test]
async fn each_message_goes_to_one_member() {
    let server = Server::start().await;
    let mut members = Vec::new();
    for n in 0..3 {
        let mut member = server.operator5(&format!("member{n}")).await;
        assert_eq!(
            member
                .subscribe("$share/g/devices/A/telemetry", QoS::AtLeastOnce)
                .await,
            1
        );
        members.push(member);
    }
    let mut alone = server.operator5("alone").await;
    alone.subscribe("devices/+/telemetry", QoS::AtLeastOnce).await;
    let mut other = server.operator5("other").await;
    other.subscribe("$share/h/devices/#", QoS::AtLeastOnce).await;
    let mut device = server.operator5("device").await;
    for n in 0..6 {
        device
            .publish_acked(publish(
                "devices/A/telemetry",
                &n.to_string(),
                QoS::AtLeastOnce,
                1,
            ))
            .await;
    }
    for n in 0..6 {
        assert_eq!(text(&alone.message().await.payload), n.to_string());
        assert_eq!(text(&other.message().await.payload), n.to_string());
    }
    for (n, member) in members.iter_mut().enumerate() {
        assert_eq!(text(&member.message().await.payload), n.to_string());
        assert_eq!(text(&member.message().await.payload), (n + 3).to_string());
        member.silent().await;
    }
}

#[tokio::test]
async fn who_is_away_is_passed_over_and_who_left_is_forgotten() {
    let server = Server::start().await;
    server.settings("A", 1).await;
    let mut away = server.v5().await;
    let connect = v5::Connect {
        session_expiry_interval_secs: 60,
        ..operator5("away")
    };
    away.welcome(connect).await;
    let mut here = server.operator5("here").await;
    for member in [&mut away, &mut here] {
        member
            .subscribe("$share/g/devices/A/settings", QoS::AtLeastOnce)
            .await;
        // Nothing retained for a shared subscription.
        member.silent().await;
    }
    drop(away);
    server
        .event(|event| matches!(event, setpoint_broker::SessionEvent::Ended { .. }).then_some(()))
        .await;
    for version in 2..=4 {
        server.settings("A", version).await;
        here.message().await;
    }
    here.send(v5::Packet::Unsubscribe(v5::Unsubscribe {
        packet_id: crate::support::id(3),
        user_properties: Vec::new(),
        topic_filters: vec!["$share/g/devices/A/settings".into()],
    }))
    .await;
    let v5::Packet::UnsubscribeAck(ack) = here.recv().await else {
        panic!()
    };
    assert_eq!(ack.status, [v5::UnsubscribeAckReason::Success]);
    server.settings("A", 5).await;
    here.silent().await;
    // With nobody else, it waits for the one who is away.
    let mut away = server.v5().await;
    let connect = v5::Connect {
        clean_start: false,
        session_expiry_interval_secs: 60,
        ..operator5("away")
    };
    assert!(away.welcome(connect).await.session_present);
    assert!(text(&away.message().await.payload).contains('5'));
    away.silent().await;
}

/// Ends a member that has been sent messages: by DISCONNECT, or by going away.
async fn end(server: &Server, member: V5, politely: bool) {
    if politely {
        member.disconnect().await;
    } else {
        drop(member);
    }
    server
        .event(|event| matches!(event, setpoint_broker::SessionEvent::Ended { .. }).then_some(()))
        .await;
}

#[tokio::test]
async fn what_a_member_left_undone_goes_to_another() {
    for politely in [true, false] {
        let server = Server::start().await;
        let mut leaving = server.v5().await;
        leaving
            .welcome(v5::Connect {
                receive_max: std::num::NonZeroU16::new(2),
                ..operator5("leaving")
            })
            .await;
        leaving
            .subscribe("$share/g/devices/+/telemetry", QoS::AtLeastOnce)
            .await;
        let mut device = server.device5("A").await;
        for n in 1..=4 {
            let publish = publish("devices/A/telemetry", &n.to_string(), QoS::AtLeastOnce, n);
            device.publish_acked(publish).await;
        }
        // Two are on their way to it and two wait.
        for n in 1..=2 {
            assert_eq!(text(&leaving.unacknowledged().await.payload), n.to_string());
        }
        server.settled().await;
        let mut staying = server.operator5("staying").await;
        staying
            .subscribe("$share/g/devices/+/telemetry", QoS::AtLeastOnce)
            .await;
        staying
            .subscribe("$share/other/devices/+/telemetry", QoS::AtLeastOnce)
            .await;
        end(&server, leaving, politely).await;
        for n in 1..=4 {
            let message = staying.message().await;
            assert_eq!(text(&message.payload), n.to_string());
            assert!(!message.dup, "it is new to this one");
        }
        staying.silent().await;
    }
}

#[tokio::test]
async fn what_was_sent_with_qos_2_goes_to_nobody_else() {
    let server = Server::start().await;
    let mut leaving = server.operator5("leaving").await;
    leaving
        .subscribe("$share/g/devices/A/telemetry", QoS::ExactlyOnce)
        .await;
    let mut device = server.operator5("device").await;
    device
        .publish("devices/A/telemetry", "1", QoS::ExactlyOnce, 1)
        .await;
    leaving.unacknowledged().await;
    let mut staying = server.operator5("staying").await;
    staying
        .subscribe("$share/g/devices/A/telemetry", QoS::ExactlyOnce)
        .await;
    end(&server, leaving, false).await;
    server.settled().await;
    staying.silent().await;
}
