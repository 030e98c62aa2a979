//! Reads the parameters of a URL: known names only, each of its type; pure.

use std::borrow::Cow;
use std::time::Duration;

use axum::http::Uri;
use chrono::{DateTime, NaiveDate, NaiveTime};

use crate::problem::Problem;

/// The parameters of one request, in the order given.
#[derive(Clone, Debug)]
pub struct Params<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Params<'a> {
    /// Reads a URL's parameters; a name that is not in `known` is refused.
    pub fn read(uri: &'a Uri, known: &[&str]) -> Result<Self, Problem> {
        let query = uri.query().unwrap_or_default();
        let pairs: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
        if let Some((name, _)) = pairs.iter().find(|(name, _)| !known.contains(&&**name)) {
            let list = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let detail = format!("there is no parameter '{name}' here");
            return Err(Problem::parameter(name, detail, format!("known parameters: {list}")));
        }
        Ok(Self(pairs))
    }

    /// Iterates all values of a parameter.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, value)| &**value)
    }

    /// Returns the value of a parameter that may be given once.
    pub fn one(&self, name: &str) -> Result<Option<&str>, Problem> {
        let mut values = self.all(name);
        let value = values.next();
        match values.next() {
            None => Ok(value),
            Some(_) => {
                Err(Problem::parameter(name, format!("'{name}' is given more than once"), "give it once"))
            }
        }
    }

    /// Reads a whole number within `[min, max]`.
    pub fn number(&self, name: &str, min: u64, max: u64) -> Result<Option<u64>, Problem> {
        let Some(text) = self.one(name)? else { return Ok(None) };
        match text.parse::<u64>() {
            Ok(number) if (min..=max).contains(&number) => Ok(Some(number)),
            _ => Err(Problem::parameter(
                name,
                format!("'{name}={}' is not usable", shown(text)),
                format!("give a whole number from {min} to {max}"),
            )),
        }
    }

    /// Reads one of several words.
    pub fn word<T: Copy>(&self, name: &str, words: &[(&str, T)]) -> Result<Option<T>, Problem> {
        let Some(text) = self.one(name)? else { return Ok(None) };
        let found = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(text));
        found.map(|(_, value)| Some(*value)).ok_or_else(|| {
            let list: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            Problem::parameter(
                name,
                format!("'{name}={}' is not usable", shown(text)),
                format!("use one of: {}", list.join(", ")),
            )
        })
    }

    /// Reads a time: RFC 3339, or a date, which means its midnight in UTC. In microseconds.
    pub fn time(&self, name: &str) -> Result<Option<i64>, Problem> {
        let Some(text) = self.one(name)? else { return Ok(None) };
        parse_time(text).map(Some).ok_or_else(|| {
            Problem::parameter(
                name,
                format!("'{name}={}' is not a time", shown(text)),
                "write RFC 3339, such as 2024-07-01T00:00:00Z or 2024-07-01T00:00:00+10:00, or a date",
            )
        })
    }

    /// Reads `deadline` in milliseconds, no longer than `max`.
    pub fn deadline(&self, default: Duration, max_ms: u64) -> Result<Duration, Problem> {
        Ok(self.number("deadline", 1, max_ms)?.map_or(default, Duration::from_millis))
    }
}

/// Reads RFC 3339 or a date, in microseconds since 1970 UTC.
pub fn parse_time(text: &str) -> Option<i64> {
    let text = text.trim();
    // A plus sign that was not percent-encoded arrives as a space.
    let mended = if text.contains(' ') { text.replace(' ', "+").into() } else { Cow::Borrowed(text) };
    if let Ok(time) = DateTime::parse_from_rfc3339(&mended) {
        return Some(time.timestamp_micros());
    }
    let date = NaiveDate::parse_from_str(&mended, "%Y-%m-%d").ok()?;
    Some(date.and_time(NaiveTime::MIN).and_utc().timestamp_micros())
}

/// Splits a composite key at its commas; `\,` is a comma and `\\` a backslash.
/// The key of a view that groups by one column is that column's text as it is.
pub fn split_key(text: &str, parts: usize) -> Result<Vec<Cow<'_, str>>, Problem> {
    if parts == 1 {
        return Ok(vec![text.into()]);
    }
    let mut out = vec![String::new()];
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let last = out.last_mut().expect("never empty");
        match c {
            '\\' => match chars.next() {
                Some(escaped @ (',' | '\\')) => last.push(escaped),
                _ => {
                    return Err(Problem::parameter(
                        "key",
                        format!(
                            "the key '{}' has a backslash before something else than , or \\",
                            shown(text)
                        ),
                        r"write a comma within a part as \, and a backslash as \\",
                    ));
                }
            },
            ',' => out.push(String::new()),
            c => last.push(c),
        }
    }
    Ok(out.into_iter().map(Cow::Owned).collect())
}

/// Shortens a value for an error message.
pub fn shown(text: &str) -> String {
    const SHOWN_MAX: usize = 120;
    match text.char_indices().nth(SHOWN_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(text: &str) -> Uri {
        text.parse().expect("a URI")
    }

    #[test]
    fn an_unknown_parameter_is_refused_naming_the_known_ones() {
        let problem = Params::read(&uri("/x?kez=1"), &["key", "from"]).expect_err("refused");
        let json = problem.to_json();
        assert_eq!(json["parameter"], "kez");
        assert_eq!(json["hint"], "known parameters: key, from");
    }

    #[test]
    fn a_repeated_parameter_is_refused_where_one_is_meant() {
        let uri = uri("/x?key=a&key=b&from=1&from=2");
        let params = Params::read(&uri, &["key", "from"]).expect("known");
        assert!(params.all("key").eq(["a", "b"]));
        assert!(params.one("from").is_err());
    }

    #[test]
    fn values_are_decoded() {
        let uri = uri("/x?key=a%2Cb&key=a+b&key&key=%FF");
        let params = Params::read(&uri, &["key"]).expect("known");
        assert!(params.all("key").eq(["a,b", "a b", "", "\u{fffd}"]));
    }

    #[test]
    fn times_are_rfc_3339_or_dates() {
        assert_eq!(parse_time("1970-01-01T00:00:01Z"), Some(1_000_000));
        assert_eq!(parse_time("1970-01-01T10:00:00.5+10:00"), Some(500_000));
        assert_eq!(parse_time("1970-01-01T10:00:00 10:00"), Some(0));
        assert_eq!(parse_time("1970-01-02"), Some(86_400_000_000));
        assert_eq!(parse_time("yesterday"), None);
    }

    #[test]
    fn composite_keys_split_at_commas_that_are_not_escaped() {
        let check = |text: &str, parts, expected: &[&str]| {
            assert_eq!(split_key(text, parts).expect("splits"), expected, "{text}");
        };
        check("a,b", 2, &["a", "b"]);
        check(r"a\,b,c\\", 2, &["a,b", r"c\"]);
        check(r"a,b\c", 1, &[r"a,b\c"]);
        check(",", 2, &["", ""]);
        assert!(split_key(r"a\b,c", 2).is_err());
    }
}
