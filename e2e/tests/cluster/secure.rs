//! Nodes with certificates: who has none of the cluster's authority is refused, and the others go on.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use sanso_broker::available;
use sanso_e2e::{Node, package};

use crate::world::{World, day, expected, send, totals};

/// Makes an authority and certificates, as operators do.
fn certificates(folder: &Path, nodes: &[&str]) -> anyhow::Result<()> {
    let script = package().join("../deploy/cluster/certificates.sh");
    let made = Command::new(script).arg(folder).arg("test").args(nodes).output()?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Ok(())
}

/// The part of a node's file that says whose certificates it has.
fn with(folder: &Path, node: u16) -> String {
    let file = |name: String| folder.join(name);
    let (certificate, key) = (file(format!("node-{node}.pem")), file(format!("node-{node}.key")));
    format!("[cluster.tls]\nca = {:?}\ncertificate = {certificate:?}\nkey = {key:?}\n", file("ca.pem".into()))
}

/// Waits until a node's log has a line with all of these.
fn says(node: &Node, words: &[&str]) -> anyhow::Result<()> {
    let patience = Instant::now() + Duration::from_secs(30);
    while !node.log().iter().any(|line| words.iter().all(|word| line.contains(word))) {
        ensure!(Instant::now() < patience, "nothing says {words:?}:\n{}", node.log().join("\n"));
        std::thread::yield_now();
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_who_has_a_certificate_of_the_cluster_gets_in() -> anyhow::Result<()> {
    if !available("only_who_has_a_certificate_of_the_cluster_gets_in") {
        return Ok(());
    }
    let mut world = World::new(4)?;
    let (ours, others) = (world.path("ours"), world.path("others"));
    certificates(&ours, &["1", "2", "3", "4"])?;
    certificates(&others, &["4"])?;
    for node in 1..=4 {
        world.secure(node, &with(&ours, node))?;
    }
    (1..=3).try_for_each(|node| world.start(node))?;
    let outcome = strangers_come(&mut world, &ours, &others).await;
    outcome.map_err(|error| anyhow::anyhow!("{error:?}\n{}", world.logs()))
}

async fn strangers_come(world: &mut World, ours: &Path, others: &Path) -> anyhow::Result<()> {
    for node in 1..=3 {
        world.settled(node).await?;
    }
    let mut session = send(world.client(1), day(1)).await?;
    goes_on(world, &[1, 2, 3], 1, &session).await?;

    // A certificate of another authority; none; and one of the cluster's that names another node.
    let of_three = with(ours, 3);
    let strangers: [(String, &str); 2] =
        [(with(others, 4), "certificate"), ("insecure = true\n".to_owned(), "")];
    for (turn, (shows, reason)) in (2..).zip(strangers) {
        world.secure(4, &shows)?;
        world.start(4)?;
        says(&world.nodes[&4], &["not connected", reason])?;
        says(&world.nodes[&1], &["a connection is refused"])?;
        let (ready, _) = world.client(4).get_text("/readyz").await?;
        ensure!(ready != 200, "a stranger is ready");
        let (status, refusal) =
            world.client(4).get_text("/v1/views/meter_daily?key=M01&deadline=2000").await?;
        ensure!(status != 200, "a stranger answers: {refusal}");
        session = send(world.client(2), day(turn)).await?;
        goes_on(world, &[1, 2, 3], turn, &session).await?;
        let cluster = world.client(1).get("/v1/cluster").await?;
        ensure!(cluster["nodes"][3]["standing"] == "absent", "{cluster}");
        world.nodes.remove(&4).context("it runs")?.kill()?;
    }
    world.secure(4, &of_three)?;
    let refused = world.start(4).expect_err("it would speak for another node").to_string();
    ensure!(refused.contains("it is not for node-4.test.sanso"), "{refused}");

    world.secure(4, &with(ours, 4))?;
    world.start(4)?;
    world.settled(4).await?;
    world.holds(1, 4, |replicas| replicas > 0).await?;
    goes_on(world, &[1, 2, 3, 4], 3, &session).await
}

/// Every one of these nodes answers everything.
async fn goes_on(world: &World, nodes: &[u16], days: u32, session: &str) -> anyhow::Result<()> {
    for node in nodes {
        let found = totals(world.client(*node), session).await?;
        ensure!(found == expected(days), "node {node}: {found:?}");
    }
    Ok(())
}
