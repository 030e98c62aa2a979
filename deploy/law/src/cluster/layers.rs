//! What the layers of all nodes are, what happens to them, and what must hold.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sanso_cluster::transfer::{self, Transfer, Transfers};
use sanso_cluster::wire::{self, Heard};
use sanso_core::cluster::sim::{Guests, Moment, NODES, Violation, World};
use sanso_core::cluster::{
    Answer, ClusterMap, Event, Incarnation, Instance, Message, NodeId, Partition, Position, Replication,
    RequestId,
};
use sanso_core::{Encoded, Hosted, ReadReply, ReadRequest, Written, home_of};
use sanso_state::{Fingerprint, Offset};
use sanso_view::View;

use super::CORE_PARTITIONS;
use super::batch::Batch;
use super::calls;
use super::clients::{self, HABITS, Habit, Reader};
use super::mutant::Mutant;
use super::outside::Outside;
use super::process::{Asked, Errand, Filling, Process, Promise, Route, Running, Taking};
use super::serving::Request;
use super::speed::Work;
use super::truth::Truth;
use crate::Declared;
use crate::history::{PARTITIONS, choose};

/// Small, so that few states are one piece.
const PIECE_BYTES: usize = 2_000;

/// What happens to the layers at a time.
pub(super) enum Happening {
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
pub(super) struct UnderWay {
    pub(super) by: Instance,
    pub(super) task: u64,
    pub(super) route: Route,
    pub(super) promise: Promise<Answer<Written>>,
}

/// Who waits for a log partition to have more than a position.
pub(super) struct Waiting {
    pub(super) partition: u32,
    pub(super) position: Offset,
    pub(super) at: Instance,
    pub(super) task: u64,
}

/// The layers of all nodes, what outlives them, and who uses them.
pub(super) struct Layers {
    pub(super) views: Rc<[Arc<View>]>,
    pub(super) outside: Outside,
    pub(super) running: Vec<Option<Running>>,
    /// The newest map that each node's tasks were woken for.
    pub(super) told: Vec<u64>,
    pub(super) under_way: BTreeMap<RequestId, UnderWay>,
    pub(super) requests: u64,
    pub(super) waiting: Vec<Waiting>,
    pub(super) readers: Vec<Reader>,
    pub(super) rates: Vec<u32>,
    /// What the log has acknowledged.
    pub(super) acknowledged: Vec<Offset>,
    /// Keys that have been seen in a view.
    pub(super) keys: BTreeMap<Fingerprint, BTreeSet<Box<[u8]>>>,
    pub(super) truth: Truth,
    pub(super) mutant: Option<Mutant>,
    pub(super) happened: BTreeMap<&'static str, u64>,
}

impl Layers {
    pub(super) fn new(rng: &mut StdRng, declared: &Arc<Declared>, mutant: Option<Mutant>) -> Self {
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

    pub(super) fn count(&mut self, what: &'static str) -> u64 {
        let count = self.happened.entry(what).or_default();
        *count += 1;
        *count
    }

    pub(super) fn worst_us(&self, habit: Habit) -> u64 {
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
            Happening::Wakes { at, task } if calls::lives(world, at) => match task {
                Some(task) => calls::poll(world, at, task)?,
                None => {
                    let tasks = world.guests.running[at.node.0 as usize].as_ref().map(Running::tasks);
                    for task in tasks.unwrap_or_default() {
                        calls::poll(world, at, task)?;
                    }
                }
            },
            Happening::Delivered { at, task, fill } if calls::lives(world, at) => {
                fill(world.now_us());
                calls::poll(world, at, task)?;
            }
            Happening::Wakes { .. } | Happening::Delivered { .. } => {}
            Happening::Asked { by, task, to, asked, take } => {
                let runs = world.node(to).is_some();
                let reply = runs.then(|| calls::answer(world, to, &asked));
                calls::reply_to(world, to, by, task, take, reply);
            }
            Happening::Submitted { request, to, partition, write } => {
                if world.node(to).is_none() {
                    calls::fail(world, request);
                }
                world.step(to, Event::Submit(partition, request, write))?;
            }
            Happening::PassedOn { request, by, partition, write } => {
                calls::pass_on(world, request, by, partition, write);
            }
            Happening::Errand { by, task, errand } => {
                let fill = errand(&mut world.guests.outside);
                let late_us = world.network.client_us();
                world.after(late_us, Happening::Delivered { at: by, task, fill });
            }
            Happening::Produce => clients::produce(world),
            Happening::ReadNext(reader) => clients::read_next(world, reader),
            Happening::RequestArrives { node, request } => calls::arrives(world, node, request)?,
            Happening::Answered { reader, attempt, replies } => {
                clients::answered(world, reader, attempt, replies)?;
            }
        }
        Ok(())
    }

    fn unmet(world: &mut World<Self>, node: NodeId, happening: Happening) {
        match happening {
            Happening::Asked { by, task, take, .. } => calls::reply_to(world, node, by, task, take, None),
            Happening::RequestArrives { request, .. } => calls::refuse(world, &request),
            Happening::PassedOn { request, .. } => calls::fail(world, request),
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
        lost.into_iter().for_each(|request| calls::fail(world, request));
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
        let first_us = route.by.map_or(Some(0), |relay| calls::way_us(world, by.node, relay));
        let second_us = calls::way_us(world, route.by.unwrap_or(by.node), caller.node);
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
        let Message::Replication { partition, epoch, from_since, to_since, message } = message else {
            return message;
        };
        if let Replication::Snapshot { at, state } = message {
            let nth = world.guests.count("snapshot");
            world.strike(Moment::Named("snapshot", nth as u32), Some(between));
            let of = Transfer { partition, epoch, from_since, to_since, number: nth };
            return in_pieces(of, at, state);
        }
        let message = Message::Replication { partition, epoch, from_since, to_since, message };
        let bytes = wire::message(message).expect("it can be read");
        match wire::heard(&bytes).expect("what was encoded can be decoded") {
            Heard::Message(message) => message,
            Heard::Piece(piece) => panic!("{piece:?} was a message"),
        }
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
            let partition = home_of(*id, CORE_PARTITIONS);
            let whole = ReadRequest::Scan { from: i64::MIN, to: i64::MAX };
            let replies =
                world.in_sync(partition).map(|replica| replica.state().readable().read(*id, &whole));
            let mut replies: Vec<Option<ReadReply>> = replies.collect();
            // How many runs have a group is each replica's own affair.
            replies.iter_mut().flatten().for_each(|reply| reply.progress.base_groups = 0);
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

/// Returns a state as it arrives that was sent in small pieces.
fn in_pieces(of: Transfer, at: Position, state: Hosted) -> Message<Hosted> {
    let (mut transfers, mut whole) = (Transfers::default(), None);
    let from = Instance { node: NodeId(0), incarnation: Incarnation(1) };
    let cut = transfer::cut(of, at, state, PIECE_BYTES, |piece| {
        let Ok(Heard::Piece(piece)) = wire::heard(&wire::piece(piece)) else { panic!("it was a piece") };
        whole = transfers.take(from, piece).expect("it is the next");
        true
    });
    cut.expect("it can be read");
    whole.expect("the last was taken")
}
