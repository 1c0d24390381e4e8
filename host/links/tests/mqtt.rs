//! The MQTT link against a broker of the same family (rumqttd, embedded) and the real mosquitto: M01 to M04 and what the trait
//! promises. Every body runs on both.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::time::Duration;

use otahost_lab::mosquitto::{Mosquitto, MosquittoOptions};
use otahost_lab::tls;
use otahost_links::mqtt::{MAX_PAYLOAD, MqttOptions};
use otahost_links::{LinkCommand, LinkEvent, Token};
use rumqttc::PublishOptions;
use support::{AnyBroker, LIMIT, Peer, Running, options, proxy};
use tokio::sync::mpsc;

macro_rules! on_both_brokers {
    ($($name:ident),+ $(,)?) => {
        mod on_rumqttd {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(super::AnyBroker::embedded()).await;
            })+
        }
        mod on_mosquitto {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(super::AnyBroker::mosquitto()).await;
            })+
        }
    };
}

on_both_brokers!(
    m01_subscriptions_live_again_after_each_of_three_broker_deaths,
    m02_a_publication_cut_before_its_puback_is_not_called_delivered_and_arrives_when_sent_again,
    m02_after_a_cut_the_link_sends_nothing_by_itself,
    m03_a_message_without_acknowledgement_comes_again_and_an_acknowledged_one_does_not,
    m03_another_process_with_the_same_client_id_gets_what_was_not_acknowledged,
    m04_payloads_of_64_and_256_kib_pass_both_ways,
    an_acknowledgement_of_an_earlier_connection_is_ignored,
    acknowledgements_leave_in_order_of_receipt,
    a_new_set_of_filters_replaces_the_old_one,
    what_can_never_be_sent_is_named_and_the_connection_stays,
    a_poisonous_message_does_not_wedge_the_session,
    a_slow_agent_loses_nothing,
    an_agent_that_only_sends_does_not_block_the_link,
    an_agent_that_stands_still_in_both_directions_is_freed,
    qos_0_is_delivered_when_written,
    a_broker_that_says_nothing_is_given_up,
    a_line_that_carries_nothing_is_given_up_also_while_telemetry_goes_out,
);

async fn m01_subscriptions_live_again_after_each_of_three_broker_deaths(mut broker: AnyBroker) {
    let proxy = proxy(&broker);
    let mut link = Running::up(options(proxy.port()), &["in/#", "other"]).await;
    let began = std::time::Instant::now();
    for round in 0..3u8 {
        broker.kill();
        link.wait_down().await;
        assert!(
            proxy.wait_for_connections(proxy.connections() + 2, LIMIT),
            "it tries again by itself"
        );
        broker.restart();
        let (_, session_present) = link.wait_up().await;
        assert!(!session_present, "the broker forgot everything");
        let peer = Peer::connect(broker.port(), "peer", None).await;
        for topic in ["in/a", "other"] {
            peer.publish(topic, vec![round]).await;
            let (_, received, payload, _) = link.wait_message().await;
            assert_eq!((received.as_str(), payload), (topic, vec![round]));
        }
    }
    // The back-off's own bound is tested with numbers; a busy loop would make thousands here.
    let most = 100 + 50 * began.elapsed().as_secs();
    assert!(
        proxy.connections() < most,
        "{} connections",
        proxy.connections()
    );
}

