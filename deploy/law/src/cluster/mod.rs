//! The law in a cluster: the three layers on the replication core, in a simulated world.
//!
//! ```text
//!   producers ─▶ log ─▶ workers of five nodes ─▶ primaries ─▶ replicas ─▶ serving ─▶ readers
//!                  └──▶ batch, on one node ─▶ dataset ─▶ adoption ─┘
//! ```
//!
//! Each node runs the real core with real view partitions, the real workers for the log partitions
//! that the map gives it, serving, and batch when it is its turn; log, dataset and disks are in
//! memory and outlive the processes. What drives the engines (`speed`, `batch`, `serving`, `store`)
//! follows the product's drivers step by step, as tasks that one seed orders. Messages of
//! replication and writes go through their encoding.
//!
//! After every step a primary's view partitions are held against a naive fold of the prefix that
//! they say they have applied, replicas against each other, and every answer against the fold and
//! against what its reader has seen. With one fault alone a read stands still no longer than
//! [`READ_STALL_US`], and what is appended is seen within [`VISIBLE_US`]. At the end everything
//! acknowledged is in every replica of every view, once.
//!
//! `SANSO_LAYERS_SEEDS=10000 SANSO_LAW_START=0` runs more; `TRACE=1` tells what happens.

mod batch;
mod clients;
mod mutant;
mod outside;
mod plan;
mod process;
mod serving;
mod speed;
mod store;
mod truth;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sanso_cluster::wire;
use sanso_core::cluster::sim::{Guests, Kind, Moment, NODES, Outcome, Setting, Violation, World};
use sanso_core::cluster::{
    Answer, ClusterMap, Event, Instance, Message, NodeId, Partition, Position, RequestId,
};
use sanso_core::{Encoded, Hosted, ReadReply, ReadRequest, Written};
use sanso_state::{Fingerprint, Offset};
use sanso_view::View;

use self::batch::Batch;
use self::clients::{HABITS, Habit, Reader};
pub use self::mutant::{MUTANTS, Mutant};
use self::outside::Outside;
use self::process::{
    Asked, Errand, Filling, Process, Promise, Question, Reply, Route, Running, Taking, Wish,
};
use self::serving::Request;
use self::speed::Work;
use self::truth::Truth;
use crate::Declared;
use crate::history::{PARTITIONS, choose};

/// Partitions of the cluster, and the replicas of each.
const CORE_PARTITIONS: u32 = 2;
const REPLICAS: usize = 3;

/// With one fault alone, the longest that a read may take which waits for nothing that its reader
/// has seen, in microseconds of simulated time.
pub const READ_STALL_US: u64 = 100_000;
/// With one fault alone, the longest until a reader sees what was appended before it asked.
pub const VISIBLE_US: u64 = 1_500_000;

/// What happens to the layers at a time.
enum Happening {
    /// A task goes on (none: all tasks of the process).
    Wakes {
        at: Instance,
        task: Option<u64>,
    },
    /// What a task waits for has come to its process.
    Delivered {
        at: Instance,
        task: u64,
        fill: Filling,
    },
    /// A question has come to a node.
    Asked {
        by: Instance,
        task: u64,
        to: NodeId,
        asked: Asked,
        take: Taking,
    },
    /// A write has come to a node.
    Submitted {
        request: RequestId,
        to: NodeId,
        partition: Partition,
        write: Encoded,
    },
    /// A write has come to a node that is to pass it on.
    PassedOn {
        request: RequestId,
        by: NodeId,
        partition: Partition,
        write: Encoded,
    },
    /// An errand of a process has come to the log or the dataset.
    Errand {
        by: Instance,
        task: u64,
        errand: Errand,
    },
    Produce,
    ReadNext(usize),
    RequestArrives {
        node: NodeId,
        request: Request,
    },
    Answered {
        reader: usize,
        attempt: u64,
        replies: Option<Vec<ReadReply>>,
    },
}

/// A write on its way, and who waits for what becomes of it.
struct UnderWay {
    by: Instance,
    task: u64,
    route: Route,
    promise: Promise<Answer<Written>>,
}

/// Who waits for a log partition to have more than a position.
struct Waiting {
    partition: u32,
    position: Offset,
    at: Instance,
    task: u64,
}

