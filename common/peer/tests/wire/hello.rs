//! Who is let in, and who is not any more.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use sanso_core::cluster::NodeId;
use sanso_peer::{CallError, Lane, PeerConfig, PeerError, PeerStatus, Peers};
use tokio::net::TcpListener;

use crate::node::{Event, Node, Recorder, config, pair, soon};
use crate::raw::{self, proto};
use crate::relay::Relay;

/// Returns why a node is not let in by another.
async fn refusal(one: &Node, two: &Node) -> String {
    match soon(one.peers.call(two.id, "echo", Bytes::new(), Duration::from_secs(30))).await {
        Err(CallError::Unreachable(reason)) => reason,
        other => panic!("{other:?} instead of a refusal"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_neighbouring_versions_speak_the_newest_that_both_know() {
    let speaking = |versions, node| PeerConfig { versions, ..config(node, 1) };
    let (one, mut two) = pair(speaking(1..=2, 1), speaking(2..=3, 2)).await;
    one.sends(&two, Lane::Data, "hello");
    let Event::Message(from, ..) = two.hears().await else { panic!("no message") };
    assert_eq!(from.version, 2);
    assert_eq!(one.peers.status()[&two.id].version, Some(2));
    let three = Node::start(speaking(3..=4, 3));
    one.knows(&three);
    let reason = refusal(&one, &three).await;
    assert!(reason.contains("speaks versions 3 to 4 of the wire, the other 1 to 2"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_leads_to_another_node_is_told() {
    let (one, two) = (Node::start(config(1, 1)), Node::start(config(2, 1)));
    one.peers.set_address(NodeId(3), two.peers.local_address().to_string());
    let asked = one.peers.call(NodeId(3), "echo", Bytes::new(), Duration::from_secs(30));
    let error = soon(asked).await.unwrap_err().to_string();
    assert!(error.contains("this is node 2, not node 3: correct the address of node 3"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_later_life_fences_the_earlier() {
    let (five, mut two) = pair(config(1, 5), config(2, 1)).await;
    let four = Node::start(config(1, 4));
    four.knows(&two);
    let reason = refusal(&four, &two).await;
    assert!(reason.contains("node 1#4 is over: node 1#5 has connected"), "{reason}");
    let six = Node::start(config(1, 6));
    six.knows(&two);
    six.reaches(&two).await;
    // Whatever the earlier life had under way, it is not heard after the later one.
    let _ = five.peers.send(two.id, Lane::Data, Bytes::from_static(b"from the past"));
    let is_cut_off = |status: &PeerStatus| !status.beat && !status.data && !status.call;
    soon(five.peers.wait_for(two.id, is_cut_off)).await;
    six.sends(&two, Lane::Data, "from the present");
    assert_eq!(two.hears_message().await, "from the present");
    let reason = refusal(&five, &two).await;
    assert!(reason.contains("has connected"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_earlier_life_that_still_answers_is_not_connected_to() {
    let (one, six) = (Node::start(config(1, 1)), Node::start(config(2, 6)));
    six.knows(&one);
    six.reaches(&one).await;
    let five = Node::start(config(2, 5));
    one.knows(&five);
    let reason = refusal(&one, &five).await;
    assert_eq!(reason, "node 2#5 answers there, an earlier life than #6");
}

#[tokio::test]
async fn a_newer_connection_of_a_life_takes_over_from_the_older() {
    let one = Node::start(config(1, 1));
    let exchange = || async {
        let (frames, sent) = tokio::sync::mpsc::channel(4);
        frames.send(raw::greeting(raw::hello())).await.unwrap();
        let mut client = raw::connect(one.peers.local_address(), b'd').await;
        let sent = tokio_stream::wrappers::ReceiverStream::new(sent);
        let mut replies = soon(client.exchange(sent)).await.unwrap().into_inner();
        assert_eq!(soon(replies.message()).await.unwrap().map(|welcome| welcome.version), Some(1));
        (frames, replies)
    };
    let (_old_frames, mut old) = exchange().await;
    let (_new_frames, _new) = exchange().await;
    let ended = soon(old.message()).await.unwrap_err();
    assert_eq!(ended.message(), "node 9 has connected anew");
}

#[tokio::test]
async fn frames_of_a_later_version_are_passed_over_and_counted() {
    let mut one = Node::start(config(1, 1));
    let (frames, sent) = tokio::sync::mpsc::channel(8);
    for frame in [raw::greeting(raw::hello()), raw::chunk(2, b"a"), raw::unknown(), raw::chunk(2, b"b")] {
        frames.send(frame).await.unwrap();
    }
    let mut client = raw::connect(one.peers.local_address(), b'd').await;
    let sent = tokio_stream::wrappers::ReceiverStream::new(sent);
    let _replies = soon(client.exchange(sent)).await.unwrap().into_inner();
    assert_eq!(one.hears_message().await, "ab");
    assert_eq!(one.peers.usage().frames_unknown, 1);
}

#[tokio::test]
async fn nothing_is_answered_before_the_hello() {
    let one = Node::start(config(1, 1));
    let mut client = raw::connect(one.peers.local_address(), b'c').await;
    let question = proto::Question { kind: "echo".into(), body: Bytes::new() };
    let status = soon(client.call(question)).await.unwrap_err();
    assert_eq!(status.message(), "a question before the hello");
    let frames = tokio_stream::iter([raw::chunk(1, b"x")]);
    let status = soon(client.exchange(frames)).await.unwrap_err();
    assert_eq!(status.message(), "the first frame has to be a hello");
}

#[tokio::test]
async fn a_configuration_that_lets_strangers_in_does_not_start() {
    let start = |config| Peers::start(config, Arc::new(Recorder::deaf())).map(|peers| peers.local_address());
    let everywhere = PeerConfig { listen: ([0, 0, 0, 0], 0).into(), ..config(1, 1) };
    assert!(matches!(start(everywhere.clone()), Err(PeerError::Insecure(_))));
    assert!(start(PeerConfig { insecure: true, ..everywhere }).is_ok());
    let named = |cluster: &str| PeerConfig { cluster: cluster.into(), ..config(1, 1) };
    for name in ["", "Town", "town.", "-town", &"x".repeat(64)] {
        assert!(matches!(start(named(name)), Err(PeerError::ClusterName(_))), "{name:?}");
    }
    assert!(matches!(
        start(PeerConfig { versions: 0..=1, ..config(1, 1) }),
        Err(PeerError::Versions { oldest: 0, newest: 1 })
    ));
    let taken = start(config(1, 1)).unwrap();
    let holds = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let busy = PeerConfig { listen: holds.local_addr().unwrap(), ..config(1, 1) };
    assert_ne!(taken.port(), busy.listen.port());
    assert!(matches!(start(busy), Err(PeerError::Listen { .. })));
}

/// What is logged at WARN, by all tests of this binary.
fn warnings() -> &'static Mutex<Vec<u8>> {
    static WARNINGS: Mutex<Vec<u8>> = Mutex::new(Vec::new());
    static INSTALLED: OnceLock<()> = OnceLock::new();
    struct Sink;
    impl std::io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            WARNINGS.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    INSTALLED.get_or_init(|| {
        let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::WARN);
        subscriber.with_ansi(false).with_writer(|| Sink).init();
    });
    &WARNINGS
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_another_cluster_is_refused_and_both_sides_say_so_once() {
    let warnings = warnings();
    let village = PeerConfig { cluster: "village".into(), ..config(1, 1) };
    let (one, two) = (Node::start(village), Node::start(config(2, 1)));
    let mut relay = Relay::to(two.peers.local_address()).await;
    one.peers.set_address(two.id, relay.at.to_string());
    assert_eq!(refusal(&one, &two).await, r#"refused: this is cluster "town", not "village""#);
    soon(relay.connections.wait_for(|count| *count >= 12)).await.unwrap();
    let told = String::from_utf8(warnings.lock().clone()).unwrap();
    let count =
        |words: &str| told.lines().filter(|line| line.contains("village") && line.contains(words)).count();
    assert_eq!(count("a connection is refused"), 1, "{told}");
    assert_eq!(count("not connected"), 3, "once for each line:\n{told}");
}