async fn m02_a_publication_cut_before_its_puback_is_not_called_delivered_and_arrives_when_sent_again(
    mut broker: AnyBroker,
) {
    let proxy = proxy(&broker);
    let mut link = Running::up(options(proxy.port()), &["in"]).await;
    let outbox = [(7u64, b"final result".to_vec())];
    proxy.hold_to_client(true);
    let before = proxy.bytes_to_server();
    for (id, payload) in &outbox {
        link.publish(*id, "out", payload.clone(), 1).await;
    }
    assert!(
        proxy.wait_for_bytes_to_server(before + 12, LIMIT),
        "the publication left"
    );
    proxy.refuse(true);
    proxy.cut();
    broker.kill();
    link.until(|event| match event {
        LinkEvent::Delivered(id) => panic!("{id} was called delivered without a PUBACK"),
        LinkEvent::Down { .. } => Some(()),
        _ => None,
    })
    .await;
    broker.restart();
    let mut peer = Peer::connect(broker.port(), "peer", Some("out")).await;
    proxy.hold_to_client(false);
    proxy.refuse(false);
    assert!(!link.wait_up().await.1);
    for (id, payload) in &outbox {
        link.publish(*id, "out", payload.clone(), 1).await;
        link.wait_delivered(*id).await;
    }
    assert_eq!(peer.next().await, ("out".into(), b"final result".to_vec()));
    link.publish(8, "out", b"marker".to_vec(), 1).await;
    assert_eq!(peer.next().await, ("out".into(), b"marker".to_vec()));
}

async fn m02_after_a_cut_the_link_sends_nothing_by_itself(broker: AnyBroker) {
    let proxy = proxy(&broker);
    let mut peer = Peer::connect(broker.port(), "peer", Some("out")).await;
    let mut link = Running::up(options(proxy.port()), &["in"]).await;
    proxy.hold_to_client(true);
    link.publish(7, "out", b"once".to_vec(), 1).await;
    assert_eq!(peer.next().await, ("out".into(), b"once".to_vec()));
    proxy.cut();
    proxy.hold_to_client(false);
    link.until(|event| match event {
        LinkEvent::Delivered(id) => panic!("{id} was called delivered without a PUBACK"),
        LinkEvent::Up { .. } => Some(()),
        _ => None,
    })
    .await;
    link.publish(8, "out", b"marker".to_vec(), 1).await;
    link.wait_delivered(8).await;
    assert_eq!(
        peer.next().await,
        ("out".into(), b"marker".to_vec()),
        "the first publication was sent a second time by the link"
    );
}

async fn m03_a_message_without_acknowledgement_comes_again_and_an_acknowledged_one_does_not(
    broker: AnyBroker,
) {
    let proxy = proxy(&broker);
    let mut link = Running::up(options(proxy.port()), &["in"]).await;
    let peer = Peer::connect(broker.port(), "peer", None).await;
    peer.publish("in", b"first".to_vec()).await;
    peer.publish("in", b"second".to_vec()).await;
    let (first, _, payload, duplicate) = link.wait_message().await;
    assert_eq!(
        (payload.as_slice(), duplicate),
        (b"first".as_slice(), false)
    );
    let (second, _, payload, _) = link.wait_message().await;
    assert_eq!(payload, b"second");
    link.acknowledge(first).await;
    link.until(|event| (event == LinkEvent::Acknowledged(first)).then_some(()))
        .await;
    // QoS 1 gives no word that the broker has our PUBACK; its answer to what comes after does.
    link.publish(1, "elsewhere", vec![], 1).await;
    link.wait_delivered(1).await;
    proxy.cut();
    let (again, payload) = link.wait_up_and_message().await;
    assert_eq!(payload, b"second", "the acknowledged message came again");
    assert!(again.generation > second.generation);
    link.acknowledge(again).await;
    link.until(|event| (event == LinkEvent::Acknowledged(again)).then_some(()))
        .await;
    link.publish(2, "elsewhere", vec![], 1).await;
    link.wait_delivered(2).await;
    proxy.cut();
    link.wait_up().await;
    peer.publish("in", b"third".to_vec()).await;
    let (_, _, payload, _) = link.wait_message().await;
    assert_eq!(payload, b"third");
}

