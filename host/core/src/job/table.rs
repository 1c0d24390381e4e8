//! The job engine as one table, made by asking the code: phase × what can happen → next phase and actions.

use std::fmt::Write as _;

use super::{Action, Applied, Input, Job, Staged};
use crate::model::{Apply, Artifact, ArtifactSource, Dedupe, Install, JobPlan, Phase, Reason};
use crate::policy::Gate;

const BOOT: &str = "boot";

/// What can happen in any phase, in the words of the table's head.
fn happenings() -> Vec<(&'static str, Input)> {
    let gone = Input::AttemptFailed {
        reason: Reason::new("source-refused", "download", "gone"),
        is_final: true,
        clean_retry: false,
        wait: 0,
        budget: 1,
    };
    vec![
        (
            "progress",
            Input::Progress {
                received: 1,
                total: Some(2),
            },
        ),
        (
            "cancel",
            Input::Cancel(Reason::new("cancelled", "install", "cancelled on request")),
        ),
        ("pause", Input::Pause),
        ("deadline", Input::Deadline),
        ("power cut", Input::Restarted { same_boot: false }),
        ("agent restart", Input::Restarted { same_boot: true }),
        ("source gone", gone),
    ]
}

/// A job in each phase it can be in.
fn samples() -> Vec<(&'static str, Job)> {
    let install = Install {
        target: "t".into(),
        artifact: Artifact {
            source: ArtifactSource::Url("http://h/x".into()),
            size: None,
            digests: vec![],
            identity: None,
        },
        version: "2".into(),
    };
    let plan = JobPlan {
        key: "k".into(),
        dedupe: Dedupe::WhileActive,
        context: vec![],
        installs: vec![install],
        apply: Apply::Immediately,
    };
    let at = |inputs: &[Input]| {
        let mut job = Job::new(1, "a", plan.clone(), vec![None], &[true], 0);
        for input in inputs {
            job.apply(input.clone(), BOOT, 0);
        }
        job
    };
    let wait = Gate::Wait {
        reason: Reason::new("policy", "admit", "window"),
        until: None,
        ask_again: 1_000,
    };
    let staged = Input::Staged {
        staged: Staged {
            place: "b".into(),
            len: 1,
            sha256: String::new(),
        },
        image_sha256: String::new(),
        size: 1,
        version: None,
        rollback_index: None,
        delivers: false,
    };
    let open = Input::Gate(Gate::Go);
    let to_installing = [Input::Begin, open.clone(), staged.clone(), open.clone()];
    let to_activating = [&to_installing[..], &[Input::ReadBack, open.clone()]].concat();
    let to_rebooting = [&to_activating[..], &[Input::Activated { reboot: true }]].concat();
    let to_confirming = [&to_activating[..], &[Input::Activated { reboot: false }]].concat();
    let bad = Input::Examined(
        super::Standing::New { confirmed: false },
        super::Fit::WrongVersion("3".into()),
    );
    let to_rolling_back = [&to_confirming[..], &[bad]].concat();
    let mut handed_over = staged.clone();
    if let Input::Staged { delivers, .. } = &mut handed_over {
        *delivers = true;
    }
    let to_delivering = [
        Input::Begin,
        open.clone(),
        handed_over,
        open.clone(),
        Input::ReadBack,
    ];
    let to_delivered = [&to_delivering[..], &[Input::Delivered]].concat();
    let mut prepared = at(&[Input::Begin, open.clone()]);
    prepared.plan.apply = Apply::WhenTold;
    prepared.apply(staged, BOOT, 0);
    vec![
        ("queued", at(&[])),
        (
            "waiting, to begin",
            at(&[Input::Begin, Input::Gate(wait.clone())]),
        ),
        ("downloading", at(&[Input::Begin, open.clone()])),
        ("verifying", at(&[Input::Begin, open, Input::AllReceived])),
        ("prepared, when told", prepared),
        ("installing", at(&to_installing)),
        ("delivering", at(&to_delivering)),
        ("delivered", at(&to_delivered)),
        (
            "waiting, to activate",
            at(&[
                &to_installing[..],
                &[Input::ReadBack, Input::Gate(wait.clone())],
            ]
            .concat()),
        ),
        (
            "waiting, delivered",
            at(&[&to_delivered[..], &[Input::Gate(wait)]].concat()),
        ),
        ("activating, decided", at(&to_activating)),
        ("activating, done", at(&to_rebooting)),
        ("confirming", at(&to_confirming)),
        ("confirming, rolling back", at(&to_rolling_back)),
    ]
}

fn action(action: &Action) -> String {
    match action {
        Action::CheckGate(_) => "ask policy".into(),
        Action::CheckGateIn(_) => "ask policy later".into(),
        Action::Transfer => "transfer, resumed".into(),
        Action::TransferAfresh => "transfer from the start".into(),
        Action::RetryIn(_) => "try again later".into(),
        Action::StopTransfer => "stop what runs".into(),
        Action::ReadBack => "read back".into(),
        Action::Deliver => "hand over".into(),
        Action::Activate => "activate".into(),
        Action::ActivateIn(_) => "activate later".into(),
        Action::Reboot => "reboot".into(),
        Action::Examine => "look where it stands".into(),
        Action::ExamineLater => "look again later".into(),
        Action::Rearm => "give boot tries back".into(),
        Action::Confirm => "confirm".into(),
        Action::RollBack => "roll back".into(),
        Action::RollBackIn(_) => "roll back later".into(),
    }
}

fn cell(before: Phase, after: &Job, applied: &Applied) -> String {
    let actions = match applied {
        Applied::Stale => return "–".into(),
        Applied::TooLate => return "too late".into(),
        Applied::Progressed => Vec::new(),
        Applied::Changed(actions) | Applied::Unchanged(actions) => actions.clone(),
    };
    let mut parts = Vec::new();
    if after.phase != before {
        parts.push(format!("**{}**", after.phase));
    } else if after.paused {
        parts.push("paused".into());
    }
    parts.extend(actions.iter().map(action));
    if parts.is_empty() {
        "stays".into()
    } else {
        parts.join("; ")
    }
}

/// The table as Markdown: what a job does in each phase when something happens. Bold is the next phase; `–` means that it cannot happen
/// there and changes nothing.
pub fn table() -> String {
    let happenings = happenings();
    let mut text = String::from("| phase |");
    for (name, _) in &happenings {
        let _ = write!(text, " {name} |");
    }
    text.push_str("\n|---|");
    text.push_str(&"---|".repeat(happenings.len()));
    text.push('\n');
    for (name, job) in samples() {
        let _ = write!(text, "| {name} |");
        for (_, input) in &happenings {
            let mut after = job.clone();
            let input = match (input, job.phase) {
                // Progress of the flasher and not of a transfer.
                (
                    Input::Progress { .. },
                    Phase::Installing | Phase::Delivering | Phase::Activating,
                ) => Input::Working(50),
                (input, _) => input.clone(),
            };
            let applied = after.apply(input, BOOT, 0);
            let _ = write!(text, " {} |", cell(job.phase, &after, &applied));
        }
        text.push('\n');
    }
    text
}
