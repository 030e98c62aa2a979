//! The code of the wire's messages is what the .proto says.
//!
//! It is kept in the repository: a build that generated it would compile the generator first, and
//! with it RocksDB anew, whose build shares dependencies with the generator.

use std::path::Path;

use prost::Message;
use proto::frame::Content;
use proto::reply::Outcome;
use proto::{Chunk, Frame, Hello, Question, Reply, Welcome};

#[path = "../../golden.rs"]
mod golden;
#[allow(
    dead_code,
    unreachable_pub,
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    reason = "generated"
)]
#[rustfmt::skip]
#[path = "../src/proto.rs"]
mod proto;

fn golden<T: Message + Default + PartialEq + std::fmt::Debug>(name: &str, message: T) -> golden::Golden {
    let bytes = message.encode_to_vec();
    let read = |bytes: &[u8]| T::decode(bytes).expect("it is of this version");
    assert_eq!(read(&bytes), message, "{name} is read as it was written");
    let again = move |bytes: &[u8]| read(bytes).encode_to_vec();
    golden::Golden { name: format!("{name}.pb"), bytes, again: Box::new(again) }
}

#[test]
fn what_version_1_said_is_read_and_said_the_same() {
    let hello = Hello {
        cluster: "town".into(),
        from: 2,
        incarnation: 1_700_000_000_000_000,
        to: 1,
        oldest_version: 1,
        newest_version: 1,
    };
    let chunk = Chunk { message_bytes: 300, part: vec![0, 127, 128, 255].into() };
    let frame = |content| Frame { content: Some(content) };
    let reply = |outcome| Reply { outcome: Some(outcome) };
    let all = [
        golden("hello", hello.clone()),
        golden("welcome", Welcome { version: 1, incarnation: 1_700_000_000_000_000 }),
        golden("frame.hello", frame(Content::Hello(hello))),
        golden("frame.chunk", frame(Content::Chunk(chunk))),
        golden("question", Question { kind: "core.read".into(), body: vec![1, 255].into() }),
        golden("reply.body", reply(Outcome::Body(vec![1, 255].into()))),
        golden("reply.failed", reply(Outcome::Failed("the disk is full".into()))),
        golden("reply.unknown-kind", reply(Outcome::UnknownKind("core.riddle".into()))),
        golden("reply.refused", reply(Outcome::Refused("node 2#1 is over".into()))),
    ];
    golden::check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/1"), &all);
}

#[test]
fn the_generated_code_is_that_of_the_proto() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().expect("make a folder");
    let proto = package.join("proto");
    let files = protox::compile([proto.join("peer.proto")], [&proto]).expect("the .proto is right");
    let config = tonic_prost_build::configure().build_transport(false).bytes(".").out_dir(folder.path());
    config.compile_fds(files).expect("code is made of it");
    let made = std::fs::read_to_string(folder.path().join("sanso.peer.v1.rs")).expect("it was made");
    let kept = package.join("src/proto.rs");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&kept, &made).expect("it can be written");
    }
    let held = std::fs::read_to_string(&kept).expect("it is kept");
    assert!(held == made, "src/proto.rs is of another proto/peer.proto: run this test with BLESS=1");
}