async fn m03_another_process_with_the_same_client_id_gets_what_was_not_acknowledged(
    broker: AnyBroker,
) {
    let peer = Peer::connect(broker.port(), "peer", None).await;
    {
        let proxy = proxy(&broker);
        let mut link = Running::up(options(proxy.port()), &["in"]).await;
        peer.publish("in", b"command".to_vec()).await;
        assert_eq!(link.wait_message().await.2, b"command");
        // A killed process says no goodbye.
        proxy.refuse(true);
        proxy.cut();
        link.wait_down().await;
    }
    let mut link = Running::start(options(broker.port()));
    link.subscribe(&["in"]).await;
    let (token, _, payload, _) = link.wait_message().await;
    assert_eq!(payload, b"command");
    link.acknowledge(token).await;
    link.until(|event| (event == LinkEvent::Acknowledged(token)).then_some(()))
        .await;
}

async fn m04_payloads_of_64_and_256_kib_pass_both_ways(broker: AnyBroker) {
    let mut link = Running::up(options(broker.port()), &["in"]).await;
    let mut peer = Peer::connect(broker.port(), "peer", Some("out/#")).await;
    for size in [64 * 1024, MAX_PAYLOAD] {
        let payload: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
        peer.publish("in", payload.clone()).await;
        let (token, _, received, _) = link.wait_message().await;
        assert!(received == payload, "{size} bytes in");
        link.acknowledge(token).await;
        // The longest topic brokers of the field take; the limit leaves room for every one that MQTT knows.
        let topic = format!("out/{}", "x".repeat(1_000));
        link.publish(size as u64, &topic, payload.clone(), 1).await;
        link.wait_delivered(size as u64).await;
        assert!(peer.next().await == (topic, payload), "{size} bytes out");
    }
}

async fn an_acknowledgement_of_an_earlier_connection_is_ignored(broker: AnyBroker) {
    let proxy = proxy(&broker);
    let mut link = Running::up(options(proxy.port()), &["in"]).await;
    let peer = Peer::connect(broker.port(), "peer", None).await;
    peer.publish("in", b"command".to_vec()).await;
    let (old, ..) = link.wait_message().await;
    proxy.cut();
    let (new, payload) = link.wait_up_and_message().await;
    assert_eq!(payload, b"command");
    for nonsense in [
        old,
        Token {
            generation: new.generation + 1,
            ..new
        },
        Token { packet: 0, ..new },
        Token {
            packet: 9_999,
            ..new
        },
    ] {
        link.acknowledge(nonsense).await;
    }
    link.publish(1, "elsewhere", vec![], 1).await;
    link.until(|event| match event {
        LinkEvent::Acknowledged(token) => panic!("{token:?} was acknowledged"),
        LinkEvent::Delivered(1) => Some(()),
        _ => None,
    })
    .await;
    link.acknowledge(new).await;
    link.until(|event| (event == LinkEvent::Acknowledged(new)).then_some(()))
        .await;
}

async fn acknowledgements_leave_in_order_of_receipt(broker: AnyBroker) {
    let mut link = Running::up(options(broker.port()), &["in"]).await;
    let peer = Peer::connect(broker.port(), "peer", None).await;
    let mut tokens = Vec::new();
    for n in 0..5u8 {
        peer.publish("in", vec![n]).await;
        tokens.push(link.wait_message().await.0);
    }
    for token in tokens.iter().rev() {
        link.acknowledge(*token).await;
    }
    let mut written = Vec::new();
    while written.len() < tokens.len() {
        written.push(
            link.until(|event| match event {
                LinkEvent::Acknowledged(token) => Some(token),
                _ => None,
            })
            .await,
        );
    }
    assert_eq!(written, tokens);
}

