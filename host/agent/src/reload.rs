//! A running agent takes in what was changed on the device: its configuration, the components it names, the adapters directory.
//!
//! - **Looked at every two seconds**, and at once on SIGHUP and for `otahost reload`. What is still being copied changes between two
//!   looks and is left alone until it does not.
//! - **A changed component** goes the way of `otahost adapter install`: it takes over between two events, and the others go on
//!   undisturbed.
//! - **An edited configuration** is read and assembled beside the one that runs. With a fault in it that one goes on, and the fault is
//!   said and shown; without, the engine stops and starts again on the same data, as after a restart of the agent.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use otahost_disk::Seam;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use crate::api::{
    AdapterHealth, AdapterOrigin, AdapterView, ApiCall, Component, DropInView, ErrorCode, Reply,
    Request, WaitingView,
};
use crate::assemble::{self, Base, digest_of, drop_in, read_component};
use crate::config::{Config, Faults, Finding};
use crate::notices::Notices;
use crate::offline::Offline;
use crate::platform::{Platform, Setup};
use crate::repository::Followed;

/// Pause between two looks.
const EVERY: Duration = Duration::from_secs(2);

/// A configuration, ready to run.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) config: Config,
    pub(crate) platform: Platform,
    pub(crate) setup: Arc<Setup>,
    pub(crate) offline: Option<Offline>,
    pub(crate) repositories: Vec<Followed>,
    /// What lies in the adapters directory and waits for the operator.
    pub(crate) drop_ins: Vec<DropInView>,
    /// What stands against adapters.
    pub(crate) faults: Vec<Finding>,
}

impl World {
    /// Blocks: components may have to be compiled.
    ///
    /// # Errors
    /// What stands against a start.
    pub(crate) fn build(mut config: Config, base: &Base) -> Result<World, Vec<Finding>> {
        let drop_ins = drop_in::complete(&mut config, &base.loader);
        let assembled = assemble::assemble(&config, &base.loader)?;
        let platform = assemble::platform(&config, &assembled, base)?;
        Ok(World {
            platform,
            offline: assembled.offline,
            repositories: assembled.repositories,
            faults: assembled.faults,
            setup: Arc::new(assembled.setup),
            drop_ins,
            config,
        })
    }
}

/// A configuration that takes the place of the one that runs; `started` is told when it does.
#[derive(Debug)]
pub(crate) struct Next {
    pub(crate) world: World,
    pub(crate) started: oneshot::Sender<()>,
}

/// What a file looks like from outside; `None`: it is not there.
type Look = Option<(u64, u64, Option<SystemTime>)>;
/// All files that matter, at one time.
type Picture = BTreeMap<PathBuf, Look>;

/// Tells which files were changed, once they have stopped changing.
#[derive(Debug, Default)]
struct Changes {
    /// What everything looked like when it was taken in.
    known: Picture,
    /// What it looked like the last time.
    last: Picture,
}

impl Changes {
    fn new(known: Picture) -> Self {
        Changes {
            last: known.clone(),
            known,
        }
    }

    /// Whether this picture shows a change that is complete: one that was there the last time just so.
    fn complete(&mut self, now: &Picture) -> bool {
        let still = self.last == *now;
        self.last.clone_from(now);
        still && self.known != *now
    }

    /// The files that differ from when they were taken in; from now on they are.
    fn take(&mut self, now: Picture) -> Vec<PathBuf> {
        let differs = |path: &&PathBuf| self.known.get(*path) != now.get(*path);
        let changed = now.keys().filter(differs).cloned().collect();
        self.last.clone_from(&now);
        self.known = now;
        changed
    }
}

/// Blocks.
fn look_at(path: &Path) -> Look {
    use std::os::unix::fs::MetadataExt;
    let found = std::fs::metadata(path).ok()?;
    Some((found.ino(), found.len(), found.modified().ok()))
}

/// Blocks.
fn picture(config: &Config) -> Picture {
    let components = config.adapters.values().map(|a| a.component.clone());
    let dropped = drop_in::files(&config.device.adapters_dir);
    std::iter::once(config.path.clone())
        .chain(components)
        .chain(dropped.into_iter().map(|(_, path)| path))
        .map(|path| {
            let look = look_at(&path);
            (path, look)
        })
        .collect()
}

/// Watches over the files of a running agent.
#[derive(Debug)]
pub(crate) struct Reloader {
    base: Base,
    /// What runs.
    config: Config,
    changes: Changes,
    calls: mpsc::Sender<ApiCall>,
    next: mpsc::Sender<Next>,
    notices: Notices,
}

