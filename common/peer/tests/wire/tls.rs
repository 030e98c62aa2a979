//! With the cluster's certificates, nobody without them is let in.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use sanso_core::cluster::NodeId;
use sanso_peer::{CallError, Lane, PeerConfig, PeerError, Peers, Tls};
use tempfile::TempDir;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::node::{Node, config, pair, soon};
use crate::raw::{self, proto};

/// Two authorities, and certificates that each made. Made once.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        for authority in ["ours", "theirs"] {
            let request = format!("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout {authority}.key -out {authority}.pem -days 2 -subj /CN={authority}");
            openssl(folder.path(), &request);
        }
        let names = ["node-1.town", "node-2.town", "*.town", "node-1.village"];
        for (name, authority) in names.map(|name| (name, "ours")).into_iter().chain([("node-2.town", "theirs")]) {
            sign(folder.path(), name, authority);
        }
        folder
    });
    folder.path()
}

fn sign(folder: &Path, name: &str, authority: &str) {
    let file = format!("{authority}-{}", name.replace('*', "all"));
    std::fs::write(folder.join("extensions"), format!("subjectAltName=DNS:{name}.sanso\n")).unwrap();
    let request = format!(
        "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout {file}.key -out {file}.csr -subj /CN=node"
    );
    openssl(folder, &request);
    let sign = format!(
        "x509 -req -in {file}.csr -CA {authority}.pem -CAkey {authority}.key -CAcreateserial -days 2 -extfile extensions -out {file}.pem"
    );
    openssl(folder, &sign);
}

fn openssl(folder: &Path, arguments: &str) {
    let output = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Sets a node of cluster "town" with a certificate; `ours` and `theirs` say who signed it.
fn with(certificate: &str, node: u16) -> PeerConfig {
    let file = |end: &str| -> PathBuf { folder().join(format!("{certificate}.{end}")) };
    let authority = certificate.split('-').next().unwrap();
    let tls =
        Tls { ca: folder().join(format!("{authority}.pem")), certificate: file("pem"), key: file("key") };
    PeerConfig { tls: Some(tls), ..config(node, 1) }
}

async fn refusal(one: &Node, to: NodeId) -> String {
    match soon(one.peers.call(to, "echo", Bytes::new(), Duration::from_secs(30))).await {
        Err(CallError::Unreachable(reason)) => reason,
        other => panic!("{other:?} instead of a refusal"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_with_the_clusters_certificates_speak_on_any_address() {
    // The second one has a certificate for all nodes of the cluster.
    let everywhere = PeerConfig { listen: ([0, 0, 0, 0], 0).into(), ..with("ours-node-1.town", 1) };
    let one = Node::start(everywhere);
    let mut two = Node::start(with("ours-all.town", 2));
    one.knows(&two);
    two.peers.set_address(one.id, format!("127.0.0.1:{}", one.peers.local_address().port()));
    one.reaches(&two).await;
    two.reaches(&one).await;
    let long = Bytes::from(vec![3; 5 << 20]);
    one.sends(&two, Lane::Data, long.clone());
    assert!(two.hears_message().await == long);
    let answer = soon(two.peers.call(one.id, "who", Bytes::new(), Duration::from_secs(30))).await;
    assert_eq!(answer.unwrap(), "node 2#1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_a_certificate_or_with_one_of_another_authority_is_refused() {
    let one = Node::start(with("ours-node-1.town", 1));
    let plain = Node::start(config(2, 1));
    let other = Node::start(with("theirs-node-2.town", 2));
    for stranger in [&plain, &other] {
        stranger.knows(&one);
        refusal(stranger, one.id).await;
        one.knows(stranger);
        let reason = refusal(&one, stranger.id).await;
        assert!(reason.contains("TLS"), "{reason}");
    }
    assert!(one.peers.status().values().all(|status| !status.beat));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_not_taken_for_another_whose_address_leads_to_it() {
    let (one, two) = pair(with("ours-node-1.town", 1), with("ours-node-2.town", 2)).await;
    one.peers.set_address(NodeId(3), two.peers.local_address().to_string());
    let reason = refusal(&one, NodeId(3)).await;
    assert!(reason.contains("TLS") && reason.contains("node-3.town.sanso"), "{reason}");
}

#[tokio::test]
async fn a_certificate_speaks_for_no_other_node() {
    let one = Node::start(with("ours-node-1.town", 1));
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder().join("ours.pem")).unwrap()).unwrap();
    let certificate = CertificateDer::from_pem_file(folder().join("ours-node-2.town.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(folder().join("ours-node-2.town.key")).unwrap();
    let mut client = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate], key)
        .unwrap();
    client.alpn_protocols.push(b"h2".to_vec());
    let connector = TlsConnector::from(Arc::new(client));
    let says = async |from: u32| {
        let tcp = raw::plain(one.peers.local_address(), b'b').await;
        let name = ServerName::try_from("node-1.town.sanso").unwrap();
        let mut client = raw::over(connector.connect(name, tcp).await.unwrap()).await;
        let hello = proto::Hello { from, ..raw::hello() };
        let frames = tokio_stream::iter([raw::greeting(hello)]);
        soon(client.exchange(frames)).await.map(|_| ()).map_err(|status| status.message().to_owned())
    };
    assert_eq!(says(2).await, Ok(()));
    assert_eq!(says(9).await, Err("the certificate is not for node 9".to_owned()));
}

#[tokio::test]
async fn a_node_does_not_start_with_files_that_are_not_its_own() {
    let reason = |config: PeerConfig| {
        let handler = Arc::new(crate::node::Recorder::deaf());
        match Peers::start(config, handler) {
            Err(PeerError::Tls { path, reason }) => format!("{}: {reason}", path.display()),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("it started"),
        }
    };
    let named = reason(with("ours-node-2.town", 1));
    assert!(named.ends_with("it is not for node-1.town.sanso, this node's name"), "{named}");
    assert!(reason(with("ours-node-1.village", 1)).ends_with("this node's name"));
    let missing = |change: &dyn Fn(&mut Tls)| {
        let mut config = with("ours-node-1.town", 1);
        change(config.tls.as_mut().unwrap());
        reason(config)
    };
    assert!(missing(&|tls| tls.ca = "nowhere.pem".into()).starts_with("nowhere.pem: "));
    assert!(missing(&|tls| tls.key = tls.ca.clone()).contains("ours.pem: "));
    assert!(missing(&|tls| tls.key = folder().join("ours.key")).contains("ours.key: "));
}
