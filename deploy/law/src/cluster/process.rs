//! The layers' process on one node: tasks that wait for each other and for the world, without
//! threads and without a clock of their own.
//!
//! ```text
//!   world ── what a task waits for is there ──▶ poll ──▶ wishes ──▶ world
//! ```
//!
//! A task asks the world for something by a [`Wish`] and waits for its [`Promise`]. The world
//! polls a task when it has something for it, so the order of everything is the world's. A killed
//! process is dropped with all its tasks, wherever they were.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures::future::{Either, select};
use sanso_core::cluster::{Answer, ClusterMap, HedgeConfig, Hedger, Instance, NodeId, Partition};
use sanso_core::{Encoded, PartitionId, ReadReply, ReadRequest, Written};
use sanso_state::{Groups, SegmentId};

use super::outside::Outside;

/// Something that will be there, perhaps.
pub(super) struct Promise<T>(Rc<RefCell<Option<T>>>);

impl<T> Promise<T> {
    pub(super) fn new() -> Self {
        Self(Rc::default())
    }

    pub(super) fn fill(&self, value: T) {
        *self.0.borrow_mut() = Some(value);
    }
}

impl<T> Clone for Promise<T> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<T> Future for Promise<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<T> {
        self.0.borrow_mut().take().map_or(Poll::Pending, Poll::Ready)
    }
}

/// What is asked of a view partition.
#[derive(Clone, Debug)]
pub(super) enum Question {
    Read(ReadRequest),
    Segment(SegmentId),
}

/// What a replica says to it.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    /// With whether it holds all that was acknowledged until a moment ago.
    Read(ReadReply, bool),
    Segment(Option<Groups>),
    NotLive,
    NotInSync,
}

impl Reply {
    /// Says whether nobody could answer better.
    pub(super) fn is_good(&self) -> bool {
        matches!(self, Reply::Read(_, true) | Reply::Segment(_) | Reply::NotLive)
    }
}

/// A question on its way.
pub(super) struct Asked {
    pub(super) partition: Partition,
    pub(super) id: PartitionId,
    pub(super) question: Question,
}

/// Takes the answer of a call and when it came; none when the call failed.
pub(super) type Taking = Box<dyn FnOnce(Option<Reply>, u64)>;

/// Fills a promise, once the world has brought what it needs to the process; given the time.
pub(super) type Filling = Box<dyn FnOnce(u64)>;

/// Does something to the log or the dataset, and says how the process is told.
pub(super) type Errand = Box<dyn FnOnce(&mut Outside) -> Filling>;

/// Where a write goes.
#[derive(Clone, Copy)]
pub(super) struct Route {
    pub(super) primary: NodeId,
    /// Who passes it on.
    pub(super) by: Option<NodeId>,
}

/// What a task wants of the world.
pub(super) enum Wish {
    /// To be polled at a time, in microseconds.
    Wake(u64),
    /// An answer of this node's own replica, at once.
    Own(Asked, Promise<Reply>),
    /// An answer of another node's replica, taken whether anybody waits for it still or not.
    Ask(NodeId, Asked, Taking),
    /// A write to a node that should be the partition's primary, perhaps by way of another one.
    Submit(Route, Partition, Encoded, Promise<Answer<Written>>),
    /// Whom to ask in the stead of a node that this one doesn't hear, at once.
    Detour(Instance, usize, Promise<Option<NodeId>>),
    /// Something of the log or the dataset.
    Outside(Errand),
    /// To be polled when a log partition has more than this, at the latest at a time.
    Beyond(u32, u64, u64),
    /// An answer to a reader's attempt; none when it can't be given.
    Respond(usize, u64, Option<Vec<ReadReply>>),
    /// Something that faults aim at has happened, between two nodes.
    Moment(&'static str, NodeId),
    /// A promise is broken.
    Broken(String),
}

/// A task, and whether it was polled to its end.
type Task = Pin<Box<dyn Future<Output = ()>>>;

/// What the tasks of one process share.
pub(super) struct Process {
    pub(super) me: Instance,
    now_us: Cell<u64>,
    in_touch: Cell<bool>,
    map: RefCell<Arc<ClusterMap>>,
    wishes: RefCell<Vec<Wish>>,
    pub(super) hedger: Rc<RefCell<Hedger>>,
    /// Until when no other replica is asked for a better answer than this node's own.
    pub(super) alone_until_us: Cell<u64>,
    /// How many blocks it has begun to write in parts.
    pub(super) stagings: Cell<u64>,
}

impl Process {
    pub(super) fn new(me: Instance) -> Rc<Self> {
        Rc::new(Self {
            me,
            now_us: Cell::new(0),
            in_touch: Cell::new(false),
            map: RefCell::new(Arc::new(ClusterMap::new(1, 1))),
            wishes: RefCell::default(),
            hedger: Rc::new(RefCell::new(Hedger::new(HedgeConfig::default(), None))),
            alone_until_us: Cell::new(0),
            stagings: Cell::new(0),
        })
    }

