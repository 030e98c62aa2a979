//! Errors of this package: each names a place and says what to do.

use std::fmt;
use std::path::PathBuf;

/// A place in the SQL text. Lines and columns count from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: u64,
    /// The column.
    pub column: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// A refusal of an application's SQL: where, what, and what to do instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct SqlError {
    /// The line in the SQL text, from 1.
    pub line: u64,
    /// The column in the SQL text, from 1.
    pub column: u64,
    /// What is wrong and why.
    pub message: String,
    /// What to do instead; may be empty.
    pub hint: String,
}

impl SqlError {
    pub(crate) fn new(place: Place, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { line: place.line, column: place.column, message: message.into(), hint: hint.into() }
    }

    /// Returns the place.
    pub fn place(&self) -> Place {
        Place { line: self.line, column: self.column }
    }
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place(), self.message)?;
        if !self.hint.is_empty() {
            write!(f, " ({})", self.hint)?;
        }
        Ok(())
    }
}

/// Why an application could not be bound to its reference tables.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The SQL is refused.
    #[error(transparent)]
    Sql(#[from] SqlError),
    /// A reference table's file is broken.
    #[error("reference table {table}: {}, line {line}: {message}", path.display())]
    Table {
        /// The table.
        table: String,
        /// Its file.
        path: PathBuf,
        /// The line in the file, from 1 (the header).
        line: u64,
        /// What is wrong and what is expected.
        message: String,
    },
    /// A reference table's file can't be read.
    #[error("reference table {table}: read {}", path.display())]
    Read {
        /// The table.
        table: String,
        /// Its file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

/// A grouping key given as text that does not fit the view's key columns.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Another number of parts than key columns.
    #[error("the key has {given} parts, but the view groups by {expected}: {columns}")]
    Count {
        /// The number of parts given.
        given: usize,
        /// The number of key columns.
        expected: usize,
        /// The key columns' names.
        columns: String,
    },
    /// A part that is not of its column's type.
    #[error("key column {column}: {message}")]
    Part {
        /// The column.
        column: String,
        /// What was found and what is expected.
        message: String,
    },
}

/// Groups that could not be finished into rows.
#[derive(Debug, thiserror::Error)]
pub enum FinishError {
    /// A key in the groups is not one of this view's.
    #[error("a group's key is not one of view {view}: {message}")]
    Key {
        /// The view.
        view: String,
        /// What is wrong.
        message: String,
    },
    /// An output expression failed, such as a division by zero.
    #[error("output column {column} of view {view}: {message}")]
    Output {
        /// The view.
        view: String,
        /// The column.
        column: String,
        /// What failed.
        message: String,
    },
}

/// Bytes that are not rows encoded by [`crate::Source::encode_rows`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("encoded row {row}: {message}")]
pub struct RowError {
    /// Which of the rows given, from 0.
    pub row: usize,
    /// What is wrong.
    pub message: String,
}
