//! An agent without adapters, driven by the operator, whose targets, files and versions a test makes up.
#![allow(
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    reason = "tests; not every file uses all of it"
)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use otahost::api::{ApiCall, JobView, Reply, Request};
use otahost::engine::{Engine, Input};
use otahost::platform::{Deadlines, Outside, Platform, Setup, Sources, TargetSetup, TransferSetup};
use otahost_core::backoff::Backoff;
use otahost_core::grants::Grants;
use otahost_core::model::{ArtifactSource, ClockQuality, Install, Instant};
use otahost_core::policy::Policy;
use otahost_disk::sim::SimDisk;
use otahost_disk::{Disk, Place, Seam};
use otahost_flash::Flasher;
use otahost_transfer::{Body, BoxFuture, Opened, Source, SourceError, Trust, Tuning, Validator};
use tokio::sync::mpsc;

pub const HOUR: Duration = Duration::from_secs(3_600);

/// What the test decides of the world.
#[derive(Debug, Default)]
pub struct World {
    /// What each target reports; one that is missing does not answer.
    pub versions: BTreeMap<String, String>,
    /// Targets with a lock file.
    pub locked: Vec<String>,
    /// Files by name, served in this many virtual milliseconds.
    pub files: BTreeMap<String, Vec<u8>>,
    pub serving_takes: u64,
    /// Requests for these names fail so many times first.
    pub refusals: BTreeMap<String, u32>,
    /// Names in the order in which they were asked for.
    pub asked: Vec<String>,
    /// Transfers now, and the most there ever were at once.
    pub open: usize,
    pub most_open: usize,
}

pub type Shared = Arc<Mutex<World>>;

#[derive(Debug)]
struct Around(Shared);

impl Outside for Around {
    fn boot_id(&self) -> String {
        "boot".into()
    }
    fn now(&self) -> Instant {
        1_780_272_000_000
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
        let world = self.0.lock().unwrap();
        world
            .versions
            .get(target)
            .cloned()
            .ok_or_else(|| "it does not answer".into())
    }
    fn probe(&self, _target: &str) -> Result<(), String> {
        Ok(())
    }
    fn locked(&self, target: &str) -> Option<String> {
        let world = self.0.lock().unwrap();
        world
            .locked
            .iter()
            .any(|locked| locked == target)
            .then(|| "/run/no-update".into())
    }
    fn ready(&self, _target: &str) -> Result<(), String> {
        Ok(())
    }
    fn reboot(&self) -> Result<(), String> {
        Ok(())
    }
}

#[derive(Debug)]
struct Files(Shared);

impl Sources for Files {
    fn source(&self, install: &Install, _: &Grants) -> Result<Arc<dyn Source>, SourceError> {
        let ArtifactSource::File(name) = &install.artifact.source else {
            return Err(SourceError::Forbidden("only files here".into()));
        };
        Ok(Arc::new(File {
            world: self.0.clone(),
            name: name.clone(),
        }))
    }
}

#[derive(Debug)]
struct File {
    world: Shared,
    name: String,
}

impl Source for File {
    fn open<'a>(
        &'a self,
        from: u64,
        _validator: Option<&'a Validator>,
    ) -> BoxFuture<'a, Result<Opened, SourceError>> {
        Box::pin(async move {
            let mut world = self.world.lock().unwrap();
            world.asked.push(self.name.clone());
            if let Some(left) = world.refusals.get_mut(&self.name)
                && *left > 0
            {
                *left -= 1;
                return Err(SourceError::Broken("the file is not there yet".into()));
            }
            let file = world.files[&self.name].clone();
            world.open += 1;
            world.most_open = world.most_open.max(world.open);
            let offset = from.min(file.len() as u64);
            Ok(Opened {
                offset,
                total: Some(file.len() as u64),
                validator: Some(Validator("\"1\"".into())),
                published: Vec::new(),
                guessed: false,
                body: Box::new(Serving {
                    world: self.world.clone(),
                    left: Some(file[usize::try_from(offset).unwrap()..].to_vec()),
                    takes: Duration::from_millis(world.serving_takes),
                }),
            })
        })
    }
}

#[derive(Debug)]
struct Serving {
    world: Shared,
    left: Option<Vec<u8>>,
    takes: Duration,
}

impl Body for Serving {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, SourceError>> {
        Box::pin(async move {
            tokio::time::sleep(self.takes).await;
            let left = self.left.take().filter(|left| !left.is_empty());
            Ok(left.map(Bytes::from))
        })
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.world.lock().unwrap().open -= 1;
    }
}

/// An agent that is to be started.
pub struct Bench {
    pub world: Shared,
    pub setup: Setup,
    pub flashers: BTreeMap<String, Arc<dyn Flasher>>,
    pub seam: Seam,
    pub disk: Arc<dyn Disk>,
}

