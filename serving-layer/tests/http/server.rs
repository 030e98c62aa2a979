//! The server on a real socket.

use std::net::SocketAddr;
use std::sync::Arc;

use sanso_serving::ServingConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::world::{World, sample};

/// Small enough that a client which does not read is soon noticed.
const BUFFER_BYTES: u32 = 4_096;

/// A world behind a socket.
pub(crate) struct Server {
    pub(crate) world: Arc<World>,
    pub(crate) address: SocketAddr,
    pub(crate) stop: oneshot::Sender<()>,
    pub(crate) running: JoinHandle<()>,
}

impl Server {
    /// Starts a server on a free port, with the sample in its views.
    pub(crate) async fn start(config: ServingConfig) -> Self {
        let world = Arc::new(World::with(config).await);
        world.ingest(&sample()).await;
        world.apply().await;
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_send_buffer_size(BUFFER_BYTES).expect("any size is taken");
        socket.bind(([127, 0, 0, 1], 0).into()).expect("a free port");
        let listener = socket.listen(64).expect("listens");
        let address = listener.local_addr().expect("bound");
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = Arc::clone(&world);
        let running = tokio::spawn(async move {
            let stopped = async {
                // An error says that the test is over.
                let _ = stopped.await;
            };
            serving.layer.serve(listener, stopped).await;
        });
        Self { world, address, stop, running }
    }

    /// Connects a client that has room for little.
    pub(crate) async fn connect(&self) -> TcpStream {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(BUFFER_BYTES).expect("any size is taken");
        socket.connect(self.address).await.expect("connects")
    }
}

pub(crate) async fn request(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.expect("sends");
}

/// Reads until the text has been seen; the connection may stay open.
pub(crate) async fn read_until(stream: &mut TcpStream, wanted: &str) -> String {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while !text.contains(wanted) {
        let read = stream.read(&mut buffer).await.expect("reads");
        assert_ne!(read, 0, "ended before {wanted}: {text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    text
}

#[tokio::test]
async fn a_stop_ends_open_streams_and_then_the_server() {
    let server = Server::start(ServingConfig::default()).await;
    let mut watching = server.connect().await;
    request(&mut watching, "GET /v1/views/meter/stream HTTP/1.1\r\nHost: x\r\n\r\n").await;
    read_until(&mut watching, "event: snapshot").await;
    let mut asking = server.connect().await;
    request(&mut asking, "GET /v1/views/meter?key=m1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    read_until(&mut asking, "0.300001").await;
    server.stop.send(()).expect("the server runs");
    read_until(&mut watching, "the server is stopping").await;
    server.running.await.expect("no panic");
    assert!(TcpStream::connect(server.address).await.is_err());
}