async fn a_new_set_of_filters_replaces_the_old_one(broker: AnyBroker) {
    let mut link = Running::up(options(broker.port()), &["a", "b"]).await;
    let peer = Peer::connect(broker.port(), "peer", None).await;
    link.subscribe(&["b", "c", "not/#/a filter"]).await;
    // The link says nothing when the change is done; the topics themselves do. Until "c" lives, it is sent again and again.
    let mut n = 0u32;
    loop {
        n += 1;
        assert!(n < 2_000, "the new filter never came to life");
        peer.publish("c", n.to_be_bytes().to_vec()).await;
        if let Ok(event) = tokio::time::timeout(Duration::from_millis(20), link.events.recv()).await
            && matches!(event.unwrap(), LinkEvent::Message { .. })
        {
            break;
        }
    }
    // The old one goes right after; the one in both sets never does.
    for n in 0..2_000u32 {
        for topic in ["a", "b"] {
            peer.publish(topic, n.to_be_bytes().to_vec()).await;
        }
        let first = link
            .until(|event| match event {
                LinkEvent::Message { topic, payload, .. }
                    if payload == n.to_be_bytes() && topic != "c" =>
                {
                    Some(topic)
                }
                _ => None,
            })
            .await;
        if first == "b" {
            return;
        }
        link.until(|event| match event {
            LinkEvent::Message { topic, payload, .. }
                if payload == n.to_be_bytes() && topic == "b" =>
            {
                Some(())
            }
            _ => None,
        })
        .await;
    }
    panic!("the old filter is still there");
}

/// Not on rumqttd 0.20: it delivers by a resumed session's filters, but ignores an UNSUBSCRIBE of them and sends no UNSUBACK.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_changed_while_the_line_was_down_are_right_after_it() {
    let broker = AnyBroker::mosquitto();
    let proxy = proxy(&broker);
    let mut link = Running::up(options(proxy.port()), &["old", "both"]).await;
    proxy.refuse(true);
    proxy.cut();
    link.wait_down().await;
    link.subscribe(&["both", "new"]).await;
    proxy.refuse(false);
    assert!(link.wait_up().await.1, "the session was kept");
    link.publish(1, "elsewhere", vec![], 1).await;
    link.wait_delivered(1).await;
    let peer = Peer::connect(broker.port(), "peer", None).await;
    for topic in ["old", "new", "both"] {
        peer.publish(topic, vec![]).await;
    }
    assert_eq!(link.wait_message().await.1, "new");
    assert_eq!(link.wait_message().await.1, "both");
}

async fn what_can_never_be_sent_is_named_and_the_connection_stays(broker: AnyBroker) {
    let mut link = Running::up(options(broker.port()), &["in"]).await;
    let cases: [(u64, &str, usize, u8, &str); 4] = [
        (1, "out", MAX_PAYLOAD + 1, 1, "262144"),
        (2, "out/#", 1, 1, "wildcard"),
        (3, "", 1, 0, "empty"),
        (4, "out", 1, 2, "QoS 2"),
    ];
    for (id, topic, size, qos, expected) in cases {
        link.publish(id, topic, vec![0; size], qos).await;
        let reason = link
            .until(|event| match event {
                LinkEvent::Undeliverable {
                    id: refused,
                    reason,
                } if refused == id => Some(reason),
                LinkEvent::Down { reason } => panic!("the connection ended: {reason}"),
                _ => None,
            })
            .await;
        assert!(reason.contains(expected), "{reason}");
    }
    link.publish(5, "out", vec![1], 1).await;
    link.wait_delivered(5).await;
}

async fn a_poisonous_message_does_not_wedge_the_session(broker: AnyBroker) {
    let mut link = Running::up(options(broker.port()), &["in"]).await;
    let peer = Peer::connect(broker.port(), "peer", None).await;
    // Over our payload limit, within our packet limit: dropped, and the connection stays.
    peer.publish("in", vec![0; MAX_PAYLOAD + 1]).await;
    peer.publish("in", b"after".to_vec()).await;
    let (token, _, payload, _) = link.wait_message().await;
    assert_eq!(payload, b"after");
    link.acknowledge(token).await;
    link.until(|event| match event {
        LinkEvent::Acknowledged(written) => {
            assert_eq!(written, token, "the dropped message was reported");
            Some(())
        }
        _ => None,
    })
    .await;
    // Over the packet limit: ends the connection, comes again with the session, ends it again, and is thrown away with the session.
    peer.publish("in", vec![0; 2 * MAX_PAYLOAD]).await;
    assert!(link.wait_down().await.contains("limit"));
    // `Up` may come in between, until the poison arrives again; after the session was emptied it comes without one.
    while link.wait_up().await.1 {}
    peer.publish("in", b"healthy".to_vec()).await;
    assert_eq!(link.wait_message().await.2, b"healthy");
}

