//! Whether an adapter runs, and in which version.
//!
//! One that cannot run is *set aside*: it has its place in the engine, and nothing that is stored for it is touched. What it asked for
//! when it ran last is still subscribed and served, as far as it is granted today, so that its messages wait for it in its inbox and
//! its callers are told to come again. In safe mode all adapters are set aside.

use std::collections::BTreeMap;

use otahost_core::grants::Grants;
use otahost_core::job::Job;
use otahost_core::model::{Event, Requirements, StartReason, TopicNeeds};
use otahost_journal::{Change, Key, json};
use otahost_links::Kind;

use super::choose::{Chosen, Configured, Keep, NoneRuns, Stored, Tools, choose};
use super::jobs::read_job;
use super::links::sha256_hex;
use super::load::read;
use super::migration;
use super::rows::{AdapterRow, KeptRow};
use super::steps::{AdapterState, Origin, Queued};
use super::{Engine, Release};
use crate::api::{AdapterHealth, AdapterView};
use crate::platform::AdapterSetup;
use crate::wants::clashes;

/// Why no adapter runs in safe mode.
const SAFE_MODE: &str = "safe mode: no adapter runs";

/// Whether an adapter runs.
#[derive(Debug)]
pub(super) enum Standing {
    /// In this version.
    Runs(Box<AdapterSetup>),
    /// In none.
    SetAside(Box<Aside>),
}

/// What is known of an adapter that does not run.
#[derive(Debug)]
pub(super) struct Aside {
    /// Why.
    pub(super) why: String,
    /// What is subscribed and served for it.
    pub(super) requirements: Requirements,
    /// What it was when it ran last; none: it never did.
    pub(super) row: Option<AdapterRow>,
    /// What the version before had.
    pub(super) kept: Option<KeptRow>,
}

impl AdapterState {
    /// The version that runs, if one does.
    pub(super) fn runs(&self) -> Option<&AdapterSetup> {
        match &self.standing {
            Standing::Runs(setup) => Some(setup),
            Standing::SetAside(_) => None,
        }
    }

    /// What it was when it ran last, if it does not run now.
    pub(super) fn aside(&self) -> Option<&Aside> {
        match &self.standing {
            Standing::Runs(_) => None,
            Standing::SetAside(aside) => Some(aside),
        }
    }

    /// What the links do for it.
    pub(super) fn requirements(&self) -> &Requirements {
        match &self.standing {
            Standing::Runs(setup) => &setup.requirements,
            Standing::SetAside(aside) => &aside.requirements,
        }
    }

    /// The layout of its state; none when there is no state.
    pub(super) fn layout(&self) -> Option<u32> {
        match &self.standing {
            Standing::Runs(setup) => Some(setup.description.state_version),
            Standing::SetAside(aside) => aside.row.as_ref().map(|row| row.state_version),
        }
    }

    /// It wants something of this link.
    pub(super) fn uses(&self, link: &str) -> bool {
        let needs = self.requirements();
        needs.topics.iter().any(|needs| needs.link == link)
            || needs.routes.iter().any(|needs| needs.link == link)
    }

    /// How it is shown.
    pub(super) fn view(&self, name: &str) -> AdapterView {
        let last = self.aside().and_then(|aside| aside.row.clone());
        let last = last.unwrap_or_default();
        let (protocol, version, digest, loaded) = match self.runs() {
            Some(setup) => (
                setup.description.protocol.clone(),
                setup.description.version.clone(),
                setup.component.digest().to_owned(),
                setup.how.to_string(),
            ),
            None => (last.protocol, last.version, last.digest, String::new()),
        };
        let former = self.former.as_ref();
        // What an adapter that does not run can return to is not loaded.
        let returns = self.aside().is_some_and(|aside| aside.kept.is_some());
        let returns = returns && self.versions.strikes.is_some();
        let installed = self.versions.installed.as_deref() == Some(digest.as_str());
        AdapterView {
            name: name.to_owned(),
            protocol,
            version,
            digest,
            loaded,
            installed,
            origin: self.versions.origin().filter(|_| installed),
            waiting: Vec::new(),
            strikes: self.versions.strikes,
            previous: former
                .map(|former| former.setup.description.version.clone())
                .or_else(|| returns.then(|| self.versions.previous_version.clone())),
            rejected: self.versions.rejected.clone(),
            health: match (self.aside(), &self.last_failure) {
                (Some(aside), _) => AdapterHealth::SetAside {
                    why: aside.why.clone(),
                },
                (None, Some(failure)) => AdapterHealth::Failing {
                    last_failure: failure.clone(),
                },
                (None, None) => AdapterHealth::Running,
            },
            fault: self.fault.clone(),
            inbox: self.waiting(),
            dead_letters: self.dead_letters(),
        }
    }
}

