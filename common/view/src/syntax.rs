//! The SQL of an application: statements with their places.
//!
//! The heads of the statements are read here, token by token, so that every
//! name and option keeps its place; types and queries are left to sqlparser.

use datafusion::sql::sqlparser::ast::{Ident, Query, Spanned};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};
use sanso_state::ValueType;

use crate::error::{Place, SqlError};
use crate::nesting;
use crate::source::Column;

/// One parsed statement.
#[derive(Debug)]
pub(crate) enum Statement {
    Source(Declaration),
    Stage(StageDeclaration),
    Table(Declaration),
    View(ViewStatement),
}

/// The declaration of a source or a reference table.
#[derive(Debug)]
pub(crate) struct Declaration {
    pub(crate) name: Named,
    pub(crate) columns: Vec<(Column, Place)>,
    pub(crate) options: Options,
}

/// The declaration of a source that is a view's closed windows.
#[derive(Debug)]
pub(crate) struct StageDeclaration {
    pub(crate) name: Named,
    pub(crate) view: Named,
    pub(crate) options: Options,
}

/// The declaration of a view.
#[derive(Debug)]
pub(crate) struct ViewStatement {
    pub(crate) name: Named,
    pub(crate) options: Options,
    pub(crate) query: Box<Query>,
    /// The statement's tokens, to find the place of a clause.
    pub(crate) tokens: Vec<TokenWithSpan>,
}

/// A name or a text and its place.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    pub(crate) text: String,
    pub(crate) place: Place,
}

/// The options of a `WITH (…)` list, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options(Vec<(Named, Named)>);

impl Options {
    /// Takes an option's value.
    pub(crate) fn take(&mut self, name: &str) -> Option<Named> {
        let at = self.0.iter().position(|(key, _)| key.text == name)?;
        Some(self.0.remove(at).1)
    }

    /// Returns an option's value.
    pub(crate) fn get(&self, name: &str) -> Option<&Named> {
        self.0.iter().find(|(key, _)| key.text == name).map(|(_, value)| value)
    }

    /// Refuses the options that nothing took.
    pub(crate) fn finish(self, known: &str) -> Result<(), SqlError> {
        match self.0.first() {
            None => Ok(()),
            Some((key, _)) => Err(SqlError::new(
                key.place,
                format!("unknown option {}", key.text),
                format!("known here: {known}"),
            )),
        }
    }
}

impl From<Location> for Place {
    fn from(location: Location) -> Self {
        Self { line: location.line, column: location.column }
    }
}

/// Returns a name in its normal form: lower case unless quoted.
pub(crate) fn normal(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

/// Returns where a piece of syntax begins, if its parser noted it.
pub(crate) fn place_of(syntax: &impl Spanned) -> Option<Place> {
    let start = syntax.span().start;
    (start.line > 0).then(|| start.into())
}

/// Parses a whole application.
pub(crate) fn parse(sql: &str) -> Result<Vec<Statement>, SqlError> {
    let dialect = GenericDialect {};
    let tokens = Tokenizer::new(&dialect, sql)
        .tokenize_with_location()
        .map_err(|error| SqlError::new(error.location.into(), error.message, ""))?;
    nesting::check(&tokens)?;
    let end = end_of(sql);
    let mut reader = StatementReader {
        parser: Parser::new(&dialect).with_tokens_with_locations(tokens.clone()),
        tokens,
        end,
    };
    reader.statements()
}

fn end_of(sql: &str) -> Place {
    let line = sql.split('\n').count() as u64;
    let column = sql.rsplit('\n').next().unwrap_or("").chars().count() as u64 + 1;
    Place { line, column }
}

struct StatementReader<'d> {
    parser: Parser<'d>,
    tokens: Vec<TokenWithSpan>,
    end: Place,
}