/// The layers of all nodes, what outlives them, and who uses them.
struct Layers {
    views: Rc<[Arc<View>]>,
    outside: Outside,
    running: Vec<Option<Running>>,
    /// The newest map that each node's tasks were woken for.
    told: Vec<u64>,
    under_way: BTreeMap<RequestId, UnderWay>,
    requests: u64,
    waiting: Vec<Waiting>,
    readers: Vec<Reader>,
    rates: Vec<u32>,
    /// What the log has acknowledged.
    acknowledged: Vec<Offset>,
    /// Keys that have been seen in a view.
    keys: BTreeMap<Fingerprint, BTreeSet<Box<[u8]>>>,
    truth: Truth,
    mutant: Option<Mutant>,
    happened: BTreeMap<&'static str, u64>,
}

impl Layers {
    fn new(rng: &mut StdRng, declared: &Arc<Declared>, mutant: Option<Mutant>) -> Self {
        let all = &declared.generations[0];
        let first = rng.random_range(0..all.len());
        let second = (first + rng.random_range(1..all.len())) % all.len();
        let views: Rc<[Arc<View>]> = [first, second].iter().map(|at| Arc::clone(&all[*at])).collect();
        let drawn = StdRng::seed_from_u64(rng.random());
        Self {
            outside: Outside::new(Arc::clone(declared), &views, drawn, mutant),
            views,
            running: (0..NODES).map(|_| None).collect(),
            told: vec![0; NODES as usize],
            under_way: BTreeMap::new(),
            requests: 0,
            waiting: Vec::new(),
            readers: HABITS.into_iter().map(Reader::new).collect(),
            rates: choose(rng, &[vec![9, 9, 9], vec![20, 4, 1], vec![1, 20, 4]]),
            acknowledged: vec![0; PARTITIONS as usize],
            keys: BTreeMap::new(),
            truth: Truth::default(),
            mutant,
            happened: BTreeMap::new(),
        }
    }

    fn count(&mut self, what: &'static str) -> u64 {
        let count = self.happened.entry(what).or_default();
        *count += 1;
        *count
    }

    fn worst_us(&self, habit: Habit) -> u64 {
        self.readers.iter().filter(|reader| reader.habit == habit).map(|r| r.worst_us).max().unwrap_or(0)
    }
}

impl Guests for Layers {
    type State = Hosted;
    type Happening = Happening;

    fn begin(world: &mut World<Self>) {
        world.after(600_000, Happening::Produce);
        (0..HABITS.len()).for_each(|reader| world.after(700_000, Happening::ReadNext(reader)));
    }

    fn process_of(happening: &Happening) -> Option<NodeId> {
        match happening {
            Happening::Wakes { at, .. } | Happening::Delivered { at, .. } => Some(at.node),
            Happening::Asked { to, .. } | Happening::PassedOn { by: to, .. } => Some(*to),
            Happening::RequestArrives { node, .. } => Some(*node),
            _ => None,
        }
    }

    fn happen(world: &mut World<Self>, happening: Happening) -> Result<(), Violation> {
        match happening {
            Happening::Wakes { at, task } if lives(world, at) => match task {
                Some(task) => poll(world, at, task)?,
                None => {
                    let tasks = world.guests.running[at.node.0 as usize].as_ref().map(Running::tasks);
                    for task in tasks.unwrap_or_default() {
                        poll(world, at, task)?;
                    }
                }
            },
            Happening::Delivered { at, task, fill } if lives(world, at) => {
                fill(world.now_us());
                poll(world, at, task)?;
            }
            Happening::Wakes { .. } | Happening::Delivered { .. } => {}
            Happening::Asked { by, task, to, asked, take } => {
                let runs = world.node(to).is_some();
                let reply = runs.then(|| answer(world, to, &asked));
                reply_to(world, to, by, task, take, reply);
            }
            Happening::Submitted { request, to, partition, write } => {
                if world.node(to).is_none() {
                    fail(world, request);
                }
                world.step(to, Event::Submit(partition, request, write))?;
            }
            Happening::PassedOn { request, by, partition, write } => {
                pass_on(world, request, by, partition, write);
            }
            Happening::Errand { by, task, errand } => {
                let fill = errand(&mut world.guests.outside);
                let late_us = world.network.client_us();
                world.after(late_us, Happening::Delivered { at: by, task, fill });
            }
            Happening::Produce => clients::produce(world),
            Happening::ReadNext(reader) => clients::read_next(world, reader),
            Happening::RequestArrives { node, request } => arrives(world, node, request)?,
            Happening::Answered { reader, attempt, replies } => {
                clients::answered(world, reader, attempt, replies)?;
            }
        }
        Ok(())
    }

