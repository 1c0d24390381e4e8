//! A native test bench: feeds events to an adapter and shows its effects, under the rules of the host.
//!
//! What the host would do, the bench does: the configuration and the state go through JSON at every event, a step that breaks a
//! limit of the contract or has an undeclared effect is discarded whole, and nothing moves by itself: time advances when the
//! test says so, and jobs stand where the test puts them.
//!
//! The example `acme` beside this crate shows it at work.

mod inbound;
mod outbound;

pub use inbound::{alerts, file, listings, responses};
pub use outbound::{fetched, retries};

use std::cell::{Cell, RefCell};
use std::fmt;
use std::marker::PhantomData;

use serde::Serialize;

use crate::{
    Adapter, ClockQuality, Description, Effect, Event, Health, InstallReport, JobPlan, JobReport,
    JobSummary, Level, LinkState, Message, Phase, Publication, Requirements, StartReason, Target,
    Timer, Verdict, View, limits, step,
};

/// The most bytes the log takes in one step.
const MAX_LOG: usize = 64 * 1024;
/// The most random bytes in one call.
const MAX_RANDOM: u32 = 4_096;

/// What the adapter sees of the device. Every field may be changed between two events.
#[derive(Debug, Clone, PartialEq)]
pub struct World {
    /// Wall-clock time in milliseconds since the Unix epoch.
    pub now: u64,
    /// How far `now` can be trusted.
    pub clock: ClockQuality,
    /// Milliseconds since boot.
    pub uptime: u64,
    /// Changes with every boot.
    pub boot_id: String,
    /// Optional things the host can do.
    pub features: Vec<String>,
    /// The targets granted. `busy` is shown as it stands here.
    pub targets: Vec<Target>,
    /// The newest report of each job, ended ones included. [`Bench::report`] keeps it.
    pub jobs: Vec<JobReport>,
    /// The verdict on a plan whose key and targets are free.
    pub verdict: Verdict,
    /// The answer to every question how long an update takes.
    pub estimate_seconds: u64,
}

impl Default for World {
    /// 2026-01-01T00:00:00Z on a synced clock, a minute after boot `boot-1`; no targets, no jobs, every plan is allowed.
    fn default() -> Self {
        World {
            now: 1_767_225_600_000,
            clock: ClockQuality::Synced,
            uptime: 60_000,
            boot_id: "boot-1".into(),
            features: Vec::new(),
            targets: Vec::new(),
            jobs: Vec::new(),
            verdict: Verdict::Allow,
            estimate_seconds: 300,
        }
    }
}

/// An adapter on the bench.
pub struct Bench<A: Adapter> {
    /// What the adapter sees.
    pub world: World,
    /// What it asked for with this configuration.
    pub requirements: Requirements,
    config: String,
    state: Vec<u8>,
    steps: u64,
    log: Vec<(Level, String)>,
    adapter: PhantomData<fn() -> A>,
}

// By hand: a derive would ask it of the author's type too.
impl<A: Adapter> fmt::Debug for Bench<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bench")
            .field("world", &self.world)
            .field("state", &String::from_utf8_lossy(&self.state))
            .field("steps", &self.steps)
            .finish_non_exhaustive()
    }
}

impl<A: Adapter> Bench<A> {
    /// A fresh adapter with this configuration (JSON), before its first event.
    ///
    /// # Errors
    /// What is wrong with the configuration, one sentence each, as the operator would read them; or a requirement or a
    /// description outside the contract's limits.
    pub fn new(config: &str) -> Result<Self, Vec<String>> {
        let requirements = step::requirements::<A>(config)?;
        limits::check_requirements(&requirements).map_err(|what| vec![what])?;
        check_description(&A::describe()).map_err(|what| vec![what])?;
        Ok(Bench {
            world: World::default(),
            requirements,
            config: config.to_owned(),
            state: Vec::new(),
            steps: 0,
            log: Vec::new(),
            adapter: PhantomData,
        })
    }

    /// The same, with a world to begin in.
    ///
    /// # Errors
    /// As [`Bench::new`].
    pub fn in_world(config: &str, world: World) -> Result<Self, Vec<String>> {
        Ok(Bench {
            world,
            ..Self::new(config)?
        })
    }

    /// Feeds one event and gives the effects in order.
    ///
    /// # Errors
    /// Why the step came to nothing: the adapter refused the event, or the step breaks a limit or has an undeclared effect. The
    /// state is as it was.
    pub fn send(&mut self, event: Event) -> Result<Vec<Effect>, String> {
        let view = Frozen {
            world: &self.world,
            seed: Cell::new(self.steps),
            log: RefCell::new(Vec::new()),
        };
        self.steps += 1;
        let outcome = step::handle::<A>(&self.state, event, &self.config, &view);
        let mut left = MAX_LOG;
        for (level, mut line) in view.log.into_inner() {
            while line.len() > left {
                line.pop();
            }
            left -= line.len();
            if !line.is_empty() {
                self.log.push((level, line));
            }
        }
        let (state, effects) = outcome?;
        limits::check_step(&state, &effects, &self.requirements)?;
        if let Some(Effect::Extension(unknown)) = effects
            .iter()
            .find(|e| matches!(e, Effect::Extension(x) if !self.world.features.contains(&x.name)))
        {
            return Err(format!(
                "the extension {} is none that `features` lists",
                unknown.name
            ));
        }
        self.state = state;
        Ok(effects)
    }

