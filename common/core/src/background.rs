//! Threads of work that nobody waits for.

use thread_priority::{ThreadPriority, set_current_thread_priority};

/// Of 100, where 50 is usual: a nice value of 9 on Linux. Lower still, and whoever waits for a lock that
/// such a thread holds would wait for long.
const PRIORITY: u8 = 25;

/// Lets other threads go first from now on where processors are short, for the rest of this thread's life.
pub fn run_in_background() {
    let lowered = PRIORITY.try_into().map(ThreadPriority::Crossplatform).map(set_current_thread_priority);
    if !matches!(lowered, Ok(Ok(()))) {
        tracing::debug!(?lowered, "a thread in the background runs like any other");
    }
}
