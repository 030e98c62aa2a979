//! The faults: a table of names, each a list of steps. Pure.

use std::fmt;
use std::time::Duration;

use crate::verdict::Bounds;

/// The meters of readings that nobody asks for.
pub const PRELOADED_METERS: u32 = 1_000;

/// Which nodes a step means. The same pick means the same nodes throughout a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pick {
    /// One that holds a part of the data first-hand.
    One,
    /// Another one than [`Pick::One`].
    Another,
    /// All of them.
    All,
    /// The one that leads the agreement.
    Leader,
    /// One of a role.
    Role(&'static str),
    /// One that does a task of the batch layer, but does not drive it where there is another.
    Worker,
    /// The node of this number.
    Node(usize),
    /// A broker of the log, which is no node.
    Broker,
    /// None: it is done to the cluster as a whole.
    Nobody,
}

/// Views that are declared while the cluster runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Views {
    /// A group for each meter and day.
    Daily,
    /// And one for each meter and hour: 720,000 for a month of 1,000 meters.
    DailyAndHourly,
}

/// What can be done to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Kills the process (SIGKILL).
    Kill,
    /// Asks the process to end (SIGTERM) and waits for it.
    Stop,
    /// Starts the process again, with the data it had.
    Start,
    /// Kills the process (SIGKILL) and deletes its data folder.
    LoseDisk,
    /// Starts it without data, as a new machine of that name, and does what an operator is told to: where
    /// it votes, it is taken out of the voters and added again.
    Replace,
    /// Freezes the process (SIGSTOP).
    Pause,
    /// Lets it go on.
    Resume,
    /// Leaves it this many of each 100 ms of processor time: it is frozen for the others.
    Starve(u32),
    /// Gives it all of them again.
    Feed,
    /// Swallows what goes from and to it.
    Cut,
    /// Swallows what it sends.
    CutOut,
    /// Swallows what is sent to it.
    CutIn,
    /// Holds back what it sends by so many milliseconds.
    Delay(u32),
    /// Loses so many percent of what it sends.
    Lose(u32),
    /// Mends its links.
    Mend,
    /// Makes its disk's flushes take this many milliseconds longer.
    SlowDisk(u32),
    /// Makes them quick again.
    QuickDisk,
    /// Leaves no byte free on its disk.
    FillDisk,
    /// Makes room again.
    EmptyDisk,
    /// Sets its wall clock this many seconds ahead, at once.
    JumpClock(u32),
    /// Sets it right, at once.
    SetClock,
    /// Sends so many readings that nobody asks for, as fast as they are taken.
    Flood(u32),
    /// Waits until all of them can be seen and are archived.
    Settle,
    /// Declares views over all that is archived, and waits until the batch layer works on them.
    DeclareViews(Views),
    /// Waits until they are there, and compares them with what was sent.
    AwaitViews(Views),
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Act::Kill => "kill",
            Act::Stop => "stop",
            Act::Start => "start",
            Act::LoseDisk => "kill, and lose the disk",
            Act::Replace => "replace",
            Act::Pause => "pause",
            Act::Resume => "resume",
            Act::Starve(percent) => return write!(f, "{percent} % of the time"),
            Act::Feed => "all of the time",
            Act::Cut => "cut off",
            Act::CutOut => "cut off, out",
            Act::CutIn => "cut off, in",
            Act::Delay(ms) => return write!(f, "delay by {ms} ms"),
            Act::Lose(percent) => return write!(f, "lose {percent} %"),
            Act::Mend => "mend",
            Act::SlowDisk(ms) => return write!(f, "flushes take {ms} ms"),
            Act::QuickDisk => "quick flushes",
            Act::FillDisk => "fill the disk",
            Act::EmptyDisk => "empty the disk",
            Act::JumpClock(ahead_s) => return write!(f, "clock {ahead_s} s ahead"),
            Act::SetClock => "set the clock",
            Act::Flood(readings) => return write!(f, "{readings} readings at once"),
            Act::Settle => "settle",
            Act::DeclareViews(Views::Daily) => "a view over all that is archived",
            Act::DeclareViews(Views::DailyAndHourly) => "two views over all that is archived",
            Act::AwaitViews(_) => "wait for the views",
        };
        f.write_str(name)
    }
}

impl Act {
    /// Says whether it begins a fault, which goes on until it is undone.
    pub fn harms(self) -> bool {
        !matches!(
            self,
            Act::Start
                | Act::Replace
                | Act::Resume
                | Act::Feed
                | Act::Mend
                | Act::QuickDisk
                | Act::EmptyDisk
                | Act::SetClock
                | Act::Settle
                | Act::AwaitViews(_)
        )
    }
}

