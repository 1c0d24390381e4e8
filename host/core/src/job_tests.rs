#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;
use crate::model::{Apply, Artifact, ArtifactSource, Install};
use crate::policy::Gate;

fn changed(actions: &[Action]) -> Applied {
    Applied::Changed(actions.to_vec())
}

const BOOT: &str = "boot-1";
const NEXT_BOOT: &str = "boot-2";

fn plan(targets: &[&str]) -> JobPlan {
    let install = |target: &&str| Install {
        target: (*target).to_owned(),
        artifact: Artifact {
            source: ArtifactSource::Url("http://h/x".into()),
            size: Some(100),
            digests: vec![],
            identity: None,
        },
        version: "2".into(),
    };
    JobPlan {
        key: "k".into(),
        dedupe: Dedupe::WhileActive,
        context: b"ids".to_vec(),
        installs: targets.iter().map(install).collect(),
        apply: Apply::Immediately,
    }
}

fn job() -> Job {
    Job::new(
        1,
        "dji",
        plan(&["dock"]),
        vec![Some("1".into())],
        &[true],
        0,
    )
}

/// The dock is the device itself and stands first in the plan; the drone hangs on it.
fn job_of_two() -> Job {
    Job::new(
        1,
        "dji",
        plan(&["dock", "drone"]),
        vec![Some("1".into()); 2],
        &[true, false],
        0,
    )
}

fn staged() -> Input {
    Input::Staged {
        staged: Staged {
            place: "b".into(),
            len: 90,
            sha256: "aa".into(),
        },
        image_sha256: "bb".into(),
        size: 100,
        version: None,
        rollback_index: None,
        delivers: false,
    }
}

/// The same for an install whose payload has to be handed over.
fn staged_to_deliver() -> Input {
    let mut input = staged();
    if let Input::Staged { delivers, .. } = &mut input {
        *delivers = true;
    }
    input
}

fn open() -> Input {
    Input::Gate(Gate::Go)
}

fn wait() -> Input {
    Input::Gate(Gate::Wait {
        reason: Reason::new("not-ready", "admit", "a call is on"),
        until: Some(9),
        ask_again: 30_000,
    })
}

fn cancel() -> Input {
    Input::Cancel(Reason::new("cancelled", "install", "cancelled on request"))
}

fn broken(is_final: bool) -> Input {
    Input::AttemptFailed {
        reason: Reason::new("source-lost", "download", "cut"),
        is_final,
        clean_retry: false,
        wait: 1_000,
        budget: 3,
    }
}

fn flash_failed() -> Input {
    Input::FlashFailed(Reason::new("flash", "install", "bad medium"))
}

fn unseen(expired: bool) -> Input {
    Input::ExamineFailed {
        reason: Reason::new("activate", "confirm", "cannot read"),
        expired,
    }
}

fn not_yet() -> Fit {
    Fit::NotYet(String::new())
}

const NEW: Standing = Standing::New { confirmed: false };

/// Applies inputs in one boot and gives the actions of the last.
fn drive(job: &mut Job, inputs: impl IntoIterator<Item = Input>) -> Applied {
    inputs
        .into_iter()
        .map(|input| job.apply(input, BOOT, 1))
        .last()
        .unwrap()
}

fn at_activating() -> Job {
    let mut job = job();
    drive(
        &mut job,
        [
            Input::Begin,
            open(),
            staged(),
            open(),
            Input::ReadBack,
            open(),
        ],
    );
    assert_eq!(job.phase, Phase::Activating);
    job
}

fn at_reboot() -> Job {
    let mut job = at_activating();
    assert_eq!(
        drive(&mut job, [Input::Activated { reboot: true }]),
        changed(&[Action::Reboot])
    );
    job
}

fn ended(job: &Job) -> (Phase, &str) {
    (
        job.phase,
        job.reason.as_ref().map_or("", |r| r.code.as_str()),
    )
}

#[test]
fn the_straight_way_ends_in_succeeded_only_after_the_new_version_is_confirmed() {
    let mut job = at_reboot();
    assert_eq!(
        job.apply(Input::Restarted { same_boot: false }, NEXT_BOOT, 2),
        changed(&[Action::Examine])
    );
    assert_eq!(
        job.apply(Input::Examined(NEW, Fit::Fits), NEXT_BOOT, 3),
        changed(&[Action::Rearm, Action::Confirm])
    );
    assert_eq!(job.phase, Phase::Confirming);
    assert_eq!(job.apply(Input::Confirmed, NEXT_BOOT, 4), changed(&[]));
    assert_eq!((job.phase, job.ended), (Phase::Succeeded, Some(4)));
}

