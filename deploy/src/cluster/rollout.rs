//! Which view versions are fed, served and removed while nodes' applications differ; pure.
//!
//! ```text
//!   a node's file ─▶ declares ──────────────────▶ serves        each node its own, by name
//!                        │  all members feed it      ▲
//!                        ▼                           │ it has what the one before has
//!                      fed by every member ─▶ made by who drives the batch layer
//!                        │
//!                        └─ nobody declares or serves it ─▶ fed by nobody ─▶ removed
//! ```
//!
//! Each member tells what it declares, serves, feeds and holds, of itself and now. Nothing is agreed on
//! beside that: a node's declaration is its file.
//! - What any member declares or serves is fed by all, so that a version is complete whoever declares it.
//! - A version is let go of only on the word of every member. One that is silent keeps what it said until it
//!   is no member any longer.
//! - *Who wants a version again and who removes it can't miss each other.* A node says that it declares a
//!   version before it asks who feeds it, and serves it once all say that they do. Who removes one says that
//!   it does not feed it before it asks who declares it. One of the two sees the other.

use std::collections::{BTreeMap, BTreeSet};

use sanso_cluster::{ClusterMap, NodeId, Standing};
use sanso_state::{Fingerprint, Offset};
use serde::{Deserialize, Serialize};

/// What a node says of view versions. Fields may be added with a default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Said {
    /// The life of the node that says it.
    pub(crate) incarnation: u64,
    /// The contents of the applications that these are of, the present one first: it gives them to others.
    pub(crate) applications: Vec<Fingerprint>,
    /// The versions that its files declare, by view name.
    pub(crate) declares: BTreeMap<String, Fingerprint>,
    /// The versions that answer on it, by view name.
    pub(crate) serves: BTreeMap<String, Fingerprint>,
    /// The versions that its workers feed.
    pub(crate) feeds: BTreeSet<Fingerprint>,
    /// The versions of which it holds view partitions.
    pub(crate) holds: BTreeSet<Fingerprint>,
    /// Why its files, as they are now, are not what it declares.
    #[serde(default)]
    pub(crate) refuses: Option<String>,
}

impl Said {
    fn wants(&self) -> impl Iterator<Item = Fingerprint> + '_ {
        self.declares.values().chain(self.serves.values()).copied()
    }
}

/// What all members have said, as one of them knows it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard {
    /// What each said last.
    said: BTreeMap<NodeId, Said>,
    /// Those who said it just now.
    now: BTreeSet<NodeId>,
    /// The others, and which of them are expected to answer.
    silent: BTreeMap<NodeId, Standing>,
}

impl Heard {
    /// Takes what was said in answer to one round of questions. `own` was said before they were asked.
    pub(crate) fn hear(
        &mut self,
        map: &ClusterMap,
        (me, own): (NodeId, Said),
        answers: impl IntoIterator<Item = (NodeId, Said)>,
    ) {
        let is_alive = |node: &NodeId, said: &Said| {
            map.members.get(node).is_some_and(|member| member.incarnation.0 == said.incarnation)
        };
        self.said.retain(|node, _| map.members.contains_key(node));
        let answers = answers.into_iter().filter(|(node, said)| is_alive(node, said)).collect::<Vec<_>>();
        self.now = answers.iter().map(|(node, _)| *node).collect();
        // Not yet a member, it hears of nobody's loss.
        if is_alive(&me, &own) {
            self.now.insert(me);
        }
        self.said.extend(answers);
        self.said.insert(me, own);
        let silent = map.members.iter().filter(|(node, _)| !self.now.contains(node));
        self.silent = silent.map(|(node, member)| (*node, member.standing)).collect();
        if !self.now.contains(&me) {
            self.silent.insert(me, Standing::Up);
        }
    }

    /// Iterates what each member said last.
    pub(crate) fn said(&self) -> impl Iterator<Item = (NodeId, &Said)> {
        self.said.iter().map(|(node, said)| (*node, said))
    }

    /// Says whether a member has answered just now.
    pub(crate) fn is_heard(&self, node: NodeId) -> bool {
        self.now.contains(&node)
    }

    /// Returns the versions that somebody declares or serves.
    pub(crate) fn wanted(&self) -> BTreeSet<Fingerprint> {
        self.said.values().flat_map(Said::wants).collect()
    }

