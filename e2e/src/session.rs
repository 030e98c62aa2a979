//! What was acknowledged: positions in the log's partitions that every later answer must have.

use anyhow::Context;

/// Positions of all acknowledgements together; a node's own token is of one request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Session(Vec<u64>);

impl Session {
    /// Adds the token of an acknowledgement.
    pub(crate) fn add(&mut self, token: &str) -> anyhow::Result<()> {
        let positions = token.split('-').skip(1).map(|text| u64::from_str_radix(text, 16));
        let positions = positions.collect::<Result<Vec<u64>, _>>().context("positions in a token")?;
        self.0.resize(positions.len(), 0);
        self.0.iter_mut().zip(positions).for_each(|(seen, position)| *seen = (*seen).max(position));
        Ok(())
    }

    /// Returns where what was acknowledged ends in each log partition; nothing before the first acknowledgement.
    pub(crate) fn ends(&self) -> &[u64] {
        &self.0
    }

    /// Returns a token of everything in the source `readings`; empty before the first acknowledgement.
    pub(crate) fn token(&self) -> String {
        if self.0.is_empty() {
            return String::new();
        }
        let source: String = b"readings".iter().map(|byte| format!("{byte:02x}")).collect();
        let positions: String = self.0.iter().map(|position| format!("-{position:x}")).collect();
        format!("v1.{source}{positions}")
    }
}
