//! Passwords and keys: read from a file or the environment, and never shown.

use std::collections::BTreeMap;

use crate::{LogError, Result};

/// Properties of librdkafka whose value nobody may see.
const SECRETS: [&str; 7] = [
    "sasl.password",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.config",
    "sasl.oauthbearer.assertion.private.key.passphrase",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl.keystore.password",
];

/// Says whether a property's value may not be shown.
pub(super) fn is_secret(property: &str) -> bool {
    SECRETS.contains(&property)
}

/// Replaces `NAME.file` and `NAME.env` of each secret `NAME` by the secret that they name.
pub(super) fn resolve(address: &str, options: &mut BTreeMap<String, String>) -> Result<()> {
    for secret in SECRETS {
        let file = options.remove(&format!("{secret}.file"));
        let variable = options.remove(&format!("{secret}.env"));
        let refuse = |reason: String| {
            let address = without_secrets(address);
            Err(LogError::Address { address, reason })
        };
        let value = match (file, variable) {
            (None, None) => continue,
            (Some(_), Some(_)) => {
                return refuse(format!("{secret} comes from a file or from the environment, not both"));
            }
            (Some(file), None) => match std::fs::read_to_string(&file) {
                // Editors end a file with a line break; a password has none.
                Ok(text) => text.trim_end_matches(['\r', '\n']).to_owned(),
                Err(error) => return refuse(format!("{secret}.file: read {file}: {error}")),
            },
            (None, Some(variable)) => match std::env::var(&variable) {
                Ok(value) => value,
                Err(_) => return refuse(format!("{secret}.env: the environment has no {variable}")),
            },
        };
        if options.insert(secret.to_owned(), value).is_some() {
            return refuse(format!("{secret} is given twice"));
        }
    }
    Ok(())
}

/// Returns an address as it may be shown: without the values of its options, and without what may
/// be a user's name and password.
pub fn without_secrets(address: &str) -> String {
    let (place, options) = address.split_once('?').unwrap_or((address, ""));
    let place = match (place.split_once("://"), place.rsplit_once('@')) {
        (Some((kind, _)), Some((_, host))) => format!("{kind}://…@{host}"),
        _ => place.to_owned(),
    };
    if options.is_empty() { place } else { place + "?…" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(options: &[(&str, &str)]) -> Result<BTreeMap<String, String>> {
        let mut options = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        resolve("kafka://a:1?sasl.password=geheim", &mut options).map(|()| options)
    }

    #[test]
    fn a_secret_comes_from_a_file_or_the_environment() {
        let folder = tempfile::tempdir().expect("make a folder");
        let file = folder.path().join("password");
        std::fs::write(&file, "geheim \n").expect("write");
        let file = file.to_str().expect("a path");
        let options = resolved(&[("sasl.password.file", file), ("sasl.username", "u")]).expect("resolve");
        assert_eq!(options.get("sasl.password").map(String::as_str), Some("geheim "));
        assert_eq!(options.len(), 2);
        let path = std::env::var("PATH").expect("a variable that is always there");
        let options = resolved(&[("ssl.key.password.env", "PATH")]).expect("resolve");
        assert_eq!(options.get("ssl.key.password"), Some(&path));
    }

    #[test]
    fn a_secret_that_is_not_there_is_named_and_none_is_shown() {
        for (options, reason) in [
            (&[("sasl.password.file", "/no/such/file")][..], "/no/such/file"),
            (&[("sasl.password.env", "SANSO_NO_SUCH")][..], "SANSO_NO_SUCH"),
            (&[("sasl.password.env", "PATH"), ("sasl.password.file", "x")][..], "not both"),
            (&[("sasl.password.env", "PATH"), ("sasl.password", "x")][..], "twice"),
        ] {
            let error = resolved(options).expect_err(reason).to_string();
            assert!(error.contains(reason) && !error.contains("geheim"), "{error}");
        }
    }

    #[test]
    fn an_address_is_shown_without_what_may_be_secret() {
        for (address, shown) in [
            ("kafka://a:1,b:2?sasl.password=x&acks=1", "kafka://a:1,b:2?…"),
            ("kafka://user:x@a:1/?acks=all", "kafka://…@a:1/?…"),
            ("embedded:/data/a@b", "embedded:/data/a@b"),
        ] {
            assert_eq!(without_secrets(address), shown);
        }
    }
}
