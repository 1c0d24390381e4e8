//! From one recorded run to every disk a power cut could have left of it, and on from each.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};

use otahost_disk::sim::{Controls, Image, Loss, Op, Replay, SimDisk};

use super::facts::Facts;
use super::{Scenario, World, invariants};

/// What may become of writes that were not synced when power goes.
pub const LOSSES: [Loss; 4] = [
    Loss::AllDropped,
    Loss::AllKept,
    Loss::Seeded(1),
    Loss::Seeded(2),
];

/// What a search over cuts found.
#[derive(Debug, Default)]
pub struct Found {
    /// Operations of the recorded run; power can be cut before each, and after the last.
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

/// How to search.
#[derive(Debug, Clone, Copy)]
pub struct Search {
    /// Threads that run stories.
    pub workers: usize,
    /// One finding is enough.
    pub until_found: bool,
    /// What the disk leaves out.
    pub controls: Controls,
}

impl Default for Search {
    fn default() -> Self {
        Search {
            workers: 1,
            until_found: false,
            controls: Controls::default(),
        }
    }
}

/// A disk and a world to go on from.
struct Cut {
    number: usize,
    what: String,
    image: Image,
    world: World,
}

impl Scenario {
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
                    image: replay.image(loss),
                    world: worlds[cut].clone(),
                    ..self.clone()
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
        let how = Search {
            controls,
            ..Search::default()
        };
        self.search(how, |operations| {
            let cuts = (0..=operations).step_by(stride);
            cuts.flat_map(|cut| losses.iter().map(move |loss| (cut, *loss)))
                .collect()
        })
    }

    /// Cuts the power before these operations in these loss modes, which are chosen knowing how many operations there are, and runs on from
    /// each disk that was not tried before. Where something left the device between two operations, both worlds are gone on from: the
    /// one in which it has arrived, and the one in which it has not.
    pub fn search(&self, how: Search, points: impl FnOnce(usize) -> Vec<(usize, Loss)>) -> Found {
        let (run, worlds) = self.record(how.controls);
        let record = run.disk.record();
        let mut found = Found {
            operations: record.ops.len(),
            ..Found::default()
        };
        let failures = Mutex::new(Vec::new());
        if let Err(error) = run.verdict {
            failures
                .lock()
                .unwrap()
                .push((0, format!("without any cut: {error}")));
        }
        let mut points = points(record.ops.len());
        points.sort_by_key(|(cut, _)| *cut);
        let is_over = AtomicBool::new(false);
        let (jobs, queue) = sync_channel::<Cut>(2 * how.workers);
        let queue = Mutex::new(queue);
        std::thread::scope(|scope| {
            for _ in 0..how.workers {
                scope.spawn(|| {
                    loop {
                        let Ok(cut) = queue.lock().unwrap().recv() else {
                            return;
                        };
                        if is_over.load(Ordering::Relaxed) {
                            continue;
                        }
                        if let Err(error) = self.go_on(how, cut.image, cut.world) {
                            let error = format!("{}: {error}", cut.what);
                            failures.lock().unwrap().push((cut.number, error));
                            is_over.store(how.until_found, Ordering::Relaxed);
                        }
                    }
                });
            }
            let mut tried = HashSet::new();
            let mut replay = Replay::new(&record.start);
            let mut applied = 0;
            let mut durable = Durable::default();
            for (cut, loss) in points {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                for op in &record.ops[applied..cut] {
                    replay.apply(op);
                }
                applied = cut;
                let before = record.ops.get(cut);
                let what = format!(
                    "cut {cut} (before {}), {loss:?}",
                    before.map_or_else(|| "the end".to_owned(), describe)
                );
                let world = worlds.get(cut).unwrap_or(&run.world);
                let image = replay.image(loss);
                found.images += 1;
                // Before what left the device since the last operation had arrived.
                let earlier = cut.checked_sub(1).map(|before| &worlds[before]);
                let earlier = earlier.filter(|w| loss == Loss::AllDropped && !w.is_like(world));
                for (world, when) in [(Some(world), ""), (earlier, ", a moment earlier")] {
                    let Some(world) = world else {
                        continue;
                    };
                    let mut hasher = DefaultHasher::new();
                    (&image, world).hash(&mut hasher);
                    if !tried.insert(hasher.finish()) {
                        continue;
                    }
                    let what = format!("{what}{when}");
                    let looked = durable.look(&replay, &image).and_then(|()| {
                        durable.facts.stand_behind(world)?;
                        invariants::at_rest(world, &image)?;
                        (self.at_rest)(&image)
                    });
                    if let Err(error) = looked {
                        failures
                            .lock()
                            .unwrap()
                            .push((found.runs, format!("{what}: at rest, {error}")));
                        is_over.store(how.until_found, Ordering::Relaxed);
                    }
                    let job = Cut {
                        number: found.runs,
                        what,
                        image: image.clone(),
                        world: world.clone(),
                    };
                    found.runs += 1;
                    jobs.send(job).expect("the workers wait for the end");
                }
            }
            drop(jobs);
        });
        let mut failures = failures.into_inner().unwrap();
        failures.sort();
        found.failures = failures.into_iter().map(|(_, failure)| failure).collect();
        found
    }

