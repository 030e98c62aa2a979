//! Opens the dataset where the settings say: in a local folder, or in an S3-compatible object store.

use std::fmt;
use std::path::Path as DiskPath;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use object_store::aws::{AmazonS3, AmazonS3Builder, S3ConditionalPut};
use object_store::path::Path;
use object_store::{ClientOptions, Error, ObjectStore, PutMode, RetryConfig};
use serde::Deserialize;

use crate::dataset::{Dataset, is_bucket_missing, says};
use crate::error::{DatasetError, Result};

/// Where credentials lie when the environment names no file.
const CREDENTIALS_FILE: &str = ".aws/credentials";
/// The object that shows at a start whether conditions of writes are honoured.
const PROBE: &str = "conditional-write-probe";

/// Where the dataset is, and how patiently the object store is asked. Holds no secrets.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasetConfig {
    /// `s3://BUCKET[/PREFIX]` or a local folder; none for the folder of the caller's choice.
    pub url: Option<String>,
    /// The object store's address; none for what the environment says, else Amazon's of the region.
    pub endpoint: Option<String>,
    /// The region; none for what the environment says.
    pub region: Option<String>,
    /// Whether the endpoint may be `http://`, on a network that is trusted.
    pub allow_http: bool,
    /// How often a request that failed is repeated at most.
    pub retries_max: usize,
    /// How long after its beginning a request is repeated no longer, in milliseconds.
    pub retry_ms_max: u64,
    /// How long one try may take, in milliseconds.
    pub request_ms_max: u64,
    /// How long connecting may take, in milliseconds.
    pub connect_ms_max: u64,
}

/// Who asks an object store. Never shown.
#[derive(Clone)]
pub enum Credentials {
    /// The standard ones: the environment (`AWS_ACCESS_KEY_ID`, a web identity, a container's), the
    /// file of shared credentials, the machine's own.
    Standard,
    /// A key and its secret.
    Key {
        /// The key's id.
        id: String,
        /// Its secret.
        secret: String,
        /// The token of a session.
        token: Option<String>,
    },
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Standard => "Standard",
            Self::Key { .. } => "Key(not shown)",
        })
    }
}

/// What `s3://…` stands for.
struct Place {
    bucket: String,
    endpoint: String,
    prefix: Path,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bucket {} at {}", self.bucket, self.endpoint)
    }
}

impl Dataset {
    /// Opens (or begins) the dataset that the settings name; `folder` where they name none.
    ///
    /// An object store is asked at once whether it can be used: an error names the bucket and the
    /// endpoint and says what to do.
    pub async fn open(config: &DatasetConfig, folder: &DiskPath, credentials: Credentials) -> Result<Self> {
        let Some(url) = &config.url else { return Self::open_local(folder) };
        if !url.contains("://") {
            return Self::open_local(DiskPath::new(url));
        }
        let place = place(url, config)?;
        let store = Arc::new(connect(&place, url, config, credentials)?);
        check(&place, store.as_ref()).await?;
        Ok(Self::with_store(store, place.prefix))
    }
}

fn place(url: &str, config: &DatasetConfig) -> Result<Place> {
    let wrong = |what: &str| DatasetError::Address { url: url.to_owned(), what: what.to_owned() };
    let Some(rest) = url.strip_prefix("s3://") else {
        return Err(wrong("it is a folder or s3://BUCKET[/PREFIX]"));
    };
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() || rest.contains(['?', '#', '@']) {
        return Err(wrong(
            "write s3://BUCKET[/PREFIX]; the endpoint stands in the settings, credentials in the environment",
        ));
    }
    let variable = |name| std::env::var(name).ok();
    let endpoint = variable("AWS_ENDPOINT_URL_S3")
        .or_else(|| config.endpoint.clone())
        .or_else(|| variable("AWS_ENDPOINT_URL"));
    if endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://")) && !config.allow_http {
        return Err(wrong("its endpoint is not encrypted: set allow_http = true if the network is trusted"));
    }
    let prefix = Path::parse(prefix).map_err(|error| wrong(&format!("its prefix is no path: {error}")))?;
    let endpoint = endpoint.unwrap_or_else(|| "Amazon S3".to_owned());
    Ok(Place { bucket: bucket.to_owned(), endpoint, prefix })
}

fn connect(place: &Place, url: &str, config: &DatasetConfig, credentials: Credentials) -> Result<AmazonS3> {
    let client = ClientOptions::new()
        .with_allow_http(config.allow_http)
        .with_timeout(Duration::from_millis(config.request_ms_max))
        .with_connect_timeout(Duration::from_millis(config.connect_ms_max));
    let retry = RetryConfig {
        max_retries: config.retries_max,
        retry_timeout: Duration::from_millis(config.retry_ms_max),
        ..RetryConfig::default()
    };
    let mut builder = match &credentials {
        Credentials::Standard => AmazonS3Builder::from_env(),
        Credentials::Key { .. } => AmazonS3Builder::new(),
    };
    builder = builder
        .with_bucket_name(&place.bucket)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_client_options(client)
        .with_retry(retry);
    if let Some(endpoint) = &config.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(region) = &config.region {
        builder = builder.with_region(region);
    }
    let key = match credentials {
        Credentials::Standard => from_file(url)?,
        key => Some(key),
    };
    if let Some(Credentials::Key { id, secret, token }) = key {
        builder = builder.with_access_key_id(id).with_secret_access_key(secret);
        if let Some(token) = token {
            builder = builder.with_token(token);
        }
    }
    builder.build().map_err(|error| DatasetError::Address { url: url.to_owned(), what: error.to_string() })
}

