//! One step of one source: archive, advance, commit, publish, audit, adopt.
//!
//! ```text
//!   settle ─ every live view is published at the version in force, and offered
//!   adopt  ─ offers that speed has reached: audit, rebuild, adopt      (some wait: stop here)
//!   plan   ─ complete segments beyond the cut                          (none: stop here)
//!   tasks  ─ for each log partition, at any worker: archive, advance, contribute
//!   commit manifest k ─ publish views ─ offer ─ adopt ─ trim, clean
//! ```
//!
//! Everything in [`SourceState`] can be loaded again from the dataset, so after any error it is
//! dropped and the next step begins from what is committed, as after a crash. Where other processes
//! could go on, so can be what tasks gave of the next version, and of one that is committed and not
//! published yet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::future::try_join_all;
use sanso_catalog::{AuditCounts, BatchProgress, BatchQuarantine, Catalog, CatalogHandle, StatusBoard};
use sanso_core::{PartitionId, PartitionStore, ReadRequest};
use sanso_dataset::{Dataset, DatasetError, Manifest};
use sanso_log::{Log, LogError};
use sanso_state::{Block, Cut, Entry, Extension, Fingerprint, Groups, Offset, Outcome, SegmentId};
use sanso_view::{Source, View};

use crate::adoption::{Decision, decide};
use crate::archive::blocking;
use crate::audit::{audit, audit_quarantine};
use crate::config::BatchConfig;
use crate::driver::run_tasks;
use crate::error::{BatchError, Result};
use crate::executor::Executor;
use crate::jobs::{contributed, forget_tasks, planned, publish_lifted};
use crate::lineage::TableRules;
use crate::publish::{Published, extensions, find, is_lost, publish_extended, view_id};
use crate::report::SourceReport;
use crate::task::{Task, TaskResult, Work};
use crate::version::assembled;

/// Versions between two removals of files that no version lists.
const CLEAN_EVERY: u64 = 8;

/// What a step needs of the world.
pub(crate) struct World<'a> {
    pub(crate) config: &'a BatchConfig,
    pub(crate) log: &'a dyn Log,
    pub(crate) dataset: &'a Dataset,
    pub(crate) store: &'a PartitionStore,
    pub(crate) board: &'a StatusBoard,
    pub(crate) catalog: &'a CatalogHandle,
    pub(crate) source: &'a Arc<Source>,
    pub(crate) executor: &'a dyn Executor,
}

impl World<'_> {
    /// Returns those of some views that are live.
    fn live_of(&self, views: &[Arc<View>]) -> BTreeSet<Fingerprint> {
        let catalog = self.catalog.current();
        let all = views.iter().map(|view| view.fingerprint);
        all.filter(|view| catalog.live.contains_key(view)).collect()
    }

    /// Resolves once one of these views is not live.
    async fn retired(&self, views: &BTreeSet<Fingerprint>) {
        let is_gone = |catalog: &Arc<Catalog>| !views.iter().all(|view| catalog.live.contains_key(view));
        if self.catalog.subscribe().wait_for(is_gone).await.is_err() {
            std::future::pending().await
        }
    }
}

/// What is known of one source between steps.
#[derive(Default)]
pub(crate) struct SourceState {
    /// The version in force, once loaded.
    manifest: Option<Arc<Manifest>>,
    /// The views extended by every version.
    views: BTreeMap<Fingerprint, ViewState>,
    /// Versions that view partitions have not adopted yet.
    offers: BTreeMap<PartitionId, Offer>,
    /// Whether files of an earlier life have been cleaned.
    cleaned: bool,
    /// Up to where each log partition was trimmed.
    trimmed: BTreeMap<u32, Offset>,
    /// What was posted last.
    pub(crate) progress: Option<BatchProgress>,
}

struct ViewState {
    view: Arc<View>,
    published: Published,
    was_live: bool,
}

/// The version in force, for one view partition.
struct Offer {
    view: Arc<View>,
    /// What it adds to the version before, where that is known.
    extension: Option<Extension>,
    contributions: Vec<(SegmentId, Groups)>,
    waited: u32,
}

impl SourceState {
    /// Forgets everything that the dataset knows too.
    pub(crate) fn forget(&mut self) {
        let progress = self.progress.take();
        *self = Self { progress, ..Self::default() };
    }

