//! The master dataset in an S3 bucket: it outlives the node, and its outages the node outlives.

use std::process::Command;
use std::sync::Arc;

use anyhow::Context;
use sanso_bucket::{Bucket, Fate, available};
use sanso_e2e::{Client, World, binary};
use tokio::sync::Notify;

const SECRET: &str = "a-secret-that-is-never-shown";
/// What a version writes, in order.
const STEPS: [&str; 6] =
    ["/segments/", "/newest/", "/manifests/", "/in_force.json", "/blocks/", "/versions/"];

/// A node with credentials in its environment, and none in any file.
fn command() -> Command {
    let mut command = Command::new(binary());
    command.env_remove("AWS_PROFILE").env("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent");
    command.env("AWS_ACCESS_KEY_ID", "sanso").env("AWS_SECRET_ACCESS_KEY", SECRET);
    command
}

/// A world whose dataset is in a bucket, and whose log forgets what is archived.
async fn world(seed: u64) -> anyhow::Result<(Bucket, World)> {
    let bucket = Bucket::start().await?;
    let world = World::new(seed, Some(0))?;
    world.set(&format!(
        "[dataset]\nurl = 's3://{}/plants/north'\nendpoint = '{}'\nregion = 'eu-central-1'\nallow_http = true\nretries_max = 1\n",
        Bucket::NAME,
        bucket.endpoint()
    ))?;
    Ok((bucket, world))
}

/// Waits until the batch layer has said that it fails, or that it does no longer; returns what.
async fn batch_error(client: &Client, fails: bool) -> anyhow::Result<String> {
    loop {
        let status = client.get("/v1/status").await?;
        let error = &status["sources"][0]["batch"]["error"];
        if error.is_string() == fails {
            return Ok(error.as_str().unwrap_or_default().to_owned());
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_is_archived_in_a_bucket_outlives_the_node_and_its_indexes() -> anyhow::Result<()> {
    if !available("what_is_archived_in_a_bucket_outlives_the_node_and_its_indexes") {
        return Ok(());
    }
    let (_bucket, mut world) = world(31).await?;
    let node = world.start_as(command())?;
    for _ in 0..6 {
        world.send(&node.client, 400).await?;
    }
    world.archived(&node.client).await?;
    world.verdict(&node.client).await?;
    world.take_down_archive(&node.client).await?;
    node.kill()?;
    assert!(!world.data().join("dataset").exists(), "nothing of the dataset is local");
    std::fs::remove_dir_all(world.data().join("speed"))?;
    let node = world.start_as(command())?;
    world.verdict(&node.client).await?;
    world.archive_verdict(&node.client).await?;
    world.send(&node.client, 400).await?;
    world.verdict(&node.client).await?;
    node.stop()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_outage_at_any_step_of_a_version_loses_and_doubles_nothing() -> anyhow::Result<()> {
    if !available("an_outage_at_any_step_of_a_version_loses_and_doubles_nothing") {
        return Ok(());
    }
    let (bucket, mut world) = world(32).await?;
    let node = world.start_as(command())?;
    // A worker without an index asks the dataset for what to begin with; from then on it does not.
    world.send(&node.client, 10).await?;
    world.verdict(&node.client).await?;
    for step in STEPS {
        let mut out = false;
        bucket.decide(move |request| match out {
            true => Fate::Refused,
            false if request.method == "PUT" && request.target.contains(step) => {
                out = true;
                Fate::AnswerLost
            }
            false => Fate::Forwarded,
        });
        world.send(&node.client, 250).await?;
        let error = batch_error(&node.client, true).await?;
        assert!(error.contains("readings"), "{step}: {error}");
        // Speed and serving go on.
        world.send(&node.client, 100).await?;
        world.verdict(&node.client).await?;
        let refused = node.client.query("SELECT COUNT(*) FROM readings").await.err().map(|e| e.to_string());
        assert!(
            refused.as_ref().is_some_and(|refused| refused.contains("dataset-unreachable")),
            "{refused:?}"
        );
        bucket.heal();
        batch_error(&node.client, false).await?;
        world.archived(&node.client).await?;
        world.verdict(&node.client).await?;
    }
    world.take_down_archive(&node.client).await?;
    assert!(!node.log().iter().any(|line| line.contains(SECRET)));
    node.kill()?;
    let node = world.start_as(command())?;
    world.verdict(&node.client).await?;
    world.archive_verdict(&node.client).await?;
    node.stop()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn killed_at_any_step_of_a_version_the_node_keeps_every_acknowledged_reading() -> anyhow::Result<()> {
    if !available("killed_at_any_step_of_a_version_the_node_keeps_every_acknowledged_reading") {
        return Ok(());
    }
    let (bucket, mut world) = world(34).await?;
    // The step is done when the node dies, or it is not.
    for (step, fate) in STEPS.into_iter().flat_map(|step| [(step, Fate::AnswerLost), (step, Fate::Refused)]) {
        let node = world.start_as(command())?;
        world.verdict(&node.client).await.with_context(|| format!("{step} {fate:?}"))?;
        let reached = Arc::new(Notify::new());
        let reaching = Arc::clone(&reached);
        bucket.decide(move |request| match request.method == "PUT" && request.target.contains(step) {
            true => {
                reaching.notify_one();
                fate
            }
            false => Fate::Forwarded,
        });
        let under_way = world.begin(&node.client, 250);
        reached.notified().await;
        node.kill()?;
        under_way.await?;
        bucket.heal();
    }
    let node = world.start_as(command())?;
    world.verdict(&node.client).await?;
    world.archived(&node.client).await?;
    world.verdict(&node.client).await?;
    world.take_down_archive(&node.client).await?;
    node.kill()?;
    let node = world.start_as(command())?;
    world.archive_verdict(&node.client).await?;
    node.stop()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_node_whose_bucket_does_not_answer_says_which_and_starts_once_it_does() -> anyhow::Result<()> {
    if !available("a_node_whose_bucket_does_not_answer_says_which_and_starts_once_it_does") {
        return Ok(());
    }
    let (bucket, mut world) = world(33).await?;
    for (fate, what) in
        [(Fate::Refused, "gives no answer"), (Fate::Answered(403, "AccessDenied"), "access is denied")]
    {
        bucket.decide(move |_| fate);
        let error = world.start_as(command()).err().map(|error| format!("{error:#}")).unwrap_or_default();
        for part in [what, Bucket::NAME, &bucket.endpoint()] {
            assert!(error.contains(part), "{part}: {error}");
        }
        assert!(!error.contains(SECRET) && !error.contains("panicked"), "{error}");
    }
    bucket.heal();
    let node = world.start_as(command())?;
    world.send(&node.client, 400).await?;
    world.verdict(&node.client).await?;
    node.stop()
}
