//! Session tokens of several answers together: a client has many requests under way at once.

use std::collections::BTreeMap;

/// What a session has seen: positions in the log's partitions, by source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Token(BTreeMap<String, Vec<u64>>);

impl Token {
    /// Adds a token that came with an answer.
    pub(super) fn add(&mut self, token: &str) -> Result<(), String> {
        let foreign = || format!("{token:?} is no session token");
        let sources = token.strip_prefix("v1").ok_or_else(foreign)?;
        for source in sources.split('.').skip(1) {
            let mut parts = source.split('-');
            let name = parts.next().ok_or_else(foreign)?;
            let positions: Result<Vec<u64>, _> = parts.map(|text| u64::from_str_radix(text, 16)).collect();
            let positions = positions.map_err(|_| foreign())?;
            let seen = self.0.entry(name.to_owned()).or_default();
            seen.resize(seen.len().max(positions.len()), 0);
            seen.iter_mut().zip(positions).for_each(|(seen, position)| *seen = (*seen).max(position));
        }
        Ok(())
    }

    /// Returns all of it as a token; none before the first.
    pub(super) fn text(&self) -> Option<String> {
        if self.0.is_empty() {
            return None;
        }
        let source = |(name, positions): (&String, &Vec<u64>)| {
            let positions: String = positions.iter().map(|position| format!("-{position:x}")).collect();
            format!(".{name}{positions}")
        };
        Some(format!("v1{}", self.0.iter().map(source).collect::<String>()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_together_are_as_far_as_the_furthest_of_each_partition() {
        let mut token = Token::default();
        assert_eq!(token.text(), None);
        for one in ["v1.7265-0-1f-2", "v1.7265-3-0-1", "v1.61-5.7265-0-0-0"] {
            token.add(one).expect("a token");
        }
        assert_eq!(token.text().as_deref(), Some("v1.61-5.7265-3-1f-2"));
    }

    #[test]
    fn what_is_no_token_is_refused_by_its_text() {
        for foreign in ["", "v2.72-1", "v1.72-x"] {
            let error = Token::default().add(foreign).expect_err(foreign);
            assert!(error.contains(&format!("{foreign:?}")), "{error}");
        }
    }
}
