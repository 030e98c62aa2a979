//! What the voters agree on, and every change of it. Pure: the same entries
//! in the same order give the same state on every voter.

use std::fmt;
use std::sync::Arc;

use sanso_core::cluster::{Change, ClusterMap, Refused};
use serde::{Deserialize, Serialize};

use crate::bodies;
use crate::table::{PutRefused, Table};

/// How large the map of a cluster is; decided once, when it is founded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Founding {
    /// Number of partitions.
    pub partitions: u32,
    /// Replicas that each partition shall have.
    pub replicas: usize,
}

/// What is proposed to control.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Makes the first map, of no members.
    Found(Founding),
    /// Changes the map.
    Change(Change),
    /// Puts a value, or removes it, if its key is at this version.
    Put(Put),
    /// Raises the level; what was proposed for it is known to all voters from now on.
    Level(u32),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Put {
    pub(crate) key: String,
    pub(crate) expect: u64,
    #[serde(with = "serde_bytes")]
    pub(crate) value: Option<Vec<u8>>,
}

/// The newest level that this program knows.
pub(crate) const LEVEL: u32 = 1;

/// A command as it lies in the log. Its body stays closed until it is applied, so a voter
/// keeps and passes on what it does not know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sealed {
    pub(crate) kind: String,
    #[serde(with = "serde_bytes")]
    pub(crate) body: Vec<u8>,
    /// The level from which on all that the body says is known.
    #[serde(default = "first_level")]
    pub(crate) level: u32,
}

fn first_level() -> u32 {
    1
}

/// The voters have agreed on a level that this program does not know.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the cluster is at level {0} and this program knows levels up to {LEVEL}: update this node")]
pub(crate) struct LaterLevel(pub(crate) u32);

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// It is applied; the map's version or the table's revision.
    Done(u64),
    /// The map refused it.
    Change(Refused),
    /// The table refused it.
    Put(PutRefused),
    /// The cluster was founded otherwise.
    Founded(Founding),
    /// There is no map yet.
    NotFounded,
    /// No voter knows commands of this kind, or not this form of it.
    UnknownKind,
    /// The entry was one of Raft's own.
    Nothing,
}

/// The state that all voters share.
///
/// What is kept of it on disk has a format of its own (`store`).
///
/// Voters of two versions must not differ in what they apply. So each command says the level that it
/// needs, and while the level is lower it is refused: by a leader before it is proposed, and by every
/// voter alike should it be committed all the same. A new kind of command, or a new meaning of one,
/// needs a new level; a level is raised when all voters run a version that knows it and nobody wants
/// to go back. A voter that does not know the level stops, and says so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Agreed {
    #[serde(default = "first_level")]
    pub(crate) level: u32,
    /// None until the cluster is founded.
    pub(crate) map: Option<Arc<ClusterMap>>,
    pub(crate) table: Arc<Table>,
}

impl Default for Agreed {
    fn default() -> Self {
        Self { level: first_level(), map: None, table: Arc::default() }
    }
}

const FOUND: &str = "found";
const CHANGE: &str = "change";
const PUT: &str = "put";
const RAISE: &str = "level";

impl Command {
    pub(crate) fn seal(&self) -> Sealed {
        let (kind, body) = match self {
            Self::Found(founding) => (FOUND, bodies::encode(founding)),
            Self::Change(change) => (CHANGE, bodies::encode(change)),
            Self::Put(put) => (PUT, bodies::encode(put)),
            Self::Level(level) => (RAISE, bodies::encode(level)),
        };
        Sealed { kind: kind.to_owned(), body, level: first_level() }
    }
}

impl Sealed {
    fn open(&self) -> Option<Command> {
        let body = &self.body;
        match self.kind.as_str() {
            FOUND => bodies::decode(body).map(Command::Found).ok(),
            CHANGE => bodies::decode(body).map(Command::Change).ok(),
            PUT => bodies::decode(body).map(Command::Put).ok(),
            RAISE => bodies::decode(body).map(Command::Level).ok(),
            _ => None,
        }
    }

    /// Says whether all voters at this level know the command, and this program too.
    pub(crate) fn is_known(&self, level: u32) -> bool {
        let known = match self.open() {
            Some(Command::Level(raised)) => raised <= LEVEL,
            Some(_) => true,
            None => false,
        };
        known && self.level <= level
    }
}

impl fmt::Display for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes)", self.kind, self.body.len())
    }
}

impl Agreed {
    /// Applies a committed command; what is refused changes nothing. An error: this voter can't go on.
    pub(crate) fn apply(&mut self, sealed: &Sealed) -> Result<Answer, LaterLevel> {
        Ok(match sealed.open().filter(|_| sealed.level <= self.level) {
            None => Answer::UnknownKind,
            Some(Command::Found(founding)) => self.found(founding),
            Some(Command::Change(change)) => self.change(&change),
            Some(Command::Put(Put { key, expect, value })) => {
                match self.table.admits(&key, expect, value.as_deref()) {
                    Ok(()) => Answer::Done(Arc::make_mut(&mut self.table).put(key, value)),
                    Err(refused) => Answer::Put(refused),
                }
            }
            Some(Command::Level(level)) => {
                self.level = self.level.max(level);
                self.check()?;
                Answer::Done(u64::from(self.level))
            }
        })
    }

