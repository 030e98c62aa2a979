//! Disks that are slow, and disks that fail at a moment.

use std::time::{Duration, Instant};

use sanso_e2e::{World, syncs};

/// How long a slow disk takes for each sync.
const SYNC_MIN: Duration = Duration::from_millis(20);

#[tokio::test]
async fn on_a_slow_disk_answers_are_late_and_exact() -> anyhow::Result<()> {
    let Some(command) = syncs("fsync,fdatasync", &format!("delay_enter={}ms", SYNC_MIN.as_millis())) else {
        return Ok(());
    };
    let mut world = World::new(61, Some(1))?;
    let node = world.start_as(command)?;
    for _ in 0..3 {
        let sent = Instant::now();
        world.send(&node.client, 300).await?;
        assert!(sent.elapsed() >= SYNC_MIN, "acknowledged before the disk had it: {:?}", sent.elapsed());
        world.verdict(&node.client).await?;
    }
    let under_way = world.begin(&node.client, 300);
    node.kill()?;
    under_way.await?;
    let node = world.start()?;
    world.verdict(&node.client).await?;
    node.stop()
}

/// A sync that failed may have lost what it should have kept: nothing of it may be acknowledged.
#[tokio::test]
async fn a_disk_that_fails_at_some_syncs_loses_nothing_acknowledged() -> anyhow::Result<()> {
    // Counted by each thread: one prepares all of the log, then each partition of it has its own.
    let Some(command) = syncs("fdatasync", "error=EIO:when=25+4") else { return Ok(()) };
    let mut world = World::new(62, Some(1))?;
    let node = world.start_as(command)?;
    let (mut refused, mut answered) = (0, 0);
    for _ in 0..40 {
        // What is not acknowledged is sent again.
        refused += u32::from(world.send(&node.client, 100).await.is_err());
        if world.pending.is_none() {
            let verdict = world.verdict(&node.client).await.map_err(|error| format!("{error:#}"));
            assert!(!verdict.as_ref().is_err_and(|error| error.contains("WRONG")), "{verdict:?}");
            answered += u32::from(verdict.is_ok());
        }
    }
    assert!(refused > 0 && answered > 0, "refused {refused}, answered {answered}");
    node.kill()?;
    let node = world.start()?;
    world.verdict(&node.client).await?;
    node.stop()
}