    /// Says whether a version is wanted by nobody, on the word of every member.
    pub(crate) fn is_unwanted(&self, version: Fingerprint) -> bool {
        self.silent.is_empty() && !self.said.values().any(|said| said.wants().any(|v| v == version))
    }

    /// Returns the members by whom a version may not yet be served: those that are expected to answer and
    /// do not say that they feed it.
    pub(crate) fn awaited(&self, version: Fingerprint) -> Vec<NodeId> {
        let silent = self.silent.iter().filter(|(_, standing)| **standing == Standing::Up);
        let not_yet =
            self.said.iter().filter(|(node, said)| self.is_heard(**node) && !said.feeds.contains(&version));
        silent.map(|(node, _)| *node).chain(not_yet.map(|(node, _)| *node)).collect()
    }

    /// Returns the versions whose view partitions are to be removed: they are held, and every member says
    /// that it neither wants nor feeds them.
    pub(crate) fn removable(&self) -> BTreeSet<Fingerprint> {
        let held: BTreeSet<Fingerprint> = self.said.values().flat_map(|said| &said.holds).copied().collect();
        let is_fed = |version: &Fingerprint| self.said.values().any(|said| said.feeds.contains(version));
        held.into_iter().filter(|version| self.is_unwanted(*version) && !is_fed(version)).collect()
    }

    /// Returns which version of each view writes its closed windows: the one that most members serve, of
    /// equally many the one of the member with the lowest number. So all soon write the same.
    pub(crate) fn emits(&self) -> BTreeMap<String, Fingerprint> {
        let mut votes: BTreeMap<&str, BTreeMap<Fingerprint, (usize, std::cmp::Reverse<NodeId>)>> =
            BTreeMap::new();
        for (node, said) in self.said.iter().rev() {
            for (name, version) in &said.serves {
                let count = votes.entry(name).or_default().get(version).map_or(0, |(count, _)| *count);
                votes.entry(name).or_default().insert(*version, (count + 1, std::cmp::Reverse(*node)));
            }
        }
        let most = |versions: BTreeMap<Fingerprint, _>| versions.into_iter().max_by_key(|(_, votes)| *votes);
        votes.into_iter().filter_map(|(name, versions)| Some((name.to_owned(), most(versions)?.0))).collect()
    }
}

/// For how many rounds of questions versions have been wanted by nobody.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lingering(BTreeMap<Fingerprint, u32>);

impl Lingering {
    /// Takes a round. Returns those of the versions fed that are to be let go of: wanted by nobody for so
    /// many rounds, so that requests that began with them have ended.
    pub(crate) fn let_go(
        &mut self,
        heard: &Heard,
        fed: impl IntoIterator<Item = Fingerprint>,
        rounds: u32,
    ) -> BTreeSet<Fingerprint> {
        let wanted = heard.wanted();
        let before = std::mem::take(&mut self.0);
        let unwanted = fed.into_iter().filter(|version| !wanted.contains(version));
        let count = |version| {
            let before = before.get(&version).copied().unwrap_or(0);
            (version, before + u32::from(heard.is_unwanted(version)))
        };
        self.0 = unwanted.map(count).collect();
        let is_over =
            |(version, count): &(&Fingerprint, &u32)| **count > rounds && heard.is_unwanted(**version);
        self.0.iter().filter(is_over).map(|(version, _)| *version).collect()
    }
}

/// Says whether a successor's view partitions have all applied at least what
/// the version it replaces has applied.
pub(crate) fn caught_up(successor: &[Vec<Offset>], target: &[Offset]) -> bool {
    successor.iter().all(|applied| applied.iter().zip(target).all(|(mine, theirs)| mine >= theirs))
}

/// Returns the furthest offset that any view partition has applied, for each log partition.
pub(crate) fn furthest(applied: &[Vec<Offset>]) -> Vec<Offset> {
    applied.iter().fold(Vec::new(), |mut furthest, one| {
        furthest.resize(one.len(), 0);
        furthest.iter_mut().zip(one).for_each(|(a, b)| *a = (*a).max(*b));
        furthest
    })
}

#[cfg(test)]
#[path = "rollout_tests.rs"]
mod tests;
