//! A device that can lose power at every single disk operation.
//!
//! The real engine runs on a simulated disk, simulated links and sources, and virtual time. A scenario runs once while the disk
//! records every operation with its bytes and the outer [`World`] (cloud, file server, machine) is noted at each. From that
//! record comes the disk after a cut at any operation, with unsynced writes dropped or kept; the agent starts again on it,
//! runs to the end, and the [`Scenario`]'s promises are checked. (MCUboot's simulator does this for flash operations; here it is done
//! for the whole agent.)

mod alarm;
mod api;
mod client;
mod drone;
mod emu;
mod files;
mod folder;
mod link;
mod machine;
mod outer;
mod read;
mod story;
mod vendors;
mod web;
mod world;

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use otahost::api::{ApiCall, Request};
use otahost::engine::{Engine, Exit, Input};
use otahost::platform::Setup;
use otahost_disk::Seam;
use otahost_disk::sim::{Controls, Image, Loss, Op, Replay, SimDisk};
use tokio::sync::mpsc;

pub use alarm::{Rung, Sink};
pub use api::{Api, Asked};
pub use drone::{Drone, Manner};
pub use emu::{Emu, current};
pub use machine::{Boot, SLOTS, firmware};
pub use read::{check, ended, history, jobs, memory, rows};
pub use story::{
    DOCK_SN, DRONE_SN, EMU_SN, NEW, OLD, Release, Story, dock, is_told, rogue_output, told_later,
    with_rogue,
};
pub use vendors::{KIT_ID, output};
pub use web::{Caller, Heard, Web};
pub use world::{Answer, Delivery, EPOCH, Ending, WallClock, When, World};

use outer::{VirtualTime, platform};

/// Boots one run may take; a device that needs more has got into a loop.
const MAX_BOOTS: u32 = 20;
/// Virtual time one boot may take before the run counts as stuck, where the story does not say otherwise.
const BOOT_TIME: Duration = Duration::from_secs(3_600);
/// Starts of the agent in a row that may fail on a disk that made one operation fail.
const MAX_STARTS: u32 = 3;
/// Virtual time until the agent is started again.
const RESTART: Duration = Duration::from_secs(1);
/// Virtual time after the end in which nothing more may happen.
const SETTLE: Duration = Duration::from_secs(60);

/// A story with promises.
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// The agent's set-up.
    pub setup: Arc<Setup>,
    /// The disk at the start.
    pub image: Image,
    /// The outer world at the start.
    pub world: World,
    /// True once the story is told: what remains has to be quiet.
    pub told: fn(&World) -> bool,
    /// Virtual time one boot may take before the run counts as stuck.
    pub patience: Duration,
    /// Where blocking work happens. With threads a flasher can wait for somebody, and no two runs are the same.
    pub seam: Seam,
    /// What has to hold at the end; `Err` says what does not.
    pub promises: fn(&World, &SimDisk) -> Result<(), String>,
}

/// What may become of writes that were not synced when power goes.
pub const LOSSES: [Loss; 4] = [
    Loss::AllDropped,
    Loss::AllKept,
    Loss::Seeded(1),
    Loss::Seeded(2),
];

/// How a run ended.
pub struct Run {
    /// The disk, with its log.
    pub disk: SimDisk,
    /// The outer world.
    pub world: World,
    /// What went wrong, if anything.
    pub verdict: Result<(), String>,
}

/// What a search over all cuts found.
#[derive(Debug, Default)]
pub struct Found {
    /// Operations of the recorded run.
    pub operations: usize,
    /// Disks that were made.
    pub images: usize,
    /// Runs, after dropping what had been tried before.
    pub runs: usize,
    /// What did not hold, with the cut and the loss.
    pub failures: Vec<String>,
}

impl Found {
    /// Shows some of what did not hold, and ends the test.
    ///
    /// # Panics
    /// When something did not hold.
    pub fn assert_none(&self, name: &str) {
        println!(
            "{name}: {} operations, {} disks, {} runs",
            self.operations, self.images, self.runs
        );
        let shown: Vec<&String> = self.failures.iter().take(5).collect();
        assert!(
            shown.is_empty(),
            "{name}: {} of {} runs failed, such as {shown:#?}",
            self.failures.len(),
            self.runs
        );
    }
}

impl Scenario {
    /// Runs the story as it was written.
    pub fn play(&self) -> Run {
        self.run(SimDisk::from_image(self.image.clone()), self.world.clone())
    }

    /// Runs the story from a disk and a world to the end.
    pub fn run(&self, mut disk: SimDisk, world: World) -> Run {
        let world = Arc::new(Mutex::new(world));
        let verdict = self.drive(&mut disk, &world);
        let world = world.lock().unwrap().clone();
        let verdict = verdict.and_then(|()| (self.promises)(&world, &disk));
        Run {
            disk,
            world,
            verdict,
        }
    }

