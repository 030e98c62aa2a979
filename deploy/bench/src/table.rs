//! Figures as tables for people.

use std::fmt::{self, Write};

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

/// Writes a number with three digits or so.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1e6 => format!("{:.2} M", value / 1e6),
        size if size >= 1e4 => format!("{:.0} k", value / 1e3),
        size if size >= 100.0 => format!("{value:.0}"),
        _ => format!("{value:.2}"),
    }
}

/// Writes it without zeros that say nothing.
pub(crate) fn short(value: f64) -> String {
    let text = number(value);
    let (digits, unit) = text.split_at(text.find(' ').unwrap_or(text.len()));
    match digits.contains('.') {
        true => format!("{}{unit}", digits.trim_end_matches('0').trim_end_matches('.')),
        false => text,
    }
}

/// A table, displayed as Markdown that is aligned for a terminal too.
pub(crate) struct Table(Vec<Vec<String>>);

impl Table {
    /// Begins one with the names of its columns; the first column is text, the others are numbers.
    pub(crate) fn new<const COLUMNS: usize>(head: [&str; COLUMNS]) -> Self {
        Self::with_head(head.map(str::to_owned).into())
    }

    /// Begins one whose columns are named at run time.
    pub(crate) fn with_head(head: Vec<String>) -> Self {
        Self(vec![head])
    }

    /// Adds a row, which has a cell for each column.
    pub(crate) fn row(&mut self, cells: impl Into<Vec<String>>) {
        let cells = cells.into();
        assert_eq!(cells.len(), self.0[0].len(), "a cell for each column");
        self.0.push(cells);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wide = |column: usize| self.0.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.0[0].len()).map(wide).collect();
        for (index, row) in self.0.iter().enumerate() {
            for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                if column == 0 {
                    write!(out, "| {cell:<width$} ")?
                } else {
                    write!(out, "| {cell:>width$} ")?
                }
            }
            writeln!(out, "|")?;
            if index == 0 {
                let line = |(column, &width): (usize, &usize)| {
                    let dashes = "-".repeat(width + 1);
                    if column == 0 { format!("|{dashes}-") } else { format!("|{dashes}:") }
                };
                writeln!(out, "{}|", widths.iter().enumerate().map(line).collect::<String>())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_markdown_with_columns_below_each_other() {
        let mut table = Table::new(["", "µs"]);
        table.row(["a".to_owned(), "12.5".to_owned()]);
        assert_eq!(table.to_string(), "|   |   µs |\n|---|-----:|\n| a | 12.5 |\n");
    }
}
