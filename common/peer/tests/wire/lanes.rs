//! Messages: their order, their size, and what one lane has to do with the other.

use bytes::{BufMut, Bytes, BytesMut};
use sanso_core::cluster::NodeId;
use sanso_peer::{Dropped, Lane, Limits, PeerConfig};

use crate::node::{Event, Node, config, life, pair, soon};
use crate::raw;

const LARGE_BYTES: usize = 64 << 20;

fn numbered(number: u32) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

/// Makes a message in which no two stretches are alike.
fn large() -> Bytes {
    let mut bytes = BytesMut::with_capacity(LARGE_BYTES);
    for number in 0..(LARGE_BYTES / 8) as u64 {
        bytes.put_u64(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    }
    bytes.freeze()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_messages_and_a_large_one_between_keep_their_order() {
    let (one, mut two) = pair(config(1, 5), config(2, 1)).await;
    let large = large();
    for number in 0..10_000 {
        if number == 5_000 {
            one.sends(&two, Lane::Data, large.clone());
        }
        one.sends(&two, Lane::Data, numbered(number));
    }
    for number in 0..10_000 {
        if number == 5_000 {
            assert!(two.hears_message().await == large, "the large message is another one");
        }
        match two.hears().await {
            Event::Message(from, Lane::Data, bytes) => {
                assert_eq!(from.instance, life(1, 5));
                assert_eq!(bytes, numbered(number));
            }
            other => panic!("{other:?} instead of message {number}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_beat_passes_while_a_large_message_is_under_way() {
    let (one, mut two) = pair(config(1, 1), config(2, 1)).await;
    let large = large();
    one.sends(&two, Lane::Data, "stand still");
    assert_eq!(two.hears_message().await, "stand still");
    // More than a connection takes in: most of it stays with the sender.
    one.sends(&two, Lane::Data, large);
    one.sends(&two, Lane::Beat, "beat");
    assert_eq!(two.hears_message().await, "beat");
    two.go_on.send(()).unwrap();
    assert_eq!(two.hears_message().await.len(), LARGE_BYTES);
}

#[test]
fn a_blocked_runtime_does_not_stop_beats() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (ours, theirs) = (runtime(), runtime());
    let mut one = ours.block_on(async { Node::start(config(1, 1)) });
    let two = theirs.block_on(async { Node::start(config(2, 1)) });
    // From here on nothing runs on the other node's own runtime: not even connections are accepted there.
    ours.block_on(async {
        one.knows(&two);
        two.knows(&one);
        soon(one.peers.wait_for(two.id, |status| status.beat)).await;
        soon(two.peers.wait_for(one.id, |status| status.beat)).await;
        one.sends(&two, Lane::Beat, "to");
        two.sends(&one, Lane::Beat, "fro");
        assert_eq!(one.hears_message().await, "fro");
        let mut two = two;
        assert_eq!(two.hears_message().await, "to");
        assert!(!one.peers.status()[&two.id].data, "the runtime was to be blocked");
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_full_queue_does_not_take_is_dropped_and_counted() {
    let limits = Limits { queue_messages_max: 4, ..config(1, 1).limits };
    let (one, mut two) = pair(PeerConfig { limits, ..config(1, 1) }, config(2, 1)).await;
    one.sends(&two, Lane::Data, "stand still");
    assert_eq!(two.hears_message().await, "stand still");
    let message = |number: u8| Bytes::from(vec![number; 1 << 20]);
    let taken: Vec<u8> = (0..64)
        .filter(|number| match one.peers.send(two.id, Lane::Data, message(*number)) {
            Ok(()) => true,
            Err(dropped) => {
                assert_eq!(dropped, Dropped::Full);
                false
            }
        })
        .collect();
    // The queue, what the connection takes in, and what the system's buffers do.
    assert!((4..64).contains(&taken.len()), "{} taken", taken.len());
    assert_eq!(one.peers.status()[&two.id].messages_dropped, 64 - taken.len() as u64);
    two.go_on.send(()).unwrap();
    for number in taken {
        assert_eq!(two.hears_message().await, message(number));
    }
}

#[tokio::test]
async fn a_message_that_can_not_go_is_dropped_at_once() {
    let limits = Limits { beat_bytes_max: 100, ..config(1, 1).limits };
    let one = Node::start(PeerConfig { limits, ..config(1, 1) });
    let two = Node::start(config(2, 1));
    let send = |lane, bytes| one.peers.send(two.id, lane, Bytes::from(vec![0; bytes]));
    assert_eq!(send(Lane::Data, 1), Err(Dropped::Unknown));
    two.peers.close().await;
    one.knows(&two);
    assert_eq!(send(Lane::Data, 1), Err(Dropped::NotConnected));
    assert_eq!(send(Lane::Beat, 101), Err(Dropped::TooLong));
    assert_eq!(one.peers.status()[&NodeId(2)].messages_dropped, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_messages_wait_with_their_sender_when_there_is_no_room_and_short_ones_pass() {
    const LONG_BYTES: usize = 1 << 20;
    let limits =
        Limits { message_bytes_max: LONG_BYTES, assembling_bytes_max: LONG_BYTES, ..config(1, 1).limits };
    let (two, mut one) = pair(config(2, 1), PeerConfig { limits, ..config(1, 1) }).await;
    // Somebody takes all the room and does not go on.
    let mut client = raw::connect(one.peers.local_address(), b'd').await;
    let (frames, sent) = tokio::sync::mpsc::channel(4);
    frames.send(raw::greeting(raw::hello())).await.unwrap();
    frames.send(raw::chunk(LONG_BYTES as u64, b"begun")).await.unwrap();
    let sent = tokio_stream::wrappers::ReceiverStream::new(sent);
    let replies = soon(client.exchange(sent)).await.unwrap();
    let full = async {
        while one.peers.usage().assembling_bytes < LONG_BYTES {
            tokio::task::yield_now().await;
        }
    };
    soon(full).await;
    two.sends(&one, Lane::Data, "short");
    two.sends(&one, Lane::Data, vec![2; LONG_BYTES]);
    let three = Node::start(config(3, 1));
    three.knows(&one);
    three.reaches(&one).await;
    assert_eq!(one.hears_message().await, "short");
    three.sends(&one, Lane::Data, "short, too");
    assert_eq!(one.hears_message().await, "short, too");
    assert_eq!(one.peers.usage().assembling_bytes, LONG_BYTES);
    drop((frames, replies, client));
    assert_eq!(one.hears_message().await.len(), LONG_BYTES);
}
