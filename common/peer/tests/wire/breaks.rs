//! Peers that go and come back.

use std::time::Duration;

use bytes::Bytes;
use sanso_core::cluster::Incarnation;
use sanso_peer::{CallError, Lane, Limits, PeerConfig};

use crate::node::{Event, Node, config, pair, soon};
use crate::relay::Relay;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_goes_is_told_of_once_and_found_again_in_its_next_life() {
    let (mut one, two) = pair(config(1, 1), config(2, 1)).await;
    let at = two.peers.local_address();
    soon(two.peers.close()).await;
    assert_eq!(one.hears().await, Event::Broken(two.id));
    assert!(soon(one.peers.wait_for(two.id, |status| status.attempts_failed >= 3)).await);
    assert!(one.events.try_recv().is_err(), "refused attempts are no further breaks");
    let two = Node::start(PeerConfig { listen: at, ..config(2, 2) });
    two.knows(&one);
    let next_life =
        |status: &sanso_peer::PeerStatus| status.is_connected() && status.incarnation == Some(Incarnation(2));
    assert!(soon(one.peers.wait_for(two.id, next_life)).await);
    two.reaches(&one).await;
    two.sends(&one, Lane::Data, "back");
    let Event::Message(from, _, bytes) = one.hears().await else { panic!("broken twice") };
    assert_eq!((from.instance.incarnation, bytes.as_ref()), (Incarnation(2), b"back".as_slice()));
    soon(two.peers.close()).await;
    assert_eq!(one.hears().await, Event::Broken(two.id), "it is told of again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_where_nobody_listens_is_broken_and_another_is_tried_at_once() {
    let mut one = Node::start(config(1, 1));
    let gone = Node::start(config(2, 1));
    soon(gone.peers.close()).await;
    one.knows(&gone);
    assert_eq!(one.hears().await, Event::Broken(gone.id));
    let two = Node::start(config(2, 2));
    one.knows(&two);
    one.reaches(&two).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_moves_is_followed_and_one_that_is_forgotten_is_left() {
    let (mut one, two) = pair(config(1, 1), config(2, 1)).await;
    let elsewhere = Node::start(config(2, 2));
    one.knows(&elsewhere);
    let moved =
        |status: &sanso_peer::PeerStatus| status.is_connected() && status.incarnation == Some(Incarnation(2));
    assert!(soon(one.peers.wait_for(two.id, moved)).await);
    elsewhere.knows(&one);
    elsewhere.reaches(&one).await;
    one.peers.forget(two.id);
    assert!(!one.peers.status().contains_key(&two.id));
    elsewhere.sends(&one, Lane::Data, "still heard");
    assert_eq!(one.hears_message().await, "still heard");
    soon(elsewhere.peers.close()).await;
    let three = Node::start(config(3, 1));
    three.knows(&one);
    three.reaches(&one).await;
    three.sends(&one, Lane::Beat, "and nothing else");
    // Neither the move nor the forgotten node's end is a break.
    assert_eq!(one.hears_message().await, "and nothing else");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_frees_the_port_and_dropping_the_last_handle_closes() {
    let one = Node::start(config(1, 1));
    let at = one.peers.local_address();
    soon(one.peers.close()).await;
    let one = Node::start(PeerConfig { listen: at, ..config(1, 2) });
    let mut two = Node::start(config(2, 1));
    two.knows(&one);
    two.reaches(&one).await;
    let id = one.id;
    drop(one);
    assert_eq!(two.hears().await, Event::Broken(id));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_dead_without_a_word_are_replaced() {
    let limits = Limits { keep_alive_ms: 50, keep_alive_timeout_ms: 5_000, ..config(1, 1).limits };
    let (mut one, two) = (Node::start(PeerConfig { limits, ..config(1, 1) }), Node::start(config(2, 1)));
    let mut two = two;
    let mut relay = Relay::to(two.peers.local_address()).await;
    one.peers.set_address(two.id, relay.at.to_string());
    one.reaches(&two).await;
    relay.silence();
    let before = *relay.connections.borrow();
    // Nobody says that it is dead; the call ends because it is found to be.
    let asked = one.peers.call(two.id, "echo", Bytes::new(), Duration::from_secs(50));
    let error = soon(asked).await.unwrap_err();
    assert!(matches!(error, CallError::Interrupted(_)), "{error}");
    assert_eq!(one.hears().await, Event::Broken(two.id));
    soon(relay.connections.wait_for(|count| *count >= before + 3)).await.unwrap();
    one.reaches(&two).await;
    one.sends(&two, Lane::Data, "alive again");
    assert_eq!(two.hears_message().await, "alive again");
}