/// Takes the credentials from the shared file, unless the environment has some.
fn from_file(url: &str) -> Result<Option<Credentials>> {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let others = [
        "AWS_ACCESS_KEY_ID",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    ];
    if others.into_iter().any(|name| set(name).is_some()) {
        return Ok(None);
    }
    let default = || set("HOME").map(|home| format!("{home}/{CREDENTIALS_FILE}"));
    let Some(file) = set("AWS_SHARED_CREDENTIALS_FILE").or_else(default) else { return Ok(None) };
    let profile = set("AWS_PROFILE");
    let wrong = |what: String| DatasetError::Address { url: url.to_owned(), what };
    let text = match std::fs::read_to_string(&file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && profile.is_none() => return Ok(None),
        Err(error) => return Err(wrong(format!("read the credentials in {file}: {error}"))),
        Ok(text) => text,
    };
    let found = profile_of(&text, profile.as_deref().unwrap_or("default"));
    match (found, profile) {
        (None, Some(profile)) => Err(wrong(format!("{file} has no key and secret for profile {profile}"))),
        (found, _) => Ok(found),
    }
}

/// Reads one profile of a file of shared credentials.
fn profile_of(text: &str, profile: &str) -> Option<Credentials> {
    let (mut within, mut id, mut secret, mut token) = (false, None, None, None);
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            within = name.trim() == profile;
        } else if let Some((name, value)) = line.split_once('=').filter(|_| within) {
            let value = Some(value.trim().to_owned());
            match name.trim() {
                "aws_access_key_id" => id = value,
                "aws_secret_access_key" => secret = value,
                "aws_session_token" => token = value,
                _ => {}
            }
        }
    }
    Some(Credentials::Key { id: id?, secret: secret?, token })
}

/// Finds out whether the bucket is there, may be listed and written, and honours conditions.
async fn check(place: &Place, store: &dyn ObjectStore) -> Result<()> {
    let refused = |source: Error| {
        let what = match &source {
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => NO_ACCESS,
            Error::NotFound { .. } => NO_BUCKET,
            error if is_bucket_missing(error) => NO_BUCKET,
            // What a listing fails of is not told apart by the library.
            error if says(error, "403 Forbidden") || says(error, "401 Unauthorized") => NO_ACCESS,
            _ => "it gives no answer; check the endpoint, the region and the network",
        };
        DatasetError::Bucket { place: place.to_string(), what, source }
    };
    if let Some(Err(error)) = store.list(Some(&place.prefix)).next().await {
        return Err(refused(error));
    }
    let path = place.prefix.clone().join(PROBE);
    for _ in 0..2 {
        let options = PutMode::Create.into();
        match store.put_opts(&path, Bytes::from_static(b"sanso").into(), options).await {
            Ok(_) => {}
            Err(Error::AlreadyExists { .. }) => return Ok(()),
            Err(error) => return Err(refused(error)),
        }
    }
    Err(DatasetError::Unconditional { place: place.to_string() })
}

const NO_ACCESS: &str = "access is denied; check the credentials (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the profile in the credentials file) and what the bucket allows them";
const NO_BUCKET: &str = "there is no such bucket; create it, or correct the dataset's address";

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# comment\n[default]\naws_access_key_id = one\n\n[ other ]\naws_secret_access_key=s=3\naws_access_key_id = two\naws_session_token = t\n";

    #[test]
    fn a_profile_is_read_from_the_shared_credentials() {
        let Some(Credentials::Key { id, secret, token }) = profile_of(FILE, "other") else {
            panic!("the profile is there")
        };
        assert_eq!((id.as_str(), secret.as_str(), token.as_deref()), ("two", "s=3", Some("t")));
        assert!(profile_of(FILE, "default").is_none(), "it has no secret");
        assert!(profile_of(FILE, "third").is_none());
    }

    #[test]
    fn credentials_are_never_shown() {
        assert!(!format!("{:?}", profile_of(FILE, "other")).contains("s=3"));
    }

    #[test]
    fn an_address_is_refused_with_what_to_write_instead() {
        let config = |endpoint: Option<&str>| DatasetConfig {
            url: None,
            endpoint: endpoint.map(str::to_owned),
            region: None,
            allow_http: false,
            retries_max: 0,
            retry_ms_max: 0,
            request_ms_max: 1,
            connect_ms_max: 1,
        };
        for url in ["gs://bucket", "s3://", "s3:///prefix", "s3://key:secret@bucket", "s3://bucket/a//b"] {
            assert!(place(url, &config(None)).is_err(), "{url}");
        }
        assert!(place("s3://bucket", &config(Some("http://127.0.0.1"))).is_err());
        let found = place("s3://bucket/a/b/", &config(Some("https://store"))).expect("an address");
        assert_eq!((found.bucket.as_str(), found.prefix.as_ref()), ("bucket", "a/b"));
    }
}
