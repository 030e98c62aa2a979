//! Very many corrections of one reading, very many usage points. `make torture` sends a million.

use sanso_e2e::Mass;

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
