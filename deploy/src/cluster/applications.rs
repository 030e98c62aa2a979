//! Follows this node's application and those of the other members: asks what they say, and does what
//! [`rollout`](crate::cluster::rollout) makes of it.
//!
//! ```text
//!   files ─▶ declared ─▶ said ◀─ others ask           each round: ask, learn, feed, remove, serve
//!   others ─▶ heard ─▶ live, served, emitted versions ─▶ catalog ─▶ layers
//! ```
//!
//! A node that declares a version has its definition, and gives it to whoever asks: so all members feed
//! what one of them declares, whatever their own files are.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::ensure;
use async_trait::async_trait;
use bytes::Bytes;
use futures::future::{join_all, try_join_all};
use parking_lot::Mutex;
use sanso_catalog::CatalogHandle;
use sanso_cluster::{Answers, CallError, ClusterNode, NodeId};
use sanso_core::{PartitionId, PartitionStore, ReadRequest, StoreError};
use sanso_state::{Fingerprint, Offset};
use sanso_view::View;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::application::{self, Declared, Files};
use crate::cluster::member::stopped;
use crate::cluster::rollout::{Heard, Lingering, Said, caught_up, furthest};

/// The kinds of calls by which nodes ask what others say, and for an application by its content.
const SAID: &str = "application.said";
const FILES: &str = "application.files";
/// Between two rounds of questions, and how long a node may take to answer one.
const ROUND: Duration = Duration::from_secs(1);
const SAY_MAX: Duration = Duration::from_millis(800);
/// How long an application may take to come.
const FILES_MAX: Duration = Duration::from_secs(20);
/// The files are looked at in every such round. A change counts once two looks have found the same: a file
/// that is being copied is not whole.
const LOOK_ROUNDS: u64 = 2;
/// For how many rounds a version is fed that nobody wants any longer: requests that began with it end
/// within this time, unless they ask for a longer deadline than the default.
const LINGER_ROUNDS: u32 = 8;

/// The applications of a cluster, as one of its nodes knows them.
pub(crate) struct Applications {
    cluster: Arc<ClusterNode>,
    catalog: CatalogHandle,
    store: PartitionStore,
    path: PathBuf,
    own: Mutex<Own>,
    /// What others declare, by content; with why it is of no use here.
    others: Mutex<BTreeMap<Fingerprint, Understood>>,
    heard: Mutex<Heard>,
}

/// The views that another node declares, or why they are of no use here.
type Understood = Result<Vec<Arc<View>>, String>;

/// What this node declares.
struct Own {
    declared: Arc<Declared>,
    /// What it declared before, while versions of that answer still.
    before: Vec<Arc<Declared>>,
    /// The content of the files when they were last looked at.
    seen: Option<Fingerprint>,
    /// The content of what was read of them last.
    read: Option<Fingerprint>,
    /// Why they are not what it declares.
    refuses: Option<String>,
}

impl Own {
    fn all(&self) -> impl Iterator<Item = &Arc<Declared>> {
        std::iter::once(&self.declared).chain(&self.before)
    }
}

impl Applications {
    /// Begins to tell others what this node says. The catalog is that of `declared`.
    pub(crate) fn tell(
        cluster: Arc<ClusterNode>,
        catalog: CatalogHandle,
        store: PartitionStore,
        path: PathBuf,
        declared: Arc<Declared>,
    ) -> Arc<Self> {
        let own = Own { declared, before: Vec::new(), seen: None, read: None, refuses: None };
        let applications = Arc::new(Self {
            cluster: Arc::clone(&cluster),
            catalog,
            store,
            path,
            own: Mutex::new(own),
            others: Mutex::default(),
            heard: Mutex::default(),
        });
        cluster.answer(SAID, Arc::new(Telling(Arc::downgrade(&applications))));
        cluster.answer(FILES, Arc::new(Giving(Arc::downgrade(&applications))));
        applications
    }

    /// Returns what this node declares.
    pub(crate) fn declared(&self) -> Arc<Declared> {
        Arc::clone(&self.own.lock().declared)
    }

    /// Follows the files and the other members until the node is stopped. `removes` says whether this node
    /// is the one that removes what nobody wants.
    pub(crate) async fn follow(
        self: Arc<Self>,
        removes: impl Fn() -> bool + Send + Sync,
        stop: watch::Receiver<bool>,
    ) {
        let mut lingering = Lingering::default();
        let follow = async {
            for round in 0_u64.. {
                if round.is_multiple_of(LOOK_ROUNDS) {
                    self.look().await;
                }
                self.ask().await;
                // Once something had to be asked for, what was heard is old: nothing is let go of by it.
                let is_fresh = !self.learn().await;
                self.feed(&mut lingering, is_fresh);
                if is_fresh && removes() {
                    self.remove().await;
                }
                self.serve().await;
                tokio::time::sleep(ROUND).await;
            }
        };
        tokio::select! {
            () = stopped(stop) => {}
            () = follow => {}
        }
    }

