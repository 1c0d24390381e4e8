//! Start: everything from the journal, the same after a reboot, a crash, a failed commit or a first installation.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use otahost_core::model::{ClockQuality, Event, StartReason};
use otahost_core::secret::Secret;
use otahost_journal::{Change, Committer, Journal, JournalError, Key, from_json, json};
use otahost_links::{Kind, LinkCommand};
use tokio::sync::mpsc;

use super::jobs::{observed, read_job};
use super::links::{LinkState, sha256_hex};
use super::rows::{
    AdapterRow, InboxRow, KeptRow, OutboxRow, PartialRow, SecretRow, SeenRow, StartsRow, TimerRow,
};
use super::steps::{AdapterState, Origin, Queued};
use super::swap::{self, Chosen, Versions};
use super::timers::Timers;
use super::vitals::Vitals;
use super::{Engine, INPUTS, TargetState};
use crate::platform::{Platform, Setup};

/// Oldest message that is still handled after a start, in milliseconds: a day.
const INBOX_AGE: u64 = 24 * 3_600 * 1_000;

impl Engine {
    /// Opens the journal and takes up where it stands: connects the links and goes on with the jobs. No adapter steps, and nothing
    /// leaves, before [`Engine::run`].
    pub async fn start(platform: Platform, setup: Arc<Setup>) -> Result<Engine, JournalError> {
        let (disk, place, seam) = (
            platform.disk.clone(),
            platform.journal.clone(),
            platform.seam,
        );
        let (journal, rows) = seam
            .run(move || {
                let journal = Journal::open(disk, place)?;
                let rows = journal.load()?;
                Ok::<_, JournalError>((journal, rows))
            })
            .await?;
        let (outside_sender, outside) = mpsc::channel(INPUTS);
        let (tell, inside) = mpsc::unbounded_channel();
        let boot_id = platform.outside.boot_id();
        let mut engine = Engine {
            committer: Committer::start(Arc::new(journal), platform.seam),
            boot_id,
            started: tokio::time::Instant::now(),
            outside,
            outside_sender,
            inside,
            tell,
            adapters: BTreeMap::new(),
            targets: setup
                .targets
                .iter()
                .map(|t| (t.id.clone(), TargetState::default()))
                .collect(),
            setup_index: setup
                .targets
                .iter()
                .enumerate()
                .map(|(index, target)| (target.id.clone(), index))
                .collect(),
            links: BTreeMap::new(),
            jobs: BTreeMap::new(),
            transfers: BTreeMap::new(),
            working: BTreeMap::new(),
            turns: Default::default(),
            phase_since: BTreeMap::new(),
            asked: BTreeMap::new(),
            looks: BTreeMap::new(),
            examining: BTreeMap::new(),
            alerts: super::alerts::Alerts::default(),
            calls: super::calls::Calls::default(),
            requests: super::requests::Requests::default(),
            timers: Timers::default(),
            vitals: Vitals::default(),
            next_job: 1,
            next_publication: 1,
            pending: VecDeque::new(),
            next_commit: 0,
            garbage: Vec::new(),
            garbage_due: None,
            rebooting: None,
            reboot_asked: false,
            rate: 0,
            watchers: Vec::new(),
            exit: None,
            platform,
            setup,
        };
        engine.observe_all().await;
        engine.restore_vitals(&rows);
        let chosen = engine.choose_versions(&rows).await;
        if !engine.vitals.safe_mode {
            engine.start_links();
        }
        engine.restore(rows, chosen);
        engine.resume_jobs();
        engine.go_round();
        Ok(engine)
    }

    /// Decides which version of each adapter runs. One that can run in none is left out, and said.
    async fn choose_versions(&mut self, rows: &[(Key, Vec<u8>)]) -> BTreeMap<String, Chosen> {
        let mut chosen = BTreeMap::new();
        if self.vitals.safe_mode {
            return chosen;
        }
        let mut setup = (*self.setup).clone();
        let mut adapters = Vec::new();
        let configured = setup.adapters.len();
        for factory in std::mem::take(&mut setup.adapters) {
            let name = factory.name.clone();
            let (mut row, mut state, mut kept) = (None, Vec::new(), None);
            let mut contexts = BTreeMap::new();
            for (key, value) in rows {
                match key {
                    Key::Adapter(other) if *other == name => row = read::<AdapterRow>(key, value),
                    Key::State(other) if *other == name => state.clone_from(value),
                    Key::Kept(other) if *other == name => kept = read::<KeptRow>(key, value),
                    Key::Job(id) => {
                        let job = read_job(key, value);
                        let mine = job.filter(|job| job.owner == name);
                        if let Some(job) = mine.filter(|job| !job.plan.context.is_empty()) {
                            contexts.insert(*id, job.plan.context);
                        }
                    }
                    _ => {}
                }
            }
            let (workshop, seam) = (self.platform.workshop.clone(), self.platform.seam);
            let choice = seam
                .run(move || {
                    let prepare = |digest: &str| workshop.prepare(&factory.name, digest);
                    let row = row.as_ref();
                    swap::choose(&factory, row, &state, &contexts, kept, &prepare)
                })
                .await;
            match choice {
                Ok(choice) => {
                    adapters.push(choice.setup.clone());
                    chosen.insert(name, choice);
                }
                Err(why) => {
                    tracing::error!(
                        adapter = name,
                        why,
                        "no version of this adapter can go on with what is stored for it; it does not run, and nothing of it is lost"
                    );
                }
            }
        }
        setup.adapters = adapters;
        self.setup = Arc::new(setup);
        let needed = chosen
            .values()
            .flat_map(|c: &Chosen| [&c.versions.installed, &c.versions.previous])
            .flatten()
            .cloned()
            .collect();
        let (workshop, seam) = (self.platform.workshop.clone(), self.platform.seam);
        // One that could not run today may tomorrow: only a start in which all could forgets anything.
        if chosen.len() == configured {
            seam.run(move || workshop.tidy(&needed)).await;
        }
        chosen
    }

