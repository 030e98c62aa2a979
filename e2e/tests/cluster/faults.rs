//! Nodes are killed, frozen and cut off in turn, while others read and write.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use sanso_broker::available;
use sanso_e2e::{Client, Node};
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use crate::world::{METERS, World, day, expected, send, totals};

/// How long a reader may wait for a good answer. How long it does wait is for `make drill` to judge: here
/// it may be the reader itself that has no processor.
const PATIENCE: Duration = Duration::from_secs(60);

/// Reads one meter again and again, in turn at the given nodes, and says of each good answer when it was
/// asked for; returns the longest time between two of them once nobody listens.
async fn keep_reading(clients: Vec<Client>, good: watch::Sender<Instant>) -> Duration {
    let (mut worst, mut last) = (Duration::ZERO, Instant::now());
    let mut turn = 0;
    while !good.is_closed() {
        let client = &clients[turn % clients.len()];
        turn += 1;
        let path = format!("meter_daily?key=M{:02}", turn % METERS);
        let asked = Instant::now();
        let answered = tokio::time::timeout(Duration::from_secs(1), client.view(&path)).await;
        if answered.is_ok_and(|answer| answer.is_ok_and(|answer| !answer.rows().is_empty())) {
            worst = worst.max(last.elapsed());
            last = Instant::now();
            good.send_replace(asked);
        }
    }
    worst.max(last.elapsed())
}

/// What befalls a node.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    Killed,
    Paused,
    CutOff,
}

impl Fault {
    pub(crate) async fn inflict(self, world: &mut World, on: u16) -> anyhow::Result<()> {
        match self {
            Fault::Killed => world.nodes.remove(&on).context("it runs")?.kill(),
            Fault::Paused => signal(&world.nodes[&on], "-STOP"),
            Fault::CutOff => {
                let cut = |node: u16| (node.to_string(), json!({ "cut_in": true, "cut_out": true }));
                for node in 1..=world.all {
                    let from: Vec<u16> = (1..=world.all).filter(|other| *other != node).collect();
                    let broken = from.into_iter().filter(|other| node == on || *other == on).map(cut);
                    break_links(world.client(node), broken.collect()).await?;
                }
                Ok(())
            }
        }
    }

    pub(crate) async fn mend(self, world: &mut World, on: u16) -> anyhow::Result<()> {
        match self {
            Fault::Killed => world.start(on),
            Fault::Paused => signal(&world.nodes[&on], "-CONT"),
            Fault::CutOff => {
                for node in 1..=world.all {
                    break_links(world.client(node), Map::new()).await?;
                }
                Ok(())
            }
        }
    }
}

fn signal(node: &Node, signal: &str) -> anyhow::Result<()> {
    let sent = Command::new("kill").args([signal, &node.pid().to_string()]).status()?;
    ensure!(sent.success(), "kill {signal}");
    Ok(())
}

async fn break_links(client: &Client, links: Map<String, Value>) -> anyhow::Result<()> {
    client.post("/v1/drill/links", &Value::Object(links)).await.map(|_| ())
}

/// Each fault is inflicted so often at least.
pub(crate) const ROUNDS: u16 = 5;

/// Inflicts a fault on each node in turn, while others read and write.
async fn trial(fault: Fault, nodes: u16) -> anyhow::Result<()> {
    if !available(&format!("{fault:?} nodes of a cluster")) {
        return Ok(());
    }
    let mut world = World::alert(nodes)?;
    (1..=nodes).try_for_each(|node| world.start(node))?;
    let outcome = each_in_turn(&mut world, fault).await;
    outcome.map_err(|error| anyhow::anyhow!("{error:?}\n{}", world.logs()))
}

#[allow(clippy::print_stdout, reason = "how long a reader waited is a figure to look at")]
async fn each_in_turn(world: &mut World, fault: Fault) -> anyhow::Result<()> {
    for node in 1..=world.all {
        world.settled(node).await?;
    }
    send(world.client(1), day(1)).await?;
    let mut days = 1;
    for round in 0..world.all.max(ROUNDS) {
        let lost = round % world.all + 1;
        let others: Vec<u16> = (1..=world.all).filter(|node| *node != lost).collect();
        let (good, mut seen) = watch::channel(Instant::now());
        let clients = others.iter().map(|node| world.client(*node).clone()).collect();
        let reading = tokio::spawn(keep_reading(clients, good));
        fault.inflict(world, lost).await?;
        let inflicted = Instant::now();
        days += 1;
        let session = send(world.client(others[0]), day(days)).await?;
        for node in &others {
            let found = totals(world.client(*node), &session).await?;
            ensure!(found == expected(days), "node {node}, {lost} is {fault:?}: {found:?}");
        }
        let seen_since = tokio::time::timeout(PATIENCE, seen.wait_for(|asked| *asked > inflicted)).await;
        let is_answered = seen_since.is_ok_and(|seen| seen.is_ok());
        drop(seen);
        let stall = reading.await?;
        ensure!(is_answered, "while {lost} was {fault:?} a reader waited {stall:?}");
        println!("while {lost} was {fault:?} a reader waited {stall:?} at most");
        fault.mend(world, lost).await?;
        world.settled(lost).await?;
        let found = totals(world.client(lost), &session).await?;
        ensure!(found == expected(days), "node {lost} is back: {found:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whichever_node_is_killed_the_others_answer_and_it_comes_back() -> anyhow::Result<()> {
    trial(Fault::Killed, 3).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whichever_node_is_paused_the_others_answer_and_it_catches_up() -> anyhow::Result<()> {
    trial(Fault::Paused, 3).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whichever_node_is_cut_off_the_others_answer_and_it_catches_up() -> anyhow::Result<()> {
    trial(Fault::CutOff, 3).await
}

// A fourth and a fifth node vote on nothing and hold their share.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_nodes_stand_the_loss_of_any() -> anyhow::Result<()> {
    trial(Fault::Killed, 5).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_nodes_stand_the_pause_of_any() -> anyhow::Result<()> {
    trial(Fault::Paused, 5).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_nodes_stand_that_any_is_cut_off() -> anyhow::Result<()> {
    trial(Fault::CutOff, 5).await
}