impl Reloader {
    /// `config` is what runs. Blocks.
    pub(crate) fn new(
        base: Base,
        config: Config,
        calls: mpsc::Sender<ApiCall>,
        next: mpsc::Sender<Next>,
        notices: Notices,
    ) -> Self {
        Reloader {
            changes: Changes::new(picture(&config)),
            base,
            config,
            calls,
            next,
            notices,
        }
    }

    /// Works until the agent ends. `asked`: who asks for it by the local API.
    pub(crate) async fn run(mut self, mut asked: mpsc::Receiver<mpsc::Sender<Reply>>) {
        let mut hangup = match signal(SignalKind::hangup()) {
            Ok(hangup) => hangup,
            Err(error) => {
                tracing::error!(%error, "SIGHUP cannot be listened for, so changes are not taken in");
                return;
            }
        };
        loop {
            tokio::select! {
                asker = asked.recv() => {
                    let Some(asker) = asker else { return };
                    let reply = self.take_in().await;
                    let _ = asker.send(reply).await;
                }
                _ = hangup.recv() => {
                    self.take_in().await;
                }
                () = tokio::time::sleep(EVERY) => {
                    let now = self.picture().await;
                    if self.changes.complete(&now) {
                        self.take_in().await;
                    }
                }
            }
        }
    }

    async fn picture(&self) -> Picture {
        let config = self.config.clone();
        Seam::Threads.run(move || picture(&config)).await
    }

    /// Takes in what there is now.
    async fn take_in(&mut self) -> Reply {
        let now = self.picture().await;
        let changed_files = self.changes.take(now);
        let reply = match self.read().await {
            Ok((config, drop_ins)) if config.says_the_same(&self.config) => {
                self.notices.drop_ins(drop_ins);
                self.components(&changed_files).await
            }
            Ok((config, _)) => self.replace(config).await,
            Err(reply) => reply,
        };
        let problem = match &reply {
            Reply::Error { message, .. } => {
                tracing::error!(
                    "what was changed is not taken in, and what ran before goes on: {message}"
                );
                Some(message.clone())
            }
            Reply::Reloaded { changed, wrong } => {
                for text in changed {
                    tracing::info!("{text}");
                }
                for text in wrong {
                    tracing::error!("{text}");
                }
                None
            }
            _ => None,
        };
        self.notices.problem(problem);
        reply
    }

    /// The configuration as it is in the file now, with what the adapters directory adds.
    async fn read(&self) -> Result<(Config, Vec<DropInView>), Reply> {
        let (path, loader) = (self.config.path.clone(), self.base.loader.clone());
        let read = Seam::Threads.run(move || {
            let mut config = Config::load(&path)?;
            let drop_ins = drop_in::complete(&mut config, &loader);
            Ok((config, drop_ins))
        });
        let (config, drop_ins) = read.await.map_err(|faults: Faults| faulty(&faults))?;
        let (old, new) = (&self.config.device, &config.device);
        for (key, differs) in [
            ("data_dir", old.data_dir != new.data_dir),
            ("socket", old.socket != new.socket),
        ] {
            if differs {
                return Err(refused(format!(
                    "`device.{key}` cannot be changed while the agent runs; restart it, and everything that was edited is taken in"
                )));
            }
        }
        Ok((config, drop_ins))
    }

    /// Has an edited configuration run, if nothing is wrong with it.
    async fn replace(&mut self, config: Config) -> Reply {
        let base = self.base.clone();
        let path = config.path.clone();
        let built = Seam::Threads
            .run(move || World::build(config, &base))
            .await
            .and_then(|world| {
                if world.faults.is_empty() {
                    Ok(world)
                } else {
                    Err(world.faults)
                }
            });
        let world = match built {
            Ok(world) => world,
            Err(findings) => return faulty(&Faults::about(&path, findings)),
        };
        let config = world.config.clone();
        let (started, told) = oneshot::channel();
        if self.next.send(Next { world, started }).await.is_err() || told.await.is_err() {
            return refused("the agent ends".to_owned());
        }
        self.config = config;
        // It may name other files than before.
        let now = self.picture().await;
        self.changes = Changes::new(now);
        Reply::Reloaded {
            changed: vec!["the edited configuration runs".to_owned()],
            wrong: Vec::new(),
        }
    }

