#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::sync::{Arc, Mutex};

use otahost_transfer::Claims;
use serde_json::json;

use super::*;
use crate::sign::{SigningKey, sign_beside, sign_file};

/// An agent that installs whatever it is asked to at once.
#[derive(Debug)]
struct Agent {
    version: String,
    ends: Phase,
    jobs: Vec<JobView>,
    installs: Vec<(String, String)>,
}

type Shared = Arc<Mutex<Agent>>;

fn job(key: &str, target: &str, version: &str, phase: Phase, percent: u8) -> JobView {
    serde_json::from_value(json!({
        "id": "1", "key": key, "owner": "operator", "phase": phase, "paused": false, "gate": null, "current": 0,
        "awaits_owner": false, "when_told": false, "failed_attempts": 0, "allowed_attempts": 8, "activation": null,
        "rolling_back": false, "time_left": null, "created": 0, "updated": 0, "reason": null, "until": null, "rate": 0,
        "installs": [{ "target": target, "phase": phase, "received": 0, "total": null, "percent": percent,
            "old_version": "1.0", "new_version": version, "reason": null }],
        "history": [],
    }))
    .unwrap()
}

fn serve(agent: &Shared) -> mpsc::Sender<ApiCall> {
    let (calls, mut queue) = mpsc::channel::<ApiCall>(8);
    let agent = agent.clone();
    tokio::spawn(async move {
        while let Some(ApiCall { request, reply }) = queue.recv().await {
            let replies = answer(&mut agent.lock().unwrap(), request);
            for one in replies {
                let _ = reply.send(one).await;
            }
        }
    });
    calls
}

fn answer(agent: &mut Agent, request: Request) -> Vec<Reply> {
    match request {
        Request::Status => vec![Reply::Status(Box::new(
            serde_json::from_value(json!({
                "device": "kit-7", "version": "0", "uptime_ms": 0, "boot_id": "b", "now": 0, "clock": "synced",
                "links": [], "adapters": [], "jobs": [],
                "targets": [{ "id": "kit", "version": agent.version, "health": "healthy", "observed": null, "slots": [],
                    "busy": null, "version_fault": null, "memory": { "last_failed": null, "bad": [], "activations": 0,
                    "activations_allowed": 4, "activations_until": null, "rollback_index": 0 } }],
            }))
            .unwrap(),
        ))],
        Request::Jobs { .. } => vec![Reply::Jobs(agent.jobs.clone())],
        Request::Job { key, follow } => {
            let Some(last) = agent.jobs.iter().rev().find(|j| j.key == key).cloned() else {
                return vec![Reply::Error {
                    code: ErrorCode::UnknownJob,
                    message: "no such job".into(),
                }];
            };
            let target = last.installs[0].target.clone();
            let version = last.installs[0].new_version.clone();
            let step = |phase, percent| {
                Reply::Job(Box::new(job(&key, &target, &version, phase, percent)))
            };
            if follow {
                vec![
                    step(Phase::Downloading, 10),
                    step(Phase::Downloading, 12),
                    step(Phase::Downloading, 60),
                    step(last.phase, 100),
                ]
            } else {
                vec![Reply::Job(Box::new(last))]
            }
        }
        Request::Install {
            path,
            target,
            version,
            key,
        } => {
            let key = format!("operator/{}", key.unwrap());
            let version = version.unwrap();
            agent.installs.push((path, target.clone()));
            agent.jobs.push(job(&key, &target, &version, agent.ends, 100));
            if agent.ends == Phase::Succeeded {
                agent.version = version;
            }
            vec![Reply::Accepted { key }]
        }
        other => panic!("{other:?}"),
    }
}

struct Station {
    medium: tempfile::TempDir,
    vendor: SigningKey,
    agent: Shared,
    watch: Watch,
}

impl Station {
    fn new(ends: Phase) -> Self {
        let medium = tempfile::tempdir().unwrap();
        let vendor = SigningKey::generate().unwrap();
        let agent = Arc::new(Mutex::new(Agent {
            version: "1.0".into(),
            ends,
            jobs: Vec::new(),
            installs: Vec::new(),
        }));
        let watch = watch_of(&medium, &vendor, &agent, None);
        Station {
            medium,
            vendor,
            agent,
            watch,
        }
    }

    fn put(&self, name: &str, key: &SigningKey, compatible: &str, version: &str) {
        put(self.medium.path(), name, key, compatible, version);
    }

    /// Two looks: the first only sees that there is a file.
    async fn looks(&mut self) {
        self.watch.look().await;
        self.watch.look().await;
    }

    fn installs(&self) -> Vec<String> {
        let agent = self.agent.lock().unwrap();
        let name = |path: &String| {
            Path::new(path)
                .file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned()
        };
        agent.installs.iter().map(|(path, _)| name(path)).collect()
    }