#[test]
fn policy_and_readiness_are_asked_before_the_first_byte_and_again_before_the_switch() {
    let mut job = job();
    assert_eq!(
        drive(&mut job, [Input::Begin]),
        changed(&[Action::CheckGate(GateAt::Begin)])
    );
    assert_eq!(
        drive(&mut job, [wait()]),
        changed(&[Action::CheckGateIn(30_000)])
    );
    assert_eq!((job.phase, job.until), (Phase::Waiting, Some(9)));
    let again = Applied::Unchanged(vec![Action::CheckGateIn(30_000)]);
    assert_eq!(
        drive(&mut job, [wait()]),
        again,
        "the same answer again is not worth a commit"
    );
    assert_eq!(
        drive(&mut job, [Input::GateAgain]),
        Applied::Unchanged(vec![Action::CheckGate(GateAt::Begin)])
    );
    assert_eq!(drive(&mut job, [open()]), changed(&[Action::Transfer]));
    assert_eq!(
        drive(&mut job, [staged()]),
        changed(&[Action::CheckGate(GateAt::Install)])
    );
    assert_eq!(
        drive(&mut job, [wait()]),
        changed(&[Action::CheckGateIn(30_000)])
    );
    assert_eq!(
        drive(&mut job, [Input::GateAgain]),
        Applied::Unchanged(vec![Action::CheckGate(GateAt::Install)])
    );
    assert_eq!(
        drive(&mut job, [open(), Input::ReadBack]),
        changed(&[Action::CheckGate(GateAt::Activation)])
    );
    assert_eq!(
        drive(&mut job, [wait()]),
        changed(&[Action::CheckGateIn(30_000)])
    );
    assert_eq!(
        drive(&mut job, [Input::GateAgain]),
        Applied::Unchanged(vec![Action::CheckGate(GateAt::Activation)])
    );
    assert_eq!(drive(&mut job, [open()]), changed(&[Action::Activate]));
}

#[test]
fn a_refusal_at_the_first_gate_rejects_and_at_the_second_fails() {
    let refuse = || Input::Gate(Gate::Refuse(Reason::new("downgrade", "admit", "older")));
    let mut early = job();
    drive(&mut early, [Input::Begin, refuse()]);
    assert_eq!(ended(&early), (Phase::Rejected, "downgrade"));
    let mut late = job();
    drive(
        &mut late,
        [
            Input::Begin,
            open(),
            staged(),
            open(),
            Input::ReadBack,
            refuse(),
        ],
    );
    assert_eq!(ended(&late), (Phase::Failed, "downgrade"));
}

#[test]
fn after_a_restart_every_phase_goes_on_where_it_stood() {
    let after = |inputs: &[Input]| {
        let mut job = job();
        for input in inputs {
            job.apply(input.clone(), BOOT, 1);
        }
        job
    };
    let mut prepared = after(&[Input::Begin, open()]);
    prepared.plan.apply = Apply::WhenTold;
    drive(&mut prepared, [staged()]);
    let to_read_back = [Input::Begin, open(), staged(), open(), Input::ReadBack];
    for (name, mut job, same_boot, expected) in [
        (
            "queued",
            job(),
            true,
            vec![Action::CheckGate(GateAt::Begin)],
        ),
        (
            "waiting to begin",
            after(&[Input::Begin, wait()]),
            true,
            vec![Action::CheckGate(GateAt::Begin)],
        ),
        (
            "downloading",
            after(&[Input::Begin, open()]),
            false,
            vec![Action::Transfer],
        ),
        (
            "waiting for a retry",
            after(&[Input::Begin, open(), broken(false)]),
            true,
            vec![Action::Transfer],
        ),
        ("prepared, when told", prepared, true, vec![]),
        (
            "prepared",
            after(&to_read_back[..3]),
            false,
            vec![Action::CheckGate(GateAt::Install)],
        ),
        (
            "installing",
            after(&to_read_back[..4]),
            false,
            vec![Action::ReadBack],
        ),
        (
            "waiting to activate",
            after(&[&to_read_back[..], &[wait()]].concat()),
            false,
            vec![Action::ReadBack],
        ),
        (
            "activating, same boot",
            at_activating(),
            true,
            vec![Action::Activate],
        ),
        (
            "activating, next boot",
            at_activating(),
            false,
            vec![Action::Examine],
        ),
        (
            "switched, same boot",
            at_reboot(),
            true,
            vec![Action::Reboot],
        ),
        (
            "switched, next boot",
            at_reboot(),
            false,
            vec![Action::Examine],
        ),
    ] {
        assert_eq!(
            job.apply(Input::Restarted { same_boot }, BOOT, 2),
            Applied::Changed(expected),
            "{name}"
        );
    }
}

