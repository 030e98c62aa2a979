//! The node's own bounds on the board of limits, and the alarm when one comes near.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use sanso_catalog::{Limit, LimitUse, Limits, Registered};
use sanso_log::Log;

/// A bound used so much in percent is told; again only after it was below the second.
const NEAR_PERCENT: u64 = 90;
const FAR_PERCENT: u64 = 75;
/// How often the bounds are looked at.
const LOOK: Duration = Duration::from_secs(5);

/// Registers what no layer owns: the log's memory and the process's.
pub(crate) fn register(limits: &Limits, log: &Arc<dyn Log>) -> Vec<Registered> {
    let mut registered = Vec::new();
    if log.memory().queue_bytes_max > 0 {
        let (queue, recent) = (Arc::clone(log), Arc::clone(log));
        let limit = |name, then| Limit { name, unit: "bytes", max: 0, setting: "", then };
        registered.push(limits.register_varying(
            limit("log.appends_waiting", "the append waits"),
            move || {
                let memory = queue.memory();
                (memory.queue_bytes, memory.queue_bytes_max)
            },
        ));
        let then = "the oldest records make room";
        registered.push(limits.register_varying(limit("log.recent_records", then), move || {
            let memory = recent.memory();
            (memory.recent_bytes, memory.recent_bytes_max)
        }));
    }
    if let (Some(max), Some(_)) = (memory_max(), resident()) {
        let then = "the system ends the process; lower the other bounds";
        let limit = Limit { name: "process.memory", unit: "bytes", max, setting: "", then };
        registered.push(limits.register(limit, || resident().unwrap_or(0)));
    }
    registered
}

/// Returns the memory of this process in bytes, where the system tells.
fn resident() -> Option<u64> {
    kilobytes(&fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

/// Returns how much memory there is for this process: its control group's or the machine's.
fn memory_max() -> Option<u64> {
    let group =
        fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
    let machine = kilobytes(&fs::read_to_string("/proc/meminfo").ok()?, "MemTotal:");
    group.into_iter().chain(machine).min()
}

fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Tells in the log when a bound comes near, until the node stops.
pub(crate) async fn watch(limits: Limits) {
    let mut alarm = Alarm::default();
    loop {
        tokio::time::sleep(LOOK).await;
        for limit in alarm.came_near(&limits.read()) {
            let (name, used, max, then) = (limit.name, limit.used, limit.max, limit.then);
            tracing::warn!(limit = name, used, max, unit = limit.unit, then, "a limit is nearly reached");
        }
    }
}

/// Remembers which bounds were near, so that each is told once.
#[derive(Debug, Default)]
struct Alarm(BTreeSet<&'static str>);

impl Alarm {
    fn came_near<'a>(&mut self, limits: &'a [LimitUse]) -> Vec<&'a LimitUse> {
        let far: Vec<_> = limits.iter().filter(|limit| limit.fullest_percent < FAR_PERCENT).collect();
        far.into_iter().for_each(|limit| {
            self.0.remove(limit.name);
        });
        // A cache that is full is at its best.
        let near = |limit: &&LimitUse| limit.fullest_percent >= NEAR_PERCENT && !is_cache(limit.name);
        limits.iter().filter(near).filter(|limit| self.0.insert(limit.name)).collect()
    }
}

fn is_cache(name: &str) -> bool {
    [
        "batch.blocks_disk",
        "batch.blocks_memory",
        "log.recent_records",
        "serving.views_cache",
        "speed.index_cache",
        "speed.index_writes",
    ]
    .contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(name: &'static str, percent: u64) -> LimitUse {
        LimitUse {
            name,
            unit: "bytes",
            used: percent,
            max: 100,
            parts: 1,
            fullest_percent: percent,
            setting: "",
            then: "",
        }
    }

    #[test]
    fn a_bound_is_told_once_when_it_comes_near_and_again_after_it_was_far() {
        let mut alarm = Alarm::default();
        let mut told = |percent| !alarm.came_near(&[at("views.groups", percent)]).is_empty();
        let told: Vec<bool> = [10, 89, 90, 100, 80, 95, 74, 91].map(&mut told).to_vec();
        assert_eq!(told, [false, false, true, false, false, false, false, true]);
    }

    #[test]
    fn a_full_cache_is_no_alarm() {
        assert_eq!(Alarm::default().came_near(&[at("speed.index_cache", 100)]), Vec::<&LimitUse>::new());
    }

    #[test]
    fn sizes_are_read_from_the_system_in_bytes() {
        let text = "VmPeak:\t  9 kB\nVmRSS:\t  1024 kB\n";
        assert_eq!(kilobytes(text, "VmRSS:"), Some(1 << 20));
        assert_eq!(kilobytes(text, "VmHWM:"), None);
    }
}