    fn result(&self, name: &str) -> Option<serde_json::Value> {
        let path = self
            .medium
            .path()
            .join(format!("{name}.kit-7.kit.result.json"));
        Some(serde_json::from_slice(&std::fs::read(path).ok()?).unwrap())
    }
}

fn watch_of(
    medium: &tempfile::TempDir,
    vendor: &SigningKey,
    agent: &Shared,
    progress: Option<Vec<String>>,
) -> Watch {
    Watch {
        offline: Offline {
            device: "kit-7".into(),
            path: medium.path().to_owned(),
            every: Duration::from_secs(1),
            progress,
            targets: vec![OfflineTarget {
                id: "kit".into(),
                compatible: "kit-a".into(),
                keys: TrustKeys::parse(&[vendor.public_key()]).unwrap(),
            }],
            seam: otahost_disk::Seam::Threads,
        },
        calls: serve(agent),
        last: BTreeMap::new(),
        done: BTreeSet::new(),
    }
}

fn claims(compatible: &str, version: &str) -> Claims {
    Claims {
        compatible: Some(compatible.into()),
        version: Some(version.into()),
        rollback_index: None,
    }
}

fn put(medium: &Path, name: &str, key: &SigningKey, compatible: &str, version: &str) {
    let payload = medium.join(".payload");
    std::fs::write(&payload, format!("image {version}")).unwrap();
    let claims = claims(compatible, version);
    sign_file(key, &payload, &medium.join(name), &claims, &mut |_, _| {}).unwrap();
    std::fs::remove_file(payload).unwrap();
}

#[tokio::test]
async fn a_signed_file_that_fits_is_installed_once_and_leaves_its_result() {
    let mut station = Station::new(Phase::Succeeded);
    station.put("kit.bin", &station.vendor, "kit-a", "2.0");
    station.watch.look().await;
    assert!(
        station.installs().is_empty(),
        "it may still be being copied"
    );
    station.watch.look().await;
    assert_eq!(station.installs(), ["kit.bin"]);
    let result = station.result("kit.bin").unwrap();
    assert_eq!(result["outcome"], "succeeded");
    assert_eq!(
        (&result["old_version"], &result["version"]),
        (&json!("1.0"), &json!("2.0"))
    );
    // The stick stays, the agent starts anew, another version came over the network.
    station.agent.lock().unwrap().version = "3.0".into();
    station.watch = watch_of(&station.medium, &station.vendor, &station.agent, None);
    station.looks().await;
    assert_eq!(station.installs(), ["kit.bin"]);
}

#[tokio::test]
async fn what_is_not_signed_for_this_device_is_passed_over() {
    let mut station = Station::new(Phase::Succeeded);
    let stranger = SigningKey::generate().unwrap();
    station.put("stranger.bin", &stranger, "kit-a", "2.0");
    station.put("other-model.bin", &station.vendor, "kit-b", "2.0");
    let path = station.medium.path();
    std::fs::write(path.join("photo.jpg"), vec![0xff; 10_000]).unwrap();
    std::fs::write(path.join("empty"), "").unwrap();
    std::fs::create_dir(path.join("folder")).unwrap();
    let outside = tempfile::tempdir().unwrap();
    put(outside.path(), "kit.bin", &station.vendor, "kit-a", "2.0");
    std::os::unix::fs::symlink(outside.path().join("kit.bin"), path.join("link.bin")).unwrap();
    station.put(".hidden.bin", &station.vendor, "kit-a", "2.0");
    station.looks().await;
    assert!(station.installs().is_empty(), "{:?}", station.installs());
}

#[tokio::test]
async fn a_signature_beside_the_file_counts_too() {
    let mut station = Station::new(Phase::Succeeded);
    let image = station.medium.path().join("kit.img");
    std::fs::write(&image, "an image").unwrap();
    let beside = station.medium.path().join("kit.img.minisig");
    sign_beside(
        &station.vendor,
        &image,
        &beside,
        &claims("kit-a", "2.0"),
        &mut |_, _| {},
    )
    .unwrap();
    station.looks().await;
    assert_eq!(station.installs(), ["kit.img"]);
}

#[tokio::test]
async fn of_several_files_the_newest_is_taken() {
    let mut station = Station::new(Phase::Succeeded);
    for (name, version) in [("a.bin", "1.9"), ("b.bin", "1.10"), ("c.bin", "1.2")] {
        station.put(name, &station.vendor, "kit-a", version);
    }
    station.looks().await;
    assert_eq!(station.installs(), ["b.bin"]);
}

