//! Very many corrections of one reading, very many usage points. `make torture` sends a million.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use sanso_e2e::{Client, Mass};

/// The state of one reading is its newest version, however many there were.
const MEMORY_BYTES_MAX: u64 = 400 << 20;

#[tokio::test]
async fn a_meter_that_corrects_one_reading_for_ever_is_exact_in_bounded_memory() -> anyhow::Result<()> {
    let mut mass = Mass::new()?;
    let node = mass.start()?;
    mass.add_usage_points(&node.client, 50).await?;
    for _ in 0..5 {
        mass.correct(&node.client, 20_000).await?;
        mass.verdict(&node.client).await?;
    }
    let (_, peak) = node.memory()?;
    assert!(peak < MEMORY_BYTES_MAX, "{} MiB for versions of one reading", peak >> 20);
    node.kill()?;
    let node = mass.start()?;
    mass.verdict(&node.client).await?;
    node.stop()
}

#[tokio::test]
async fn tens_of_thousands_of_usage_points_in_one_view_are_exact() -> anyhow::Result<()> {
    let mut mass = Mass::new()?;
    let node = mass.start()?;
    mass.add_usage_points(&node.client, 50_000).await?;
    mass.verdict(&node.client).await?;
    node.kill()?;
    let node = mass.start()?;
    mass.verdict(&node.client).await?;
    node.stop()
}

/// Returns the use of a bound.
async fn used(client: &Client, name: &str) -> anyhow::Result<u64> {
    let limits = client.get("/v1/limits").await?;
    let all = limits["limits"].as_array().context("no limits")?;
    let limit =
        all.iter().find(|limit| limit["name"] == name).with_context(|| format!("no {name} in {limits}"))?;
    limit["used"].as_u64().with_context(|| format!("no use: {limit}"))
}

/// Waits until a bound is used, or is no longer.
async fn until_used(client: &Client, name: &str, is_used: bool) -> anyhow::Result<()> {
    let patience = Instant::now() + Duration::from_secs(60);
    while (used(client, name).await? > 0) != is_used {
        ensure!(Instant::now() < patience, "{name}: {}", used(client, name).await?);
        tokio::task::yield_now().await;
    }
    Ok(())
}

#[tokio::test]
async fn a_view_on_disk_is_exact_through_corrections_kill_9_and_a_change_of_mind() -> anyhow::Result<()> {
    let mut mass = Mass::new()?;
    mass.keep("disk")?;
    let node = mass.start()?;
    mass.add_usage_points(&node.client, 50_000).await?;
    until_used(&node.client, "serving.views_disk", true).await?;
    mass.verdict(&node.client).await?;
    mass.correct(&node.client, 100).await?;
    mass.verdict(&node.client).await?;
    ensure!(mass.cut_off_groups()? > 0, "nothing is on disk");
    let mut mended = mass.verdict(&node.client).await;
    let patience = Instant::now() + Duration::from_secs(60);
    while mended.is_err() && Instant::now() < patience {
        mended = mass.verdict(&node.client).await;
    }
    mended.context("groups that the disk has lost are not read from the dataset")?;
    let told = node.logged("ERROR");
    ensure!(told.iter().any(|line| line.contains("can't be read from disk")), "nobody noticed: {told:?}");
    node.kill()?;
    let node = mass.start()?;
    assert!(used(&node.client, "serving.views_disk").await? > 0, "groups go to disk before it is ready");
    mass.verdict(&node.client).await?;
    mass.keep("memory")?;
    until_used(&node.client, "serving.views_disk", false).await?;
    mass.verdict(&node.client).await?;
    node.stop()
}
