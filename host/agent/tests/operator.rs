//! What a person at the device asks of the engine: what went wrong, what is allowed again, what shall stop for now.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use otahost::api::{ApiCall, ErrorCode, JobView, MemoryView, Reply, Request, StatusView};
use otahost::engine::{Engine, Input};
use otahost::platform::{Deadlines, Outside, Platform, Setup, Sources, TargetSetup, TransferSetup};
use otahost_core::backoff::Backoff;
use otahost_core::grants::Grants;
use otahost_core::job::{GateAt, Job, Outcome};
use otahost_core::model::{
    Apply, Artifact, ArtifactSource, ClockQuality, Dedupe, Install, Instant, JobPlan, Phase, Reason,
};
use otahost_core::policy::Policy;
use otahost_core::policy::memory::TargetMemory;
use otahost_disk::sim::{Loss, SimDisk};
use otahost_disk::{Disk, Place, Seam};
use otahost_journal::{Change, Journal, Key, from_json, json};
use otahost_transfer::{Source, SourceError, Trust, Tuning};
use tokio::sync::mpsc;

const HOUR: Duration = Duration::from_secs(3_600);
const NOW: Instant = 1_780_272_000_000;
const IMAGE: &str = "abababababababababababababababababababababababababababababababab";

/// A device whose targets are locked while it says so. `dock` tells its version, `drone` does not.
#[derive(Debug, Default)]
struct Device {
    locked: AtomicBool,
}

impl Outside for Device {
    fn boot_id(&self) -> String {
        "boot".into()
    }
    fn now(&self) -> Instant {
        NOW
    }
    fn clock(&self) -> ClockQuality {
        ClockQuality::Synced
    }
    fn uptime(&self) -> u64 {
        0
    }
    fn seed(&self) -> [u8; 32] {
        [7; 32]
    }
    fn version(&self, target: &str) -> Result<String, String> {
        match target {
            "dock" => Ok("1.0".into()),
            _ => Err("no such file".into()),
        }
    }
    fn probe(&self, _target: &str) -> Result<(), String> {
        Ok(())
    }
    fn locked(&self, _target: &str) -> Option<String> {
        let locked = self.locked.load(Ordering::Relaxed);
        locked.then(|| "/run/no-updates".into())
    }
    fn ready(&self, _target: &str) -> Result<(), String> {
        Ok(())
    }
    fn reboot(&self) -> Result<(), String> {
        Ok(())
    }
}

/// There is nothing to fetch.
#[derive(Debug)]
struct NoSources;

impl Sources for NoSources {
    fn source(&self, _: &Install, _: &Grants) -> Result<Arc<dyn Source>, SourceError> {
        Err(SourceError::Broken("nothing is fetched here".into()))
    }
}

fn target(id: &str) -> TargetSetup {
    TargetSetup {
        id: id.into(),
        parent: None,
        attributes: vec![],
        trust: Trust::Unsigned,
        compatible: None,
        confirm_within: HOUR,
        confirm_by_adapter: false,
        policy: Policy::default(),
        authority: vec![],
    }
}

struct Bench {
    disk: SimDisk,
    device: Arc<Device>,
}

impl Bench {
    /// A device with these rows in its journal.
    fn new(rows: &[Change]) -> Self {
        let disk = SimDisk::new();
        let journal = Journal::open(Arc::new(disk.clone()), place()).unwrap();
        journal.commit(rows).unwrap();
        Bench {
            disk,
            device: Arc::default(),
        }
    }

    /// Has the agent answer each of the questions, one after the other, and stops it.
    fn ask(&self, questions: Vec<Request>) -> Vec<Reply> {
        let answers = self.try_ask(questions, || {});
        answers.into_iter().map(Option::unwrap).collect()
    }

    /// The same, for an agent that may owe an answer. `before` is called when it runs.
    fn try_ask(&self, questions: Vec<Request>, before: impl FnOnce()) -> Vec<Option<Reply>> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
            let platform = Platform {
                disk,
                journal: place(),
                seam: Seam::Inline,
                links: BTreeMap::new(),
                sources: Arc::new(NoSources),
                flashers: BTreeMap::new(),
                workshop: Arc::new(otahost::platform::NoWorkshop),
                alarm: Arc::new(otahost::alerts::NoAlarm),
                outside: self.device.clone(),
                process: String::new(),
                locks: Default::default(),
            };
            let setup = Setup {
                device: "gw-7".into(),
                adapters: vec![],
                faulty: vec![],
                targets: vec![target("dock"), target("drone")],
                transfer: TransferSetup {
                    attempts: 8,
                    backoff: Backoff {
                        first: 1_000,
                        max: 60_000,
                    },
                    max_size: 1 << 20,
                    parallel: 4,
                    tuning: Tuning::default(),
                },
                deadlines: Deadlines {
                    waiting: HOUR,
                    download: HOUR,
                    prepared: HOUR,
                    install: HOUR,
                    deliver: HOUR,
                    activate: HOUR,
                },
            };
            let engine = Engine::start(platform, Arc::new(setup)).await.unwrap();
            let to_engine = engine.sender();
            let running = tokio::spawn(engine.run());
            // It writes what every start writes.
            tokio::time::sleep(Duration::from_secs(100)).await;
            before();
            let mut answers = Vec::new();
            for request in questions {
                let (reply, mut replies) = mpsc::channel(4);
                let call = Input::Api(ApiCall { request, reply });
                to_engine.send(call).await.unwrap();
                answers.push(replies.recv().await);
                // What the answer set going comes to rest.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            // It may have ended by itself.
            let _ = to_engine.send(Input::Stop).await;
            running.await.unwrap();
            answers
        })
    }

    fn status(&self) -> StatusView {
        let Reply::Status(status) = self.ask(vec![Request::Status]).remove(0) else {
            panic!("no status")
        };
        *status
    }

    fn memory(&self) -> MemoryView {
        self.status().targets.remove(0).memory
    }
}

