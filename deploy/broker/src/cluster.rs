//! One or three brokers that are a cluster.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use tempfile::TempDir;

use crate::available::jars;
use crate::configuration::{LOGGING, Ports, properties};
use crate::credentials::{Credentials, PASSWORD, USER};
use crate::process::{Broker, format};

/// Any 16 bytes in base64.
const CLUSTER_ID: &str = "c2Fuc28tdGVzdC1icm9rZQ";

/// A running cluster. Its brokers are killed when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    // Before the folder, so that no broker writes to it while it is removed.
    brokers: Vec<Option<Broker>>,
    ports: Vec<Ports>,
    credentials: Credentials,
    jars: PathBuf,
    folder: TempDir,
}

impl Cluster {
    /// Starts `brokers` brokers and waits until all serve.
    pub fn start(brokers: usize) -> anyhow::Result<Self> {
        let jars = jars().map_err(anyhow::Error::msg)?;
        let folder = tempfile::Builder::new().prefix("sanso-kafka-").tempdir()?;
        let credentials = Credentials::make(folder.path())?;
        std::fs::write(folder.path().join("log4j2.properties"), LOGGING)?;
        let ports = free_ports(brokers)?;
        let nodes = 1..=brokers;
        let mut tools = Vec::new();
        for node in nodes.clone() {
            let data = folder.path().join(format!("broker-{node}.data"));
            let file = folder.path().join(format!("broker-{node}.properties"));
            std::fs::write(&file, properties(node, &ports, &data, &credentials))?;
            let scram = format!("SCRAM-SHA-512=[name={USER},password=\"{PASSWORD}\"]");
            tools.push(format(&jars, CLUSTER_ID, &file, &scram)?);
        }
        for tool in tools {
            let output = tool.wait_with_output()?;
            let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "format a broker's folder: {said}");
        }
        let mut cluster = Self { brokers: Vec::new(), ports, credentials, jars, folder };
        for node in nodes {
            let broker = Broker::start(&cluster.jars, cluster.folder.path(), node)?;
            cluster.brokers.push(Some(broker));
        }
        cluster.brokers.iter_mut().flatten().try_for_each(Broker::ready)?;
        Ok(cluster)
    }

    /// Returns `HOST:PORT,…` of all brokers, for clients without encryption.
    pub fn servers(&self) -> String {
        self.list(|ports| ports.plain)
    }

    /// Returns `HOST:PORT,…` for clients with a certificate over TLS.
    pub fn tls_servers(&self) -> String {
        self.list(|ports| ports.tls)
    }

    /// Returns `HOST:PORT,…` for clients that log in (SCRAM-SHA-512, PLAIN) over TLS.
    pub fn sasl_servers(&self) -> String {
        self.list(|ports| ports.sasl)
    }

    /// Runs kcat on the cluster with some input; returns what it wrote.
    pub fn kcat(&self, arguments: &[&str], input: &str) -> anyhow::Result<String> {
        let mut kcat = Command::new("kcat");
        kcat.args(["-b", &self.servers()]).args(arguments);
        // Cargo names our own librdkafka there, which may be of another build than kcat's.
        kcat.env_remove("LD_LIBRARY_PATH");
        kcat.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = kcat.spawn().context("start kcat")?;
        child.stdin.take().context("write to kcat")?.write_all(input.as_bytes())?;
        let output = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kcat {arguments:?}: {said}");
        Ok(String::from_utf8(output.stdout)?)
    }

    fn list(&self, port: impl Fn(&Ports) -> u16) -> String {
        let servers: Vec<_> = self.ports.iter().map(|ports| format!("127.0.0.1:{}", port(ports))).collect();
        servers.join(",")
    }

    /// Returns the certificates that the cluster accepts.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Kills a broker (from 0) as a power cut would (SIGKILL); its data stays.
    pub fn kill(&mut self, broker: usize) {
        self.brokers[broker] = None;
    }

    /// Stops a broker in order; its data stays.
    pub fn stop(&mut self, broker: usize) -> anyhow::Result<()> {
        self.brokers[broker].take().context("the broker doesn't run")?.stop()
    }

    /// Starts brokers that were killed or stopped, all at once, and waits until they serve.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        let mut fresh = Vec::new();
        for index in 0..self.brokers.len() {
            if self.brokers[index].is_none() {
                self.brokers[index] = Some(Broker::start(&self.jars, self.folder.path(), index + 1)?);
                fresh.push(index);
            }
        }
        for index in fresh {
            self.brokers[index].as_mut().context("it was started")?.ready()?;
        }
        Ok(())
    }
}

/// Finds free ports for some brokers.
fn free_ports(brokers: usize) -> anyhow::Result<Vec<Ports>> {
    let mut free = crate::ports::free(4 * brokers)?.into_iter();
    let mut next = || free.next().context("as many were found as asked for");
    let mut ports = || Ok(Ports { plain: next()?, tls: next()?, sasl: next()?, controller: next()? });
    (0..brokers).map(|_| ports()).collect()
}