#[test]
fn a_cut_between_intent_and_act_reads_back_and_activates_once_more_but_a_fall_back_never_does() {
    let mut cut = at_activating();
    let examined = Input::Examined(Standing::NotActivated, not_yet());
    assert_eq!(
        cut.apply(examined, NEXT_BOOT, 2),
        changed(&[Action::ReadBack])
    );
    assert_eq!(
        cut.apply(Input::ReadBack, NEXT_BOOT, 2),
        changed(&[Action::Activate])
    );
    // What fell back is made bad before the job ends, so that nothing boots it again.
    let mut fell_back = at_reboot();
    let examined = Input::Examined(Standing::FellBack, not_yet());
    assert_eq!(
        fell_back.apply(examined, NEXT_BOOT, 2),
        changed(&[Action::RollBack])
    );
    fell_back.apply(Input::RolledBack { reboot: false }, NEXT_BOOT, 3);
    assert_eq!(ended(&fell_back), (Phase::RolledBack, "boot-failed"));
    assert_eq!(fell_back.apply(Input::Begin, NEXT_BOOT, 4), Applied::Stale);
    let mut marked_bad = at_reboot();
    marked_bad.apply(
        Input::Examined(Standing::NotActivated, not_yet()),
        NEXT_BOOT,
        2,
    );
    assert_eq!(ended(&marked_bad), (Phase::RolledBack, "boot-failed"));
}

#[test]
fn a_wrong_version_or_an_unwell_one_is_rolled_back_and_says_why() {
    for (fit, code) in [
        (Fit::WrongVersion("3 runs".into()), "version-mismatch"),
        (Fit::Expired("probe fails".into()), "probe-failed"),
    ] {
        let mut job = at_reboot();
        assert_eq!(
            job.apply(Input::Examined(NEW, fit), NEXT_BOOT, 2),
            changed(&[Action::RollBack])
        );
        assert_eq!(
            job.apply(Input::RolledBack { reboot: true }, NEXT_BOOT, 3),
            changed(&[Action::Reboot])
        );
        assert_eq!(
            job.apply(Input::Restarted { same_boot: false }, "boot-3", 4),
            changed(&[Action::Examine])
        );
        job.apply(
            Input::Examined(Standing::NotActivated, not_yet()),
            "boot-3",
            5,
        );
        assert_eq!(ended(&job), (Phase::RolledBack, code));
    }
}

#[test]
fn power_cuts_in_the_first_boots_of_a_new_version_give_its_boot_tries_back_but_not_for_ever() {
    let mut job = at_reboot();
    let looked = || Input::Examined(NEW, not_yet());
    for boot in 0..MAX_REARMS {
        let boot = format!("trial-{boot}");
        let first = job.apply(looked(), &boot, 2);
        assert_eq!(
            first,
            changed(&[Action::Rearm, Action::ExamineLater]),
            "{boot}"
        );
        assert_eq!(
            job.apply(looked(), &boot, 2),
            Applied::Unchanged(vec![Action::ExamineLater]),
            "once in a boot"
        );
    }
    assert_eq!(
        job.apply(looked(), "one too many", 2),
        Applied::Unchanged(vec![Action::ExamineLater])
    );
}

#[test]
fn too_late_is_said_from_the_commit_of_activating_on() {
    for mut job in [at_activating(), at_reboot()] {
        assert_eq!(job.apply(cancel(), BOOT, 2), Applied::TooLate);
        assert_eq!(job.phase, Phase::Activating);
    }
    let mut early = job();
    drive(&mut early, [Input::Begin, open()]);
    assert_eq!(
        early.apply(cancel(), BOOT, 2),
        changed(&[Action::StopTransfer])
    );
    assert_eq!(early.phase, Phase::Cancelled);
}

#[test]
fn attempts_without_progress_are_budgeted_and_progress_gives_the_budget_back() {
    let mut job = job();
    let retry = || Input::Retry(None);
    drive(
        &mut job,
        [
            Input::Begin,
            open(),
            broken(false),
            retry(),
            broken(false),
            retry(),
        ],
    );
    drive(
        &mut job,
        [
            Input::Progress {
                received: 10,
                total: Some(100),
            },
            broken(false),
            retry(),
            broken(false),
        ],
    );
    assert_eq!(job.phase, Phase::Downloading);
    drive(&mut job, [retry(), broken(false)]);
    assert_eq!(ended(&job), (Phase::Failed, "source-lost"));
}

#[test]
fn the_same_bytes_again_are_no_progress_so_a_server_that_always_cuts_there_is_given_up() {
    let mut job = job();
    drive(
        &mut job,
        [
            Input::Begin,
            open(),
            Input::Progress {
                received: 50,
                total: Some(100),
            },
        ],
    );
    for _ in 0..3 {
        drive(&mut job, [broken(false), Input::Retry(None)]);
        drive(
            &mut job,
            [40, 50].map(|received| Input::Progress {
                received,
                total: Some(100),
            }),
        );
    }
    assert_eq!(job.phase, Phase::Failed);
}

