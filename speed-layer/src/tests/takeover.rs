//! Who emits changes at any step, and several emit at once: in the end the topic holds, by order of offsets
//! and by revision, what the view holds.
//!
//! Three nodes have replicas of one view partition, each at its own place of the same history, and each
//! may believe that it is to emit. What they append may land late, also when they are long gone.

use std::collections::BTreeMap;
use std::sync::Arc;

use sanso_core::{Emitted, PartitionId};
use sanso_log::Record;
use sanso_state::{Block, Delta, Entry, Groups, LogPartition, Offset, Outcome, ViewPartition};
use sanso_view::{Application, View};
use serde_json::Value as Json;

use super::{Dice, LOG_PARTITIONS, SQL, expected, history};
use crate::emission::Emission;
use crate::emitted::EmittedWindow;
use crate::emitted_record::EmittedRecord;

const TOPIC: &str = "closed";
const ID: u32 = 0;

type Kept = BTreeMap<Vec<u8>, Vec<u8>>;
type Values = Option<BTreeMap<String, Json>>;

/// What is done wrong on purpose.
#[derive(Clone, Copy, PartialEq)]
enum Planted {
    Nothing,
    /// Windows that another has written are not looked at again.
    NotContested,
    /// Who begins does not look at what the topic has.
    GoneForgotten,
}

struct Node {
    /// Which of the view partition's lives its replica is of, and how much of that it has.
    life: usize,
    at: usize,
    replica: ViewPartition,
    emission: Emission<Kept>,
    emits: bool,
    /// Appended, with nothing heard of it yet.
    sent: Option<Vec<EmittedWindow>>,
}

struct World {
    dice: Dice,
    view: Arc<View>,
    logs: Vec<Vec<Option<Record>>>,
    /// The order in which each life of the view partition took deltas: log partition, from, to.
    lives: Vec<Vec<(usize, Offset, Offset)>>,
    nodes: Vec<Node>,
    topic: Vec<EmittedWindow>,
    /// Appends of processes that are gone, which may land still.
    ether: Vec<Vec<EmittedWindow>>,
    planted: Planted,
}

impl World {
    fn new(seed: u64, planted: Planted) -> Self {
        let mut dice = Dice::new(seed);
        let logs = (0..LOG_PARTITIONS).map(|l| history(l, 24, &mut dice)).collect();
        let view = view();
        let mut world = Self {
            dice,
            view,
            logs,
            lives: vec![Vec::new()],
            nodes: Vec::new(),
            topic: Vec::new(),
            ether: Vec::new(),
            planted,
        };
        world.nodes = (0..3).map(|_| world.node(0, Kept::new())).collect();
        world
    }

    fn id(&self) -> PartitionId {
        PartitionId { view: self.view.fingerprint, index: ID }
    }

    /// A node that has begun anew in the newest life, with so much of it.
    fn node(&self, at: usize, kept: Kept) -> Node {
        let life = self.lives.len() - 1;
        let base = Arc::new(Block::empty(self.view.fingerprint, LOG_PARTITIONS));
        let mut replica = ViewPartition::new(self.view.partition_config(), base);
        self.lives[life][..at].iter().for_each(|delta| self.apply(&mut replica, *delta));
        let emission = Emission::new(EmittedRecord::of(kept));
        Node { life, at, replica, emission, emits: false, sent: None }
    }

    /// Applies the delta of a range of one log partition.
    fn apply(&self, replica: &mut ViewPartition, (l, from, to): (usize, Offset, Offset)) {
        let fold = |to: Offset| -> Groups {
            let mut logs: Vec<&[Option<Record>]> = vec![&[]; self.logs.len()];
            logs[l] = &self.logs[l][..to as usize];
            expected(&self.view, ID, &logs)
        };
        let mut groups = fold(to);
        groups.retract(&fold(from));
        let outcome = replica.apply(Entry::Delta(Delta {
            view: self.view.fingerprint,
            partition: LogPartition(l as u32),
            from,
            to,
            groups,
            // A pure function of the prefix, as watermarks are.
            watermark_us: Some(1_717_200_000_000_000 + to as i64 * 3_600_000_000),
            idle: false,
        }));
        assert_eq!(outcome, Outcome::Accepted { applied: to });
    }

    /// The newest life goes on by a delta, which lies within one segment of four.
    fn commit(&mut self, l: usize) {
        let life = self.lives.last().expect("there is one");
        let from = life.iter().filter(|delta| delta.0 == l).map(|delta| delta.2).max().unwrap_or(0);
        let end = (self.logs[l].len() as Offset).min(from - from % 4 + 4);
        if from < end {
            let to = from + 1 + self.dice.below(end - from);
            self.lives.last_mut().expect("there is one").push((l, from, to));
        }
    }

