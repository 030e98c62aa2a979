//! What the batch layer has published of each source's quarantine, as a node learns that does not drive it.

use std::collections::BTreeMap;
use std::time::Duration;

use sanso_catalog::StatusBoard;
use sanso_dataset::{Dataset, DatasetError};
use sanso_state::Division;
use tokio::sync::watch;

use crate::cluster::member::{World, stopped};

/// How often a node looks for what the batch layer has published, to keep no longer what that keeps.
const LOOK: Duration = Duration::from_secs(30);

/// Learns what the batch layer has published, wherever it is driven, until the node is stopped.
pub(super) async fn follow(world: World, stop: watch::Receiver<bool>) {
    let sources = world.catalog.current().sources.clone();
    let mut published = Published::default();
    let follow = async {
        loop {
            for source in sources.keys() {
                if let Err(error) = published.look(&world.dataset, &world.board, source).await {
                    tracing::debug!(%error, source, "look for what is published");
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::select! {
        () = stopped(stop) => {}
        () = follow => {}
    }
}

/// What was found at the last look.
///
/// It is posted at the next one only: until then whoever drives has posted it too, so that what it counts beside its own
/// part is still here.
#[derive(Default)]
struct Published(BTreeMap<String, Division>);

impl Published {
    /// Looks at the newest version of a source.
    async fn look(
        &mut self,
        dataset: &Dataset,
        board: &StatusBoard,
        source: &str,
    ) -> Result<(), DatasetError> {
        if let Some(found) = self.0.remove(source) {
            board.post_published(source, found);
        }
        if let Some(manifest) = dataset.manifest(source).await? {
            self.0.insert(source.to_owned(), manifest.division());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use sanso_dataset::Manifest;
    use sanso_state::{Cut, LogPartition};

    use super::*;

    fn manifest(version: u64, cut: u64) -> Manifest {
        Manifest { version, cut: Cut::new(vec![cut]), ..Manifest::beginning("readings", 1, 8) }
    }

    #[tokio::test]
    async fn a_node_that_does_not_drive_learns_what_was_published_a_look_later() {
        let (dataset, board) = (Dataset::in_memory(), StatusBoard::new());
        let mut published = Published::default();
        let known = || board.published("readings").map(|division| division.batch(LogPartition(0)));
        published.look(&dataset, &board, "readings").await.expect("nothing is there");
        for (version, cut, expected) in [(1, 8, None), (2, 24, Some(0..8)), (3, 32, Some(0..24))] {
            dataset.commit(&manifest(version, cut)).await.expect("committed");
            published.look(&dataset, &board, "readings").await.expect("looked");
            assert_eq!(known(), expected, "version {version}");
        }
        published.look(&dataset, &board, "readings").await.expect("looked");
        assert_eq!(known(), Some(0..32));
    }
}