/// The part of what was asked for that is granted. Only what makes messages and requests come in counts.
fn granted(grants: &Grants, asked: &Requirements) -> Requirements {
    let fits = |part: &Requirements| grants.denials(part).is_empty();
    let topics = asked.topics.iter().map(|needs| {
        let only = |filter: &String| TopicNeeds {
            link: needs.link.clone(),
            subscribe: vec![filter.clone()],
            publish: Vec::new(),
        };
        let mut part = needs.clone();
        part.publish.clear();
        part.subscribe.retain(|filter| {
            fits(&Requirements {
                topics: vec![only(filter)],
                ..Requirements::default()
            })
        });
        part
    });
    let routes = asked.routes.iter().filter(|route| {
        fits(&Requirements {
            routes: vec![(*route).clone()],
            ..Requirements::default()
        })
    });
    Requirements {
        topics: topics.filter(|part| !part.subscribe.is_empty()).collect(),
        routes: routes.cloned().collect(),
        ..Requirements::default()
    }
}

/// What the choice of versions has changed, to be committed when everything has been read.
#[derive(Debug, Default)]
pub(super) struct Begun {
    changes: Vec<Change>,
    /// Contexts, with their layout.
    contexts: Vec<(BTreeMap<u64, Vec<u8>>, u32)>,
    /// Adapters whose row is another one now.
    rows: Vec<String>,
    /// Versions that were left: the adapter, and what is said of it.
    left: Vec<String>,
}

impl Engine {
    /// The adapter runs.
    pub(super) fn runs(&self, adapter: &str) -> bool {
        self.adapters
            .get(adapter)
            .is_some_and(|state| state.runs().is_some())
    }