    /// Looks at the files; declares what they are once they have come to rest.
    async fn look(&self) {
        let (path, declared) = (self.path.clone(), Arc::clone(&self.own.lock().declared));
        let found = tokio::task::spawn_blocking(move || application::content(&path, &declared.application));
        let Ok(found) = found.await else { return };
        let content = match found {
            Ok(content) => content,
            Err(error) => return self.refuse(Some(format!("{error:#}"))),
        };
        let before = self.own.lock().seen.replace(content);
        if content == self.own.lock().declared.content {
            return self.refuse(None);
        }
        if before != Some(content) {
            return;
        }
        let path = self.path.clone();
        let read = tokio::task::spawn_blocking(move || application::read(&path));
        let Ok(read) = read.await else { return };
        match read.and_then(|declared| self.check(&declared).map(|()| declared)) {
            Ok(declared) => {
                // It may name tables that were not looked at, and that are being copied still.
                let before = self.own.lock().read.replace(declared.content);
                if before == Some(declared.content) {
                    self.declare(declared);
                }
            }
            Err(error) => self.refuse(Some(format!("{error:#}"))),
        }
    }

    fn refuse(&self, refuses: Option<String>) {
        let mut own = self.own.lock();
        if own.refuses == refuses {
            return;
        }
        if let Some(error) = &refuses {
            tracing::error!(error, "the changed application is refused; the old one goes on");
        }
        own.refuses = refuses;
    }

    fn check(&self, declared: &Declared) -> anyhow::Result<()> {
        let catalog = self.catalog.current();
        declared.check_sources(&catalog)?;
        for view in &declared.views {
            let live = catalog.live.get(&view.fingerprint);
            ensure!(
                live.is_none_or(|live| live.output_topic == view.output_topic),
                "view {} has another output_topic and is the same view otherwise, so what was written would be in two \
                 topics: give it another name",
                view.name
            );
        }
        Ok(())
    }

    fn declare(&self, declared: Declared) {
        let declared = Arc::new(declared);
        tracing::info!(content = declared.content.short(), "the application has changed");
        {
            let mut own = self.own.lock();
            own.refuses = None;
            let before = std::mem::replace(&mut own.declared, Arc::clone(&declared));
            own.before.push(before);
        }
        let is_declared = |name: &String| declared.views.iter().any(|view| view.name == *name);
        self.catalog.update(|catalog| catalog.serving.retain(|name, _| is_declared(name)));
    }

    /// Says what this node says.
    fn say(&self) -> Said {
        let catalog = self.catalog.current();
        let held = self.cluster.replicas().into_iter().flat_map(|replica| replica.held);
        let own = self.own.lock();
        Said {
            incarnation: self.cluster.me().incarnation.0,
            applications: own.all().map(|declared| declared.content).collect(),
            declares: own.declared.views.iter().map(|view| (view.name.clone(), view.fingerprint)).collect(),
            serves: catalog.serving.clone(),
            feeds: catalog.live.keys().copied().collect(),
            holds: held.map(|id| id.view).collect(),
            refuses: own.refuses.clone(),
        }
    }

    /// Asks all members what they say.
    async fn ask(&self) {
        let (map, me) = (self.cluster.maps().borrow().clone(), self.cluster.me().node);
        // Before the others are asked.
        let own = self.say();
        let others = map.members.keys().copied().filter(|node| *node != me);
        let asked = others.map(async |node| {
            let answer = self.cluster.ask(node, SAID, Vec::new(), SAY_MAX).await;
            if let Err(CallError::UnknownKind(_)) = answer {
                tracing::debug!(%node, "is of an earlier version, which does not say what it declares");
            }
            Some((node, rmp_serde::from_slice::<Said>(&answer.ok()?).ok()?))
        });
        let answers = join_all(asked).await;
        self.heard.lock().hear(&map, (me, own), answers.into_iter().flatten());
    }

