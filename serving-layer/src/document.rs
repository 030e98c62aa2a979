//! A JSON object, written member by member into one piece of memory; pure.

use serde::Serialize;

/// An object that is being written.
#[derive(Debug)]
pub(crate) struct Document(Vec<u8>);

impl Document {
    /// Begins an object that will take about so many bytes.
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        let mut out = Vec::with_capacity(bytes);
        out.push(b'{');
        Self(out)
    }

    /// Writes a member. Its name is written as it is.
    pub(crate) fn member(
        &mut self,
        name: &str,
        value: &(impl Serialize + ?Sized),
    ) -> Result<(), serde_json::Error> {
        serde_json::to_writer(self.raw(name), value)
    }

    /// Writes a member's name, and returns what its value, as JSON, is to be appended to.
    pub(crate) fn raw(&mut self, name: &str) -> &mut Vec<u8> {
        let Self(out) = self;
        if out.len() > 1 {
            out.push(b',');
        }
        out.push(b'"');
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
        out
    }

    /// Ends the object.
    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.push(b'}');
        self.0
    }
}
