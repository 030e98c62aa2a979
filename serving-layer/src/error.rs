//! Errors of running the serving layer. What a caller of the HTTP API gets is a
//! [`crate::problem::Problem`].

use std::net::SocketAddr;

/// Why the serving layer could not start or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address can't be listened on.
    #[error("listen on {address}: choose another with --listen, or stop what uses it")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}