#[test]
fn a_retry_that_a_pause_has_overtaken_starts_nothing() {
    let mut job = job();
    drive(
        &mut job,
        [Input::Begin, open(), broken(false), Input::Pause],
    );
    assert_eq!(drive(&mut job, [Input::Retry(None)]), Applied::Stale);
    assert_eq!(
        drive(&mut job, [Input::Resume]),
        changed(&[Action::Transfer])
    );
    assert_eq!(
        drive(&mut job, [Input::Retry(None)]),
        Applied::Stale,
        "the transfer runs already"
    );
}

#[test]
fn a_final_failure_is_not_tried_again_and_a_wrong_digest_after_a_resume_is_tried_once() {
    let mut final_one = job();
    assert_eq!(
        drive(&mut final_one, [Input::Begin, open(), broken(true)]),
        changed(&[])
    );
    assert_eq!(final_one.phase, Phase::Failed);
    let mut resumed = job();
    let wrong = Input::AttemptFailed {
        reason: Reason::new("digest", "verify", "md5 differs"),
        is_final: true,
        clean_retry: true,
        wait: 0,
        budget: 3,
    };
    assert_eq!(
        drive(&mut resumed, [Input::Begin, open(), wrong.clone()]),
        changed(&[Action::TransferAfresh])
    );
    drive(&mut resumed, [wrong]);
    assert_eq!(resumed.phase, Phase::Failed);
}

#[test]
fn a_switch_that_fails_is_undone_before_the_job_fails() {
    let mut job = at_activating();
    assert_eq!(
        drive(&mut job, [flash_failed()]),
        changed(&[Action::RollBack])
    );
    assert_eq!(
        drive(&mut job, [Input::RolledBack { reboot: false }]),
        changed(&[])
    );
    assert_eq!(ended(&job), (Phase::Failed, "flash"));
}

#[test]
fn a_selector_that_cannot_be_read_for_a_while_does_not_cost_a_good_version() {
    let mut job = at_reboot();
    for _ in 0..100 {
        assert_eq!(
            job.apply(unseen(false), NEXT_BOOT, 2),
            Applied::Unchanged(vec![Action::ExamineLater])
        );
    }
    assert_eq!(
        job.apply(Input::Examined(NEW, Fit::Fits), NEXT_BOOT, 3),
        changed(&[Action::Rearm, Action::Confirm])
    );
    assert_eq!(
        job.apply(unseen(true), NEXT_BOOT, 4),
        changed(&[Action::RollBack])
    );
}

#[test]
fn a_switch_that_the_selector_refuses_is_tried_with_growing_waits_and_then_taken_back() {
    let refused = || Input::FlashFailed(Reason::new("activate", "activate", "it is held"));
    let mut job = at_activating();
    let mut waits = Vec::new();
    let last = loop {
        let applied = drive(&mut job, [refused()]);
        match &applied {
            Applied::Changed(actions) if matches!(actions[..], [Action::ActivateIn(_)]) => {
                let [Action::ActivateIn(wait)] = actions[..] else {
                    unreachable!()
                };
                waits.push(wait);
            }
            _ => break applied,
        }
    };
    assert_eq!(last, changed(&[Action::RollBack]));
    assert!(
        waits.is_sorted() && waits.iter().sum::<Millis>() > 120_000,
        "{waits:?}"
    );
    // What another fault stopped is not tried again, and one that passes costs nothing.
    assert_eq!(
        drive(&mut at_activating(), [flash_failed()]),
        changed(&[Action::RollBack])
    );
    assert_eq!(
        drive(
            &mut at_activating(),
            [refused(), Input::Activated { reboot: true }]
        ),
        changed(&[Action::Reboot])
    );
}

#[test]
fn the_way_back_is_tried_with_growing_waits_and_given_up_in_the_end() {
    let mut job = at_reboot();
    drive(
        &mut job,
        [Input::Examined(NEW, Fit::WrongVersion("3".into()))],
    );
    let mut waits = Vec::new();
    while let Applied::Changed(actions) = drive(&mut job, [flash_failed()])
        && let [Action::RollBackIn(wait)] = actions.as_slice()
    {
        waits.push(*wait);
    }
    assert!(
        waits.is_sorted() && waits.iter().sum::<Millis>() > 120_000,
        "{waits:?}"
    );
    assert_eq!(ended(&job), (Phase::RollbackFailed, "flash"));
}

