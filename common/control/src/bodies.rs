//! How messages, log entries and snapshots are written: MessagePack with the
//! names of the fields, so that fields can be added (`#[serde(default)]`) and old
//! and new versions read each other. `version` grows only when that would not do.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The form that this program writes, and the newest that it reads.
const VERSION: u16 = 1;

#[derive(Serialize)]
struct Written<'a, T> {
    version: u16,
    message: &'a T,
}

#[derive(Deserialize)]
struct Read<T> {
    message: T,
}

#[derive(Deserialize)]
struct Version {
    version: u16,
}

/// Why bytes could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// Written by a later version of the program.
    #[error("written in form {0}, but this program reads forms up to {VERSION}: update it first")]
    Later(u16),
    /// Not what was expected.
    #[error("not of the expected form: {0}")]
    Form(#[from] rmp_serde::decode::Error),
}

pub(crate) fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    rmp_serde::to_vec_named(&Written { version: VERSION, message }).expect("plain values always encode")
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, BodyError> {
    let Version { version } = rmp_serde::from_slice(bytes)?;
    if version > VERSION {
        return Err(BodyError::Later(version));
    }
    Ok(rmp_serde::from_slice::<Read<T>>(bytes)?.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Old {
        a: u32,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct New {
        a: u32,
        #[serde(default)]
        b: Option<String>,
    }

    #[test]
    fn versions_with_and_without_a_field_read_each_other() {
        let new = New { a: 7, b: Some("later".into()) };
        assert_eq!(decode::<Old>(&encode(&new)).unwrap(), Old { a: 7 });
        assert_eq!(decode::<New>(&encode(&Old { a: 7 })).unwrap(), New { a: 7, b: None });
    }

    #[test]
    fn a_later_form_is_refused_by_its_number() {
        let later = rmp_serde::to_vec_named(&Written { version: 2, message: &7 }).unwrap();
        assert!(matches!(decode::<u32>(&later), Err(BodyError::Later(2))));
    }

    #[test]
    fn any_cut_or_foreign_bytes_are_an_error() {
        let whole = encode(&New { a: 300, b: Some("b".into()) });
        for end in 0..whole.len() {
            assert!(decode::<New>(&whole[..end]).is_err(), "cut at {end}");
        }
        assert!(decode::<New>(&[0xff; 32]).is_err());
    }
}
