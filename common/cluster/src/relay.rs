//! Writes to a primary that this node doesn't hear, by way of a node that does.
//!
//! ```text
//!   this node ──✗── primary          control hears both, so it removes neither
//!        └──▶ another node ──▶┘
//! ```

use std::time::Duration;

use bytes::Bytes;
use sanso_core::cluster::Instance;
use sanso_peer::Refusal;

use crate::engine::Engine;
use crate::hub::{Hub, SUBMIT, refused};
use crate::store::WRITE_BYTE;
use crate::wire::{self, SubmitAnswer, SubmitCall};

/// The kind of call by which a node is asked to pass a write on.
pub(crate) const RELAY: &str = "core.relay";

/// How long the primary may take over a short write that is passed on; less than who asked waits.
const RELAY_MAX: Duration = Duration::from_millis(500);
/// How often one who waits for a node looks whether it still hears that.
const LOOK: Duration = Duration::from_millis(25);

/// Resolves when a node is not heard any longer, and another one may reach it.
pub(crate) async fn until_detour(engine: &Engine, to: Instance) {
    while engine.detour(to, 0).is_none() {
        tokio::time::sleep(LOOK).await;
    }
}

impl Hub {
    /// Passes a write on to the primary, once: who is asked by way of this node asks no other.
    pub(crate) async fn relayed(&self, body: Bytes) -> Result<SubmitAnswer, Refusal> {
        let SubmitCall { partition, .. } = wire::decode(&body).map_err(refused)?;
        let map = self.engine().map(|engine| engine.maps().borrow().clone());
        let primary = map.and_then(|map| map.partitions.get(partition.0 as usize)?.primary);
        let Some(primary) = primary else { return Ok(SubmitAnswer::NotPrimary) };
        let deadline = RELAY_MAX + WRITE_BYTE * body.len() as u32;
        if primary.instance.node == self.me {
            return self.submitted(&body).await;
        }
        match self.ask(primary.instance.node, SUBMIT, body.to_vec(), deadline).await {
            Ok(answer) => wire::decode(&answer).map_err(refused),
            Err(error) => {
                tracing::debug!(%partition, %error, "a write can't be passed on");
                Ok(SubmitAnswer::Unknown)
            }
        }
    }
}