    /// Learns what others declare; says whether it had to ask for it.
    async fn learn(&self) -> bool {
        let mut asked = false;
        let heard = self.heard.lock().clone();
        let all = heard.said().flat_map(|(node, said)| said.applications.iter().map(move |of| (*of, node)));
        let declared: Vec<(Fingerprint, NodeId)> = all.collect();
        self.others.lock().retain(|content, _| declared.iter().any(|(declared, _)| declared == content));
        for (content, node) in declared.into_iter().filter(|(_, node)| heard.is_heard(*node)) {
            let is_own = self.own.lock().all().any(|own| own.content == content);
            if is_own || self.others.lock().contains_key(&content) {
                continue;
            }
            asked = true;
            let files = self.cluster.ask(node, FILES, content.as_bytes().to_vec(), FILES_MAX).await;
            // It declares another one by now, or is lost: the next round tells.
            let Ok(files) = files else { continue };
            let read = tokio::task::spawn_blocking(move || Files::declare(&files, content)).await;
            let Ok(read) = read else { continue };
            let views = read.and_then(|declared| self.usable(declared)).map_err(|error| format!("{error:#}"));
            match &views {
                Ok(_) => {
                    tracing::info!(%node, content = content.short(), "another node's application is known")
                }
                Err(error) => tracing::warn!(%node, error, "another node's application is of no use here"),
            }
            self.others.lock().insert(content, views);
        }
        asked
    }

    /// Returns the views that can be fed here.
    fn usable(&self, declared: Declared) -> anyhow::Result<Vec<Arc<View>>> {
        let catalog = self.catalog.current();
        let is_known = |view: &Arc<View>| catalog.sources.get(&view.source.name) == Some(&view.source);
        let all = declared.views.len();
        let views: Vec<_> = declared.views.into_iter().filter(is_known).collect();
        if views.len() < all {
            tracing::warn!(
                content = declared.content.short(),
                left_out = all - views.len(),
                "another node has views of sources that this node does not have: restart it with that application"
            );
        }
        Ok(views)
    }

    /// Returns the definition of each version that is known here.
    fn definitions(&self) -> BTreeMap<Fingerprint, Arc<View>> {
        let others = self.others.lock();
        let own = self.own.lock();
        let views = others.values().flatten().flatten().chain(own.all().flat_map(|own| &own.views));
        views.map(|view| (view.fingerprint, Arc::clone(view))).collect()
    }

    /// Feeds what is wanted, and what was wanted a moment ago; lets go only by what was heard just now.
    fn feed(&self, lingering: &mut Lingering, lets_go: bool) {
        let heard = self.heard.lock().clone();
        let catalog = self.catalog.current();
        let mut live = catalog.live.clone();
        let wanted = heard.wanted();
        for (version, view) in self.definitions() {
            if wanted.contains(&version) && !live.contains_key(&version) {
                tracing::info!(view = view.name, version = version.short(), "view version is live");
                live.insert(version, view);
            }
        }
        // How this node keeps a view is for its own file to say.
        let mut is_kept_anew = false;
        for view in &self.own.lock().declared.views {
            if let Some(held) = live.get_mut(&view.fingerprint).filter(|held| held.storage != view.storage) {
                *held = Arc::clone(view);
                is_kept_anew = true;
            }
        }
        let fed = catalog.live.keys().copied().filter(|_| lets_go);
        for version in lingering.let_go(&heard, fed, LINGER_ROUNDS) {
            if let Some(view) = live.remove(&version) {
                tracing::info!(view = view.name, version = version.short(), "view version is retired");
            }
        }
        let emits = Some(heard.emits());
        let is_same = live.keys().eq(catalog.live.keys()) && emits == catalog.emits && !is_kept_anew;
        if !is_same {
            self.catalog.update(|catalog| (catalog.live, catalog.emits) = (live, emits));
        }
    }

    /// Removes the view partitions that nobody wants or feeds.
    async fn remove(&self) {
        let removable = self.heard.lock().removable();
        for version in removable {
            match self.cluster.remove(version).await {
                Ok(()) => tracing::info!(version = version.short(), "view version is removed"),
                Err(error) => tracing::warn!(%error, version = version.short(), "remove a view version"),
            }
        }
    }

    /// Lets the versions that this node declares answer, once they are as far as those before.
    async fn serve(&self) {
        let declared = Arc::clone(&self.own.lock().declared);
        for view in &declared.views {
            let catalog = self.catalog.current();
            let before = catalog.serving(&view.name);
            if before.is_some_and(|before| before.fingerprint == view.fingerprint) {
                continue;
            }
            let is_fed = self.heard.lock().awaited(view.fingerprint).is_empty();
            if !is_fed || !self.is_as_far(view, before).await.unwrap_or(false) {
                continue;
            }
            self.catalog.update(|catalog| {
                catalog.serving.insert(view.name.clone(), view.fingerprint);
            });
            tracing::info!(view = view.name, version = view.fingerprint.short(), "view version serves");
        }
        let catalog = self.catalog.current();
        let is_declared = |view: &View| declared.views.iter().any(|own| own.fingerprint == view.fingerprint);
        let answers = |view: &Arc<View>| catalog.serving.get(&view.name) == Some(&view.fingerprint);
        let answers_still =
            |before: &Arc<Declared>| before.views.iter().any(|view| answers(view) && !is_declared(view));
        self.own.lock().before.retain(answers_still);
    }