/// One step of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Does something to some nodes.
    Do(Act, Pick),
    /// Leaves things as they are for a while: the drill's holding time, as often as it says.
    Hold(u32),
    /// Waits until all nodes are well.
    Well,
}

/// A fault by name.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// What it is called by.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    /// What is done.
    pub steps: Vec<Step>,
    /// How long clients may wait; none where the whole cluster is gone for a while.
    pub bounds: Option<Bounds>,
    /// The readings that are to be archived before it, at least.
    pub preload_min: u32,
}

/// Returns all faults for a cluster of so many nodes.
pub fn all(nodes: usize) -> Vec<Fault> {
    use Act::{
        Cut, CutIn, CutOut, Delay, Feed, Kill, Lose, Mend, Pause, QuickDisk, Resume, SlowDisk, Starve,
    };
    let single = |name, about, harm, pick, heal| Fault {
        name,
        about,
        steps: vec![Step::Do(harm, pick), Step::Hold(1), Step::Do(heal, pick), Step::Well],
        bounds: Some(Bounds::SINGLE),
        preload_min: 0,
    };
    let start = Act::Start;
    let one = Pick::One;
    let mut all = vec![
        single("kill", "kill -9 of a node, started again after a while", Kill, one, start),
        single("pause", "a node is frozen (SIGSTOP), and goes on after a while", Pause, one, Resume),
        single("restart", "a node is stopped in order, started again after a while", Act::Stop, one, start),
        single("leader", "kill -9 of the node that leads the agreement", Kill, Pick::Leader, start),
        single(
            "lost-disk",
            "kill -9 of a node, whose data is lost: a new machine takes its name",
            Act::LoseDisk,
            one,
            Act::Replace,
        ),
        single("batch", "kill -9 of a node with the batch role", Kill, Pick::Role("batch"), start),
        single("speed", "kill -9 of a node with the speed role", Kill, Pick::Role("speed"), start),
        single("serving", "kill -9 of a node with the serving role", Kill, Pick::Role("serving"), start),
        Fault {
            steps: rolling(nodes),
            ..single("rolling", "all nodes are restarted, one by one", Kill, one, start)
        },
        Fault {
            steps: two_in_a_row(),
            ..single("two", "kill -9 of a node, and of another as soon as it is back", Kill, one, start)
        },
        Fault {
            bounds: None,
            ..single("power", "kill -9 of all nodes, started again after a while", Kill, Pick::All, start)
        },
        Fault {
            bounds: Some(Bounds::ALWAYS),
            ..single("starve", "a node gets 10 of each 100 ms", Starve(10), one, Feed)
        },
        single("cut", "a node's links swallow everything, both ways", Cut, one, Mend),
        single("cut-out", "what a node sends is swallowed", CutOut, one, Mend),
        single("cut-in", "what is sent to a node is swallowed", CutIn, one, Mend),
        Fault {
            bounds: Some(Bounds::SLOW_LINK),
            ..single("delay", "what a node sends takes 200 ms longer", Delay(200), one, Mend)
        },
        Fault {
            bounds: Some(Bounds::SLOW_LINK),
            ..single("loss", "5 percent of what a node sends are lost", Lose(5), one, Mend)
        },
        Fault {
            bounds: Some(Bounds::LOG),
            ..single("broker", "kill -9 of one of three Kafka brokers", Kill, Pick::Broker, start)
        },
        single("slow-disk", "a node's flushes take 200 ms longer", SlowDisk(200), one, QuickDisk),
        single("full-disk", "a node's disk is full for a while", Act::FillDisk, one, Act::EmptyDisk),
        single(
            "clock",
            "a node's clock jumps an hour ahead, and back",
            Act::JumpClock(3_600),
            one,
            Act::SetClock,
        ),
    ];
    all.extend(with_much_to_do());
    all
}

/// Returns the faults in which the batch layer is given much to do.
fn with_much_to_do() -> [Fault; 5] {
    let kill_of = |pick| [Step::Do(Act::Kill, pick), Step::Hold(1), Step::Do(Act::Start, pick)];
    [
        flood("flood", "half a million readings come at once", &[Step::Hold(1)]),
        flood("flood-kill", "kill -9 of a node while they are archived", &kill_of(Pick::One)),
        job("job", "a view is declared over a month of 1,000 meters", Views::Daily, &[]),
        job("job-kill", "kill -9 of a node that works on such a view", Views::Daily, &kill_of(Pick::Worker)),
        job("job-large", "and another one, of 720,000 groups", Views::DailyAndHourly, &[]),
    ]
}