    fn follow(&mut self, n: usize) {
        let (life, at) = (self.nodes[n].life, self.nodes[n].at);
        // One of an earlier life hears of nothing any longer.
        if life + 1 == self.lives.len() && at < self.lives[life].len() {
            let mut replica = self.nodes[n].replica.clone();
            self.apply(&mut replica, self.lives[life][at]);
            self.nodes[n].replica = replica;
            self.nodes[n].at += 1;
        }
    }

    /// A node reads the topic to its end.
    fn read(&mut self, n: usize) {
        let views = BTreeMap::from([(self.view.fingerprint, Arc::clone(&self.view))]);
        let node = &mut self.nodes[n];
        let from = node.emission.synced(TOPIC, 0).expect("in memory");
        let (to, rest) = (self.topic.len() as Offset, &self.topic[from as usize..]);
        let places = node.emission.read(TOPIC, 0, to, rest, &views).expect("in memory");
        if self.planted != Planted::NotContested {
            node.replica.offer_windows(places.into_iter().map(|(_, group, end)| (group, end)));
        }
    }

    fn begin(&mut self, n: usize) {
        self.read(n);
        let (view, id, planted) = (Arc::clone(&self.view), self.id(), self.planted);
        let Node { replica, emission, emits, .. } = &mut self.nodes[n];
        let applied = replica.applied().to_vec();
        if !emission.may_begin(&view, id, &applied).expect("in memory") {
            return;
        }
        *emits = true;
        emission.forget(id);
        replica.emit(Arc::new(view.window.clone()));
        replica.offer(&replica.group_ids());
        let mut after = Some(String::new());
        while let Some(from) = after.take().filter(|_| planted != Planted::GoneForgotten) {
            let listed = emission.with_values(&view, id, &applied, &from, 2).expect("in memory");
            replica.offer_windows(listed.windows);
            after = listed.next;
        }
    }

    fn send(&mut self, n: usize) {
        let (view, id) = (Arc::clone(&self.view), self.id());
        let node = &mut self.nodes[n];
        if !node.emits || node.sent.is_some() {
            return;
        }
        let emissions = node.replica.take_emissions();
        node.emission.take(id, Emitted { emissions, applied: node.replica.applied().to_vec() });
        node.sent = node.emission.due(&view, id).expect("in memory").filter(|due| !due.is_empty());
    }

    /// What a node has sent lands in the topic; whether it hears of that or not.
    fn land(&mut self, n: usize, heard: bool) {
        let Some(sent) = self.nodes[n].sent.take() else { return };
        let first = self.topic.len() as Offset;
        self.topic.extend(sent.iter().cloned());
        let offsets: Vec<Offset> = (first..self.topic.len() as Offset).collect();
        let id = self.id();
        let emission = &mut self.nodes[n].emission;
        let ours = heard && emission.appended(TOPIC, 0, &offsets, &sent).expect("in memory");
        if heard {
            emission.forget(id);
        }
        if !ours {
            self.read(n);
        }
    }

    /// A process ends; what it had sent may land later, at once, or never. Its record stays, or is lost.
    fn crash(&mut self, n: usize, alone: bool) {
        let sent = self.nodes[n].sent.take();
        match self.dice.below(3) {
            0 => self.topic.extend(sent.into_iter().flatten()),
            1 if !alone => self.ether.extend(sent),
            _ => {}
        }
        let life = self.lives.last().expect("there is one").len() as u64;
        let at = life - self.dice.below(4).min(life);
        let mut next = self.node(at as usize, Kept::new());
        if self.dice.below(2) == 0 {
            next.emission =
                std::mem::replace(&mut self.nodes[n].emission, Emission::new(EmittedRecord::of(Kept::new())));
            next.emission.forget(self.id());
        }
        self.nodes[n] = next;
    }

    fn step(&mut self) {
        let n = self.dice.below(3) as usize;
        match self.dice.below(24) {
            0..4 => {
                let l = self.dice.below(u64::from(LOG_PARTITIONS)) as usize;
                self.commit(l);
            }
            4..10 => self.follow(n),
            10..12 => self.begin(n),
            12..14 => self.read(n),
            14..18 => self.send(n),
            18..21 => self.land(n, true),
            21 => self.land(n, false),
            22 => self.crash(n, false),
            _ if self.dice.below(4) == 0 => {
                // All replicas are lost, but one or another believes in its own still.
                self.lives.push(Vec::new());
            }
            _ => {
                let landed = self.ether.pop();
                self.topic.extend(landed.into_iter().flatten());
            }
        }
    }