    /// Returns the version in force; a manifest of version 0 stands for nothing archived.
    pub(crate) async fn load_manifest(&mut self, world: &World<'_>) -> Result<Arc<Manifest>> {
        if let Some(manifest) = &self.manifest {
            return Ok(Arc::clone(manifest));
        }
        let source = world.source;
        let rules = TableRules::of(source);
        let manifest = match world.dataset.manifest(&source.name).await? {
            None => Arc::new(beginning(source)),
            Some(manifest) => {
                check_declaration(source, &manifest, &rules)?;
                manifest
            }
        };
        self.manifest = Some(Arc::clone(&manifest));
        Ok(manifest)
    }

    /// Sees to it that views of the source are known at the version in force: loaded, or computed
    /// together and published; but for those that cease to be live meanwhile.
    pub(crate) async fn ensure(
        &mut self,
        world: &World<'_>,
        views: &[Arc<View>],
        report: &mut SourceReport,
    ) -> Result<()> {
        let manifest = self.load_manifest(world).await?;
        let mut missing = Vec::new();
        for view in views {
            let known = self.views.get(&view.fingerprint);
            // Asked for twice, it is computed once.
            if missing.iter().any(|missing: &Arc<View>| missing.fingerprint == view.fingerprint) {
                continue;
            }
            if known.is_some_and(|state| state.published.version() == manifest.version) {
                continue;
            }
            if manifest.version == 0 {
                self.know(view, Published::default());
            } else if let Some(published) = find(world.dataset, view, &manifest).await? {
                self.know(view, published);
            } else {
                missing.push(Arc::clone(view));
            }
        }
        while !missing.is_empty() {
            let were_live = world.live_of(&missing);
            let published = tokio::select! {
                published = publish_lifted(world, &missing, &manifest) => Some(published?),
                () = world.retired(&were_live) => None,
            };
            let Some(published) = published else {
                tracing::info!(
                    source = manifest.source,
                    "views are computed no further: one is wanted no longer"
                );
                let live = world.live_of(&missing);
                missing.retain(|view| {
                    !were_live.contains(&view.fingerprint) || live.contains(&view.fingerprint)
                });
                continue;
            };
            for (view, published) in missing.iter().zip(published) {
                report.recomputed.push(view.name.clone());
                self.know(view, published);
            }
            break;
        }
        Ok(())
    }

    fn know(&mut self, view: &Arc<View>, published: Published) {
        let was_live = self.views.get(&view.fingerprint).is_some_and(|state| state.was_live);
        let state = ViewState { view: Arc::clone(view), published, was_live };
        self.views.insert(view.fingerprint, state);
    }

    /// Notes that views are live, so that they are extended for as long as they are.
    pub(crate) fn note_live(&mut self, views: &[Arc<View>]) {
        for view in views {
            if let Some(state) = self.views.get_mut(&view.fingerprint) {
                state.was_live = true;
            }
        }
    }

    /// Says whether a view is known at some version.
    pub(crate) fn knows(&self, view: &View) -> bool {
        self.views.contains_key(&view.fingerprint)
    }

    /// Reads blocks of a view that [`SourceState::ensure`] has seen to, all at once; where one can't be had the view
    /// is computed again.
    pub(crate) async fn blocks(
        &mut self,
        world: &World<'_>,
        view: &Arc<View>,
        indexes: &[u32],
    ) -> Result<Vec<Arc<Block>>> {
        let read = async |published: &Published| {
            let blocks = indexes.iter().map(|index| published.block(world.dataset, view, *index));
            try_join_all(blocks).await
        };
        let published = self.views[&view.fingerprint].published.clone();
        let blocks = match read(&published).await {
            Err(error) if is_lost(&error) => {
                let manifest = self.load_manifest(world).await?;
                let published = computed_again(world, view, &manifest, &error).await?;
                self.know(view, published.clone());
                read(&published).await?
            }
            blocks => blocks?,
        };
        Ok(blocks.into_iter().map(Arc::new).collect())
    }

