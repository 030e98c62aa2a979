//! Figures as a table for people.

use std::fmt::Write;

use crate::figure::Figure;

/// Lays figures out, with the ratio to their alternative and to the last run.
pub(crate) fn of(figures: &[Figure], last: Option<&[Figure]>) -> String {
    let wide = figures.iter().map(|figure| figure.what.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for figure in figures {
        let value = format!("{} {}", number(figure.value), figure.unit);
        let against = figure.against.as_ref().map_or_else(String::new, |(who, value)| {
            format!("{:.2} × {who} ({} {})", figure.value / value, number(*value), figure.unit)
        });
        let before = last.and_then(|last| last.iter().find(|before| before.what == figure.what));
        let change = before.map_or_else(String::new, |before| {
            let better =
                if figure.more_is_better { figure.value / before.value } else { before.value / figure.value };
            format!("last run: {} ({better:.2} × as good now)", number(before.value))
        });
        writeln!(text, "  {:<wide$}  {value:>18}  {against}  {change}", figure.what)
            .expect("write to a string");
    }
    text
}

fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1e6 => format!("{:.2} M", value / 1e6),
        size if size >= 1e4 => format!("{:.0} k", value / 1e3),
        size if size >= 100.0 => format!("{value:.0}"),
        _ => format!("{value:.2}"),
    }
}
