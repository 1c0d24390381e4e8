//! A medium that somebody has plugged in, with the agent's own watcher looking at it.
//!
//! The watcher reads real files, so each thread that tells stories has a directory. What lies on the medium belongs to the world: the directory
//! is made from it at every start of the agent, and what the agent leaves there goes back into it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use otahost::api::ApiCall;
use otahost::engine::Input;
use otahost::offline::{Offline, OfflineTarget, watch};
use otahost::platform::Setup;
use otahost_disk::Seam;
use otahost_transfer::Trust;
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::outer::Shared;

/// Virtual time between two looks of the agent.
const EVERY: Duration = Duration::from_secs(5);
/// Virtual time between two looks of the world at what the agent has left.
const WORLD_LOOKS: Duration = Duration::from_millis(100);

thread_local! {
    static MOUNTED: TempDir = TempDir::new().unwrap();
}

/// Mounts the medium, if there is one, and starts the watcher.
pub(super) fn plug_in(world: &Shared, setup: &Setup, engine: mpsc::Sender<Input>) {
    let files = world.lock().unwrap().medium.clone();
    if files.is_empty() {
        return;
    }
    let path = MOUNTED.with(|dir| dir.path().to_owned());
    for entry in std::fs::read_dir(&path).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    for (name, content) in &files {
        std::fs::write(path.join(name), content.as_slice()).unwrap();
    }
    let targets = setup.targets.iter().filter_map(|target| {
        let Trust::Minisign(keys) = &target.trust else {
            return None;
        };
        Some(OfflineTarget {
            id: target.id.clone(),
            compatible: target.compatible.clone()?,
            keys: keys.clone(),
        })
    });
    let offline = Offline {
        device: setup.device.clone(),
        path: path.clone(),
        every: EVERY,
        progress: None,
        targets: targets.collect(),
        seam: Seam::Inline,
    };
    let (calls, mut asked) = mpsc::channel::<ApiCall>(16);
    tokio::spawn(watch(offline, calls));
    tokio::spawn(async move {
        while let Some(call) = asked.recv().await {
            if engine.send(Input::Api(call)).await.is_err() {
                return;
            }
        }
    });
    let world = world.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(WORLD_LOOKS).await;
            note(&world, &path);
        }
    });
}

/// What the agent has left belongs to the world.
fn note(world: &Shared, path: &Path) {
    for entry in std::fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().to_string_lossy().into_owned();
        let medium = &mut world.lock().unwrap().medium;
        if name.ends_with(".json") && !medium.contains_key(&name) {
            let content = std::fs::read(entry.path()).unwrap();
            medium.insert(name, Arc::new(content));
        }
    }
}
