//! What errors of librdkafka mean to a caller of the log. Pure.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::secret::is_secret;
use crate::LogError;

/// Says that the topic or partition isn't there.
pub(super) fn is_unknown(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{UnknownPartition, UnknownTopic, UnknownTopicId, UnknownTopicOrPartition};
    matches!(
        error.rdkafka_error_code(),
        Some(UnknownTopicOrPartition | UnknownTopic | UnknownPartition | UnknownTopicId)
    )
}

/// Says that the partition gets another leader, or its first; soon it has one.
pub(super) fn is_moving(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{LeaderNotAvailable, NotLeaderForPartition};
    matches!(error.rdkafka_error_code(), Some(LeaderNotAvailable | NotLeaderForPartition))
}

/// Says that a position isn't in the log.
pub(super) fn is_out_of_range(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{AutoOffsetReset, OffsetOutOfRange};
    matches!(error.rdkafka_error_code(), Some(AutoOffsetReset | OffsetOutOfRange))
}

/// Makes an error for the caller: whether it passes by itself, or someone must act.
pub(super) fn explain(action: &'static str, error: &KafkaError) -> LogError {
    let reason = match error {
        KafkaError::ClientConfig(_, what, property, _) if is_secret(property) => {
            format!("{what}: {property}")
        }
        error if error.rdkafka_error_code() == Some(RDKafkaErrorCode::NotImplemented) => {
            format!("{error}: records may be compressed in a way that this build can't read")
        }
        other => other.to_string(),
    };
    match error.rdkafka_error_code() {
        Some(code) if must_act(code) => LogError::Refused { action, reason },
        None => LogError::Refused { action, reason },
        Some(_) => LogError::Unavailable { action, reason },
    }
}

/// Says that nothing of a message with this error is in the log.
pub(super) fn is_certainly_absent(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{InvalidMessageSize, MessageSizeTooLarge};
    let absent = |code| must_act(code) || matches!(code, MessageSizeTooLarge | InvalidMessageSize);
    error.rdkafka_error_code().is_some_and(absent) || is_unknown(error)
}

fn must_act(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode::{
        Authentication, ClusterAuthorizationFailed, Fatal, GroupAuthorizationFailed, InvalidArgument,
        InvalidConfig, InvalidReplicationFactor, InvalidTopic, NotImplemented, PolicyViolation,
        SaslAuthenticationFailed, TopicAuthorizationFailed, UnsupportedVersion,
    };
    matches!(
        code,
        Authentication
            | ClusterAuthorizationFailed
            | Fatal
            | GroupAuthorizationFailed
            | InvalidArgument
            | InvalidConfig
            | InvalidReplicationFactor
            | InvalidTopic
            // A compression that this build can't undo.
            | NotImplemented
            | PolicyViolation
            | SaslAuthenticationFailed
            | TopicAuthorizationFailed
            | UnsupportedVersion
    )
}
