//! Certificates and passwords of a cluster, made anew for each.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

/// The user that every cluster knows, for SCRAM and PLAIN.
pub const USER: &str = "sanso";
/// Its password; with characters that an address has to escape.
pub const PASSWORD: &str = "gehe!m&niemals=im log";

/// PEM files: a certificate authority, and what it signed.
#[derive(Debug)]
pub struct Credentials {
    /// The authority's certificate.
    pub ca: PathBuf,
    /// The client's certificate.
    pub certificate: PathBuf,
    /// The client's key.
    pub key: PathBuf,
    /// The brokers' key and certificate in one file.
    pub(crate) broker: PathBuf,
}

impl Credentials {
    /// Makes an authority, a broker's certificate for 127.0.0.1 and a client's.
    pub(crate) fn make(folder: &Path) -> anyhow::Result<Self> {
        openssl(
            folder,
            "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=authority",
        )?;
        std::fs::write(folder.join("extensions"), "subjectAltName=IP:127.0.0.1,DNS:localhost\n")?;
        for name in ["broker", "client"] {
            openssl(
                folder,
                &format!("req -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr -subj /CN={name}"),
            )?;
            openssl(
                folder,
                &format!(
                    "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile extensions -out {name}.pem"
                ),
            )?;
        }
        let read = |name: &str| std::fs::read_to_string(folder.join(name));
        let broker = folder.join("broker.both.pem");
        std::fs::write(&broker, read("broker.key")? + &read("broker.pem")?)?;
        let [ca, certificate, key] = ["ca.pem", "client.pem", "client.key"].map(|name| folder.join(name));
        Ok(Self { ca, certificate, key, broker })
    }
}

fn openssl(folder: &Path, arguments: &str) -> anyhow::Result<()> {
    let mut command = Command::new("openssl");
    command.args(arguments.split(' ')).current_dir(folder).stdin(Stdio::null());
    let output = command.output().context("run openssl")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "openssl {arguments}: {said}");
    Ok(())
}
