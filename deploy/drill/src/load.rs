//! The load: writers and readers, each with requests that are due at fixed times whatever became of
//! those before.
//!
//! ```text
//!   writer w   keys w, w + W, w + 2W, …: reading 0 of each, reading 1 of each, …
//!              └ after some acknowledgements: is it visible in this session?
//!   reader     any key: its count; at times all its readings, or the count of everything
//! ```

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::client::Client;
use crate::history::{Key, Operation, Request};

/// How much load there is.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Clients that write.
    pub writers: u32,
    /// Readings that each of them writes a second.
    pub writes_per_s: u32,
    /// Clients that only ask.
    pub readers: u32,
    /// Questions of each of them a second.
    pub reads_per_s: u32,
    /// Keys of each writer.
    pub keys_per_writer: u32,
    /// One of so many writes is asked for right after its acknowledgement.
    pub visible_every: u32,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            writers: 6,
            writes_per_s: 25,
            readers: 6,
            reads_per_s: 50,
            keys_per_writer: 8,
            visible_every: 2,
        }
    }
}

impl Load {
    /// Returns a load of about so many requests a second, 18 at least, a third of them readings.
    pub fn of(requests_per_s: u32) -> Self {
        let usual = Self::default();
        let writes_per_s = requests_per_s / 3 / usual.writers;
        Self { writes_per_s, reads_per_s: 2 * writes_per_s, ..usual }
    }

    /// Returns the number of keys; they are numbered from 0.
    pub fn keys(&self) -> Key {
        self.writers * self.keys_per_writer
    }

    /// Returns the number of clients: the writers come first.
    pub fn clients(&self) -> usize {
        (self.writers + self.readers) as usize
    }

    /// Returns how long after one request of a client its next is due.
    fn interval(&self, client: u32) -> Duration {
        let per_s = if client < self.writers { self.writes_per_s } else { self.reads_per_s };
        Duration::from_secs(1) / per_s
    }

    /// Returns the request of a client by its number. Each write of a load is another reading.
    pub fn request(&self, client: u32, number: u32) -> Request {
        if client < self.writers {
            let key = client + self.writers * (number % self.keys_per_writer);
            return Request::Write { key, sequence: number / self.keys_per_writer };
        }
        let key = scatter(u64::from(client) << 32 | u64::from(number)) % u64::from(self.keys());
        let key = Key::try_from(key).expect("below the number of keys");
        match number % 16 {
            5 => Request::Total,
            3 | 11 => Request::Range { key },
            _ => Request::Point { key },
        }
    }
}

/// Mixes a number (SplitMix64's last step).
fn scatter(number: u64) -> u64 {
    let mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Runs the load until it is cancelled, and on until every operation has ended; returns them all.
///
/// `answers` says which questions the cluster has an answer to; others are left out.
pub async fn run(
    load: Load,
    clients: Vec<Arc<Client>>,
    answers: fn(Request) -> bool,
    began: Instant,
    cancel: CancellationToken,
) -> Vec<Operation> {
    let mut running = JoinSet::new();
    for (number, client) in (0..).zip(clients) {
        running.spawn(run_client(load, number, client, answers, began, cancel.clone()));
    }
    running.join_all().await.into_iter().flatten().collect()
}

async fn run_client(
    load: Load,
    client: u32,
    speaks: Arc<Client>,
    answers: fn(Request) -> bool,
    began: Instant,
    cancel: CancellationToken,
) -> Vec<Operation> {
    let interval = load.interval(client);
    // Clients come one after the other, not all at once.
    let first = began + interval * client / load.clients() as u32;
    let mut under_way = JoinSet::new();
    for number in 0.. {
        let due = first + interval * number;
        tokio::select! {
            () = tokio::time::sleep_until(due) => {}
            () = cancel.cancelled() => break,
        }
        let request = load.request(client, number);
        if !answers(request) {
            continue;
        }
        let speaks = Arc::clone(&speaks);
        let visible = number % load.visible_every == 0;
        under_way.spawn(async move {
            let operation = speaks.perform(request, due).await;
            let Request::Write { key, .. } = request else { return vec![operation] };
            if !visible || operation.good().is_none() {
                return vec![operation];
            }
            vec![operation, speaks.perform(Request::Visible { key }, due).await]
        });
    }
    under_way.join_all().await.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_reading_is_written_twice_and_readers_ask_for_everything() {
        let load = Load::default();
        let requests = |clients: std::ops::Range<u32>| {
            clients.flat_map(move |client| (0..400).map(move |number| load.request(client, number)))
        };
        let written: Vec<Request> = requests(0..load.writers).collect();
        assert_eq!(written.iter().collect::<BTreeSet<_>>().len(), written.len());
        let asked: Vec<Request> = requests(load.writers..load.writers + load.readers).collect();
        let keys: BTreeSet<Key> = asked.iter().filter_map(|request| request.key()).collect();
        assert_eq!(keys, (0..load.keys()).collect());
        assert!(asked.contains(&Request::Total));
        assert!(asked.iter().any(|request| matches!(request, Request::Range { .. })));
    }
}
