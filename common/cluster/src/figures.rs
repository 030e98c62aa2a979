//! What a node's part in the cluster comes to, in figures for whoever watches it.
//!
//! Counters go to the installed recorder as they happen; what is so at a moment is read when asked for
//! ([`ClusterNode::figures`]), so that it costs nothing until somebody looks, and what is no longer so is gone.

use sanso_core::cluster::{ClusterMap, NodeId, Partition, Standing};

use crate::start::ClusterNode;

/// Counter: epochs of partitions that this node has seen begin, each with another primary.
pub(crate) const EPOCHS: &str = "sanso_cluster_epochs_total";
/// Counter: whole states of partitions that this node has sent to a replica.
pub(crate) const SNAPSHOTS: &str = "sanso_cluster_snapshots_sent_total";
/// Counter: reads for which a second replica was asked, as the first took long.
pub(crate) const HEDGED: &str = "sanso_cluster_reads_hedged_total";
/// Counter: writes that were not taken at the first try, by `reason`.
pub(crate) const REFUSED: &str = "sanso_cluster_writes_refused_total";
/// The reasons of [`REFUSED`].
pub(crate) const REASONS: [&str; 4] = ["not_primary", "busy", "unknown", "gave_up"];

/// A figure that is so at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// Its name, of a gauge.
    pub name: &'static str,
    /// What it says.
    pub help: &'static str,
    /// What it is said of.
    pub labels: Vec<(&'static str, String)>,
    /// How much.
    pub value: f64,
}

/// Describes the counters to the installed recorder, and begins them.
pub(crate) fn describe() {
    metrics::describe_counter!(EPOCHS, "Changes of a partition's primary, as this node has seen them");
    metrics::describe_counter!(SNAPSHOTS, "Whole states of partitions sent to replicas");
    metrics::describe_counter!(HEDGED, "Reads for which a second replica was asked");
    metrics::describe_counter!(REFUSED, "Writes that were not taken at the first try, by reason");
    for name in [EPOCHS, SNAPSHOTS, HEDGED] {
        metrics::counter!(name).increment(0);
    }
    REASONS.into_iter().for_each(|reason| metrics::counter!(REFUSED, "reason" => reason).increment(0));
}

/// Counts the epochs that began between two maps.
pub(crate) fn count_epochs(before: &ClusterMap, after: &ClusterMap) {
    let began = after.assignments().filter(|(partition, now)| {
        let then = before.partitions.get(partition.0 as usize);
        now.primary.is_some() && then.is_none_or(|then| (then.life, then.epoch) != (now.life, now.epoch))
    });
    metrics::counter!(EPOCHS).increment(began.count() as u64);
}

