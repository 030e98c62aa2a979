//! Clusters of real processes: whichever node is killed or stopped, the others answer, nothing
//! acknowledged is lost or doubled, and it comes back.

mod batch;
mod drain;
mod emission;
mod faults;
mod full;
mod rollout;
mod secure;
mod status;
mod storage;
mod world;
