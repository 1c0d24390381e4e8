//! A job in one sentence: where it stands, why it waits and until when, what comes next.
//!
//! A person asks because nothing seems to happen. A phase in one word does not say whether that is right, whether it ends by itself,
//! or whom to turn to; the sentence does.

use otahost_core::job::{Activation, GateAt};
use otahost_core::model::Phase;
use otahost_core::policy::ASK_SOON;

use super::words::{argument, bytes, clean, part, span, time};
use crate::api::{InstallView, JobView};

/// Where a job stands and what comes next.
pub(super) fn outlook(job: &JobView) -> String {
    if job.paused && !job.phase.is_final() {
        return format!(
            "paused{}; `otahost resume {}` lets it go on{}",
            amount(job)
                .map(|amount| format!(" with {amount} here"))
                .unwrap_or_default(),
            argument(&job.key),
            limit(job)
        );
    }
    match job.phase {
        Phase::Queued => with(
            "queued",
            job,
            "; policy is asked, then the download begins",
        ),
        Phase::Waiting => waiting(job),
        Phase::Downloading => downloading(job),
        Phase::Verifying => {
            let size = current(job).and_then(|i| i.total);
            let all = size.map_or_else(|| "all bytes".into(), |size| format!("all {}", bytes(size)));
            let next = if job.when_told {
                format!("then it waits until {} has it installed", owner(job))
            } else {
                "then it is read back and activated".into()
            };
            format!("verifying, {all} are here; {next}")
        }
        Phase::Prepared if job.awaits_owner => format!(
            "verified and staged; installed when {} says so{}",
            owner(job),
            limit(job)
        ),
        Phase::Prepared => {
            "verified and staged; policy and readiness are asked, then it is read back and activated"
                .into()
        }
        Phase::Delivering => format!(
            "is being handed over to {}{}; then readiness is asked and the new version activated{}",
            target(job),
            because(job).map(|text| format!(": {text}")).unwrap_or_default(),
            limit(job)
        ),
        Phase::Delivered => {
            "handed over; policy and readiness are asked, then the new version is activated".into()
        }
        Phase::Installing => {
            "what is staged is being read back; then readiness is asked and the new version activated"
                .into()
        }
        Phase::Activating | Phase::Confirming if job.rolling_back => with(
            "past the point of no return: the old version is being brought back",
            job,
            "; it ends by itself",
        ),
        Phase::Activating if job.activation == Some(Activation::Done) => {
            "past the point of no return: rebooting; comes up in the new version or falls back by itself"
                .into()
        }
        Phase::Activating => format!(
            "past the point of no return: switching {} to the new version; it comes up or falls back by itself",
            target(job)
        ),
        Phase::Confirming => confirming(job),
        Phase::Succeeded => "succeeded: the new version runs and is confirmed".into(),
        Phase::Rejected => with("refused", job, "; nothing was changed"),
        Phase::Failed => with("failed", job, "; what ran before still runs"),
        Phase::RolledBack => with("rolled back", job, "; the old version runs again"),
        Phase::RollbackFailed => {
            with("rollback failed", job, "; a person has to look at the target")
        }
        Phase::Cancelled => with("cancelled", job, "; what ran before still runs"),
        Phase::Partial => {
            let targets: Vec<_> = job.installs.iter().map(outcome).collect();
            format!("partial: {}", targets.join("; "))
        }
    }
}

fn waiting(job: &JobView) -> String {
    let until = job
        .until
        .map(|at| format!(" until {}", time(at)))
        .unwrap_or_default();
    let because = because(job)
        .map(|text| format!(" because {text}"))
        .unwrap_or_default();
    let again = match job.until {
        Some(_) => String::new(),
        None => format!("; asked again every {}", span(ASK_SOON)),
    };
    let next = match job.gate {
        None | Some(GateAt::Begin) => "then the download begins",
        Some(GateAt::Install) => "then what is staged is read back and activated",
        Some(GateAt::Activation) => "then the new version is activated",
    };
    format!("waits{until}{because}{again}, {next}{}", limit(job))
}

