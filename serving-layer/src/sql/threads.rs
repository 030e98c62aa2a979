//! The threads SQL queries run on, so that heavy ones slow nothing else.

use std::future::Future;

use tokio::runtime::{Builder, Runtime};
use tokio::task::{JoinError, JoinSet};

/// A runtime of its own; stopped without waiting when dropped.
pub(crate) struct QueryThreads(Option<Runtime>);

impl QueryThreads {
    /// Starts the threads.
    pub(crate) fn start(threads: usize) -> std::io::Result<Self> {
        let mut builder = Builder::new_multi_thread();
        let runtime =
            builder.worker_threads(threads.max(1)).thread_name("sanso-query").enable_all().build()?;
        Ok(Self(Some(runtime)))
    }

    /// Runs a future there. Dropping the returned future stops it.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, JoinError> {
        let mut tasks = JoinSet::new();
        if let Some(runtime) = &self.0 {
            tasks.spawn_on(future, runtime.handle());
        }
        tasks.join_next().await.expect("the runtime lives as long as this, and one task was spawned")
    }
}

impl Drop for QueryThreads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
