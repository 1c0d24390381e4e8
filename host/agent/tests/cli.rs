//! The command line as a process: what it prints where, and its exit codes.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use otahost::api::{
    AdapterLogs, ApiCall, DeadView, ErrorCode, InstallView, JobView, ReplayReport, Reply, Request,
    StatusView, TakenView, serve,
};
use otahost_core::model::{ClockQuality, Phase, Reason};
use otahost_sandbox::{Brief, Difference, Finding, Replay};
use tokio::sync::mpsc;

struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Bench {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn socket(&self) -> PathBuf {
        self.path("s")
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let socket = self.socket();
        Command::new(env!("CARGO_BIN_EXE_otahost"))
            .args(["--socket", socket.to_str().unwrap()])
            .args(arguments)
            .current_dir(self.dir.path())
            .output()
            .unwrap()
    }
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn job(key: &str, phase: Phase) -> JobView {
    JobView {
        id: "1".into(),
        key: key.into(),
        owner: "operator".into(),
        phase,
        paused: false,
        gate: None,
        current: 0,
        awaits_owner: false,
        when_told: false,
        failed_attempts: 0,
        allowed_attempts: 0,
        activation: None,
        rolling_back: false,
        time_left: None,
        created: 0,
        updated: 0,
        reason: (phase == Phase::Failed)
            .then(|| Reason::new("digest", "verify", "the MD5 is wrong")),
        until: None,
        rate: 0,
        installs: vec![InstallView {
            target: "dock".into(),
            phase,
            received: 5,
            total: Some(10),
            percent: 50,
            old_version: Some("1".into()),
            new_version: "2".into(),
            reason: None,
        }],
        history: vec![],
    }
}

fn error(code: ErrorCode) -> Vec<Reply> {
    vec![Reply::Error {
        code,
        message: "no".into(),
    }]
}

fn step(n: u64) -> Brief {
    Brief {
        n,
        now: 0,
        uptime: 0,
        component: String::new(),
        event: "timer x".into(),
        outcome: "step".into(),
        reason: None,
        effects: Some(vec!["publish cloud a/b (2 bytes, QoS 1)".into()]),
        state_changed: true,
        fuel: 5,
        log: vec![],
        discarded: None,
        replayable: true,
    }
}

/// A replay of steps that gave the same, and of one that ended as this word says.
fn report(last: &str) -> ReplayReport {
    let finding = match last {
        "differs" => Finding::Differs {
            differences: vec![Difference {
                what: "effect 1 (publish cloud a/b)".into(),
                field: "payload".into(),
                recorded: "1".into(),
                now: "2".into(),
            }],
            recorded: vec![],
            now: vec![],
        },
        "failed" => Finding::Failed("no migration".into()),
        _ => Finding::Same,
    };
    let replay = |n, finding| Replay {
        n,
        event: "timer x".into(),
        recorded_by: String::new(),
        run_by: String::new(),
        fuel_recorded: 5,
        fuel_now: Some(5),
        finding,
    };
    let is = |word: &str| u64::from(last == word);
    ReplayReport {
        version: "2".into(),
        digest: String::new(),
        same: if last == "none" {
            0
        } else {
            2 - is("differs") - is("failed")
        },
        differing: is("differs"),
        failed: is("failed"),
        not_run: 4,
        steps: match last {
            "none" => vec![],
            _ => vec![replay(3, Finding::Same), replay(5, finding)],
        },
    }
}

/// What the engine of this bench answers. The target's name is the phase its job ends in.
fn answers(request: Request, follows: &mut u32) -> Vec<Reply> {
    let job_reply = |phase| Reply::Job(Box::new(job("k", phase)));
    match request {
        Request::Status => vec![Reply::Status(Box::new(StatusView {
            device: "gw-7".into(),
            version: "0.1.0".into(),
            uptime_ms: 1000,
            boot_id: "b".into(),
            now: 0,
            clock: ClockQuality::Synced,
            safe_mode: true,
            journal: Default::default(),
            links: vec![],
            targets: vec![],
            adapters: vec![],
            repositories: vec![],
            drop_ins: vec![],
            problem: None,
            jobs: vec![],
        }))],
        Request::Jobs { key: None } => vec![Reply::Jobs(vec![job("k", Phase::Failed)])],
        Request::Jobs { key: Some(key) } if key == "k" => {
            vec![Reply::Jobs(vec![job("k", Phase::Failed)])]
        }
        Request::Jobs { .. } => vec![Reply::Jobs(vec![])],
        Request::Cancel { key } | Request::Pause { key } | Request::Resume { key } => {
            match key.as_str() {
                "k" => vec![Reply::Done],
                "late" => error(ErrorCode::TooLate),
                _ => error(ErrorCode::UnknownJob),
            }
        }
        Request::Clear { target, image } => match (target.as_str(), image.as_deref()) {
            ("dock", None) => vec![Reply::Cleared { images: 2 }],
            ("dock", Some("2.0")) => vec![Reply::Cleared { images: 1 }],
            ("dock", Some(_)) | ("drone", None) => vec![Reply::Cleared { images: 0 }],
            _ => error(ErrorCode::UnknownTarget),
        },
        Request::AdapterRollback { adapter } => match adapter.as_str() {
            "dji" => vec![Reply::Done],
            _ => error(ErrorCode::UnknownAdapter),
        },
        Request::AdapterInstall { adapter, .. } => vec![Reply::Taken(Box::new(TakenView {
            adapter,
            version: "2".into(),
            digest: String::new(),
            before: Some("1".into()),
            trial: report("differs"),
        }))],
        Request::AdapterReplay { step: Some(99), .. } => error(ErrorCode::UnknownStep),
        Request::AdapterReplay { adapter, .. } => vec![Reply::Replayed(Box::new(report(&adapter)))],
        Request::AdapterLogs { adapter, .. } => vec![
            Reply::Logs(Box::new(AdapterLogs {
                adapter,
                steps: vec![step(7)],
                earlier: 3,
                dead: vec![DeadView {
                    n: 2,
                    at: 0,
                    event: "timer x".into(),
                    error: "it trapped".into(),
                    replayable: true,
                }],
            })),
            Reply::Logged(Box::new(step(8))),
        ],
        Request::Reload => vec![Reply::Reloaded {
            changed: vec!["C".into()],
            wrong: vec!["W".into()],
        }],
        Request::AdapterInspect { .. } | Request::AdapterOffer { .. } => {
            error(ErrorCode::UnknownAdapter)
        }
        Request::Install {
            target,
            path,
            version,
            ..
        } => {
            assert!(Path::new(&path).is_absolute() && version.as_deref() != Some(""));
            match target.as_str() {
                "busy" => error(ErrorCode::Busy),
                "none" => error(ErrorCode::UnknownTarget),
                _ => vec![Reply::Accepted { key: target }],
            }
        }
        Request::Job { key, .. } => {
            *follows += 1;
            let end = match key.as_str() {
                // The agent goes away in the middle, as it does when the device restarts.
                "reboot" if *follows == 1 => return vec![job_reply(Phase::Activating)],
                "succeeded" | "reboot" => Phase::Succeeded,
                "failed" => Phase::Failed,
                "rejected" => Phase::Rejected,
                "cancelled" => Phase::Cancelled,
                "rolled-back" => Phase::RolledBack,
                "rollback-failed" => Phase::RollbackFailed,
                _ => return error(ErrorCode::UnknownJob),
            };
            vec![job_reply(Phase::Downloading), job_reply(end)]
        }
    }
}

/// Runs `work` with an agent at the bench's socket.
fn with_agent(bench: &Bench, work: impl FnOnce()) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let _inside = runtime.enter();
    let (to_engine, mut calls) = mpsc::channel(4);
    let server = serve(&bench.socket(), to_engine).unwrap();
    runtime.spawn(async move {
        let mut follows = 0;
        while let Some(ApiCall { request, reply }) = calls.recv().await {
            for answer in answers(request, &mut follows) {
                let _ = reply.send(answer).await;
            }
        }
    });
    work();
    drop(server);
}