fn downloading(job: &JobView) -> String {
    let here = amount(job);
    if job.awaits_owner {
        let text = format!(
            "; {} is asked whether another source helps, else it is given up",
            owner(job)
        );
        return with("the download failed", job, &text);
    }
    if let Some(until) = job.until {
        let of = match job.allowed_attempts {
            0 => String::new(),
            allowed => format!(" of {allowed}"),
        };
        let after = here
            .map(|here| format!(" goes on after {here}"))
            .unwrap_or_default();
        let text = format!(
            "; attempt {}{of} at {}{after}",
            job.failed_attempts.saturating_add(1),
            time(until)
        );
        return with("the download broke off", job, &text);
    }
    let amount = here.map(|here| format!(" {here}")).unwrap_or_default();
    let which = match job.installs.len() {
        0 | 1 => String::new(),
        several => format!(" for {} ({} of {several})", target(job), job.current + 1),
    };
    format!("downloading{amount}{which}{}; {}", speed(job), then(job))
}

fn confirming(job: &JobView) -> String {
    let within = job
        .time_left
        .map(|left| format!(" within {}", span(left)))
        .unwrap_or_default();
    if job.awaits_owner {
        format!(
            "the new version runs; {} has to accept it{within}, else the old one comes back",
            owner(job)
        )
    } else {
        format!(
            "the new version runs and has to prove itself{within}; then it is confirmed, else the old one comes back"
        )
    }
}

/// How one install of several ended.
fn outcome(install: &InstallView) -> String {
    let target = clean(&install.target);
    if install.phase == Phase::Succeeded {
        return format!("`{target}` runs the new version");
    }
    let reason = install
        .reason
        .as_ref()
        .map(|r| format!(": {}", clean(&r.text)))
        .unwrap_or_default();
    format!("`{target}` does not ({}{reason})", install.phase)
}

/// What follows the download.
fn then(job: &JobView) -> String {
    if job.when_told {
        format!(
            "then it is verified, and waits until {} has it installed",
            owner(job)
        )
    } else {
        "then it is verified, read back and activated".into()
    }
}

/// When it is given up.
fn limit(job: &JobView) -> String {
    job.time_left
        .map(|left| format!("; given up in {}", span(left)))
        .unwrap_or_default()
}

fn speed(job: &JobView) -> String {
    if job.rate == 0 {
        return String::new();
    }
    let left = current(job)
        .and_then(|i| i.total.map(|total| total.saturating_sub(i.received)))
        .map(|left| {
            let ms = left.saturating_mul(1_000) / job.rate;
            format!(", {} to go", span(ms))
        })
        .unwrap_or_default();
    format!(" at {}/s{left}", bytes(job.rate))
}

fn amount(job: &JobView) -> Option<String> {
    let install = current(job)?;
    match (install.received, install.total) {
        (0, None) => None,
        (received, None) => Some(bytes(received)),
        (received, Some(total)) if received == total => Some(format!("all {}", bytes(total))),
        (received, Some(total)) => Some(part(received, total)),
    }
}

fn current(job: &JobView) -> Option<&InstallView> {
    job.installs.get(job.current)
}

fn target(job: &JobView) -> String {
    current(job).map_or_else(
        || "the target".to_owned(),
        |i| format!("`{}`", clean(&i.target)),
    )
}

fn owner(job: &JobView) -> String {
    format!("`{}`", clean(&job.owner))
}

fn because(job: &JobView) -> Option<String> {
    job.reason.as_ref().map(|r| clean(&r.text))
}

/// A head, the reason where there is one, and a tail.
fn with(head: &str, job: &JobView, tail: &str) -> String {
    match because(job) {
        Some(reason) => format!("{head}: {reason}{tail}"),
        None => format!("{head}{tail}"),
    }
}

#[cfg(test)]
mod tests {
    use otahost_core::model::Reason;

    use super::*;
    use crate::cli::samples::job;

    const MIB: u64 = 1 << 20;
    /// 2026-06-01.
    const JUNE: u64 = 1_780_272_000_000;

