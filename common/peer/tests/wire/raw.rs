//! A client that says what it wants, as no node would.

use std::io;

use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint, Uri};

pub(crate) use proto::peer_client::PeerClient;

#[allow(
    unreachable_pub,
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    reason = "generated"
)]
#[rustfmt::skip]
#[path = "../../src/proto.rs"]
pub(crate) mod proto;

use proto::frame::Content;
use proto::{Chunk, Frame, Hello};

/// Connects to one of a node's lines, named by the last letter of its preface.
pub(crate) async fn connect(at: std::net::SocketAddr, line: u8) -> PeerClient<Channel> {
    over(plain(at, line).await).await
}

/// Connects and says which line it is.
pub(crate) async fn plain(at: std::net::SocketAddr, line: u8) -> TcpStream {
    let mut tcp = TcpStream::connect(at).await.expect("connect");
    tcp.write_all(b"sanso1:").await.expect("write");
    tcp.write_all(&[line]).await.expect("write");
    tcp
}

/// Speaks gRPC over a connection.
pub(crate) async fn over(
    io: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
) -> PeerClient<Channel> {
    let mut io = Some(TokioIo::new(io));
    let once = tower::service_fn(move |_: Uri| {
        let io = io.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected));
        std::future::ready(io)
    });
    let endpoint = Endpoint::from_static("http://node.sanso");
    PeerClient::new(endpoint.connect_with_connector(once).await.expect("speak HTTP/2"))
}

/// Makes the hello that node 9 of cluster "town" says to node 1.
pub(crate) fn hello() -> Hello {
    Hello { cluster: "town".into(), from: 9, incarnation: 1, to: 1, oldest_version: 1, newest_version: 1 }
}

/// Makes a frame of a hello.
pub(crate) fn greeting(hello: Hello) -> Frame {
    Frame { content: Some(Content::Hello(hello)) }
}

/// What a later version may say between chunks: a frame with nothing in it that this one knows.
pub(crate) fn unknown() -> Frame {
    Frame { content: None }
}

/// Makes a frame of a chunk.
pub(crate) fn chunk(message_bytes: u64, part: &'static [u8]) -> Frame {
    Frame { content: Some(Content::Chunk(Chunk { message_bytes, part: part.into() })) }
}
