//! SQL applications: sources, reference tables and views, typed and ready to run.
//!
//! ```text
//!   app.sql ──Application::parse──▶ checked ──bind(folder)──▶ [View]
//!
//!   JSON records ──Source::decode──▶ rows ──View::lift──▶ (group, inputs)…
//!   groups ──View::finish──▶ columns of the SELECT list
//! ```
//!
//! Both layers run the same [`View::lift`], and the serving layer
//! [`View::finish`]: a view has one definition and one implementation.
//! Everything is a pure function of its inputs but [`Application::bind`],
//! which reads the reference tables' files.
//!
//! Promises: nothing is rounded (values are scaled integers, and what does
//! not fit is refused or reported); what can't be merged is refused with its
//! place in the SQL; lifting a batch is lifting its rows one by one.
//!
//! Two things differ from plain SQL. A reading that matches several rows of
//! a reference table counts for each, as in SQL, and binding warns of it; but
//! a null bound of a row's validity (`r.at < t.valid_to`) stands for an open
//! one. And a view without windows and keys has no row before its first
//! reading.
//!
//! Not promised: the wording of messages.

mod application;
mod decode;
mod definition;
mod describe;
mod error;
mod expression;
mod interval;
mod join;
mod nesting;
pub mod newest;
pub mod oracle;
mod origin;
mod plan;
mod rollup;
mod rows;
mod scalar;
mod scope;
mod source;
mod stage;
mod syntax;
mod table;
#[cfg(test)]
mod tests;
mod values;
mod view;
mod window;

pub use application::Application;
pub use decode::Decoded;
pub use definition::ViewDefinition;
pub use describe::{AggregateDescription, LayerDescription, PlanDescription};
pub use error::{BindError, FinishError, KeyError, Place, RowError, SqlError};
pub use nesting::may_nest;
pub use origin::ColumnOrigin;
pub use rollup::{RollUp, RollUps};
pub use source::{Column, RecordFormat, Registered, Source};
pub use table::TableDefinition;
pub use values::RowFinisher;
pub use view::{Lifted, LiftedRow, View};
pub use window::{CalendarUnit, Window};
