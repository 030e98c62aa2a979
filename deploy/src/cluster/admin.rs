//! The cluster as operators see it over HTTP.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sanso_cluster::{Change, ClusterNode, Link, NodeId, Refused, Standing, VotersError, owners};
use sanso_serving::{Cluster, ClusterRefusal, Figure};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cluster::applications::Applications;
use crate::cluster::file::{NodeFile, Role};

/// Describes and changes the cluster that a node is in.
pub(crate) struct Admin {
    cluster: Arc<ClusterNode>,
    applications: Arc<Applications>,
    name: String,
    peers: BTreeMap<NodeId, (String, bool, Vec<String>)>,
    /// Those that have the batch layer.
    batch: BTreeSet<NodeId>,
    drill: bool,
}

/// What a link is to suffer.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Suffers {
    cut_in: bool,
    cut_out: bool,
    delay_ms: u64,
    loss: f64,
}

impl Admin {
    /// Speaks for the node of a file.
    pub(crate) fn new(cluster: Arc<ClusterNode>, applications: Arc<Applications>, file: &NodeFile) -> Self {
        let members = file.own.cluster.nodes.iter();
        let peer = |member: &crate::cluster::file::Member| {
            let roles = member.roles.iter().map(|role| format!("{role:?}").to_lowercase()).collect();
            (member.peer.clone(), member.voter, roles)
        };
        Self {
            cluster,
            applications,
            name: file.own.cluster.name.clone(),
            peers: members.map(|member| (NodeId(member.id), peer(member))).collect(),
            batch: file.with_role(Role::Batch),
            drill: file.own.drill,
        }
    }
}

#[async_trait]
impl Cluster for Admin {
    fn node(&self) -> u16 {
        self.cluster.me().node.0
    }

    fn others(&self) -> BTreeMap<u16, Option<String>> {
        let map = self.cluster.maps().borrow().clone();
        let lost = |node: &NodeId| match map.members.get(node).map(|member| member.standing) {
            // Before a map is known anybody may be there.
            None if map.version > 0 => Some("it has not joined the cluster".to_owned()),
            Some(Standing::Suspected) => Some("the cluster does not hear it".to_owned()),
            None | Some(Standing::Up) => None,
        };
        let others = self.peers.keys().filter(|node| **node != self.cluster.me().node);
        others.map(|node| (node.0, lost(node))).collect()
    }

    fn batch_driver(&self) -> Option<u16> {
        let usable = owners::usable(&self.cluster.maps().borrow(), |node| self.batch.contains(&node));
        owners::holder_of("batch", &usable).map(|node| node.0)
    }

    async fn ask(
        &self,
        node: u16,
        kind: &'static str,
        question: Vec<u8>,
        within: Duration,
    ) -> Result<Vec<u8>, String> {
        let answer = self.cluster.ask(NodeId(node), kind, question, within).await;
        answer.map(|answer| answer.to_vec()).map_err(|error| error.to_string())
    }

    fn figures(&self) -> Vec<Figure> {
        let figures = self.cluster.figures().into_iter();
        let figure = |of: sanso_cluster::Figure| Figure {
            name: of.name,
            help: of.help,
            labels: of.labels,
            value: of.value,
        };
        figures.map(figure).collect()
    }

