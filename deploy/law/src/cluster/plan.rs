//! What goes wrong in one run: drawn from the seed beforehand.

use rand::RngExt;
use rand::rngs::StdRng;
use sanso_core::cluster::NodeId;
use sanso_core::cluster::sim::{FAULTS_FROM_US, FAULTS_TO_US, Fault, Kind, Moment, NODES, Plan, fault};

/// Changes in the layers that faults are aimed at.
const MOMENTS: [&str; 9] =
    ["adoption", "extended", "fed", "handed over", "made", "resumed", "snapshot", "staged", "version"];

/// Draws a plan: one fault alone, several at random, several aimed at changes, two nodes in a row,
/// or a loss of power.
pub(super) fn draw(rng: &mut StdRng) -> Plan {
    let style = rng.random_range(0..8);
    let lost = [0, 0, 20, 100][rng.random_range(0..4)];
    let at = |rng: &mut StdRng| Moment::At(rng.random_range(FAULTS_FROM_US..FAULTS_TO_US));
    let mut faults = match style {
        0 | 1 => {
            let mut alone = fault(rng, NODES);
            if matches!(alone.kind, Kind::Apart(_)) {
                // Longer than anybody may wait: control does not end it.
                alone.lasts_us += 1_000_000;
            }
            return Plan { faults: vec![(at(rng), alone)], lost: 0, single: true };
        }
        2 => in_a_row(rng),
        3 => {
            let darkness =
                Fault { kind: Kind::Blackout, node: NodeId(0), lasts_us: rng.random_range(5_000..300_000) };
            vec![(at(rng), darkness)]
        }
        _ => Vec::new(),
    };
    for _ in 0..rng.random_range(1..5) {
        let moment = match rng.random_range(0..4) {
            0 => at(rng),
            1 => Moment::Change(rng.random_range(0..10)),
            _ => {
                let name = MOMENTS[rng.random_range(0..MOMENTS.len())];
                Moment::Named(name, rng.random_range(1..6))
            }
        };
        faults.push((moment, fault(rng, NODES)));
    }
    // Something has to happen for a change to follow.
    faults.push((at(rng), fault(rng, NODES)));
    Plan { faults, lost, single: false }
}

/// A node, and another one as soon as control has made others of its partitions primaries.
fn in_a_row(rng: &mut StdRng) -> Vec<(Moment, Fault)> {
    let first = NodeId(rng.random_range(0..NODES));
    let second = NodeId((first.0 + rng.random_range(1..NODES)) % NODES);
    let crash = |rng: &mut StdRng, node| Fault {
        kind: Kind::Crash,
        node,
        lasts_us: rng.random_range(100_000..900_000),
    };
    let at = Moment::At(rng.random_range(FAULTS_FROM_US..FAULTS_TO_US));
    vec![(at, crash(rng, first)), (Moment::Change(1), crash(rng, second))]
}
