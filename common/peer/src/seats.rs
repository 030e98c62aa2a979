//! Who may speak for a node: its newest life, by its newest connection.
//!
//! Each line of a node has one seat. A newer connection takes it, and a newer
//! life takes all three; whoever lost the seat delivers nothing more. So
//! messages of two connections are never mixed, and a restart fences what its
//! predecessor still has under way.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use sanso_core::cluster::{Incarnation, Instance, NodeId};
use tokio::sync::watch;

use crate::lane::Line;

/// The seats of one node.
#[derive(Clone, Copy, Debug)]
struct Taken {
    incarnation: Incarnation,
    by: [u64; 3],
}

/// The seats of all nodes.
#[derive(Debug, Default)]
pub(crate) struct Seats {
    nodes: Mutex<BTreeMap<NodeId, watch::Sender<Taken>>>,
}

/// A connection's seat, or what is left of it.
#[derive(Clone, Debug)]
pub(crate) struct Seat {
    instance: Instance,
    line: Line,
    number: u64,
    taken: watch::Receiver<Taken>,
}

impl Seats {
    /// Takes note of a life of a node; fails with the newest known one if it is older.
    pub(crate) fn meet(&self, instance: Instance) -> Result<(), Incarnation> {
        self.with(instance, |_| ()).map(|_| ())
    }

    /// Gives a line's seat to a new connection of a life of a node; fails with
    /// the newest known life if there is a newer one.
    pub(crate) fn take(&self, instance: Instance, line: Line) -> Result<Seat, Incarnation> {
        let mut number = 0;
        let taken = self.with(instance, |taken| {
            taken.by[line.index()] += 1;
            number = taken.by[line.index()];
        })?;
        Ok(Seat { instance, line, number, taken })
    }

    fn with(
        &self,
        instance: Instance,
        change: impl FnOnce(&mut Taken),
    ) -> Result<watch::Receiver<Taken>, Incarnation> {
        let mut nodes = self.nodes.lock();
        let seats = nodes
            .entry(instance.node)
            .or_insert_with(|| watch::Sender::new(Taken { incarnation: instance.incarnation, by: [0; 3] }));
        let newest = seats.borrow().incarnation;
        if instance.incarnation < newest {
            return Err(newest);
        }
        seats.send_modify(|taken| {
            taken.incarnation = instance.incarnation;
            change(taken);
        });
        Ok(seats.subscribe())
    }
}

impl Seat {
    fn is_mine(&self, taken: &Taken) -> bool {
        taken.incarnation == self.instance.incarnation && taken.by[self.line.index()] == self.number
    }

    /// Acts unless the seat is lost; nobody takes it meanwhile. False when it is lost.
    pub(crate) fn act(&self, act: impl FnOnce()) -> bool {
        let taken = self.taken.borrow();
        let mine = self.is_mine(&taken);
        if mine {
            act();
        }
        mine
    }

    /// Waits until the seat is lost.
    pub(crate) async fn lost(&mut self) {
        let (instance, line, number) = (self.instance, self.line, self.number);
        let mine = move |taken: &Taken| {
            taken.incarnation == instance.incarnation && taken.by[line.index()] == number
        };
        // Without seats there is nobody left to deliver to.
        let _ = self.taken.wait_for(|taken| !mine(taken)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(incarnation: u64) -> Instance {
        Instance { node: NodeId(3), incarnation: Incarnation(incarnation) }
    }

    #[test]
    fn a_newer_connection_takes_the_seat_of_its_line_alone() {
        let seats = Seats::default();
        let (old, other) =
            (seats.take(life(1), Line::Data).unwrap(), seats.take(life(1), Line::Beat).unwrap());
        let new = seats.take(life(1), Line::Data).unwrap();
        assert!(!old.act(|| panic!("delivered without a seat")));
        assert!(new.act(|| ()) && other.act(|| ()));
    }

    #[test]
    fn a_newer_life_takes_all_seats_and_refuses_the_older() {
        let seats = Seats::default();
        let old = seats.take(life(1), Line::Data).unwrap();
        seats.meet(life(2)).unwrap();
        assert!(!old.act(|| panic!("delivered by an earlier life")));
        assert_eq!(seats.take(life(1), Line::Data).unwrap_err(), Incarnation(2));
        assert_eq!(seats.meet(life(1)), Err(Incarnation(2)));
    }
}