    fn describe(&self) -> Value {
        let map = self.cluster.maps().borrow().clone();
        let held: BTreeMap<_, _> =
            self.cluster.replicas().into_iter().map(|held| (held.partition, held)).collect();
        let leader = self.cluster.control_leader();
        let votes = |node: &NodeId, at_first: bool| match map.voters.is_empty() {
            true => at_first,
            false => map.voters.contains(node),
        };
        let nodes = self.peers.iter().map(|(node, (peer, voter, roles))| {
            let member = map.members.get(node);
            let primaries = map.partitions.iter().filter(|assignment| {
                assignment.primary.is_some_and(|primary| primary.instance.node == *node)
            });
            let holds = |assignment: &&sanso_cluster::Assignment| {
                assignment.holders().any(|holder| holder.instance.node == *node)
            };
            json!({
                "node": node.0,
                "peer": peer,
                "roles": roles,
                "voter": votes(node, *voter),
                "leads_control": leader == Some(*node),
                "standing": match member {
                    None => "absent",
                    Some(member) if member.standing == Standing::Up => "up",
                    Some(_) => "suspected",
                },
                "draining": member.is_some_and(|member| member.draining),
                "incarnation": member.map(|member| member.incarnation.0),
                "primaries": primaries.count(),
                "replicas": map.partitions.iter().filter(holds).count(),
            })
        });
        let partitions = map.assignments().map(|(partition, assignment)| {
            let nodes = |holders: &[sanso_cluster::Holder]| {
                holders.iter().map(|holder| holder.instance.node.0).collect::<Vec<_>>()
            };
            let mine = held.get(&partition).map(|mine| {
                json!({
                    "epoch": mine.at.epoch.0,
                    "shown": mine.at.seq,
                    "not_shown": mine.behind,
                    "view_partitions": mine.held.len(),
                    "groups": mine.groups,
                })
            });
            json!({
                "partition": partition.0,
                "life": assignment.life,
                "epoch": assignment.epoch.0,
                "primary": assignment.primary.map(|primary| primary.instance.node.0),
                "in_sync": nodes(&assignment.in_sync),
                "catching_up": nodes(&assignment.learners),
                "here": mine,
            })
        });
        let mut applications = self.applications.describe();
        json!({
            "name": self.name,
            "node": self.cluster.me().node.0,
            "map_version": map.version,
            "replicas": map.replicas,
            "in_touch": self.cluster.is_in_touch(),
            "control_leader": leader.map(|leader| leader.0),
            "nodes": nodes.collect::<Vec<_>>(),
            "partitions": partitions.collect::<Vec<_>>(),
            "applications": applications["applications"].take(),
            "views": applications["views"].take(),
        })
    }

    async fn voters(&self) -> Value {
        let voters = self.cluster.voters().await;
        let nodes = voters.nodes.iter().map(|(node, part)| {
            let applied = part.as_ref().and_then(|part| part.applied);
            json!({ "node": node.0, "part": voters.part(*node), "applied": applied })
        });
        json!({
            "leader": voters.leader.map(|leader| leader.0),
            "voters": voters.voters.iter().map(|voter| voter.0).collect::<Vec<_>>(),
            "nodes": nodes.collect::<Vec<_>>(),
        })
    }

    async fn change_voters(&self, voters: &[u16], force: bool) -> Result<Value, ClusterRefusal> {
        let asked = voters.iter().copied().map(NodeId).collect();
        match self.cluster.change_voters(&asked, force).await {
            Ok(warning) => {
                let mut now = self.voters().await;
                now["warning"] = warning.into();
                Ok(now)
            }
            Err(VotersError::Refused(why)) => Err(ClusterRefusal::Impossible(why)),
            Err(error) => Err(ClusterRefusal::Unavailable(error.to_string())),
        }
    }

    async fn drain(&self, node: u16, draining: bool) -> Result<(), ClusterRefusal> {
        match self.cluster.propose(Change::Drain(NodeId(node), draining)).await {
            Ok(Ok(_) | Err(Refused::Nothing)) => Ok(()),
            Ok(Err(refused)) => Err(ClusterRefusal::Impossible(format!("node {node}: {refused}"))),
            Err(error) => Err(ClusterRefusal::Unavailable(error.to_string())),
        }
    }

    fn break_links(&self, links: &Value) -> Result<(), ClusterRefusal> {
        if !self.drill {
            return Err(ClusterRefusal::NotHere("it was not started with drill = true"));
        }
        let links: BTreeMap<u16, Suffers> = serde_json::from_value(links.clone())
            .map_err(|error| ClusterRefusal::Impossible(error.to_string()))?;
        for (node, link) in &links {
            if !self.peers.contains_key(&NodeId(*node)) || *node == self.cluster.me().node.0 {
                return Err(ClusterRefusal::Impossible(format!("there is no link to node {node}")));
            }
            if !(0.0..=1.0).contains(&link.loss) || link.delay_ms > 60_000 {
                return Err(ClusterRefusal::Impossible("loss is 0 to 1, delay_ms at most 60000".to_owned()));
            }
        }
        let filter = self.cluster.filter();
        filter.clear();
        for (node, Suffers { cut_in, cut_out, delay_ms, loss }) in links {
            filter.set(NodeId(node), Link { cut_in, cut_out, delay_ms, loss });
        }
        Ok(())
    }
}
