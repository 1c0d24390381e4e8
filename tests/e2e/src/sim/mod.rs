//! A device that can lose power at every single disk operation.
//!
//! The real engine runs on a simulated disk, simulated links and sources, and virtual time. A scenario runs once while the disk
//! records every operation with its bytes and the outer [`World`] (cloud, file server, machine) is noted at each. From that
//! record comes the disk after a cut at any operation, with unsynced writes dropped or kept; the agent starts again on it,
//! runs to the end, and the [`Scenario`]'s promises are checked. (MCUboot's simulator does this for flash operations; here it is done
//! for the whole agent.)

mod alarm;
mod api;
mod broken;
mod client;
mod drone;
mod emu;
mod facts;
mod files;
mod folder;
mod idle;
mod invariants;
mod link;
mod machine;
mod medium;
mod newer;
mod outer;
mod read;
pub mod scenarios;
mod search;
mod selector;
mod story;
mod vendors;
mod web;
mod world;

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use otahost::api::{ApiCall, Reply, Request};
use otahost::engine::{Engine, Exit, Input};
use otahost::platform::Setup;
use otahost_disk::Seam;
use otahost_disk::sim::{Controls, Image, Loss, SimDisk};
use tokio::sync::mpsc;

pub use alarm::{Rung, Sink};
pub use api::{Api, Asked};
pub use broken::Broken;
pub use drone::{Drone, Manner};
pub use emu::{Emu, current};
pub use machine::{Boot, Damage, SLOTS, firmware};
pub use read::{check, ended, history, jobs, memory, rows};
pub use search::{Found, LOSSES, Search, sample};
pub use story::{
    DOCK_SN, DRONE_SN, EMU_SN, NEW, OLD, Release, Story, dock, is_told, rogue_output, told_later,
    with_rogue,
};
pub use vendors::{KIT_ID, output};
pub use web::{Caller, Heard, Web};
pub use world::{Answer, Delivery, EPOCH, Ending, WallClock, When, World};

use facts::Facts;
use outer::{VirtualTime, platform};

/// Boots one run may take; a device that needs more has got into a loop.
const MAX_BOOTS: u32 = 20;
/// Virtual time one boot may take before the run counts as stuck, where the story does not say otherwise.
const BOOT_TIME: Duration = Duration::from_secs(3_600);
/// How long threads work while virtual time goes on by [`PACE`] times that.
const TICK: Duration = Duration::from_millis(1);
const PACE: u32 = 20;
/// Starts of the agent in a row that may fail on a disk that made one operation fail.
const MAX_STARTS: u32 = 3;
/// Virtual time until the agent is started again.
const RESTART: Duration = Duration::from_secs(1);
/// Virtual time after the end in which nothing more may happen.
const SETTLE: Duration = Duration::from_secs(60);

/// Blocking work that takes longer than the way to any server: what leaves before it is durable reaches somebody before power is cut.
pub const SLOW: Seam = Seam::After(Duration::from_millis(500));

/// A story with promises.
#[derive(Clone)]
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
    /// What has to hold of the disk whenever power is cut, beside what holds in every story.
    pub at_rest: fn(&Image) -> Result<(), String>,
    /// What is left out on purpose.
    pub broken: Broken,
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

impl Scenario {
    /// Runs the story as it was written.
    pub fn play(&self) -> Run {
        self.run(SimDisk::from_image(self.image.clone()), self.world.clone())
    }

    /// Runs the story from a disk and a world to the end.
    pub fn run(&self, mut disk: SimDisk, world: World) -> Run {
        if self.broken != Broken::Nothing {
            disk.set_controls(self.broken.disk(Controls::default()));
        }
        let world = Arc::new(Mutex::new(world));
        let verdict = self.drive(&mut disk, &world);
        let world = world.lock().unwrap().clone();
        let verdict = verdict.and_then(|()| self.judge(&world, &disk));
        Run {
            disk,
            world,
            verdict,
        }
    }