impl StatementReader<'_> {
    fn statements(&mut self) -> Result<Vec<Statement>, SqlError> {
        let mut statements = Vec::new();
        loop {
            while self.parser.consume_token(&Token::SemiColon) {}
            if self.parser.peek_token().token == Token::EOF {
                return Ok(statements);
            }
            statements.push(self.statement()?);
            let next = self.parser.peek_token();
            if !matches!(next.token, Token::SemiColon | Token::EOF) {
                return Err(self.unexpected(&next, "a semicolon after the statement"));
            }
        }
    }

    fn statement(&mut self) -> Result<Statement, SqlError> {
        const KINDS: &str = "CREATE SOURCE, CREATE TABLE or CREATE VIEW";
        let start = self.parser.peek_token();
        if !self.parser.parse_keyword(Keyword::CREATE) {
            return Err(self.unexpected(&start, KINDS));
        }
        let kind = self.parser.next_token();
        let word = match &kind.token {
            Token::Word(word) => word.value.to_ascii_uppercase(),
            _ => String::new(),
        };
        match word.as_str() {
            "SOURCE" => self.source(),
            "TABLE" => {
                let name = self.name("a name")?;
                self.declaration(name).map(Statement::Table)
            }
            "VIEW" => self.view(start.span.start).map(Statement::View),
            _ => Err(self.unexpected(&kind, KINDS)),
        }
    }

    fn source(&mut self) -> Result<Statement, SqlError> {
        let name = self.name("a name")?;
        if !self.parser.parse_keyword(Keyword::FROM) {
            return self.declaration(name).map(Statement::Source);
        }
        let next = self.parser.peek_token();
        if !self.parser.parse_keyword(Keyword::VIEW) {
            return Err(self.unexpected(&next, "VIEW and the view's name"));
        }
        let view = self.name("the view's name")?;
        Ok(Statement::Stage(StageDeclaration { name, view, options: self.options()? }))
    }

    fn declaration(&mut self, name: Named) -> Result<Declaration, SqlError> {
        self.expect(&Token::LParen, "( and the columns")?;
        let mut columns: Vec<(Column, Place)> = Vec::new();
        loop {
            let (column, place) = self.column()?;
            if columns.iter().any(|(other, _)| other.name == column.name) {
                return Err(SqlError::new(place, format!("column {} is declared twice", column.name), ""));
            }
            columns.push((column, place));
            if !self.parser.consume_token(&Token::Comma) {
                break;
            }
        }
        self.expect(&Token::RParen, ", or ) after a column")?;
        Ok(Declaration { name, columns, options: self.options()? })
    }

    fn column(&mut self) -> Result<(Column, Place), SqlError> {
        let name = self.name("a column's name")?;
        let type_place = self.place(&self.parser.peek_token());
        let data_type = self.parser.parse_data_type().map_err(|error| self.refused(error))?;
        let value_type = column_type(&data_type, type_place)?;
        let nullable = if self.parser.parse_keywords(&[Keyword::NOT, Keyword::NULL]) {
            false
        } else {
            let _ = self.parser.parse_keyword(Keyword::NULL);
            true
        };
        Ok((Column { name: name.text, value_type, nullable }, name.place))
    }

    fn view(&mut self, start: Location) -> Result<ViewStatement, SqlError> {
        let name = self.name("the view's name")?;
        let options = self.options()?;
        let next = self.parser.peek_token();
        if !self.parser.parse_keyword(Keyword::AS) {
            return Err(self.unexpected(&next, "AS and the view's SELECT"));
        }
        let query = self.parser.parse_query().map_err(|error| self.refused(error))?;
        let after = self.parser.peek_token();
        let (from, to) = (start, after.span.start);
        let inside = |token: &&TokenWithSpan| {
            token.span.start >= from && (after.token == Token::EOF || token.span.start < to)
        };
        let tokens = self.tokens.iter().filter(inside).cloned().collect();
        Ok(ViewStatement { name, options, query, tokens })
    }

    fn options(&mut self) -> Result<Options, SqlError> {
        let mut options = Options::default();
        if !self.parser.parse_keyword(Keyword::WITH) {
            return Ok(options);
        }
        self.expect(&Token::LParen, "( and the options")?;
        loop {
            let key = self.name("an option's name")?;
            self.expect(&Token::Eq, "= after the option's name")?;
            let value = self.option_value()?;
            if options.0.iter().any(|(other, _)| other.text == key.text) {
                return Err(SqlError::new(key.place, format!("option {} stands twice", key.text), ""));
            }
            options.0.push((key, value));
            if !self.parser.consume_token(&Token::Comma) {
                break;
            }
        }
        self.expect(&Token::RParen, ", or ) after an option")?;
        Ok(options)
    }

    fn option_value(&mut self) -> Result<Named, SqlError> {
        let token = self.parser.next_token();
        let text = match &token.token {
            Token::SingleQuotedString(text) | Token::Number(text, _) => text.clone(),
            _ => return Err(self.unexpected(&token, "a value in single quotes")),
        };
        Ok(Named { text, place: self.place(&token) })
    }

    fn name(&mut self, what: &str) -> Result<Named, SqlError> {
        let token = self.parser.peek_token();
        if !matches!(token.token, Token::Word(_)) {
            return Err(self.unexpected(&token, what));
        }
        let ident = self.parser.parse_identifier().map_err(|error| self.refused(error))?;
        Ok(Named { text: normal(&ident), place: self.place(&token) })
    }

    fn expect(&mut self, token: &Token, what: &str) -> Result<(), SqlError> {
        let next = self.parser.peek_token();
        if self.parser.consume_token(token) {
            return Ok(());
        }
        Err(self.unexpected(&next, what))
    }

    fn place(&self, token: &TokenWithSpan) -> Place {
        if token.token == Token::EOF { self.end } else { token.span.start.into() }
    }

    fn unexpected(&self, token: &TokenWithSpan, expected: &str) -> SqlError {
        let found = match &token.token {
            Token::EOF => "the end of the file".to_owned(),
            token => token.to_string(),
        };
        SqlError::new(self.place(token), format!("found {found}, expected {expected}"), "")
    }

    /// Takes the place out of sqlparser's message.
    fn refused(&self, error: ParserError) -> SqlError {
        let text = match error {
            ParserError::ParserError(text) | ParserError::TokenizerError(text) => text,
            ParserError::RecursionLimitExceeded => "the expression is nested too deeply".into(),
        };
        let place = text.rsplit_once(" at Line: ").and_then(|(message, place)| {
            let (line, column) = place.split_once(", Column: ")?;
            let place = Place { line: line.parse().ok()?, column: column.trim().parse().ok()? };
            Some((message.to_owned(), place))
        });
        let (message, place) = place.unwrap_or((text, self.end));
        let place = if place.line == 0 { self.end } else { place };
        SqlError::new(place, message.replace("EOF", "the end of the file"), "")
    }
}