    fn unmet(world: &mut World<Self>, node: NodeId, happening: Happening) {
        match happening {
            Happening::Asked { by, task, take, .. } => reply_to(world, node, by, task, take, None),
            Happening::RequestArrives { request, .. } => refuse(world, &request),
            Happening::PassedOn { request, .. } => fail(world, request),
            _ => {}
        }
    }

    fn started(world: &mut World<Self>, node: NodeId) {
        let Some(me) = world.node(node).map(|node| node.me()) else { return };
        let process = Process::new(me);
        let mut running = Running::new(Rc::clone(&process));
        let (views, mutant) = (Rc::clone(&world.guests.views), world.guests.mutant);
        let source = Arc::clone(&world.guests.outside.declared.source);
        for partition in 0..PARTITIONS {
            let (process, source, views) = (Rc::clone(&process), Arc::clone(&source), Rc::clone(&views));
            running.spawn(Work { process, source, views, partition, mutant }.run());
        }
        running.spawn(Batch { process, source, views, mutant }.run());
        world.guests.running[node.0 as usize] = Some(running);
        world.guests.told[node.0 as usize] = 0;
        world.after(0, Happening::Wakes { at: me, task: None });
    }

    fn killed(world: &mut World<Self>, node: NodeId) {
        world.guests.count("killed");
        world.guests.running[node.0 as usize] = None;
        world.guests.outside.crash(node.0);
        world.guests.waiting.retain(|waiting| waiting.at.node != node);
        let lost = world.guests.under_way.iter().filter(|(_, under_way)| under_way.route.primary == node);
        let lost: Vec<RequestId> = lost.map(|(request, _)| *request).collect();
        lost.into_iter().for_each(|request| fail(world, request));
        for reader in 0..world.guests.readers.len() {
            let asked = &world.guests.readers[reader];
            if asked.busy && asked.node == node {
                let attempt = asked.attempt();
                world.after(1_000, Happening::Answered { reader, attempt, replies: None });
            }
        }
        let dark = (0..NODES).all(|node| world.node(NodeId(node)).is_none());
        if dark && world.guests.mutant == Some(Mutant::LogLosesEnd) {
            world.guests.outside.lose_end();
        }
    }

    fn stepped(world: &mut World<Self>, node: NodeId) -> Result<(), Violation> {
        let Some(held) = world.node(node) else { return Ok(()) };
        let (me, version) = (held.me(), held.map().version);
        // Borrowed apart, so that what is true can be kept while nodes are looked at.
        let mut truth = std::mem::take(&mut world.guests.truth);
        let held = world.node(node).expect("it was there");
        let looked = truth.look(held, &world.guests.outside.history, &world.guests.views);
        world.guests.truth = truth;
        let told = &mut world.guests.told[node.0 as usize];
        if *told != version {
            *told = version;
            world.after(0, Happening::Wakes { at: me, task: None });
        }
        looked
    }

    fn answered(
        world: &mut World<Self>,
        by: Instance,
        request: RequestId,
        answer: Answer<Written>,
        _map: Arc<ClusterMap>,
    ) -> Result<(), Violation> {
        let Some(UnderWay { by: caller, task, promise, route }) = world.guests.under_way.remove(&request)
        else {
            return Ok(());
        };
        let fill: Filling = Box::new(move |_| promise.fill(answer));
        let first_us = route.by.map_or(Some(0), |relay| way_us(world, by.node, relay));
        let second_us = way_us(world, route.by.unwrap_or(by.node), caller.node);
        if let (Some(first_us), Some(second_us)) = (first_us, second_us) {
            world.after(first_us + second_us, Happening::Delivered { at: caller, task, fill });
        }
        Ok(())
    }

