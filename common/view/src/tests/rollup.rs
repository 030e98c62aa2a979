//! Views that follow from others are what they would be if they were lifted.

use std::sync::Arc;

use proptest::prelude::*;
use sanso_state::{Coarser, Groups};

use super::*;
use crate::PlanDescription;
use crate::rollup::{RollUp, RollUps};

/// A network in which each transformer hangs on one feeder.
const TREE: &str = "\
usage_point,transformer,feeder,substation,valid_from,valid_to
m1,t1,f1,s1,2024-01-01T00:00:00Z,2030-01-01T00:00:00Z
m2,t1,f1,s1,2024-01-01T00:00:00Z,2030-01-01T00:00:00Z
m3,t2,f1,s1,2024-01-01T00:00:00Z,2030-01-01T00:00:00Z
m4,t3,f2,,2024-01-01T00:00:00Z,2030-01-01T00:00:00Z
m5,t4,f3,s1,2024-01-01T00:00:00Z,2030-01-01T00:00:00Z
";
const TWO_FEEDERS: &str = "m2,t1,f2,s1,2024-01-01T00:00:00Z,2030-01-01T00:00:00Z\n";

const FROM: &str = "FROM readings r JOIN network n ON r.usage_point = n.usage_point";

fn views(selects: &[&str], network: &str) -> Vec<Arc<View>> {
    let head = EXAMPLE.split("CREATE VIEW").next().expect("the example has a view");
    let all = (0..).zip(selects).map(|(index, select)| format!("CREATE VIEW v{index} AS {select};\n"));
    bind_with(&format!("{head}{}", all.collect::<String>()), network)
}

fn follows(coarser: &str, finer: &str, network: &str) -> bool {
    let views = views(&[coarser, finer], network);
    RollUp::of(&views[0], &views[1]).is_some()
}

fn by(keys: &str, window: &str, aggregates: &str, from: &str) -> String {
    let window = if window.is_empty() { String::new() } else { format!("TUMBLE(r.start_utc, {window})") };
    let all: Vec<&str> = [keys, &window].into_iter().filter(|part| !part.is_empty()).collect();
    let group = if all.is_empty() { String::new() } else { format!("GROUP BY {}", all.join(", ")) };
    let items: Vec<&str> = all.iter().copied().chain([aggregates]).collect();
    format!("SELECT {} {from} {group}", items.join(", "))
}

const HALF_HOUR: &str = "INTERVAL '30 minutes'";
const DAY: &str = "INTERVAL '1 day'";
const LOCAL_DAY: &str = "INTERVAL '1 day', 'Australia/Sydney'";
const LOCAL_MONTH: &str = "INTERVAL '1 month', 'Australia/Sydney'";

#[test]
fn a_view_follows_from_one_whose_groups_make_up_its_own() {
    let sum = "SUM(r.value) AS s";
    let transformers = by("n.transformer", HALF_HOUR, "COUNT(*) AS c, SUM(r.value) AS s", FROM);
    for coarser in [
        by("n.feeder", HALF_HOUR, sum, FROM),
        by("n.transformer", DAY, sum, FROM),
        by("n.feeder", "", "COUNT(*) AS c", FROM),
        by("", "", sum, FROM),
        by("upper(n.feeder)", DAY, sum, FROM),
        by(
            "n.feeder",
            HALF_HOUR,
            sum,
            &FROM.replace("network n", "network net").replace("n.usage", "net.usage"),
        )
        .replace("n.feeder", "net.feeder"),
    ] {
        assert!(follows(&coarser, &transformers, TREE), "{coarser}");
    }
    let local = by("n.transformer, r.channel", LOCAL_DAY, sum, FROM);
    assert!(follows(&by("r.channel, n.feeder", LOCAL_MONTH, sum, FROM), &local, TREE));
    let months = by("n.transformer", LOCAL_MONTH, sum, FROM);
    assert!(!follows(&by("n.transformer", LOCAL_DAY, sum, FROM), &months, TREE), "a month is no day");
}

