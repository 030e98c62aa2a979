//! What librdkafka calls back: its log lines, and the fate of each message.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::ProducerContext;
use tokio::sync::oneshot;

/// Passes log lines on and gathers delivery reports.
#[derive(Debug, Default)]
pub(super) struct Context {
    /// Why brokers could not be spoken to, last: calls that fail by it only say that none is there.
    trouble: Mutex<Option<Trouble>>,
}

#[derive(Debug)]
struct Trouble {
    /// Whether TLS or the login failed, which no later lost connection explains better.
    refused: bool,
    reason: String,
}

impl Context {
    /// Takes what was last said of brokers that could not be spoken to.
    pub(super) fn take_trouble(&self) -> Option<String> {
        self.trouble.lock().take().map(|trouble| trouble.reason)
    }

    fn note(&self, code: RDKafkaErrorCode, reason: &str) {
        let refused = matches!(code, RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SSL);
        let mut trouble = self.trouble.lock();
        if refused || !trouble.as_ref().is_some_and(|known| known.refused) {
            *trouble = Some(Trouble { refused, reason: reason.to_owned() });
        }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        use RDKafkaLogLevel::{Alert, Critical, Debug, Emerg, Error, Info, Notice, Warning};
        match level {
            // Lost connections come as errors; the callers get their own, so a person needn't act.
            Emerg | Alert | Critical | Error | Warning => {
                tracing::warn!(target: "librdkafka", facility, "{message}");
            }
            Notice | Info => tracing::info!(target: "librdkafka", facility, "{message}"),
            Debug => tracing::debug!(target: "librdkafka", facility, "{message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            // Told at each end of a partition; the reader is told too, by its own message.
            Some(RDKafkaErrorCode::PartitionEOF) => return,
            // Follows the reasons of each.
            Some(RDKafkaErrorCode::AllBrokersDown) | None => {}
            Some(code) => self.note(code, reason),
        }
        tracing::warn!(target: "librdkafka", %error, "{reason}");
    }
}

impl ConsumerContext for Context {}

impl ProducerContext for Context {
    type DeliveryOpaque = Arc<Deliveries>;

    fn delivery(&self, result: &DeliveryResult<'_>, deliveries: Arc<Deliveries>) {
        deliveries.note(match result {
            Ok(message) => Ok(message.offset()),
            Err((error, _)) => Err(error.clone()),
        });
    }
}

/// The fate of the messages of one batch.
#[derive(Debug)]
pub(super) struct Deliveries {
    outstanding: AtomicUsize,
    fate: Mutex<Fate>,
    done: Mutex<Option<oneshot::Sender<Fate>>>,
}

/// What became of a batch.
#[derive(Debug, Default)]
pub(super) struct Fate {
    pub(super) offsets: Vec<i64>,
    pub(super) errors: Vec<KafkaError>,
}

impl Deliveries {
    /// Expects `messages` reports, and tells the receiver once they are there.
    pub(super) fn expect(messages: usize) -> (Arc<Self>, oneshot::Receiver<Fate>) {
        let (done, fate) = oneshot::channel();
        let deliveries = Self {
            outstanding: AtomicUsize::new(messages),
            fate: Mutex::default(),
            done: Mutex::new(Some(done)),
        };
        (Arc::new(deliveries), fate)
    }

    /// Notes the report of one message.
    pub(super) fn note(&self, result: Result<i64, KafkaError>) {
        {
            let mut fate = self.fate.lock();
            match result {
                Ok(offset) => fate.offsets.push(offset),
                Err(error) => fate.errors.push(error),
            }
        }
        if self.outstanding.fetch_sub(1, Ordering::AcqRel) == 1
            && let Some(done) = self.done.lock().take()
        {
            // A caller that went away left it open whether its batch was appended.
            let _ = done.send(std::mem::take(&mut self.fate.lock()));
        }
    }
}