#[test]
fn a_device_that_does_not_reboot_when_asked_goes_back_to_the_old_version() {
    let mut job = at_reboot();
    for _ in 1..MAX_TRIES {
        assert_eq!(
            drive(&mut job, [Input::Restarted { same_boot: true }]),
            changed(&[Action::Reboot])
        );
    }
    assert_eq!(
        drive(&mut job, [Input::Restarted { same_boot: true }]),
        changed(&[Action::RollBack])
    );
    drive(&mut job, [Input::RolledBack { reboot: false }]);
    assert_eq!(ended(&job), (Phase::Failed, "activate"));
}

#[test]
fn a_deadline_ends_what_can_be_ended_and_brings_back_what_was_switched() {
    let mut early = job();
    drive(&mut early, [Input::Begin, open()]);
    assert_eq!(
        drive(&mut early, [Input::Deadline]),
        changed(&[Action::StopTransfer])
    );
    assert_eq!(ended(&early), (Phase::Failed, "deadline"));
    let mut late = at_reboot();
    assert_eq!(
        drive(&mut late, [Input::Deadline]),
        changed(&[Action::RollBack])
    );
    assert_eq!(late.phase, Phase::Activating);
}

#[test]
fn a_key_is_taken_while_active_and_then_as_long_as_the_plan_says() {
    let mut job = job();
    assert!(job.holds_key(u64::MAX));
    drive(&mut job, [Input::Begin, open(), broken(true)]);
    assert!(!job.holds_key(2));
    job.plan.dedupe = Dedupe::Lasting(10);
    assert!(job.holds_key(10) && !job.holds_key(11));
}

#[test]
fn an_older_agent_reads_what_a_newer_one_kept_and_a_newer_one_what_an_older_one_did() {
    let job = at_reboot();
    let mut row = serde_json::to_value(&job).unwrap();
    row["tomorrow"] = 1.into();
    row["installs"][0]["tomorrow"] = "x".into();
    assert_eq!(serde_json::from_value::<Job>(row).unwrap(), job);
    // What the first version of all kept.
    let first = ["id", "owner", "plan", "phase", "created", "installs"];
    let mut old = serde_json::to_value(&job).unwrap();
    old.as_object_mut()
        .unwrap()
        .retain(|key, _| first.contains(&key.as_str()));
    let read: Job = serde_json::from_value(old).unwrap();
    assert_eq!(
        (read.phase, &read.plan, &read.installs),
        (job.phase, &job.plan, &job.installs)
    );
}

// ---- several targets ----

/// Both artifacts staged and read back, and the gate open.
fn two_at_activating() -> Job {
    let mut job = job_of_two();
    drive(
        &mut job,
        [
            Input::Begin,
            open(),
            staged(),
            staged(),
            open(),
            Input::ReadBack,
            Input::ReadBack,
        ],
    );
    assert_eq!(job.phase, Phase::Installing);
    assert_eq!(drive(&mut job, [open()]), changed(&[Action::Activate]));
    job
}

#[test]
fn all_artifacts_are_verified_before_any_target_is_activated() {
    let mut job = job_of_two();
    assert_eq!(
        drive(&mut job, [Input::Begin, open(), staged()]),
        changed(&[Action::Transfer])
    );
    assert_eq!(job.current_target(), "drone");
    let mut failing = job.clone();
    drive(&mut failing, [broken(true)]);
    let phases: Vec<Phase> = failing
        .report(false, 0)
        .installs
        .iter()
        .map(|i| i.phase)
        .collect();
    assert_eq!(
        (failing.phase, phases),
        (Phase::Failed, vec![Phase::Failed; 2]),
        "nothing was activated"
    );
    assert_eq!(
        drive(&mut job, [staged(), open()]),
        changed(&[Action::ReadBack])
    );
    assert_eq!(
        drive(&mut job, [Input::ReadBack]),
        changed(&[Action::ReadBack])
    );
    assert_eq!(
        drive(&mut job, [Input::ReadBack]),
        changed(&[Action::CheckGate(GateAt::Activation)])
    );
}

#[test]
fn the_devices_own_target_activates_last() {
    let mut job = two_at_activating();
    assert_eq!(job.current_target(), "drone");
    drive(
        &mut job,
        [
            Input::Activated { reboot: false },
            Input::Examined(NEW, Fit::Fits),
        ],
    );
    assert_eq!(
        drive(&mut job, [Input::Confirmed]),
        changed(&[Action::Activate])
    );
    assert_eq!(
        (job.current_target(), job.phase),
        ("dock", Phase::Activating)
    );
    let phases: Vec<Phase> = job
        .report(false, 0)
        .installs
        .iter()
        .map(|i| i.phase)
        .collect();
    assert_eq!(phases, [Phase::Activating, Phase::Succeeded]);
    drive(
        &mut job,
        [
            Input::Activated { reboot: true },
            Input::Examined(NEW, Fit::Fits),
            Input::Confirmed,
        ],
    );
    assert_eq!(job.phase, Phase::Succeeded);
}

