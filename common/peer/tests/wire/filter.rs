//! The link filter does what a broken network does.

use std::time::{Duration, Instant};

use bytes::Bytes;
use sanso_peer::{CallError, Lane, Link, RESENT};
use tokio::task::JoinHandle;

use crate::node::{Event, Node, config, pair, soon};

const LONG: Duration = Duration::from_secs(30);

async fn echo(one: &Node, two: &Node, within: Duration) -> Result<Bytes, CallError> {
    soon(one.peers.call(two.id, "echo", Bytes::from_static(b"hello"), within)).await
}

/// Asks, and lets somebody else wait for the answer.
fn ask(one: &Node, two: &Node) -> JoinHandle<Result<Bytes, CallError>> {
    let (asks, to) = (one.peers.clone(), two.id);
    tokio::spawn(async move { asks.call(to, "echo", Bytes::from_static(b"hello"), LONG * 10).await })
}

/// Sees that nothing goes from one to two and everything from two to one, where
/// `cutter` is the one of them that cuts; then heals it and sees that both go.
async fn carries_one_way(one: &mut Node, two: &mut Node, cuts: Link, by_sender: bool) {
    let other = if by_sender { two.id } else { one.id };
    let cutter = if by_sender { one.peers.clone() } else { two.peers.clone() };
    cutter.filter().set(other, cuts);
    let mut swallowed = cutter.filter().swallowed();
    let mut is_swallowed = async |count| soon(swallowed.wait_for(|so_far| *so_far == count)).await.is_ok();
    for (lane, count) in [(Lane::Beat, 1), (Lane::Data, 2)] {
        one.sends(two, lane, "to nobody");
        assert!(is_swallowed(count).await);
        two.sends(one, lane, "the other way");
        assert_eq!(one.hears_message().await, "the other way");
    }
    let question = ask(one, two);
    assert!(is_swallowed(3).await);
    let answer = ask(two, one);
    assert!(is_swallowed(4).await);
    cutter.filter().clear();
    assert!(echo(one, two, LONG).await.is_ok() && echo(two, one, LONG).await.is_ok());
    // By now an answer would be there, had it been passed on.
    assert!(!question.is_finished(), "the question");
    assert!(!answer.is_finished(), "the answer");
    question.abort();
    answer.abort();
    for lane in [Lane::Beat, Lane::Data] {
        one.sends(two, lane, "healed");
        assert_eq!(two.hears_message().await, "healed");
    }
    assert!(one.peers.status()[&two.id].is_connected(), "a cut resets nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_cut_by_its_sender_carries_one_way() {
    let (mut one, mut two) = pair(config(1, 1), config(2, 1)).await;
    let cut = Link { cut_out: true, ..Link::default() };
    carries_one_way(&mut one, &mut two, cut, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_cut_by_its_receiver_carries_one_way() {
    let (mut one, mut two) = pair(config(1, 1), config(2, 1)).await;
    let cut = Link { cut_in: true, ..Link::default() };
    carries_one_way(&mut one, &mut two, cut, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delayed_link_is_late_in_order_and_only_one_way() {
    let (one, mut two) = pair(config(1, 1), config(2, 1)).await;
    let delay = Duration::from_millis(60);
    one.peers.filter().set(two.id, Link { delay_ms: 60, ..Link::default() });
    let sent = Instant::now();
    for number in 0_u16..1_000 {
        one.sends(&two, Lane::Beat, number.to_be_bytes().to_vec());
    }
    for number in 0_u16..1_000 {
        assert_eq!(two.hears_message().await, number.to_be_bytes().as_slice());
        assert!(sent.elapsed() >= delay);
    }
    // Late by the delay, not by a thousand of them.
    assert!(sent.elapsed() < 500 * delay, "{:?}", sent.elapsed());
    let asked = Instant::now();
    assert!(echo(&one, &two, LONG).await.is_ok());
    assert!(asked.elapsed() >= delay);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lossy_link_loses_whole_messages_and_keeps_the_order_of_the_rest() {
    let (one, mut two) = pair(config(1, 1), config(2, 1)).await;
    one.peers.filter().set(two.id, Link { loss: 0.5, ..Link::default() });
    for number in 0_u16..1_000 {
        one.sends(&two, Lane::Data, number.to_be_bytes().to_vec());
    }
    one.peers.filter().clear();
    one.sends(&two, Lane::Data, "end");
    let mut heard = Vec::new();
    loop {
        let message = two.hears_message().await;
        if message == "end" {
            break;
        }
        heard.push(u16::from_be_bytes([message[0], message[1]]));
    }
    assert!((350..650).contains(&heard.len()), "{} of 1,000", heard.len());
    assert!(heard.is_sorted());
    assert_eq!(*one.peers.filter().swallowed().borrow(), 1_000 - heard.len() as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_that_a_lossy_link_loses_is_sent_again() {
    let (one, two) = pair(config(1, 1), config(2, 1)).await;
    one.peers.filter().set(two.id, Link { loss: 1.0, ..Link::default() });
    let asked = Instant::now();
    assert!(echo(&one, &two, LONG).await.is_ok());
    assert!(asked.elapsed() >= RESENT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_link_lets_no_break_through_until_it_is_healed() {
    let (mut one, two) = pair(config(1, 1), config(2, 1)).await;
    one.peers.filter().set(two.id, Link { cut_in: true, ..Link::default() });
    soon(two.peers.close()).await;
    soon(one.peers.wait_for(two.id, |status| !status.beat)).await;
    assert!(one.events.try_recv().is_err(), "a network that is cut carries no reset");
    one.peers.filter().set(two.id, Link::default());
    assert_eq!(one.hears().await, Event::Broken(two.id));
}
