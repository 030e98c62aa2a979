//! TLS and logins are passed through; passwords are never shown.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, Instant};

use sanso_broker::{PASSWORD, USER};
use sanso_log::{KafkaLog, Log, LogError, contract, open_with};
use tracing_subscriber::fmt::MakeWriter;

use super::{new_topic, run, shared};

/// Everything that was logged by this process.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no writer panics").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Logged {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Logged {
    /// Starts to note every line, of any level.
    fn start() -> Self {
        static START: Once = Once::new();
        static LOGGED: Mutex<Option<Logged>> = Mutex::new(None);
        START.call_once(|| {
            let logged = Self::default();
            let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE);
            subscriber.with_ansi(false).with_writer(logged.clone()).init();
            *LOGGED.lock().expect("nobody panics here") = Some(logged);
        });
        LOGGED.lock().expect("nobody panics here").clone().expect("it was started")
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("no writer panics")).into_owned()
    }
}

fn settings(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn ca() -> &'static str {
    shared().credentials().ca.to_str().expect("a path in UTF-8")
}

fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// Appends to a new topic and reads it back.
async fn works(case: &str, address: &str, settings: &BTreeMap<String, String>) {
    let log = open_with(address, settings).expect("make the clients");
    contract::records_come_back_as_they_were_appended(log.as_ref(), &new_topic(case)).await;
}

/// Longest until a client has told why it is refused: the first handshake takes its time.
const TOLD_WITHIN: Duration = Duration::from_secs(120);

/// Asks a log that can't be used until it says the reason.
async fn refusal(log: &KafkaLog, reason: &str) -> LogError {
    let end = Instant::now() + TOLD_WITHIN;
    loop {
        let error = log.partitions("any").await.expect_err("it lacks something");
        if error.to_string().contains(reason) {
            return error;
        }
        assert!(Instant::now() < end, "{reason:?} is not in {error}");
    }
}

#[test]
fn a_client_certificate_opens_the_log_and_nothing_less_does() {
    run("client-certificate", async {
        let address = format!("kafka://{}", shared().tls_servers());
        let made = shared().credentials();
        let [certificate, key] = [&made.certificate, &made.key].map(|p| p.to_str().expect("a path"));
        let trusting = [("security.protocol", "ssl"), ("ssl.ca.location", ca())];
        let own = [("ssl.certificate.location", certificate), ("ssl.key.location", key)];
        works("certificate", &address, &settings(&[trusting, own].concat())).await;
        for (lacks, reason) in
            [(&trusting[..], "certificate"), (&[trusting[0], own[0], own[1]][..], "verify")]
        {
            let lacking = settings(&[lacks, &[("socket.timeout.ms", "3000")]].concat());
            let log = KafkaLog::with_settings(&address, &lacking).expect("make the clients");
            let error = refusal(&log, reason).await;
            assert!(matches!(error, LogError::Unavailable { .. }), "{lacks:?}: {error:?}");
        }
    });
}

#[test]
fn a_login_by_scram_or_plain_opens_the_log() {
    run("logins", async {
        let folder = tempfile::tempdir().expect("make a folder");
        let file = folder.path().join("password");
        std::fs::write(&file, format!("{PASSWORD}\n")).expect("write");
        let file = file.to_str().expect("a path");
        let common = [("security.protocol", "sasl_ssl"), ("ssl.ca.location", ca()), ("sasl.username", USER)];
        let servers = shared().sasl_servers();
        let from_file = [("sasl.mechanism", "SCRAM-SHA-512"), ("sasl.password.file", file)];
        works("scram", &format!("kafka://{servers}"), &settings(&[&common[..], &from_file].concat())).await;
        let password = escaped(PASSWORD);
        let address = format!("kafka://{servers}?sasl.mechanism=PLAIN&sasl.password={password}");
        works("plain", &address, &settings(&common)).await;
    });
}

#[test]
fn a_wrong_password_is_a_clear_error_and_no_password_is_ever_shown() {
    run("wrong-password", async {
        let logged = Logged::start();
        let wrong = "wr0ng&geheim";
        let mut given = settings(&[
            ("security.protocol", "sasl_ssl"),
            ("ssl.ca.location", ca()),
            ("sasl.username", USER),
            ("sasl.mechanism", "SCRAM-SHA-512"),
            ("sasl.password", wrong),
            ("socket.timeout.ms", "3000"),
            // All that librdkafka can say.
            ("debug", "all"),
        ]);
        let address = format!("kafka://{}", shared().sasl_servers());
        let log = KafkaLog::with_settings(&address, &given).expect("make the clients");
        let error = refusal(&log, "uthentication failed").await;
        let mut shown = format!("{error} {error:?} {log:?}");
        given.insert("sasl.password".to_owned(), PASSWORD.to_owned());
        given.remove("socket.timeout.ms");
        works("right-password", &address, &given).await;
        for (address, settings) in [
            (format!("kafka://{USER}:{wrong}@127.0.0.1:1"), BTreeMap::new()),
            (format!("kafka://127.0.0.1:1?sasl.password={wrong}&acks=1"), BTreeMap::new()),
            (format!("kafkas://127.0.0.1:1?sasl.password={wrong}"), BTreeMap::new()),
            ("kafka://127.0.0.1:1?no.such=1".to_owned(), settings(&[("sasl.password", wrong)])),
        ] {
            let Err(error) = open_with(&address, &settings) else { panic!("{address} opens") };
            shown += &format!("{error} {error:?}");
        }
        let logged = logged.text();
        assert!(logged.contains("librdkafka"), "its lines are logged: {logged}");
        for secret in [wrong, PASSWORD, &escaped(PASSWORD)] {
            assert!(!shown.contains(secret), "{shown}");
            let line = logged.lines().find(|line| line.contains(secret));
            assert!(line.is_none(), "{line:?}");
        }
    });
}