    /// Hands the components that were changed to the engine.
    async fn components(&self, changed_files: &[PathBuf]) -> Reply {
        let (mut changed, mut wrong) = (Vec::new(), Vec::new());
        let running = self.running().await;
        for (name, adapter) in &self.config.adapters {
            if !changed_files.contains(&adapter.component) {
                continue;
            }
            let file = adapter.component.display();
            let source = AdapterOrigin::DropIn.to_string();
            let path = adapter.component.clone();
            let bytes = match Seam::Threads.run(move || read_component(&path)).await {
                Ok(bytes) => bytes,
                Err(why) => {
                    wrong.push(format!("adapter {name}: {why}; what runs goes on"));
                    continue;
                }
            };
            if running.get(name) == Some(&digest_of(&bytes)) {
                self.notices.waits(name, &source, None);
                continue;
            }
            let request = Request::AdapterOffer {
                adapter: name.clone(),
                origin: AdapterOrigin::DropIn,
                component: Component(bytes.into()),
            };
            let waits = |version, digest, missing, why| WaitingView {
                version,
                digest,
                source: source.clone(),
                missing,
                why,
            };
            let waiting = match self.ask(request).await {
                Some(Reply::Taken(taken)) => {
                    changed.push(format!(
                        "adapter {name}: version {} of {file} runs",
                        taken.version
                    ));
                    None
                }
                Some(Reply::Waiting {
                    version,
                    digest,
                    missing,
                }) => {
                    wrong.push(format!(
                        "adapter {name}: version {version} of {file} asks for more than is granted: {}",
                        missing.join("; ")
                    ));
                    Some(waits(version, digest, missing, String::new()))
                }
                Some(Reply::Error { message, .. }) => {
                    let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
                    wrong.push(format!("adapter {name}: {file} is not taken: {message}"));
                    Some(waits(String::new(), String::new(), Vec::new(), message))
                }
                Some(_) | None => {
                    wrong.push(format!(
                        "adapter {name}: the agent is starting; reload again"
                    ));
                    None
                }
            };
            self.notices.waits(name, &source, waiting);
        }
        Reply::Reloaded { changed, wrong }
    }

    /// Digest of what runs, by adapter.
    async fn running(&self) -> BTreeMap<String, String> {
        let status = match self.ask(Request::Status).await {
            Some(Reply::Status(status)) => *status,
            _ => return BTreeMap::new(),
        };
        let runs = |view: &AdapterView| !matches!(view.health, AdapterHealth::SetAside { .. });
        let running = status.adapters.into_iter().filter(runs);
        running.map(|view| (view.name, view.digest)).collect()
    }

    async fn ask(&self, request: Request) -> Option<Reply> {
        let (reply, mut replies) = mpsc::channel(1);
        self.calls.send(ApiCall { request, reply }).await.ok()?;
        replies.recv().await
    }
}

fn faulty(faults: &Faults) -> Reply {
    refused(faults.to_string().trim_end().to_owned())
}

fn refused(message: String) -> Reply {
    Reply::Error {
        code: ErrorCode::Configuration,
        message,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn seen(files: &[(&str, u64)]) -> Picture {
        let look = |(name, bytes): &(&str, u64)| (PathBuf::from(name), Some((1, *bytes, None)));
        files.iter().map(look).collect()
    }

    #[test]
    fn a_file_is_taken_in_when_it_looks_as_it_did_the_time_before_and_not_while_it_grows() {
        let mut changes = Changes::new(seen(&[("toml", 5)]));
        assert!(!changes.complete(&seen(&[("toml", 5)])));
        // Half of it, then the whole.
        assert!(!changes.complete(&seen(&[("toml", 5), ("x.wasm", 50)])));
        assert!(!changes.complete(&seen(&[("toml", 5), ("x.wasm", 100)])));
        let whole = seen(&[("toml", 5), ("x.wasm", 100)]);
        assert!(changes.complete(&whole));
        assert_eq!(changes.take(whole.clone()), [PathBuf::from("x.wasm")]);
        // Once.
        assert!(!changes.complete(&whole));
    }

    #[test]
    fn nothing_is_taken_in_while_another_file_is_still_being_written() {
        let mut changes = Changes::new(seen(&[("toml", 5), ("x.wasm", 1)]));
        assert!(!changes.complete(&seen(&[("toml", 6), ("x.wasm", 2)])));
        assert!(!changes.complete(&seen(&[("toml", 6), ("x.wasm", 3)])));
        let done = seen(&[("toml", 6), ("x.wasm", 3)]);
        assert!(changes.complete(&done));
        assert_eq!(changes.take(done).len(), 2);
    }

    #[test]
    fn a_file_that_went_away_is_a_change_and_one_that_came_back_as_it_was_is_none() {
        let mut changes = Changes::new(seen(&[("x.wasm", 1)]));
        assert!(!changes.complete(&Picture::new()));
        assert!(!changes.complete(&seen(&[("x.wasm", 1)])));
        assert!(!changes.complete(&seen(&[("x.wasm", 1)])));
        assert!(!changes.complete(&Picture::new()));
        assert!(changes.complete(&Picture::new()));
    }
}
