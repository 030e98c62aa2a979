//! A clock that is more than a year off, and jumps while the node runs: the wall clock decides nothing that an
//! answer shows, and nothing waits by it.

use std::collections::BTreeSet;

use sanso_e2e::{Clock, World};

#[tokio::test]
async fn whatever_the_clock_does_every_answer_is_exact_and_nothing_waits_for_it() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let Some(clock) = Clock::new(folder.path())? else { return Ok(()) };
    let mut world = World::new(51, Some(1))?;
    let mut years = BTreeSet::new();
    for (start, jumps) in [("+400d", ["-400d", "+0d"]), ("-400d", ["+20000d", "-1h"])] {
        clock.jump(start)?;
        let node = world.start_as(clock.command())?;
        for jump in ["", jumps[0], jumps[1]] {
            if !jump.is_empty() {
                clock.jump(jump)?;
            }
            world.send(&node.client, 500).await?;
            world.verdict(&node.client).await?;
            world.archived(&node.client).await?;
            world.verdict(&node.client).await?;
            assert_eq!(node.client.get_text("/metrics").await?.0, 200);
            let status = node.client.get("/v1/status").await?;
            years.insert(status["time"].as_str().unwrap_or_default()[..4].to_owned());
        }
        assert_eq!(node.logged("ERROR"), Vec::<String>::new());
        let under_way = world.begin(&node.client, 500);
        clock.jump(start)?;
        node.kill()?;
        under_way.await?;
    }
    assert!(years.len() >= 4, "the clock did not jump: {years:?}");
    let node = world.start()?;
    world.verdict(&node.client).await?;
    world.archived(&node.client).await?;
    world.verdict(&node.client).await?;
    node.stop()
}