    /// Tells the adapter that it starts.
    ///
    /// # Errors
    /// As [`Bench::send`].
    pub fn start(&mut self, reason: StartReason) -> Result<Vec<Effect>, String> {
        self.send(Event::Started(reason))
    }

    /// Lets an MQTT message with this value as JSON arrive, neither a duplicate nor retained.
    ///
    /// # Errors
    /// As [`Bench::send`]; also where no declared subscription covers the topic, because then it never would arrive.
    pub fn message(
        &mut self,
        link: &str,
        topic: &str,
        payload: &impl Serialize,
    ) -> Result<Vec<Effect>, String> {
        let payload = serde_json::to_vec(payload)
            .map_err(|e| format!("the test's payload has no JSON form: {e}"))?;
        self.message_bytes(link, topic, payload)
    }

    /// Lets an MQTT message with this payload arrive, neither a duplicate nor retained.
    ///
    /// # Errors
    /// As [`Bench::message`].
    pub fn message_bytes(
        &mut self,
        link: &str,
        topic: &str,
        payload: impl Into<Vec<u8>>,
    ) -> Result<Vec<Effect>, String> {
        let covered = self
            .requirements
            .topics
            .iter()
            .filter(|needs| needs.link == link)
            .flat_map(|needs| &needs.subscribe)
            .any(|filter| crate::topic::matches(filter, topic));
        if !covered {
            return Err(format!(
                "the adapter subscribes to nothing on link {link} that covers {topic}"
            ));
        }
        self.send(Event::Message(Message {
            link: link.into(),
            topic: topic.into(),
            payload: payload.into(),
            duplicate: false,
            retained: false,
        }))
    }

    /// Tells the adapter that a link came up, or went down for a reason.
    ///
    /// # Errors
    /// As [`Bench::send`].
    pub fn link(
        &mut self,
        link: &str,
        up: bool,
        session_present: bool,
    ) -> Result<Vec<Effect>, String> {
        let reason = if up {
            String::new()
        } else {
            "connection lost".to_owned()
        };
        self.send(Event::Link(LinkState {
            link: link.into(),
            up,
            session_present,
            reason,
        }))
    }

    /// Puts this report among the world's jobs, in place of the former one, and tells the adapter.
    ///
    /// # Errors
    /// As [`Bench::send`].
    pub fn report(&mut self, report: JobReport) -> Result<Vec<Effect>, String> {
        self.set_job(report.clone());
        self.send(Event::Job(report))
    }

    /// Puts this report among the world's jobs, in place of the former one, without telling the adapter.
    pub fn set_job(&mut self, report: JobReport) {
        match self
            .world
            .jobs
            .iter_mut()
            .find(|j| j.key == report.key && j.foreign == report.foreign)
        {
            Some(former) => *former = report,
            None => self.world.jobs.push(report),
        }
    }

    /// Lets a timer fire.
    ///
    /// # Errors
    /// As [`Bench::send`].
    pub fn timer(&mut self, name: &str) -> Result<Vec<Effect>, String> {
        self.send(Event::Timer(name.into()))
    }

    /// Lets so many milliseconds pass on both clocks. Fires nothing.
    pub fn advance(&mut self, milliseconds: u64) {
        self.world.now += milliseconds;
        self.world.uptime += milliseconds;
    }

    /// Reboots the device: another boot id, and the uptime begins at `uptime` milliseconds. Tells nobody: [`Bench::start`] with
    /// [`StartReason::Booted`] does.
    pub fn reboot(&mut self, boot_id: &str, uptime: u64) {
        self.world.boot_id = boot_id.into();
        self.world.uptime = uptime;
    }

    /// The state as the host would store it: JSON, empty before the first event.
    pub fn state(&self) -> &[u8] {
        &self.state
    }

    /// Puts a stored state in place, for example one of an older version.
    pub fn set_state(&mut self, state: impl Into<Vec<u8>>) {
        self.state = state.into();
    }

    /// The state as the adapter would read it.
    ///
    /// # Errors
    /// Why the stored state cannot be read.
    pub fn read_state(&self) -> Result<A::State, String> {
        step::read_state::<A>(&self.state)
    }

    /// The lines logged so far, oldest first, cut at 64 KiB a step.
    pub fn log(&self) -> &[(Level, String)] {
        &self.log
    }
}

