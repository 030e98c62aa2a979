//! Questions and answers.

use std::time::{Duration, Instant};

use bytes::Bytes;
use sanso_core::cluster::NodeId;
use sanso_peer::{CallError, Limits, PeerConfig};

use crate::node::{Event, Node, config, pair, soon};

const LONG: Duration = Duration::from_secs(30);

async fn ask(one: &Node, to: &Node, kind: &str, body: impl Into<Bytes>) -> Result<Bytes, CallError> {
    soon(one.peers.call(to.id, kind, body.into(), LONG)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_has_its_answer_or_the_reason_why_not() {
    let (one, two) = pair(config(1, 5), config(2, 1)).await;
    assert_eq!(ask(&one, &two, "echo", "hello").await.unwrap(), "hello");
    assert_eq!(ask(&one, &two, "who", "").await.unwrap(), "node 1#5");
    let unknown = ask(&one, &two, "sing", "").await.unwrap_err();
    assert_eq!(unknown, CallError::UnknownKind("sing".into()));
    assert!(unknown.is_unexecuted());
    let failed = ask(&one, &two, "fail", "").await.unwrap_err();
    assert_eq!(failed, CallError::Failed("the disk is full".into()));
    assert!(!failed.is_unexecuted());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_far_beyond_the_usual_limit_of_grpc_pass_up_to_ours() {
    let limits = Limits { call_bytes_max: 20 << 20, ..config(1, 1).limits };
    let (one, two) = pair(PeerConfig { limits, ..config(1, 1) }, PeerConfig { limits, ..config(2, 1) }).await;
    let body = Bytes::from(vec![7; 20 << 20]);
    assert!(ask(&one, &two, "echo", body.clone()).await.unwrap() == body);
    let long = ask(&one, &two, "echo", vec![7; (20 << 20) + 1]).await.unwrap_err();
    assert_eq!(long, CallError::TooLong { bytes: (20 << 20) + 1, bytes_max: 20 << 20 });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_ends_the_call_here_and_there() {
    let (one, mut two) = pair(config(1, 1), config(2, 1)).await;
    // Long enough for the question to arrive.
    let within = Duration::from_secs(5);
    let begun = Instant::now();
    let error = soon(one.peers.call(two.id, "wait", Bytes::new(), within)).await.unwrap_err();
    assert_eq!(error, CallError::Deadline(within));
    assert!(!error.is_unexecuted());
    assert!(begun.elapsed() >= within);
    assert_eq!((two.hears().await, two.hears().await), (Event::Asked, Event::GaveUp));
    assert_eq!(ask(&one, &two, "echo", "still there").await.unwrap(), "still there");
}

/// Of a call that was given up, the rest of the answer still comes. HTTP/2 takes that for a fault of the
/// other end, and after a thousand it used to close the connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_calls_that_are_given_up_leave_the_connection_as_it_is() {
    let (one, mut two) = pair(config(1, 1), config(2, 1)).await;
    let (asks, to) = (one.peers.clone(), two.id);
    let waits = tokio::spawn(async move { asks.call(to, "wait", Bytes::new(), LONG * 10).await });
    assert_eq!(two.hears().await, Event::Asked);
    let body = Bytes::from(vec![7; 16 << 10]);
    for _ in 0..40 {
        let calls = (0..200).map(|_| Box::pin(one.peers.call(to, "echo", body.clone(), LONG)));
        let (first, _, _given_up) = soon(futures::future::select_all(calls)).await;
        assert!(first.unwrap() == body);
    }
    assert_eq!(ask(&one, &two, "echo", "still there").await.unwrap(), "still there");
    assert!(!waits.is_finished());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_can_not_be_reached_fails_calls_at_once_and_for_certain() {
    let one = Node::start(config(1, 1));
    let nobody = soon(one.peers.call(NodeId(7), "echo", Bytes::new(), LONG)).await.unwrap_err();
    assert_eq!(nobody, CallError::Unreachable("the node has no address".into()));
    let two = Node::start(config(2, 1));
    two.peers.close().await;
    one.knows(&two);
    let begun = Instant::now();
    let refused = ask(&one, &two, "echo", "").await.unwrap_err();
    assert!(matches!(&refused, CallError::Unreachable(reason) if reason.contains("refused")), "{refused}");
    assert!(refused.is_unexecuted());
    assert!(begun.elapsed() < LONG / 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_breaks_ends_its_calls_at_once() {
    let (one, mut two) = pair(config(1, 1), config(2, 1)).await;
    let (asks, to) = (one.peers.clone(), two.id);
    let call = tokio::spawn(async move { asks.call(to, "wait", Bytes::new(), LONG).await });
    assert_eq!(two.hears().await, Event::Asked);
    soon(two.peers.close()).await;
    let error = soon(call).await.unwrap().unwrap_err();
    assert!(matches!(error, CallError::Interrupted(_)), "{error}");
    assert!(!error.is_unexecuted());
    assert_eq!(two.hears().await, Event::GaveUp);
}