    fn reason(text: &str) -> Option<Reason> {
        Some(Reason::new("code", "stage", text))
    }

    fn waiting_at(gate: GateAt, text: &str) -> JobView {
        JobView {
            gate: Some(gate),
            reason: reason(text),
            ..job(Phase::Waiting)
        }
    }

    fn two(phase: Phase) -> JobView {
        let mut job = job(phase);
        let mut second = job.installs[0].clone();
        second.target = "drone".into();
        second.phase = Phase::RolledBack;
        second.reason = reason("its probe failed");
        job.installs.push(second);
        job
    }

    #[test]
    fn a_job_that_waits_says_why_until_when_and_what_comes_next() {
        let not_ready = "the target is not ready: a call is on";
        let window = "it is outside the maintenance windows (02:00-04:00 UTC)";
        let told = JobView {
            awaits_owner: true,
            time_left: Some(3_600_000),
            ..job(Phase::Prepared)
        };
        let paused = JobView {
            paused: true,
            key: "a b".into(),
            ..job(Phase::Downloading)
        };
        for (job, expected) in [
            (
                job(Phase::Queued),
                "queued; policy is asked, then the download begins",
            ),
            (
                waiting_at(GateAt::Activation, not_ready),
                "waits because the target is not ready: a call is on; asked again every 10 s, then the new version is activated",
            ),
            (
                JobView {
                    time_left: Some(7 * 86_400_000 - 1),
                    ..waiting_at(GateAt::Install, not_ready)
                },
                "waits because the target is not ready: a call is on; asked again every 10 s, then what is staged is read back and activated; given up in 6 d 23 h",
            ),
            (
                JobView {
                    until: Some(JUNE),
                    ..waiting_at(GateAt::Begin, window)
                },
                "waits until 2026-06-01 00:00:00 UTC because it is outside the maintenance windows (02:00-04:00 UTC), then the download begins",
            ),
            (
                told,
                "verified and staged; installed when `dji` says so; given up in 1 h 0 min",
            ),
            (
                job(Phase::Prepared),
                "verified and staged; policy and readiness are asked, then it is read back and activated",
            ),
            (
                paused,
                "paused with 12.3 of 64.0 MiB here; `otahost resume 'a b'` lets it go on",
            ),
        ] {
            assert_eq!(outlook(&job), expected);
        }
    }

    #[test]
    fn a_download_says_how_far_it_is_and_why_it_stands_still() {
        let base = || job(Phase::Downloading);
        let fast = || JobView {
            rate: 41 * MIB / 10,
            ..base()
        };
        let broken = || JobView {
            reason: reason("the server hung up"),
            until: Some(JUNE),
            failed_attempts: 2,
            allowed_attempts: 8,
            ..base()
        };
        let mut unknown = fast();
        unknown.installs[0].total = None;
        let mut nothing = broken();
        nothing.installs[0].received = 0;
        nothing.installs[0].total = None;
        let mut second = two(Phase::Downloading);
        second.current = 1;
        for (job, expected) in [
            (
                base(),
                "downloading 12.3 of 64.0 MiB; then it is verified, read back and activated",
            ),
            (
                fast(),
                "downloading 12.3 of 64.0 MiB at 4.1 MiB/s, 12 s to go; then it is verified, read back and activated",
            ),
            (
                JobView {
                    when_told: true,
                    ..fast()
                },
                "downloading 12.3 of 64.0 MiB at 4.1 MiB/s, 12 s to go; then it is verified, and waits until `dji` has it installed",
            ),
            (
                unknown,
                "downloading 12.3 MiB at 4.1 MiB/s; then it is verified, read back and activated",
            ),
            (
                second,
                "downloading 12.3 of 64.0 MiB for `drone` (2 of 2); then it is verified, read back and activated",
            ),
            (
                broken(),
                "the download broke off: the server hung up; attempt 3 of 8 at 2026-06-01 00:00:00 UTC goes on after 12.3 of 64.0 MiB",
            ),
            (
                nothing,
                "the download broke off: the server hung up; attempt 3 of 8 at 2026-06-01 00:00:00 UTC",
            ),
            (
                JobView {
                    awaits_owner: true,
                    ..broken()
                },
                "the download failed: the server hung up; `dji` is asked whether another source helps, else it is given up",
            ),
            (
                job(Phase::Verifying),
                "verifying, all 64.0 MiB are here; then it is read back and activated",
            ),
        ] {
            assert_eq!(outlook(&job), expected);
        }
    }