fn place() -> Place {
    Place::data("journal.redb")
}

/// A job that has ended, with an outcome for each of its targets.
fn ended(id: u64, outcomes: &[(&str, Phase)]) -> Change {
    let install = |(target, _): &(&str, Phase)| Install {
        target: (*target).to_owned(),
        artifact: Artifact {
            source: ArtifactSource::File("/f".into()),
            size: None,
            digests: vec![],
            identity: None,
        },
        version: format!("{id}.0"),
    };
    let plan = JobPlan {
        key: format!("k{id}"),
        dedupe: Dedupe::WhileActive,
        context: vec![],
        installs: outcomes.iter().map(install).collect(),
        apply: Apply::Immediately,
    };
    let reason = Reason::new("probe-failed", "confirm", "it is not well");
    let mut job = Job::rejected(id, "dji", plan, reason.clone(), NOW);
    for (state, (_, phase)) in job.installs.iter_mut().zip(outcomes) {
        state.image_sha256 = Some(IMAGE.into());
        state.outcome = Some(Outcome {
            phase: *phase,
            reason: (*phase != Phase::Succeeded).then(|| reason.clone()),
        });
    }
    job.phase = outcomes[0].1;
    Change::Put(Key::Job(id), json(&job))
}

fn remembered(memory: &TargetMemory) -> Change {
    Change::Put(Key::Target("dock".into()), json(memory))
}

fn two_bad_images() -> TargetMemory {
    let mut memory = TargetMemory::default();
    memory.rolled_back("cd", &["md5:11".into()], "1.9");
    memory.rolled_back(IMAGE, &[], "2.0");
    memory.rolled_back(IMAGE, &[], "2.0");
    memory.activated(NOW - 3_600_000);
    memory.activated(NOW - 25 * 3_600_000);
    memory.confirmed("ef", Some(7));
    memory
}

fn clear(target: &str, image: Option<&str>) -> Request {
    Request::Clear {
        target: target.into(),
        image: image.map(str::to_owned),
    }
}

#[test]
fn after_a_rollback_the_status_says_what_failed_and_what_is_remembered() {
    let bench = Bench::new(&[
        ended(2, &[("dock", Phase::RolledBack)]),
        remembered(&two_bad_images()),
    ]);
    let status = bench.status();
    let memory = &status.targets[0].memory;
    let failure = memory.last_failed.as_ref().unwrap();
    assert_eq!(
        (
            failure.job.as_str(),
            failure.phase,
            failure.version.as_str()
        ),
        ("k2", Phase::RolledBack, "2.0")
    );
    assert_eq!(failure.sha256.as_deref(), Some(IMAGE));
    assert_eq!(failure.reason.as_ref().unwrap().text, "it is not well");
    let bad: Vec<_> = memory
        .bad
        .iter()
        .map(|b| (b.version.as_str(), b.rollbacks, b.refused_always))
        .collect();
    assert_eq!(bad, [("1.9", 1, false), ("2.0", 2, true)]);
    assert_eq!(
        (memory.activations, memory.activations_allowed),
        (1, 4),
        "one of them is older than a day"
    );
    assert_eq!((memory.activations_until, memory.rollback_index), (None, 7));
    let drone = &status.targets[1];
    assert_eq!(drone.memory.last_failed, None);
    assert_eq!(drone.version_fault.as_deref(), Some("no such file"));
    assert_eq!(status.targets[0].version_fault, None);
}

