//! The batch layer, on one node at a time: versions of the dataset by the real advance and
//! contributions, the audit, and adoption, in the order of `batch-layer/src/source_run.rs`; and the
//! view partitions that nobody holds, as `deploy/src/cluster/member.rs` sees to them.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use futures::future::{join, select};
use sanso_batch::adoption::{Decision, decide};
use sanso_batch::advance::{Effects, advance};
use sanso_batch::archived_rows;
use sanso_batch::contribution::contributions;
use sanso_cluster::{owners, wire};
use sanso_core::cluster::ClusterMap;
use sanso_core::cluster::sim::GUESTS_TO_US;
use sanso_core::{PartitionId, Write, home_of};
use sanso_speed::Chunk;
use sanso_state::{Block, Cut, Entry, Extension, LogPartition, Offset, Outcome, SegmentId, compare};
use sanso_view::{Source, View};

use super::mutant::Mutant;
use super::outside::DatasetVersion;
use super::process::{Process, Question, Reply, Wish};
use super::store::Failed;
use crate::history::PARTITIONS;

const VERSION_EVERY_US: u64 = 250_000;
const RECONCILE_US: u64 = 500_000;
/// What computing a version takes.
const COMPUTE_US: u64 = 60_000;
const WAIT_RUNS_MAX: u32 = 2;

/// What the batch layer's task is given.
#[derive(Clone)]
pub(super) struct Batch {
    pub(super) process: Rc<Process>,
    pub(super) source: Arc<Source>,
    pub(super) views: Rc<[Arc<View>]>,
    pub(super) mutant: Option<Mutant>,
}

impl Batch {
    /// Runs whenever the map says that it runs here.
    pub(super) async fn run(self) {
        let me = self.process.me.node;
        let is_mine =
            |map: &ClusterMap| owners::holder_of("batch", &owners::usable(map, |_| true)) == Some(me);
        loop {
            self.process.until_map(is_mine).await;
            let lost = self.process.until_map(|map| !is_mine(map));
            let work = join(self.make_versions(), self.reconcile());
            select(Box::pin(lost), Box::pin(work)).await;
        }
    }

    async fn make_versions(&self) {
        let mut waited = BTreeMap::new();
        while self.process.now_us() < GUESTS_TO_US {
            self.process.sleep(VERSION_EVERY_US).await;
            self.make_version().await;
            self.offer(&mut waited).await;
        }
    }

    /// Computes the next version from the newest one and the segments between their cuts.
    async fn make_version(&self) {
        let (before, cut, chunks) = self
            .process
            .outside(|outside| {
                let (before, cut) = (outside.newest(), outside.next_cut());
                let chunk = |l: u32| outside.history.chunk(l, before.cut[l as usize], cut[l as usize]);
                let chunks: Vec<Chunk> = (0..PARTITIONS).map(chunk).collect();
                (before, cut, chunks)
            })
            .await;
        if cut == before.cut {
            return;
        }
        // Who is stopped here goes on when another node has made this version.
        self.process.wish(Wish::Moment("version", self.process.me.node));
        let version = self.computed(&before, cut, &chunks);
        self.process.sleep(COMPUTE_US).await;
        if !self.process.outside(move |outside| outside.commit(version)).await {
            self.process.wish(Wish::Moment("version refused", self.process.me.node));
        }
    }

    fn computed(&self, before: &DatasetVersion, cut: Vec<Offset>, chunks: &[Chunk]) -> DatasetVersion {
        let (mut tables, mut effects) = (Vec::new(), BTreeMap::new());
        for (l, chunk) in (0..).map(LogPartition).zip(chunks) {
            if chunk.from == chunk.to {
                tables.push(before.tables[l.index()].clone());
                continue;
            }
            let previous = before.tables[l.index()].as_ref().map(|table| table.rows.clone());
            let segments = self.segments(l, chunk);
            let names: Vec<SegmentId> = segments.iter().map(|(segment, _)| *segment).collect();
            let table = advance(&self.source, previous.into_iter().collect(), segments);
            let table = table.unwrap_or_else(|error| panic!("rows of one source fit together: {error}"));
            let of = |segment: SegmentId| (segment, table.effects.get(&segment).cloned());
            effects.extend(names.into_iter().map(of));
            tables.push(Some(table));
        }
        let effects: BTreeMap<SegmentId, Option<Effects>> = effects;
        let mut version = DatasetVersion {
            number: before.number + 1,
            cut,
            tables,
            blocks: BTreeMap::new(),
            contributions: Vec::new(),
        };
        for view in self.views.iter() {
            let added = contributions(view, &effects);
            for index in 0..view.partitions {
                let id = PartitionId { view: view.fingerprint, index };
                let mut groups = before.blocks[&id].groups.clone();
                added.iter().for_each(|contribution| groups.combine(&contribution.parts[index as usize]));
                let beyond = self.mutant == Some(Mutant::BlockBeyondCut);
                let cut = if beyond { before.cut() } else { version.cut() };
                let watermarks_us = vec![None; PARTITIONS as usize];
                let block =
                    Block { view: view.fingerprint, version: version.number, cut, watermarks_us, groups };
                version.blocks.insert(id, Arc::new(block));
            }
            let of_view = added.into_iter().map(|added| (added.segment, view.fingerprint, added.parts));
            version.contributions.extend(of_view);
        }
        version
    }

