//! New versions of adapters, taken by themselves from the repository that the operator named.
//!
//! A vendor's protocol changes, and nobody types commands on ten thousand devices: so each repository is looked at again and again,
//! and the newest version that it offers is handed to the engine, which has the last word.
//!
//! - **Believed for its signatures.** What a repository offers is judged by `otahost-adapters`; a refusal changes nothing, is named, and
//!   is shown by `otahost status` until a later look fares better.
//! - **Only forwards.** A version is taken when it is newer than the one that runs, by the order of semantic versions, and newer than
//!   every offered one that was left: what misbehaved, or what the operator took back, is never taken again by itself, nor anything
//!   older. The operator may install either.
//! - **Within its grants.** One that asks for more waits for the operator, with the lines it needs.
//!
//! It is a client of the local API like any other: what it may not do, it cannot.

mod choice;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hasher};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use otahost_adapters::{
    Clock, Offer, Repository, RepositoryError, RepositoryOptions, RepositorySource,
};
use otahost_core::backoff::Backoff;
use otahost_core::model::{ClockQuality, Instant as WallClock};
use otahost_disk::{Disk, Place, Seam};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::api::{
    AdapterHealth, AdapterOrigin, AdapterView, ApiCall, Component, ErrorCode, Reply,
    RepositoryOutcome, RepositoryView, Request, StatusView, WaitingView,
};
use crate::notices::Notices;
use choice::{Choice, choose};

/// First pause after a failure, and the pause while the agent or the clock is not ready.
const SOON: Duration = Duration::from_secs(10);
/// A medium that has not changed is read again after this time: what it holds may have expired meanwhile.
const UNCHANGED: Duration = Duration::from_secs(3_600);
/// A version that could not run is tried again after this time: what stood against it may be mended.
const TRIED: Duration = Duration::from_secs(24 * 3_600);

/// A repository, and who is updated from it.
#[derive(Debug, Clone)]
pub struct Followed {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub source: RepositorySource,
    /// The same, when it is a directory of this device.
    pub directory: Option<PathBuf>,
    /// The root that the operator trusts.
    pub root: Vec<u8>,
    /// Pause between two looks.
    pub every: Duration,
    /// The adapters, by their name here, with their name there.
    pub adapters: BTreeMap<String, String>,
}

/// Looks at a repository until the other end of `calls` is gone.
pub async fn watch(
    followed: Followed,
    disk: Arc<dyn Disk>,
    calls: mpsc::Sender<ApiCall>,
    notices: Notices,
) {
    let mut watch = Watch {
        disk,
        calls,
        notices,
        tried: BTreeMap::new(),
        settled: None,
        failures: 0,
        said: "not looked at yet".to_owned(),
        followed,
    };
    watch.show(RepositoryOutcome::Pending, "not looked at yet", None, None);
    while !watch.calls.is_closed() {
        let pause = watch.look().await;
        tokio::time::sleep(pause).await;
    }
}

struct Watch {
    followed: Followed,
    disk: Arc<dyn Disk>,
    calls: mpsc::Sender<ApiCall>,
    notices: Notices,
    /// Digests of versions that could not run: when that was found, and why.
    tried: BTreeMap<String, (Instant, String)>,
    /// The medium as it was when everything on it had been decided, and when that was.
    settled: Option<(Stamp, Instant)>,
    /// Looks in a row that failed.
    failures: u32,
    /// What was logged last.
    said: String,
}

/// What a change of a medium shows in: the file that is written last when a repository is extended.
type Stamp = (u64, u64, Option<SystemTime>);

/// What came of a look for one adapter.
#[derive(Debug)]
struct Found {
    outcome: RepositoryOutcome,
    text: String,
    /// It is worth looking again although nothing has changed there.
    open: bool,
}

impl Watch {
    /// Looks once; the pause until the next time.
    async fn look(&mut self) -> Duration {
        let stamp = match self.stamp().await {
            Ok(stamp) => stamp,
            Err(absent) => {
                self.settled = None;
                self.show(RepositoryOutcome::Pending, &absent, None, None);
                return self.followed.every;
            }
        };
        if let (Some(stamp), Some((settled, at))) = (&stamp, &self.settled)
            && stamp == settled
            && at.elapsed() < UNCHANGED
        {
            return self.followed.every;
        }
        let Some(status) = self.status().await else {
            return SOON.min(self.followed.every);
        };
        if status.safe_mode {
            let text = "not looked at: the agent is in safe mode";
            self.show(RepositoryOutcome::Pending, text, None, None);
            return SOON.max(self.followed.every);
        }
        let now = status.now;
        let options = RepositoryOptions::new(
            self.followed.source.clone(),
            self.followed.root.clone(),
            self.disk.clone(),
            Place::data(format!("repositories/{}", self.followed.name)),
            Clock {
                now,
                quality: status.clock,
            },
        );
        match Repository::open(options).await {
            Ok(repository) => self.consider(&repository, &status, stamp).await,
            Err(RepositoryError::ClockUnset) => {
                let text = RepositoryError::ClockUnset.to_string();
                self.show(RepositoryOutcome::Pending, &text, Some(now), None);
                SOON.min(self.followed.every)
            }
            Err(error) => {
                self.show(
                    RepositoryOutcome::Failed,
                    &error.to_string(),
                    Some(now),
                    None,
                );
                self.after_failure()
            }
        }
    }

