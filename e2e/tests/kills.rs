//! kill -9 while versions are made, views change and the log is trimmed, at moments that the node
//! itself announces. `make torture` does it at random moments, for as long as one likes.

use sanso_e2e::{Node, World};

/// Sends, and waits for the version that it makes, as many times; dies before it is done with it.
async fn busy(world: &mut World, node: &Node, versions: usize) -> anyhow::Result<()> {
    let published = |node: &Node| {
        let lines = node.logged("INFO");
        lines.iter().filter(|line| line.contains("published a batch version")).count()
    };
    for _ in 0..versions {
        let before = published(node);
        world.send(&node.client, 500).await?;
        while published(node) == before {
            node.client.get("/healthz").await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn killed_whatever_it_does_the_node_keeps_every_acknowledged_reading() -> anyhow::Result<()> {
    let mut world = World::new(21, Some(1))?;
    for round in 1..=6 {
        if round % 3 == 0 {
            world.history.change_view();
            world.declare()?;
        }
        let node = world.start()?;
        busy(&mut world, &node, 1 + round % 2).await?;
        // One more batch is under way when it dies; it counts only once it is sent again.
        let under_way = world.begin(&node.client, 500);
        assert_eq!(node.logged("ERROR"), Vec::<String>::new());
        node.kill()?;
        under_way.await?;
    }
    let node = world.start()?;
    world.verdict(&node.client).await?;
    world.archived(&node.client).await?;
    world.verdict(&node.client).await?;
    node.stop()
}