#[test]
fn without_an_agent_the_command_says_how_to_start_one() {
    let bench = Bench::new();
    for command in [&["status"][..], &["jobs"], &["cancel", "k"]] {
        let output = bench.run(command);
        assert_eq!(code(&output), 4);
        assert!(
            err(&output).contains("no agent answers") && err(&output).contains("otahost run"),
            "{}",
            err(&output)
        );
    }
    let output = bench.run(&["status", "--json"]);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (code(&output), &document["error"]["code"]),
        (4, &serde_json::json!("unreachable"))
    );
}

#[test]
fn questions_are_answered_in_words_and_in_json() {
    let bench = Bench::new();
    with_agent(&bench, || {
        let output = bench.run(&["status"]);
        assert_eq!(code(&output), 0);
        assert!(
            out(&output).starts_with("gw-7: otahost 0.1.0, running for 1 s"),
            "{}",
            out(&output)
        );
        let status: StatusView =
            serde_json::from_slice(&bench.run(&["status", "--json"]).stdout).unwrap();
        assert_eq!(status.device, "gw-7");
        assert!(
            out(&output).contains("a restart after a minute, or a reboot, ends it"),
            "{}",
            out(&output)
        );
        assert_eq!(
            out(&bench.run(&["jobs"])),
            "  1970-01-01 00:00:00 UTC  k  for operator  dock 1 → 2  failed\n      \
             failed: the MD5 is wrong; what ran before still runs\n"
        );
        assert!(out(&bench.run(&["jobs", "k"])).contains("reason: digest at verify"));
        let jobs: Vec<JobView> =
            serde_json::from_slice(&bench.run(&["jobs", "--json"]).stdout).unwrap();
        assert_eq!(jobs[0].phase, Phase::Failed);
        assert_eq!(code(&bench.run(&["jobs", "other"])), 5);
        for (key, expected) in [("k", 0), ("other", 5), ("late", 9)] {
            for command in ["cancel", "pause", "resume"] {
                assert_eq!(
                    code(&bench.run(&[command, key])),
                    expected,
                    "{command} {key}"
                );
            }
        }
        assert!(out(&bench.run(&["pause", "k"])).contains("`otahost resume k` lets it go on"));
    });
}