    #[test]
    fn past_the_point_of_no_return_the_job_says_so_and_how_it_can_end() {
        let back = JobView {
            rolling_back: true,
            reason: reason("its probe failed"),
            ..job(Phase::Confirming)
        };
        let left = || JobView {
            time_left: Some(543_000),
            ..job(Phase::Confirming)
        };
        for (job, expected) in [
            (
                job(Phase::Installing),
                "what is staged is being read back; then readiness is asked and the new version activated",
            ),
            (
                JobView {
                    activation: Some(Activation::Intent),
                    ..job(Phase::Activating)
                },
                "past the point of no return: switching `dock` to the new version; it comes up or falls back by itself",
            ),
            (
                JobView {
                    activation: Some(Activation::Done),
                    ..job(Phase::Activating)
                },
                "past the point of no return: rebooting; comes up in the new version or falls back by itself",
            ),
            (
                left(),
                "the new version runs and has to prove itself within 9 min 3 s; then it is confirmed, else the old one comes back",
            ),
            (
                JobView {
                    awaits_owner: true,
                    ..left()
                },
                "the new version runs; `dji` has to accept it within 9 min 3 s, else the old one comes back",
            ),
            (
                back,
                "past the point of no return: the old version is being brought back: its probe failed; it ends by itself",
            ),
        ] {
            assert_eq!(outlook(&job), expected);
        }
    }

    #[test]
    fn a_job_that_has_ended_says_what_runs_now() {
        let ended = |phase, text| JobView {
            reason: reason(text),
            paused: true,
            ..job(phase)
        };
        let mut partial = two(Phase::Partial);
        partial.installs[0].phase = Phase::Succeeded;
        for (job, expected) in [
            (
                job(Phase::Succeeded),
                "succeeded: the new version runs and is confirmed",
            ),
            (
                ended(Phase::Rejected, "busy"),
                "refused: busy; nothing was changed",
            ),
            (
                ended(Phase::Failed, "the MD5 is wrong"),
                "failed: the MD5 is wrong; what ran before still runs",
            ),
            (job(Phase::Failed), "failed; what ran before still runs"),
            (
                ended(Phase::RolledBack, "its probe failed"),
                "rolled back: its probe failed; the old version runs again",
            ),
            (
                ended(Phase::RollbackFailed, "locked"),
                "rollback failed: locked; a person has to look at the target",
            ),
            (
                ended(Phase::Cancelled, "by the operator\u{1b}"),
                "cancelled: by the operator?; what ran before still runs",
            ),
            (
                partial,
                "partial: `dock` runs the new version; `drone` does not (rolled-back: its probe failed)",
            ),
        ] {
            assert_eq!(outlook(&job), expected);
        }
    }

    #[test]
    fn every_phase_has_its_own_sentence() {
        let phases = [
            Phase::Queued,
            Phase::Waiting,
            Phase::Downloading,
            Phase::Verifying,
            Phase::Prepared,
            Phase::Delivering,
            Phase::Delivered,
            Phase::Installing,
            Phase::Activating,
            Phase::Confirming,
            Phase::Succeeded,
            Phase::Rejected,
            Phase::Failed,
            Phase::RolledBack,
            Phase::RollbackFailed,
            Phase::Cancelled,
            Phase::Partial,
        ];
        let sentences: std::collections::BTreeSet<_> =
            phases.iter().map(|phase| outlook(&job(*phase))).collect();
        assert_eq!(sentences.len(), phases.len(), "{sentences:?}");
    }
}