    async fn observe_all(&mut self) {
        for target in self.setup.targets.clone() {
            let (outside, seam) = (self.platform.outside.clone(), self.platform.seam);
            let asked = target.id.clone();
            let (version, health) = seam.run(move || observed(outside.as_ref(), &asked)).await;
            self.on_observed(&target.id, version, health);
        }
    }

    fn restore_vitals(&mut self, rows: &[(Key, Vec<u8>)]) {
        let mut starts = StartsRow::default();
        for (key, value) in rows {
            match key {
                Key::Meta(name) if Self::is_time(name) => {
                    if let Some(row) = read(key, value) {
                        self.restore_time(row);
                    }
                }
                key if *key == Self::starts_key() => starts = read(key, value).unwrap_or_default(),
                _ => {}
            }
        }
        self.count_start(&starts);
    }

    fn restore(&mut self, rows: Vec<(Key, Vec<u8>)>, mut chosen: BTreeMap<String, Chosen>) {
        let mut known: BTreeMap<String, AdapterRow> = BTreeMap::new();
        for (key, value) in &rows {
            if let Key::Adapter(name) = key
                && let Some(row) = read::<AdapterRow>(key, value)
            {
                known.insert(name.clone(), row);
            }
        }
        let adapters = if self.vitals.safe_mode {
            Vec::new()
        } else {
            self.setup.adapters.clone()
        };
        let (mut changes, mut contexts) = (Vec::new(), BTreeMap::new());
        for setup in adapters {
            let start = self.start_reason(known.get(&setup.name), &self.fresh_row(&setup));
            let mut state = AdapterState::new(setup.clone());
            tracing::info!(
                adapter = setup.name,
                protocol = setup.description.protocol,
                version = setup.description.version,
                ?start,
                "adapter starts"
            );
            for (key, value) in &rows {
                if matches!(key, Key::State(name) if *name == setup.name) {
                    state.restore_state(value.clone());
                }
            }
            if let Some(chosen) = chosen.remove(&setup.name) {
                state.versions = chosen.versions;
                state.former = chosen.former;
                if let Some(migrated) = chosen.migrated {
                    let (bytes, converted) = migrated.into_parts();
                    changes.push(Change::Put(Key::State(setup.name.clone()), bytes.clone()));
                    state.restore_state(bytes);
                    contexts.extend(converted);
                }
                if let Some(kept) = chosen.kept {
                    changes.push(Change::Put(Key::Kept(setup.name.clone()), json(&kept)));
                }
            }
            self.adapters.insert(setup.name.clone(), state);
            self.queue(
                &setup.name,
                Queued::new(Event::Started(start), Origin::Start),
            );
        }
        self.restore_secrets(&rows);
        for (key, value) in rows {
            self.restore_row(key, &value);
        }
        if !changes.is_empty() {
            // With the versions that read them: a cut finds both or neither.
            self.put_contexts(contexts, &mut changes);
            let names: Vec<String> = self.adapters.keys().cloned().collect();
            for name in names {
                changes.extend(self.adapter_row(&name));
            }
            self.commit(changes, Vec::new());
        }
        self.resume_calls();
        self.resume_alerts();
    }

    /// Gives each link what the journal holds of its vault. What belongs to another place than the link leads to now is forgotten.
    fn restore_secrets(&mut self, rows: &[(Key, Vec<u8>)]) {
        let mut vaults: BTreeMap<&str, Vec<(String, Secret)>> = BTreeMap::new();
        for (key, value) in rows {
            let Key::Secret { link, name } = key else {
                continue;
            };
            if self.vitals.safe_mode {
                continue;
            }
            let fits =
                |row: &SecretRow| self.links.contains_key(link) && row.place == self.place_of(link);
            match read::<SecretRow>(key, value) {
                Some(row) if fits(&row) => {
                    let vault = vaults.entry(link).or_default();
                    vault.push((name.clone(), Secret::new(row.value)));
                }
                Some(_) => {
                    tracing::warn!(link, name, "a secret of another place is forgotten");
                    self.discard(key.clone());
                }
                None => {}
            }
        }
        // One with an empty vault is told so too: it may still hold back what an engine before this one never kept.
        for (name, link) in &self.links {
            if link.kind == Kind::HttpClient {
                let vault = vaults.remove(name.as_str()).unwrap_or_default();
                link.send(LinkCommand::Secrets(vault));
            }
        }
    }