#[test]
fn a_view_does_not_follow_where_the_groups_of_the_other_do_not_tell() {
    let sum = "SUM(r.value) AS s";
    let transformers = by("n.transformer", HALF_HOUR, sum, FROM);
    let feeders = by("n.feeder", HALF_HOUR, sum, FROM);
    assert!(follows(&feeders, &transformers, TREE));
    let two = format!("{TREE}{TWO_FEEDERS}");
    assert!(!follows(&feeders, &transformers, &two), "a transformer of two feeders");
    assert!(!follows(&transformers, &feeders, TREE), "finer keys");
    for other in [
        by("n.feeder", "INTERVAL '45 minutes'", sum, FROM),
        by("n.feeder", LOCAL_DAY, sum, FROM),
        by("n.feeder", HALF_HOUR, "SUM(r.value * 2) AS s", FROM),
        by("n.feeder", HALF_HOUR, "SUM(r.value) FILTER (WHERE r.channel = 'E1') AS s", FROM),
        by("n.feeder", HALF_HOUR, "MAX(r.value) AS s", FROM),
        by("n.feeder", HALF_HOUR, sum, &format!("{FROM} WHERE r.value > 0")),
        by("n.feeder", HALF_HOUR, sum, &FROM.replace("JOIN", "LEFT JOIN")),
        by("n.feeder", HALF_HOUR, sum, &format!("{FROM} AND r.start_utc < n.valid_to")),
        by("r.channel", HALF_HOUR, sum, FROM),
        by("n.feeder || r.channel", HALF_HOUR, sum, FROM),
        by("r.usage_point", HALF_HOUR, sum, FROM),
        by("n.feeder", HALF_HOUR, sum, FROM).replace("r.start_utc", "n.valid_from"),
    ] {
        assert!(!follows(&other, &transformers, TREE), "{other}");
    }
    // Equal lists to DataFusion, of which one fails on less.
    let counted = |list: &str| format!("COUNT(*) FILTER (WHERE r.duration_s IN ({list})) AS c");
    let (first, last) = (counted("10 / r.value, 1, 2, 3"), counted("1, 2, 3, 10 / r.value"));
    assert!(!follows(&by("n.feeder", "", &first, FROM), &by("n.transformer", "", &last, FROM), TREE));
    assert!(follows(&by("n.feeder", "", &last, FROM), &by("n.transformer", "", &last, FROM), TREE));
    // Of a reading without a row in the table both columns are null, as of a transformer without a feeder.
    let outer = FROM.replace("JOIN", "LEFT JOIN");
    let (feeders, substations) = (by("n.feeder", "", sum, &outer), by("n.substation", "", sum, &outer));
    assert!(follows(&substations, &feeders, TREE));
    let unnamed = format!("{TREE}m6,t5,,s5,2024-01-01T00:00:00Z,2030-01-01T00:00:00Z\n");
    assert!(!follows(&substations, &feeders, &unnamed), "no feeder, but a substation");
}

#[test]
fn each_view_follows_from_the_coarsest_and_none_from_itself() {
    let sum = "SUM(r.value) AS s";
    let level = |level: &str| by(level, HALF_HOUR, sum, FROM);
    let selects = ["n.substation", "n.transformer", "n.feeder", "n.transformer"].map(level);
    let views = views(&selects.each_ref().map(String::as_str), TREE);
    let roll_ups = RollUps::among(&views);
    let order: Vec<_> = roll_ups.iter().map(|(view, finer)| (view, finer.map(|(finer, _)| finer))).collect();
    assert_eq!(order, [(1, None), (3, Some(1)), (2, Some(3)), (0, Some(2))]);
    let substations = PlanDescription::of(&views).remove(0).to_string();
    assert!(substations.contains("rolled up  from v2,"), "{substations}");
}