#[test]
fn mixed_outcomes_are_said_as_partial_and_the_rest_is_not_touched() {
    let mut mixed = two_at_activating();
    drive(
        &mut mixed,
        [
            Input::Activated { reboot: false },
            Input::Examined(NEW, Fit::Fits),
            Input::Confirmed,
        ],
    );
    drive(
        &mut mixed,
        [
            Input::Activated { reboot: true },
            Input::Examined(Standing::FellBack, not_yet()),
        ],
    );
    drive(&mut mixed, [Input::RolledBack { reboot: false }]);
    let phases: Vec<Phase> = mixed
        .report(false, 0)
        .installs
        .iter()
        .map(|i| i.phase)
        .collect();
    assert_eq!(
        (ended(&mixed), phases),
        (
            (Phase::Partial, "boot-failed"),
            vec![Phase::RolledBack, Phase::Succeeded]
        )
    );

    let mut first_fails = two_at_activating();
    drive(&mut first_fails, [flash_failed()]);
    assert_eq!(
        drive(&mut first_fails, [Input::RolledBack { reboot: false }]),
        changed(&[])
    );
    let report = first_fails.report(false, 0);
    assert_eq!(first_fails.phase, Phase::Failed);
    assert!(
        report.installs[0]
            .reason
            .as_ref()
            .unwrap()
            .text
            .contains("`drone`"),
        "{:?}",
        report.installs[0]
    );
}

// ---- handing over ----

/// Up to the first handing over.
fn at_delivering(mut job: Job) -> Job {
    let staged = vec![staged_to_deliver(); job.installs.len()];
    drive(&mut job, [Input::Begin, open()]);
    drive(&mut job, staged);
    drive(&mut job, [open()]);
    let read_back = vec![Input::ReadBack; job.installs.len()];
    assert_eq!(drive(&mut job, read_back), changed(&[Action::Deliver]));
    assert_eq!(job.phase, Phase::Delivering);
    job
}

#[test]
fn what_has_to_be_handed_over_is_after_everything_was_read_back_and_before_the_switch_is_asked_for()
{
    let mut job = at_delivering(job());
    assert_eq!(drive(&mut job, [Input::Working(40)]), Applied::Progressed);
    assert_eq!(job.report(false, 0).installs[0].percent, 40);
    assert_eq!(
        drive(&mut job, [Input::Delivered]),
        changed(&[Action::CheckGate(GateAt::Activation)])
    );
    let report = job.report(false, 0);
    assert_eq!(
        (report.phase, report.installs[0].percent),
        (Phase::Delivered, 100)
    );
    assert_eq!(
        drive(&mut job, [wait()]),
        changed(&[Action::CheckGateIn(30_000)])
    );
    assert_eq!(
        drive(&mut job, [Input::GateAgain, open()]),
        changed(&[Action::Activate])
    );
    assert_eq!(drive(&mut job, [Input::Working(7)]), Applied::Progressed);
    assert_eq!(job.report(false, 0).installs[0].percent, 7);
}

#[test]
fn of_two_targets_each_is_handed_its_own_and_one_that_needs_none_is_left_out() {
    // The drone goes first, the dock is the device itself.
    let mut both = at_delivering(job_of_two());
    assert_eq!(both.current_target(), "drone");
    assert_eq!(
        drive(&mut both, [Input::Delivered]),
        changed(&[Action::Deliver])
    );
    assert_eq!(both.current_target(), "dock");
    let phases = |job: &Job| -> Vec<Phase> {
        let report = job.report(false, 0);
        report
            .installs
            .iter()
            .map(|install| install.phase)
            .collect()
    };
    assert_eq!(phases(&both), [Phase::Delivering, Phase::Delivered]);
    drive(&mut both, [Input::Delivered]);
    assert_eq!(phases(&both), [Phase::Delivered, Phase::Delivered]);

    let mut one = job_of_two();
    drive(
        &mut one,
        [Input::Begin, open(), staged(), staged_to_deliver(), open()],
    );
    assert_eq!(
        drive(&mut one, [Input::ReadBack, Input::ReadBack]),
        changed(&[Action::Deliver])
    );
    assert_eq!(one.current_target(), "drone");
    assert_eq!(
        drive(&mut one, [Input::Delivered]),
        changed(&[Action::CheckGate(GateAt::Activation)])
    );
}

