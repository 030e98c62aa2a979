//! What must hold after every step and in every answer.

use std::collections::BTreeMap;

use sanso_core::cluster::sim::{Violation, mix};
use sanso_core::cluster::{Instance, Node, Partition, Position};
use sanso_core::{Hosted, PartitionId, ReadReply, ReadRequest};
use sanso_state::{Groups, Offset};
use sanso_view::View;

use crate::history::{History, PARTITIONS};

/// How far a view partition was seen: the entry's number, the batch version and the
/// offsets applied by then.
type Stand = (u64, u64, Vec<Offset>);

/// What was ever shown.
#[derive(Default)]
pub(super) struct Truth {
    /// What each node was seen to show last.
    shown: BTreeMap<(Instance, Partition), Position>,
    /// A digest of the state at some positions, which is the same wherever it is shown.
    digests: BTreeMap<(Partition, u32, u64), u64>,
    /// In each life of a partition, how far its view partitions have been.
    stands: BTreeMap<(u32, PartitionId), Stand>,
}

impl Truth {
    /// Holds what a node shows against the fold of what it says it has applied, and against what
    /// others have shown.
    pub(super) fn look(
        &mut self,
        node: &Node<Hosted>,
        history: &History,
        views: &[std::sync::Arc<View>],
    ) -> Result<(), Violation> {
        for (partition, replica) in node.replicas() {
            let at = replica.position(replica.commit()).expect("the commit is in the log");
            if self.shown.insert((node.me(), partition), at) == Some(at) {
                continue;
            }
            let held = replica.state().readable();
            let digest = digest(replica.state());
            let known = *self.digests.entry((partition, at.life, at.seq)).or_insert(digest);
            if known != digest {
                return Err(format!("{} has another history of {partition} up to {at:?}", node.me()));
            }
            if !replica.is_primary() {
                continue;
            }
            for id in held.list() {
                let progress = held.read(id, &ReadRequest::Progress).expect("it was listed").progress;
                let (version, applied) = (progress.version, progress.applied);
                let last = self.stands.entry((at.life, id)).or_default();
                // Who was the primary before may learn late of what was committed long ago.
                if last.0 > at.seq {
                    continue;
                }
                if applied.iter().zip(&last.2).any(|(now, then)| now < then) {
                    return Err(format!(
                        "{id} went back from {:?} to {applied:?} in life {}",
                        last.2, at.life
                    ));
                }
                let unchanged = (version, &applied) == (last.1, &last.2);
                *last = (at.seq, version, applied);
                if unchanged {
                    continue;
                }
                let view =
                    views.iter().find(|view| view.fingerprint == id.view).expect("only declared views live");
                let whole = ReadRequest::Scan { from: i64::MIN, to: i64::MAX };
                let reply = held.read(id, &whole).expect("it was listed");
                self.answered(history, view, id, &whole, &reply)?;
            }
        }
        Ok(())
    }

    /// Holds an answer against a naive fold of the very prefix that it says it has applied.
    pub(super) fn answered(
        &self,
        history: &History,
        view: &View,
        id: PartitionId,
        request: &ReadRequest,
        reply: &ReadReply,
    ) -> Result<(), Violation> {
        let applied = &reply.progress.applied;
        let ends: Vec<Offset> = (0..PARTITIONS).map(|l| history.end(l)).collect();
        if applied.iter().zip(&ends).any(|(applied, end)| applied > end) {
            return Err(format!("{id} has applied {applied:?}, beyond the log's end {ends:?}"));
        }
        let mut wanted = history.fold(view, id.index, applied);
        if let ReadRequest::Keys { keys, .. } = request {
            let of_keys = wanted.iter().filter(|(group, _)| keys.contains(&group.key));
            wanted = of_keys.collect();
        }
        let found: Groups = reply.groups.iter().cloned().collect();
        if found != wanted {
            let (version, cut) = (reply.progress.version, &reply.progress.cut);
            return Err(format!(
                "law: view {} partition {} applied {applied:?} version {version} cut {cut:?}\nfound  {found:?}\nwanted {wanted:?}",
                view.name, id.index
            ));
        }
        Ok(())
    }
}

/// Scatters how far the view partitions of a replica are, and what is staged of blocks.
fn digest(state: &Hosted) -> u64 {
    let (mut digest, held) = (0, state.readable());
    for id in held.list() {
        let progress = held.read(id, &ReadRequest::Progress).expect("it was listed").progress;
        let parts = [u64::from(id.index), progress.version, progress.speed_groups as u64];
        let cut = progress.cut.offsets();
        for part in parts.iter().chain(cut).chain(&progress.applied) {
            digest = mix(digest ^ part);
        }
    }
    for (id, staged) in state.staged() {
        let parts =
            [u64::from(id.index), staged.of.number, u64::from(staged.parts), staged.groups.len() as u64];
        digest = parts.iter().fold(digest, |digest, part| mix(digest ^ part));
    }
    digest
}
