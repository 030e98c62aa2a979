//! Who votes in control, and changing it while the cluster runs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::join_all;
use sanso_control::{ControlError, Status};
use sanso_core::cluster::{Change, ClusterMap, NodeId};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::engine::Outside;
use crate::hub::{Hub, PART};
use crate::wire;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// How long is waited for others when the voters are looked at or changed, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VotersPatience {
    /// For a node to say how it takes part.
    pub answer_ms_max: u64,
    /// For somebody to lead.
    pub leader_ms_max: u64,
}

impl Default for VotersPatience {
    fn default() -> Self {
        Self { answer_ms_max: 500, leader_ms_max: 3_000 }
    }
}

/// How a node takes part in control; what it says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlPart {
    /// Who leads, as far as it knows.
    pub leader: Option<NodeId>,
    /// Grows with each election.
    pub term: u64,
    /// Those who vote, as far as it knows; none if it was never told.
    pub voters: BTreeSet<NodeId>,
    /// Those who learn and do not vote yet, as far as it knows.
    pub learners: BTreeSet<NodeId>,
    /// The number of the last entry that it has applied.
    pub applied: Option<u64>,
    /// Whether it votes and has lost its folder; then it takes no part.
    pub forgotten: bool,
}

/// Control, as all nodes that answer see it together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Voters {
    /// Who leads; none when nobody who answers says that it does.
    pub leader: Option<NodeId>,
    /// Those who vote.
    pub voters: BTreeSet<NodeId>,
    /// Those who learn and do not vote yet.
    pub learners: BTreeSet<NodeId>,
    /// All nodes; none for one that does not answer.
    pub nodes: BTreeMap<NodeId, Option<ControlPart>>,
}

/// Why the voters are not changed.
#[derive(Debug, thiserror::Error)]
pub enum VotersError {
    /// It would do harm, or nothing; it says what to do instead.
    #[error("{0}")]
    Refused(String),
    /// It can't be agreed on now.
    #[error("{0}; sanso cluster voters shows what has become of it")]
    Control(#[from] ControlError),
}

impl ControlPart {
    pub(crate) fn of(status: &Status) -> Self {
        Self {
            leader: status.leader,
            term: status.term,
            voters: status.voters.clone(),
            learners: status.learners.clone(),
            applied: status.applied,
            forgotten: false,
        }
    }
}

impl Voters {
    /// Puts together what the nodes say; `map` is the newest that is known here.
    fn of(nodes: BTreeMap<NodeId, Option<ControlPart>>, map: &ClusterMap) -> Self {
        let parts = nodes.iter().filter_map(|(node, part)| Some((*node, part.as_ref()?)));
        let leads = parts.filter(|(node, part)| part.leader == Some(*node));
        match leads.max_by_key(|(_, part)| part.term) {
            Some((leader, part)) => {
                let (voters, learners) = (part.voters.clone(), part.learners.clone());
                Self { leader: Some(leader), voters, learners, nodes }
            }
            None => Self { voters: map.voters.clone(), nodes, ..Self::default() },
        }
    }

    /// Says how a node takes part, in a few words.
    pub fn part(&self, node: NodeId) -> &'static str {
        match self.nodes.get(&node).and_then(Option::as_ref) {
            None => "does not answer",
            Some(part) if part.forgotten => "lost its folder",
            Some(_) if self.voters.contains(&node) => "votes",
            Some(_) if self.learners.contains(&node) => "learns",
            Some(_) => "waits",
        }
    }

    /// Decides whether these may become the voters. Some that may are warned of.
    fn judge(&self, asked: &BTreeSet<NodeId>, force: bool) -> Result<Option<String>, String> {
        if let Some(stranger) = asked.iter().find(|node| !self.nodes.contains_key(node)) {
            let all = list(self.nodes.keys());
            return Err(format!("{stranger} is none of the cluster's nodes, which are {all}"));
        }
        let Some(first) = asked.first() else {
            return Err("control needs voters: name one, three or five nodes".to_owned());
        };
        let forgotten = asked.iter().find(|node| self.part(**node) == "lost its folder");
        if let Some(lost) = forgotten {
            let others = list(self.voters.iter().filter(|voter| *voter != lost));
            return Err(format!(
                "{lost} votes and has lost its folder: first take it out (voters {others}, with --force if these \
                 are fewer than three), or put another node in its place; then it can be added again"
            ));
        }
        if *asked == self.voters {
            return Err(format!("nodes {} vote already", list(asked)));
        }
        let answers = |node: &&NodeId| self.part(**node) != "does not answer";
        if let Some(silent) = asked.difference(&self.voters).find(|node| !answers(node)) {
            return Err(format!("{silent} does not answer: start it before it is to vote"));
        }
        let answering = asked.iter().filter(answers).count();
        if answering * 2 <= asked.len() {
            let of = asked.len();
            return Err(format!(
                "of these {of}, only {answering} answer: nothing could be agreed on any more"
            ));
        }
        if asked.len() < 3 && self.voters.len() >= 3 && !force {
            return Err(format!(
                "{} instead of {} voters stand no loss of a node: name three, or say --force",
                asked.len(),
                self.voters.len()
            ));
        }
        Ok(match asked.len() {
            1 => Some(format!("{first} votes alone: nothing can be agreed on while it is away")),
            even if even.is_multiple_of(2) => {
                Some(format!("{even} voters stand no more losses than {}: make it an odd number", even - 1))
            }
            _ => None,
        })
    }
}

