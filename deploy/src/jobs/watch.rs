//! Follows the jobs: a bar for each on a terminal, a line for each change elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::{Answer, Format, Job, read};
use crate::http::Client;
use crate::table::{self, span};
use crate::telemetry;

/// How often the node is asked.
const INTERVAL: Duration = Duration::from_millis(500);

/// Watches until interrupted; a node that ceases to answer is asked again.
pub(super) async fn run(client: &Client, format: Format) -> anyhow::Result<ExitCode> {
    let mut screen = Screen::new();
    let mut is_first = true;
    let watch = async {
        loop {
            match client.get(&["v1", "jobs"]).await {
                Ok(answer) if format == Format::Json => table::print(&format!("{answer}\n"))?,
                Ok(answer) => screen.show(&read(answer)?)?,
                Err(error) if error.is_transient() && !is_first => screen.silent(&error.to_string()),
                Err(error) => return Err(error.into()),
            }
            is_first = false;
            tokio::time::sleep(INTERVAL).await;
        }
    };
    let ended: anyhow::Result<ExitCode> = tokio::select! {
        ended = watch => ended,
        _ = tokio::signal::ctrl_c() => Ok(ExitCode::from(130)),
    };
    screen.clear();
    ended
}

/// A job as it is told from others.
type JobKey = (String, String, u64, Option<u16>);

fn key(job: &Job) -> JobKey {
    (job.source.clone(), job.kind.clone(), job.version, job.driver)
}

/// What was told, to tell only what is new.
#[derive(Default)]
struct Told {
    /// None before the first look: what ended before that is nothing new.
    ended: Option<BTreeSet<(JobKey, Option<String>)>>,
    lines: BTreeMap<JobKey, (u64, u64, u64)>,
}

impl Told {
    /// Returns a line for each job that has ended since the look before, the oldest first.
    fn ended(&mut self, answer: &Answer) -> Vec<String> {
        let all: BTreeSet<_> = answer.ended.iter().map(|job| (key(job), job.ended.clone())).collect();
        let before = self.ended.replace(all);
        let Some(before) = before else { return Vec::new() };
        let new = answer.ended.iter().rev().filter(|job| !before.contains(&(key(job), job.ended.clone())));
        new.map(|job| {
            let what = job.error.clone().unwrap_or_else(|| job.troubles());
            let what = if what.is_empty() { what } else { format!(": {what}") };
            format!("{}: {}, {} tasks in {}{what}", job.name(), job.outcome, job.tasks, span(job.elapsed_ms))
        })
        .collect()
    }

    /// Returns a line for each job whose tasks are others than at the look before.
    fn changed(&mut self, answer: &Answer) -> Vec<String> {
        let counts = |job: &Job| (key(job), (job.done, job.running, job.waiting));
        let before = std::mem::replace(&mut self.lines, answer.running.iter().map(counts).collect());
        let is_new = |job: &&Job| before.get(&key(job)) != self.lines.get(&key(job));
        let line =
            |job: &Job| format!("{}: {} of {} tasks done, {}", job.name(), job.done, job.tasks, state(job));
        answer.running.iter().filter(is_new).map(line).collect()
    }
}

/// Says how a job is, but for how many tasks are done.
fn state(job: &Job) -> String {
    let mut nodes: Vec<u16> = job.runs.iter().map(|run| run.node).collect();
    nodes.dedup();
    let at = match job.driver {
        Some(_) if !nodes.is_empty() => {
            let nodes: Vec<String> = nodes.iter().map(u16::to_string).collect();
            format!(" at {}", nodes.join(" "))
        }
        _ => String::new(),
    };
    let mut state = format!("{} running{at}, {} waiting", job.running, job.waiting);
    let troubles = job.troubles();
    if !troubles.is_empty() {
        state.push_str(&format!(", {troubles}"));
    }
    match job.remaining_ms {
        Some(left_ms) => state.push_str(&format!("; {}, about {} left", span(job.elapsed_ms), span(left_ms))),
        None => state.push_str(&format!("; {}", span(job.elapsed_ms))),
    }
    state
}

