//! A version that is being made: what it is to hold, and what its tasks have given so far.
//!
//! ```text
//!   plan k (new, or there already) ──▶ tasks, anywhere: groups, then their record ──▶ manifest k, views
//!        whoever goes on after a crash finds the same plan, and the tasks that are done
//! ```
//!
//! All of it can be computed again and is removed once the version is published, so nothing waits for
//! the disk here, and what is damaged is as good as lost.

use bytes::Bytes;
use futures::future::try_join_all;
use object_store::PutMode;
use object_store::path::Path;
use sanso_block::BlockNode;
use sanso_block::recovery::Taken;
use sanso_state::{Cut, Fingerprint, SegmentId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::blocks::BlockFile;
use crate::dataset::Dataset;
use crate::error::{DatasetError, RECOMPUTE, Result};
use crate::layout::Layout;
use crate::manifest::{NewestFile, SegmentFile, seal, unseal};
use crate::quarantine::QuarantineFile;

/// What a version is to hold beyond the one before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionPlan {
    /// The version's number.
    pub version: u64,
    /// The fingerprint of the manifest before.
    pub before: Fingerprint,
    /// The segments to archive, in order of log partition and index.
    pub segments: Vec<SegmentId>,
    /// The cut once they are.
    pub cut: Cut,
}

/// What a task gave: files of the dataset, and groups of views.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRecord {
    /// The fingerprint of all that the task is made of; names the record.
    pub task: Fingerprint,
    /// The segments archived, in order.
    pub archived: Vec<SegmentFile>,
    /// The quarantine of those that have refused records, in order.
    pub quarantine: Vec<QuarantineFile>,
    /// The files of the newest-version table that no new segment touches.
    pub carried: Vec<NewestFile>,
    /// The files of the newest-version table that were made anew.
    pub rewritten: Vec<NewestFile>,
    /// The log partition's largest event time, as the watermark counts it, in microseconds.
    pub max_event_us: Option<i64>,
    /// The groups, in the order in which they lie one after the other in the file beside this one.
    pub groups: Vec<TaskGroups>,
    /// The fingerprint of that file's bytes. Where there are no groups there is no file.
    pub content: Fingerprint,
    /// The node that keeps the task's pieces; none where it has none, or they are in the dataset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_by: Option<BlockNode>,
    /// The file of the view partition that it put together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<BlockFile>,
    /// The ways to the files of the newest-version table that it took.
    #[serde(default, skip_serializing_if = "Taken::is_empty")]
    pub read: Taken,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// Groups of one view partition, in the encoding of [`sanso_state::encode_groups`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskGroups {
    /// The view's version.
    pub view: Fingerprint,
    /// The segment that contributes them; none for what all rows give.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segment: Option<SegmentId>,
    /// The view partition.
    pub index: u32,
    /// How many bytes they take.
    pub bytes: u64,
}

impl Dataset {
    /// Writes down what a version is to hold, unless that has been done for the same version before:
    /// returns the plan that holds.
    pub async fn plan_version(&self, source: &str, plan: VersionPlan) -> Result<VersionPlan> {
        let path = self.layout().version_plan(source, plan.version);
        let bytes = seal(&plan);
        match self.put_with(&path, bytes.clone(), PutMode::Create).await {
            Ok(()) => return Ok(plan),
            Err(object_store::Error::AlreadyExists { .. }) => {}
            Err(error) => return Err(DatasetError::store("write", &path, error)),
        }
        match self.version_plan(source, plan.version).await? {
            Some(found) if found.before == plan.before => Ok(found),
            // Of a version that a person took back, or damaged.
            _ => self.put_volatile(&path, bytes).await.map(|()| plan),
        }
    }

    /// Returns what a version is to hold, if it is known.
    pub async fn version_plan(&self, source: &str, version: u64) -> Result<Option<VersionPlan>> {
        let plan: Option<VersionPlan> = self.volatile(&self.layout().version_plan(source, version)).await?;
        Ok(plan.filter(|plan| plan.version == version))
    }

    /// Writes down what a task of a version gave. Idempotent.
    pub async fn put_task(
        &self,
        source: &str,
        version: u64,
        record: &TaskRecord,
        groups: Bytes,
    ) -> Result<()> {
        if !record.groups.is_empty() {
            self.put_volatile(&self.layout().task_groups(source, version, record.task), groups).await?;
        }
        // Written last: what is recorded is whole.
        self.put_volatile(&self.layout().task(source, version, record.task), seal(record)).await
    }

    /// Returns what a task of a version gave, and the bytes of its groups; none when it is not done, or
    /// its result is damaged.
    pub async fn task(
        &self,
        source: &str,
        version: u64,
        task: Fingerprint,
    ) -> Result<Option<(TaskRecord, Bytes)>> {
        let record: Option<TaskRecord> = self.volatile(&self.layout().task(source, version, task)).await?;
        let Some(record) = record.filter(|record| record.task == task) else { return Ok(None) };
        if record.groups.is_empty() {
            return Ok(Some((record, Bytes::new())));
        }
        let path = self.layout().task_groups(source, version, task);
        let read = self.get_checked(&path, record.content, RECOMPUTE).await;
        Ok(unless_lost(read)?.map(|groups| (record, groups)))
    }

    /// Removes what is known of a version that is made: its plan, and the results of these tasks.
    pub async fn remove_tasks(&self, source: &str, version: u64, tasks: &[Fingerprint]) -> Result<()> {
        let layout = self.layout();
        let files = tasks.iter().flat_map(|task| {
            [layout.task(source, version, *task), layout.task_groups(source, version, *task)]
        });
        let files: Vec<Path> = files.collect();
        try_join_all(files.iter().map(|file| self.delete(file))).await?;
        self.delete(&self.layout().version_plan(source, version)).await
    }

