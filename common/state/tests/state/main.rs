//! What the package promises, on its public interface.

mod aggregates;
mod codec;
mod groups;
mod law;
mod model;
mod oracle;
mod protocol;
mod windows;
