use super::*;

/// A SELECT, what the refusal points at, a fragment of its message, and of its hint.
const VIEWS: &[(&str, &str, &str, &str)] = &[
    (
        "SELECT channel, SUM(value) AS s FROM readings GROUP BY channel HAVING SUM(value) > 1",
        "HAVING",
        "HAVING would hide groups",
        "filter when asking",
    ),
    (
        "SELECT channel, COUNT(*) AS c FROM readings GROUP BY channel ORDER BY c",
        "ORDER",
        "ORDER BY means nothing",
        "order when asking",
    ),
    (
        "SELECT channel, COUNT(*) AS c FROM readings GROUP BY channel LIMIT 3",
        "LIMIT",
        "LIMIT can't be merged",
        "limit when asking",
    ),
    (
        "SELECT channel, COUNT(*) AS c FROM readings GROUP BY channel OFFSET 3",
        "OFFSET",
        "LIMIT can't be merged",
        "limit when asking",
    ),
    (
        "SELECT DISTINCT channel FROM readings GROUP BY channel",
        "DISTINCT",
        "SELECT DISTINCT",
        "group by the columns",
    ),
    (
        "SELECT channel, SUM(value) OVER (PARTITION BY unit) AS s FROM readings GROUP BY channel",
        "SUM",
        "OVER is a window function",
        "TUMBLE or HOP",
    ),
    (
        "SELECT channel, (SELECT 1) AS s FROM readings GROUP BY channel",
        "SELECT 1",
        "subqueries",
        "view of its own",
    ),
    (
        "SELECT COUNT(*) AS c FROM readings WHERE channel IN (SELECT feeder FROM network)",
        "SELECT feeder",
        "subqueries",
        "view of its own",
    ),
    ("SELECT COUNT(*) AS c FROM (SELECT 1) AS x", "SELECT 1", "subqueries", "name a source"),
    (
        "SELECT COUNT(*) AS c FROM readings a JOIN readings b ON a.channel = b.channel",
        "readings b",
        "second source",
        "reference table",
    ),
    ("SELECT COUNT(*) AS c FROM readings, network", "network", "comma joins", "JOIN"),
    (
        "SELECT channel FROM readings GROUP BY channel UNION SELECT unit FROM readings GROUP BY unit",
        "UNION",
        "UNION of queries",
        "view of its own",
    ),
    ("WITH x AS (SELECT 1) SELECT COUNT(*) AS c FROM readings", "WITH x", "WITH queries", "view of its own"),
    (
        "SELECT COUNT(*) AS c FROM readings WHERE start_utc > now()",
        "start_utc >",
        "now() gives another result",
        "event time",
    ),
    (
        "SELECT COUNT(*) AS c FROM readings WHERE random() > 0.5",
        "random()",
        "random() gives another result",
        "event time",
    ),
    (
        "SELECT SUM(value) FILTER (WHERE start_utc < current_date) AS c FROM readings",
        "start_utc <",
        "gives another result",
        "event time",
    ),
    (
        "SELECT MEDIAN(value) AS m FROM readings",
        "MEDIAN",
        "needs every value at once",
        "APPROX_PERCENTILE_CONT",
    ),
    ("SELECT ARRAY_AGG(value) AS m FROM readings", "ARRAY_AGG", "order of readings", "COUNT"),
    (
        "SELECT approx_distinct(value) AS m FROM readings",
        "approx_distinct",
        "take a value back",
        "COUNT(DISTINCT x)",
    ),
    ("SELECT SUM(CAST(value AS DOUBLE)) AS s FROM readings", "SUM", "float", "DECIMAL(18,6)"),
    ("SELECT SUM(unit) AS s FROM readings", "SUM", "SUM over", ""),
    ("SELECT SUM(DISTINCT value) AS s FROM readings", "SUM", "DISTINCT", "COUNT, MIN and MAX"),
    ("SELECT SUM(value * value * value) AS s FROM readings", "SUM", "could overflow", "CAST"),
    ("SELECT SUM(COUNT(*)) AS s FROM readings", "COUNT", "can't stand in the argument of sum", ""),
    ("SELECT APPROX_PERCENTILE_CONT(value, 1.5) AS s FROM readings", "APPROX", "from 0 to 1", "0.95"),
    (
        "SELECT APPROX_PERCENTILE_CONT(value) AS s FROM readings",
        "APPROX",
        "takes a value and a quantile",
        "0.95",
    ),
    ("SELECT FIRST(value ORDER BY unit) AS s FROM readings", "FIRST", "is not supported", "event time"),
    (
        "SELECT channel, COUNT(*) AS c FROM readings",
        "channel",
        "neither grouped nor inside an aggregate",
        "GROUP BY",
    ),
    (
        "SELECT r.unit || 'x' AS u, COUNT(*) AS c FROM readings r GROUP BY r.channel",
        "r.unit",
        "neither grouped",
        "GROUP BY",
    ),
    ("SELECT * FROM readings", "*", "SELECT * is not grouped", "name the keys"),
    ("SELECT COUNT(*) AS c FROM readings GROUP BY ALL", "GROUP", "GROUP BY ALL", "name the columns"),
    ("SELECT COUNT(*) AS c FROM readings GROUP BY 2", "2", "no item 2", "it has 1"),
    (
        "SELECT chanel, COUNT(*) AS c FROM readings GROUP BY 1",
        "chanel",
        "no column chanel",
        "readings.channel",
    ),
    (
        "SELECT x.channel, COUNT(*) AS c FROM readings r GROUP BY 1",
        "x.channel",
        "no column x.channel",
        "relations here: r",
    ),
    (
        "SELECT usage_point, COUNT(*) AS c FROM readings r JOIN network n ON r.usage_point = n.usage_point GROUP BY 1",
        "usage_point,",
        "ambiguous",
        "r.usage_point or n.usage_point",
    ),
    ("SELECT COUNT(*) AS c FROM reading", "reading", "no source reading", "sources: readings"),
    ("SELECT COUNT(*) AS c FROM network", "network", "reference table", "JOIN"),
    (
        "SELECT COUNT(*) AS c FROM readings r JOIN grid g ON r.usage_point = g.usage_point",
        "grid g",
        "no reference table grid",
        "network",
    ),
    (
        "SELECT COUNT(*) AS c FROM readings r JOIN network n ON r.start_utc >= n.valid_from",
        "r.start_utc >=",
        "compares no column",
        "r.usage_point = n.usage_point",
    ),
    (
        "SELECT COUNT(*) AS c FROM readings r JOIN network n ON r.duration_s = n.usage_point",
        "r.duration_s =",
        "BIGINT is compared with network.usage_point",
        "CAST",
    ),
    (
        "SELECT COUNT(*) AS c FROM readings r RIGHT JOIN network n ON r.usage_point = n.usage_point",
        "network n",
        "only JOIN and LEFT JOIN",
        "left",
    ),
    (
        "SELECT COUNT(*) AS c FROM readings r CROSS JOIN network n",
        "network n",
        "only JOIN and LEFT JOIN",
        "left",
    ),
    (
        "SELECT COUNT(*) AS c FROM readings r JOIN network r ON r.usage_point = r.usage_point",
        "network r",
        "two relations",
        "alias",
    ),
    (
        "SELECT COUNT(*) AS c FROM readings WHERE SUM(value) > 1",
        "SUM",
        "aggregate SUM can't stand in WHERE",
        "FILTER",
    ),
    ("SELECT COUNT(*) AS c FROM readings WHERE value", "value", "expected a condition", ""),
    ("SELECT COUNT(*) AS c FROM readings WHERE nonsense(value) > 1", "nonsense", "nonsense", ""),
    ("SELECT COUNT(*) AS c FROM readings WHERE channel + 1 > start_utc", "channel + 1", "", ""),
    (
        "SELECT CAST(value AS DOUBLE) AS d, COUNT(*) AS c FROM readings GROUP BY 1",
        "value AS DOUBLE",
        "can't be a key",
        "CAST",
    ),
    (
        "SELECT COUNT(*) AS c, COUNT(value) AS c FROM readings",
        "COUNT(value)",
        "two columns are called c",
        "another name",
    ),
    (
        "SELECT COUNT(*) AS window_end FROM readings GROUP BY TUMBLE(start_utc, INTERVAL '1 hour')",
        "window_end",
        "added to every view",
        "another name",
    ),
    (
        "SELECT TUMBLE(start_utc, INTERVAL '1 hour') AS w, COUNT(*) AS c FROM readings",
        "TUMBLE",
        "not in GROUP BY",
        "group by the window",
    ),
    (
        "SELECT COUNT(*) AS c FROM readings GROUP BY TUMBLE(start_utc, INTERVAL '1 month')",
        "TUMBLE",
        "need a time zone",
        "Europe/Berlin",
    ),
    (
        "SELECT COUNT(*) AS c FROM readings GROUP BY TUMBLE(start_utc, INTERVAL '1 hour', 'UTC')",
        "TUMBLE",
        "one day, week, month or year",
        "leave the time zone out",
    ),
    (
        "SELECT COUNT(*) AS c FROM readings GROUP BY TUMBLE(start_utc, INTERVAL '1 day', 'Mars/Base')",
        "'Mars/Base'",
        "no time zone",
        "IANA",
    ),
    (
        "SELECT COUNT(*) AS c FROM readings GROUP BY TUMBLE(start_utc, '1 hour')",
        "'1 hour'",
        "expected an interval",
        "INTERVAL",
    ),
    (
        "SELECT COUNT(*) AS c FROM readings GROUP BY TUMBLE(start_utc, INTERVAL '1 fortnight')",
        "'1 fortnight'",
        "1 fortnight",
        "",
    ),
    (
        "SELECT COUNT(*) AS c FROM readings GROUP BY TUMBLE(start_utc, INTERVAL '0 hours')",
        "TUMBLE",
        "no length",
        "30 minutes",
    ),
    (
        "SELECT COUNT(*) AS c FROM readings GROUP BY TUMBLE(channel, INTERVAL '1 hour')",
        "TUMBLE",
        "time is TEXT",
        "TIMESTAMP",
    ),
    (
        "SELECT COUNT(*) AS c FROM readings GROUP BY HOP(start_utc, INTERVAL '7 minutes', INTERVAL '1 hour')",
        "HOP",
        "no multiple of the slide",
        "divides the size",
    ),
    (
        "SELECT COUNT(*) AS c FROM readings GROUP BY HOP(start_utc, INTERVAL '1 microsecond', INTERVAL '100 days')",
        "HOP",
        "in 8640000000000 windows",
        "ten-thousandth",
    ),
    (
        "SELECT COUNT(*) AS c FROM readings GROUP BY SESSION(start_utc, INTERVAL '7 minutes')",
        "SESSION",
        "SESSION windows are not supported",
        "TUMBLE",
    ),
    (
        "SELECT COUNT(*) AS c FROM readings GROUP BY TUMBLE(start_utc, INTERVAL '1 hour'), TUMBLE(start_utc, INTERVAL '2 hours')",
        "TUMBLE(start_utc, INTERVAL '2 hours')",
        "one window",
        "another view",
    ),
    (
        "SELECT channel, COUNT(*) AS c FROM readings GROUP BY ROLLUP (channel)",
        "ROLLUP",
        "ROLLUP, CUBE and GROUPING SETS",
        "a view for each grouping",
    ),
    ("SELECT COUNT(*) AS c", "v AS", "no FROM", ""),
];