    /// What every story promises, and this one.
    fn judge(&self, world: &World, disk: &SimDisk) -> Result<(), String> {
        let image = disk.image(Loss::AllKept);
        let facts = Facts::of(&image)?;
        invariants::at_rest(world, &image)?;
        (self.at_rest)(&image)?;
        // Whoever looks into a journal writes to its disk; that is no part of the story.
        (self.promises)(world, &SimDisk::from_image(image))?;
        invariants::at_the_end(world, &facts)
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
        world.lock().unwrap().asks_again();
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
                never = keep_pace(self.seam) => match never {},
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
        let platform = platform(disk, world, time, self);
        let mut failed = 0;
        loop {
            let mut engine = match Engine::start(platform.clone(), self.setup.clone()).await {
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
            if let Broken::Order(early) = self.broken {
                engine.release_early(early);
            }
            let sender = engine.sender();
            medium::plug_in(world, &self.setup, sender.clone());
            let mut running = Box::pin(engine.run());
            let mut settled = tokio::time::Instant::now() + SETTLE;
            loop {
                let operator = world.lock().unwrap().operator.first().map(|(at, _)| *at);
                let acts = async {
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
                    () = acts => act(world, &sender),
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
        disk.set_controls(self.broken.disk(controls));
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
        let verdict = verdict.and_then(|()| self.judge(&world, &disk));
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
}

/// Virtual time that jumps to the next timer whenever the runtime has nothing to do would run away from threads the runtime does not know
/// of, like those that make digests; so it goes at a pace of theirs where a story has threads.
async fn keep_pace(seam: Seam) -> Infallible {
    if seam != Seam::Threads {
        return std::future::pending().await;
    }
    loop {
        // While this lasts, virtual time stands.
        seam.run(|| std::thread::sleep(TICK)).await;
        tokio::time::advance(TICK * PACE).await;
    }
}

/// What the local API answers first.
async fn asked(sender: &mpsc::Sender<Input>, request: Request) -> Option<Reply> {
    let (reply, mut replies) = mpsc::channel(1);
    let call = Input::Api(ApiCall { request, reply });
    sender.send(call).await.ok()?;
    replies.recv().await
}

/// The operator cancels whatever job there is. Without one he is told so.
async fn cancelled(sender: &mpsc::Sender<Input>) -> Option<Reply> {
    let Reply::Jobs(jobs) = asked(sender, Request::Jobs { key: None }).await? else {
        return None;
    };
    let job = jobs.into_iter().find(|job| !job.phase.is_final());
    match job {
        Some(job) => asked(sender, Request::Cancel { key: job.key }).await,
        None => Some(Reply::Jobs(Vec::new())),
    }
}

/// The operator installs a file on the dock, or with `rogue ` before its path another release of that adapter; or he says `cancel`.
fn act(world: &Arc<Mutex<World>>, sender: &mpsc::Sender<Input>) {
    let path = {
        let mut world = world.lock().unwrap();
        let (_, path) = world.operator.remove(0);
        world.operator_asks.push(path.clone());
        path
    };
    let request = match path.strip_prefix("rogue ") {
        Some(component) => Request::AdapterInstall {
            adapter: "rogue".into(),
            path: component.to_owned(),
        },
        None => Request::Install {
            path: path.clone(),
            target: "dock".into(),
            version: None,
            key: None,
        },
    };
    let (world, sender) = (world.clone(), sender.clone());
    tokio::spawn(async move {
        let heard = match path.as_str() {
            "cancel" => cancelled(&sender).await,
            _ => asked(&sender, request).await,
        };
        let Some(heard) = heard else {
            return;
        };
        let mut world = world.lock().unwrap();
        world.operator_asks.retain(|asks| *asks != path);
        world.operator_heard.push(format!("{heard:?}"));
    });
}

enum Ended {
    Rebooting,
    PowerCut,
    Told,
}
