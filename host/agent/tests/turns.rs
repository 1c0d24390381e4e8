//! Many jobs at once: only so many are worked on, the others wait in order, and nobody who waits for something else holds them up.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/engine.rs"]
mod engine;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use engine::{Agent, Bench};
use otahost::api::Request;
use otahost_core::model::Phase;
use otahost_disk::Seam;
use otahost_flash::{Activation, FlashError, Flasher, Stage, Staged, Standing, Work};

/// A target that takes everything at once.
#[derive(Debug, Default)]
struct Willing {
    bytes: Arc<Mutex<Vec<u8>>>,
}

#[derive(Debug)]
struct InMemory(Arc<Mutex<Vec<u8>>>);

impl Stage for InMemory {
    fn capacity(&self) -> Option<u64> {
        None
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), FlashError> {
        let mut held = self.0.lock().unwrap();
        held.truncate(usize::try_from(offset).unwrap());
        held.extend_from_slice(bytes);
        Ok(())
    }
    fn read_exact_at(&self, into: &mut [u8], offset: u64) -> Result<(), FlashError> {
        let held = self.0.lock().unwrap();
        let from = usize::try_from(offset).unwrap();
        let part = held.get(from..from + into.len());
        into.copy_from_slice(part.ok_or_else(|| FlashError::Io("too short".into()))?);
        Ok(())
    }
    fn sync(&self) -> Result<(), FlashError> {
        Ok(())
    }
}

impl Flasher for Willing {
    fn inspect(&self) -> Result<(), FlashError> {
        Ok(())
    }
    fn begin(&self, _resume: bool) -> Result<Box<dyn Stage>, FlashError> {
        Ok(Box::new(InMemory(self.bytes.clone())))
    }
    fn finish(&self, len: u64, sha256: &str) -> Result<Staged, FlashError> {
        Ok(Staged {
            place: "memory".into(),
            len,
            sha256: sha256.into(),
        })
    }
    fn verify(&self, _staged: &Staged) -> Result<(), FlashError> {
        Ok(())
    }
    fn delivers(&self) -> bool {
        true
    }
    fn takes_its_time(&self) -> bool {
        true
    }
    fn activate(&self, _: &Staged, _: &Work<'_>) -> Result<Activation, FlashError> {
        Ok(Activation::Now)
    }
    fn standing(&self, _staged: &Staged) -> Result<Standing, FlashError> {
        Ok(Standing::New { confirmed: false })
    }
    fn confirm(&self, _staged: &Staged) -> Result<(), FlashError> {
        Ok(())
    }
    fn roll_back(&self, _: &Staged, _: &Work<'_>) -> Result<Activation, FlashError> {
        Err(FlashError::NoWayBack("none".into()))
    }
}

/// A device with so many targets, each of which gets a file of its own within a second.
fn bench(targets: usize, parallel: usize) -> Bench {
    let mut bench = Bench::new(Seam::Inline);
    bench.setup.transfer.parallel = parallel;
    for n in 0..targets {
        let id = format!("emu-{n}");
        bench.target(&id, Arc::new(Willing::default()));
        let mut world = bench.world.lock().unwrap();
        world.serving_takes = 500;
        world.files.insert(format!("/{n}"), vec![7; 100]);
    }
    bench
}

async fn install(agent: &Agent, n: usize) -> String {
    let key = agent.install(&format!("emu-{n}"), &n.to_string()).await;
    agent.set_version(&format!("emu-{n}"), Some("2"));
    key
}

#[test]
fn a_thousand_jobs_transfer_a_few_at_a_time_in_the_order_in_which_they_came() {
    const MANY: usize = 1_000;
    bench(MANY, 7).run_in_virtual_time(async |agent| {
        let mut keys = Vec::new();
        for n in 0..MANY {
            keys.push(install(&agent, n).await);
        }
        let waits = agent.job(&keys[MANY - 1]).await;
        assert_eq!(waits.phase, Phase::Queued);
        let reason = waits.reason.unwrap().text;
        assert!(reason.contains("waits for its turn"), "{reason}");
        for key in &keys {
            assert_eq!(agent.end(key).await.phase, Phase::Succeeded, "{key}");
        }
        let world = agent.world.lock().unwrap();
        assert_eq!((world.most_open, world.open), (7, 0));
        let in_order: Vec<String> = (0..MANY).map(|n| format!("/{n}")).collect();
        assert_eq!(world.asked, in_order);
    });
}

#[test]
fn a_job_that_waits_for_its_next_attempt_a_window_or_a_person_gives_its_turn_away() {
    let bench = bench(5, 1);
    {
        let mut world = bench.world.lock().unwrap();
        world.refusals.insert("/0".into(), 1);
        world.locked.push("emu-1".into());
    }
    bench.run_in_virtual_time(async |agent| {
        let mut keys = Vec::new();
        for n in 0..5 {
            keys.push(install(&agent, n).await);
        }
        agent
            .tell(Request::Pause {
                key: keys[2].clone(),
            })
            .await;
        agent
            .tell(Request::Cancel {
                key: keys[3].clone(),
            })
            .await;
        assert_eq!(agent.end(&keys[4]).await.phase, Phase::Succeeded);
        let phases = async |n: usize| agent.job(&keys[n]).await.phase;
        assert_eq!(
            [
                phases(0).await,
                phases(1).await,
                phases(2).await,
                phases(3).await
            ],
            [
                Phase::Downloading,
                Phase::Waiting,
                Phase::Downloading,
                Phase::Cancelled
            ],
            "the third was paused in its middle"
        );
        agent
            .tell(Request::Resume {
                key: keys[2].clone(),
            })
            .await;
        assert_eq!(agent.end(&keys[2]).await.phase, Phase::Succeeded);
        assert_eq!(agent.end(&keys[0]).await.phase, Phase::Succeeded);
        agent.world.lock().unwrap().locked.clear();
        assert_eq!(agent.end(&keys[1]).await.phase, Phase::Succeeded);
        assert_eq!(agent.world.lock().unwrap().most_open, 1);
    });
}

#[test]
fn after_a_restart_those_that_had_begun_go_first_and_still_only_a_few_at_a_time() {
    let first = bench(12, 3);
    let disk = first.disk.clone();
    let keys = first.run_in_virtual_time(async |agent| {
        let mut keys = Vec::new();
        for n in 0..12 {
            keys.push(install(&agent, n).await);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        keys
    });
    let mut second = bench(12, 3);
    second.disk = disk;
    second.run_in_virtual_time(async |agent| {
        (0..12).for_each(|n| agent.set_version(&format!("emu-{n}"), Some("2")));
        for key in &keys {
            assert_eq!(agent.end(key).await.phase, Phase::Succeeded);
        }
        let world = agent.world.lock().unwrap();
        assert_eq!(world.most_open, 3);
        assert_eq!(world.asked[..3], ["/0", "/1", "/2"]);
    });
}