    /// Removes what is left of versions up to one, of drivers and workers that did not end well.
    pub async fn remove_tasks_until(&self, source: &str, version: u64) -> Result<()> {
        for file in self.list(&self.layout().all_tasks(source)).await? {
            if Layout::version_of_task(&file.location).is_some_and(|of| of <= version) {
                self.delete(&file.location).await?;
            }
        }
        Ok(())
    }

    pub(crate) async fn put_volatile(&self, path: &Path, bytes: Bytes) -> Result<()> {
        let put = self.put_with(path, bytes, PutMode::Overwrite).await;
        put.map_err(|error| DatasetError::store("write", path, error))
    }

    async fn volatile<T: DeserializeOwned>(&self, path: &Path) -> Result<Option<T>> {
        let read = self.get(path).await.and_then(|bytes| unseal(path, &bytes, RECOMPUTE));
        unless_lost(read)
    }
}

/// What is damaged is lost, and what is lost is computed again.
fn unless_lost<T>(read: Result<T>) -> Result<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(DatasetError::Missing { .. }) => Ok(None),
        Err(error @ DatasetError::Damaged { .. }) => {
            tracing::warn!(%error, "a task's result is lost");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;
    use object_store::{ObjectStoreExt, PutPayload};
    use sanso_state::LogPartition;

    use super::*;

    const SOURCE: &str = "readings";

    fn plan(before: &[u8], index: u64) -> VersionPlan {
        let segments = vec![SegmentId { partition: LogPartition(0), index }];
        VersionPlan { version: 3, before: Fingerprint::of(before), segments, cut: Cut::new(vec![index + 1]) }
    }

    fn record(name: &[u8], groups: &[u8]) -> TaskRecord {
        let (view, bytes) = (Fingerprint::of(b"view"), groups.len() as u64);
        let of_groups = TaskGroups { view, segment: None, index: 0, bytes };
        TaskRecord {
            task: Fingerprint::of(name),
            archived: Vec::new(),
            quarantine: Vec::new(),
            carried: Vec::new(),
            rewritten: Vec::new(),
            max_event_us: Some(-5),
            groups: vec![of_groups; usize::from(!groups.is_empty())],
            content: Fingerprint::of(groups),
            held_by: None,
            block: None,
            read: Taken::default(),
            took_ms: 12,
        }
    }

    #[tokio::test]
    async fn the_first_plan_of_a_version_holds_unless_it_stands_on_another() {
        let dataset = Dataset::in_memory();
        assert_eq!(dataset.plan_version(SOURCE, plan(b"a", 7)).await.expect("put"), plan(b"a", 7));
        assert_eq!(dataset.plan_version(SOURCE, plan(b"a", 9)).await.expect("found"), plan(b"a", 7));
        assert_eq!(dataset.plan_version(SOURCE, plan(b"b", 9)).await.expect("replaced"), plan(b"b", 9));
        assert_eq!(dataset.version_plan(SOURCE, 3).await.expect("read"), Some(plan(b"b", 9)));
        assert_eq!(dataset.version_plan(SOURCE, 4).await.expect("read"), None);
    }

    #[tokio::test]
    async fn a_result_is_found_whole_or_not_at_all() {
        let store = Arc::new(InMemory::new());
        let dataset = Dataset::with_store(Arc::clone(&store) as _, Path::default());
        let (record, groups) = (record(b"task", b"groups"), Bytes::from_static(b"groups"));
        dataset.put_task(SOURCE, 3, &record, groups.clone()).await.expect("put");
        let found = || dataset.task(SOURCE, 3, record.task);
        assert_eq!(found().await.expect("read"), Some((record.clone(), groups)));
        assert_eq!(dataset.task(SOURCE, 4, record.task).await.expect("read"), None);
        let path = dataset.layout().task_groups(SOURCE, 3, record.task);
        store.put(&path, PutPayload::from_static(b"Groups")).await.expect("damaged");
        assert_eq!(found().await.expect("read"), None);
        store.delete(&path).await.expect("deleted");
        assert_eq!(found().await.expect("read"), None);
    }

    #[tokio::test]
    async fn a_result_without_groups_is_its_record_alone() {
        let dataset = Dataset::in_memory();
        let record = TaskRecord { held_by: Some(BlockNode(3)), ..record(b"task", b"") };
        dataset.put_task(SOURCE, 3, &record, Bytes::new()).await.expect("put");
        assert_eq!(dataset.list(&dataset.layout().all_tasks(SOURCE)).await.expect("listed").len(), 1);
        let found = dataset.task(SOURCE, 3, record.task).await.expect("read");
        assert_eq!(found, Some((record, Bytes::new())));
    }

    #[tokio::test]
    async fn what_is_left_of_made_versions_goes_and_what_is_being_made_stays() {
        let dataset = Dataset::in_memory();
        for version in [3, 4, 5] {
            let plan = VersionPlan { version, ..plan(b"a", 1) };
            dataset.plan_version(SOURCE, plan).await.expect("put");
            for name in [b"x", b"y"] {
                dataset.put_task(SOURCE, version, &record(name, b"g"), Bytes::from("g")).await.expect("put");
            }
        }
        let left = async || dataset.list(&dataset.layout().all_tasks(SOURCE)).await.expect("listed").len();
        dataset.remove_tasks(SOURCE, 5, &[Fingerprint::of(b"x")]).await.expect("removed");
        assert_eq!(left().await, 12);
        dataset.remove_tasks_until(SOURCE, 4).await.expect("removed");
        assert_eq!(left().await, 2);
        assert!(dataset.task(SOURCE, 5, Fingerprint::of(b"y")).await.expect("read").is_some());
    }
}
