//! Runs one drill: load, fault, audit, judgement.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use futures::future::try_join_all;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::client::{Client, Patience};
use crate::fault::{self, Act, Fault, Pick, Step};
use crate::history::{History, Mark, Operation, Request};
use crate::judge::{Judgement, judge};
use crate::load::{self, Load};
use crate::oracle::Audit;
use crate::target::{Connection, Target};
use crate::{picture, report, verdict};

/// How a drill is run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The load.
    pub load: Load,
    /// How long clients wait.
    pub patience: Patience,
    /// How long the load runs before the fault begins.
    pub before: Duration,
    /// How long a fault holds.
    pub hold: Duration,
    /// How long the load goes on after all nodes are well again.
    pub after: Duration,
    /// Readings that are there when the load begins; more where the fault asks for more.
    pub preload: u32,
    /// Shows progress on the terminal.
    pub progress: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            load: Load::default(),
            patience: Patience::default(),
            before: Duration::from_secs(5),
            hold: Duration::from_secs(5),
            after: Duration::from_secs(5),
            preload: 0,
            progress: true,
        }
    }
}

/// What came of a drill.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The cluster.
    pub target: String,
    /// The fault's name.
    pub fault: String,
    /// The promises that were broken, for people; empty when all were kept.
    pub broken: Vec<String>,
    /// What the judge found.
    pub judgement: Judgement,
    /// When what was wrong.
    pub marks: Vec<Mark>,
    /// Everything that happened.
    #[serde(skip)]
    pub history: History,
    /// What each node said, by its name.
    #[serde(skip)]
    pub logs: Vec<(String, String)>,
}

impl Outcome {
    /// Writes `NAME.json`, `NAME.csv` (one line an operation), and `NAME.svg` into a folder,
    /// and when a promise was broken, what each node said; returns the picture's path.
    pub fn write(&self, folder: &Path, name: &str) -> anyhow::Result<PathBuf> {
        std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        let write = |extension: &str, bytes: &[u8]| {
            let path = folder.join(format!("{name}.{extension}"));
            std::fs::write(&path, bytes).with_context(|| format!("write {}", path.display()))?;
            anyhow::Ok(path)
        };
        write("json", &serde_json::to_vec_pretty(self)?)?;
        if !self.broken.is_empty() {
            for (node, said) in &self.logs {
                write(&format!("{}.log", node.replace(' ', "-")), said.as_bytes())?;
            }
        }
        write("csv", report::operations(&self.history).as_bytes())?;
        let svg = picture::svg(&self.history, &format!("{}: {}", self.target, self.fault));
        write("svg", svg.as_bytes())
    }
}

/// Runs a fault on a cluster that is well, under load, and judges what its clients saw.
///
/// Ends when all is over and audited. Fails when the drill can't begin. A broken promise is no failure
/// but in the outcome; so is a cluster that does not become well again, or can't be read back. What it does to processes blocks:
/// call it from a thread that drives no other task, as `block_on` does.
pub async fn run(target: &mut dyn Target, fault: &Fault, settings: &Settings) -> anyhow::Result<Outcome> {
    target.well().await.context("before the drill")?;
    let preload = settings.preload.max(fault.preload_min);
    if preload > 0 {
        target.flood(preload).await.context("put readings in before the drill")?;
        target.settle().await.context("wait for the readings put in before the drill")?;
        target.well().await.context("with readings in it")?;
    }
    let mut clients = connect(target, settings).await?;
    let began = Instant::now();
    clients.iter_mut().for_each(|client| client.begin(began));
    let cancel = CancellationToken::new();
    let answers = target.answers();
    let clients = clients.into_iter().map(Arc::new).collect();
    let running = tokio::spawn(load::run(settings.load, clients, answers, began, cancel.clone()));
    let bar = progress(settings, fault);
    let ticking = tokio::spawn(tick(bar.clone()));
    tokio::time::sleep(settings.before).await;
    let inflicted = Inflict {
        target,
        settings,
        began,
        bar: &bar,
        picked: BTreeMap::new(),
        healed: BTreeSet::new(),
        open: Vec::new(),
    }
    .run(fault)
    .await;
    if inflicted.1.is_ok() {
        bar.set_message("after the fault");
        tokio::time::sleep(settings.after).await;
    }
    cancel.cancel();
    ticking.abort();
    bar.set_message("waiting for the last answers");
    let operations = running.await.context("run the load")?;
    let ended_us = operations.iter().map(Operation::ended_us).max().unwrap_or_default();
    ensure!(ended_us > 0, "the load did nothing");
    let (marks, inflicted) = inflicted;
    let history = History { operations, marks, ended_us };
    bar.set_message("comparing with what was sent");
    let audit = match inflicted {
        Ok(()) => read_back(target, settings).await,
        Err(error) => Err(error),
    };
    bar.finish_and_clear();
    let judgement = judge(&history, audit.as_ref().ok());
    let mut broken = verdict::broken(&judgement, fault.bounds, settings.patience.attempt.as_secs_f64() * 1e3);
    broken.extend(audit.err().map(|error| format!("{error:#}")));
    let logs = target.nodes().into_iter().zip(target.said()).collect();
    let (target, fault, marks) = (target.name(), fault.name.to_owned(), history.marks.clone());
    Ok(Outcome { target, fault, broken, judgement, marks, history, logs })
}

/// Reads everything back from a cluster that is well.
async fn read_back(target: &mut dyn Target, settings: &Settings) -> anyhow::Result<Audit> {
    target.well().await.context("after the drill")?;
    target.audit(settings.load.keys()).await.context("read everything back")
}