    fn committed(world: &mut World<Self>, map: &ClusterMap) -> Result<(), Violation> {
        world.guests.count("map changed");
        map.violated_invariant().map_or(Ok(()), |invariant| Err(invariant.to_owned()))
    }

    fn carried(
        world: &mut World<Self>,
        between: (NodeId, NodeId),
        message: Message<Hosted>,
    ) -> Message<Hosted> {
        match &message {
            Message::Replication { message: sanso_core::cluster::Replication::Snapshot { .. }, .. } => {
                let nth = world.guests.count("snapshot");
                world.strike(Moment::Named("snapshot", nth as u32), Some(between));
            }
            Message::Replication { .. } => {}
            _ => return message,
        }
        wire::decoded_message(&wire::message(message)).expect("what was encoded can be decoded")
    }

    fn settled(world: &World<Self>) -> Result<(), Violation> {
        let layers = &world.guests;
        let ends: Vec<Offset> = (0..PARTITIONS).map(|l| layers.outside.history.end(l)).collect();
        if ends != layers.acknowledged {
            return Err(format!("the log ends at {ends:?}, acknowledged was {:?}", layers.acknowledged));
        }
        let newest = layers.outside.newest();
        if let Some(pair) = layers.outside.versions.windows(2).find(|pair| !pair[1].follows(&pair[0])) {
            let [before, after] = [&pair[0], &pair[1]].map(|version| (version.number, &version.cut));
            return Err(format!("version {after:?} does not follow {before:?}"));
        }
        for id in newest.blocks.keys() {
            let partition = sanso_core::home_of(*id, CORE_PARTITIONS);
            let whole = ReadRequest::Scan { from: i64::MIN, to: i64::MAX };
            let replies =
                world.in_sync(partition).map(|replica| replica.state().readable().read(*id, &whole));
            let replies: Vec<Option<ReadReply>> = replies.collect();
            let Some(Some(first)) = replies.first() else {
                return Err(format!("{id} is held by nobody at the end"));
            };
            if replies.iter().any(|reply| reply.as_ref() != Some(first)) {
                return Err(format!("the replicas of {id} are not equal at the end"));
            }
            if first.progress.applied != ends {
                return Err(format!(
                    "{id} has applied {:?} at the end, the log ends at {ends:?}",
                    first.progress.applied
                ));
            }
            if first.progress.version + 1 < newest.number {
                return Err(format!(
                    "{id} stands on version {}, of {}",
                    first.progress.version, newest.number
                ));
            }
            let view = layers.views.iter().find(|view| view.fingerprint == id.view).expect("it is declared");
            layers.truth.answered(&layers.outside.history, view, *id, &whole, first)?;
        }
        match layers.readers.iter().position(|reader| reader.busy) {
            Some(reader) => Err(format!("reader {reader} waits still")),
            None => Ok(()),
        }
    }
}

/// Says whether a life of a process is not over.
fn lives(world: &World<Layers>, at: Instance) -> bool {
    world.life(at.node) == Some(at.incarnation)
}

/// Lets a task go on, and grants what it wishes.
fn poll(world: &mut World<Layers>, at: Instance, task: u64) -> Result<(), Violation> {
    loop {
        let (now_us, in_touch) = (world.now_us(), world.is_in_touch(at.node));
        let Some(map) = world.node(at.node).map(|node| Arc::clone(node.map())) else { return Ok(()) };
        let Some(running) = &mut world.guests.running[at.node.0 as usize] else { return Ok(()) };
        running.know(now_us, in_touch, &map);
        running.poll(task);
        let mut again = false;
        for wish in running.process.take_wishes() {
            again |= grant(world, at, task, wish)?;
        }
        if !again {
            return Ok(());
        }
    }
}