/// Many more readings than a version of the batch layer takes at once.
const FLOOD: Act = Act::Flood(500_000);

/// A fault in which the batch layer is given much to do at once, and something else happens meanwhile.
fn flood(name: &'static str, about: &'static str, meanwhile: &[Step]) -> Fault {
    let begin = [Step::Do(FLOOD, Pick::Nobody)];
    let settle = [Step::Do(Act::Settle, Pick::Nobody), Step::Well];
    let steps = [&begin, meanwhile, &settle].concat();
    Fault { name, about, steps, bounds: Some(Bounds::ALWAYS), preload_min: 0 }
}

/// Half-hourly readings of a month.
const MONTH: u32 = 30 * 48 * PRELOADED_METERS;

/// A fault in which a view is computed from all that is archived, and something else happens meanwhile.
fn job(name: &'static str, about: &'static str, views: Views, meanwhile: &[Step]) -> Fault {
    let begin = [Step::Do(Act::DeclareViews(views), Pick::Nobody)];
    let end = [Step::Do(Act::AwaitViews(views), Pick::Nobody), Step::Well];
    let steps = [&begin, meanwhile, &end].concat();
    Fault { name, about, steps, bounds: Some(Bounds::SINGLE), preload_min: MONTH }
}

fn rolling(nodes: usize) -> Vec<Step> {
    let restart = |node| {
        let pick = Pick::Node(node);
        [Step::Do(Act::Stop, pick), Step::Do(Act::Start, pick), Step::Well]
    };
    (0..nodes).flat_map(restart).collect()
}

fn two_in_a_row() -> Vec<Step> {
    let lose = |pick| [Step::Do(Act::Kill, pick), Step::Hold(1), Step::Do(Act::Start, pick), Step::Well];
    [lose(Pick::One), lose(Pick::Another)].concat()
}

impl Fault {
    /// Says whether it does something of a kind, or to some kind of node.
    pub fn has(&self, kind: fn(Act, Pick) -> bool) -> bool {
        self.steps.iter().any(|step| matches!(*step, Step::Do(act, pick) if kind(act, pick)))
    }
}

/// Returns the least time that a fault takes.
pub fn duration(fault: &Fault, hold: Duration) -> Duration {
    let holds = fault.steps.iter().map(|step| match step {
        Step::Hold(times) => hold * *times,
        Step::Do(..) | Step::Well => Duration::ZERO,
    });
    holds.sum()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn every_fault_harms_is_undone_and_waited_for() {
        for fault in all(5) {
            let mut harmed: BTreeMap<Pick, Act> = BTreeMap::new();
            for step in &fault.steps {
                match *step {
                    Step::Do(act, pick) if act.harms() => assert_eq!(harmed.insert(pick, act), None),
                    Step::Do(act, pick) => {
                        let undoes = match harmed.remove(&pick).expect("only what was harmed is healed") {
                            Act::Kill | Act::Stop => Act::Start,
                            Act::LoseDisk => Act::Replace,
                            Act::Pause => Act::Resume,
                            Act::Starve(_) => Act::Feed,
                            Act::SlowDisk(_) => Act::QuickDisk,
                            Act::FillDisk => Act::EmptyDisk,
                            Act::JumpClock(_) => Act::SetClock,
                            Act::Flood(_) => Act::Settle,
                            Act::DeclareViews(views) => Act::AwaitViews(views),
                            _ => Act::Mend,
                        };
                        assert_eq!(act, undoes, "{}", fault.name);
                    }
                    Step::Hold(_) | Step::Well => {}
                }
            }
            assert!(harmed.is_empty(), "{} leaves {harmed:?}", fault.name);
            assert_eq!(fault.steps.last(), Some(&Step::Well), "{}", fault.name);
        }
    }

    #[test]
    fn names_are_told_apart_and_a_rolling_restart_meets_every_node_once() {
        let faults = all(5);
        let names: std::collections::BTreeSet<_> = faults.iter().map(|fault| fault.name).collect();
        assert_eq!(names.len(), faults.len());
        let stopped = rolling(5).into_iter().filter_map(|step| match step {
            Step::Do(Act::Stop, Pick::Node(node)) => Some(node),
            _ => None,
        });
        assert_eq!(stopped.collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    }
}
