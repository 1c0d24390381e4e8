//! A device that can lose power at every single disk operation.
//!
//! The real engine runs on a simulated disk, simulated links and sources, and virtual time. A scenario runs once while the disk
//! records every operation with its bytes and the outer [`World`] (cloud, file server, machine) is noted at each. From that
//! record comes the disk after a cut at any operation, with unsynced writes dropped or kept; the agent starts again on it,
//! runs to the end, and the [`Scenario`]'s promises are checked. (MCUboot's simulator does this for flash operations; here it is done
//! for the whole agent.)

mod machine;
mod outer;
mod world;

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use otahost::engine::{Engine, Exit};
use otahost::platform::Setup;
use otahost_disk::sim::{Controls, Image, Loss, Op, Replay, SimDisk};

mod story;

pub use machine::{Boot, SLOTS, firmware};
pub use story::{dock, ota_create, rogue_output, with_rogue};
pub use world::{Delivery, World};

use outer::platform;

/// Boots one run may take; a device that needs more has got into a loop.
const MAX_BOOTS: u32 = 20;
/// Virtual time one boot may take before the run counts as stuck.
const BOOT_TIME: Duration = Duration::from_secs(3_600);
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
    /// What has to hold at the end; `Err` says what does not.
    pub promises: fn(&World, &SimDisk) -> Result<(), String>,
}

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

impl Scenario {
    /// Runs the story from a disk and a world to the end.
    pub fn run(&self, disk: SimDisk, world: World) -> Run {
        let world = Arc::new(Mutex::new(world));
        let verdict = self.drive(&disk, &world);
        let world = world.lock().unwrap().clone();
        let verdict = verdict.and_then(|()| (self.promises)(&world, &disk));
        Run {
            disk,
            world,
            verdict,
        }
    }

    fn drive(&self, disk: &SimDisk, world: &Arc<Mutex<World>>) -> Result<(), String> {
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
                Ended::Told => return Ok(()),
            }
        }
        Err(format!(
            "the device booted {MAX_BOOTS} times and is not done"
        ))
    }

    async fn one_boot(&self, disk: &SimDisk, world: &Arc<Mutex<World>>) -> Result<Ended, String> {
        let began = tokio::time::Instant::now();
        loop {
            let engine = Engine::start(platform(disk, world, began), self.setup.clone())
                .await
                .map_err(|e| format!("the agent does not start: {e}"))?;
            let mut running = Box::pin(engine.run());
            loop {
                let settled = tokio::time::timeout(SETTLE, &mut running).await;
                match settled {
                    Ok(Exit::Rebooting) => return Ok(Ended::Rebooting),
                    Ok(Exit::Reload(_)) => break,
                    Ok(Exit::Stopped) => return Err("the agent stopped by itself".into()),
                    Err(_) if (self.told)(&world.lock().unwrap()) => return Ok(Ended::Told),
                    Err(_) if began.elapsed() > BOOT_TIME => {
                        return Err("nothing happens any more, and the story is not told".into());
                    }
                    Err(_) => {}
                }
            }
        }
    }

    /// Records the story once.
    pub fn record(&self, controls: Controls) -> (Run, Vec<World>) {
        let disk = SimDisk::from_image(self.image.clone());
        disk.set_controls(controls);
        let shared = Arc::new(Mutex::new(self.world.clone()));
        let notes: Arc<Mutex<Vec<World>>> = Arc::default();
        let (watched, kept, first) = (shared.clone(), notes.clone(), self.world.clone());
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
        let verdict = self.drive(&disk, &shared);
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

enum Ended {
    Rebooting,
    Told,
}
