//! The code of the wire's messages is what the .proto says.
//!
//! It is kept in the repository: a build that generated it would compile the generator first, and
//! with it RocksDB anew, whose build shares dependencies with the generator.

use std::path::Path;

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
