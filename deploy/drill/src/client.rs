//! A client as ordinary ones are: it stays with a node that answers, and turns to the next after an
//! error or when it has waited long enough. It has so many requests under way at most: others wait for
//! one to end, as for a connection of a pool, and their time runs meanwhile. Without that bound a
//! client's own repetitions would be a load that no cluster recovers under.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::history::{Attempt, Operation, Request, Seen};
use crate::target::Connection;

/// The pause before the nodes are asked another time, once none of them had a good answer.
const PAUSE: Duration = Duration::from_millis(10);
/// It doubles up to this.
const PAUSE_MAX: Duration = Duration::from_millis(320);
/// Requests of one client that may be under way at once.
const UNDER_WAY_MAX: usize = 64;

/// How long a client waits for what.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For one node's answer.
    pub attempt: Duration,
    /// For a good answer, over all attempts; then it gives up.
    pub operation: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { attempt: Duration::from_secs(1), operation: Duration::from_secs(30) }
    }
}

/// One client, which is one session.
pub struct Client {
    number: usize,
    connection: Box<dyn Connection>,
    contacts: Option<usize>,
    /// The node that it asks first.
    contact: AtomicUsize,
    patience: Patience,
    pool: Semaphore,
    /// The moment that times count from.
    began: Instant,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Client {
    /// Makes a client that chooses from `contacts` nodes, beginning with one of them by its number; or
    /// that has nothing to choose.
    pub fn new(
        number: usize,
        connection: Box<dyn Connection>,
        contacts: Option<usize>,
        patience: Patience,
    ) -> Self {
        let contact = AtomicUsize::new(number % contacts.unwrap_or(1));
        let pool = Semaphore::new(UNDER_WAY_MAX);
        Self { number, connection, contacts, contact, patience, pool, began: Instant::now() }
    }

    /// Counts times from a moment.
    pub fn begin(&mut self, began: Instant) {
        self.began = began;
    }

    /// Does what it takes to get a good answer to a request that was due at a moment.
    pub async fn perform(&self, request: Request, due: Instant) -> Operation {
        let mut operation = Operation {
            client: self.number,
            request,
            due_us: self.micros(due),
            taken_up_us: self.micros(Instant::now()),
            attempts: Vec::new(),
            seen: None,
        };
        let until = due + self.patience.operation;
        let Ok(permit) = tokio::time::timeout_at(until, self.pool.acquire()).await else {
            let (began_us, ended_us) = (operation.taken_up_us, self.micros(Instant::now()));
            let error = Some("too many requests of this client are under way".to_owned());
            operation.attempts.push(Attempt { node: None, began_us, ended_us, error });
            return operation;
        };
        let _permit = permit.expect("nobody closes the pool");
        let contacts = self.contacts.unwrap_or(1);
        let mut pause = PAUSE;
        loop {
            let contact = self.contact.load(Ordering::Relaxed);
            let node = self.contacts.map(|_| contact);
            let began_us = self.micros(Instant::now());
            let answer = self.attempt(node, request, until).await;
            let ended_us = self.micros(Instant::now());
            let error = answer.as_ref().err().cloned();
            operation.attempts.push(Attempt { node, began_us, ended_us, error });
            if let Ok(seen) = answer {
                operation.seen = seen;
                return operation;
            }
            // Of several requests under way to it, one leaves the node.
            let next = (contact + 1) % contacts;
            let _ = self.contact.compare_exchange(contact, next, Ordering::Relaxed, Ordering::Relaxed);
            if operation.attempts.len().is_multiple_of(contacts) {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
            if Instant::now() >= until {
                return operation;
            }
        }
    }

    async fn attempt(
        &self,
        node: Option<usize>,
        request: Request,
        until: Instant,
    ) -> Result<Option<Seen>, String> {
        let deadline = until.min(Instant::now() + self.patience.attempt);
        let answer = tokio::time::timeout_at(deadline, self.connection.attempt(node, request)).await;
        answer.unwrap_or_else(|_| Err("no answer in time".to_owned()))
    }

    fn micros(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.began);
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;

    /// A cluster in which only some nodes answer.
    struct Answering(&'static [bool]);

    #[async_trait]
    impl Connection for Answering {
        async fn attempt(&self, node: Option<usize>, _request: Request) -> Result<Option<Seen>, String> {
            let answers = node.is_some_and(|node| self.0[node]);
            if answers { Ok(None) } else { Err("refused".to_owned()) }
        }
    }

    /// A cluster whose nodes answer after so many refusals.
    struct AnsweringAfter(usize, AtomicUsize);

    #[async_trait]
    impl Connection for AnsweringAfter {
        async fn attempt(&self, _node: Option<usize>, _request: Request) -> Result<Option<Seen>, String> {
            let refused = self.1.fetch_add(1, Ordering::Relaxed);
            if refused < self.0 { Err("refused".to_owned()) } else { Ok(None) }
        }
    }

    fn client(answering: &'static [bool], patience: Duration) -> Client {
        let patience = Patience { operation: patience, ..Patience::default() };
        Client::new(4, Box::new(Answering(answering)), Some(answering.len()), patience)
    }

    fn asked(operation: &Operation) -> Vec<usize> {
        operation.attempts.iter().filter_map(|attempt| attempt.node).collect()
    }

    #[tokio::test]
    async fn a_client_turns_to_the_next_node_after_an_error_and_stays_where_it_was_answered() {
        let client = client(&[true, false, false], Duration::from_secs(30));
        let first = client.perform(Request::Total, Instant::now()).await;
        assert_eq!(asked(&first), [1, 2, 0], "number 4 begins with node 1 of three");
        assert!(first.good().is_some());
        let second = client.perform(Request::Total, Instant::now()).await;
        assert_eq!(asked(&second), [0]);
    }

    #[tokio::test]
    async fn a_client_asks_all_nodes_again_and_again_while_it_has_patience() {
        let connection = Box::new(AnsweringAfter(4, AtomicUsize::new(0)));
        let client = Client::new(4, connection, Some(2), Patience::default());
        let answered = client.perform(Request::Total, Instant::now()).await;
        assert_eq!(asked(&answered), [0, 1, 0, 1, 0]);
        assert!(answered.good().is_some(), "{answered:?}");
    }

    #[tokio::test]
    async fn a_client_asks_until_its_patience_is_over_counted_from_when_the_request_was_due() {
        let patience = Duration::from_millis(60);
        let (client, due) = (client(&[false, false], patience), Instant::now());
        let given_up = client.perform(Request::Total, due).await;
        assert!(due.elapsed() >= patience && given_up.good().is_none(), "{given_up:?}");
        let long_due =
            Instant::now().checked_sub(Duration::from_millis(61)).expect("the machine is up longer");
        let at_once = client.perform(Request::Total, long_due).await;
        assert_eq!(
            (asked(&at_once).len(), at_once.good().is_some()),
            (1, false),
            "it is tried once all the same"
        );
    }

    #[tokio::test]
    async fn what_waits_too_long_for_others_of_the_client_is_given_up_unsent() {
        let client = client(&[true], Duration::from_millis(20));
        let all = client.pool.acquire_many(UNDER_WAY_MAX as u32).await.expect("nobody closes it");
        let waiting = client.perform(Request::Total, Instant::now()).await;
        assert_eq!((waiting.attempts.len(), waiting.attempts[0].node, waiting.good()), (1, None, None));
        drop(all);
        assert!(client.perform(Request::Total, Instant::now()).await.good().is_some());
    }
}
