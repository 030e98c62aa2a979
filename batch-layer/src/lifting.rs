//! Rows on their way into views. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take;
use sanso_state::Groups;
use sanso_view::{Lifted, RollUps, View};

/// A view's groups, one map for each view partition.
pub(crate) struct Lifting(Vec<Groups>);

impl Lifting {
    /// Begins without rows.
    pub(crate) fn new(view: &View) -> Self {
        Self(vec![Groups::new(); view.partitions as usize])
    }

    /// Adds all rows. One whose expressions fail contributes nothing, as in the speed layer.
    pub(crate) fn add(&mut self, view: &View, lifted: &Lifted) {
        for (groups, rows) in self.0.iter_mut().zip(lifted.by_view_partition(view.partitions)) {
            groups.update(&view.kinds, &lifted.grouped, &rows, 1);
        }
    }

    /// Adds (`sign` 1) or takes away (`sign` -1) each row.
    pub(crate) fn add_signed(&mut self, view: &View, lifted: &Lifted, sign: impl Fn(usize) -> i64) {
        for (groups, rows) in self.0.iter_mut().zip(lifted.by_view_partition(view.partitions)) {
            let (added, taken): (Vec<u32>, Vec<u32>) =
                rows.into_iter().partition(|&at| sign(lifted.row(at)) > 0);
            groups.update(&view.kinds, &lifted.grouped, &added, 1);
            groups.update(&view.kinds, &lifted.grouped, &taken, -1);
        }
    }

    /// Returns the groups by view partition.
    pub(crate) fn finish(self) -> Vec<Groups> {
        self.0
    }
}

/// Views of one source that are lifted together.
pub(crate) struct Together {
    views: Vec<Arc<View>>,
    roll_ups: RollUps,
    columns: Vec<usize>,
    /// For each view, where its columns are among these.
    places: Vec<Vec<usize>>,
}

impl Together {
    pub(crate) fn new(views: &[Arc<View>]) -> Self {
        let columns: BTreeSet<usize> = views.iter().flat_map(|view| view.source_columns()).collect();
        let columns = Vec::from_iter(columns);
        let place = |column| columns.partition_point(|other| *other < column);
        let places = views.iter().map(|view| view.source_columns().map(place).collect()).collect();
        Self { views: views.to_vec(), roll_ups: RollUps::among(views), columns, places }
    }

    /// Returns which of the source's columns any view reads, ascending.
    pub(crate) fn columns(&self) -> &[usize] {
        &self.columns
    }
}

/// The groups of several views. Of one that follows from another, only what that one could not take is here
/// before [`Liftings::finish`].
pub(crate) struct Liftings {
    together: Arc<Together>,
    liftings: Vec<Lifting>,
}

impl Liftings {
    /// Begins without rows.
    pub(crate) fn new(together: &Arc<Together>) -> Self {
        let liftings = together.views.iter().map(|view| Lifting::new(view)).collect();
        Self { together: Arc::clone(together), liftings }
    }

    /// Adds rows of which the columns of [`Together::columns`] are there.
    pub(crate) fn add(&mut self, rows: &RecordBatch) {
        let Together { views, roll_ups, places, .. } = &*self.together;
        // Rows that a view could not take. One that follows from it may: it computes less of them.
        let mut failed: Vec<Vec<u32>> = vec![Vec::new(); views.len()];
        for (index, finer) in roll_ups.iter() {
            let left = finer.map(|(finer, _)| failed[finer].clone());
            let columns = places[index].iter().map(|place| rows.column(*place));
            let lifted = match left.as_deref() {
                None => {
                    views[index].lift_columns(&columns.map(Arc::clone).collect::<Vec<_>>(), rows.num_rows())
                }
                Some([]) => continue,
                Some(left) => {
                    let chosen = UInt32Array::from(left.to_vec());
                    let choose = |column: &ArrayRef| take(column, &chosen, None).expect("rows of this batch");
                    views[index].lift_columns(&columns.map(choose).collect::<Vec<_>>(), left.len())
                }
            };
            self.liftings[index].add(&views[index], &lifted);
            let row = |&(row, _): &(usize, String)| left.as_ref().map_or(row as u32, |left| left[row]);
            failed[index] = lifted.errors.iter().map(row).collect();
        }
    }

    /// Adds what was lifted elsewhere.
    pub(crate) fn combine(&mut self, other: &Self) {
        for (mine, theirs) in self.liftings.iter_mut().zip(&other.liftings) {
            mine.0.iter_mut().zip(&theirs.0).for_each(|(mine, theirs)| mine.combine(theirs));
        }
    }

