//! Mutual TLS: a node without the cluster's certificate gets no further than
//! the handshake, and a certificate speaks only for the node that it names.
//!
//! Both sides check the name `node-N.CLUSTER.sanso`: the one that connects
//! against the node it means to reach, the one that listens against the node
//! that the hello says. TLS 1.3 alone: all ends are ours.

use std::path::Path;
use std::sync::Arc;

use sanso_core::cluster::NodeId;
use tokio::net::TcpStream;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};
use webpki::EndEntityCert;

use crate::config::Tls;
use crate::error::PeerError;

/// HTTP/2, as rustls wants it said.
const ALPN: &[u8] = b"h2";

/// What is needed to accept and to connect.
pub(crate) struct Security {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
    cluster: String,
}

impl Security {
    /// Reads the files; fails when they don't fit together, or don't name this node.
    pub(crate) fn read(tls: &Tls, cluster: &str, me: NodeId) -> Result<Self, PeerError> {
        let roots = roots(&tls.ca)?;
        let chain = certificates(&tls.certificate)?;
        let key = || PrivateKeyDer::from_pem_file(&tls.key).map_err(|error| wrong(&tls.key, error));
        let provider = Arc::new(default_provider());
        let named = chain.first().is_some_and(|own| names(own, cluster, me));
        if !named {
            let reason = format!("it is not for {}, this node's name", name(cluster, me));
            return Err(PeerError::Tls { path: tls.certificate.clone(), reason });
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|error| wrong(&tls.ca, error))?;
        let mut accepting = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| wrong(&tls.ca, error))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key()?)
            .map_err(|error| wrong(&tls.key, error))?;
        let mut connecting = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| wrong(&tls.ca, error))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key()?)
            .map_err(|error| wrong(&tls.key, error))?;
        accepting.alpn_protocols.push(ALPN.to_vec());
        connecting.alpn_protocols.push(ALPN.to_vec());
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(accepting)),
            connector: TlsConnector::from(Arc::new(connecting)),
            cluster: cluster.to_owned(),
        })
    }

    /// Lets a node in that has a certificate of the cluster's authority.
    pub(crate) async fn accept(&self, tcp: TcpStream) -> std::io::Result<server::TlsStream<TcpStream>> {
        self.acceptor.accept(tcp).await
    }

    /// Connects to a node, which has to show a certificate with its name.
    pub(crate) async fn connect(
        &self,
        tcp: TcpStream,
        to: NodeId,
    ) -> std::io::Result<client::TlsStream<TcpStream>> {
        let name = ServerName::try_from(name(&self.cluster, to)).map_err(std::io::Error::other)?;
        self.connector.connect(name, tcp).await
    }

    /// Says whether a certificate, verified before, may speak for a node.
    pub(crate) fn vouches(&self, certificate: &CertificateDer<'_>, node: NodeId) -> bool {
        names(certificate, &self.cluster, node)
    }
}

fn names(certificate: &CertificateDer<'_>, cluster: &str, node: NodeId) -> bool {
    let Ok(certificate) = EndEntityCert::try_from(certificate) else { return false };
    let Ok(name) = ServerName::try_from(name(cluster, node)) else { return false };
    certificate.verify_is_valid_for_subject_name(&name).is_ok()
}

fn name(cluster: &str, node: NodeId) -> String {
    format!("node-{}.{cluster}.sanso", node.0)
}

fn roots(path: &Path) -> Result<Arc<RootCertStore>, PeerError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| wrong(path, error))?;
    }
    Ok(Arc::new(roots))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PeerError> {
    let read = CertificateDer::pem_file_iter(path).map_err(|error| wrong(path, error))?;
    let certificates: Vec<_> = read.collect::<Result<_, _>>().map_err(|error| wrong(path, error))?;
    if certificates.is_empty() {
        return Err(PeerError::Tls { path: path.to_owned(), reason: "it holds no certificate".into() });
    }
    Ok(certificates)
}

fn wrong(path: &Path, error: impl std::fmt::Display) -> PeerError {
    PeerError::Tls { path: path.to_owned(), reason: error.to_string() }
}
