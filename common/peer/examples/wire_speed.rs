//! How fast the wire is on loopback: latency of small messages and calls, and
//! throughput of large ones, between two nodes of one process.
//!
//! `cargo run --release -p sanso-peer --example wire_speed [-- CA CERTIFICATE KEY]`
//! (with files, over TLS; the certificate has to be for all nodes of cluster "town").
#![allow(clippy::print_stdout, reason = "the figures are its output")]

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use sanso_core::cluster::{Incarnation, Instance, NodeId};
use sanso_peer::{Handler, Lane, PeerConfig, Peers, Refusal, Speaker, Tls};
use tokio::sync::mpsc;

const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);
const SMALL_BYTES: usize = 100;
const ROUNDS: usize = 20_000;
const LARGE_MESSAGES: usize = 32;

/// Hands messages on with the time at which they came.
struct Listener(mpsc::UnboundedSender<(Instant, Bytes)>);

#[async_trait]
impl Handler for Listener {
    fn message(&self, _: Speaker, _: Lane, bytes: Bytes) {
        let _ = self.0.send((Instant::now(), bytes));
    }

    fn broken(&self, _: NodeId) {}

    async fn call(&self, _: Speaker, _: &str, body: Bytes) -> Result<Bytes, Refusal> {
        Ok(body)
    }
}

type Heard = mpsc::UnboundedReceiver<(Instant, Bytes)>;

fn start(node: NodeId, tls: Option<Tls>) -> Result<(Peers, Heard), Box<dyn Error>> {
    let (heard, hears) = mpsc::unbounded_channel();
    let me = Instance { node, incarnation: Incarnation(1) };
    let config = PeerConfig { tls, ..PeerConfig::new("town", me, ([127, 0, 0, 1], 0).into()) };
    Ok((Peers::start(config, Arc::new(Listener(heard)))?, hears))
}

fn tell(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |part: usize| times[times.len() * part / 1_000].as_secs_f64() * 1e6;
    println!("{what:32} p50 {:6.0} us   p99 {:6.0} us   p99.9 {:6.0} us", at(500), at(990), at(999));
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let files: Vec<std::path::PathBuf> = std::env::args_os().skip(1).map(Into::into).collect();
    let tls = match &files[..] {
        [ca, certificate, key] => {
            Some(Tls { ca: ca.clone(), certificate: certificate.clone(), key: key.clone() })
        }
        _ => None,
    };
    let ((one, mut to_one), (two, mut to_two)) = (start(ONE, tls.clone())?, start(TWO, tls)?);
    one.set_address(TWO, two.local_address().to_string());
    two.set_address(ONE, one.local_address().to_string());
    one.wait_for(TWO, |status| status.is_connected()).await;
    two.wait_for(ONE, |status| status.is_connected()).await;
    let small = Bytes::from(vec![1; SMALL_BYTES]);
    for lane in [Lane::Beat, Lane::Data] {
        let (mut there, mut both) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let sent = Instant::now();
            one.send(TWO, lane, small.clone())?;
            let (came, bytes) = to_two.recv().await.ok_or("the node is gone")?;
            two.send(ONE, lane, bytes)?;
            let (back, _) = to_one.recv().await.ok_or("the node is gone")?;
            there.push(came - sent);
            both.push(back - sent);
        }
        tell(&format!("{lane:?}, one way"), there);
        tell(&format!("{lane:?}, there and back"), both);
    }
    let mut calls = Vec::new();
    for _ in 0..ROUNDS {
        let asked = Instant::now();
        one.call(TWO, "echo", small.clone(), Duration::from_secs(10)).await?;
        calls.push(asked.elapsed());
    }
    tell("call", calls);
    for mib in [1, 64, 1_024] {
        let message = Bytes::from(vec![2; mib << 20]);
        let messages = (LARGE_MESSAGES * 64 / mib).clamp(2, 256);
        let (begun, mut latencies) = (Instant::now(), Vec::new());
        for _ in 0..messages {
            let sent = Instant::now();
            one.send(TWO, Lane::Data, message.clone())?;
            let (came, _) = to_two.recv().await.ok_or("the node is gone")?;
            latencies.push(came - sent);
        }
        latencies.sort();
        let rate = (messages * mib) as f64 / begun.elapsed().as_secs_f64();
        println!("{mib:5} MiB a message {:17} {rate:6.0} MiB/s   median {:?}", "", latencies[messages / 2]);
    }
    one.close().await;
    two.close().await;
    Ok(())
}