fn list<'a>(nodes: impl IntoIterator<Item = &'a NodeId>) -> String {
    nodes.into_iter().map(|node| node.0.to_string()).collect::<Vec<_>>().join(",")
}

/// Says who votes and has taken part, if the map doesn't, as the leader of control sees it.
pub(crate) fn news(me: NodeId, status: &Status, map: &ClusterMap) -> Option<Change> {
    let has_come =
        |node: &&NodeId| **node == me || status.reached.contains(node) || map.voters.contains(node);
    let voters: BTreeSet<NodeId> = status.voters.iter().filter(has_come).copied().collect();
    (status.settled && voters != map.voters).then_some(Change::Voters(voters))
}

/// Asks all nodes how they take part in control.
pub(crate) async fn look(hub: &Hub, all: &BTreeSet<NodeId>, patience: VotersPatience) -> Voters {
    let within = Duration::from_millis(patience.answer_ms_max);
    let asked = all.iter().map(async |node| {
        if *node == hub.me {
            return (*node, Some(hub.part()));
        }
        let answer = hub.ask(*node, PART, Vec::new(), within).await.ok();
        (*node, answer.and_then(|answer| wire::decode(&answer).ok()))
    });
    let nodes = join_all(asked).await.into_iter().collect();
    let map = hub.engine().map(|engine| engine.maps().borrow().clone()).unwrap_or_else(no_map);
    Voters::of(nodes, &map)
}

fn no_map() -> std::sync::Arc<ClusterMap> {
    std::sync::Arc::new(ClusterMap::new(1, 1))
}

