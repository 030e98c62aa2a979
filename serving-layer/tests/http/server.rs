//! The server on a real socket.

use std::sync::Arc;

use sanso_serving::ServingConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::world::{World, sample};

async fn request(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.expect("sends");
}

/// Reads until the text has been seen; the connection may stay open.
async fn read_until(stream: &mut TcpStream, wanted: &str) -> String {
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
    let config = ServingConfig { listen: ([127, 0, 0, 1], 0).into(), ..ServingConfig::default() };
    let world = Arc::new(World::with(config).await);
    world.ingest(&sample()).await;
    world.apply().await;
    let listener = world.layer.listen().await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = Arc::clone(&world);
    let server = tokio::spawn(async move {
        let stopped = async { stopped.await.expect("the test says when") };
        serving.layer.serve(listener, stopped).await
    });
    let mut watching = TcpStream::connect(address).await.expect("connects");
    request(&mut watching, "GET /v1/views/meter/stream HTTP/1.1\r\nHost: x\r\n\r\n").await;
    read_until(&mut watching, "event: snapshot").await;
    let mut asking = TcpStream::connect(address).await.expect("connects");
    request(&mut asking, "GET /v1/views/meter?key=m1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    read_until(&mut asking, "0.300001").await;
    stop.send(()).expect("the server runs");
    read_until(&mut watching, "the server is stopping").await;
    server.await.expect("no panic").expect("no error");
    assert!(TcpStream::connect(address).await.is_err());
}
