//! Limits of the system: too few file descriptors, files that may not grow.

use std::process::Command;

use sanso_e2e::{World, binary};

fn limited(limit: &str) -> Command {
    let mut command = Command::new("prlimit");
    command.arg(limit).arg(binary());
    command
}

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
