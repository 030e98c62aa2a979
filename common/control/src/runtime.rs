//! How Raft is set up: its types, and the thread that it runs on.
//!
//! Heartbeats of a few milliseconds must not wait behind queries, so Raft has a thread with a
//! runtime of its own. When it ends, all that ran on it is dropped and the folder is free.

use std::thread::JoinHandle;

use openraft::EmptyNode;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::agreed::{Answer, Sealed};

openraft::declare_raft_types!(
    /// The types of control's Raft group.
    pub(crate) Raft:
        D = Sealed,
        R = Answer,
        NodeId = u64,
        Node = EmptyNode,
);

pub(crate) type Entry = openraft::type_config::alias::EntryOf<Raft>;
pub(crate) type LogId = openraft::type_config::alias::LogIdOf<Raft>;
pub(crate) type Vote = openraft::type_config::alias::VoteOf<Raft>;
pub(crate) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<Raft>;
pub(crate) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<Raft>;

/// The thread that Raft runs on.
pub(crate) struct RaftThread {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl RaftThread {
    pub(crate) fn start() -> std::io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let run = move || {
            // Sent or dropped, the answer is the same.
            let _ = runtime.block_on(stopped);
        };
        let thread = std::thread::Builder::new().name("control".to_owned()).spawn(run)?;
        Ok(Self { handle, stop: Some(stop), thread: Some(thread) })
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for RaftThread {
    /// Ends the thread and waits for it: a few milliseconds, a disk that hangs excepted.
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            // A panic there has been told of already.
            let _ = thread.join();
        }
    }
}