#[test]
fn handing_over_can_be_cancelled_and_paused_and_begins_anew_after_it() {
    let mut cancelled = at_delivering(job());
    assert_eq!(
        drive(&mut cancelled, [cancel()]),
        changed(&[Action::StopTransfer])
    );
    assert_eq!(cancelled.phase, Phase::Cancelled);
    let mut paused = at_delivering(job());
    assert_eq!(
        drive(&mut paused, [Input::Pause]),
        changed(&[Action::StopTransfer])
    );
    assert_eq!(
        drive(&mut paused, [Input::Delivered]),
        Applied::Stale,
        "it came late"
    );
    // What is staged may have lain there for long.
    assert_eq!(
        drive(&mut paused, [Input::Resume]),
        changed(&[Action::ReadBack])
    );
    assert_eq!(
        drive(&mut paused, [Input::ReadBack]),
        changed(&[Action::Deliver])
    );
    let mut late = at_delivering(job());
    assert_eq!(
        drive(&mut late, [Input::Deadline]),
        changed(&[Action::StopTransfer])
    );
    assert_eq!(ended(&late), (Phase::Failed, "deadline"));
    assert_eq!(late.reason.unwrap().stage, "deliver");
}

#[test]
fn a_handing_over_that_fails_keeps_its_stage_and_leaves_the_old_version() {
    let mut job = at_delivering(job());
    let reason = Reason::new("flash", "unpack", "the archive is refused");
    drive(&mut job, [Input::FlashFailed(reason.clone())]);
    assert_eq!((job.phase, job.reason), (Phase::Failed, Some(reason)));
}

#[test]
fn what_was_handed_over_is_not_handed_over_again_after_a_restart() {
    for waits in [false, true] {
        let mut job = at_delivering(job());
        drive(&mut job, [Input::Delivered]);
        if waits {
            drive(&mut job, [wait()]);
        }
        let restarted = job.apply(Input::Restarted { same_boot: false }, NEXT_BOOT, 2);
        assert_eq!(restarted, changed(&[Action::CheckGate(GateAt::Activation)]));
    }
    // In its middle nobody knows how far it came.
    let mut cut = at_delivering(job());
    let restarted = cut.apply(Input::Restarted { same_boot: false }, NEXT_BOOT, 2);
    assert_eq!(restarted, changed(&[Action::ReadBack]));
    assert_eq!(
        drive(&mut cut, [Input::ReadBack]),
        changed(&[Action::Deliver])
    );
    // One of two has it; only the other is read back again.
    let mut half = at_delivering(job_of_two());
    drive(&mut half, [Input::Delivered]);
    half.apply(Input::Restarted { same_boot: true }, BOOT, 2);
    assert_eq!(half.current_target(), "dock");
    assert_eq!(
        drive(&mut half, [Input::ReadBack]),
        changed(&[Action::Deliver])
    );
    assert_eq!(half.current_target(), "dock");
}

#[test]
fn a_switch_whose_end_nobody_saw_is_done_once_more_but_not_for_ever_and_never_called_undone() {
    let unclear = || Input::Examined(Standing::Unclear, not_yet());
    let mut job = at_activating();
    for _ in 1..MAX_TRIES {
        assert_eq!(
            job.apply(unclear(), NEXT_BOOT, 2),
            changed(&[Action::ReadBack])
        );
        assert_eq!(
            job.apply(Input::ReadBack, NEXT_BOOT, 2),
            changed(&[Action::Activate])
        );
    }
    assert_eq!(
        job.apply(unclear(), NEXT_BOOT, 2),
        changed(&[Action::RollBack])
    );
    assert_eq!(
        job.apply(unclear(), NEXT_BOOT, 2),
        changed(&[Action::RollBack])
    );
    assert_eq!(job.phase, Phase::Activating);
}

// ---- properties ----