#[test]
fn the_last_failure_is_the_newest_rollback_since_the_last_success() {
    use Phase::{Cancelled, Failed, Rejected, RollbackFailed, RolledBack, Succeeded};
    let cases: &[(&[Phase], Option<&str>)] = &[
        (&[], None),
        (&[Succeeded], None),
        (&[RolledBack, Succeeded], None),
        (&[RolledBack, Failed, Failed], Some("k1")),
        (&[RolledBack, RollbackFailed], Some("k2")),
        (&[Failed, Failed, Cancelled, Rejected], Some("k2")),
        (&[RolledBack, Succeeded, Failed], Some("k3")),
    ];
    for (phases, expected) in cases {
        let rows: Vec<_> = (1..)
            .zip(*phases)
            .map(|(id, phase)| ended(id, &[("dock", *phase)]))
            .collect();
        let failure = Bench::new(&rows).memory().last_failed;
        assert_eq!(failure.map(|f| f.job).as_deref(), *expected, "{phases:?}");
    }
    // Of a job for several targets each has its own.
    let bench = Bench::new(&[ended(1, &[("dock", Succeeded), ("drone", RolledBack)])]);
    let targets = bench.status().targets;
    assert_eq!(targets[0].memory.last_failed, None);
    assert!(targets[1].memory.last_failed.is_some());
}

#[test]
fn what_the_operator_clears_is_allowed_again_and_no_power_cut_after_the_answer_undoes_it() {
    for (image, cleared, left) in [
        (Some("2.0"), 1, vec!["cd"]),
        (Some("md5:11"), 1, vec![IMAGE]),
        (Some("3.0"), 0, vec!["cd", IMAGE]),
        (None, 2, vec![]),
    ] {
        let bench = Bench::new(&[remembered(&two_bad_images())]);
        let answers = bench.ask(vec![clear("dock", image)]);
        assert_eq!(answers, [Reply::Cleared { images: cleared }], "{image:?}");
        let disk = SimDisk::from_image(bench.disk.image(Loss::AllDropped));
        let journal = Journal::open(Arc::new(disk), place()).unwrap();
        let key = Key::Target("dock".into());
        let row = journal.get(&key).unwrap().unwrap();
        let memory: TargetMemory = from_json(&key, &row).unwrap();
        let bad: Vec<_> = memory.bad.iter().map(|b| b.sha256.as_str()).collect();
        assert_eq!(bad, left, "{image:?}");
        assert_eq!(memory.rollback_index, 7, "the rest is remembered");
    }
}

#[test]
fn what_could_not_be_made_durable_is_not_said_to_be_cleared() {
    let bench = Bench::new(&[remembered(&two_bad_images())]);
    let fail = || bench.disk.fail_after(0, ErrorKind::StorageFull);
    let answers = bench.try_ask(vec![clear("dock", None)], fail);
    assert_eq!(answers, [None]);
}

#[test]
fn a_target_that_does_not_exist_has_nothing_to_clear() {
    let bench = Bench::new(&[remembered(&two_bad_images())]);
    let Reply::Error { code, message } = bench.ask(vec![clear("deck", None)]).remove(0) else {
        panic!("cleared")
    };
    assert_eq!(code, ErrorCode::UnknownTarget);
    assert!(message.contains("dock, drone"), "{message}");
    assert_eq!(bench.memory().bad.len(), 2);
}

#[test]
fn a_job_that_waits_says_at_what_and_can_be_paused_and_resumed() {
    let bench = Bench::new(&[ended(1, &[("dock", Phase::RolledBack)])]);
    bench.device.locked.store(true, Ordering::Relaxed);
    let job = || Request::Job {
        key: "operator/2".into(),
        follow: false,
    };
    let pause = |key: &str| Request::Pause { key: key.into() };
    let resume = |key: &str| Request::Resume { key: key.into() };
    let answers = bench.ask(vec![
        Request::Install {
            path: "/f".into(),
            target: "dock".into(),
            version: Some("2.0".into()),
            key: None,
        },
        job(),
        pause("operator/2"),
        pause("operator/2"),
        job(),
        resume("operator/2"),
        resume("operator/2"),
        job(),
        pause("no-such-job"),
        resume("k1"),
    ]);
    let view = |at: usize| -> &JobView {
        let Reply::Job(job) = &answers[at] else {
            panic!("{:?}", answers[at])
        };
        job
    };
    let waits = view(1);
    assert_eq!(
        (waits.phase, waits.gate, waits.paused),
        (Phase::Waiting, Some(GateAt::Begin), false)
    );
    assert!(
        waits
            .reason
            .as_ref()
            .unwrap()
            .text
            .contains("/run/no-updates")
    );
    let left = waits.time_left.unwrap();
    assert!((3_590_000..=3_600_000).contains(&left), "{left}");
    assert_eq!((waits.allowed_attempts, waits.when_told), (8, false));
    assert!(view(4).paused);
    let last = view(7);
    assert_eq!((last.phase, last.paused), (Phase::Waiting, false));
    for at in [2, 3, 5, 6] {
        assert_eq!(answers[at], Reply::Done, "{at}");
    }
    for (at, expected) in [(8, ErrorCode::UnknownJob), (9, ErrorCode::Refused)] {
        let Reply::Error { code, .. } = &answers[at] else {
            panic!("{:?}", answers[at])
        };
        assert_eq!(*code, expected);
    }
}