#[test]
fn each_view_that_cannot_be_kept_is_refused_at_its_place() {
    for (select, at, message, hint) in VIEWS {
        let sql = with_view(select);
        let error = Application::parse(&sql).map(|_| ()).expect_err(select);
        assert!(error.message.contains(message), "{select}\n{error}");
        assert!(error.hint.contains(hint), "{select}\n{error}");
        assert_eq!((error.line, error.column), place_of(&sql, at), "{select}\n{error}");
    }
}

/// Returns where a text first stands after `CREATE VIEW`.
fn place_of(sql: &str, text: &str) -> (u64, u64) {
    let start = sql.find("CREATE VIEW").unwrap_or(0);
    let found = start + sql[start..].find(text).unwrap_or_else(|| panic!("{text} is not in {sql}"));
    let line = sql[..found].matches('\n').count() as u64 + 1;
    let column = sql[..found].rsplit('\n').next().map_or(0, |head| head.chars().count() as u64) + 1;
    (line, column)
}

#[test]
fn emission_needs_a_window_over_the_event_time() {
    for (select, at, message) in [
        ("SELECT channel, COUNT(*) AS c FROM readings GROUP BY channel", "GROUP", "has no window"),
        (
            "SELECT COUNT(*) AS c FROM readings GROUP BY TUMBLE(start_utc + INTERVAL '1 hour', INTERVAL '1 day')",
            "TUMBLE",
            "close by the event time start_utc",
        ),
    ] {
        let sql = with_view(select).replace("CREATE VIEW v AS", "CREATE VIEW v WITH (output_topic = 'o') AS");
        let error = Application::parse(&sql).map(|_| ()).expect_err(select);
        assert!(error.message.contains(message), "{error}");
        assert_eq!((error.line, error.column), place_of(&sql, at), "{error}");
    }
}