/// Pairs of which the first follows from the second on [`TREE`].
const PAIRS: [(&str, &str); 6] = [
    (
        "n.feeder|INTERVAL '30 minutes'|SUM(r.value) AS s",
        "n.transformer|INTERVAL '30 minutes'|COUNT(*) AS c, SUM(r.value) AS s",
    ),
    (
        "n.feeder|INTERVAL '1 day'|MAX(r.value) AS m, COUNT(r.value) AS c",
        "n.transformer, r.channel|INTERVAL '30 minutes'|COUNT(r.value) AS c, AVG(r.value) AS a, MAX(r.value) AS m",
    ),
    (
        "||SUM(r.value) AS s, STDDEV(r.value) AS d",
        "n.feeder|INTERVAL '30 minutes'|STDDEV(r.value) AS d, SUM(r.value) AS s",
    ),
    (
        "n.substation, r.channel|INTERVAL '1 month', 'Australia/Sydney'|COUNT(DISTINCT r.value) AS d, LAST(r.value) AS l",
        "n.feeder, r.channel|INTERVAL '1 day', 'Australia/Sydney'|LAST(r.value) AS l, COUNT(DISTINCT r.value) AS d",
    ),
    ("n.feeder||SUM(1 / r.value) AS s", "n.transformer||SUM(1 / r.value) AS s, SUM(1 / r.duration_s) AS t"),
    (
        "n.feeder||COUNT(*) FILTER (WHERE 1 / r.value < 0) AS c",
        "n.transformer, 10 / r.duration_s||COUNT(*) FILTER (WHERE 1 / r.value < 0) AS c",
    ),
];

fn select(text: &str, from: &str) -> String {
    let [keys, window, aggregates] = text.split('|').collect::<Vec<_>>().try_into().expect("three parts");
    by(keys, window, aggregates, from)
}

/// Lifts rows into groups by view partition; also says which rows fail.
fn lifted(view: &View, rows: &RecordBatch) -> (Vec<Groups>, Vec<usize>) {
    let lifted = view.lift(rows);
    let parts = lifted.by_view_partition(view.partitions).into_iter().map(|chosen| {
        let mut groups = Groups::new();
        groups.update(&view.kinds, &lifted.grouped, &chosen, 1);
        groups
    });
    (parts.collect(), lifted.errors.iter().map(|(row, _)| *row).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn what_is_rolled_up_is_what_would_be_lifted(
        records in prop::collection::vec(super::views::any_reading(), 0..60),
        outer in any::<bool>(),
    ) {
        let from = if outer { FROM.replace("JOIN", "LEFT JOIN") } else { FROM.to_owned() };
        for (coarser, finer) in PAIRS {
            let views = views(&[&select(coarser, &from), &select(finer, &from)], TREE);
            let roll_up = RollUp::of(&views[0], &views[1]).expect("it follows");
            let batch = rows(&views[0], &records);
            let (parts, failed) = lifted(&views[1], &batch);
            let left: Vec<usize> = (0..batch.num_rows()).filter(|row| failed.contains(row)).collect();
            let left = arrow::array::UInt32Array::from_iter_values(left.iter().map(|row| *row as u32));
            let left = arrow::compute::take_record_batch(&batch, &left).expect("rows of the batch");
            let (mut rolled, _) = lifted(&views[0], &left);
            roll_up.add(&parts, &mut rolled);
            let (expected, _) = lifted(&views[0], &batch);
            prop_assert_eq!(rolled, expected, "{} from {}", coarser, finer);
        }
    }
}

#[test]
fn keys_of_any_length_and_number_are_renamed() {
    let long = "a transformer with a name that is longer than three words of eight bytes";
    let network = TREE.replace(",t1,", &format!(",{long},"));
    let sum = "SUM(r.value) AS s";
    let views =
        views(&[&by("n.feeder, n.substation", "", sum, FROM), &by("n.transformer", "", sum, FROM)], &network);
    let roll_up = RollUp::of(&views[0], &views[1]).expect("it follows");
    let key =
        |values: &[&str]| Value::encode_key(&values.iter().copied().map(Value::text).collect::<Vec<_>>());
    assert_eq!(roll_up.key(&key(&[long])), key(&["f1", "s1"]));
    assert_eq!(roll_up.key(&key(&["t3"])), Value::encode_key(&[Value::text("f2"), Value::Null]));
}
