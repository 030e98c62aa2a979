//! The client of a Confluent-compatible schema registry.
//!
//! A schema's id is for ever that schema's, so what is known of an id is never asked again while it
//! is kept. Which schema is a subject's latest is asked again after a short while; a registry that is
//! out of reach then stops nobody who has asked it before.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Deserialize;
use tokio::time::Instant;

use crate::{Format, Mismatch, RegistryError, Schema};

/// Longest wait for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Largest answer.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Schemas kept; the oldest goes first.
const SCHEMAS_MAX: usize = 1_024;
/// Requests for the references of one schema.
const REFERENCES_MAX: usize = 256;

type Result<T> = std::result::Result<T, RegistryError>;
/// A schema, or why the registered text is none of the format: decided once by the id.
type Compiled = Arc<std::result::Result<Schema, Mismatch>>;

/// Where the registry is and who asks. Never shown: it may hold a password.
#[derive(Clone)]
pub struct RegistryConfig {
    /// The address, such as `http://registry:8081`.
    pub url: String,
    /// User and password, for basic authentication.
    pub login: Option<(String, String)>,
    /// How long a subject's latest schema is taken for the latest.
    pub latest_max: Duration,
}

/// Asks one registry for schemas of one format. Clones share what is known.
#[derive(Clone)]
pub struct Registry(Arc<Shared>);

struct Shared {
    config: RegistryConfig,
    format: Format,
    http: reqwest::Client,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    schemas: BTreeMap<u32, Compiled>,
    order: VecDeque<u32>,
    latest: BTreeMap<String, (u32, Instant)>,
}

/// A schema as the registry answers it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Registered {
    id: Option<u32>,
    schema: String,
    schema_type: Option<String>,
    #[serde(default)]
    references: Vec<Reference>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
struct Reference {
    name: String,
    subject: String,
    version: u32,
}

impl Registry {
    /// Makes a client; contacts nobody yet.
    pub fn new(config: RegistryConfig, format: Format) -> Self {
        let http = reqwest::Client::builder().timeout(ANSWER_MAX).build().unwrap_or_default();
        Self(Arc::new(Shared { config, format, http, known: Mutex::default() }))
    }

    /// Returns the schema of an id.
    pub async fn schema(&self, id: u32) -> Result<Compiled> {
        if let Some(schema) = self.0.known.lock().schemas.get(&id) {
            return Ok(Arc::clone(schema));
        }
        let registered = self.get(&format!("schemas/ids/{id}")).await?;
        self.keep(id, registered).await
    }

    /// Returns a subject's latest schema and its id; while the registry is out of reach, what was its
    /// latest before.
    pub async fn latest(&self, subject: &str) -> Result<(u32, Compiled)> {
        let known = self.0.known.lock().latest.get(subject).copied();
        if let Some((id, asked)) = known
            && asked.elapsed() < self.0.config.latest_max
        {
            return Ok((id, self.schema(id).await?));
        }
        let path = format!("subjects/{}/versions/latest", encoded(subject));
        let registered = match (self.get(&path).await, known) {
            (Err(error @ RegistryError::Unreachable { .. }), Some((id, _))) => {
                tracing::warn!(%error, id, "write with the schema that was the latest");
                self.0.known.lock().latest.insert(subject.to_owned(), (id, Instant::now()));
                return Ok((id, self.schema(id).await?));
            }
            (registered, _) => registered?,
        };
        let id = registered.id.ok_or_else(|| self.refused(&path, 200, "the answer has no id"))?;
        let kept = self.0.known.lock().schemas.get(&id).cloned();
        let schema = match kept {
            Some(schema) => schema,
            None => self.keep(id, registered).await?,
        };
        self.0.known.lock().latest.insert(subject.to_owned(), (id, Instant::now()));
        Ok((id, schema))
    }

    async fn keep(&self, id: u32, registered: Registered) -> Result<Compiled> {
        let references = self.references(&registered).await?;
        let format = self.0.format;
        let found = registered.schema_type.as_deref().unwrap_or("AVRO");
        let schema = if found == format.to_string() {
            Schema::compile(format, &registered.schema, &references)
        } else {
            Err(Mismatch::new(format!("it is of type {found}, the source is declared {format}")))
        };
        let schema = Arc::new(schema);
        let mut known = self.0.known.lock();
        if known.schemas.insert(id, Arc::clone(&schema)).is_none() {
            known.order.push_back(id);
        }
        if known.order.len() > SCHEMAS_MAX
            && let Some(oldest) = known.order.pop_front()
        {
            known.schemas.remove(&oldest);
        }
        Ok(schema)
    }

    /// Fetches what a schema refers to, each after what it refers to itself.
    async fn references(&self, registered: &Registered) -> Result<Vec<(String, String)>> {
        let mut wanted: VecDeque<Reference> = registered.references.iter().cloned().collect();
        let mut found: Vec<(String, String)> = Vec::new();
        let mut asked = 0;
        while let Some(reference) = wanted.pop_front() {
            let path = format!("subjects/{}/versions/{}", encoded(&reference.subject), reference.version);
            asked += 1;
            if asked > REFERENCES_MAX {
                return Err(self.refused(&path, 200, "a schema refers to more than 256 others"));
            }
            let referred = self.get(&path).await?;
            // One that is referred to again moves behind, with all that it refers to.
            found.retain(|(name, _)| *name != reference.name);
            found.push((reference.name, referred.schema));
            wanted.extend(referred.references);
        }
        found.reverse();
        Ok(found)
    }

    async fn get(&self, path: &str) -> Result<Registered> {
        let url = self.url(path);
        let unreachable =
            |error: reqwest::Error| RegistryError::Unreachable { url: url.clone(), reason: causes(&error) };
        let mut request = self.0.http.get(&url).header("accept", "application/vnd.schemaregistry.v1+json");
        if let Some((user, password)) = &self.0.config.login {
            request = request.basic_auth(user, Some(password));
        }
        let mut response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(part) = response.chunk().await.map_err(unreachable)? {
            body.extend(part);
            if body.len() > ANSWER_BYTES_MAX {
                return Err(self.refused(path, status.as_u16(), "the answer is larger than 4 MiB"));
            }
        }
        match status.as_u16() {
            200 => serde_json::from_slice(&body).map_err(|error| self.refused(path, 200, &error.to_string())),
            404 => Err(RegistryError::Unknown { url }),
            status => Err(self.refused(path, status, &String::from_utf8_lossy(&body))),
        }
    }

    fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.0.config.url.trim_end_matches('/'))
    }

    fn refused(&self, path: &str, status: u16, reason: &str) -> RegistryError {
        RegistryError::Refused { url: self.url(path), status, reason: reason.chars().take(300).collect() }
    }
}

/// Writes a subject as a part of a path.
fn encoded(subject: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let byte = |byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    subject.bytes().map(byte).collect()
}

fn causes(error: &reqwest::Error) -> String {
    // The address stands in the message already.
    let mut text = match (error.is_timeout(), error.is_connect()) {
        (true, _) => "no answer in time".to_owned(),
        (_, true) => "no connection".to_owned(),
        _ => "the answer broke off".to_owned(),
    };
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