    pub(super) fn now_us(&self) -> u64 {
        self.now_us.get()
    }

    pub(super) fn is_in_touch(&self) -> bool {
        self.in_touch.get()
    }

    pub(super) fn map(&self) -> Arc<ClusterMap> {
        Arc::clone(&self.map.borrow())
    }

    pub(super) fn wish(&self, wish: Wish) {
        self.wishes.borrow_mut().push(wish);
    }

    pub(super) fn take_wishes(&self) -> Vec<Wish> {
        std::mem::take(&mut self.wishes.borrow_mut())
    }

    /// Waits until a time.
    pub(super) async fn sleep_until(&self, at_us: u64) {
        self.wish(Wish::Wake(at_us));
        std::future::poll_fn(|_| if self.now_us() >= at_us { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    /// Waits for a while.
    pub(super) async fn sleep(&self, us: u64) {
        self.sleep_until(self.now_us() + us).await;
    }

    /// Waits until this process has a map like this.
    pub(super) async fn until_map(&self, is_like: impl Fn(&ClusterMap) -> bool) {
        std::future::poll_fn(|_| if is_like(&self.map.borrow()) { Poll::Ready(()) } else { Poll::Pending })
            .await;
    }

    /// Waits for a promise, but no longer than until a time.
    pub(super) async fn by<T>(&self, promise: impl Future<Output = T>, until_us: u64) -> Option<T> {
        match select(Box::pin(promise), Box::pin(self.sleep_until(until_us))).await {
            Either::Left((value, _)) => Some(value),
            Either::Right(_) => None,
        }
    }

    /// Does something with the log or the dataset, which takes its time.
    pub(super) async fn outside<T: 'static>(&self, act: impl FnOnce(&mut Outside) -> T + 'static) -> T {
        let promise = Promise::new();
        let filled = promise.clone();
        self.wish(Wish::Outside(Box::new(move |outside| {
            let value = act(outside);
            Box::new(move |_| filled.fill(value))
        })));
        promise.await
    }

    /// Waits until a log partition has more than `position`, or until a time.
    pub(super) async fn beyond(&self, partition: u32, position: u64, until_us: u64) {
        self.wish(Wish::Beyond(partition, position, until_us));
        // Whatever wakes it, it looks itself.
        let polled = Cell::new(false);
        std::future::poll_fn(|_| if polled.replace(true) { Poll::Ready(()) } else { Poll::Pending }).await;
    }
}

/// A process that runs.
pub(super) struct Running {
    pub(super) process: Rc<Process>,
    tasks: std::collections::BTreeMap<u64, Task>,
    next: u64,
}

impl Running {
    pub(super) fn new(process: Rc<Process>) -> Self {
        Self { process, tasks: std::collections::BTreeMap::new(), next: 0 }
    }

    /// Adds a task; it begins when it is polled first.
    pub(super) fn spawn(&mut self, task: impl Future<Output = ()> + 'static) -> u64 {
        self.next += 1;
        self.tasks.insert(self.next, Box::pin(task));
        self.next
    }

    pub(super) fn tasks(&self) -> Vec<u64> {
        self.tasks.keys().copied().collect()
    }

    /// Tells the process what it knows now, and whether that is a newer map.
    pub(super) fn know(&self, now_us: u64, in_touch: bool, map: &Arc<ClusterMap>) -> bool {
        self.process.now_us.set(now_us);
        self.process.in_touch.set(in_touch);
        let newer = map.version != self.process.map.borrow().version;
        if newer {
            *self.process.map.borrow_mut() = Arc::clone(map);
        }
        newer
    }

    /// Lets a task go on; one that has ended is gone.
    pub(super) fn poll(&mut self, task: u64) {
        let Some(future) = self.tasks.get_mut(&task) else { return };
        if future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            self.tasks.remove(&task);
        }
    }
}