    /// A second cut while the first is being recovered from: at so many pairs of moments, chosen by this seed. Gives how many were tried, and
    /// what did not hold.
    pub fn search_twice(&self, workers: usize, pairs: usize, seed: u64) -> Found {
        let (run, worlds) = self.record(Controls::default());
        let record = run.disk.record();
        let mut found = Found {
            operations: record.ops.len(),
            ..Found::default()
        };
        let mut chosen = Chosen(seed);
        let mut firsts: Vec<(usize, u64)> = (0..pairs)
            .map(|_| (chosen.below(record.ops.len()), chosen.next()))
            .collect();
        firsts.sort_unstable();
        let mut replay = Replay::new(&record.start);
        let mut applied = 0;
        let cuts: Vec<(usize, u64, Image)> = firsts
            .into_iter()
            .map(|(cut, seed)| {
                record.ops[applied..cut]
                    .iter()
                    .for_each(|op| replay.apply(op));
                applied = cut;
                (cut, seed, replay.image(Loss::Seeded(seed)))
            })
            .collect();
        let next = AtomicUsize::new(0);
        let failures = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    while let Some((cut, seed, image)) =
                        cuts.get(next.fetch_add(1, Ordering::Relaxed))
                    {
                        if let Err(error) = self.cut_again(image, &worlds[*cut], *seed) {
                            let what = format!("cut {cut}, {:?}, {error}", Loss::Seeded(*seed));
                            failures.lock().unwrap().push(what);
                        }
                    }
                });
            }
        });
        found.images = cuts.len();
        found.runs = cuts.len();
        found.failures = failures.into_inner().unwrap();
        found.failures.sort();
        found
    }

    fn cut_again(&self, image: &Image, world: &World, seed: u64) -> Result<(), String> {
        let (run, worlds) = self.record_from(image.clone(), world.clone(), Controls::default());
        let record = run.disk.record();
        let mut chosen = Chosen(seed);
        let cut = chosen.below(record.ops.len().max(1));
        let loss = [
            Loss::AllDropped,
            Loss::AllKept,
            Loss::Seeded(seed),
            Loss::Torn(seed),
        ][chosen.below(4)];
        let image = record.image_after(cut.min(record.ops.len()), loss);
        let world = worlds.get(cut).unwrap_or(&run.world).clone();
        invariants::at_rest(&world, &image)
            .and_then(|()| (self.at_rest)(&image))
            .and_then(|()| self.go_on(Search::default(), image, world))
            .map_err(|error| format!("then cut {cut}, {loss:?}: {error}"))
    }

    /// Goes on from a disk and a world, and compares what is known then with what was known before.
    fn go_on(&self, how: Search, image: Image, world: World) -> Result<(), String> {
        let before = Facts::of(&image)?;
        let disk = SimDisk::from_image(image);
        disk.set_controls(self.broken.disk(how.controls));
        // What a control has spoilt may be more than the code that judges it can read.
        let run = catch_unwind(AssertUnwindSafe(|| self.run(disk, world)));
        let run = run.map_err(|_| "it panicked".to_owned())?;
        run.verdict?;
        let after = Facts::of(&run.disk.image(Loss::AllKept))?;
        before.stand_in(&after)
    }
}

/// Choices that are the same for the same seed (SplitMix64).
struct Chosen(u64);

impl Chosen {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// So many operations out of so many, each with a disk that the seed chooses.
pub fn sample(operations: usize, images: usize, seed: u64) -> Vec<(usize, Loss)> {
    let mut chosen = Chosen(seed);
    let one = |_| (chosen.below(operations + 1), Loss::Seeded(chosen.next()));
    (0..images).map(one).collect()
}

/// What the disk is known to hold for good, along a record.
#[derive(Default)]
struct Durable {
    hash: u64,
    facts: Arc<Facts>,
}

impl Durable {
    /// What is durable stands in whatever a cut leaves, and only grows.
    fn look(&mut self, replay: &Replay, image: &Image) -> Result<(), String> {
        let dropped = replay.image(Loss::AllDropped);
        let mut hasher = DefaultHasher::new();
        dropped.hash(&mut hasher);
        let hash = hasher.finish();
        if hash != self.hash {
            let now = Facts::of(&dropped)?;
            self.facts.stand_in(&now)?;
            (self.hash, self.facts) = (hash, Arc::new(now));
        }
        if dropped == *image {
            return Ok(());
        }
        self.facts.stand_in(&Facts::of(image)?)
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