/// Opens all clients' sessions and asks each node something, so that no connection is made for the
/// first time when it is measured.
async fn connect(target: &mut dyn Target, settings: &Settings) -> anyhow::Result<Vec<Client>> {
    let mut clients = Vec::new();
    let contacts = target.contacts();
    for number in 0..settings.load.clients() {
        let connection = target.connect().await.context("connect a client")?;
        let nodes: Vec<Option<usize>> =
            contacts.map_or(vec![None], |contacts| (0..contacts).map(Some).collect());
        let patience = settings.patience.operation;
        let asked = nodes.into_iter().map(|node| first_answer(connection.as_ref(), node, patience));
        try_join_all(asked).await.context("ask a first question")?;
        clients.push(Client::new(number, connection, contacts, settings.patience));
    }
    Ok(clients)
}

/// Asks a node something until it answers, for as long as a client goes on asking.
async fn first_answer(
    connection: &dyn Connection,
    node: Option<usize>,
    patience: Duration,
) -> anyhow::Result<()> {
    let until = Instant::now() + patience;
    while let Err(error) = connection.attempt(node, Request::Point { key: 0 }).await {
        ensure!(Instant::now() < until, "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Inflicts a fault, step by step.
struct Inflict<'a> {
    target: &'a mut dyn Target,
    settings: &'a Settings,
    began: Instant,
    bar: &'a ProgressBar,
    picked: BTreeMap<Pick, BTreeSet<usize>>,
    /// What was undone.
    healed: BTreeSet<Pick>,
    /// What was done and is not yet over.
    open: Vec<(Pick, Mark)>,
}

impl Inflict<'_> {
    /// Returns what was wrong when, and whether all could be done. What was done to a node is over when
    /// it was undone and all are well.
    async fn run(mut self, fault: &Fault) -> (Vec<Mark>, anyhow::Result<()>) {
        let mut marks = Vec::new();
        let mut done = Ok(());
        for step in &fault.steps {
            done = self.step(*step, &mut marks).await;
            if done.is_err() {
                break;
            }
        }
        let now = self.now_us();
        marks.extend(self.open.drain(..).map(|(_, mark)| Mark { to_us: now, ..mark }));
        (marks, done)
    }

    async fn step(&mut self, step: Step, marks: &mut Vec<Mark>) -> anyhow::Result<()> {
        match step {
            Step::Hold(times) => tokio::time::sleep(self.settings.hold * times).await,
            Step::Do(act, pick) => {
                self.perform(act, pick).await?;
                if !act.harms() {
                    self.healed.insert(pick);
                }
            }
            Step::Well => {
                self.target.well().await.context("wait until all nodes are well")?;
                let now = self.now_us();
                let (over, open): (Vec<_>, Vec<_>) =
                    self.open.drain(..).partition(|(pick, _)| self.healed.contains(pick));
                self.open = open;
                marks.extend(over.into_iter().map(|(_, mark)| Mark { to_us: now, ..mark }));
            }
        }
        Ok(())
    }

    async fn perform(&mut self, act: Act, pick: Pick) -> anyhow::Result<()> {
        let nodes = match self.picked.get(&pick) {
            Some(nodes) => nodes.clone(),
            None => self.target.pick(pick).await?,
        };
        self.picked.insert(pick, nodes.clone());
        let all = self.target.nodes();
        let names: Vec<&str> = nodes.iter().map(|node| all[*node].as_str()).collect();
        let what = match pick {
            Pick::Broker => format!("{act}: a broker"),
            Pick::Nobody => act.to_string(),
            _ => format!("{act}: {}", names.join(", ")),
        };
        self.bar.set_message(what.clone());
        if act.harms() {
            let from_us = self.now_us();
            self.open.push((pick, Mark { what, nodes: nodes.clone(), from_us, to_us: from_us }));
        }
        if pick == Pick::Broker {
            self.target.act_on_broker(act).await.with_context(|| format!("{act:?} of a broker"))?;
        }
        match act {
            Act::Flood(readings) => self.target.flood(readings).await.context("send many readings")?,
            Act::Settle => self.target.settle().await.context("wait for many readings")?,
            Act::DeclareViews(views) => self.target.declare_views(views).await.context("declare views")?,
            Act::AwaitViews(views) => self.target.await_views(views).await.context("wait for the views")?,
            _ => {}
        }
        for node in nodes {
            self.target.act(node, act).await.with_context(|| format!("{act:?} of node {node}"))?;
        }
        Ok(())
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

fn progress(settings: &Settings, fault: &Fault) -> ProgressBar {
    if !settings.progress {
        return ProgressBar::hidden();
    }
    let whole = settings.before + fault::duration(fault, settings.hold) + settings.after;
    let bar = ProgressBar::new(whole.as_millis() as u64);
    let template = format!("  {:<10} {{bar:30}} {{elapsed}} {{msg}}", fault.name);
    bar.set_style(ProgressStyle::with_template(&template).expect("a valid template"));
    bar.set_message("before the fault");
    bar
}

/// Moves the bar with the time, up to its end.
async fn tick(bar: ProgressBar) {
    let mut ticks = tokio::time::interval(Duration::from_millis(200));
    loop {
        ticks.tick().await;
        let elapsed = bar.elapsed().as_millis() as u64;
        bar.set_position(elapsed.min(bar.length().unwrap_or_default()));
    }
}
