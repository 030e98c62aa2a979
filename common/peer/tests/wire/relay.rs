//! Stands between two nodes.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Passes connections on, counts them, and lets them die without a word.
pub(crate) struct Relay {
    /// Where it listens.
    pub(crate) at: SocketAddr,
    /// How many connections there were.
    pub(crate) connections: watch::Receiver<u32>,
    silenced: watch::Sender<()>,
}

impl Relay {
    /// Starts one.
    pub(crate) async fn to(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let (count, connections) = watch::channel(0);
        let silenced = watch::Sender::new(());
        let silences = silenced.clone();
        tokio::spawn(async move {
            while let Ok((mut from, _)) = listener.accept().await {
                count.send_modify(|count| *count += 1);
                let mut silenced = silences.subscribe();
                tokio::spawn(async move {
                    let Ok(mut to) = TcpStream::connect(to).await else { return };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut from, &mut to) => (),
                        // Open on both sides, and nothing passes any more.
                        _ = silenced.changed() => std::future::pending().await,
                    }
                });
            }
        });
        Self { at, connections, silenced }
    }

    /// Keeps the connections that there are open, and passes nothing on them any more.
    pub(crate) fn silence(&self) {
        self.silenced.send_replace(());
    }
}