    /// What the medium shows of its state, or that there is none. Nothing for a server.
    async fn stamp(&self) -> Result<Option<Stamp>, String> {
        use std::os::unix::fs::MetadataExt;
        let Some(directory) = self.followed.directory.clone() else {
            return Ok(None);
        };
        let looked = Seam::Threads
            .run(move || {
                if !directory.is_dir() {
                    return Err(format!("nothing is at {} now", directory.display()));
                }
                std::fs::metadata(directory.join("metadata/timestamp.json")).map_err(|e| {
                    format!(
                        "{} holds no repository: metadata/timestamp.json: {e}",
                        directory.display()
                    )
                })
            })
            .await?;
        Ok(Some((looked.ino(), looked.len(), looked.modified().ok())))
    }

    async fn consider(
        &mut self,
        repository: &Repository,
        status: &StatusView,
        stamp: Option<Stamp>,
    ) -> Duration {
        let mut all = Vec::new();
        for (adapter, there) in self.followed.adapters.clone() {
            let running = status.adapters.iter().find(|view| view.name == adapter);
            let mut found = match running {
                Some(view) => self.update(repository, view, &there).await,
                None => Found {
                    outcome: RepositoryOutcome::NotTaken,
                    text: "it does not run".to_owned(),
                    open: true,
                },
            };
            found.text = format!("{adapter}: {}", found.text);
            all.push(found);
        }
        let mut text: Vec<String> = all.iter().map(|found| found.text.clone()).collect();
        if all.is_empty() {
            text.push("no adapter names it as its `repository`".to_owned());
        }
        if !repository.expiry_is_certain() {
            let quality = match status.clock {
                ClockQuality::Synced => "",
                _ => "the clock is not synced, so nobody can tell whether this has expired",
            };
            text.push(quality.to_owned());
        }
        let rank = |outcome: RepositoryOutcome| match outcome {
            RepositoryOutcome::Current | RepositoryOutcome::Pending => 0,
            RepositoryOutcome::Taken => 1,
            RepositoryOutcome::NotTaken => 2,
            RepositoryOutcome::Failed => 3,
        };
        let outcome = all
            .iter()
            .map(|found| found.outcome)
            .max_by_key(|outcome| rank(*outcome))
            .unwrap_or(RepositoryOutcome::Current);
        self.show(
            outcome,
            &text.join("; "),
            Some(status.now),
            Some(repository.expires_text()),
        );
        let open = all.iter().any(|found| found.open);
        self.settled = stamp.filter(|_| !open).map(|stamp| (stamp, Instant::now()));
        if outcome == RepositoryOutcome::Failed {
            return self.after_failure();
        }
        self.failures = 0;
        if open {
            return SOON.min(self.followed.every);
        }
        self.jittered(self.followed.every)
    }