async fn a_slow_agent_loses_nothing(broker: AnyBroker) {
    let (sender, events) = mpsc::channel(1);
    // While everything is full it cannot ping either, and no broker shall mind.
    let link = otahost_links::mqtt::MqttLink::new(MqttOptions {
        keep_alive: Duration::from_secs(600),
        ..options(broker.port())
    })
    .unwrap();
    let commands = otahost_links::Link::start(&link, sender);
    let mut link = Running { commands, events };
    link.subscribe(&["in"]).await;
    link.wait_up().await;
    let peer = Peer::connect(broker.port(), "peer", None).await;
    for n in 0..300u32 {
        peer.publish("in", n.to_be_bytes().to_vec()).await;
    }
    let mut expected = 0u32;
    while expected < 300 {
        let (token, _, payload, _) = link.wait_message().await;
        assert_eq!(payload, expected.to_be_bytes());
        expected += 1;
        link.acknowledge(token).await;
    }
}

async fn an_agent_that_only_sends_does_not_block_the_link(broker: AnyBroker) {
    let (sender, events) = mpsc::channel(1);
    let link = otahost_links::mqtt::MqttLink::new(options(broker.port())).unwrap();
    let commands = otahost_links::Link::start(&link, sender);
    let mut link = Running { commands, events };
    link.subscribe(&["in"]).await;
    link.wait_up().await;
    // Far more than all queues hold: they can only be taken while they are delivered.
    for id in 0..500 {
        tokio::time::timeout(LIMIT, link.publish(id, "out", vec![1], 1))
            .await
            .expect("the link takes commands");
    }
    let mut delivered = Vec::new();
    while delivered.len() < 500 {
        if let LinkEvent::Delivered(id) = link.next().await {
            delivered.push(id);
        }
    }
    delivered.sort_unstable();
    assert_eq!(delivered, (0..500).collect::<Vec<_>>());
}

async fn an_agent_that_stands_still_in_both_directions_is_freed(broker: AnyBroker) {
    let (sender, events) = mpsc::channel(1);
    let link = otahost_links::mqtt::MqttLink::new(MqttOptions {
        keep_alive: Duration::from_secs(1),
        ..options(broker.port())
    })
    .unwrap();
    let commands = otahost_links::Link::start(&link, sender);
    let mut link = Running { commands, events };
    link.subscribe(&["in"]).await;
    link.wait_up().await;
    // No event is taken while it sends, so the link's queues fill and it stops taking commands: only ending the connection helps.
    for id in 0..3_000 {
        tokio::time::timeout(LIMIT, link.publish(id, "out", vec![1], 1))
            .await
            .expect("the link takes commands again");
    }
    assert!(link.wait_down().await.contains("takes no events"));
    link.wait_up().await;
}

async fn qos_0_is_delivered_when_written(broker: AnyBroker) {
    let mut link = Running::up(options(broker.port()), &["in"]).await;
    let mut peer = Peer::connect(broker.port(), "peer", Some("out")).await;
    link.publish(1, "out", b"zero".to_vec(), 0).await;
    link.wait_delivered(1).await;
    assert_eq!(peer.next().await.1, b"zero");
    peer.publish_with("in", b"zero".to_vec(), PublishOptions::at_most_once())
        .await;
    let (token, ..) = link.wait_message().await;
    // rumqttd raises the QoS to the subscription's.
    assert!(token.packet == 0 || matches!(broker, AnyBroker::Embedded(_)));
}