#[test]
fn clear_says_how_many_images_are_allowed_again() {
    let bench = Bench::new();
    with_agent(&bench, || {
        for (arguments, expected) in [
            (&["dock"][..], "dock: 2 images are allowed again\n"),
            (&["dock", "2.0"], "dock: 1 image is allowed again\n"),
            (
                &["dock", "3.0"],
                "dock: no image `3.0` is known to be bad; `otahost status` lists those that are\n",
            ),
            (
                &["drone"],
                "drone: no image is known to be bad; nothing to clear\n",
            ),
        ] {
            let output = bench.run(&[&["clear"], arguments].concat());
            assert_eq!((code(&output), out(&output).as_str()), (0, expected));
        }
        let output = bench.run(&["clear", "dock", "--json"]);
        let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(
            document,
            serde_json::json!({ "ok": true, "target": "dock", "cleared": 2 })
        );
        let output = bench.run(&["clear", "none"]);
        assert_eq!((code(&output), out(&output).as_str()), (5, ""));
        assert!(err(&output).contains("otahost status"), "{}", err(&output));
    });
}

#[test]
fn the_exit_code_of_a_replay_says_whether_all_was_the_same() {
    let bench = Bench::new();
    with_agent(&bench, || {
        for (adapter, expected, said) in [
            ("same", 0, "on version 2: 2 steps the same, 4 not run\n"),
            (
                "differs",
                12,
                "step 5 (timer x): differs\n  effect 1 (publish cloud a/b), payload: 1 -> 2\n\
                 on version 2: 1 step the same, 1 otherwise, 4 not run\n",
            ),
            (
                "failed",
                1,
                "step 5 (timer x): not replayed: no migration\n\
                 on version 2: 1 step the same, 1 could not be compared, 4 not run\n",
            ),
            ("none", 1, "on version 2: 0 steps the same, 4 not run\n"),
        ] {
            let output = bench.run(&["adapter", "replay", adapter]);
            assert_eq!((code(&output), out(&output).as_str()), (expected, said));
            let json = bench.run(&["adapter", "replay", adapter, "--json"]);
            let read: ReplayReport = serde_json::from_slice(&json.stdout).unwrap();
            assert_eq!((code(&json), read), (expected, report(adapter)));
        }
        let one = bench.run(&["adapter", "replay", "same", "--step", "3"]);
        assert!(out(&one).starts_with("step 3 (timer x): the same\n"));
        let gone = bench.run(&["adapter", "replay", "same", "--step", "99"]);
        assert_eq!(code(&gone), 5, "{}", err(&gone));
        let both = bench.run(&["adapter", "replay", "same", "--step", "3", "--dead", "1"]);
        assert_eq!(code(&both), 2);
    });
}