/// Writes the figures of a map, as the node `me` sees them.
fn of_map(map: &ClusterMap, me: NodeId, nodes: usize) -> Vec<Figure> {
    let standing = |wanted| map.members.values().filter(|member| member.standing == wanted).count();
    let (up, suspected) = (standing(Standing::Up), standing(Standing::Suspected));
    let wanted = map.replicas.min(up);
    let mut figures = Vec::new();
    let mut tell = |name, help, labels: &[(&'static str, &str)], value: usize| {
        let labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        figures.push(Figure { name, help, labels, value: value as f64 });
    };
    let members = ("sanso_cluster_members", "Nodes, by how the cluster holds them");
    for (value, count) in
        [("up", up), ("suspected", suspected), ("absent", nodes.saturating_sub(map.members.len()))]
    {
        tell(members.0, members.1, &[("standing", value)], count);
    }
    let is_mine = |holder: &sanso_core::cluster::Holder| holder.instance.node == me;
    let primary = map.partitions.iter().filter(|part| part.primary.as_ref().is_some_and(is_mine)).count();
    let in_sync = map.partitions.iter().filter(|part| part.in_sync.iter().any(is_mine)).count();
    let learns = map.partitions.iter().filter(|part| part.learners.iter().any(is_mine)).count();
    for (role, count) in [("primary", primary), ("backup", in_sync - primary), ("catching_up", learns)] {
        let help = "Partitions that this node holds, by what it is for them";
        tell("sanso_cluster_partitions_held", help, &[("role", role)], count);
    }
    let without = map.partitions.iter().filter(|part| part.primary.is_none()).count();
    let few = map.partitions.iter().filter(|part| part.in_sync.len() < wanted).count();
    tell("sanso_cluster_partitions_without_primary", "Partitions that no write reaches", &[], without);
    let help = "Partitions with fewer replicas in sync than there could be";
    tell("sanso_cluster_partitions_short", help, &[], few);
    figures
}

impl ClusterNode {
    /// Returns what is so now: members by standing, partitions by role, what replicas lack of the partitions
    /// that this node is the primary of.
    pub fn figures(&self) -> Vec<Figure> {
        let map = self.maps().borrow().clone();
        let mut figures = of_map(&map, self.me().node, self.all.len());
        let mut tell = |name, help, labels, value| figures.push(Figure { name, help, labels, value });
        let in_touch = f64::from(u8::from(self.is_in_touch()));
        tell(
            "sanso_cluster_in_touch",
            "1 while this node hears from most of the cluster",
            Vec::new(),
            in_touch,
        );
        let owed = self.owed();
        type Read = fn(&sanso_core::cluster::Owed) -> f64;
        let reads: [(&str, &str, Read); 2] = [
            ("sanso_replication_lag_entries", "Entries that a replica lacks of its primary's log", |owed| {
                owed.entries as f64
            }),
            ("sanso_replication_lag_bytes", "Bytes of the entries that a replica lacks", |owed| {
                owed.bytes as f64
            }),
        ];
        for (name, help, read) in reads {
            for (partition, node, owed) in &owed {
                let labels = vec![("partition", partition.0.to_string()), ("replica", node.0.to_string())];
                tell(name, help, labels, read(owed));
            }
        }
        figures
    }

    /// Returns what each replica lacks of each partition that this node is the primary of.
    fn owed(&self) -> Vec<(Partition, NodeId, sanso_core::cluster::Owed)> {
        self.engine().with(|node, _| {
            let led = node.replicas().filter(|(_, replica)| replica.is_primary());
            let owed = led.flat_map(|(partition, replica)| {
                replica.owed().map(move |(holder, owed)| (partition, holder.instance.node, owed))
            });
            owed.collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use sanso_core::cluster::{Assignment, Epoch, Holder, Incarnation, Instance, Member};

    use super::*;

    fn holder(node: u16) -> Holder {
        Holder { instance: Instance { node: NodeId(node), incarnation: Incarnation(1) }, since: 0 }
    }

    #[test]
    fn the_figures_of_a_map_are_those_of_the_node_and_of_all() {
        let mut map = ClusterMap::new(3, 3);
        for (node, standing) in [(1, Standing::Up), (2, Standing::Up), (3, Standing::Suspected)] {
            let member = Member { incarnation: Incarnation(1), standing, draining: false };
            map.members.insert(NodeId(node), member);
        }
        let assignment = |primary: Option<u16>, in_sync: &[u16], learners: &[u16]| Assignment {
            primary: primary.map(holder),
            in_sync: in_sync.iter().copied().map(holder).collect(),
            learners: learners.iter().copied().map(holder).collect(),
            epoch: Epoch(1),
            ..Assignment::default()
        };
        map.partitions = vec![
            assignment(Some(1), &[1, 2], &[]),
            assignment(Some(2), &[2], &[1]),
            assignment(None, &[3], &[]),
        ];
        let figures = of_map(&map, NodeId(1), 5);
        let value = |name: &str, label: &str| {
            let of = figures.iter().find(|figure| {
                figure.name == name && figure.labels.first().is_none_or(|(_, value)| value == label)
            });
            of.map(|figure| figure.value)
        };
        let members = ["up", "suspected", "absent"].map(|standing| value("sanso_cluster_members", standing));
        assert_eq!(members, [Some(2.0), Some(1.0), Some(2.0)]);
        let roles =
            ["primary", "backup", "catching_up"].map(|role| value("sanso_cluster_partitions_held", role));
        assert_eq!(roles, [Some(1.0), Some(0.0), Some(1.0)]);
        assert_eq!(value("sanso_cluster_partitions_without_primary", ""), Some(1.0));
        assert_eq!(value("sanso_cluster_partitions_short", ""), Some(2.0));
    }
}
