//! A log and an object store that fail: a call in a while, and one for good. What the store lists may lag.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sanso_log::{Append, Batch, Log, LogError, TopicSpec};
use tokio::sync::watch;

/// What happens to one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It takes effect and says so.
    Succeeds,
    /// It does not take effect and says that it failed.
    Fails,
    /// It takes effect, and says that it failed.
    SeemsToFail,
}

/// The faults of one life, by a seed.
#[derive(Debug)]
pub(super) struct Faults {
    state: parking_lot::Mutex<State>,
    dead: watch::Sender<bool>,
}

#[derive(Debug)]
struct State {
    rng: StdRng,
    /// Chance that a call fails.
    failing: f64,
    /// Chance that a listing shows what the one before it showed.
    lagging: f64,
    /// Calls until the fatal one.
    left: u64,
}

impl Faults {
    /// Makes faults of a random rate, with a random call that is fatal.
    pub(super) fn random(seed: u64) -> Arc<Self> {
        let mut rng = StdRng::seed_from_u64(seed);
        let failing = if rng.random_bool(0.5) { 0.0 } else { rng.random_range(0.0..0.15) };
        let lagging = if rng.random_bool(0.5) { 0.0 } else { rng.random_range(0.0..=1.0) };
        let left = rng.random_range(1..1_500);
        Arc::new(Self {
            state: parking_lot::Mutex::new(State { rng, failing, lagging, left }),
            dead: watch::Sender::new(false),
        })
    }

    /// Makes a life without faults.
    pub(super) fn none() -> Arc<Self> {
        let state = State { rng: StdRng::seed_from_u64(0), failing: 0.0, lagging: 0.0, left: u64::MAX };
        Arc::new(Self { state: parking_lot::Mutex::new(state), dead: watch::Sender::new(false) })
    }

    /// Ends the faults; calls succeed from now on.
    pub(super) fn end(&self) {
        let mut state = self.state.lock();
        (state.failing, state.lagging, state.left) = (0.0, 0.0, u64::MAX);
    }

    /// Says whether the fatal call has come.
    pub(super) fn are_fatal(&self) -> bool {
        *self.dead.borrow()
    }

    /// Resolves when the fatal call has come.
    pub(super) async fn fatal(&self) {
        let mut dead = self.dead.subscribe();
        // The sender is ours, so this ends only with the fatal call.
        let _ = dead.wait_for(|dead| *dead).await;
    }

    /// Says whether a listing lags.
    fn lags(&self) -> bool {
        let mut state = self.state.lock();
        let lagging = state.lagging;
        state.rng.random_bool(lagging)
    }

    /// Decides one call.
    fn next(&self) -> Fate {
        let mut state = self.state.lock();
        if *self.dead.borrow() {
            return Fate::Fails;
        }
        state.left -= 1;
        let took_effect = state.rng.random_bool(0.5);
        if state.left == 0 {
            self.dead.send_replace(true);
        } else {
            let failing = state.failing;
            if !state.rng.random_bool(failing) {
                return Fate::Succeeds;
            }
        }
        if took_effect { Fate::SeemsToFail } else { Fate::Fails }
    }

    /// Chooses a number from 1 to `most`.
    fn some_of(&self, most: usize) -> usize {
        self.state.lock().rng.random_range(1..=most.max(1))
    }
}

/// A log whose calls may fail.
pub(super) struct FaultyLog {
    log: Arc<dyn Log>,
    faults: Arc<Faults>,
}

impl FaultyLog {
    pub(super) fn new(log: Arc<dyn Log>, faults: Arc<Faults>) -> Self {
        Self { log, faults }
    }

    fn broken<T>(&self) -> sanso_log::Result<T> {
        Err(LogError::Unavailable { action: "call", reason: "a fault was injected".to_owned() })
    }
}

/// Calls the log; what only reads fails the same whether it took effect or not.
macro_rules! read {
    ($this:ident, $call:expr) => {
        match $this.faults.next() {
            Fate::Succeeds => $call.await,
            Fate::Fails | Fate::SeemsToFail => $this.broken(),
        }
    };
}

#[async_trait]
impl Log for FaultyLog {
    async fn ensure_topic(&self, spec: &TopicSpec) -> sanso_log::Result<()> {
        read!(self, self.log.ensure_topic(spec))
    }

    async fn partitions(&self, topic: &str) -> sanso_log::Result<u32> {
        read!(self, self.log.partitions(topic))
    }