    fn restore_row(&mut self, key: Key, value: &[u8]) {
        // What belongs to adapters and links waits for a start in which they run.
        if self.vitals.safe_mode
            && !matches!(
                key,
                Key::Job(_) | Key::Target(_) | Key::Partial(_) | Key::Alert { .. }
            )
        {
            return;
        }
        match &key {
            Key::Job(id) => {
                self.next_job = self.next_job.max(id + 1);
                if let Some(job) = read_job(&key, value) {
                    self.jobs.insert(*id, job);
                }
            }
            Key::Outbox { seq } => {
                self.next_publication = self.next_publication.max(seq + 1);
                if let Some(row) = read::<OutboxRow>(&key, value) {
                    if self.links.contains_key(&row.publication.link) {
                        self.enqueue(*seq, &row.adapter, row.publication);
                    } else {
                        tracing::warn!(
                            link = row.publication.link,
                            "a publication waits for a link that is not configured any more; dropped"
                        );
                        self.discard(key);
                    }
                }
            }
            Key::Inbox { adapter, n } => {
                let Some(row) = read::<InboxRow>(&key, value) else {
                    return;
                };
                let synced = self.platform.outside.clock() == ClockQuality::Synced;
                let old = synced && self.now().saturating_sub(row.at) > INBOX_AGE;
                match self.adapters.get_mut(adapter) {
                    Some(state) if !old => state.restore_inbox(*n, row),
                    known => {
                        let why = if known.is_some() {
                            "it is older than a day"
                        } else {
                            "its adapter is not configured any more"
                        };
                        tracing::warn!(adapter, why, "a message that waited is dropped");
                        self.discard(key);
                    }
                }
            }
            Key::Alert { seq } => {
                if let Some(row) = read(&key, value) {
                    self.restore_alert(*seq, row);
                }
            }
            Key::Call { seq } => {
                if let Some(row) = read(&key, value) {
                    self.restore_call(*seq, row);
                }
            }
            Key::Dead { adapter, n } => {
                if let Some(state) = self.adapters.get_mut(adapter) {
                    state.restore_dead(*n, value.len());
                }
            }
            Key::Timer { adapter, name } => {
                if self.adapters.contains_key(adapter)
                    && let Some(row) = read::<TimerRow>(&key, value)
                {
                    self.restore_timer(adapter.clone(), name.clone(), &row);
                }
            }
            Key::Seen { link, packet } => {
                if let (Some(row), Some(state)) =
                    (read::<SeenRow>(&key, value), self.links.get_mut(link))
                {
                    let state: &mut LinkState = state;
                    state.acks.restore(*packet, row.hash);
                }
            }
            Key::Partial(name) => {
                if let Some(row) = read::<PartialRow>(&key, value)
                    && let Some(target) = self.targets.get_mut(&row.target)
                {
                    target.partial = Some((name.clone(), row));
                }
            }
            Key::Target(name) => {
                if let Some(memory) = read(&key, value)
                    && let Some(target) = self.targets.get_mut(name)
                {
                    target.memory = memory;
                }
            }
            // Read before (adapters and their states), or of a kind this version does not use.
            _ => {}
        }
    }

    fn fresh_row(&self, setup: &crate::platform::AdapterSetup) -> AdapterRow {
        let grants = serde_json::to_vec(&setup.grants).unwrap_or_default();
        AdapterRow {
            digest: setup.component.digest().to_owned(),
            version: setup.description.version.clone(),
            state_version: setup.description.state_version,
            boot_id: self.boot_id.clone(),
            settings: sha256_hex(&[setup.config.as_bytes(), &grants]),
            versions: Versions::default(),
        }
    }

    fn start_reason(&self, before: Option<&AdapterRow>, now: &AdapterRow) -> StartReason {
        match before {
            None => StartReason::Installed,
            Some(row) if row.digest != now.digest => StartReason::Upgraded(row.version.clone()),
            Some(row) if row.boot_id != now.boot_id => StartReason::Booted,
            Some(row) if row.settings != now.settings => StartReason::Reconfigured,
            Some(_) => StartReason::Restarted,
        }
    }

    /// The row of an adapter that has started.
    pub(super) fn adapter_row(&self, adapter: &str) -> Option<Change> {
        let state = self.adapters.get(adapter)?;
        let row = AdapterRow {
            versions: state.versions.clone(),
            ..self.fresh_row(&state.setup)
        };
        Some(Change::Put(Key::Adapter(adapter.to_owned()), json(&row)))
    }
}

fn read<T: serde::de::DeserializeOwned>(key: &Key, value: &[u8]) -> Option<T> {
    match from_json(key, value) {
        Ok(row) => Some(row),
        Err(error) => {
            tracing::error!(%error, "a row of another version of the agent is left alone");
            None
        }
    }
}
