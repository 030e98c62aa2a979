//! Free ports that stay free while a process that had one is gone.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::bail;

/// Below the ports that the system gives to outgoing connections: one of those could take the port of
/// a process that was killed.
const PORTS: std::ops::Range<u32> = 11_000..32_000;

/// Finds so many, none of them twice; programs that run beside each other begin at different places.
pub fn free(count: usize) -> anyhow::Result<Vec<u16>> {
    static USED: AtomicU32 = AtomicU32::new(0);
    let width = PORTS.end - PORTS.start;
    let begin = std::process::id().wrapping_mul(97) % width;
    let next = || {
        for _ in 0..width {
            let step = USED.fetch_add(1, Ordering::Relaxed);
            let port = u16::try_from(PORTS.start + (begin + step) % width)?;
            if TcpListener::bind(("127.0.0.1", port)).is_ok() {
                return Ok(port);
            }
        }
        bail!("no free port")
    };
    (0..count).map(|_| next()).collect()
}