async fn a_line_that_carries_nothing_is_given_up_also_while_telemetry_goes_out(broker: AnyBroker) {
    let proxy = proxy(&broker);
    let mut link = Running::up(
        MqttOptions {
            keep_alive: Duration::from_secs(1),
            ..options(proxy.port())
        },
        &["in"],
    )
    .await;
    proxy.forget();
    // Always sent before the client would ping, and never answered.
    let commands = link.commands.clone();
    let telemetry = async {
        for id in 1.. {
            let publication = LinkCommand::Publish {
                id,
                topic: "telemetry".into(),
                payload: b"x".to_vec(),
                qos: 0,
                retain: false,
            };
            commands.send(publication).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let reason = tokio::select! {
        reason = link.wait_down() => reason,
        () = telemetry => unreachable!("it never ends"),
    };
    assert!(reason.contains("answered nothing for 1 s"), "{reason}");
    link.wait_up().await;
}

async fn a_broker_that_says_nothing_is_given_up(broker: AnyBroker) {
    let proxy = proxy(&broker);
    proxy.hold_to_client(true);
    let mut link = Running::start(MqttOptions {
        connect_timeout: Duration::from_secs(1),
        ..options(proxy.port())
    });
    link.subscribe(&["in"]).await;
    let reason = link.wait_down().await;
    assert!(reason.contains("no connection within 1 s"), "{reason}");
    proxy.hold_to_client(false);
    proxy.cut();
    link.wait_up().await;
}

/// Mosquitto keeps sessions on disk: what was queued for us while we were away survives its restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_session_brings_what_came_while_the_link_was_down() {
    let mut broker = Mosquitto::start_with(MosquittoOptions {
        persistence: true,
        ..MosquittoOptions::default()
    })
    .unwrap();
    let proxy = otahost_lab::proxy::Proxy::to_port(broker.port());
    let mut link = Running::up(options(proxy.port()), &["in"]).await;
    proxy.refuse(true);
    proxy.cut();
    link.wait_down().await;
    Peer::connect(broker.port(), "peer", None)
        .await
        .publish("in", b"command".to_vec())
        .await;
    broker.stop();
    broker.restart().unwrap();
    proxy.refuse(false);
    assert_eq!(link.wait_message().await.2, b"command");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_trusts_the_named_authority_and_no_other() {
    let broker = Mosquitto::start_with(MosquittoOptions {
        tls: true,
        ..MosquittoOptions::default()
    })
    .unwrap();
    let secure = |ca: &str| MqttOptions {
        url: broker.url().parse().unwrap(),
        ca_pem: Some(ca.as_bytes().to_vec()),
        ..options(broker.port())
    };
    let mut stranger = Running::start(secure(tls::STRANGER_CA_PEM));
    stranger.subscribe(&["in"]).await;
    let reason = stranger.wait_down().await;
    assert!(reason.to_lowercase().contains("certificate"), "{reason}");
    drop(stranger);
    let mut link = Running::up(secure(tls::CA_PEM), &["in"]).await;
    link.publish(1, "out", vec![0; MAX_PAYLOAD], 1).await;
    link.wait_delivered(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_ends_when_the_agent_closes_a_channel_and_says_goodbye() {
    let broker = Mosquitto::start().unwrap();
    let mut link = Running::up(options(broker.port()), &["in"]).await;
    drop(link.commands);
    while let Some(event) = tokio::time::timeout(LIMIT, link.events.recv())
        .await
        .expect("the link ends")
    {
        assert!(
            !matches!(event, LinkEvent::Down { .. }),
            "an end is no failure"
        );
    }
    assert!(
        otahost_lab::proxy::wait_until(LIMIT, || broker
            .log()
            .contains("Received DISCONNECT from gw-7")),
        "{}",
        broker.log()
    );
}
