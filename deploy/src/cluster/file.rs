//! A node's file: where it is, what it runs, and who the others are.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use sanso_cluster::{MemberAddress, NodeConfig, NodeId, Tls};
use serde::Deserialize;

use crate::config::Settings;

/// An example with all keys explained.
pub(crate) const EXAMPLE: &str = include_str!("../../node.toml");

/// A node's file. The layers' settings stand in it beside these.
#[derive(Clone, Debug)]
pub(crate) struct NodeFile {
    /// What is the node's own.
    pub(crate) own: Own,
    /// The layers' settings.
    pub(crate) settings: Settings,
    /// Whether the node is alone, a cluster of one that needs no network.
    pub(crate) is_alone: bool,
}

/// What a node's file says beside the layers' settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Own {
    /// This node's number.
    pub(crate) node: u16,
    /// The application.
    pub(crate) application: PathBuf,
    /// The folder of what this node must not forget.
    pub(crate) data: PathBuf,
    /// Where HTTP is served.
    pub(crate) listen: SocketAddr,
    /// Whether its links may be broken on purpose, for drills.
    #[serde(default)]
    pub(crate) drill: bool,
    /// The cluster.
    pub(crate) cluster: ClusterSection,
    /// The log.
    pub(crate) log: LogSection,
}

/// The log.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogSection {
    /// Its address.
    pub(crate) url: String,
}

/// The cluster; the same in the files of all nodes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClusterSection {
    /// Its name.
    pub(crate) name: String,
    /// The number of its partitions.
    #[serde(default = "default_partitions")]
    pub(crate) partitions: u32,
    /// The replicas of each.
    #[serde(default = "default_replicas")]
    pub(crate) replicas: usize,
    /// Silence after which a node is taken for lost, in milliseconds.
    #[serde(default = "default_suspect_ms")]
    pub(crate) suspect_ms: u64,
    /// Where this node listens to the others, if not at its own `peer` address.
    pub(crate) listen: Option<SocketAddr>,
    /// Its nodes.
    pub(crate) nodes: Vec<Member>,
    /// Certificates.
    pub(crate) tls: Option<TlsSection>,
    /// Listens on any address without certificates.
    #[serde(default)]
    pub(crate) insecure: bool,
}

/// A node of the cluster.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Member {
    /// Its number.
    pub(crate) id: u16,
    /// Where the other nodes reach it.
    pub(crate) peer: String,
    /// Whether it votes in control.
    #[serde(default)]
    pub(crate) voter: bool,
    /// The layers it runs.
    #[serde(default = "all_roles")]
    pub(crate) roles: BTreeSet<Role>,
}

/// A layer that a node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// Archives and recomputes; one such node at a time.
    Batch,
    /// Feeds views from its share of the log's partitions.
    Speed,
    /// Answers over HTTP.
    Serving,
}

/// The certificates of a node.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TlsSection {
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

fn default_partitions() -> u32 {
    64
}

fn default_replicas() -> usize {
    3
}

fn default_suspect_ms() -> u64 {
    NodeConfig::default().detector.suspect_us / 1_000
}

fn all_roles() -> BTreeSet<Role> {
    BTreeSet::from([Role::Batch, Role::Speed, Role::Serving])
}

impl NodeFile {
    /// Describes a node that is alone and has all layers. Without an address, its log is embedded in the
    /// data folder.
    pub(crate) fn alone(
        application: PathBuf,
        data: PathBuf,
        listen: SocketAddr,
        log: Option<String>,
        settings: Settings,
    ) -> Self {
        let member = Member { id: 1, peer: String::new(), voter: true, roles: all_roles() };
        let cluster = ClusterSection {
            name: "alone".to_owned(),
            partitions: 1,
            replicas: 1,
            suspect_ms: default_suspect_ms(),
            listen: None,
            nodes: vec![member],
            tls: None,
            insecure: false,
        };
        let url = log.unwrap_or_else(|| format!("embedded:{}", data.join("log").display()));
        let log = LogSection { url };
        let own = Own { node: 1, application, data, listen, drill: false, cluster, log };
        Self { own, settings, is_alone: true }
    }

