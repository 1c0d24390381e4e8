//! What changes on a target by itself is noticed without an update and without a restart.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/engine.rs"]
mod engine;

use std::sync::Arc;
use std::time::Duration;

use engine::{Agent, Bench};
use otahost::api::{Reply, Request};
use otahost_disk::{Place, RealDisk, Seam};
use otahost_flash::archive::ArchiveSetup;
use otahost_flash::{Archive, ArchiveLimits};

/// What `otahost status` says of the version of the one target.
async fn version(agent: &Agent) -> Option<String> {
    match agent.ask(Request::Status).await.recv().await.unwrap() {
        Reply::Status(status) => status.targets[0].version.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_version_that_changes_by_itself_is_noticed_within_a_minute() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(Seam::Inline);
    let setup = ArchiveSetup {
        directory: Place::operator(dir.path().join("stage")),
        deliver: None,
        limits: ArchiveLimits::default(),
    };
    let disk = Arc::new(RealDisk::operator_only());
    bench.target("emu", Arc::new(Archive::new(disk, setup)));
    bench.run_in_virtual_time(async |agent| {
        assert_eq!(version(&agent).await.as_deref(), Some("1"));
        for seen in [Some("2"), None, Some("1")] {
            agent.set_version("emu", seen);
            tokio::time::sleep(Duration::from_secs(60)).await;
            assert_eq!(version(&agent).await.as_deref(), seen);
        }
    });
}