    /// Says whether a version has all that the one before it has; an error where that is not known.
    async fn is_as_far(&self, view: &View, before: Option<&Arc<View>>) -> anyhow::Result<bool> {
        // First the one before: what comes in meanwhile goes to both.
        let target = match before {
            Some(before) => match self.applied(before).await {
                Err(StoreError::NotLive(_)) => Vec::new(),
                applied => furthest(&applied?),
            },
            None => Vec::new(),
        };
        Ok(caught_up(&self.applied(view).await?, &target))
    }

    async fn applied(&self, view: &View) -> Result<Vec<Vec<Offset>>, StoreError> {
        let read = |index| async move {
            let id = PartitionId { view: view.fingerprint, index };
            Ok(self.store.read(id, &ReadRequest::Progress).await?.progress.applied)
        };
        try_join_all((0..view.partitions).map(read)).await
    }

    /// Describes the versions of views that there are in the cluster, and who does what with them.
    pub(crate) fn describe(&self) -> Value {
        let heard = self.heard.lock().clone();
        let (definitions, emits) = (self.definitions(), heard.emits());
        let named = heard.said().flat_map(|(_, said)| said.declares.iter().chain(&said.serves));
        let mut names: BTreeMap<Fingerprint, String> =
            named.map(|(name, version)| (*version, name.clone())).collect();
        for (_, said) in heard.said() {
            for version in said.feeds.iter().chain(&said.holds) {
                let name = definitions.get(version).map_or("", |view| view.name.as_str());
                names.entry(*version).or_insert_with(|| name.to_owned());
            }
        }
        let mut versions: Vec<_> = names.into_iter().map(|(version, name)| (name, version)).collect();
        versions.sort();
        let who = |does: &dyn Fn(&Said) -> bool| {
            heard.said().filter(|(_, said)| does(said)).map(|(node, _)| node.0).collect::<Vec<_>>()
        };
        let views = versions.iter().map(|(name, version)| {
            let awaited = heard.awaited(*version);
            let is_wanted = heard.wanted().contains(version);
            json!({
                "view": name,
                "version": version.to_string(),
                "declared_by": who(&|said| said.declares.values().any(|declared| declared == version)),
                "served_by": who(&|said| said.serves.values().any(|served| served == version)),
                "fed_by": who(&|said| said.feeds.contains(version)),
                "held_by": who(&|said| said.holds.contains(version)),
                "emits": emits.get(name) == Some(version),
                "awaits": awaited.into_iter().filter(|_| is_wanted).map(|node| node.0).collect::<Vec<_>>(),
            })
        });
        let said: BTreeMap<String, Value> = heard
            .said()
            .map(|(node, said)| {
                let application = said.applications.first().map(ToString::to_string);
                let told =
                    json!({ "content": application, "heard": heard.is_heard(node), "refuses": said.refuses });
                (node.0.to_string(), told)
            })
            .collect();
        json!({ "views": views.collect::<Vec<_>>(), "applications": said })
    }
}

fn known(applications: &Weak<Applications>) -> Result<Arc<Applications>, String> {
    applications.upgrade().ok_or_else(|| "this node stops".to_owned())
}

/// Tells others what this node says.
struct Telling(Weak<Applications>);

#[async_trait]
impl Answers for Telling {
    async fn answer(&self, _from: NodeId, _question: Bytes) -> Result<Bytes, String> {
        let said = known(&self.0)?.say();
        Ok(rmp_serde::to_vec_named(&said).map_err(|error| error.to_string())?.into())
    }
}

/// Gives others the applications that this node declares.
struct Giving(Weak<Applications>);

#[async_trait]
impl Answers for Giving {
    async fn answer(&self, _from: NodeId, question: Bytes) -> Result<Bytes, String> {
        let wanted = <[u8; 32]>::try_from(question.as_ref()).map(Fingerprint::from_bytes);
        let wanted = wanted.map_err(|_| "this names no application".to_owned())?;
        let applications = known(&self.0)?;
        let own = applications.own.lock();
        let declared = own.all().find(|declared| declared.content == wanted);
        declared
            .map(|declared| declared.files.encode().into())
            .ok_or_else(|| "it is declared here no longer".to_owned())
    }
}