/// Limits of `describe`.
fn check_description(description: &Description) -> Result<(), String> {
    if description.protocol.is_empty() || description.protocol.len() > 100 {
        return Err(format!(
            "`describe` names a protocol of {} bytes; it takes 1 to 100",
            description.protocol.len()
        ));
    }
    if description.config_schema.len() > 32 * 1024 {
        return Err(format!(
            "`describe` has a schema of {} bytes; the limit is 32 KiB",
            description.config_schema.len()
        ));
    }
    serde_json::from_str::<serde_json::Value>(&description.config_schema)
        .map_err(|e| format!("the schema in `describe` is no JSON: {e}"))?;
    Ok(())
}

/// The world during one step.
struct Frozen<'a> {
    world: &'a World,
    seed: Cell<u64>,
    log: RefCell<Vec<(Level, String)>>,
}

impl View for Frozen<'_> {
    fn now(&self) -> u64 {
        self.world.now
    }

    fn clock(&self) -> ClockQuality {
        self.world.clock
    }

    fn uptime(&self) -> u64 {
        self.world.uptime
    }

    fn boot_id(&self) -> String {
        self.world.boot_id.clone()
    }

    fn random(&self, length: u32) -> Vec<u8> {
        // SplitMix64: ids on the bench need to differ, not to be secret. Steps lie far apart in its sequence.
        let mut bytes = Vec::new();
        let length = length.min(MAX_RANDOM) as usize;
        let mut state = self.seed.get().rotate_left(32);
        while bytes.len() < length {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            bytes.extend_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes());
        }
        bytes.truncate(length);
        self.seed.set(state.rotate_right(32));
        bytes
    }

    fn features(&self) -> Vec<String> {
        self.world.features.clone()
    }

    fn targets(&self) -> Vec<Target> {
        self.world.targets.clone()
    }

    fn job(&self, key: &str) -> Option<JobReport> {
        self.world
            .jobs
            .iter()
            .find(|job| job.key == key && !job.foreign)
            .cloned()
    }

    fn active_jobs(&self) -> Vec<JobSummary> {
        let active = self.world.jobs.iter().filter(|job| !job.phase.is_final());
        active
            .map(|job| JobSummary {
                key: job.key.clone(),
                foreign: job.foreign,
                phase: job.phase,
                targets: job
                    .installs
                    .iter()
                    .map(|install| install.target.clone())
                    .collect(),
            })
            .collect()
    }

    fn check_job(&self, plan: &JobPlan) -> Verdict {
        let holder = self
            .world
            .jobs
            .iter()
            .filter(|job| !job.phase.is_final())
            .find(|job| {
                (job.key == plan.key && !job.foreign)
                    || job.installs.iter().any(|held| {
                        plan.installs
                            .iter()
                            .any(|wanted| wanted.target == held.target)
                    })
            });
        match holder {
            Some(job) if job.foreign => Verdict::Busy("-".into()),
            Some(job) => Verdict::Busy(job.key.clone()),
            None => self.world.verdict.clone(),
        }
    }

    fn estimate_seconds(&self, _target: &str, _bytes: u64) -> u64 {
        self.world.estimate_seconds
    }

    fn log(&self, level: Level, message: &str) {
        self.log.borrow_mut().push((level, message.to_owned()));
    }
}

/// The MQTT messages among these effects, in order.
pub fn published(effects: &[Effect]) -> Vec<&Publication> {
    effects
        .iter()
        .filter_map(|e| {
            if let Effect::Publish(p) = e {
                Some(p)
            } else {
                None
            }
        })
        .collect()
}

/// The plans of jobs among these effects, in order.
pub fn started(effects: &[Effect]) -> Vec<&JobPlan> {
    effects
        .iter()
        .filter_map(|e| {
            if let Effect::StartJob(p) = e {
                Some(p)
            } else {
                None
            }
        })
        .collect()
}

/// The timers set among these effects, in order.
pub fn timers(effects: &[Effect]) -> Vec<&Timer> {
    effects
        .iter()
        .filter_map(|e| {
            if let Effect::SetTimer(t) = e {
                Some(t)
            } else {
                None
            }
        })
        .collect()
}

/// A healthy target of this version with no parent and no attributes.
pub fn target(id: &str, version: &str) -> Target {
    Target {
        id: id.into(),
        parent: None,
        version: Some(version.into()),
        health: Health::Healthy,
        observed: None,
        attributes: Vec::new(),
        busy: None,
    }
}

/// The report of a job of this plan in this phase, its installs likewise, with nothing received yet.
pub fn report(plan: &JobPlan, phase: Phase) -> JobReport {
    JobReport {
        key: plan.key.clone(),
        foreign: false,
        context: plan.context.clone(),
        phase,
        paused: false,
        until: None,
        reason: None,
        rate: 0,
        installs: plan
            .installs
            .iter()
            .map(|install| InstallReport {
                target: install.target.clone(),
                phase,
                received: 0,
                total: install.artifact.size,
                percent: 0,
                old_version: None,
                new_version: install.version.clone(),
                reason: None,
            })
            .collect(),
    }
}