fn any_input() -> impl Strategy<Value = Input> {
    let standing = prop_oneof![
        Just(NEW),
        Just(Standing::New { confirmed: true }),
        Just(Standing::NotActivated),
        Just(Standing::Pending),
        Just(Standing::FellBack),
        Just(Standing::Unclear)
    ];
    let fit = prop_oneof![
        Just(Fit::Fits),
        Just(Fit::WrongVersion("x".into())),
        Just(Fit::NotYet("x".into())),
        Just(Fit::Expired("x".into()))
    ];
    prop_oneof![
        1 => Just(Input::Begin),
        4 => Just(open()),
        1 => Just(wait()),
        1 => Just(Input::Gate(Gate::Refuse(Reason::new("policy", "admit", "no")))),
        1 => Just(Input::GateAgain),
        1 => (0u64..200).prop_map(|received| Input::Progress { received, total: Some(100) }),
        1 => Just(Input::AllReceived),
        4 => Just(staged()),
        4 => Just(staged_to_deliver()),
        4 => Just(Input::Delivered),
        2 => (0u8..=255).prop_map(Input::Working),
        1 => any::<bool>().prop_map(broken),
        1 => Just(Input::Retry(None)),
        4 => Just(Input::ReadBack),
        1 => Just(flash_failed()),
        2 => any::<bool>().prop_map(|reboot| Input::Activated { reboot }),
        1 => any::<bool>().prop_map(|same_boot| Input::Restarted { same_boot }),
        1 => (standing, fit).prop_map(|(s, f)| Input::Examined(s, f)),
        1 => any::<bool>().prop_map(unseen),
        1 => Just(Input::ConfirmGiven),
        1 => Just(Input::Confirmed),
        1 => any::<bool>().prop_map(|reboot| Input::RolledBack { reboot }),
        1 => Just(Input::Apply),
        1 => Just(Input::Pause),
        1 => Just(Input::Resume),
        1 => Just(cancel()),
        1 => Just(Input::Deadline),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_nothing_leads_back_over_the_point_of_no_return(
        two: bool,
        inputs in proptest::collection::vec(any_input(), 1..80),
    ) {
        let mut job = if two { job_of_two() } else { job() };
        let mut past = false;
        for (i, input) in inputs.into_iter().enumerate() {
            let before = job.clone();
            let applied = job.apply(input, BOOT, i as u64);
            if before.phase.is_final() {
                prop_assert_eq!(&applied, &Applied::Stale);
                prop_assert_eq!(&job, &before);
            }
            past |= job.phase.is_past_return();
            prop_assert!(!past || job.phase.is_past_return() || job.phase.is_final(), "back to {}", job.phase);
            prop_assert!(job.phase != Phase::Cancelled || !past);
            prop_assert_eq!(job.phase.is_final(), job.ended.is_some());
            prop_assert!(!job.phase.is_final() || job.installs.iter().all(|s| s.outcome.as_ref().is_some_and(|o| o.phase.is_final())));
            if let Applied::Changed(actions) = &applied {
                // Nothing is activated before everything was staged and read back.
                prop_assert!(!actions.contains(&Action::Activate) || job.installs.iter().all(|s| s.staged.is_some()));
                // Nor before everything that has to be handed over was; and nothing is handed over after that.
                prop_assert!(!actions.contains(&Action::Activate) || job.installs.iter().all(|s| s.delivered || !s.delivers));
                prop_assert!(!actions.contains(&Action::Deliver) || job.phase == Phase::Delivering && !job.paused);
                prop_assert!(!actions.contains(&Action::Reboot) || job.phase.is_past_return());
            }
            prop_assert!(job.report(false, 0).installs.iter().all(|install| install.percent <= 100));
            prop_assert!(job.installs.iter().all(|s| s.delivers || !s.delivered));
            prop_assert!(job.history.len() <= MAX_HISTORY);
            if matches!(applied, Applied::Unchanged(_) | Applied::Stale | Applied::TooLate) {
                prop_assert_eq!(&job, &before);
            }
        }
    }

    #[test]
    fn a_restart_always_finds_something_to_do_or_something_to_wait_for(inputs in proptest::collection::vec(any_input(), 1..60)) {
        let mut job = job();
        for input in inputs {
            job.apply(input, BOOT, 1);
        }
        if !job.phase.is_final() {
            let applied = job.apply(Input::Restarted { same_boot: false }, NEXT_BOOT, 2);
            let Applied::Changed(actions) = applied else { panic!("dead end in {}", job.phase) };
            prop_assert!(!actions.is_empty() || job.paused || job.plan.apply == Apply::WhenTold || job.phase.is_final());
        }
    }

    #[test]
    fn every_phase_has_a_deadline_that_ends_it_or_turns_it_back(inputs in proptest::collection::vec(any_input(), 1..60)) {
        let mut job = job();
        for input in inputs {
            job.apply(input, BOOT, 1);
        }
        if !job.phase.is_final() {
            job.apply(Input::Deadline, BOOT, 2);
            prop_assert!(job.phase.is_final() || job.rolling_back, "{}", job.phase);
        }
    }

    #[test]
    fn a_job_survives_the_journal(inputs in proptest::collection::vec(any_input(), 1..40)) {
        let mut job = job_of_two();
        for input in inputs {
            job.apply(input, BOOT, 1);
        }
        let text = serde_json::to_vec(&job).unwrap();
        prop_assert_eq!(serde_json::from_slice::<Job>(&text).unwrap(), job);
    }
}

#[test]
fn the_table_in_the_docs_is_what_the_code_does() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("JOBS.md");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(
        text.contains(&table()),
        "JOBS.md is old; between its marks belongs:\n{}",
        table()
    );
}