    /// Has an adapter run the newest version that is offered, if it may.
    async fn update(&mut self, repository: &Repository, view: &AdapterView, there: &str) -> Found {
        let source = AdapterOrigin::Repository(self.followed.name.clone());
        let named = source.to_string();
        let offers: Vec<&Offer> = repository
            .offers()
            .iter()
            .filter(|offer| offer.name.adapter() == there)
            .collect();
        let rejected: BTreeSet<&str> = view.rejected.iter().map(String::as_str).collect();
        let offered = offers
            .iter()
            .map(|offer| (offer.name.version(), offer.digest.as_str()));
        let runs = (view.version.as_str(), view.digest.as_str());
        // One that is set aside may get what it ran before, whole.
        let runs = (!matches!(view.health, AdapterHealth::SetAside { .. })).then_some(runs);
        let choice = choose(offered, runs, &rejected);
        let offer = match choice {
            Choice::Take(n) => offers[n],
            Choice::Nothing(text) => {
                self.notices.waits(&view.name, &named, None);
                return Found {
                    outcome: RepositoryOutcome::Current,
                    text,
                    open: false,
                };
            }
        };
        let version = offer.name.version().to_owned();
        self.tried.retain(|_, (at, _)| at.elapsed() < TRIED);
        if let Some((_, why)) = self.tried.get(&offer.digest) {
            return Found {
                outcome: RepositoryOutcome::NotTaken,
                text: format!("version {version} is not taken: {why}"),
                open: false,
            };
        }
        let component = match repository.fetch(there, &version).await {
            Ok(component) => Component(component.into()),
            Err(error) => {
                return Found {
                    outcome: RepositoryOutcome::Failed,
                    text: error.to_string(),
                    open: true,
                };
            }
        };
        let request = Request::AdapterOffer {
            adapter: view.name.clone(),
            origin: source,
            component,
        };
        let waiting = |missing: Vec<String>, why: String| WaitingView {
            version: version.clone(),
            digest: offer.digest.clone(),
            source: named.clone(),
            missing,
            why,
        };
        let (waits, found) = match self.ask(request).await {
            Some(Reply::Taken(taken)) => (
                None,
                Found {
                    outcome: RepositoryOutcome::Taken,
                    text: match taken.trial.differing {
                        0 => format!("version {version} was taken"),
                        n => format!(
                            "version {version} was taken; of the steps on record {n} gave something else: `otahost adapter inspect {}`",
                            view.name
                        ),
                    },
                    open: false,
                },
            ),
            Some(Reply::Waiting { missing, .. }) => (
                Some(waiting(missing, String::new())),
                Found {
                    outcome: RepositoryOutcome::NotTaken,
                    text: format!("version {version} asks for more than is granted and waits"),
                    open: false,
                },
            ),
            Some(Reply::Error {
                code: ErrorCode::Busy | ErrorCode::Unavailable,
                message,
            }) => (
                None,
                Found {
                    outcome: RepositoryOutcome::NotTaken,
                    text: message,
                    open: true,
                },
            ),
            Some(Reply::Error { message, .. }) => {
                self.tried
                    .insert(offer.digest.clone(), (Instant::now(), message.clone()));
                (
                    Some(waiting(Vec::new(), message.clone())),
                    Found {
                        outcome: RepositoryOutcome::NotTaken,
                        text: format!("version {version} is not taken: {message}"),
                        open: false,
                    },
                )
            }
            // The engine starts again; it knows whether it was taken.
            Some(_) | None => (
                None,
                Found {
                    outcome: RepositoryOutcome::NotTaken,
                    text: format!("version {version} was offered while the agent started again"),
                    open: true,
                },
            ),
        };
        self.notices.waits(&view.name, &named, waits);
        found
    }

    /// Shows how it stands, and logs it when that is news.
    fn show(
        &mut self,
        outcome: RepositoryOutcome,
        text: &str,
        looked: Option<WallClock>,
        expires: Option<&str>,
    ) {
        if self.said != text {
            let repository = &self.followed.name;
            match outcome {
                RepositoryOutcome::Failed => {
                    tracing::warn!(repository, "nothing is taken from it: {text}");
                }
                RepositoryOutcome::NotTaken => tracing::warn!(repository, "{text}"),
                _ => tracing::info!(repository, "{text}"),
            }
            text.clone_into(&mut self.said);
        }
        self.notices.looked(RepositoryView {
            name: self.followed.name.clone(),
            place: self.followed.source.to_string(),
            looked,
            outcome,
            text: text.to_owned(),
            expires: expires.map(str::to_owned),
        });
    }

    /// The pause after a look that failed. A medium may be plugged in anew at any moment.
    fn after_failure(&mut self) -> Duration {
        self.settled = None;
        if self.followed.directory.is_some() {
            return self.followed.every;
        }
        self.failures = self.failures.saturating_add(1);
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let max = millis(self.followed.every);
        let backoff = Backoff {
            first: millis(SOON).min(max),
            max,
        };
        Duration::from_millis(backoff.wait(self.failures, random()))
    }

    /// The pause between two looks at a server, a little shorter by chance, so that a fleet does not come at once.
    fn jittered(&self, every: Duration) -> Duration {
        if self.followed.directory.is_some() {
            return every;
        }
        let tenth = u64::try_from(every.as_millis() / 10).unwrap_or(u64::MAX);
        every.saturating_sub(Duration::from_millis(random() % tenth.max(1)))
    }

    async fn status(&self) -> Option<StatusView> {
        match self.ask(Request::Status).await? {
            Reply::Status(status) => Some(*status),
            _ => None,
        }
    }

    async fn ask(&self, request: Request) -> Option<Reply> {
        let (reply, mut replies) = mpsc::channel(1);
        self.calls.send(ApiCall { request, reply }).await.ok()?;
        replies.recv().await
    }
}

fn random() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}
