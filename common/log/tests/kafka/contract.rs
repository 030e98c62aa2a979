//! The contract that every log keeps.

use sanso_log::Log;

fn on_the_broker(case: &str, run_case: impl AsyncFnOnce(&dyn Log, &str)) {
    super::on_shared(case, async |log, topic: &str| run_case(&log, topic).await);
}

sanso_log::log_contract!(on_the_broker);
