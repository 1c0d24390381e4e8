//! The engine's traits, served by the simulated world.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use otahost::platform::{Outside, Platform, Sources};
use otahost_core::model::{ArtifactSource, ClockQuality, Install, Instant};
use otahost_disk::sim::SimDisk;
use otahost_disk::{Disk, Place, Seam};
use otahost_flash::Flasher;
use otahost_flash::boot::FileSelector;
use otahost_flash::slots::Slots;
use otahost_links::{Link, LinkCommand, LinkEvent, Token};
use otahost_transfer::{Body, BoxFuture, Opened, Source, SourceError, Validator};
use tokio::sync::mpsc;

use super::World;
use super::machine::{SELECTOR, SLOTS};

/// 2026-06-01, the first boot of every story.
const EPOCH: u64 = 1_780_272_000_000;
/// Bytes the file server sends at once, and virtual time they take.
const PIECE: usize = 4 * 1024;
const PIECE_TIME: Duration = Duration::from_millis(200);

type Shared = Arc<Mutex<World>>;

/// What the engine stands on in one boot.
pub(super) fn platform(disk: &SimDisk, world: &Shared, began: tokio::time::Instant) -> Platform {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let selector = FileSelector::new(disk.clone(), Place::operator(SELECTOR));
    let slots: Arc<dyn Flasher> = Arc::new(Slots::new(
        disk.clone(),
        SLOTS.map(Place::operator),
        Box::new(selector),
    ));
    let past = world.lock().unwrap().past;
    Platform {
        disk,
        journal: Place::data("journal.redb"),
        seam: Seam::Inline,
        links: BTreeMap::from([(
            "cloud".to_owned(),
            Arc::new(SimLink(world.clone())) as Arc<dyn Link>,
        )]),
        sources: Arc::new(SimSources(world.clone())),
        flashers: BTreeMap::from([("dock".to_owned(), slots)]),
        outside: Arc::new(SimOutside {
            world: world.clone(),
            began,
            past,
        }),
    }
}

#[derive(Debug)]
struct SimOutside {
    world: Shared,
    began: tokio::time::Instant,
    past: u64,
}

impl SimOutside {
    fn elapsed(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Outside for SimOutside {
    fn boot_id(&self) -> String {
        format!("boot-{}", self.world.lock().unwrap().boots)
    }
    fn now(&self) -> Instant {
        let mut world = self.world.lock().unwrap();
        world.past = self.past + self.elapsed();
        EPOCH + world.past
    }
    fn clock(&self) -> ClockQuality {
        ClockQuality::Synced
    }
    fn uptime(&self) -> u64 {
        self.elapsed()
    }
    fn seed(&self) -> [u8; 32] {
        let mut world = self.world.lock().unwrap();
        world.seeds += 1;
        let mut seed = [7; 32];
        seed[..8].copy_from_slice(&world.seeds.to_be_bytes());
        seed
    }
    fn version(&self, _target: &str) -> Result<String, String> {
        Ok(self.world.lock().unwrap().version.clone())
    }
    fn probe(&self, _target: &str) -> Result<(), String> {
        Ok(())
    }
    fn reboot(&self) -> Result<(), String> {
        self.world.lock().unwrap().reboots += 1;
        Ok(())
    }
}

/// A broker that keeps its session over everything, delivers with QoS 1 and takes every publication at once.
#[derive(Debug)]
struct SimLink(Shared);

impl Link for SimLink {
    fn start(&self, events: mpsc::Sender<LinkEvent>) -> mpsc::Sender<LinkCommand> {
        let (commands, mut queue) = mpsc::channel(64);
        let world = self.0.clone();
        tokio::spawn(async move {
            let Some(LinkCommand::Subscribe(_)) = queue.recv().await else {
                return;
            };
            let (generation, waiting) = {
                let mut world = world.lock().unwrap();
                world.connections += 1;
                (world.connections, world.inbox.clone())
            };
            let up = LinkEvent::Up {
                generation,
                session_present: true,
            };
            if events.send(up).await.is_err() {
                return;
            }
            for delivery in waiting {
                let token = Token {
                    generation,
                    packet: delivery.packet,
                };
                let message = LinkEvent::Message {
                    token,
                    topic: delivery.topic,
                    payload: delivery.payload,
                    duplicate: generation > 1,
                    retained: false,
                };
                if events.send(message).await.is_err() {
                    return;
                }
            }
            while let Some(command) = queue.recv().await {
                let event = match command {
                    LinkCommand::Subscribe(_) => continue,
                    LinkCommand::Publish {
                        id,
                        topic,
                        payload,
                        qos,
                        ..
                    } => {
                        if qos > 0 {
                            world.lock().unwrap().received.push((topic, payload));
                        }
                        LinkEvent::Delivered(id)
                    }
                    LinkCommand::Acknowledge(token) => {
                        let mut world = world.lock().unwrap();
                        world.inbox.retain(|d| d.packet != token.packet);
                        world.acknowledged += 1;
                        LinkEvent::Acknowledged(token)
                    }
                };
                if events.send(event).await.is_err() {
                    return;
                }
            }
        });
        commands
    }
}

#[derive(Debug)]
struct SimSources(Shared);

impl Sources for SimSources {
    fn source(
        &self,
        install: &Install,
        _downloads: &[String],
    ) -> Result<Arc<dyn Source>, SourceError> {
        let ArtifactSource::Url(url) = &install.artifact.source else {
            return Err(SourceError::Forbidden("only URLs here".into()));
        };
        let file = self.0.lock().unwrap().files.get(url).cloned();
        match file {
            Some(file) => Ok(Arc::new(SimSource {
                world: self.0.clone(),
                file,
            })),
            None => Err(SourceError::Forbidden("no such file".into())),
        }
    }
}

#[derive(Debug)]
struct SimSource {
    world: Shared,
    file: Arc<Vec<u8>>,
}

impl Source for SimSource {
    fn open<'a>(
        &'a self,
        from: u64,
        _validator: Option<&'a Validator>,
    ) -> BoxFuture<'a, Result<Opened, SourceError>> {
        let offset = from.min(self.file.len() as u64);
        let body = SimBody {
            world: self.world.clone(),
            file: self.file.clone(),
            at: offset,
        };
        let total = Some(self.file.len() as u64);
        let validator = Some(Validator("\"v1\"".into()));
        Box::pin(std::future::ready(Ok(Opened {
            offset,
            total,
            validator,
            body: Box::new(body),
        })))
    }
}

#[derive(Debug)]
struct SimBody {
    world: Shared,
    file: Arc<Vec<u8>>,
    at: u64,
}

impl Body for SimBody {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, SourceError>> {
        Box::pin(async move {
            tokio::time::sleep(PIECE_TIME).await;
            let from = usize::try_from(self.at).unwrap();
            let mut to = (from + PIECE).min(self.file.len());
            let mut world = self.world.lock().unwrap();
            if let Some(cut) = world
                .cuts
                .iter()
                .position(|cut| *cut >= self.at && *cut < to as u64)
            {
                to = usize::try_from(world.cuts[cut]).unwrap();
                if to == from {
                    world.cuts.remove(cut);
                    return Err(SourceError::Broken("the connection was cut".into()));
                }
            }
            if from == to {
                return Ok(None);
            }
            world.served += (to - from) as u64;
            self.at = to as u64;
            Ok(Some(Bytes::copy_from_slice(&self.file[from..to])))
        })
    }
}
