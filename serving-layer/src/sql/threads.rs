//! The threads SQL queries and scans run on, so that heavy ones slow nothing else.

use std::future::Future;

use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinSet;

use crate::problem::Problem;

/// Planning goes as deep as an expression does; `sql::shape` bounds that.
const STACK_BYTES: usize = 32 << 20;

/// A runtime of its own: started when first needed, stopped without waiting when dropped.
pub(crate) struct QueryThreads {
    threads: usize,
    runtime: Mutex<Option<Runtime>>,
}

impl QueryThreads {
    /// Plans for so many threads; none is started yet.
    pub(crate) fn new(threads: usize) -> Self {
        Self { threads, runtime: Mutex::new(None) }
    }

    /// Runs a future there. Dropping the returned future stops it.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Problem> {
        let handle = self.handle().map_err(|error| Problem::internal("start the query threads", error))?;
        let mut tasks = JoinSet::new();
        tasks.spawn_on(future, &handle);
        let joined = tasks.join_next().await.expect("one task was spawned");
        joined.map_err(|error| Problem::internal("run on the query threads", error))
    }

    fn handle(&self) -> std::io::Result<Handle> {
        let mut runtime = self.runtime.lock();
        if let Some(runtime) = runtime.as_ref() {
            return Ok(runtime.handle().clone());
        }
        let mut builder = Builder::new_multi_thread();
        let started = builder
            .worker_threads(self.threads.max(1))
            .thread_stack_size(STACK_BYTES)
            .thread_name("sanso-query")
            .enable_all()
            .build()?;
        let handle = started.handle().clone();
        *runtime = Some(started);
        Ok(handle)
    }
}

impl Drop for QueryThreads {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.get_mut().take() {
            runtime.shutdown_background();
        }
    }
}