    /// Reads a node's file.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let named = || format!("read {}", path.display());
        let text = std::fs::read_to_string(path).with_context(named)?;
        Self::parse(&text).with_context(named)
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let mut layers: toml::Table = text.parse()?;
        let mut own = toml::Table::new();
        for key in ["node", "application", "data", "listen", "drill", "cluster", "log"] {
            if let Some(value) = layers.remove(key) {
                own.insert(key.to_owned(), value);
            }
        }
        let own: Own = own.try_into().context("see `sanso node --print-example` for all keys")?;
        let file = Self { own, settings: Settings::over_defaults(layers)?, is_alone: false };
        file.check()?;
        Ok(file)
    }

    fn check(&self) -> anyhow::Result<()> {
        let cluster = &self.own.cluster;
        let mut seen = BTreeSet::new();
        for member in &cluster.nodes {
            ensure!(seen.insert(member.id), "cluster.nodes: {} stands there twice", member.id);
        }
        ensure!(seen.contains(&self.own.node), "cluster.nodes: node {} is not among them", self.own.node);
        let runs = |role| cluster.nodes.iter().any(|member| member.roles.contains(&role));
        for (role, name) in [(Role::Batch, "batch"), (Role::Speed, "speed"), (Role::Serving, "serving")] {
            ensure!(runs(role), "cluster.nodes: no node has the role \"{name}\"");
        }
        ensure!(
            (60..=60_000).contains(&cluster.suspect_ms),
            "cluster.suspect_ms: {} is not from 60 to 60000",
            cluster.suspect_ms
        );
        let log = sanso_log::without_secrets(&self.own.log.url);
        ensure!(
            self.own.log.url.starts_with("kafka://"),
            "log.url: {log} is of one machine; the nodes of a cluster share a log in Kafka"
        );
        ensure!(
            self.settings.dataset.url.is_some(),
            "dataset.url: a cluster's nodes share it; say where it is"
        );
        Ok(())
    }

    /// Returns the times and limits of the cluster's core.
    pub(crate) fn core(&self) -> NodeConfig {
        NodeConfig::default().suspecting_after(self.own.cluster.suspect_ms * 1_000)
    }

    /// Returns where this node listens to the others.
    pub(crate) fn peer_listen(&self) -> anyhow::Result<SocketAddr> {
        let cluster = &self.own.cluster;
        if let Some(listen) = cluster.listen {
            return Ok(listen);
        }
        let own = cluster.nodes.iter().find(|member| member.id == self.own.node);
        let own = own.context("this node is not among the nodes")?;
        own.peer.parse().with_context(|| {
            format!("cluster.nodes: {} is no address to listen on; say cluster.listen", own.peer)
        })
    }

    /// Returns all nodes.
    pub(crate) fn members(&self) -> BTreeMap<NodeId, MemberAddress> {
        let members = self.own.cluster.nodes.iter();
        let member = |member: &Member| MemberAddress { peer: member.peer.clone(), voter: member.voter };
        members.map(|m| (NodeId(m.id), member(m))).collect()
    }

    /// Returns the nodes that run a layer.
    pub(crate) fn with_role(&self, role: Role) -> BTreeSet<NodeId> {
        let nodes = self.own.cluster.nodes.iter().filter(|member| member.roles.contains(&role));
        nodes.map(|member| NodeId(member.id)).collect()
    }

    /// Returns this node's certificates.
    pub(crate) fn tls(&self) -> Option<Tls> {
        let tls = self.own.cluster.tls.clone()?;
        Some(Tls { ca: tls.ca, certificate: tls.certificate, key: tls.key })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_whole() {
        let file = NodeFile::parse(EXAMPLE).expect("the example parses");
        assert_eq!(file.members().len(), 3);
        let suspect_us = |text: &str| NodeFile::parse(text).expect("it parses").core().detector.suspect_us;
        assert_eq!(suspect_us(EXAMPLE), NodeConfig::default().detector.suspect_us);
        assert_eq!(suspect_us(&EXAMPLE.replace("suspect_ms = 120", "suspect_ms = 5000")), 5_000_000);
        assert_eq!(file.peer_listen().expect("an address"), "127.0.0.1:7171".parse().expect("an address"));
    }

    #[test]
    fn what_can_not_be_is_refused_by_name() {
        let wrong = [
            ("node = 1 ", "node = 9 ", "node 9 is not among them"),
            ("id = 2", "id = 1", "1 stands there twice"),
            ("kafka://127.0.0.1:9092", "embedded:here", "a log in Kafka"),
            ("url = \"/srv/sanso/dataset\"", "", "dataset.url"),
            ("voter = true", "votes = true", "votes"),
            ("drill = false", "drills = false", "drills"),
            ("suspect_ms = 120", "suspect_ms = 59", "suspect_ms"),
            ("suspect_ms = 120", "suspect_ms = 60001", "suspect_ms"),
        ];
        for (right, wrong, says) in wrong {
            assert!(EXAMPLE.contains(right), "{right}");
            let error = NodeFile::parse(&EXAMPLE.replacen(right, wrong, 1)).expect_err(says);
            assert!(format!("{error:#}").contains(says), "{error:#}");
        }
        let roles = "roles = [\"batch\", \"speed\", \"serving\"]";
        assert!(EXAMPLE.contains(roles));
        let no_speed =
            EXAMPLE.replace(roles, "").replace("peer =", "roles = [\"batch\", \"serving\"]\npeer =");
        let error = NodeFile::parse(&no_speed).expect_err("nobody feeds the views");
        assert!(format!("{error:#}").contains("speed"), "{error:#}");
    }
}
