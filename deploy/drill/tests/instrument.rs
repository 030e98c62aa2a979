//! The instrument on one real node: it sees what is done to it, and nothing that was not.

use std::path::PathBuf;
use std::time::Duration;

use sanso_drill::fault::{Act, Fault, Pick, Step};
use sanso_drill::history::Class;
use sanso_drill::load::Load;
use sanso_drill::sanso::{Dev, Storage};
use sanso_drill::{Outcome, Settings, run};

fn binary() -> PathBuf {
    let default = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../bin/sanso");
    let binary = std::env::var_os("SANSO_BIN").map_or_else(default, PathBuf::from);
    assert!(binary.is_file(), "no binary at {}: run `make build` first", binary.display());
    binary
}

/// Does something to the node for as long as `hold`, and undoes it.
async fn drill(harm: Act, heal: Act, hold: Duration) -> anyhow::Result<Outcome> {
    let settings = Settings {
        load: Load { writers: 3, writes_per_s: 25, readers: 3, reads_per_s: 25, ..Load::default() },
        before: Duration::from_millis(300),
        hold,
        after: Duration::from_millis(300),
        progress: false,
        ..Settings::default()
    };
    let steps = vec![Step::Do(harm, Pick::One), Step::Hold(1), Step::Do(heal, Pick::One), Step::Well];
    let fault = Fault { name: "test", about: "a test's own", steps, bounds: None, preload_min: 0 };
    let mut node = Dev::start(&binary(), settings.patience.attempt, Storage::Memory)?;
    run(&mut node, &fault, &settings).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stands_still_is_seen_as_a_stall_of_that_length_by_every_client() -> anyhow::Result<()> {
    // Each client has a request due every 40 ms or more often: what was due first in the 400 ms waited
    // at least for the 300 that are asked for.
    let outcome = drill(Act::Pause, Act::Resume, Duration::from_millis(400)).await?;
    let judgement = &outcome.judgement;
    assert_eq!(outcome.broken, Vec::<String>::new());
    for class in Class::ALL {
        let worst = judgement.stalls.worst(class).expect("there were some of each");
        assert!(worst.ms >= 300.0, "{class:?}: {worst:?}");
    }
    for client in 0..6 {
        let of_client = |class| judgement.stalls.clients[&class].get(&client);
        let longest = of_client(Class::Read).or_else(|| of_client(Class::Write));
        assert!(longest.is_some_and(|ms| *ms >= 300.0), "client {client}: {longest:?}");
    }
    assert!(judgement.acknowledged > 0);
    assert_eq!((outcome.marks.len(), judgement.given_up), (1, 0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_is_seen_as_a_stall_that_loses_and_doubles_nothing() -> anyhow::Result<()> {
    let outcome = drill(Act::Kill, Act::Start, Duration::from_millis(200)).await?;
    let judgement = &outcome.judgement;
    assert_eq!(outcome.broken, Vec::<String>::new());
    assert!(judgement.errors > 0, "requests failed while it was gone");
    assert_eq!(judgement.given_up, 0, "every request was answered in the end");
    let folder = tempfile::tempdir()?;
    let picture = outcome.write(folder.path(), "kill")?;
    assert!(std::fs::read_to_string(picture)?.starts_with("<svg"));
    let csv = std::fs::read_to_string(folder.path().join("kill.csv"))?;
    assert_eq!(csv.lines().count() as u64, judgement.operations + 1);
    Ok(())
}