#[test]
fn logs_show_each_step_with_its_effects_and_what_was_set_aside() {
    let bench = Bench::new();
    with_agent(&bench, || {
        let steps = |n| {
            format!(
                "1970-01-01 00:00:00 UTC  step {n}  timer x: step, new state (5 fuel)\n    \
                 publish cloud a/b (2 bytes, QoS 1)\n"
            )
        };
        let output = bench.run(&["adapter", "logs", "dji"]);
        assert_eq!(code(&output), 0);
        assert_eq!(
            out(&output),
            format!(
                "3 steps before; `otahost adapter logs dji --last 4` shows all\n{}\
                 dead letters\n  2  1970-01-01 00:00:00 UTC  timer x: it trapped\n    \
                 `otahost adapter replay dji --dead 2`\n{}",
                steps(7),
                steps(8)
            )
        );
        let json = bench.run(&["adapter", "logs", "dji", "--json"]);
        let (logs, next) = out(&json)
            .split_once('\n')
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .unwrap();
        assert_eq!(
            serde_json::from_str::<AdapterLogs>(&logs).unwrap().steps,
            [step(7)]
        );
        assert_eq!(serde_json::from_str::<Brief>(&next).unwrap(), step(8));
    });
}

#[test]
fn a_version_that_is_taken_is_told_with_what_it_made_of_the_record() {
    let bench = Bench::new();
    std::fs::write(bench.path("dji.wasm"), "x").unwrap();
    with_agent(&bench, || {
        let output = bench.run(&["adapter", "install", "dji", "dji.wasm"]);
        assert_eq!(
            (code(&output), out(&output).as_str()),
            (
                0,
                "dji runs version 2 in place of 1, on probation; `otahost adapter list` shows how it does\n\
                 the record of the version before: 1 step the same, 1 otherwise, 4 not run\n  \
                 step 5 (timer x): differs\n    effect 1 (publish cloud a/b), payload: 1 -> 2\n  \
                 if it should not be so: `otahost adapter rollback dji`\n"
            )
        );
    });
}

#[test]
fn install_follows_the_job_to_its_end_and_the_exit_code_says_which() {
    let bench = Bench::new();
    std::fs::write(bench.path("image"), "x").unwrap();
    with_agent(&bench, || {
        for (target, expected) in [
            ("reboot", 0),
            ("succeeded", 0),
            ("rejected", 6),
            ("failed", 7),
            ("rolled-back", 8),
            ("cancelled", 10),
            ("rollback-failed", 11),
            ("busy", 6),
            ("none", 5),
        ] {
            let output = bench.run(&["install", "image", "--target", target]);
            assert_eq!(code(&output), expected, "{target}: {}", err(&output));
        }
        let output = bench.run(&["install", "image", "--target", "failed"]);
        assert_eq!(
            out(&output),
            "dock 1 → 2: failed: the MD5 is wrong; what ran before still runs\n"
        );
        assert!(err(&output).contains("downloading"), "{}", err(&output));
        let output = bench.run(&["install", "image", "--target", "succeeded", "--json"]);
        let phases: Vec<_> = out(&output)
            .lines()
            .map(|line| serde_json::from_str::<JobView>(line).unwrap().phase)
            .collect();
        assert_eq!(phases, [Phase::Downloading, Phase::Succeeded]);
        let output = bench.run(&["install", "image", "--target", "failed", "--no-wait"]);
        assert_eq!(
            (code(&output), out(&output)),
            (
                0,
                "failed: `otahost jobs failed` shows how it goes\n".to_owned()
            )
        );
        assert_eq!(
            code(&bench.run(&["install", "missing", "--target", "succeeded"])),
            1
        );
    });
}