fn column_type(
    data_type: &datafusion::sql::sqlparser::ast::DataType,
    place: Place,
) -> Result<ValueType, SqlError> {
    use datafusion::sql::sqlparser::ast::{DataType as Sql, ExactNumberInfo, TimezoneInfo};
    let refuse = |message: String, hint: &str| Err(SqlError::new(place, message, hint));
    match data_type {
        Sql::Text | Sql::Varchar(_) | Sql::String(_) | Sql::CharVarying(_) | Sql::CharacterVarying(_) => {
            Ok(ValueType::Text)
        }
        Sql::BigInt(_) | Sql::Int(_) | Sql::Integer(_) | Sql::Int8(_) | Sql::Int64 => Ok(ValueType::Int),
        Sql::Boolean | Sql::Bool => Ok(ValueType::Bool),
        Sql::Date => Ok(ValueType::Date),
        Sql::Timestamp(_, TimezoneInfo::None | TimezoneInfo::WithTimeZone | TimezoneInfo::Tz) => {
            Ok(ValueType::Timestamp)
        }
        Sql::Decimal(info) | Sql::Numeric(info) | Sql::Dec(info) => match info {
            ExactNumberInfo::PrecisionAndScale(precision, scale)
                if (1..=38).contains(precision) && *scale >= 0 && (*scale as u64) <= *precision =>
            {
                Ok(ValueType::Decimal { precision: *precision as u8, scale: *scale as i8 })
            }
            ExactNumberInfo::Precision(precision) if (1..=38).contains(precision) => {
                Ok(ValueType::Decimal { precision: *precision as u8, scale: 0 })
            }
            _ => refuse(
                format!("{data_type} has no usable precision and scale"),
                "write DECIMAL(p,s) with p from 1 to 38 and s at most p, such as DECIMAL(18,6)",
            ),
        },
        Sql::Float(_)
        | Sql::Real
        | Sql::Double(_)
        | Sql::DoublePrecision
        | Sql::Float4
        | Sql::Float8
        | Sql::Float32
        | Sql::Float64 => refuse(
            format!("{data_type} is not exact: sums would depend on the order of readings"),
            "use DECIMAL(p,s), such as DECIMAL(18,6)",
        ),
        other => refuse(
            format!("type {other} is not supported"),
            "use TEXT, BIGINT, BOOLEAN, DECIMAL(p,s), TIMESTAMP or DATE",
        ),
    }
}