#[test]
fn a_refusal_reads_as_place_reason_and_advice() {
    let error = Application::parse(&with_view("SELECT MEDIAN(value) AS m FROM readings"))
        .map(|_| ())
        .expect_err("a median is not mergeable");
    assert_eq!(
        error.to_string(),
        "line 7, column 25: an exact median needs every value at once, so it can't be merged \
         (use APPROX_PERCENTILE_CONT(x, 0.5), whose sketch can be merged and retracted)"
    );
}

/// Each would be deeper than a stack, of the main thread or the one that reads a changed application.
#[test]
fn what_is_too_deep_for_a_stack_is_refused_and_what_is_just_not_is_planned() {
    for chain in ["source_version{} > 1|+1", "channel{} = 'b'| || 'a'", "channel = 'a'{}| OR channel = 'b'"] {
        let (frame, link) = chain.split_once('|').expect("a frame and a link");
        let select = |links: usize| {
            let condition = frame.replace("{}", &link.repeat(links));
            format!("SELECT COUNT(*) AS c FROM readings WHERE {condition}")
        };
        let error = Application::parse(&with_view(&select(20_000))).expect_err("too deep");
        assert!(error.message.contains("more than 500 operators"), "{error}");
        assert!(error.hint.contains("IN (…)"), "{error}");
        let links = if link.contains("OR") { 240 } else { 480 };
        bind_with(&with_view(&select(links)), NETWORK);
    }
}