/// Does what a task wants; says whether it has it already.
fn grant(world: &mut World<Layers>, at: Instance, task: u64, wish: Wish) -> Result<bool, Violation> {
    match wish {
        Wish::Wake(at_us) => {
            let late_us = at_us.saturating_sub(world.now_us());
            world.after(late_us, Happening::Wakes { at, task: Some(task) });
        }
        Wish::Own(asked, promise) => {
            promise.fill(answer(world, at.node, &asked));
            return Ok(true);
        }
        Wish::Ask(to, asked, take) => {
            if let Some(late_us) = way_us(world, at.node, to) {
                world.after(late_us, Happening::Asked { by: at, task, to, asked, take });
            }
        }
        Wish::Detour(to, turn, promise) => {
            let known = world.guests.mutant != Some(Mutant::NoDetour);
            promise.fill(if known { world.detour(at.node, to, turn) } else { None });
            return Ok(true);
        }
        Wish::Submit(route, partition, write, promise) => {
            world.guests.requests += 1;
            let request = RequestId(world.guests.requests);
            world.guests.under_way.insert(request, UnderWay { by: at, task, route, promise });
            let to = route.by.unwrap_or(route.primary);
            let write = if to == at.node {
                write
            } else {
                wire::encoded(Arc::clone(write.bytes())).expect("what was encoded can be decoded")
            };
            let arrives = match route.by {
                Some(by) => Happening::PassedOn { request, by, partition, write },
                None => Happening::Submitted { request, to, partition, write },
            };
            if let Some(late_us) = way_us(world, at.node, to) {
                world.after(late_us, arrives);
            }
        }
        Wish::Outside(errand) => {
            let late_us = world.network.client_us();
            world.after(late_us, Happening::Errand { by: at, task, errand });
        }
        Wish::Beyond(partition, position, until_us) => {
            if world.guests.outside.history.end(partition) > position {
                return Ok(true);
            }
            world.guests.waiting.push(Waiting { partition, position, at, task });
            let late_us = until_us.saturating_sub(world.now_us());
            world.after(late_us, Happening::Wakes { at, task: Some(task) });
        }
        Wish::Respond(reader, attempt, replies) => {
            let late_us = world.network.client_us();
            world.after(late_us, Happening::Answered { reader, attempt, replies });
        }
        Wish::Moment(what, node) => {
            let nth = world.guests.count(what);
            world.tell(|| format!("{what}, at {node} by {at}"));
            world.strike(Moment::Named(what, nth as u32), Some((node, at.node)));
        }
        Wish::Broken(what) => return Err(what),
    }
    Ok(false)
}

/// Draws what a message of a call takes; none when it is lost.
fn way_us(world: &mut World<Layers>, from: NodeId, to: NodeId) -> Option<u64> {
    if from == to {
        return Some(100);
    }
    let now_us = world.now_us();
    Some(world.network.carry(from, to, now_us)? - now_us)
}

/// Lets a node's own replica answer.
fn answer(world: &mut World<Layers>, at: NodeId, asked: &Asked) -> Reply {
    let Some(Ok(shown)) = world.read(at, asked.partition, Position::default()) else {
        return Reply::NotInSync;
    };
    let (held, fresh) = (shown.state.readable(), shown.fresh);
    match &asked.question {
        Question::Read(request) => {
            held.read(asked.id, request).map_or(Reply::NotLive, |reply| Reply::Read(reply, fresh))
        }
        Question::Segment(segment) => held.segment(asked.id, *segment).map_or(Reply::NotLive, Reply::Segment),
    }
}

/// Brings a reply to who asked; a dead node's connection breaks instead.
fn reply_to(
    world: &mut World<Layers>,
    from: NodeId,
    to: Instance,
    task: u64,
    take: Taking,
    reply: Option<Reply>,
) {
    let late_us = match &reply {
        Some(_) => way_us(world, from, to.node),
        None => (from == to.node || world.network.connects(from, to.node)).then_some(1_000),
    };
    if let Some(late_us) = late_us {
        let fill: Filling = Box::new(move |now_us| take(reply, now_us));
        world.after(late_us, Happening::Delivered { at: to, task, fill });
    }
}

/// Lets a node pass a write on to the primary that it knows.
fn pass_on(world: &mut World<Layers>, request: RequestId, by: NodeId, partition: Partition, write: Encoded) {
    let map = world.node(by).map(|node| Arc::clone(node.map()));
    let primary = map.and_then(|map| map.partitions.get(partition.0 as usize)?.primary);
    let Some(to) = primary.map(|primary| primary.instance.node) else {
        return fail(world, request);
    };
    let Some(under_way) = world.guests.under_way.get_mut(&request) else { return };
    under_way.route.primary = to;
    world.guests.count("passed on");
    if let Some(late_us) = way_us(world, by, to) {
        world.after(late_us, Happening::Submitted { request, to, partition, write });
    }
}

