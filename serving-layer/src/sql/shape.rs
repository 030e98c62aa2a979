//! Refuses SQL whose shape, not whose data, would take all stack or all time.
//!
//! Planning walks expressions and plans to their depth, and can't be stopped
//! half-way: a deadline is of no use there. So both are bounded beforehand.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use sanso_view::may_nest;

use crate::problem::Problem;

/// Operators, brackets and such words of one statement: no tree is deeper.
const NESTING_MAX: usize = 2_000;
/// Reads of WITHs, each counted with all that it reads itself.
const READS_MAX: u64 = 1_000;

/// Checks the text. What is no SQL at all is left to the parser, which says where.
pub(crate) fn check_text(sql: &str) -> Result<(), Problem> {
    let Ok(tokens) = Tokenizer::new(&GenericDialect, sql).tokenize() else { return Ok(()) };
    let tokens: Vec<Token> =
        tokens.into_iter().filter(|token| !matches!(token, Token::Whitespace(_))).collect();
    let found = tokens.iter().filter(|token| may_nest(token)).count();
    if found > NESTING_MAX {
        let detail = format!("it has {found} operators and brackets, and {NESTING_MAX} are allowed");
        return Err(too_complex(detail)
            .hint("write a long chain of OR as column IN (…), and read what is long from a view"));
    }
    let reads = reads(&tokens);
    if reads > READS_MAX {
        let detail = format!("its WITHs are read {reads} times in all, and {READS_MAX} times are allowed");
        return Err(too_complex(detail)
            .hint("name each WITH less often, or let a view compute what is asked again and again"));
    }
    Ok(())
}

/// Counts how often tables are read once each WITH stands where it is named:
/// `b AS (… a … a)` costs twice what `a` does, so a few of them make a plan
/// that no machine can hold.
fn reads(tokens: &[Token]) -> u64 {
    let mut costs: BTreeMap<String, u64> = BTreeMap::new();
    let mut open: Vec<(String, usize, u64)> = Vec::new();
    let mut depth = 0;
    let mut total = 0u64;
    for (at, token) in tokens.iter().enumerate() {
        match token {
            Token::LParen => {
                depth += 1;
                if let Some(name) = defined(&tokens[..at]) {
                    open.push((name, depth, 1));
                }
            }
            Token::RParen => {
                if let Some((name, _, cost)) = open.pop_if(|(_, opened, _)| *opened == depth) {
                    costs.insert(name, cost);
                }
                depth = depth.saturating_sub(1);
            }
            Token::Word(word) if !matches!(tokens.get(at + 1), Some(Token::Period)) => {
                let Some(cost) = costs.get(&word.value.to_lowercase()) else { continue };
                total = total.saturating_add(*cost);
                open.iter_mut().for_each(|(_, _, sum)| *sum = sum.saturating_add(*cost));
            }
            _ => {}
        }
    }
    total
}

/// Returns the name that is defined where a bracket follows: `name AS (` or `name (columns) AS (`.
fn defined(before: &[Token]) -> Option<String> {
    let mut back = before.iter().rev();
    let is_as = |token: &&Token| matches!(token, Token::Word(word) if word.keyword == Keyword::AS);
    let mut next = loop {
        match back.next() {
            // AS [NOT] MATERIALIZED (
            Some(Token::Word(word)) if matches!(word.keyword, Keyword::NOT | Keyword::MATERIALIZED) => {}
            token => break token,
        }
    };
    next.filter(is_as)?;
    next = back.next();
    if matches!(next, Some(Token::RParen)) {
        next = back.by_ref().skip_while(|token| !matches!(token, Token::LParen)).nth(1);
    }
    match next {
        Some(Token::Word(word)) => Some(word.value.to_lowercase()),
        _ => None,
    }
}

fn too_complex(detail: String) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "query-too-complex", "The query is too complex")
        .detail(detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_is_no_nesting_and_a_long_chain_is() {
        let list = format!("SELECT * FROM t WHERE a IN ({}'x')", "'x', ".repeat(20_000));
        assert!(check_text(&list).is_ok());
        assert!(check_text(&format!("SELECT {}1", "1+".repeat(NESTING_MAX))).is_ok());
        for part in ["1+", "(", "NOT ", "1 OR ", "1 || ", "- "] {
            let chain = format!("SELECT {}1", part.repeat(NESTING_MAX + 1));
            assert!(check_text(&chain).is_err(), "{part}");
        }
    }

    #[test]
    fn each_with_costs_what_it_names() {
        let cost = |sql: &str| {
            let tokens = Tokenizer::new(&GenericDialect, sql).tokenize().expect("SQL");
            let tokens: Vec<Token> =
                tokens.into_iter().filter(|token| !matches!(token, Token::Whitespace(_))).collect();
            reads(&tokens)
        };
        assert_eq!(cost("SELECT a FROM t WHERE (b = 1)"), 0);
        assert_eq!(cost("WITH a AS (SELECT 1) SELECT a.x FROM a"), 1);
        assert_eq!(
            cost("WITH a AS (SELECT 1), B(x, y) AS NOT MATERIALIZED (SELECT * FROM a, A) SELECT * FROM b"),
            2 + 3
        );
        assert_eq!(
            cost(
                "WITH a AS (SELECT 1), b AS (SELECT * FROM a, a), c AS (SELECT * FROM b, b) SELECT * FROM c"
            ),
            2 + 6 + 7
        );
    }
}
