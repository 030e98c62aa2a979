//! One server with one bucket.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};

use crate::available::python;
use crate::proxy::{Fate, Proxy, Request, exchange};

/// Serves until its input ends, which it does when the test is gone, however it went.
const SERVER: &str = "
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address='127.0.0.1', port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
";

/// A running server with an empty bucket. Gone when dropped.
#[derive(Debug)]
pub struct Bucket {
    server: Child,
    address: SocketAddr,
    proxy: Proxy,
}

impl Bucket {
    /// The bucket's name.
    pub const NAME: &'static str = "readings-archive";

    /// Starts a server and makes the bucket. Needs a Tokio runtime for as long as it is used.
    pub async fn start() -> anyhow::Result<Self> {
        let mut server = Command::new(python())
            .args(["-c", SERVER])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("start moto")?;
        let output = server.stdout.take().context("read moto's port")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).context("read moto's port")?;
        let port: u16 = line.trim().parse().with_context(|| format!("moto said {line:?}, not its port"))?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let proxy = Proxy::start(address).await?;
        let bucket = Self { server, address, proxy };
        bucket.request("PUT", "").await?;
        Ok(bucket)
    }

    /// Returns the address that clients are to use.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.proxy.address())
    }

    /// Decides the fate of every request from now on. Called in the order in which requests arrive.
    pub fn decide(&self, fate: impl FnMut(&Request) -> Fate + Send + 'static) {
        self.proxy.decide(Box::new(fate));
    }

    /// Forwards every request from now on.
    pub fn heal(&self) {
        self.decide(|_| Fate::Forwarded);
    }

    /// Removes the bucket; it must be empty.
    pub async fn remove(&self) -> anyhow::Result<()> {
        self.request("DELETE", "").await
    }

    async fn request(&self, method: &str, path: &str) -> anyhow::Result<()> {
        let (name, host) = (Self::NAME, self.address);
        let request = format!(
            "{method} /{name}/{path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        let answer = exchange(self.address, request.as_bytes()).await?;
        let head = String::from_utf8_lossy(&answer[..answer.len().min(12)]).into_owned();
        ensure!(head.starts_with("HTTP/1.1 2"), "{method} {path}: {}", String::from_utf8_lossy(&answer));
        Ok(())
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
