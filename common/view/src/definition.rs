//! A declared view, before its reference tables are read.

use std::sync::Arc;

use sanso_state::StorageLevel;

use crate::plan::Plan;
use crate::source::Source;

/// A declared and checked view.
#[derive(Clone, Debug)]
pub struct ViewDefinition {
    /// The name in SQL.
    pub name: String,
    /// The source whose readings it is made of.
    pub source: Arc<Source>,
    /// The topic closed windows are written to; `WITH (output_topic = …)`.
    pub output_topic: Option<String>,
    /// The number of view partitions; `WITH (partitions = '4')`.
    pub partitions: u32,
    /// Where nodes keep the view's groups: any level but none; `WITH (storage = 'disk')`.
    pub storage: StorageLevel,
    /// The SELECT, as parsed.
    pub sql: String,
    pub(crate) plan: Arc<Plan>,
}

impl ViewDefinition {
    /// Returns the names of the reference tables the view joins.
    pub fn tables(&self) -> Vec<&str> {
        self.plan.joins.iter().map(|join| join.table.as_str()).collect()
    }
}