    /// Says whether this program can go on from this state.
    pub(crate) fn check(&self) -> Result<(), LaterLevel> {
        if self.level > LEVEL { Err(LaterLevel(self.level)) } else { Ok(()) }
    }

    fn found(&mut self, founding: Founding) -> Answer {
        let Some(map) = &self.map else {
            if founding.partitions == 0 || founding.replicas == 0 {
                return Answer::Change(Refused::Nothing);
            }
            self.map = Some(Arc::new(ClusterMap::new(founding.partitions, founding.replicas)));
            return Answer::Done(0);
        };
        let partitions = u32::try_from(map.partitions.len()).unwrap_or(u32::MAX);
        let before = Founding { partitions, replicas: map.replicas };
        if before == founding { Answer::Done(map.version) } else { Answer::Founded(before) }
    }

    fn change(&mut self, change: &Change) -> Answer {
        let Some(map) = &mut self.map else { return Answer::NotFounded };
        let mut next = ClusterMap::clone(map);
        match next.apply(change) {
            Ok(()) => {
                *map = Arc::new(next);
                Answer::Done(map.version)
            }
            Err(refused) => Answer::Change(refused),
        }
    }
}

#[cfg(test)]
mod tests {
    use sanso_core::cluster::{Incarnation, Instance, NodeId};

    use super::*;

    fn founded(partitions: u32) -> Agreed {
        let mut agreed = Agreed::default();
        let founding = Founding { partitions, replicas: 2 };
        assert_eq!(applied(&mut agreed, &Command::Found(founding).seal()), Answer::Done(0));
        agreed
    }

    fn applied(agreed: &mut Agreed, sealed: &Sealed) -> Answer {
        agreed.apply(sealed).expect("the level is known")
    }

    fn join(node: u16) -> Sealed {
        let instance = Instance { node: NodeId(node), incarnation: Incarnation(1) };
        Command::Change(Change::Join(instance)).seal()
    }

    #[test]
    fn a_cluster_is_founded_once() {
        let mut agreed = founded(8);
        assert_eq!(applied(&mut agreed, &join(1)), Answer::Done(1));
        let again = Founding { partitions: 8, replicas: 2 };
        assert_eq!(applied(&mut agreed, &Command::Found(again).seal()), Answer::Done(1));
        let other = Founding { partitions: 16, replicas: 2 };
        assert_eq!(applied(&mut agreed, &Command::Found(other).seal()), Answer::Founded(again));
        assert_eq!(agreed.map.as_ref().map(|map| map.version), Some(1));
        let none = Founding { partitions: 0, replicas: 2 };
        let refused = applied(&mut Agreed::default(), &Command::Found(none).seal());
        assert_eq!(refused, Answer::Change(Refused::Nothing));
    }

    #[test]
    fn the_map_changes_as_the_map_itself_says() {
        let mut agreed = founded(8);
        let mut map = ClusterMap::new(8, 2);
        for (node, version) in [(1, 1), (2, 2), (3, 3)] {
            assert_eq!(applied(&mut agreed, &join(node)), Answer::Done(version));
            let instance = Instance { node: NodeId(node), incarnation: Incarnation(1) };
            map.apply(&Change::Join(instance)).unwrap();
        }
        assert_eq!(applied(&mut agreed, &join(3)), Answer::Change(Refused::Nothing));
        assert_eq!(agreed.map.as_deref(), Some(&map));
        assert_eq!(applied(&mut Agreed::default(), &join(1)), Answer::NotFounded);
    }

    #[test]
    fn what_is_not_known_is_refused_and_changes_nothing() {
        let mut agreed = founded(8);
        let before = agreed.clone();
        let later = Sealed { kind: "later".into(), body: bodies::encode(&7), level: 1 };
        assert_eq!(applied(&mut agreed, &later), Answer::UnknownKind);
        let garbled = Sealed { kind: CHANGE.into(), body: vec![0xc1; 9], level: 1 };
        assert_eq!(applied(&mut agreed, &garbled), Answer::UnknownKind);
        // What it says could be read, but would mean more to those who know the level.
        let early = Sealed { level: LEVEL + 1, ..join(1) };
        assert!(join(1).is_known(LEVEL) && !early.is_known(LEVEL));
        assert_eq!(applied(&mut agreed, &early), Answer::UnknownKind);
        assert_eq!(agreed, before);
    }

    #[test]
    fn a_level_that_is_not_known_stops_the_voter() {
        let mut agreed = founded(8);
        assert_eq!(applied(&mut agreed, &Command::Level(LEVEL).seal()), Answer::Done(u64::from(LEVEL)));
        let later = agreed.apply(&Command::Level(LEVEL + 1).seal());
        assert_eq!(later, Err(LaterLevel(LEVEL + 1)));
        assert!(LaterLevel(2).to_string().contains("at level 2"), "{}", LaterLevel(2));
    }

    #[test]
    fn the_state_reads_back_as_it_was_written() {
        let mut agreed = founded(8);
        for node in 1..=4 {
            applied(&mut agreed, &join(node));
        }
        let put = Put { key: "k".into(), expect: 0, value: Some(vec![0, 255]) };
        assert_eq!(applied(&mut agreed, &Command::Put(put).seal()), Answer::Done(1));
        assert_eq!(bodies::decode::<Agreed>(&bodies::encode(&agreed)).unwrap(), agreed);
    }
}