/// Makes these the voters, unless that would do harm. Returns what is to be warned of.
pub(crate) async fn change(
    hub: &Hub,
    all: &BTreeSet<NodeId>,
    asked: &BTreeSet<NodeId>,
    force: bool,
    patience: VotersPatience,
) -> Result<Option<String>, VotersError> {
    let end = Instant::now() + Duration::from_millis(patience.leader_ms_max);
    loop {
        let now = look(hub, all, patience).await;
        if let Some(leader) = now.leader {
            let warning = now.judge(asked, force).map_err(VotersError::Refused)?;
            tracing::info!(%leader, from = list(&now.voters), to = list(asked), "the voters of control change");
            let changed = match hub.control().filter(|_| leader == hub.me) {
                Some(control) => control.change_voters(asked).await,
                None => hub.proposer().ok_or(ControlError::NoLeader)?.change_voters(leader, asked).await,
            };
            match changed {
                // Nothing was proposed: it leads no longer.
                Err(ControlError::NoLeader) => {}
                changed => return changed.map(|_| warning).map_err(VotersError::Control),
            }
        }
        // One that was lost is soon followed by another.
        if Instant::now() >= end {
            return Err(ControlError::NoLeader.into());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// While `control` leads, has the map name those who vote.
pub(crate) async fn announce(hub: std::sync::Arc<Hub>, control: std::sync::Arc<sanso_control::Control>) {
    let Some(engine) = hub.engine() else { return };
    let (mut leads, mut status, mut maps) = (control.leads(), control.status(), engine.maps());
    drop(control);
    loop {
        let leading = *leads.borrow_and_update();
        let (status_now, map) = (status.borrow_and_update().clone(), maps.borrow_and_update().clone());
        if leading && let Some(change) = news(hub.me, &status_now, &map) {
            hub.propose(change);
        }
        tokio::select! {
            changed = leads.changed() => if changed.is_err() { return },
            changed = status.changed() => if changed.is_err() { return },
            changed = maps.changed() => if changed.is_err() { return },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(nodes: &[u16]) -> BTreeSet<NodeId> {
        nodes.iter().copied().map(NodeId).collect()
    }

    /// Five nodes of which these vote and these answer, led by the first voter that answers.
    fn cluster(voters: &[u16], answer: &[u16]) -> Voters {
        let leader = voters.iter().find(|node| answer.contains(node)).map(|node| NodeId(*node));
        let part = ControlPart { leader, term: 7, voters: ids(voters), ..ControlPart::default() };
        let nodes = (1..=5).map(|node| (NodeId(node), answer.contains(&node).then(|| part.clone())));
        Voters::of(nodes.collect(), &ClusterMap::new(4, 3))
    }

    #[test]
    fn what_would_do_harm_is_refused_and_says_what_to_do() {
        let check = |voters: &[u16], answer: &[u16], asked: &[u16], force, says: &str| {
            let refused = cluster(voters, answer).judge(&ids(asked), force).expect_err(says);
            assert!(refused.contains(says), "{asked:?}: {refused}");
        };
        let all = [1, 2, 3, 4, 5];
        check(
            &[1, 2, 3],
            &all,
            &[1, 2, 9],
            false,
            "node 9 is none of the cluster's nodes, which are 1,2,3,4,5",
        );
        check(&[1, 2, 3], &all, &[], true, "control needs voters");
        check(&[1, 2, 3], &all, &[1, 2, 3], true, "1,2,3 vote already");
        check(&[1, 2, 3], &[1, 2, 3], &[1, 2, 4], true, "node 4 does not answer: start it");
        check(&[1, 2, 3, 4, 5], &[1, 2, 3], &[1, 4, 5], true, "of these 3, only 1 answer");
        check(&[1, 2, 3], &all, &[1, 2], false, "2 instead of 3 voters stand no loss of a node");
        check(&[1, 2, 3, 4, 5], &all, &[4], false, "1 instead of 5 voters");
        let mut lost = cluster(&[1, 2, 3], &all);
        let forgotten = Some(ControlPart { forgotten: true, ..ControlPart::default() });
        lost.nodes.insert(NodeId(3), forgotten);
        for asked in [&[1, 2, 3][..], &[1, 2, 3, 4, 5]] {
            let refused = lost.judge(&ids(asked), true).expect_err("node 3 may have voted");
            assert!(refused.contains("node 3 votes and has lost its folder: first take it out (voters 1,2,"));
        }
        assert_eq!(lost.judge(&ids(&[1, 2, 4]), false), Ok(None));
    }

    #[test]
    fn what_is_unwise_is_warned_of() {
        let check = |voters: &[u16], asked: &[u16], force, says: Option<&str>| {
            let warned = cluster(voters, &[1, 2, 4, 5]).judge(&ids(asked), force).expect("it may be done");
            assert_eq!(warned.as_deref(), says, "{asked:?}");
        };
        check(&[1, 2, 3], &[1, 2, 4], false, None);
        check(&[1, 2, 3], &[1, 2, 3, 4, 5], false, None);
        let even = "4 voters stand no more losses than 3: make it an odd number";
        check(&[1, 2, 3], &[1, 2, 3, 4], false, Some(even));
        let alone = "node 1 votes alone: nothing can be agreed on while it is away";
        check(&[1, 2, 3], &[1], true, Some(alone));
        check(&[2], &[1], false, Some(alone));
    }

    #[test]
    fn who_leads_is_believed_and_without_a_leader_the_map() {
        let mut seen = cluster(&[1, 2, 3], &[1, 2, 4]);
        // One that was taken out believes in the voters that it knew, and that it leads them.
        let stale = ControlPart { leader: Some(NodeId(4)), term: 6, ..ControlPart::default() };
        seen.nodes.insert(NodeId(4), Some(stale));
        let seen = Voters::of(seen.nodes, &ClusterMap::new(4, 3));
        assert_eq!((seen.leader, seen.voters), (Some(NodeId(1)), ids(&[1, 2, 3])));
        let mut map = ClusterMap::new(4, 3);
        map.apply(&Change::Voters(ids(&[3, 4, 5]))).expect("they are others");
        let alone = Voters::of(cluster(&[1, 2, 3], &[4]).nodes, &map);
        assert_eq!((alone.leader, alone.voters), (None, ids(&[3, 4, 5])));
    }

    #[test]
    fn the_map_names_voters_once_they_have_taken_part() {
        let mut map = ClusterMap::new(4, 3);
        let status = |voters: &[u16], reached: &[u16], settled| Status {
            voters: ids(voters),
            reached: ids(reached),
            settled,
            ..Status::default()
        };
        let mut step = |status: &Status, named: Option<&[u16]>| {
            let change = news(NodeId(1), status, &map);
            assert_eq!(change, named.map(|named| Change::Voters(ids(named))), "{status:?}");
            change.map(|change| map.apply(&change).expect("it is news"))
        };
        step(&status(&[1, 2, 3], &[], true), Some(&[1]));
        step(&status(&[1, 2, 3], &[1, 2], true), Some(&[1, 2]));
        step(&status(&[1, 2, 3], &[1, 2, 3], true), Some(&[1, 2, 3]));
        // Another leader, or a silent voter: what was is not forgotten.
        step(&status(&[1, 2, 3], &[], true), None);
        step(&status(&[1, 2, 3, 4], &[1, 2, 4], false), None);
        step(&status(&[1, 2, 4], &[1, 2, 4], true), Some(&[1, 2, 4]));
    }
}