    fn configured(&self) -> Vec<Configured> {
        let sound = self.setup.adapters.iter().map(|setup| Configured {
            name: setup.name.clone(),
            config: setup.config.clone(),
            grants: setup.grants.clone(),
            component: Ok(setup.clone()),
        });
        let faulty = self.setup.faulty.iter().map(|faulty| Configured {
            name: faulty.name.clone(),
            config: faulty.config.clone(),
            grants: faulty.grants.clone(),
            component: Err(faulty.why.clone()),
        });
        let mut all: Vec<Configured> = sound.chain(faulty).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Decides of each adapter whether it runs, and in which version, and gives it its place.
    pub(super) async fn choose_versions(&mut self, rows: &[(Key, Vec<u8>)]) -> Begun {
        let mut begun = Begun::default();
        let (mut all_run, mut needed) = (true, std::collections::BTreeSet::new());
        for configured in self.configured() {
            let stored = stored(&configured.name, rows);
            let choice = if self.vitals.safe_mode {
                Err(NoneRuns {
                    why: SAFE_MODE.into(),
                    asked: None,
                })
            } else {
                self.choice(&configured, &stored).await
            };
            let state = self.take_place(configured, stored, choice, &mut begun);
            all_run &= state.runs().is_some();
            let versions = &state.versions;
            needed.extend(
                [&versions.installed, &versions.previous]
                    .into_iter()
                    .flatten()
                    .cloned(),
            );
        }
        // One that could not run today may tomorrow: only a start in which all could forgets anything.
        if all_run && !self.vitals.safe_mode {
            let (workshop, seam) = (self.platform.workshop.clone(), self.platform.seam);
            seam.run(move || workshop.tidy(&needed)).await;
        }
        begun
    }

    async fn choice(
        &self,
        configured: &Configured,
        stored: &Stored,
    ) -> Result<Box<Chosen>, NoneRuns> {
        let beside = self.beside(&configured.name);
        let kinds = self.kinds();
        let workshop = self.platform.workshop.clone();
        let (configured, stored) = (configured.clone(), stored.clone());
        let choose = move || {
            let tools = Tools {
                prepare: &|digest| workshop.prepare(&configured.name, digest),
                clash: &|setup| clash(setup, &beside, &kinds),
            };
            choose(&configured, &stored, &tools)
        };
        self.platform.seam.run(choose).await
    }

    /// What the other adapters ask for.
    fn beside(&self, adapter: &str) -> BTreeMap<String, Requirements> {
        let others = self.adapters.iter().filter(|(name, _)| *name != adapter);
        others
            .map(|(name, state)| (name.clone(), state.requirements().clone()))
            .collect()
    }

    fn kinds(&self) -> BTreeMap<String, Kind> {
        let links = self.platform.links.iter();
        links
            .map(|(name, link)| (name.clone(), link.kind()))
            .collect()
    }

    /// What of a version's wishes cannot be, beside its grants: links of another kind, and routes that another adapter serves.
    pub(super) fn clash_of(&self, setup: &AdapterSetup) -> Option<String> {
        clash(setup, &self.beside(&setup.name), &self.kinds())
    }

    fn take_place(
        &mut self,
        configured: Configured,
        stored: Stored,
        choice: Result<Box<Chosen>, NoneRuns>,
        begun: &mut Begun,
    ) -> &AdapterState {
        let name = configured.name;
        let digest = configured
            .component
            .ok()
            .map(|setup| setup.component.digest().to_owned());
        let row = stored.row;
        let mut state = match choice {
            Ok(chosen) => {
                let chosen = *chosen;
                let layout = chosen.setup.description.state_version;
                let reason = chosen.reason.unwrap_or_else(|| {
                    self.start_reason(row.as_ref(), &configured.config, &configured.grants)
                });
                tracing::info!(
                    adapter = name,
                    protocol = chosen.setup.description.protocol,
                    version = chosen.setup.description.version,
                    start = ?reason,
                    "adapter starts"
                );
                let is_back = chosen.left.is_some();
                if let Some(left) = chosen.left {
                    let now = &chosen.setup.description.version;
                    let why = chosen.fault.clone().unwrap_or_else(|| {
                        "it struck out: the agent ended soon after its start while it was on probation".into()
                    });
                    begun.left.push(format!(
                        "adapter `{name}`: version {left} was left for {now}: {why}"
                    ));
                }
                let standing = Standing::Runs(Box::new(chosen.setup));
                let mut state = AdapterState::new(standing, configured.config, configured.grants);
                state.restore_state(stored.state);
                state.versions = chosen.versions;
                state.former = chosen.former;
                // One that was left is not what should run any more.
                state.fault = chosen.fault.filter(|_| !is_back);
                if let Some(taken) = chosen.taken {
                    let put = Change::Put(Key::State(name.clone()), taken.state.clone());
                    begun.changes.push(put);
                    state.restore_state(taken.state);
                    begun.contexts.push((taken.contexts, layout));
                    begun.rows.push(name.clone());
                }
                begun.changes.extend(match chosen.kept {
                    Keep::AsIs => None,
                    Keep::Put(kept) => Some(Change::Put(Key::Kept(name.clone()), json(&kept))),
                    Keep::Delete => Some(Change::Delete(Key::Kept(name.clone()))),
                });
                state.owed = Some(reason);
                state
            }
            Err(none) => {
                if !self.vitals.safe_mode {
                    tracing::error!(
                        adapter = name,
                        why = none.why,
                        "the adapter is set aside: it does not run, and nothing of it is lost"
                    );
                }
                let known = row.as_ref().and_then(|row| row.requirements.clone());
                let asked = known.or(none.asked.map(|asked| *asked)).unwrap_or_default();
                let versions = row.as_ref().map(|row| row.versions.clone());
                let standing = Standing::SetAside(Box::new(Aside {
                    why: none.why,
                    requirements: granted(&configured.grants, &asked),
                    row,
                    kept: stored.kept,
                }));
                let mut state = AdapterState::new(standing, configured.config, configured.grants);
                state.restore_state(stored.state);
                state.versions = versions.unwrap_or_default();
                state
            }
        };
        state.configured = digest;
        self.adapters.insert(name.clone(), state);
        if let Some(reason) = self
            .adapters
            .get(&name)
            .and_then(|state| state.owed.clone())
        {
            self.queue(&name, Queued::new(Event::Started(reason), Origin::Start));
        }
        self.adapters.get(&name).expect("it was put there just now")
    }

    /// Commits what the choice has changed: the state with the row that says which version reads it, so that a cut finds both or neither.
    pub(super) fn commit_begun(&mut self, begun: Begun) {
        let mut changes = begun.changes;
        for (contexts, layout) in begun.contexts {
            self.put_contexts(contexts, layout, &mut changes);
        }
        for name in &begun.rows {
            changes.extend(self.adapter_row(name));
        }
        let mut releases: Vec<Release> = Vec::new();
        for text in begun.left {
            releases.extend(self.alert("adapter-rolled-back", text, &mut changes));
        }
        if !changes.is_empty() {
            self.commit(changes, releases);
        }
    }

    /// Why an adapter that was set aside starts, when it is the version that ran last.
    pub(super) fn reason_again(&self, adapter: &str) -> StartReason {
        let state = self.adapters.get(adapter);
        let row = state.and_then(|state| state.aside()?.row.as_ref());
        state.map_or(StartReason::Installed, |state| {
            self.start_reason(row, &state.config, &state.grants)
        })
    }

    fn start_reason(
        &self,
        before: Option<&AdapterRow>,
        config: &str,
        grants: &Grants,
    ) -> StartReason {
        match before {
            None => StartReason::Installed,
            // It was on its way to the adapter when the agent ended.
            Some(AdapterRow {
                owed: Some(owed), ..
            }) => owed.clone(),
            Some(row) if row.boot_id != self.boot_id => StartReason::Booted,
            Some(row) if row.settings != settings(config, grants) => StartReason::Reconfigured,
            Some(_) => StartReason::Restarted,
        }
    }

    /// Tells an adapter that it starts, before anything else that waits, and in place of any start it was not told of yet.
    pub(super) fn queue_start(&mut self, adapter: &str, reason: StartReason) {
        if let Some(state) = self.adapters.get_mut(adapter) {
            state.owed = Some(reason.clone());
            state.forget_starts();
        }
        self.queue_first(adapter, Queued::new(Event::Started(reason), Origin::Start));
    }

    /// The row of an adapter that runs.
    pub(super) fn adapter_row(&self, adapter: &str) -> Option<Change> {
        let state = self.adapters.get(adapter)?;
        let setup = state.runs()?;
        let row = AdapterRow {
            digest: setup.component.digest().to_owned(),
            protocol: setup.description.protocol.clone(),
            version: setup.description.version.clone(),
            state_version: setup.description.state_version,
            requirements: Some(setup.requirements.clone()),
            boot_id: self.boot_id.clone(),
            settings: settings(&state.config, &state.grants),
            owed: state.owed.clone(),
            versions: state.versions.clone(),
        };
        Some(Change::Put(Key::Adapter(adapter.to_owned()), json(&row)))
    }

    /// The way back of an adapter that does not run: the next start finds the version before, with what it had. False: there is none.
    pub(super) fn return_aside(&mut self, adapter: &str, why: &str) -> bool {
        let Some(state) = self.adapters.get_mut(adapter) else {
            return false;
        };
        let Standing::SetAside(aside) = &mut state.standing else {
            return false;
        };
        let (Some(row), Some(kept)) = (&mut aside.row, &mut aside.kept) else {
            return false;
        };
        let (Some(previous), Some(_)) = (&row.versions.previous, row.versions.strikes) else {
            return false;
        };
        let digest = if previous.is_empty() {
            row.versions.factory.clone()
        } else {
            previous.clone()
        };
        let kept = std::mem::take(kept);
        aside.kept = None;
        let left = std::mem::replace(&mut row.digest, digest);
        let version = std::mem::replace(&mut row.version, row.versions.previous_version.clone());
        row.state_version = kept.state_version;
        row.owed = Some(StartReason::RolledBack(version.clone()));
        row.versions = std::mem::take(&mut row.versions).returned(Some(left));
        state.versions = row.versions.clone();
        let text = format!(
            "adapter `{adapter}`: version {version} was left for {}: {why}",
            row.version
        );
        let mut changes = vec![
            Change::Put(Key::State(adapter.to_owned()), kept.state.clone()),
            Change::Put(Key::Adapter(adapter.to_owned()), json(row)),
            Change::Delete(Key::Kept(adapter.to_owned())),
        ];
        state.restore_state(kept.state);
        let now = self.contexts_of(adapter, kept.state_version);
        let contexts = migration::lost(kept.contexts, &now, kept.state_version);
        self.put_contexts(contexts, kept.state_version, &mut changes);
        let releases = self.alert("adapter-rolled-back", text, &mut changes);
        self.commit(changes, releases.into_iter().collect());
        true
    }
}

/// SHA-256 of configuration and grants.
fn settings(config: &str, grants: &Grants) -> String {
    let grants = serde_json::to_vec(grants).unwrap_or_default();
    sha256_hex(&[config.as_bytes(), &grants])
}

fn clash(
    setup: &AdapterSetup,
    beside: &BTreeMap<String, Requirements>,
    kinds: &BTreeMap<String, Kind>,
) -> Option<String> {
    let others = beside.iter().map(|(name, needs)| (name.as_str(), needs));
    let found = clashes(&setup.name, &setup.requirements, others, |link| {
        kinds.get(link).copied()
    });
    let texts: Vec<String> = found.into_iter().map(|clash| clash.what).collect();
    (!texts.is_empty()).then(|| texts.join("; "))
}

/// What the journal holds of an adapter.
fn stored(adapter: &str, rows: &[(Key, Vec<u8>)]) -> Stored {
    let mut stored = Stored::default();
    let mut jobs: Vec<Job> = Vec::new();
    for (key, value) in rows {
        match key {
            Key::Adapter(name) if name == adapter => stored.row = read(key, value),
            Key::State(name) if name == adapter => stored.state.clone_from(value),
            Key::Kept(name) if name == adapter => stored.kept = read(key, value),
            Key::Job(_) => jobs.extend(read_job(key, value).filter(|job| job.owner == adapter)),
            _ => {}
        }
    }
    if let Some(row) = &stored.row {
        let contexts = jobs.iter().filter_map(|job| {
            let context = migration::context(job, row.state_version)?;
            Some((job.id, context))
        });
        stored.contexts = contexts.collect();
    }
    stored
}