    /// Divides records into segments of archived rows, those of no rows included.
    fn segments(&self, l: LogPartition, chunk: &Chunk) -> Vec<(SegmentId, arrow::array::RecordBatch)> {
        let size = self.source.segments().size();
        let rows = |index: u64| {
            let of = |offset| chunk.records.partition_point(|record| record.offset < offset);
            let records = &chunk.records[of(index * size)..of((index + 1) * size)];
            let rows = archived_rows(&self.source, l, records);
            (
                SegmentId { partition: l, index },
                rows.unwrap_or_else(|error| panic!("rows of one source: {error}")),
            )
        };
        (chunk.from / size..chunk.to / size).map(rows).collect()
    }

    /// Offers the newest version to every view partition that has not adopted it.
    async fn offer(&self, waited: &mut BTreeMap<PartitionId, u32>) {
        let version = self.process.outside(|outside| outside.newest()).await;
        for (id, block) in &version.blocks {
            let Ok(progress) = self.process.progress(*id).await else { continue };
            if progress.version >= version.number {
                waited.remove(id);
                continue;
            }
            let runs = waited.entry(*id).or_default();
            let decision = decide(&progress.applied, &version.cut(), true, *runs, WAIT_RUNS_MAX);
            if decision == Decision::Wait {
                *runs += 1;
                if self.mutant == Some(Mutant::MadeOlder) {
                    self.make_again(*id, progress.version).await;
                }
                continue;
            }
            self.audit(*id, &version, &progress.cut).await;
            let map = self.process.map();
            let home = map.assignment(home_of(*id, map.partitions.len() as u32));
            if let Some(primary) = home.primary {
                self.process.wish(Wish::Moment("adoption", primary.instance.node));
            }
            let view = self.view(*id);
            let mut adopted = Ok(Outcome::NotHeld);
            if let Some(extension) = self.extension(*id, &version, progress.version) {
                adopted = self.process.enter(*id, Entry::Extend(extension), &view.kinds).await;
            }
            if matches!(adopted, Ok(Outcome::Adopted)) {
                self.process.wish(Wish::Moment("extended", self.process.me.node));
            }
            if matches!(adopted, Ok(Outcome::NotHeld)) {
                adopted = self.process.enter(*id, Entry::Adopt(Arc::clone(block)), &view.kinds).await;
            }
            if let Ok(Outcome::Invalid(reason)) = adopted {
                let what = format!("{id} does not take version {}: {reason}", version.number);
                self.process.wish(Wish::Broken(what));
            }
        }
    }

    /// Tells a version by what it adds to the one before, where a view partition stands on that.
    fn extension(&self, id: PartitionId, version: &DatasetVersion, stands_on: u64) -> Option<Extension> {
        if stands_on + 1 != version.number && self.mutant != Some(Mutant::ExtensionMoved) {
            return None;
        }
        let mut added = Block { groups: sanso_state::Groups::new(), ..(*version.blocks[&id]).clone() };
        let of_view = version.contributions.iter().filter(|(_, view, _)| *view == id.view);
        of_view.for_each(|(_, _, parts)| added.groups.combine(&parts[id.index as usize]));
        Some(Extension { of: stands_on, added: Arc::new(added) })
    }

    /// Breaks a rule: a view partition that is there gives way to what it was.
    async fn make_again(&self, id: PartitionId, version: u64) {
        let older = move |number: u64| version.saturating_sub(1) == number;
        let find = move |outside: &mut super::outside::Outside| {
            outside
                .versions
                .iter()
                .find(|version| older(version.number))
                .map(|version| version.blocks[&id].clone())
        };
        if let Some(base) = self.process.outside(find).await {
            let view = self.view(id);
            let _ = self.process.write(id, wire::write(Write::Remove(id.view), &[])).await;
            self.create(&view, id, base).await;
        }
    }

    /// Compares what speed holds of complete segments with what batch has computed.
    async fn audit(&self, id: PartitionId, version: &DatasetVersion, from: &Cut) {
        let held = version.contributions.iter().filter(|(segment, view, _)| {
            *view == id.view && segment.index * self.source.segments().size() >= from.at(segment.partition)
        });
        for (segment, _, parts) in held {
            let asked = self.process.ask(id, Question::Segment(*segment), &[]).await;
            let Ok(Reply::Segment(Some(speed))) = asked else { continue };
            let differences = compare(*segment, &speed, &parts[id.index as usize]);
            if !differences.is_empty() {
                let what = format!("the audit of segment {segment} of {id} finds {differences:?}");
                self.process.wish(Wish::Broken(what));
            }
            self.process.wish(Wish::Moment("audited", self.process.me.node));
        }
    }

    fn view(&self, id: PartitionId) -> Arc<View> {
        let of = |view: &&Arc<View>| view.fingerprint == id.view;
        Arc::clone(self.views.iter().find(of).expect("only declared views are asked for"))
    }

    /// Sees to it that every view partition is held.
    async fn reconcile(&self) {
        loop {
            let version = self.process.outside(|outside| outside.newest()).await;
            for (id, block) in &version.blocks {
                if matches!(self.process.progress(*id).await, Err(Failed::NotLive)) {
                    let mut base = Arc::clone(block);
                    if self.mutant == Some(Mutant::MadeEmpty) {
                        base = Arc::new(Block { groups: sanso_state::Groups::new(), ..(**block).clone() });
                    }
                    self.create(&self.view(*id), *id, base).await;
                    self.process.wish(Wish::Moment("made", self.process.me.node));
                }
            }
            self.process.sleep(RECONCILE_US).await;
        }
    }

    async fn create(&self, view: &View, id: PartitionId, base: Arc<Block>) {
        let write = Write::Create { id, config: view.partition_config(), base };
        // What can't be reached is looked for again.
        let _ = self.process.write_block(id, write, &view.kinds).await;
    }
}