    /// Runs one step. `live`: the live view versions of the source.
    pub(crate) async fn step(
        &mut self,
        world: &World<'_>,
        live: &[Arc<View>],
        report: &mut SourceReport,
    ) -> Result<()> {
        self.settle(world, live, report).await?;
        self.adopt(world, report).await?;
        if !self.offers.is_empty() {
            return Ok(());
        }
        let before = self.load_manifest(world).await?;
        let ends = log_ends(world).await?;
        let plan = planned(world, &before, &ends).await?;
        report.backlog = plan.backlog;
        if plan.segments.is_empty() {
            return self.trim(world, &before).await;
        }
        let tasks = self.advances(world, &before, &plan.segments);
        let results = run_tasks(world, &tasks).await?;
        let manifest = Arc::new(assembled(&before, plan, &results, report));
        world.dataset.commit(&manifest).await?;
        self.manifest = Some(Arc::clone(&manifest));
        report.version = Some(manifest.version);
        report.quarantine_audit = audit_quarantine(world.board, &manifest, &report.segments);
        self.publish_all(world, &manifest, results, report).await?;
        forget_tasks(world, &tasks).await?;
        self.adopt(world, report).await?;
        self.clean(world, &manifest).await?;
        self.trim(world, &manifest).await
    }

    /// Returns the tasks that make a version of planned segments: one for each log partition.
    fn advances(&self, world: &World<'_>, before: &Arc<Manifest>, planned: &[SegmentId]) -> Vec<Task> {
        let views: Vec<Arc<View>> = self.views.values().map(|state| Arc::clone(&state.view)).collect();
        let advance = |of_one: &[SegmentId]| {
            let work = Work::Advance { partition: of_one[0].partition, segments: of_one.to_vec() };
            Task::new(world.source, views.clone(), before, work)
        };
        planned.chunk_by(|a, b| a.partition == b.partition).map(advance).collect()
    }

    /// Publishes the version in force from what its tasks gave, where whoever committed it did not come to
    /// that; else its views would be computed from all rows.
    async fn resume(
        &mut self,
        world: &World<'_>,
        live: &[Arc<View>],
        report: &mut SourceReport,
    ) -> Result<()> {
        let manifest = self.load_manifest(world).await?;
        if !world.executor.is_shared() || manifest.version == 0 || !self.views.is_empty() {
            return Ok(());
        }
        let (dataset, source) = (world.dataset, world.source);
        let plan = dataset.version_plan(&source.name, manifest.version).await?;
        let Some(plan) = plan.filter(|plan| plan.cut == manifest.cut) else { return Ok(()) };
        let before = match manifest.version {
            1 => Some(Arc::new(beginning(source))),
            version => dataset.manifest_if_any(&source.name, version - 1).await?,
        };
        let Some(before) = before.filter(|before| before.fingerprint() == plan.before) else { return Ok(()) };
        let mut views = BTreeMap::new();
        let mut is_published = true;
        for view in live {
            is_published &= find(dataset, view, &manifest).await?.is_some();
            let published = match before.version {
                0 => Some(Published::default()),
                _ => find(dataset, view, &before).await?,
            };
            let Some(published) = published else { return Ok(()) };
            let state = ViewState { view: Arc::clone(view), published, was_live: true };
            views.insert(view.fingerprint, state);
        }
        if is_published {
            return Ok(());
        }
        self.views = views;
        let tasks = self.advances(world, &before, &plan.segments);
        let mut results = Vec::with_capacity(tasks.len());
        for task in &tasks {
            match task.find(dataset).await? {
                Some(found) => results.push(Arc::new(found)),
                None => {
                    self.views.clear();
                    return Ok(());
                }
            }
        }
        tracing::info!(
            source = source.name,
            version = manifest.version,
            "a version is published from what its tasks gave"
        );
        self.publish_all(world, &manifest, results, report).await?;
        forget_tasks(world, &tasks).await
    }

    /// Brings every live view to the version in force, forgets retired ones, and offers that version to
    /// view partitions that stand on an older one.
    async fn settle(
        &mut self,
        world: &World<'_>,
        live: &[Arc<View>],
        report: &mut SourceReport,
    ) -> Result<()> {
        self.resume(world, live, report).await?;
        self.views.retain(|id, state| !state.was_live || live.iter().any(|view| view.fingerprint == *id));
        self.ensure(world, live, report).await?;
        self.note_live(live);
        let version = self.load_manifest(world).await?.version;
        for view in live {
            for index in 0..view.partitions {
                let id = PartitionId { view: view.fingerprint, index };
                let Ok(reply) = world.store.read(id, &ReadRequest::Progress).await else { continue };
                if reply.progress.version < version {
                    let view = Arc::clone(view);
                    let offer = Offer { view, extension: None, contributions: Vec::new(), waited: 0 };
                    self.offers.entry(id).or_insert(offer);
                }
            }
        }
        Ok(())
    }

