#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;
use crate::model::{Artifact, ArtifactSource, Install};

const BOOT: &str = "boot-1";
const NEXT_BOOT: &str = "boot-2";

fn plan() -> JobPlan {
    JobPlan {
        key: "k".into(),
        dedupe: Dedupe::WhileActive,
        context: b"ids".to_vec(),
        installs: vec![Install {
            target: "dock".into(),
            artifact: Artifact {
                source: ArtifactSource::Url("http://h/x".into()),
                size: Some(100),
                digests: vec![],
                identity: None,
            },
            version: "2".into(),
        }],
        apply: Apply::Immediately,
    }
}

fn job() -> Job {
    Job::new(1, "dji", plan(), vec![Some("1".into())], 0)
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
        header_version: None,
    }
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
    drive(&mut job, [Input::Begin, staged(), Input::ReadBack]);
    assert_eq!(job.phase, Phase::Activating);
    job
}

fn at_reboot() -> Job {
    let mut job = at_activating();
    assert_eq!(
        drive(&mut job, [Input::Activated { reboot: true }]),
        Applied::Changed(vec![Action::Reboot])
    );
    job
}

fn changed(actions: &[Action]) -> Applied {
    Applied::Changed(actions.to_vec())
}

#[test]
fn the_straight_way_ends_in_succeeded_only_after_the_new_version_is_confirmed() {
    let mut job = at_reboot();
    assert_eq!(
        job.apply(Input::Restarted { same_boot: false }, NEXT_BOOT, 2),
        changed(&[Action::Examine])
    );
    let new = Standing::New { confirmed: false };
    assert_eq!(
        job.apply(Input::Examined(new, Fit::Fits), NEXT_BOOT, 3),
        changed(&[Action::Confirm])
    );
    assert_eq!(job.phase, Phase::Confirming);
    assert_eq!(job.apply(Input::Confirmed, NEXT_BOOT, 4), changed(&[]));
    assert_eq!((job.phase, job.ended), (Phase::Succeeded, Some(4)));
}

