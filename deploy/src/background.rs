//! Where the batch layer runs: answers are not to wait for it.

use std::future::Future;

use anyhow::Context;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;

/// Threads that let all others of the machine go first. Stopped without waiting when dropped.
pub(crate) struct Background(Option<Runtime>);

impl Background {
    /// Starts the threads, as many as there are processors.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .thread_name("sanso-batch")
            .on_thread_start(sanso_core::run_in_background)
            .enable_all()
            .build();
        Ok(Self(Some(runtime.context("start threads in the background")?)))
    }

    /// Returns what runs more there, as long as they are there.
    pub(crate) fn handle(&self) -> Handle {
        self.0.as_ref().expect("it is there until it is dropped").handle().clone()
    }

    /// Runs a future there.
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        self.0.as_ref().expect("it is there until it is dropped").spawn(future)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