#[test]
fn a_faulty_configuration_stops_check_and_run_before_anything_starts() {
    let bench = Bench::new();
    std::fs::write(
        bench.path("otahost.toml"),
        "[device]\nid = \"gw\"\ndata_dir = \"/nonexistent/data\"\nrebot = []\n",
    )
    .unwrap();
    for command in ["check", "run"] {
        let output = bench.run(&[command, "--config", "otahost.toml"]);
        assert_eq!((code(&output), out(&output).as_str()), (3, ""));
        assert!(
            err(&output).contains("otahost.toml:4:1")
                && err(&output).contains("did you mean `reboot`?"),
            "{}",
            err(&output)
        );
        assert!(err(&output).ends_with("\n2 faults\n"), "{}", err(&output));
    }
    let output = bench.run(&["check", "--config", "otahost.toml", "--json"]);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["ok"], false);
    assert_eq!(document["findings"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_sound_configuration_passes_the_check() {
    let bench = Bench::new();
    let text = format!(
        "[device]\nid = \"gw\"\ndata_dir = \"{}\"\nreboot = [\"true\"]\n",
        bench.path("data").display()
    );
    std::fs::write(bench.path("otahost.toml"), text).unwrap();
    let output = bench.run(&["check", "--config", "otahost.toml"]);
    assert_eq!(
        (code(&output), out(&output).as_str()),
        (0, "otahost.toml: no faults\n")
    );
    assert!(
        !bench.path("data").exists(),
        "check starts nothing and makes nothing"
    );
}

#[test]
fn a_pair_of_keys_and_a_signed_image_need_no_other_tool() {
    let bench = Bench::new();
    std::fs::write(bench.path("image"), vec![7; 100_000]).unwrap();
    let output = bench.run(&["keygen", "vendor"]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    let public = std::fs::read_to_string(bench.path("vendor.pub")).unwrap();
    let public = public.lines().nth(1).unwrap();
    assert!(out(&output).contains(&format!("trust = {{ minisign = [\"{public}\"] }}")));
    assert_eq!(
        code(&bench.run(&["keygen", "vendor"])),
        1,
        "keys are never overwritten"
    );
    let sign = [
        "sign",
        "image",
        "--key",
        "vendor.key",
        "--out",
        "signed",
        "--compatible",
        "dock",
        "--version",
        "2.0",
    ];
    let output = bench.run(&sign);
    assert_eq!(code(&output), 0, "{}", err(&output));
    let header = std::fs::read(bench.path("signed")).unwrap()[..4096]
        .try_into()
        .unwrap();
    let header = otahost_transfer::header::Header::parse(&header)
        .unwrap()
        .unwrap();
    assert_eq!(header.claims().version.as_deref(), Some("2.0"));
    let output = bench.run(&["sign", "signed", "--key", "vendor.key", "--out", "twice"]);
    assert!(
        code(&output) == 1 && err(&output).contains("signed already"),
        "{}",
        err(&output)
    );
    let output = bench.run(&["sign", "image", "--key", "vendor.key", "--sidecar"]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert!(out(&output).contains("image.minisig"), "{}", out(&output));
    let text = std::fs::read_to_string(bench.path("image.minisig")).unwrap();
    assert!(otahost_transfer::Signature::parse(&text).is_ok());
    assert_eq!(
        std::fs::read(bench.path("image")).unwrap(),
        vec![7; 100_000]
    );
}

#[test]
fn a_command_line_that_cannot_be_understood_is_a_usage_error() {
    let bench = Bench::new();
    assert_eq!(code(&bench.run(&["instal"])), 2);
    let help = bench.run(&["--help"]);
    assert!(code(&help) == 0 && out(&help).contains("Exit codes:"));
}