#[tokio::test]
async fn a_version_that_runs_is_not_installed_again() {
    let mut station = Station::new(Phase::Succeeded);
    station.put("kit.bin", &station.vendor, "kit-a", "1.0");
    station.looks().await;
    assert!(station.installs().is_empty());
    assert_eq!(station.result("kit.bin").unwrap()["outcome"], "up-to-date");
}

#[tokio::test]
async fn what_was_rolled_back_is_not_taken_again_from_a_medium_that_cannot_be_written() {
    let mut station = Station::new(Phase::RolledBack);
    station.put("kit.bin", &station.vendor, "kit-a", "2.0");
    station.looks().await;
    assert_eq!(station.result("kit.bin").unwrap()["outcome"], "rolled-back");
    // As if the result had never been written, and after a boot.
    std::fs::remove_file(station.medium.path().join("kit.bin.kit-7.kit.result.json")).unwrap();
    station.watch = watch_of(&station.medium, &station.vendor, &station.agent, None);
    station.looks().await;
    assert_eq!(station.installs(), ["kit.bin"], "once");
}

#[tokio::test]
async fn a_failure_is_tried_again_when_its_result_is_taken_away_and_the_medium_is_plugged_in_anew()
{
    let mut station = Station::new(Phase::Failed);
    station.put("kit.bin", &station.vendor, "kit-a", "2.0");
    station.looks().await;
    station.looks().await;
    assert_eq!(station.installs().len(), 1);
    let (file, result) = (
        station.medium.path().join("kit.bin"),
        station.medium.path().join("kit.bin.kit-7.kit.result.json"),
    );
    let bytes = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    std::fs::remove_file(&result).unwrap();
    station.looks().await;
    std::fs::write(&file, bytes).unwrap();
    station.agent.lock().unwrap().ends = Phase::Succeeded;
    station.looks().await;
    assert_eq!(station.installs().len(), 2);
    assert_eq!(station.result("kit.bin").unwrap()["outcome"], "succeeded");
}

#[tokio::test]
async fn the_progress_is_shown_by_a_program() {
    let mut station = Station::new(Phase::Succeeded);
    let told = station.medium.path().join(".told");
    let script = [
        "/bin/sh",
        "-c",
        "echo \"$1 $2 $3\" >> \"$0\"",
        told.to_str().unwrap(),
    ];
    let progress = Some(script.map(str::to_owned).to_vec());
    station.watch = watch_of(&station.medium, &station.vendor, &station.agent, progress);
    station.put("kit.bin", &station.vendor, "kit-a", "2.0");
    station.looks().await;
    let told = std::fs::read_to_string(told).unwrap();
    assert_eq!(
        told,
        "downloading 10 kit\ndownloading 60 kit\nsucceeded 100 kit\n"
    );
}

#[tokio::test]
async fn a_job_of_an_earlier_start_is_followed_to_its_end() {
    let mut station = Station::new(Phase::Succeeded);
    let told = station.medium.path().join(".told");
    let script = [
        "/bin/sh",
        "-c",
        "echo \"$1\" >> \"$0\"",
        told.to_str().unwrap(),
    ];
    let progress = Some(script.map(str::to_owned).to_vec());
    station.watch = watch_of(&station.medium, &station.vendor, &station.agent, progress);
    let running = job("operator/offline-x", "kit", "2.0", Phase::Confirming, 0);
    station.agent.lock().unwrap().jobs.push(running);
    station.watch.look().await;
    let told = std::fs::read_to_string(told).unwrap();
    assert!(told.ends_with("confirming\n"), "{told}");
}

/// The rule rather than the exception: the reboot ends whoever followed it.
#[tokio::test]
async fn the_end_of_an_update_that_nobody_followed_is_shown_and_left() {
    let mut station = Station::new(Phase::Succeeded);
    let told = station.medium.path().join(".told");
    let script = [
        "/bin/sh",
        "-c",
        "echo \"$1 $2 $3\" >> \"$0\"",
        told.to_str().unwrap(),
    ];
    let progress = Some(script.map(str::to_owned).to_vec());
    station.put("kit.bin", &station.vendor, "kit-a", "2.0");
    station.looks().await;
    // As after the boot: the version runs, the job has ended, and its result was never written.
    std::fs::remove_file(station.medium.path().join("kit.bin.kit-7.kit.result.json")).unwrap();
    station.watch = watch_of(&station.medium, &station.vendor, &station.agent, progress);
    station.looks().await;
    station.looks().await;
    let result = station.result("kit.bin").unwrap();
    assert_eq!(result["outcome"], "succeeded");
    assert_eq!(result["old_version"], "1.0");
    let told = std::fs::read_to_string(told).unwrap();
    assert_eq!(told, "succeeded 100 kit\n", "once");
    assert_eq!(station.installs(), ["kit.bin"]);
}