    /// Adopts what can be adopted; the rest goes on waiting.
    async fn adopt(&mut self, world: &World<'_>, report: &mut SourceReport) -> Result<()> {
        let cut = self.load_manifest(world).await?.cut.clone();
        for (id, mut offer) in std::mem::take(&mut self.offers) {
            // A partition that is gone needs nothing, nor does one of a view that is; one that comes later is
            // offered anew.
            if !self.knows(&offer.view) {
                continue;
            }
            let Ok(reply) = world.store.read(id, &ReadRequest::Progress).await else { continue };
            let auditable = !offer.contributions.is_empty();
            let wait_max = world.config.adoption_wait_runs;
            let applied = &reply.progress.applied;
            match decide(applied, &cut, auditable, offer.waited, wait_max) {
                Decision::Wait => {
                    offer.waited += 1;
                    self.offers.insert(id, offer);
                }
                Decision::Adopt => {
                    let Ok(counts) = audit(world.store, &offer.view, id, &offer.contributions).await else {
                        continue;
                    };
                    report.audit += counts;
                    let mut outcome = Ok(Outcome::NotHeld);
                    if let Some(extension) = offer.extension {
                        outcome = world.store.submit(id, Entry::Extend(extension)).await;
                    }
                    if matches!(outcome, Ok(Outcome::NotHeld)) {
                        let block = self.blocks(world, &offer.view, &[id.index]).await?.remove(0);
                        outcome = world.store.submit(id, Entry::Adopt(block)).await;
                    }
                    report.adopted += u64::from(matches!(outcome, Ok(Outcome::Adopted)));
                }
            }
        }
        report.waiting = self.offers.len() as u64;
        Ok(())
    }

    /// Publishes every view at a new version, and offers it.
    async fn publish_all(
        &mut self,
        world: &World<'_>,
        manifest: &Arc<Manifest>,
        results: Vec<Arc<TaskResult>>,
        report: &mut SourceReport,
    ) -> Result<()> {
        let mut contributed = contributed(results);
        for (&fingerprint, state) in &mut self.views {
            let (view, before) = (Arc::clone(&state.view), state.published.clone());
            let contributions = contributed.remove(&fingerprint).unwrap_or_default();
            let manifest_of_view = Arc::clone(manifest);
            let (contributions, extensions) = blocking(move || {
                let extensions = extensions(&view, &before, &contributions, &manifest_of_view);
                (contributions, extensions)
            })
            .await;
            report.contributions += contributions.len() as u64;
            let (dataset, view) = (world.dataset, &state.view);
            let published =
                match publish_extended(dataset, view, manifest, &state.published, &extensions).await {
                    Err(BatchError::Dataset(error)) if is_lost(&error) => {
                        report.recomputed.push(view.name.clone());
                        computed_again(world, view, manifest, &error).await?
                    }
                    published => {
                        let (published, counts) = published?;
                        report.blocks.0 += counts.written;
                        report.blocks.1 += counts.carried;
                        published
                    }
                };
            for (index, extension) in extensions.into_iter().enumerate() {
                let id = PartitionId { view: fingerprint, index: index as u32 };
                let mine = contributions.iter().map(|done| (done.segment, done.parts[index].clone()));
                let (extension, contributions) = (Some(extension), mine.collect());
                let view = Arc::clone(view);
                self.offers.insert(id, Offer { view, extension, contributions, waited: 0 });
            }
            state.published = published;
        }
        Ok(())
    }

    /// Removes what no version lists any longer.
    async fn clean(&mut self, world: &World<'_>, manifest: &Manifest) -> Result<()> {
        let keep = world.config.versions_kept.max(2);
        for state in self.views.values() {
            world.dataset.remove_unpublished(view_id(&state.view), manifest.version, keep).await?;
        }
        if !self.cleaned || manifest.version.is_multiple_of(CLEAN_EVERY) {
            world.dataset.remove_tasks_until(&manifest.source, manifest.version).await?;
            world.dataset.remove_unreferenced(&manifest.source, keep).await?;
            let oldest = manifest.version.saturating_sub(keep as u64);
            let live: Vec<_> = self.views.values().map(|state| view_id(&state.view)).collect();
            world.dataset.remove_views_before(&manifest.source, oldest, &live).await?;
            self.cleaned = true;
        }
        Ok(())
    }

