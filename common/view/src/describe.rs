//! What each layer does for a view, for `sanso plan`.

use std::fmt;
use std::sync::Arc;

use sanso_state::aggregate::AggregateFunction;
use serde::Serialize;

use crate::plan::{Aggregate, Input};
use crate::rollup::RollUps;
use crate::scalar::sql_type;
use crate::view::View;

/// What a view is made of, and what each layer does for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlanDescription {
    /// The view.
    pub view: String,
    /// Its version.
    pub fingerprint: String,
    /// Its source.
    pub source: String,
    /// The joins, in order.
    pub joins: Vec<String>,
    /// The WHERE clause.
    pub filter: Option<String>,
    /// The grouping key's columns and their types.
    pub keys: Vec<String>,
    /// The window.
    pub window: String,
    /// The aggregates.
    pub aggregates: Vec<AggregateDescription>,
    /// The columns of the result and their types.
    pub columns: Vec<String>,
    /// The number of view partitions.
    pub partitions: u32,
    /// Where nodes keep the groups.
    pub storage: String,
    /// The topic closed windows are written to.
    pub output_topic: Option<String>,
    /// What each layer does.
    pub layers: LayerDescription,
    /// The view that this one follows from, where both are computed from all history.
    pub rolled_up_from: Option<String>,
    /// What the reference tables' content makes doubtful.
    pub warnings: Vec<String>,
}

/// One aggregate of a view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AggregateDescription {
    /// The call.
    pub call: String,
    /// The type of its argument; none for `COUNT(*)`.
    pub input: Option<String>,
    /// What its state keeps, and how a reading is taken back.
    pub state: String,
    /// The type of its result.
    pub result: String,
}

/// What each layer does for a view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LayerDescription {
    /// The speed layer.
    pub speed: String,
    /// The batch layer.
    pub batch: String,
    /// The serving layer.
    pub serving: String,
}

impl PlanDescription {
    /// Describes the views of an application, in order.
    pub fn of(views: &[Arc<View>]) -> Vec<Self> {
        let mut all: Vec<Self> = views.iter().map(|view| view.describe()).collect();
        for (view, finer) in RollUps::among(views).iter() {
            all[view].rolled_up_from = finer.map(|(finer, _)| views[finer].name.clone());
        }
        all
    }
}

impl View {
    /// Describes what each layer does for the view, by itself.
    pub(crate) fn describe(&self) -> PlanDescription {
        let typed = |name: &str, value_type| format!("{name} {}", sql_type(value_type));
        let join = |join: &crate::join::JoinPlan| {
            let kind = if join.outer { "LEFT JOIN" } else { "JOIN" };
            format!("{kind} {} ON {}", join.table, join.text)
        };
        let outputs = self.plan.outputs.iter();
        PlanDescription {
            view: self.name.clone(),
            fingerprint: self.fingerprint.short(),
            source: self.source.name.clone(),
            joins: self.plan.joins.iter().map(join).collect(),
            filter: self.plan.filter.as_ref().map(|filter| filter.text.clone()),
            keys: self.key_columns.iter().map(|(name, t)| typed(name, *t)).collect(),
            window: self.window_text(),
            aggregates: self.plan.aggregates.iter().map(aggregate).collect(),
            columns: outputs.map(|output| typed(&output.name, output.value_type)).collect(),
            partitions: self.partitions,
            storage: self.storage.to_string(),
            output_topic: self.output_topic.clone(),
            layers: self.layers(),
            rolled_up_from: None,
            warnings: self.warnings.clone(),
        }
    }

    fn window_text(&self) -> String {
        match &self.plan.window_time {
            Some(time) => format!("{} over {}", self.window, time.text),
            None => self.window.to_string(),
        }
    }

    fn layers(&self) -> LayerDescription {
        let source = &self.source;
        let newest = match source.version_column {
            Some(column) => format!("the highest {}", source.columns[column].name),
            None => "the highest offset".to_owned(),
        };
        let emission = match &self.output_topic {
            Some(topic) => format!(
                "; closed windows are written to {topic} once, and again when a late reading amends them"
            ),
            None => String::new(),
        };
        let panes =
            if self.window.is_sliding() { "; panes are combined into windows when asked" } else { "" };
        LayerDescription {
            speed: format!(
                "one worker for each of {} log partitions of {} aggregates its own readings ({newest} of a reading \
                 counts; a correction retracts and adds) and sends deltas, none across a segment of {} offsets, \
                 to {} view partitions{emission}",
                source.partitions, source.topic, source.segment_size, self.partitions,
            ),
            batch: format!(
                "archives complete segments of {} offsets, computes each segment's groups from the newest-version \
                 table by the same lift, adds them to the version before, and holds them against the speed layer's",
                source.segment_size,
            ),
            serving: format!(
                "answers batch version ⊕ speed segments by key and window start from {} view partitions, kept in {}, \
                 chosen by the hash of ({}){panes}",
                self.partitions,
                self.storage,
                self.key_columns.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", "),
            ),
        }
    }
}

fn aggregate(aggregate: &Aggregate) -> AggregateDescription {
    use AggregateFunction as F;
    let state = match aggregate.kind.function() {
        F::CountRows | F::Count => "a count",
        F::Sum | F::Average => "an exact sum in 128 bits and a count",
        F::Variance { .. } | F::StandardDeviation { .. } => "count, sum and sum of squares in 256 bits",
        F::Min | F::Max => "values with counts, so that a retracted extreme gives way to the next",
        F::First | F::Last => "values with counts by event time",
        F::CountDistinct => "values with counts",
        F::Quantile { .. } => "a sketch of counted buckets, to one percent; the same whatever the order",
    };
    AggregateDescription {
        call: aggregate.text.clone(),
        input: match &aggregate.input {
            Input::Row => None,
            Input::Value(value) => Some(sql_type(value.value_type)),
        },
        state: state.to_owned(),
        result: sql_type(aggregate.value_type),
    }
}

impl fmt::Display for PlanDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "view {} (version {})", self.view, self.fingerprint)?;
        writeln!(f, "  source     {}", self.source)?;
        for join in &self.joins {
            writeln!(f, "  join       {join}")?;
        }
        if let Some(filter) = &self.filter {
            writeln!(f, "  filter     {filter}")?;
        }
        writeln!(f, "  window     {}", self.window)?;
        let keys = if self.keys.is_empty() { "(all readings)".to_owned() } else { self.keys.join(", ") };
        writeln!(f, "  group      {keys}")?;
        for aggregate in &self.aggregates {
            writeln!(f, "  aggregate  {} → {}: {}", aggregate.call, aggregate.result, aggregate.state)?;
        }
        writeln!(f, "  columns    {}", self.columns.join(", "))?;
        writeln!(f, "  speed      {}", self.layers.speed)?;
        writeln!(f, "  batch      {}", self.layers.batch)?;
        if let Some(finer) = &self.rolled_up_from {
            writeln!(f, "  rolled up  from {finer}, where both are computed from all history")?;
        }
        write!(f, "  serving    {}", self.layers.serving)?;
        for warning in &self.warnings {
            write!(f, "\n  warning    {warning}")?;
        }
        Ok(())
    }
}
