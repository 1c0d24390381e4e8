//! Targets that are handed what they install: the phases, progress, what stops it, and where no way leads back (DESIGN §6).
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/engine.rs"]
mod engine;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use engine::{Bench, HOUR};
use otahost::api::Request;
use otahost_core::model::Phase;
use otahost_disk::{Place, RealDisk, Seam};
use otahost_flash::archive::ArchiveSetup;
use otahost_flash::{Archive, ArchiveLimits, CommandFlasher, CommandSetup, Program};

/// A tar with one file of nine bytes.
fn archive(name: &str) -> Vec<u8> {
    let mut header = vec![0; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..108].copy_from_slice(b"0000644\0");
    header[124..136].copy_from_slice(b"00000000011\0");
    header[148..156].fill(b' ');
    header[156] = b'0';
    header[257..263].copy_from_slice(b"ustar\0");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header.extend(b"version 2");
    header.resize(512 + 512 + 1024, 0);
    header
}

fn shell(script: &str) -> Program {
    Program {
        command: ["/bin/sh", "-c", script, "program"]
            .map(str::to_owned)
            .to_vec(),
        timeout: Duration::from_secs(100),
    }
}

/// A device with one target `emu` that takes archives, and the good one and a bad one to install.
fn emu(dir: &Path, seam: Seam, deliver: Option<&str>) -> Bench {
    let mut bench = Bench::new(seam);
    let setup = ArchiveSetup {
        directory: Place::operator(dir.join("stage")),
        deliver: deliver.map(shell),
        limits: ArchiveLimits::default(),
    };
    let disk = Arc::new(RealDisk::operator_only());
    bench.target("emu", Arc::new(Archive::new(disk, setup)));
    put_files(&bench);
    bench
}

fn drone(dir: &Path, program: &str, rollback: Option<&str>) -> Bench {
    let mut bench = Bench::new(Seam::Inline);
    let setup = CommandSetup {
        directory: Place::operator(dir.join("stage")),
        program: shell(program),
        rollback: rollback.map(shell),
        reboot: false,
    };
    let disk = Arc::new(RealDisk::operator_only());
    bench.target("drone", Arc::new(CommandFlasher::new(disk, setup)));
    put_files(&bench);
    bench
}

fn put_files(bench: &Bench) {
    let mut world = bench.world.lock().unwrap();
    // Time enough for a test to change its mind about the world.
    world.serving_takes = 100;
    world.files.insert("/good".into(), archive("version.txt"));
    world.files.insert("/bad".into(), archive("../version.txt"));
}

/// A delivery that says where it is and then waits for the file `go`.
fn patient(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        r#"echo $$ > {dir}/pid.new; mv {dir}/pid.new {dir}/pid; echo run >> {dir}/runs
           echo '{{"stage": "push", "percent": 40}}'
           until test -e {dir}/go; do sleep 0.02; done"#
    )
}

/// 65 to 75 of the whole: 40 of the program's hundred, which are the second half of the delivery.
const AT_FORTY: u8 = 65 + 7;

/// The process whose id is in this file goes, if it ever came.
fn wait_for_end(pid: &Path) {
    let Ok(pid) = std::fs::read_to_string(pid) else {
        return;
    };
    let until = std::time::Instant::now() + Duration::from_secs(60);
    while std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()))
        .is_ok_and(|stat| !stat.contains(") Z "))
    {
        assert!(std::time::Instant::now() < until, "it still runs");
        std::thread::yield_now();
    }
}

#[test]
fn progress_of_a_delivery_is_told_and_a_cancel_in_its_middle_stops_the_program() {
    let dir = tempfile::tempdir().unwrap();
    let bench = emu(dir.path(), Seam::Threads, Some(&patient(dir.path())));
    bench.run_for_real(async |agent| {
        let key = agent.install("emu", "good").await;
        let shown = agent
            .until(&key, |job| {
                job.phase == Phase::Delivering && job.installs[0].percent == AT_FORTY
            })
            .await;
        assert_eq!(shown.installs[0].phase, Phase::Delivering);
        agent.tell(Request::Cancel { key: key.clone() }).await;
        assert_eq!(agent.job(&key).await.phase, Phase::Cancelled);
        wait_for_end(&dir.path().join("pid"));
        // The next one is not held up by it.
        std::fs::write(dir.path().join("go"), "").unwrap();
        agent.set_version("emu", Some("2"));
        let next = agent.install("emu", "good").await;
        assert_eq!(agent.end(&next).await.phase, Phase::Succeeded);
    });
    let unpacked = std::fs::read(dir.path().join("stage/current/version.txt")).unwrap();
    assert_eq!(unpacked, b"version 2");
}

#[test]
fn a_paused_delivery_is_stopped_and_a_resumed_one_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let bench = emu(dir.path(), Seam::Threads, Some(&patient(dir.path())));
    bench.run_for_real(async |agent| {
        let key = agent.install("emu", "good").await;
        let delivers = |job: &otahost::api::JobView| job.installs[0].percent == AT_FORTY;
        agent.until(&key, delivers).await;
        agent.tell(Request::Pause { key: key.clone() }).await;
        wait_for_end(&dir.path().join("pid"));
        let paused = agent.job(&key).await;
        assert_eq!((paused.phase, paused.paused), (Phase::Delivering, true));
        std::fs::write(dir.path().join("go"), "").unwrap();
        agent.set_version("emu", Some("2"));
        agent.tell(Request::Resume { key: key.clone() }).await;
        assert_eq!(agent.end(&key).await.phase, Phase::Succeeded);
    });
    let runs = std::fs::read_to_string(dir.path().join("runs")).unwrap();
    assert_eq!(runs, "run\nrun\n");
}