    /// After a power cut the disk is another one.
    fn drive(&self, disk: &mut SimDisk, world: &Arc<Mutex<World>>) -> Result<(), String> {
        for _ in 0..MAX_BOOTS {
            machine::boot(disk, &mut world.lock().unwrap())?;
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .unwrap();
            let ended = runtime.block_on(self.one_boot(disk, world));
            // Everything the process had in memory goes with the runtime, as with a reboot.
            drop(runtime);
            match ended? {
                Ended::Rebooting => {}
                Ended::PowerCut => *disk = SimDisk::from_image(disk.image(Loss::AllDropped)),
                Ended::Told => return Ok(()),
            }
        }
        Err(format!(
            "the device booted {MAX_BOOTS} times and is not done"
        ))
    }

    async fn one_boot(&self, disk: &SimDisk, world: &Arc<Mutex<World>>) -> Result<Ended, String> {
        let time = VirtualTime::boot(world);
        let ended = {
            let power_cut = {
                let world = world.lock().unwrap();
                let cut = world
                    .power_cuts
                    .iter()
                    .find(|(boot, _)| *boot == world.boots);
                cut.map(|(_, after)| time.moment(time.now() + after))
            };
            let power_cut = async {
                match power_cut {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = power_cut => Ok(Ended::PowerCut),
                ended = self.keep_running(disk, world, time) => ended,
            }
        };
        world.lock().unwrap().past = time.now();
        ended
    }

    /// The agent as its service keeps it running.
    async fn keep_running(
        &self,
        disk: &SimDisk,
        world: &Arc<Mutex<World>>,
        time: VirtualTime,
    ) -> Result<Ended, String> {
        let platform = platform(disk, world, time, self.seam);
        let mut failed = 0;
        loop {
            let engine = match Engine::start(platform.clone(), self.setup.clone()).await {
                Ok(engine) => engine,
                Err(error) => {
                    failed += 1;
                    if failed == MAX_STARTS {
                        return Err(format!("the agent does not start: {error}"));
                    }
                    tokio::time::sleep(RESTART).await;
                    continue;
                }
            };
            failed = 0;
            let sender = engine.sender();
            let mut running = Box::pin(engine.run());
            let mut settled = tokio::time::Instant::now() + SETTLE;
            loop {
                let operator = world.lock().unwrap().operator.first().map(|(at, _)| *at);
                let act = async {
                    match operator {
                        Some(at) => tokio::time::sleep_until(time.moment(at)).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    biased;
                    exit = &mut running => match exit {
                        Exit::Rebooting => return Ok(Ended::Rebooting),
                        Exit::Reload(_) => break,
                        Exit::Stopped => return Err("the agent stopped by itself".into()),
                    },
                    () = act => install(world, &sender),
                    () = tokio::time::sleep_until(settled) => {
                        if (self.told)(&world.lock().unwrap()) {
                            return Ok(Ended::Told);
                        }
                        if u128::from(time.uptime()) > self.patience.as_millis() {
                            return Err("nothing happens any more, and the story is not told".into());
                        }
                        settled = tokio::time::Instant::now() + SETTLE;
                    }
                }
            }
            tokio::time::sleep(RESTART).await;
        }
    }

    /// Records the story once.
    pub fn record(&self, controls: Controls) -> (Run, Vec<World>) {
        self.record_from(self.image.clone(), self.world.clone(), controls)
    }

    /// Records the story once from a disk and a world on. Gives the world before each operation of the disk too.
    ///
    /// # Panics
    /// When the world holds power cuts by time: the log ends with the disk.
    pub fn record_from(&self, image: Image, world: World, controls: Controls) -> (Run, Vec<World>) {
        assert_eq!(world.power_cuts, []);
        let mut disk = SimDisk::from_image(image);
        disk.set_controls(controls);
        let notes: Arc<Mutex<Vec<World>>> = Arc::default();
        let first = world.clone();
        let shared = Arc::new(Mutex::new(world));
        let (watched, kept) = (shared.clone(), notes.clone());
        disk.on_operation(Box::new(move |index| {
            let mut kept = kept.lock().unwrap();
            kept.truncate(index);
            // The machine edits the disk while it holds the world; what it does then is no cut of the agent's.
            let now = watched
                .try_lock()
                .map(|w| w.clone())
                .unwrap_or_else(|_| kept.last().unwrap_or(&first).clone());
            kept.push(now);
        }));
        let verdict = self.drive(&mut disk, &shared);
        disk.on_operation(Box::new(|_| {}));
        let world = shared.lock().unwrap().clone();
        let verdict = verdict.and_then(|()| (self.promises)(&world, &disk));
        let notes = std::mem::take(&mut *notes.lock().unwrap());
        (
            Run {
                disk,
                world,
                verdict,
            },
            notes,
        )
    }

    /// The story holds with the power cut before every `stride`-th operation, whether what was not synced is lost or kept.
    ///
    /// # Panics
    /// When it does not.
    pub fn holds(&self, stride: usize) {
        let losses = [Loss::AllDropped, Loss::AllKept];
        let found = self.cut_everywhere(Controls::default(), &losses, stride);
        found.assert_none(self.name);
    }

    /// The story holds with a second power cut while the first is being recovered from: before every `first`-th operation, and before
    /// every `second`-th after that start.
    ///
    /// # Panics
    /// When it does not.
    pub fn holds_over_two_cuts(&self, first: usize, second: usize) {
        let (run, worlds) = self.record(Controls::default());
        run.verdict.unwrap();
        let record = run.disk.record();
        let mut replay = Replay::new(&record.start);
        for (cut, op) in record.ops.iter().enumerate() {
            if cut % first == 0 {
                let loss = Loss::Seeded(cut as u64);
                let recovering = Scenario {
                    name: self.name,
                    setup: self.setup.clone(),
                    image: replay.image(loss),
                    world: worlds[cut].clone(),
                    told: self.told,
                    patience: self.patience,
                    seam: self.seam,
                    promises: self.promises,
                };
                let losses = [Loss::AllDropped];
                let found = recovering.cut_everywhere(Controls::default(), &losses, second);
                assert!(
                    found.failures.is_empty(),
                    "{}, after a cut before operation {cut}, {loss:?}: {:#?}",
                    self.name,
                    found.failures.first()
                );
            }
            replay.apply(op);
        }
    }

    /// Cuts the power before every operation (or every `stride`-th), in every loss mode, and runs on from there.
    pub fn cut_everywhere(&self, controls: Controls, losses: &[Loss], stride: usize) -> Found {
        let (run, worlds) = self.record(controls);
        let record = run.disk.record();
        let mut found = Found {
            operations: record.ops.len(),
            ..Found::default()
        };
        if let Err(error) = run.verdict {
            found.failures.push(format!("without any cut: {error}"));
        }
        let mut tried = HashSet::new();
        let mut replay = Replay::new(&record.start);
        for cut in 0..=record.ops.len() {
            if cut % stride == 0 {
                let world = worlds.get(cut).unwrap_or(&run.world);
                for loss in losses {
                    let image = replay.image(*loss);
                    found.images += 1;
                    let mut hasher = DefaultHasher::new();
                    (&image, world).hash(&mut hasher);
                    if !tried.insert(hasher.finish()) {
                        continue;
                    }
                    found.runs += 1;
                    let disk = SimDisk::from_image(image);
                    disk.set_controls(controls);
                    if let Err(error) = self.run(disk, world.clone()).verdict {
                        let before = record
                            .ops
                            .get(cut)
                            .map_or_else(|| "the end".to_owned(), describe);
                        found
                            .failures
                            .push(format!("cut {cut} (before {before}), {loss:?}: {error}"));
                    }
                }
            }
            if let Some(op) = record.ops.get(cut) {
                replay.apply(op);
            }
        }
        found
    }
}

fn describe(op: &Op) -> String {
    let mut text = format!("{op:?}");
    text.truncate(
        text.char_indices()
            .nth(120)
            .map_or(text.len(), |(at, _)| at),
    );
    text
}

/// The operator installs a file on the dock, or with `rogue ` before its path another release of that adapter.
fn install(world: &Arc<Mutex<World>>, sender: &mpsc::Sender<Input>) {
    let (_, path) = world.lock().unwrap().operator.remove(0);
    let (reply, mut replies) = mpsc::channel(1);
    let request = match path.strip_prefix("rogue ") {
        Some(component) => Request::AdapterInstall {
            adapter: "rogue".into(),
            path: component.to_owned(),
        },
        None => Request::Install {
            path,
            target: "dock".into(),
            version: None,
            key: None,
        },
    };
    let (world, sender) = (world.clone(), sender.clone());
    tokio::spawn(async move {
        let call = Input::Api(ApiCall { request, reply });
        if sender.send(call).await.is_ok()
            && let Some(heard) = replies.recv().await
        {
            let heard = format!("{heard:?}");
            world.lock().unwrap().operator_heard.push(heard);
        }
    });
}

enum Ended {
    Rebooting,
    PowerCut,
    Told,
}
