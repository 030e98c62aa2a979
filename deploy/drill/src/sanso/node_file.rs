//! The files of the nodes of a drilled cluster. All that this package knows of their format is here.

use std::path::PathBuf;

/// What the nodes of a cluster have in common.
pub(super) struct NodeFiles {
    /// Holds the application, the dataset and a folder for each node.
    pub(super) folder: PathBuf,
    /// The log's address.
    pub(super) log: String,
    /// Where each node serves HTTP.
    pub(super) http: Vec<u16>,
    /// Where each node listens to the others.
    pub(super) peer: Vec<u16>,
}

/// View partitions of the drilled cluster; few, so that all are soon in sync again.
const PARTITIONS: u32 = 16;
const REPLICAS: usize = 3;

impl NodeFiles {
    /// Returns the folder of a node, from 0.
    pub(super) fn data(&self, node: usize) -> PathBuf {
        self.folder.join(format!("node{}", node + 1))
    }

    /// Returns the roles of a node. From five nodes on they are mixed, so that each can be lost alone.
    pub(super) fn roles(&self, node: usize) -> &'static [&'static str] {
        match (self.http.len(), node) {
            (..5, _) => &["batch", "speed", "serving"],
            (_, 0 | 1) => &["batch", "serving"],
            (_, 2 | 3) => &["speed", "serving"],
            _ => &["serving"],
        }
    }

    /// Writes the file of a node.
    pub(super) fn file(&self, node: usize) -> String {
        let nodes = self.http.len();
        let voters = if nodes < 5 { 3 } else { 5 };
        let mut text = format!(
            "node = {}\ndata = {:?}\napplication = {:?}\nlisten = \"127.0.0.1:{}\"\ndrill = true\n\n\
             [log]\nurl = {:?}\n\n[dataset]\nurl = {:?}\n\n\
             [cluster]\nname = \"drill\"\npartitions = {PARTITIONS}\nreplicas = {}\n",
            node + 1,
            self.data(node),
            self.folder.join("app.sql"),
            self.http[node],
            self.log,
            self.folder.join("dataset"),
            REPLICAS.min(nodes),
        );
        for (member, peer) in self.peer.iter().enumerate() {
            text.push_str(&format!(
                "\n[[cluster.nodes]]\nid = {}\npeer = \"127.0.0.1:{peer}\"\nvoter = {}\nroles = {:?}\n",
                member + 1,
                member < voters,
                self.roles(member),
            ));
        }
        text
    }
}