impl Bench {
    /// A device whose journal is in memory.
    pub fn new(seam: Seam) -> Self {
        Bench {
            world: Shared::default(),
            setup: Setup {
                device: "gw-7".into(),
                adapters: vec![],
                faulty: vec![],
                targets: vec![],
                transfer: TransferSetup {
                    attempts: 3,
                    backoff: Backoff {
                        first: 60_000,
                        max: 60_000,
                    },
                    max_size: 1 << 20,
                    parallel: 4,
                    tuning: Tuning::default(),
                },
                deadlines: Deadlines {
                    waiting: HOUR * 100,
                    download: HOUR,
                    prepared: HOUR,
                    install: HOUR,
                    deliver: HOUR,
                    activate: HOUR,
                },
            },
            flashers: BTreeMap::new(),
            seam,
            disk: Arc::new(SimDisk::new()),
        }
    }

    /// A target behind the device that runs version 1.
    pub fn target(&mut self, id: &str, flasher: Arc<dyn Flasher>) {
        self.setup.targets.push(TargetSetup {
            id: id.into(),
            parent: None,
            attributes: vec![],
            trust: Trust::Unsigned,
            compatible: None,
            confirm_within: HOUR,
            confirm_by_adapter: false,
            policy: Policy::default(),
            authority: vec![],
        });
        self.flashers.insert(id.into(), flasher);
        let mut world = self.world.lock().unwrap();
        world.versions.insert(id.into(), "1".into());
    }

    /// Runs the agent in virtual time, and a test against it.
    pub fn run_in_virtual_time<T>(self, test: impl AsyncFnOnce(Agent) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(self.run(test))
    }

    /// The same in real time; a test that takes two minutes has failed.
    pub fn run_for_real<T>(self, test: impl AsyncFnOnce(Agent) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_time()
            .build()
            .unwrap();
        let within = Duration::from_secs(120);
        let result = runtime.block_on(async {
            tokio::time::timeout(within, self.run(test))
                .await
                .expect("the test does not come to its end")
        });
        runtime.shutdown_timeout(Duration::from_secs(30));
        result
    }

    async fn run<T>(self, test: impl AsyncFnOnce(Agent) -> T) -> T {
        let platform = Platform {
            disk: self.disk,
            journal: Place::data("journal.redb"),
            seam: self.seam,
            links: BTreeMap::new(),
            sources: Arc::new(Files(self.world.clone())),
            flashers: self.flashers,
            outside: Arc::new(Around(self.world.clone())),
            workshop: Arc::new(otahost::platform::NoWorkshop),
            alarm: Arc::new(otahost::alerts::NoAlarm),
            process: String::new(),
            locks: Default::default(),
        };
        let engine = Engine::start(platform, Arc::new(self.setup)).await.unwrap();
        let agent = Agent {
            world: self.world,
            to_engine: engine.sender(),
        };
        let stop = agent.to_engine.clone();
        let running = tokio::spawn(engine.run());
        let result = test(agent).await;
        let _ = stop.send(Input::Stop).await;
        running.await.unwrap();
        result
    }
}

/// A running agent.
pub struct Agent {
    pub world: Shared,
    to_engine: mpsc::Sender<Input>,
}

impl Agent {
    pub async fn ask(&self, request: Request) -> mpsc::Receiver<Reply> {
        let (reply, replies) = mpsc::channel(1_000);
        let call = Input::Api(ApiCall { request, reply });
        self.to_engine.send(call).await.unwrap();
        replies
    }

    /// Installs version 2 from this file; gives the job's key.
    pub async fn install(&self, target: &str, file: &str) -> String {
        let request = Request::Install {
            path: format!("/{file}"),
            target: target.into(),
            version: Some("2".into()),
            key: None,
        };
        match self.ask(request).await.recv().await.unwrap() {
            Reply::Accepted { key } => key,
            other => panic!("{other:?}"),
        }
    }

    /// Each state of a job that is told, up to the first for which `wanted` holds.
    pub async fn until(&self, key: &str, wanted: impl Fn(&JobView) -> bool) -> JobView {
        let request = Request::Job {
            key: key.into(),
            follow: true,
        };
        let mut told = self.ask(request).await;
        while let Some(reply) = told.recv().await {
            match reply {
                Reply::Job(job) if wanted(&job) => return *job,
                Reply::Job(job) if job.phase.is_final() => {
                    panic!(
                        "it ended {}: {:?} {:#?}",
                        job.phase, job.reason, job.history
                    )
                }
                Reply::Job(_) => {}
                other => panic!("{other:?}"),
            }
        }
        panic!("the job is not told any more")
    }

    pub async fn end(&self, key: &str) -> JobView {
        self.until(key, |job| job.phase.is_final()).await
    }

    pub async fn job(&self, key: &str) -> JobView {
        let request = Request::Job {
            key: key.into(),
            follow: false,
        };
        match self.ask(request).await.recv().await.unwrap() {
            Reply::Job(job) => *job,
            other => panic!("{other:?}"),
        }
    }

    /// Asks something that is answered with `done`.
    pub async fn tell(&self, request: Request) {
        let reply = self.ask(request).await.recv().await.unwrap();
        assert_eq!(reply, Reply::Done);
    }

    pub fn set_version(&self, target: &str, version: Option<&str>) {
        let mut world = self.world.lock().unwrap();
        match version {
            Some(version) => world.versions.insert(target.into(), version.into()),
            None => world.versions.remove(target),
        };
    }
}