/// Where it is told.
struct Screen {
    told: Told,
    /// On a terminal.
    bars: Option<MultiProgress>,
    jobs: BTreeMap<JobKey, ProgressBar>,
    /// Says what there is to say beside jobs.
    note: Option<ProgressBar>,
    is_silent: bool,
}

impl Screen {
    fn new() -> Self {
        let bars = std::io::stderr().is_terminal().then(MultiProgress::new);
        let note = bars.as_ref().map(|bars| bars.add(ProgressBar::new_spinner()));
        if let Some(note) = &note {
            note.set_style(style("{spinner} {msg}"));
            note.enable_steady_tick(Duration::from_millis(120));
        }
        Self { told: Told::default(), bars, jobs: BTreeMap::new(), note, is_silent: false }
    }

    fn show(&mut self, answer: &Answer) -> anyhow::Result<()> {
        self.is_silent = false;
        let mut lines = self.told.ended(answer);
        if self.bars.is_none() {
            lines.extend(self.told.changed(answer));
        }
        self.print(&lines)?;
        let (Some(bars), Some(note)) = (&self.bars, &self.note) else { return Ok(()) };
        let gone: Vec<JobKey> = self
            .jobs
            .keys()
            .filter(|known| !answer.running.iter().any(|job| key(job) == **known))
            .cloned()
            .collect();
        for gone in gone {
            if let Some(bar) = self.jobs.remove(&gone) {
                bar.finish_and_clear();
                bars.remove(&bar);
            }
        }
        for job in &answer.running {
            let bar = self.jobs.entry(key(job)).or_insert_with(|| {
                let bar = bars.insert_before(note, ProgressBar::new(job.tasks));
                bar.set_style(style("{prefix} [{bar:30}] {pos} of {len}, {msg}").progress_chars("━╸ "));
                bar.set_prefix(job.name());
                bar
            });
            bar.set_length(job.tasks);
            bar.set_position(job.done);
            bar.set_message(state(job));
        }
        let missing: Vec<String> = answer.unanswered.iter().map(|of| of.node.to_string()).collect();
        note.set_message(match (missing.is_empty(), answer.running.is_empty()) {
            (false, _) => format!("node {} does not answer", missing.join(", ")),
            (true, true) => "nothing to do".to_owned(),
            (true, false) => String::new(),
        });
        Ok(())
    }

    /// Says that the node does not answer.
    fn silent(&mut self, error: &str) {
        match &self.note {
            Some(note) => note.set_message(error.to_owned()),
            None if !self.is_silent => telemetry::say(error),
            None => {}
        }
        self.is_silent = true;
    }

    fn print(&self, lines: &[String]) -> anyhow::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let text = lines.join("\n") + "\n";
        match &self.bars {
            Some(bars) => bars.suspend(|| table::print(&text)),
            None => table::print(&text),
        }
    }

    fn clear(&self) {
        // A terminal that is gone needs no clearing.
        let _ = self.bars.as_ref().map(MultiProgress::clear);
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::tests::{answer, ended, job};
    use super::*;

    fn told(told: &mut Told, running: &[Value], ended: &[Value]) -> Vec<String> {
        let answer = read(answer(running, ended)).expect("an answer");
        [told.ended(&answer), told.changed(&answer)].concat()
    }

    #[test]
    fn only_what_is_new_is_told_the_oldest_first() {
        let mut seen = Told::default();
        let (old, failed, done) =
            (ended(1, "done", None), ended(2, "failed", Some("full")), ended(3, "done", None));
        let first = told(&mut seen, &[job(4)], std::slice::from_ref(&old));
        let running = "readings, version 4: 3 of 6 tasks done, 2 running at 1, 1 waiting, 1 done before, 1 lost; \
                       1 min 30 s, about 1.2 s left";
        assert_eq!(first, [running], "what had ended before is nothing new");
        let mut older = job(4);
        older["elapsed_ms"] = 95_000.into();
        assert_eq!(told(&mut seen, &[older], std::slice::from_ref(&old)), [""; 0], "time alone is no news");
        let new = told(&mut seen, &[], &[done, failed, old]);
        assert_eq!(
            new,
            [
                "readings, version 2: failed, 6 tasks in 1 min 30 s: full",
                "readings, version 3: done, 6 tasks in 1 min 30 s: 1 done before, 1 lost",
            ]
        );
    }
}