#[test]
fn after_a_restart_every_phase_goes_on_where_it_stood() {
    let mut waiting = job();
    drive(&mut waiting, [Input::Begin, broken(false)]);
    let mut prepared = job();
    prepared.plan.apply = Apply::WhenTold;
    drive(&mut prepared, [Input::Begin, staged()]);
    let mut installing = job();
    drive(&mut installing, [Input::Begin, staged()]);
    let mut downloading = job();
    drive(&mut downloading, [Input::Begin]);
    for (name, mut job, same_boot, expected) in [
        ("queued", job(), true, vec![Action::Transfer]),
        ("downloading", downloading, false, vec![Action::Transfer]),
        ("waiting for a retry", waiting, true, vec![Action::Transfer]),
        ("prepared, when told", prepared, true, vec![]),
        ("installing", installing, false, vec![Action::ReadBack]),
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
fn a_cut_between_intent_and_act_activates_once_more_but_a_fall_back_never_does() {
    let mut cut = at_activating();
    let not_yet = Fit::NotYet(String::new());
    let examined = Input::Examined(Standing::NotActivated, not_yet.clone());
    assert_eq!(
        cut.apply(examined, NEXT_BOOT, 2),
        changed(&[Action::Activate])
    );
    let mut fell_back = at_reboot();
    for standing in [Standing::FellBack, Standing::NotActivated] {
        let mut job = fell_back.clone();
        assert_eq!(
            job.apply(Input::Examined(standing, not_yet.clone()), NEXT_BOOT, 2),
            changed(&[])
        );
        assert_eq!(
            (job.phase, job.reason.unwrap().code.as_str()),
            (Phase::RolledBack, "boot-failed")
        );
    }
    fell_back.apply(Input::Examined(Standing::FellBack, not_yet), NEXT_BOOT, 2);
    assert_eq!(fell_back.apply(Input::Begin, NEXT_BOOT, 3), Applied::Stale);
}

#[test]
fn a_wrong_version_or_an_unwell_one_is_rolled_back_and_says_why() {
    for (fit, code) in [
        (Fit::WrongVersion("3 runs".into()), "version-mismatch"),
        (Fit::Expired("probe fails".into()), "probe-failed"),
    ] {
        let mut job = at_reboot();
        let new = Standing::New { confirmed: false };
        assert_eq!(
            job.apply(Input::Examined(new, fit), NEXT_BOOT, 2),
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
        let old = Input::Examined(Standing::NotActivated, Fit::NotYet(String::new()));
        job.apply(old, "boot-3", 5);
        assert_eq!(
            (job.phase, job.reason.unwrap().code.as_str()),
            (Phase::RolledBack, code)
        );
    }
}

#[test]
fn too_late_is_said_from_the_commit_of_activating_on() {
    for mut job in [at_activating(), at_reboot()] {
        assert_eq!(job.apply(Input::Cancel, BOOT, 2), Applied::TooLate);
        assert_eq!(job.phase, Phase::Activating);
    }
    let mut early = job();
    drive(&mut early, [Input::Begin]);
    assert_eq!(
        early.apply(Input::Cancel, BOOT, 2),
        changed(&[Action::StopTransfer])
    );
    assert_eq!(early.phase, Phase::Cancelled);
}

#[test]
fn attempts_without_progress_are_budgeted_and_progress_gives_the_budget_back() {
    let mut job = job();
    drive(
        &mut job,
        [
            Input::Begin,
            broken(false),
            Input::Retry,
            broken(false),
            Input::Retry,
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
            Input::Retry,
            broken(false),
        ],
    );
    assert_eq!(job.phase, Phase::Downloading);
    drive(&mut job, [Input::Retry, broken(false)]);
    assert_eq!(
        (job.phase, job.reason.unwrap().code.as_str()),
        (Phase::Failed, "source-lost")
    );
}

#[test]
fn the_same_bytes_again_are_no_progress_so_a_server_that_always_cuts_there_is_given_up() {
    let mut job = job();
    drive(
        &mut job,
        [
            Input::Begin,
            Input::Progress {
                received: 50,
                total: Some(100),
            },
        ],
    );
    for _ in 0..3 {
        drive(&mut job, [broken(false), Input::Retry]);
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
fn a_final_failure_is_not_tried_again_and_a_wrong_digest_after_a_resume_is_tried_once() {
    let mut job = job();
    assert_eq!(drive(&mut job, [Input::Begin, broken(true)]), changed(&[]));
    assert_eq!(job.phase, Phase::Failed);
    let mut resumed = self::job();
    let wrong = Input::AttemptFailed {
        reason: Reason::new("digest", "verify", "md5 differs"),
        is_final: true,
        clean_retry: true,
        wait: 0,
        budget: 3,
    };
    assert_eq!(
        drive(&mut resumed, [Input::Begin, wrong.clone()]),
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
    assert_eq!(
        (job.phase, job.reason.unwrap().code.as_str()),
        (Phase::Failed, "flash")
    );
}

#[test]
fn a_selector_that_cannot_be_read_for_a_moment_does_not_cost_a_good_version() {
    let mut job = at_reboot();
    let unreadable = Input::ExamineFailed(Reason::new("activate", "confirm", "cannot read"));
    assert_eq!(
        job.apply(unreadable.clone(), NEXT_BOOT, 2),
        changed(&[Action::ExamineLater])
    );
    let new = Standing::New { confirmed: false };
    assert_eq!(
        job.apply(Input::Examined(new, Fit::Fits), NEXT_BOOT, 3),
        changed(&[Action::Confirm])
    );
    for expected in [Action::ExamineLater, Action::ExamineLater, Action::RollBack] {
        assert_eq!(
            job.apply(unreadable.clone(), NEXT_BOOT, 4),
            changed(&[expected])
        );
    }
}

#[test]
fn a_key_is_taken_while_active_and_then_as_long_as_the_plan_says() {
    let mut job = job();
    assert!(job.holds_key(u64::MAX));
    drive(&mut job, [Input::Begin, broken(true)]);
    assert!(!job.holds_key(2));
    job.plan.dedupe = Dedupe::Lasting(10);
    assert!(job.holds_key(10) && !job.holds_key(11));
}

fn any_input() -> impl Strategy<Value = Input> {
    let standing = prop_oneof![
        Just(Standing::New { confirmed: false }),
        Just(Standing::New { confirmed: true }),
        Just(Standing::NotActivated),
        Just(Standing::Pending),
        Just(Standing::FellBack)
    ];
    let fit = prop_oneof![
        Just(Fit::Fits),
        Just(Fit::WrongVersion("x".into())),
        Just(Fit::NotYet("x".into())),
        Just(Fit::Expired("x".into()))
    ];
    prop_oneof![
        Just(Input::Begin),
        (0u64..200).prop_map(|received| Input::Progress {
            received,
            total: Some(100)
        }),
        Just(Input::AllReceived),
        Just(staged()),
        any::<bool>().prop_map(broken),
        Just(Input::Retry),
        Just(Input::ReadBack),
        Just(flash_failed()),
        any::<bool>().prop_map(|reboot| Input::Activated { reboot }),
        any::<bool>().prop_map(|same_boot| Input::Restarted { same_boot }),
        (standing, fit).prop_map(|(s, f)| Input::Examined(s, f)),
        Just(Input::ExamineFailed(Reason::new(
            "activate", "confirm", "x"
        ))),
        Just(Input::Confirmed),
        any::<bool>().prop_map(|reboot| Input::RolledBack { reboot }),
        Just(Input::Apply),
        Just(Input::Pause),
        Just(Input::Resume),
        Just(Input::Cancel),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_nothing_leads_back_over_the_point_of_no_return(inputs in proptest::collection::vec(any_input(), 1..60)) {
        let mut job = job();
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
            if let Applied::Changed(actions) = &applied {
                // Nothing is activated that was not staged and read back.
                prop_assert!(!actions.contains(&Action::Activate) || job.installs[0].staged.is_some());
                prop_assert!(!actions.contains(&Action::Reboot) || job.phase.is_past_return());
            }
            prop_assert!(job.history.len() <= MAX_HISTORY);
            if !matches!(applied, Applied::Changed(_) | Applied::Progressed) {
                prop_assert_eq!(&job, &before);
            }
        }
    }

    #[test]
    fn a_restart_always_finds_something_to_do_or_something_to_wait_for(inputs in proptest::collection::vec(any_input(), 1..40)) {
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
}
