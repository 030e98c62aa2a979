//! The dataset on object stores: what it needs of one, and what it does when one fails.

mod contract;
mod lagging;
mod listing;
mod outage;
mod support;
