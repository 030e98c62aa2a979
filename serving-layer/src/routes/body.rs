//! What bodies have in common: what they may say of themselves, and how slow they may come.

use std::time::Duration;

use axum::http::{HeaderMap, StatusCode, header};

use crate::config::ServingConfig;
use crate::problem::Problem;

/// Media types a body may claim: JSON in its kinds, and those that clients
/// send when nobody told them. Another one says that the body is something else.
const MEDIA_TYPES: [&str; 8] = [
    "application/json",
    "application/jsonl",
    "application/ndjson",
    "application/octet-stream",
    "application/x-ndjson",
    "application/x-www-form-urlencoded",
    "text/json",
    "text/plain",
];

/// Refuses a body that says it is encoded, or something else than JSON. So
/// nothing is ever decompressed, and no small body becomes a large one.
pub(super) fn check_headers(headers: &HeaderMap) -> Result<(), Problem> {
    if let Some(encoding) = headers.get(header::CONTENT_ENCODING)
        && encoding != "identity"
    {
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "encoding", "The body is encoded")
            .detail("the body has a Content-Encoding")
            .hint("send it as it is"));
    }
    let Some(kind) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let kind = String::from_utf8_lossy(kind.as_bytes());
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if MEDIA_TYPES.iter().any(|known| essence.eq_ignore_ascii_case(known)) {
        return Ok(());
    }
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media-type", "The body is of another kind")
        .detail(format!("the body says it is '{}'", crate::params::shown(essence)))
        .hint("send JSON, as application/x-ndjson for readings and application/json for a query; sanso ingest reads other formats"))
}

/// How long the next part of a body may take: no longer than one pause, and
/// over all no longer than a slow line would need. Time in which the body was
/// not read counts for nobody.
#[derive(Debug)]
pub(super) struct Pace {
    stall_max: Duration,
    bytes_per_s_min: u64,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    pub(super) fn new(config: &ServingConfig) -> Self {
        Self {
            stall_max: Duration::from_millis(config.body_stall_ms_max),
            bytes_per_s_min: config.body_bytes_per_s_min.max(1),
            waited: Duration::ZERO,
            bytes: 0,
        }
    }

    /// Returns how long to wait for the next part at most.
    pub(super) fn patience(&self) -> Duration {
        let owed = Duration::from_millis(self.bytes.saturating_mul(1000) / self.bytes_per_s_min);
        (self.stall_max + owed).saturating_sub(self.waited).min(self.stall_max)
    }

    /// Notes a part and how long it took to come.
    pub(super) fn came(&mut self, bytes: usize, waited: Duration) {
        self.bytes += bytes as u64;
        self.waited += waited;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_drips_runs_out_of_patience_and_one_that_flows_does_not() {
        let config = ServingConfig {
            body_stall_ms_max: 30_000,
            body_bytes_per_s_min: 1_000,
            ..ServingConfig::default()
        };
        let second = Duration::from_secs(1);
        let mut drips = Pace::new(&config);
        for _ in 0..29 {
            drips.came(1, second);
            assert!(drips.patience() > Duration::ZERO);
        }
        (0..2).for_each(|_| drips.came(1, second));
        assert_eq!(drips.patience(), Duration::ZERO);
        let mut flows = Pace::new(&config);
        (0..1000).for_each(|_| flows.came(1_000, second));
        assert_eq!(flows.patience(), Duration::from_secs(30));
    }

    #[test]
    fn bodies_that_say_they_are_something_else_are_refused() {
        let check = |name, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, axum::http::HeaderValue::from_static(value));
            check_headers(&headers).map_err(|problem| problem.status().as_u16())
        };
        assert_eq!(check(header::CONTENT_TYPE, "Application/X-NDJSON; charset=utf-8"), Ok(()));
        assert_eq!(check(header::CONTENT_TYPE, "multipart/form-data; boundary=x"), Err(415));
        assert_eq!(check(header::CONTENT_TYPE, "text/csv"), Err(415));
        assert_eq!(check(header::CONTENT_ENCODING, "gzip"), Err(415));
        assert_eq!(check(header::CONTENT_ENCODING, "identity"), Ok(()));
        assert_eq!(check(header::ACCEPT, "*/*"), Ok(()));
    }
}
