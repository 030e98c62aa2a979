//! Limits of the system: too few file descriptors, files that may not grow, too little memory.

use sanso_e2e::{Mass, World, limited};

/// What a node may take beyond what it has when it is ready.
const MORE_BYTES: u64 = 350 << 20;
/// Far more groups than the memory allowed can hold.
const USAGE_POINTS_MAX: u64 = 600_000;

/// Sends what is taken, then holds everything acknowledged against the fold, without the limit.
async fn suffers(limit: &str) -> anyhow::Result<()> {
    let mut world = World::new(31, None)?;
    let mut node = world.start_as(limited(limit))?;
    for _ in 0..12 {
        // Refused or not: what is not acknowledged is sent again.
        let _ = world.send(&node.client, 400).await;
    }
    assert!(node.is_running(), "{limit} ended the node: {:?}", node.log().last());
    node.kill()?;
    let node = world.start()?;
    world.verdict(&node.client).await?;
    node.stop()
}

#[tokio::test]
async fn too_few_file_descriptors_lose_nothing_acknowledged() -> anyhow::Result<()> {
    suffers("--nofile=56").await
}

#[tokio::test]
async fn files_that_may_not_grow_are_like_a_full_disk() -> anyhow::Result<()> {
    suffers("--fsize=60000").await
}

/// Asking for more than there is ends the node, and nothing else comes of it. What it says last depends on
/// who asked: a vector, RocksDB, or a thread that could not begin.
#[tokio::test]
async fn too_little_memory_ends_the_node_and_more_memory_has_all_that_was_acknowledged() -> anyhow::Result<()>
{
    let mut mass = Mass::new()?;
    // What a start takes depends on the machine: each core has threads.
    let node = mass.start()?;
    let allowed = node.data_bytes()? + MORE_BYTES;
    node.stop()?;
    let mut node = mass.start_as(limited(&format!("--data={allowed}")))?;
    for _ in 0..USAGE_POINTS_MAX / 20_000 {
        let answered = match mass.add_usage_points(&node.client, 20_000).await {
            Ok(()) => mass.verdict(&node.client).await,
            refused => refused,
        };
        let Err(error) = answered else { continue };
        assert!(!format!("{error:#}").contains("WRONG"), "{error:#}");
        // It may have cost one request or one thread only: then there is memory for more.
        if !node.is_running() {
            break;
        }
    }
    let (ended, said) = node.ended()?;
    assert!(!ended.success(), "{ended}: {said:?}");
    let node = mass.start()?;
    // The request under way when it ended was not acknowledged: it is sent again.
    mass.add_usage_points(&node.client, 5_000).await?;
    mass.verdict(&node.client).await?;
    node.stop()
}
