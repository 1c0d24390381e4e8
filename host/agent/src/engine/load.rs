//! Start: everything from the journal, the same after a reboot, a crash, a failed commit or a first installation.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use otahost_core::secret::Secret;
use otahost_journal::{Change, Committer, JournalError, Key, from_json};
use otahost_links::{Kind, LinkCommand};
use tokio::sync::mpsc;

use super::jobs::{observed, read_job};
use super::keeping::{self, Found};
use super::links::LinkState;
use super::rows::{InboxRow, OutboxRow, PartialRow, SecretRow, SeenRow, StartsRow, TimerRow};
use super::standing::Begun;
use super::timers::Timers;
use super::trace;
use super::vitals::Vitals;
use super::{Engine, INPUTS, TargetState};
use crate::platform::{Platform, Setup};

impl Engine {
    /// Opens the journal and takes up where it stands: connects the links and goes on with the jobs. No adapter steps, and nothing
    /// leaves, before [`Engine::run`]. With a journal that cannot be used it is an engine in safe mode that keeps nothing, and ends with
    /// [`super::Exit::Reload`] once the journal can be used.
    ///
    /// # Errors
    /// None is known.
    pub async fn start(platform: Platform, setup: Arc<Setup>) -> Result<Engine, JournalError> {
        let (disk, place, seam) = (
            platform.disk.clone(),
            platform.journal.clone(),
            platform.seam,
        );
        let boot_id = platform.outside.boot_id();
        let (of, at) = (disk.clone(), place.clone());
        let found = seam
            .run(move || keeping::take_up(&of, &at, &boot_id))
            .await?;
        match Engine::begin(platform.clone(), setup.clone(), found).await {
            // It can be opened and takes no commit.
            Err(error) => {
                let found = seam
                    .run(move || keeping::without(&disk, &place, &error))
                    .await?;
                Engine::begin(platform, setup, found).await
            }
            begun => begun,
        }
    }

    async fn begin(
        platform: Platform,
        setup: Arc<Setup>,
        found: Found,
    ) -> Result<Engine, JournalError> {
        let Found {
            journal,
            mut rows,
            keeping,
        } = found;
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
            keeping,
            next_job: 1,
            next_publication: 1,
            pending: VecDeque::new(),
            next_commit: 0,
            early: None,
            garbage: Vec::new(),
            garbage_due: None,
            relief_due: None,
            steps_due: None,
            replays: Arc::new(tokio::sync::Semaphore::new(1)),
            rebooting: None,
            reboot_asked: false,
            rate: 0,
            watchers: Vec::new(),
            exit: None,
            platform,
            setup,
        };
        engine.observe_all().await;
        let counted = engine.restore_vitals(&mut rows);
        if !counted.is_empty() {
            engine.committer.commit(counted).await?;
        }
        engine.vitals.safe_mode |= engine.keeping.missing.is_some();
        let begun = engine.choose_versions(&rows).await;
        if !engine.vitals.safe_mode {
            engine.start_links();
        }
        engine.restore(rows, begun);
        engine.mind_the_journal();
        engine.resume_jobs();
        engine.look_for_orphans();
        engine.go_round();
        Ok(engine)
    }

    async fn observe_all(&mut self) {
        for target in self.setup.targets.clone() {
            let (outside, seam) = (self.platform.outside.clone(), self.platform.seam);
            let asked = target.id.clone();
            let (version, health) = seam.run(move || observed(outside.as_ref(), &asked)).await;
            self.on_observed(&target.id, version, health);
        }
    }

    fn restore_vitals(&mut self, rows: &mut [(Key, Vec<u8>)]) -> Vec<Change> {
        let mut starts = StartsRow::default();
        for (key, value) in &*rows {
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
        self.count_start(&starts, rows)
    }

    fn restore(&mut self, rows: Vec<(Key, Vec<u8>)>, begun: Begun) {
        self.restore_secrets(&rows);
        let mut traces = trace::Rows::new();
        for (key, value) in rows {
            match key {
                Key::Trace { adapter, n } => traces.entry(adapter).or_default().push((n, value)),
                key => self.restore_row(key, &value),
            }
        }
        self.restore_traces(traces);
        self.commit_begun(begun);
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
                Key::Job(_)
                    | Key::Target(_)
                    | Key::Partial(_)
                    | Key::Alert { .. }
                    | Key::Dead { .. }
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
                let old = self.is_too_old(row.at);
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
                    state.restore_dead(*n, value.to_vec());
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
}

pub(super) fn read<T: serde::de::DeserializeOwned>(key: &Key, value: &[u8]) -> Option<T> {
    match from_json(key, value) {
        Ok(row) => Some(row),
        Err(error) => {
            tracing::error!(%error, "a row of another version of the agent is left alone");
            None
        }
    }
}
