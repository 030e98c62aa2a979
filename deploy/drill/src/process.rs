//! A process of a cluster: started, and harmed in every way that needs no privilege.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::fault::Act;

/// How long a process may take to end after it was asked to.
const PATIENCE: Duration = Duration::from_secs(30);

/// A process that can be started again and again. Killed when dropped, or when this program dies.
pub struct Process {
    name: String,
    log: PathBuf,
    command: Box<dyn Fn() -> Command + Send + Sync>,
    running: Option<Running>,
    /// What harms it from outside, for as long as it runs.
    harm: Option<Child>,
}

struct Running {
    child: Child,
    /// Kills the process when this program is gone.
    guardian: Child,
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Process").field("name", &self.name).field("pid", &self.pid()).finish_non_exhaustive()
    }
}

impl Process {
    /// Makes one that is not started yet. What it says is appended to the file `log`.
    pub fn new(
        name: impl Into<String>,
        log: impl Into<PathBuf>,
        command: impl Fn() -> Command + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), log: log.into(), command: Box::new(command), running: None, harm: None }
    }

    /// Returns the name in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns its number while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(|running| running.child.id())
    }

    /// Returns all that it said, from its first start on.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Returns the last lines that it said.
    pub fn last_words(&self) -> String {
        let text = self.said();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Fails when it should run and has ended by itself, with its last words.
    pub fn check(&mut self) -> anyhow::Result<()> {
        let Some(running) = &mut self.running else { return Ok(()) };
        if let Some(status) = running.child.try_wait()? {
            bail!("{} ended by itself ({status}):\n{}", self.name, self.last_words());
        }
        Ok(())
    }

    /// Does something to it that can be done to any process.
    pub fn act(&mut self, act: Act) -> anyhow::Result<()> {
        match act {
            Act::Kill => self.kill(),
            Act::Stop => self.stop(),
            Act::Start => self.start(),
            Act::Pause => self.pause(),
            Act::Resume => self.resume(),
            Act::Starve(percent) => self.starve(percent),
            Act::Feed => self.feed(),
            Act::SlowDisk(ms) => self.slow_disk(ms),
            Act::QuickDisk => self.quick_disk(),
            other => bail!("{other:?} can't be done to {} here", self.name),
        }
    }

    /// Starts it. Does not wait until it serves.
    pub fn start(&mut self) -> anyhow::Result<()> {
        ensure!(self.running.is_none(), "{} runs already", self.name);
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log = log.with_context(|| format!("open {}", self.log.display()))?;
        let child = (self.command)()
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", self.name))?;
        let guardian = guardian(child.id())?;
        self.running = Some(Running { child, guardian });
        Ok(())
    }

    /// Kills it as a power cut would (SIGKILL).
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.spare()?;
        let mut running = self.running.take().with_context(|| format!("{} does not run", self.name))?;
        running.child.kill().with_context(|| format!("kill {}", self.name))?;
        running.end()
    }

    /// Asks it to end (SIGTERM) and waits for it.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        self.spare()?;
        self.signal("TERM")?;
        let mut running = self.running.take().with_context(|| format!("{} does not run", self.name))?;
        let until = Instant::now() + PATIENCE;
        while running.child.try_wait()?.is_none() {
            if Instant::now() > until {
                running.child.kill()?;
                running.end()?;
                bail!("{} did not end within {PATIENCE:?} of SIGTERM:\n{}", self.name, self.last_words());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        running.end()
    }

    /// Freezes it (SIGSTOP).
    pub fn pause(&mut self) -> anyhow::Result<()> {
        self.signal("STOP")
    }

    /// Lets it go on (SIGCONT).
    pub fn resume(&mut self) -> anyhow::Result<()> {
        self.signal("CONT")
    }

    /// Leaves it `percent` of each 100 ms, as a quota of processor time does.
    pub fn starve(&mut self, percent: u32) -> anyhow::Result<()> {
        let pid = self.running_pid()?;
        let (stopped, runs) = (100 - percent.min(100), percent.min(100));
        // It ends by itself once the process is gone.
        let script = format!(
            "while kill -STOP {pid} 2>/dev/null; do sleep 0.{stopped:03}; kill -CONT {pid}; sleep 0.{runs:03}; done"
        );
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.harm = Some(shell.spawn().context("starve a process")?);
        Ok(())
    }

    /// Gives it all its time again.
    pub fn feed(&mut self) -> anyhow::Result<()> {
        self.spare()?;
        self.resume()
    }

    /// Makes each flush to disk take `ms` milliseconds longer.
    pub fn slow_disk(&mut self, ms: u32) -> anyhow::Result<()> {
        let pid = self.running_pid()?.to_string();
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qqq", "-o", "/dev/null", "-p", &pid, "-e", "trace=fsync,fdatasync"]);
        strace.arg("-e").arg(format!("inject=fsync,fdatasync:delay_enter={ms}ms"));
        let strace = strace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut tracer = strace.spawn().context("start strace, which slows a disk down")?;
        std::thread::sleep(Duration::from_millis(100));
        ensure!(tracer.try_wait()?.is_none(), "strace may not trace {} here", self.name);
        self.harm = Some(tracer);
        Ok(())
    }

    /// Makes flushes quick again.
    pub fn quick_disk(&mut self) -> anyhow::Result<()> {
        self.spare()
    }

    /// Ends what harms it from outside.
    fn spare(&mut self) -> anyhow::Result<()> {
        let Some(mut harm) = self.harm.take() else { return Ok(()) };
        // SIGTERM, so that a tracer lets go in order; it may have ended already.
        let _ = Command::new("kill").arg(harm.id().to_string()).stderr(Stdio::null()).status();
        harm.wait()?;
        Ok(())
    }

    fn running_pid(&self) -> anyhow::Result<u32> {
        self.pid().with_context(|| format!("{} does not run", self.name))
    }

    fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let pid = self.running_pid()?.to_string();
        let sent = Command::new("kill").args(["-s", signal, &pid]).status().context("run kill")?;
        ensure!(sent.success(), "{} did not get SIG{signal}", self.name);
        Ok(())
    }
}

impl Running {
    /// Waits for the end of the process and releases its guardian.
    fn end(&mut self) -> anyhow::Result<()> {
        self.child.wait()?;
        // A line releases the guardian; it would take the end of its input for this program's death.
        if let Some(mut input) = self.guardian.stdin.take() {
            let _ = input.write_all(b"released\n");
        }
        self.guardian.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.spare();
        if let Some(mut running) = self.running.take() {
            // It may have ended already; a frozen process is killed too.
            let _ = running.child.kill();
            let _ = running.end();
        }
    }
}

/// Starts a shell that kills a process when this program is gone.
fn guardian(pid: u32) -> anyhow::Result<Child> {
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"read -r line || kill -9 "$1""#, "guardian", &pid.to_string()]);
    // A Ctrl-C meets the whole group at once; the guardian must outlive it.
    std::os::unix::process::CommandExt::process_group(&mut shell, 0);
    let shell = shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    shell.spawn().context("start the guardian of a process")
}
