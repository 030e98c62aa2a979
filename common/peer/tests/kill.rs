//! Kills a node with SIGKILL, again and again, and sees that its peer is told by the broken connection, once.
//!
//! The program is both: started with a peer's address it is the node that is killed, else the test.
#![allow(clippy::print_stdout, reason = "the node tells its port by its output, the test its result")]

#[path = "wire/node.rs"]
#[allow(dead_code, reason = "shared with the other tests")]
mod node;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sanso_core::cluster::{Incarnation, NodeId};
use sanso_peer::{Limits, PeerConfig, PeerStatus};

use node::{Event, Node, config, soon};

const VICTIM: &str = "--victim";
const ROUNDS: u64 = 20;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, flag, incarnation, listen, peer] = &arguments[..]
        && flag == VICTIM
    {
        let listen: SocketAddr = listen.parse().expect("an address");
        let incarnation = incarnation.parse().expect("a number");
        let victim = Node::start(PeerConfig { listen, ..config(2, incarnation) });
        victim.peers.set_address(NodeId(1), peer.as_str());
        println!("{}", victim.peers.local_address());
        return std::future::pending().await;
    }
    let name = "a_killed_node_is_told_of_by_its_connection_and_once";
    let mut told = a_killed_node_is_told_of_by_its_connection_and_once().await;
    told.sort();
    let (median, worst) = (told[told.len() / 2], told[told.len() - 1]);
    println!("test {name} ... ok ({ROUNDS} kills, told within {median:?} by half, {worst:?} by all)");
}

/// Starts the node in one of its lives; returns where it listens.
fn start(incarnation: u64, listen: &str, peer: SocketAddr) -> (Child, SocketAddr) {
    let program = std::env::current_exe().expect("this program");
    let mut child = Command::new(program)
        .args([VICTIM, &incarnation.to_string(), listen, &peer.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("start the node");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut line).expect("read its port");
    let at = line.trim().parse().expect("an address");
    (child, at)
}

async fn a_killed_node_is_told_of_by_its_connection_and_once() -> Vec<Duration> {
    // The keep-alive, which would notice it too, does not ask as long as this takes.
    let limits = Limits { keep_alive_ms: 600_000, ..config(1, 1).limits };
    let mut one = Node::start(PeerConfig { limits, ..config(1, 1) });
    let mut listen = "127.0.0.1:0".to_owned();
    let mut told = Vec::new();
    for incarnation in 1..=ROUNDS {
        let (mut child, at) = start(incarnation, &listen, one.peers.local_address());
        listen = at.to_string();
        one.peers.set_address(NodeId(2), listen.clone());
        let alive = |status: &PeerStatus| {
            status.is_connected() && status.incarnation == Some(Incarnation(incarnation))
        };
        assert!(soon(one.peers.wait_for(NodeId(2), alive)).await);
        assert!(one.events.try_recv().is_err(), "told of twice");
        let killed = Instant::now();
        child.kill().expect("kill the node");
        assert_eq!(one.hears().await, Event::Broken(NodeId(2)));
        told.push(killed.elapsed());
        child.wait().expect("it is dead");
    }
    told
}
