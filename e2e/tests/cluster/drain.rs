//! A node is emptied for maintenance, leaves the voters, and is used again.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use sanso_broker::available;
use sanso_e2e::Client;
use serde_json::json;

use crate::world::{World, day, expected, send, totals};

/// Runs `sanso cluster voters`; returns whether it was done, and what it said.
fn voters(at: &Client, arguments: &[&str]) -> anyhow::Result<(bool, String)> {
    let mut command = Command::new(sanso_e2e::binary());
    let ran = command.args(["cluster", "--to", at.base(), "voters"]).args(arguments).output()?;
    let said = [ran.stdout, ran.stderr].concat();
    Ok((ran.status.success(), String::from_utf8_lossy(&said).into_owned()))
}

/// Waits until a leader and all nodes say who votes, and what they say is as wanted.
async fn agreed(at: &Client, wanted: impl Fn(&str) -> bool) -> anyhow::Result<()> {
    let patience = Instant::now() + Duration::from_secs(60);
    loop {
        let (done, said) = voters(at, &[])?;
        let is_whole = said.contains(", leads") && !said.contains("does not answer");
        if done && is_whole && wanted(&said) {
            return Ok(());
        }
        ensure!(Instant::now() < patience, "{said}");
        tokio::task::yield_now().await;
    }
}

/// Says whether the line of a node begins like this.
fn tells(said: &str, node: usize, line: &str) -> bool {
    said.lines().nth(node).is_some_and(|told| told.starts_with(line))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_node_holds_nothing_votes_no_more_and_is_used_again() -> anyhow::Result<()> {
    if !available("a_drained_node_holds_nothing_votes_no_more_and_is_used_again") {
        return Ok(());
    }
    let mut world = World::new(4)?;
    (1..=4).try_for_each(|node| world.start(node))?;
    for node in 1..=4 {
        world.settled(node).await?;
    }
    let session = send(world.client(1), day(1)).await?;
    // The node that came last holds its share once it has been moved there.
    world.holds(1, 2, |replicas| replicas > 0).await?;
    world.client(3).post("/v1/cluster/nodes/2/drain", &json!({})).await?;
    world.holds(1, 2, |replicas| replicas == 0).await?;
    agreed(world.client(4), |_| true).await?;
    let (done, said) = voters(world.client(4), &["1,3"])?;
    ensure!(!done && said.contains("2 instead of 3 voters stand no loss of a node"), "{said}");
    agreed(world.client(4), |_| true).await?;
    let (done, said) = voters(world.client(4), &["1,3,4"])?;
    ensure!(done, "{said}");
    agreed(world.client(4), |said| tells(said, 4, "4     votes")).await?;
    world.nodes.remove(&2).context("it runs")?.kill()?;
    for node in [1, 3, 4] {
        assert_eq!(totals(world.client(node), &session).await?, expected(1), "node {node} without 2");
    }
    world.start(2)?;
    world.client(2).post("/v1/cluster/nodes/2/fill", &json!({})).await?;
    world.holds(1, 2, |replicas| replicas > 0).await?;
    assert_eq!(totals(world.client(2), &session).await?, expected(1), "node 2 is back");
    // Its own file says that it votes.
    agreed(world.client(2), |said| tells(said, 2, "2     waits")).await
}