    /// Allows the log to forget what lies the configured number of segments behind the cut, once no
    /// view partition waits for it, and no further than the speed layer has read.
    async fn trim(&mut self, world: &World<'_>, manifest: &Manifest) -> Result<()> {
        let Some(retain) = world.config.retain_segments else { return Ok(()) };
        if !self.offers.is_empty() {
            return Ok(());
        }
        let speed = world.board.speed().remove(&manifest.source).unwrap_or_default();
        for (partition, &cut) in (0..).zip(manifest.cut.offsets()) {
            let read = speed.get(&partition).map_or(cut, |progress| progress.position);
            let kept = retain.saturating_mul(manifest.segment_size);
            let before = cut.saturating_sub(kept).min(read);
            if self.trimmed.insert(partition, before) != Some(before) {
                let trimmed = world.log.trim(&world.source.topic, partition, before).await;
                trimmed.map_err(log_error(world.source))?;
            }
        }
        Ok(())
    }

    /// Returns the progress to post: the version in force and the counters so far with the run's.
    pub(crate) fn progress(&self, source: &Source, run: &SourceReport) -> BatchProgress {
        let mut progress = self.progress.clone().unwrap_or_else(|| BatchProgress {
            version: 0,
            cut: Cut::zero(source.partitions),
            published_us: 0,
            run_ms: 0,
            newest_rows: 0,
            audit: AuditCounts::default(),
            quarantine: None,
            error: None,
        });
        progress.audit += run.audit;
        if let Some(manifest) = &self.manifest {
            progress.version = manifest.version;
            progress.cut = manifest.cut.clone();
            progress.newest_rows = manifest.rows;
            let mut audit = progress.quarantine.map(|before| before.audit).unwrap_or_default();
            audit += run.quarantine_audit;
            let (division, counts) = (manifest.division(), manifest.refusals());
            progress.quarantine = Some(BatchQuarantine { division, counts, audit });
        }
        progress
    }
}

/// Computes a view anew of which something that was published is lost.
async fn computed_again(
    world: &World<'_>,
    view: &Arc<View>,
    manifest: &Arc<Manifest>,
    lost: &DatasetError,
) -> Result<Published> {
    tracing::warn!(view = view.name, error = %lost, "a published view is recomputed");
    let published = publish_lifted(world, std::slice::from_ref(view), manifest).await?;
    Ok(published.into_iter().next().expect("one view was asked for"))
}

/// Returns the manifest of a source that stands for nothing archived.
pub(crate) fn beginning(source: &Source) -> Manifest {
    let TableRules { columns, rules, .. } = TableRules::of(source);
    let beginning = Manifest::beginning(&source.name, source.partitions, source.segment_size);
    Manifest { columns, rules, ..beginning }
}

fn check_declaration(source: &Source, manifest: &Manifest, rules: &TableRules) -> Result<()> {
    if manifest.columns == rules.columns && manifest.rules == rules.rules {
        return Ok(());
    }
    Err(BatchError::Redeclared {
        source_name: source.name.clone(),
        archived: TableRules::describe(&manifest.columns, &manifest.rules),
        declared: TableRules::describe(&rules.columns, &rules.rules),
    })
}

fn log_error(source: &Source) -> impl Fn(LogError) -> BatchError + '_ {
    |error| BatchError::Log { source_name: source.name.clone(), source: error }
}

async fn log_ends(world: &World<'_>) -> Result<Vec<u64>> {
    let source = world.source;
    let found = world.log.partitions(&source.topic).await.map_err(log_error(source))?;
    if found != source.partitions {
        return Err(BatchError::Partitions {
            source_name: source.name.clone(),
            topic: source.topic.clone(),
            found,
            declared: source.partitions,
        });
    }
    let mut ends = Vec::with_capacity(found as usize);
    for partition in 0..found {
        ends.push(world.log.end_offset(&source.topic, partition).await.map_err(log_error(source))?);
    }
    Ok(ends)
}
