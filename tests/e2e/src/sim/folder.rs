//! The update server's folders.

use std::time::Duration;

use otahost_core::model::DirectoryEntry;
use otahost_links::{Kind, Link, LinkCommand, LinkEvent};
use tokio::sync::mpsc;

use super::outer::{Shared, VirtualTime};
use super::{EPOCH, World};

/// Virtual time a listing takes.
const LISTING: Duration = Duration::from_millis(300);

/// A link that lists the files whose names in [`World::files`] begin with `folder:`.
#[derive(Debug)]
pub(super) struct SimFolder {
    pub world: Shared,
    pub time: VirtualTime,
}

impl Link for SimFolder {
    fn start(&self, events: mpsc::Sender<LinkEvent>) -> mpsc::Sender<LinkCommand> {
        let (commands, mut queue) = mpsc::channel(64);
        let (world, time) = (self.world.clone(), self.time);
        tokio::spawn(async move {
            while let Some(command) = queue.recv().await {
                let LinkCommand::List { id, path } = command else {
                    continue;
                };
                tokio::time::sleep(LISTING).await;
                let entries = {
                    let mut world = world.lock().unwrap();
                    world.listings.push(time.now());
                    Ok(entries(&world, &path))
                };
                if events
                    .send(LinkEvent::Listed { id, entries })
                    .await
                    .is_err()
                {
                    return;
                }
            }
        });
        commands
    }

    fn kind(&self) -> Kind {
        Kind::Ftps
    }
}

fn entries(world: &World, path: &str) -> Vec<DirectoryEntry> {
    let directory = format!("folder:{}/", path.trim_end_matches('/'));
    let files = world.files.iter().filter_map(|(name, file)| {
        let name = name.strip_prefix(&directory)?;
        Some(DirectoryEntry {
            name: name.to_owned(),
            directory: false,
            size: Some(file.len() as u64),
            modified: Some(EPOCH),
        })
    });
    files.collect()
}