    /// A step of one emitter at a time, which is replaced only after it is gone for good.
    fn step_alone(&mut self) {
        match self.dice.below(12) {
            0..3 => {
                let l = self.dice.below(u64::from(LOG_PARTITIONS)) as usize;
                self.commit(l);
            }
            3..6 => self.follow(0),
            6 if !self.nodes[0].emits => self.begin(0),
            6..9 => self.send(0),
            9 | 10 => self.land(0, true),
            _ => self.crash(0, true),
        }
    }

    /// Everything is applied at one node, which emits alone until nothing is left. What others had sent by
    /// then lands when it has told everything, and it may be one that has just begun.
    fn heal(&mut self) {
        let last = self.nodes.len() - 1;
        for n in 0..last {
            self.begin(n);
            self.send(n);
        }
        for _ in 0..48 {
            (0..LOG_PARTITIONS as usize).for_each(|l| self.commit(l));
        }
        if self.nodes[last].life + 1 != self.lives.len() || self.dice.below(2) == 0 {
            self.land(last, false);
            self.nodes[last] = self.node(0, Kept::new());
        }
        let rest = self.lives.last().expect("there is one").len();
        (0..rest).for_each(|_| self.follow(last));
        self.tell(last);
        self.topic.extend(std::mem::take(&mut self.ether).into_iter().flatten());
        (0..last).for_each(|n| self.land(n, false));
        self.tell(last);
    }

    /// A node emits until nothing is left.
    fn tell(&mut self, n: usize) {
        for _ in 0..10 {
            if !self.nodes[n].emits {
                self.begin(n);
            }
            self.read(n);
            self.send(n);
            if self.nodes[n].sent.is_none() {
                return;
            }
            self.land(n, true);
        }
        panic!("it never ends");
    }

    /// What the closed windows hold, by one who knows of nothing else.
    fn wanted(&self) -> BTreeMap<String, Values> {
        let all = self.lives.last().expect("there is one").len();
        let mut node = self.node(all, Kept::new());
        node.replica.emit(Arc::new(self.view.window.clone()));
        node.replica.offer(&node.replica.group_ids());
        let emissions = node.replica.take_emissions();
        node.emission.take(self.id(), Emitted { emissions, applied: node.replica.applied().to_vec() });
        let due = node.emission.due(&self.view, self.id()).expect("in memory").expect("it is ahead");
        due.into_iter().map(|window| (window.id.clone(), window.values)).collect()
    }

    /// Says whether a consumer that orders records like this knows what the closed windows hold.
    fn is_told(&self, newer: impl Fn(&EmittedWindow, &EmittedWindow) -> bool) -> bool {
        let mut told: BTreeMap<String, &EmittedWindow> = BTreeMap::new();
        for window in &self.topic {
            let known = told.entry(window.id.clone()).or_insert(window);
            if newer(window, known) {
                *known = window;
            }
        }
        let told = told.into_iter().filter(|(_, window)| window.values.is_some());
        let told: BTreeMap<String, Values> =
            told.map(|(identity, window)| (identity, window.values.clone())).collect();
        told == self.wanted()
    }
}

/// A view whose readings move between groups when they are corrected, so that windows come and go.
fn view() -> Arc<View> {
    let sql = SQL
        .replace("SELECT r.usage_point,", "SELECT r.divisor,")
        .replace("BY r.usage_point, window", "BY r.divisor, window");
    let application = Application::parse(&sql).unwrap_or_else(|error| panic!("{error}"));
    let mut views = application.bind(std::path::Path::new(".")).unwrap_or_else(|error| panic!("{error}"));
    views.remove(0)
}

fn run(seed: u64, planted: Planted) -> bool {
    let mut world = World::new(seed, planted);
    (0..160).for_each(|_| world.step());
    world.heal();
    world.is_told(|_, _| true) && world.is_told(|new, known| new.revision > known.revision)
}

#[test]
fn whoever_emits_and_however_many_the_newest_content_is_last_and_highest() {
    for seed in 0..150 {
        assert!(run(seed, Planted::Nothing), "seed {seed}");
    }
}

#[test]
fn an_emitter_that_forgets_what_is_in_the_topic_is_caught() {
    assert!((0..150).any(|seed| !run(seed, Planted::NotContested)), "not contested");
    assert!((0..150).any(|seed| !run(seed, Planted::GoneForgotten)), "gone forgotten");
}

#[test]
fn one_emitter_after_the_other_writes_each_content_once() {
    for seed in 0..100 {
        let mut world = World::new(seed, Planted::Nothing);
        world.nodes.truncate(1);
        (0..120).for_each(|_| world.step_alone());
        let mut known: BTreeMap<String, &EmittedWindow> = BTreeMap::new();
        for window in &world.topic {
            let before = known.insert(window.id.clone(), window);
            let is_news = before
                .is_none_or(|before| before.values != window.values && before.revision < window.revision);
            assert!(is_news, "seed {seed}: {before:?} is followed by {window:?}");
        }
    }
}