/// Tells a writer, unless it is cut off, that its connection is broken.
fn fail(world: &mut World<Layers>, request: RequestId) {
    let Some(UnderWay { by, task, route, promise }) = world.guests.under_way.remove(&request) else { return };
    let to = route.by.unwrap_or(route.primary);
    if by.node == to || world.network.connects(by.node, to) {
        let fill: Filling = Box::new(move |_| promise.fill(Answer::Unknown));
        world.after(1_000, Happening::Delivered { at: by, task, fill });
    }
}

fn arrives(world: &mut World<Layers>, node: NodeId, request: Request) -> Result<(), Violation> {
    let Some(running) = &mut world.guests.running[node.0 as usize] else {
        refuse(world, &request);
        return Ok(());
    };
    let mut request = request;
    if world.guests.mutant == Some(Mutant::SessionForgotten) {
        request.seen = None;
    }
    let process = Rc::clone(&running.process);
    let at = process.me;
    let task = running.spawn(serving::serve(process, request));
    poll(world, at, task)
}

/// Tells a reader that its connection is broken.
fn refuse(world: &mut World<Layers>, request: &Request) {
    let (reader, attempt) = (request.reader, request.attempt);
    world.after(1_000, Happening::Answered { reader, attempt, replies: None });
}

/// What one run has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// Of the world.
    pub outcome: Outcome,
    /// How often each kind of event happened.
    pub happened: BTreeMap<&'static str, u64>,
    /// How many answers were given.
    pub reads: u64,
    /// The longest read that waited for nothing its reader had seen, in microseconds.
    pub worst_read_us: u64,
    /// The longest read of a reader that never goes back.
    pub worst_seen_us: u64,
    /// The longest until a reader saw what was appended.
    pub worst_visible_us: u64,
}

/// Runs seeds of the layers; keeps what is the same for all of them.
pub struct Simulation(Vec<Arc<Declared>>);

impl Default for Simulation {
    fn default() -> Self {
        Self([4, 7, 16].map(|segment| Arc::new(crate::declare(segment, "readings"))).into())
    }
}

impl Simulation {
    /// Runs one seed, perhaps with a rule that is broken. An error says which promise was not kept,
    /// stalls included.
    pub fn run(&self, seed: u64, mutant: Option<Mutant>) -> Result<Ran, Violation> {
        let declared = &self.0[seed as usize % self.0.len()];
        let setting = Setting::new(CORE_PARTITIONS, REPLICAS);
        let mut world = World::new(seed, setting, plan::draw, |rng, _| Layers::new(rng, declared, mutant));
        let outcome = world.run().map_err(|violation| format!("seed {seed}, {violation}"))?;
        let layers = world.guests;
        let ran = Ran {
            outcome,
            reads: layers.readers.iter().map(|reader| reader.done).sum(),
            worst_read_us: layers.worst_us(Habit::Forgets),
            worst_seen_us: layers.worst_us(Habit::Remembers),
            worst_visible_us: layers.worst_us(Habit::Watches),
            happened: layers.happened,
        };
        match ran.outcome.single {
            Some(fault) => ran.within_bounds(seed, fault),
            None => Ok(ran),
        }
    }
}

impl Ran {
    fn within_bounds(self, seed: u64, fault: Kind) -> Result<Self, Violation> {
        let reads = [("a read", self.worst_read_us, READ_STALL_US)];
        let seen = [
            ("what was appended", self.worst_visible_us, VISIBLE_US),
            ("what was seen", self.worst_seen_us, VISIBLE_US),
        ];
        for (what, worst_us, bound_us) in reads.into_iter().chain(seen) {
            if worst_us > bound_us {
                return Err(format!(
                    "seed {seed}, {fault:?}: {what} took {worst_us} us, the bound is {bound_us}"
                ));
            }
        }
        if self.outcome.lives_lost > 0 {
            return Err(format!(
                "seed {seed}, {fault:?}: one fault lost {} partitions",
                self.outcome.lives_lost
            ));
        }
        Ok(self)
    }
}
