//! Who uses a simulated cluster.

use std::sync::Arc;

use super::world::World;
use crate::cluster::{Answer, ClusterMap, Instance, Message, NodeId, RequestId, State};

/// A broken promise, in words.
pub type Violation = String;

/// Who uses the simulated cluster, and says what must hold.
pub trait Guests: Sized {
    /// What the partitions hold.
    type State: State + Default;
    /// What happens to guests at a time.
    type Happening;

    /// Schedules what happens first; the nodes have been started.
    fn begin(world: &mut World<Self>);

    /// Returns the process that something happens in, if it is one: what comes to a stopped
    /// process is met when it continues.
    fn process_of(happening: &Self::Happening) -> Option<NodeId>;

    /// Lets something happen.
    fn happen(world: &mut World<Self>, happening: Self::Happening) -> Result<(), Violation>;

    /// Something had come to a stopped process, which was killed before it continued.
    fn unmet(world: &mut World<Self>, node: NodeId, happening: Self::Happening);

    /// A process has been started.
    fn started(_world: &mut World<Self>, _node: NodeId) {}

    /// A process has been killed.
    fn killed(world: &mut World<Self>, node: NodeId);

    /// A node has taken a step, or was read from.
    fn stepped(world: &mut World<Self>, node: NodeId) -> Result<(), Violation>;

    /// A write is answered, by a node that has this map.
    fn answered(
        world: &mut World<Self>,
        by: Instance,
        request: RequestId,
        answer: Answer<<Self::State as State>::Outcome>,
        map: Arc<ClusterMap>,
    ) -> Result<(), Violation>;

    /// Control has committed a map that nobody knows yet.
    fn committed(world: &mut World<Self>, map: &ClusterMap) -> Result<(), Violation>;

    /// Turns a message from one node to another into what arrives of it, as an encoding may.
    fn carried(
        _world: &mut World<Self>,
        _between: (NodeId, NodeId),
        message: Message<Self::State>,
    ) -> Message<Self::State> {
        message
    }

    /// Looks whether all is well some time after the last fault.
    fn settled(world: &World<Self>) -> Result<(), Violation>;
}
