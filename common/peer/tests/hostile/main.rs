//! Bytes that no node sends. Alone in its process, whose memory it watches.
#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

#[path = "../wire/node.rs"]
#[allow(dead_code, reason = "shared with the other tests")]
mod node;
#[path = "../wire/raw.rs"]
#[allow(dead_code, reason = "shared with the other tests")]
mod raw;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sanso_peer::{Lane, Limits, PeerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use node::{Node, config, pair, soon};
use raw::proto;

/// What HTTP/2 begins with, and settings that say nothing.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Sends bytes, then nothing; returns once the node has cut the connection.
async fn is_cut_off(at: SocketAddr, bytes: &[u8]) {
    let mut tcp = TcpStream::connect(at).await.unwrap();
    // The node may cut it off before all is written.
    let _ = tcp.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = soon(tcp.read_to_end(&mut answer)).await;
    assert!(answer.len() < 1 << 10, "{} bytes of answer", answer.len());
}

fn frame(length: u32, kind: u8, flags: u8, stream: u32) -> Vec<u8> {
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame
}

/// Makes the head of a call on stream 1, each field as a literal.
fn head(path: &str) -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "node.sanso"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend(text.bytes());
        }
    }
    let mut head = frame(u32::try_from(block.len()).unwrap(), 1, 4, 1);
    head.extend(block);
    head
}

/// Makes a gRPC message on stream 1 that announces `announced` bytes and brings few.
fn announcing(announced: u32) -> Vec<u8> {
    let mut message = frame(5 + 3, 0, 0, 1);
    message.push(0);
    message.extend(announced.to_be_bytes());
    message.extend(b"abc");
    message
}

fn attacks() -> Vec<Vec<u8>> {
    let mut dice = StdRng::seed_from_u64(7);
    let mut random = |bytes: usize| -> Vec<u8> { (0..bytes).map(|_| dice.random()).collect() };
    let mut attacks = vec![Vec::new(), b"sanso1:".to_vec(), b"sanso1:x".to_vec(), HTTP2.to_vec()];
    attacks.push(b"GET / HTTP/1.1\r\nHost: node\r\n\r\n".to_vec());
    for bytes in [1, 8, 100, 100_000] {
        attacks.push(random(bytes));
    }
    for line in [b"sanso1:b", b"sanso1:d", b"sanso1:c"] {
        let mut attack = |parts: &[&[u8]]| attacks.push([line.as_slice(), &parts.concat()].concat());
        attack(&[]);
        attack(&[&random(10_000)]);
        attack(&[&HTTP2[..20]]);
        attack(&[HTTP2]);
        attack(&[HTTP2, &random(10_000)]);
        // A frame of 16 MiB, which never comes; heads without end.
        attack(&[HTTP2, &frame(0x00ff_ffff, 0, 0, 1)]);
        attack(&[HTTP2, &frame(16_384, 1, 0, 1), &random(16_384)]);
        for path in ["/sanso.peer.v1.Peer/Exchange", "/sanso.peer.v1.Peer/Call", "/nowhere"] {
            let head = head(path);
            attack(&[HTTP2, &head[..head.len() / 2]]);
            attack(&[HTTP2, &head]);
            for announced in [4, 60 << 20, u32::MAX] {
                attack(&[HTTP2, &head, &announcing(announced)]);
            }
        }
    }
    attacks
}

/// Returns the largest memory that this process has had, in bytes.
fn memory_bytes_max() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

async fn still_talk(one: &Node, two: &mut Node) {
    let asked = one.peers.call(two.id, "echo", Bytes::from_static(b"hello"), Duration::from_secs(30));
    assert_eq!(soon(asked).await.unwrap(), "hello");
    for lane in [Lane::Beat, Lane::Data] {
        one.sends(two, lane, "hello");
        assert_eq!(two.hears_message().await, "hello");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_bytes_are_cut_off_and_take_neither_memory_nor_places() {
    // Few places and little time, so that a connection that is kept would be missed.
    let limits = Limits { connect_ms_max: 1_000, connections_max: 16, ..config(2, 1).limits };
    let (one, mut two) = pair(config(1, 1), PeerConfig { limits, ..config(2, 1) }).await;
    still_talk(&one, &mut two).await;
    let before = memory_bytes_max();
    let at = two.peers.local_address();
    for attacks in attacks().chunks(8) {
        soon(futures::future::join_all(attacks.iter().map(|attack| is_cut_off(at, attack)))).await;
    }
    let grown = memory_bytes_max() - before;
    assert!(grown < 32 << 20, "{grown} bytes more");
    still_talk(&one, &mut two).await;
    let three = Node::start(config(3, 1));
    three.knows(&two);
    three.reaches(&two).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_that_announce_more_than_a_lane_carries_end_the_connection_alone() {
    let (one, two) = (Node::start(config(9, 1)), Node::start(config(1, 1)));
    let mut two = two;
    one.knows(&two);
    one.reaches(&two).await;
    let ended = async |hello: proto::Hello, chunks: Vec<proto::Frame>| {
        let mut client = raw::connect(two.peers.local_address(), b'd').await;
        let (frames, sent) = tokio::sync::mpsc::channel(8);
        frames.send(raw::greeting(hello)).await.unwrap();
        for chunk in chunks {
            frames.send(chunk).await.unwrap();
        }
        let sent = tokio_stream::wrappers::ReceiverStream::new(sent);
        let mut replies = soon(client.exchange(sent)).await.unwrap().into_inner();
        assert!(soon(replies.message()).await.unwrap().is_some());
        let status = soon(replies.message()).await.unwrap_err();
        drop(frames);
        status.message().to_owned()
    };
    let hello = || proto::Hello { from: 8, ..raw::hello() };
    let long = ended(hello(), vec![raw::chunk(u64::MAX, b"x")]).await;
    assert_eq!(long, format!("a message of {} bytes, for at most {}", u64::MAX, 1 << 30));
    let mixed = ended(hello(), vec![raw::chunk(10, b"abc"), raw::chunk(9, b"abc")]).await;
    assert_eq!(mixed, "a part that belongs to another message");
    let again = ended(hello(), vec![raw::greeting(hello())]).await;
    assert_eq!(again, "only chunks follow a hello, and only on a lane");
    still_talk(&one, &mut two).await;
}
