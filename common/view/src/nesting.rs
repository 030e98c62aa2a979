//! How deep SQL can be, told from its tokens: parsing, planning and dropping an expression walk it to
//! its depth, and a stack that is too small for it ends the process.

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::error::SqlError;

/// Operators, brackets and such words of one statement: no tree is deeper. Fits the stack of any
/// thread.
pub(crate) const NESTING_MAX: usize = 500;

/// Refuses the first statement that may be too deep.
pub(crate) fn check(tokens: &[TokenWithSpan]) -> Result<(), SqlError> {
    let mut found = 0;
    for token in tokens {
        if token.token == Token::SemiColon {
            found = 0;
        }
        found += usize::from(may_nest(&token.token));
        if found > NESTING_MAX {
            return Err(SqlError::new(
                token.span.start.into(),
                format!("the statement has more than {NESTING_MAX} operators and brackets"),
                "write a long chain of OR as column IN (…), or join a reference table",
            ));
        }
    }
    Ok(())
}

/// Says whether an expression may be deeper by this token: operators, brackets and such words.
pub fn may_nest(token: &Token) -> bool {
    match token {
        Token::Word(word) => matches!(
            word.keyword,
            Keyword::AND
                | Keyword::OR
                | Keyword::NOT
                | Keyword::UNION
                | Keyword::EXCEPT
                | Keyword::INTERSECT
                | Keyword::JOIN
                | Keyword::CASE
                | Keyword::WHEN
                | Keyword::IS
                | Keyword::LIKE
                | Keyword::ILIKE
                | Keyword::BETWEEN
                | Keyword::COLLATE
                | Keyword::AT
        ),
        Token::Whitespace(_)
        | Token::Number(..)
        | Token::SingleQuotedString(_)
        | Token::DoubleQuotedString(_)
        | Token::Comma
        | Token::Period
        | Token::SemiColon
        | Token::RParen
        | Token::EOF => false,
        _ => true,
    }
}