#[test]
fn a_delivery_that_takes_longer_than_it_may_is_stopped_and_fails_at_delivering() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = emu(dir.path(), Seam::Threads, Some(&patient(dir.path())));
    bench.setup.deadlines.deliver = Duration::from_secs(5);
    bench.run_for_real(async |agent| {
        let key = agent.install("emu", "good").await;
        let job = agent.end(&key).await;
        let reason = job.reason.unwrap();
        assert_eq!(
            (job.phase, reason.code.as_str(), reason.stage.as_str()),
            (Phase::Failed, "deadline", "deliver")
        );
        wait_for_end(&dir.path().join("pid"));
    });
}

#[test]
fn an_agent_that_stops_in_the_middle_of_a_delivery_takes_its_program_along_and_goes_on_after_its_start()
 {
    let dir = tempfile::tempdir().unwrap();
    let first = emu(dir.path(), Seam::Threads, Some(&patient(dir.path())));
    let disk = first.disk.clone();
    let key = first.run_for_real(async |agent| {
        let key = agent.install("emu", "good").await;
        agent
            .until(&key, |job| job.installs[0].percent == AT_FORTY)
            .await;
        key
    });
    wait_for_end(&dir.path().join("pid"));
    std::fs::write(dir.path().join("go"), "").unwrap();
    let mut second = emu(dir.path(), Seam::Threads, Some(&patient(dir.path())));
    second.disk = disk;
    let world = second.world.clone();
    world
        .lock()
        .unwrap()
        .versions
        .insert("emu".into(), "2".into());
    second.run_for_real(async |agent| {
        assert_eq!(agent.end(&key).await.phase, Phase::Succeeded);
    });
}

#[test]
fn each_way_in_which_a_delivery_fails_has_its_own_stage_and_the_old_version_runs() {
    let dir = tempfile::tempdir().unwrap();
    let fails = "echo EMU 2 is away >&2; exit 1";
    for (file, spoil, stage, words) in [
        ("bad", false, "unpack", "leads out"),
        ("good", false, "deliver", "EMU 2 is away"),
        ("good", true, "clear", "current"),
    ] {
        let bench = emu(dir.path(), Seam::Inline, Some(fails));
        let current = dir.path().join("stage/current");
        if spoil {
            let _ = std::fs::remove_file(&current);
            std::fs::create_dir_all(&current).unwrap();
        }
        bench.run_in_virtual_time(async |agent| {
            let key = agent.install("emu", file).await;
            let job = agent.end(&key).await;
            let reason = job.reason.unwrap();
            assert_eq!((job.phase, reason.stage.as_str()), (Phase::Failed, stage));
            assert!(reason.text.contains(words), "{reason}");
        });
    }
}

#[test]
fn a_target_that_goes_on_to_report_its_old_version_is_waited_for_and_succeeds_when_it_changes() {
    let dir = tempfile::tempdir().unwrap();
    let bench = emu(dir.path(), Seam::Inline, None);
    bench.run_in_virtual_time(async |agent| {
        let key = agent.install("emu", "good").await;
        agent
            .until(&key, |job| job.phase == Phase::Confirming)
            .await;
        tokio::time::sleep(HOUR / 2).await;
        assert_eq!(agent.job(&key).await.phase, Phase::Confirming);
        agent.set_version("emu", Some("2"));
        assert_eq!(agent.end(&key).await.phase, Phase::Succeeded);
    });
}

#[test]
fn without_a_way_back_the_version_that_is_reported_decides_between_rolled_back_and_rollback_failed()
{
    for (reports, ended, code) in [
        (Some("1"), Phase::RolledBack, "version-mismatch"),
        (Some("3"), Phase::RollbackFailed, "flash"),
        (None, Phase::RollbackFailed, "flash"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let bench = emu(dir.path(), Seam::Inline, None);
        bench.run_in_virtual_time(async |agent| {
            let key = agent.install("emu", "good").await;
            agent
                .until(&key, |job| job.phase == Phase::Confirming)
                .await;
            agent.set_version("emu", reports);
            let job = agent.end(&key).await;
            let reason = job.reason.unwrap();
            assert_eq!((job.phase, reason.code.as_str()), (ended, code), "{reason}");
        });
    }
}

#[test]
fn a_program_that_installs_is_believed_in_what_it_says_of_the_old_version() {
    for (program, rollback, runs_then, ended) in [
        ("exit 0", None, "2", Phase::Succeeded),
        ("exit 10", None, "1", Phase::Failed),
        ("exit 11", None, "1", Phase::Failed),
        // It says nothing, and the target says that the old version runs.
        ("exit 1", None, "1", Phase::Failed),
        // It says nothing, and something else runs.
        ("exit 1", None, "2", Phase::RollbackFailed),
        ("exit 1", Some("exit 0"), "2", Phase::Failed),
        ("exit 1", Some("exit 1"), "2", Phase::RollbackFailed),
        // It says that it is installed, and the target never says so.
        ("exit 0", Some("exit 0"), "1", Phase::RolledBack),
        ("exit 0", None, "1", Phase::RolledBack),
        ("exit 0", Some("exit 1"), "9", Phase::RollbackFailed),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let bench = drone(dir.path(), program, rollback);
        bench.run_in_virtual_time(async |agent| {
            let key = agent.install("drone", "good").await;
            agent.set_version("drone", Some(runs_then));
            let job = agent.end(&key).await;
            assert_eq!(
                job.phase, ended,
                "{program}, back {rollback:?}, then {runs_then}: {:?}",
                job.reason
            );
        });
    }
}