    async fn append(&self, topic: &str, partition: u32, records: Vec<Append>) -> sanso_log::Result<Vec<u64>> {
        match self.faults.next() {
            Fate::Succeeds => self.log.append(topic, partition, records).await,
            Fate::Fails => self.broken(),
            Fate::SeemsToFail => {
                self.log.append(topic, partition, records).await?;
                self.broken()
            }
        }
    }

    async fn read(
        &self,
        topic: &str,
        partition: u32,
        from: u64,
        max_records: usize,
        max_bytes: usize,
    ) -> sanso_log::Result<Batch> {
        // A log may always give less than was asked for.
        let max_records = self.faults.some_of(max_records);
        read!(self, self.log.read(topic, partition, from, max_records, max_bytes))
    }

    async fn start_offset(&self, topic: &str, partition: u32) -> sanso_log::Result<u64> {
        read!(self, self.log.start_offset(topic, partition))
    }

    async fn end_offset(&self, topic: &str, partition: u32) -> sanso_log::Result<u64> {
        read!(self, self.log.end_offset(topic, partition))
    }

    async fn wait_beyond(&self, topic: &str, partition: u32, from: u64) -> sanso_log::Result<u64> {
        read!(self, self.log.wait_beyond(topic, partition, from))
    }

    async fn trim(&self, topic: &str, partition: u32, before: u64) -> sanso_log::Result<()> {
        match self.faults.next() {
            Fate::Succeeds => self.log.trim(topic, partition, before).await,
            Fate::Fails => self.broken(),
            Fate::SeemsToFail => {
                self.log.trim(topic, partition, before).await?;
                self.broken()
            }
        }
    }
}

/// An object store whose calls may fail, and whose listing may lag: at first it shows nothing.
#[derive(Debug)]
pub(super) struct FaultyStore {
    objects: Arc<dyn ObjectStore>,
    faults: Arc<Faults>,
    listed: parking_lot::Mutex<Vec<ObjectMeta>>,
}

impl FaultyStore {
    pub(super) fn new(objects: Arc<dyn ObjectStore>, faults: Arc<Faults>) -> Self {
        Self { objects, faults, listed: parking_lot::Mutex::default() }
    }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("faulty")
    }
}

fn broken() -> object_store::Error {
    object_store::Error::Generic { store: "faulty", source: "a fault was injected".into() }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        match self.faults.next() {
            Fate::Succeeds => self.objects.put_opts(path, payload, options).await,
            Fate::Fails => Err(broken()),
            Fate::SeemsToFail => {
                self.objects.put_opts(path, payload, options).await?;
                Err(broken())
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        match self.faults.next() {
            Fate::Succeeds => self.objects.put_multipart_opts(path, options).await,
            Fate::Fails | Fate::SeemsToFail => Err(broken()),
        }
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        match self.faults.next() {
            Fate::Succeeds => self.objects.get_opts(path, options).await,
            Fate::Fails | Fate::SeemsToFail => Err(broken()),
        }
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        match self.faults.next() {
            Fate::Succeeds => self.objects.delete_stream(paths),
            Fate::Fails => futures::stream::once(async { Err(broken()) }).boxed(),
            Fate::SeemsToFail => {
                self.objects.delete_stream(paths).map(|deleted| deleted.and(Err(broken()))).boxed()
            }
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        match self.faults.next() {
            Fate::Succeeds => {
                let mut listed = self.listed.lock();
                if !self.faults.lags() {
                    let now = self.objects.list(None).try_collect().now_or_never();
                    *listed = now.expect("memory does not wait").expect("memory lists");
                }
                let below =
                    |file: &&ObjectMeta| prefix.is_none_or(|prefix| file.location.prefix_matches(prefix));
                let found: Vec<_> = listed.iter().filter(below).cloned().map(Ok).collect();
                futures::stream::iter(found).boxed()
            }
            Fate::Fails | Fate::SeemsToFail => futures::stream::once(async { Err(broken()) }).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        match self.faults.next() {
            Fate::Succeeds => self.objects.list_with_delimiter(prefix).await,
            Fate::Fails | Fate::SeemsToFail => Err(broken()),
        }
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        match self.faults.next() {
            Fate::Succeeds => self.objects.copy_opts(from, to, options).await,
            Fate::Fails | Fate::SeemsToFail => Err(broken()),
        }
    }
}