    /// Returns for each view its groups by view partition.
    pub(crate) fn finish(mut self) -> Vec<Vec<Groups>> {
        let together = Arc::clone(&self.together);
        for (index, finer) in together.roll_ups.iter() {
            if let Some((finer, roll_up)) = finer {
                let mut coarser = std::mem::take(&mut self.liftings[index].0);
                roll_up.add(&self.liftings[finer].0, &mut coarser);
                self.liftings[index].0 = coarser;
            }
        }
        self.liftings.into_iter().map(Lifting::finish).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;
    use sanso_view::Application;

    use super::*;

    /// Views of which some follow from others that fail on more readings, and one that is alone.
    const SQL: &str = "
CREATE SOURCE readings (meter TEXT, start_utc TIMESTAMP, value DECIMAL(18,6), part BIGINT)
  WITH (topic = 'readings', key = 'meter', identity = 'meter, start_utc');
CREATE TABLE network (meter TEXT, transformer TEXT, feeder TEXT) WITH (path = 'network.csv');
CREATE VIEW all_readings AS SELECT COUNT(*) AS c FROM readings r JOIN network n ON r.meter = n.meter;
CREATE VIEW feeders AS SELECT n.feeder, SUM(10 / r.value) AS s, COUNT(*) AS c
  FROM readings r JOIN network n ON r.meter = n.meter GROUP BY n.feeder;
CREATE VIEW transformers AS
  SELECT n.transformer, TUMBLE(r.start_utc, INTERVAL '1 hour') AS w, COUNT(*) AS c,
         SUM(10 / r.value) AS s, SUM(10 / r.part) AS p
  FROM readings r JOIN network n ON r.meter = n.meter GROUP BY n.transformer, w;
CREATE TABLE rates (name TEXT, rate BIGINT) WITH (path = 'rates.csv');
CREATE VIEW without_columns AS SELECT COUNT(*) AS c FROM readings r JOIN rates t ON t.name = 'x';
CREATE VIEW nothing_but_failures AS
  SELECT COUNT(*) AS c, SUM(1 / t.rate) AS s FROM readings r JOIN rates t ON t.name = 'x';
CREATE VIEW meters AS SELECT r.meter, MAX(r.part) AS m FROM readings r GROUP BY r.meter;
";
    const NETWORK: &[u8] = b"meter,transformer,feeder\nm0,t0,f0\nm1,t0,f0\nm2,t1,f0\nm3,t2,f1\n";
    const RATES: &[u8] = b"name,rate\nx,0\n";

    type Reading = (u8, u8, u8, u8);

    fn rows(view: &View, readings: &[Reading]) -> RecordBatch {
        let record = |(meter, hour, value, part): &Reading| {
            let start = format!("2024-07-01T{hour:02}:00:00Z");
            format!(r#"{{"meter":"m{meter}","start_utc":"{start}","value":{value},"part":{part}}}"#)
        };
        let records: Vec<String> = readings.iter().map(record).collect();
        view.source.decode(records.iter().map(|record| record.as_bytes())).rows
    }

    proptest! {
        #[test]
        fn views_lifted_together_are_what_each_would_be(
            batches in prop::collection::vec(
                prop::collection::vec((0_u8..5, 0_u8..4, 0_u8..3, 0_u8..3), 0..12),
                0..5,
            ),
            other in 0_usize..5,
        ) {
            let application = Application::parse(SQL).expect("valid SQL");
            let read = |path: &Path| Ok(if path.ends_with("rates.csv") { RATES } else { NETWORK }.to_vec());
            let views = application.bind_reading(Path::new(""), read).expect("bound");
            let together = Arc::new(Together::new(&views));
            let alone = together.roll_ups.iter().filter(|(_, finer)| finer.is_none()).count();
            prop_assert_eq!(alone, 3, "the finest of each table, and the one without");
            let (mut mine, mut theirs) = (Liftings::new(&together), Liftings::new(&together));
            let mut expected: Vec<Lifting> = views.iter().map(|view| Lifting::new(view)).collect();
            for (index, readings) in batches.iter().enumerate() {
                let rows = rows(&views[0], readings);
                let read = rows.project(together.columns()).expect("columns of the source");
                if index < other { mine.add(&read) } else { theirs.add(&read) }
                views.iter().zip(&mut expected).for_each(|(view, all)| all.add(view, &view.lift(&rows)));
            }
            mine.combine(&theirs);
            let expected: Vec<Vec<Groups>> = expected.into_iter().map(Lifting::finish).collect();
            prop_assert_eq!(mine.finish(), expected);
        }
    }
}
