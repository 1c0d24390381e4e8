//! `ota_progress`: how a job of the host is told to the cloud, how often, and how it ends.
//!
//! `ota_progress` names no device, so there is one update at a time and one percentage for all of it: 0 to 50 is the download, 50
//! to 100 the rest. It never falls, although the host may have to fetch something again.

use otahost_adapter::effects::{cancel_timer, publish, timer_every};
use otahost_adapter::{Effect, InstallReport, JobReport, Level, Phase, View, uuid};

use crate::config::Config;
use crate::outcome::{self, Stage};
use crate::result;
use crate::state::{Context, Ending, Running, State};
use crate::wire::{Code, Outbound, Standing, Status, Step, SubStatus};

/// The timer that tells the cloud that an update is still under way.
pub(crate) const TIMER: &str = "progress";
/// Two events that differ only in percent are at least so far apart, in milliseconds.
const AT_LEAST: u64 = 1_000;
/// While an update is under way the cloud hears of it at least so often, in milliseconds.
const AT_MOST: u64 = 10_000;

/// The vendor's name of the event.
pub(crate) const METHOD: &str = "ota_progress";

/// How a job that has not ended is said, at least `floor` percent; nothing for one that has.
pub fn standing(report: &JobReport, floor: u8) -> Option<Standing> {
    let begun = report.installs.iter().any(|i| i.received > 0);
    let complete = !report.installs.is_empty() && report.installs.iter().all(is_complete);
    let fetching = if begun && complete {
        SubStatus::DownloadSuccess
    } else {
        SubStatus::Downloading
    };
    let (status, sub_status, step) = match report.phase {
        Phase::Queued => (Status::Sent, SubStatus::Blank, Step::Blank),
        // A window, a lock file, a device that is not ready, a pause between two attempts: the stage says what it was about to do.
        Phase::Waiting => match report.reason.as_ref().map_or(Stage::Before, Stage::of) {
            Stage::Before | Stage::Download if !begun => {
                (Status::Sent, SubStatus::Blank, Step::Blank)
            }
            Stage::Before | Stage::Download => (Status::InProgress, fetching, Step::Download),
            Stage::Verify => (Status::InProgress, SubStatus::Verify, Step::Download),
            Stage::Unpack | Stage::Upgrade => {
                (Status::InProgress, SubStatus::Upgrading, Step::Upgrade)
            }
        },
        Phase::Downloading => (Status::InProgress, fetching, Step::Download),
        Phase::Verifying => (Status::InProgress, SubStatus::Verify, Step::Download),
        Phase::Prepared => (Status::InProgress, SubStatus::VerifySuccess, Step::Download),
        Phase::Delivering | Phase::Delivered => {
            (Status::InProgress, SubStatus::UploadingDrone, Step::Upgrade)
        }
        Phase::Installing | Phase::Activating | Phase::Confirming => {
            (Status::InProgress, SubStatus::Upgrading, Step::Upgrade)
        }
        Phase::Succeeded
        | Phase::Rejected
        | Phase::Failed
        | Phase::RolledBack
        | Phase::RollbackFailed
        | Phase::Cancelled
        | Phase::Partial => return None,
    };
    let status = if report.paused {
        Status::Paused
    } else {
        status
    };
    Some(Standing {
        status,
        sub_status,
        step,
        percent: percent(report).max(floor),
    })
}

/// The overall percentage, 0 to 99: the mean over the devices. 100 is for the end alone.
pub fn percent(report: &JobReport) -> u8 {
    let sum: u64 = report
        .installs
        .iter()
        .map(|i| u64::from(percent_of(i)))
        .sum();
    let mean = sum / (report.installs.len() as u64).max(1);
    u8::try_from(mean.min(99)).expect("at most 99")
}

fn percent_of(install: &InstallReport) -> u8 {
    let done = install.percent.min(100);
    match install.phase {
        // What failed or was called off keeps what it had.
        Phase::Queued
        | Phase::Waiting
        | Phase::Downloading
        | Phase::Rejected
        | Phase::Failed
        | Phase::Cancelled
        | Phase::Partial => match install.total {
            Some(total) if total > 0 => {
                let half = u128::from(install.received.min(total)) * 50 / u128::from(total);
                u8::try_from(half).expect("at most 50")
            }
            _ => 0,
        },
        Phase::Verifying | Phase::Prepared => 50,
        Phase::Delivering => 50 + done / 5,
        Phase::Delivered => 70,
        Phase::Installing => 50 + done / 5 * 2,
        Phase::Activating => 92,
        Phase::Confirming | Phase::RolledBack | Phase::RollbackFailed => 95,
        Phase::Succeeded => 100,
    }
}

fn is_complete(install: &InstallReport) -> bool {
    install
        .total
        .is_some_and(|total| total > 0 && install.received >= total)
}

/// A report of the host about one of this adapter's own jobs.
pub fn on_report(
    state: &mut State,
    report: &JobReport,
    config: &Config,
    view: &dyn View,
) -> Vec<Effect> {
    let context: Context = match report.context_json() {
        Ok(context) => context,
        Err(why) => {
            view.log(
                Level::Error,
                &format!("nobody can be told of {}: {why}", report.phase),
            );
            return Vec::new();
        }
    };
    let floor = state.percent(&report.key);
    if let Some(ended) = state.ending(&report.key, &context.bid) {
        // A late report of what has ended says nothing new; the final one, delivered again, is told again, the same.
        return if report.phase.is_final() {
            vec![result::repeat(ended, config)]
        } else {
            Vec::new()
        };
    }
    if let Some((code, standing)) = outcome::ending(report, floor.max(percent(report))) {
        let ending = Ending {
            key: report.key.clone(),
            bid: context.bid,
            tid: uuid(view),
            timestamp: view.now(),
            code,
            standing,
            unanswered: Some(1),
        };
        let mut effects = result::tell(state, ending, config);
        if state.running.take_if(|r| r.key == report.key).is_some() {
            effects.push(cancel_timer(TIMER));
        }
        return effects;
    }
    let Some(now) = standing(report, floor) else {
        return Vec::new();
    };
    let running = state.running.as_ref().filter(|r| r.key == report.key);
    if !running.is_none_or(|before| is_due(before, &now, view.uptime())) {
        return Vec::new();
    }
    state.running = Some(Running {
        key: report.key.clone(),
        told: now,
        at: Some(view.uptime()),
    });
    vec![
        event(&context.bid, now, config, view),
        timer_every(TIMER, AT_MOST, AT_MOST),
    ]
}

/// Whether the cloud shall hear of it now: at once when a word changed, at most once a second when only the percentage did.
fn is_due(before: &Running, now: &Standing, uptime: u64) -> bool {
    if (Standing {
        percent: before.told.percent,
        ..*now
    }) != before.told
    {
        return true;
    }
    let Some(since) = before.at.and_then(|at| uptime.checked_sub(at)) else {
        return true;
    };
    // The timer has told it too, each time that `AT_MOST` was full; that is not written down, because a step that changes no state
    // costs no write.
    now.percent > before.told.percent && since % AT_MOST >= AT_LEAST
}

/// The timer: tells how it stands, whether or not that changed.
pub fn on_timer(state: &mut State, config: &Config, view: &dyn View) -> Vec<Effect> {
    let Some(running) = &mut state.running else {
        return vec![cancel_timer(TIMER)];
    };
    let Some(report) = view.job(&running.key) else {
        state.running = None;
        return vec![cancel_timer(TIMER)];
    };
    // Where the job has ended, its final report is on the way.
    let Some(now) = standing(&report, running.told.percent) else {
        return Vec::new();
    };
    let Ok(context) = report.context_json::<Context>() else {
        return Vec::new();
    };
    running.told = now;
    vec![event(&context.bid, now, config, view)]
}

/// After a boot the uptime counts from zero again.
pub fn on_boot(state: &mut State) {
    if let Some(running) = &mut state.running {
        running.at = None;
    }
}

fn event(bid: &str, standing: Standing, config: &Config, view: &dyn View) -> Effect {
    let message = Outbound {
        tid: &uuid(view),
        bid,
        timestamp: view.now(),
        gateway: &config.gateway_sn,
        method: Some(METHOD),
        need_reply: Some(0),
        data: config.dialect().progress(standing, Code::OK),
    };
    publish(&config.link, &config.events())
        .payload(message.bytes())
        .latest(TIMER)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn report(phase: Phase, received: u64, total: Option<u64>, percent: u8) -> JobReport {
        JobReport {
            key: "k".into(),
            foreign: false,
            context: Vec::new(),
            phase,
            paused: false,
            until: None,
            reason: None,
            rate: 0,
            installs: vec![InstallReport {
                target: "dock".into(),
                phase,
                received,
                total,
                percent,
                old_version: None,
                new_version: "2".into(),
                reason: None,
            }],
        }
    }

    #[test]
    fn each_phase_is_said_in_the_vendors_order() {
        use Status::{InProgress, Sent};
        use SubStatus::{
            Blank, DownloadSuccess, Downloading, Upgrading, UploadingDrone, Verify, VerifySuccess,
        };
        // One row, one line.
        #[rustfmt::skip]
        let table = [
            (Phase::Queued, 0, 0, Sent, Blank, Step::Blank, 0),
            (Phase::Waiting, 0, 0, Sent, Blank, Step::Blank, 0),
            (Phase::Downloading, 0, 0, InProgress, Downloading, Step::Download, 0),
            (Phase::Downloading, 500, 50, InProgress, Downloading, Step::Download, 25),
            (Phase::Waiting, 500, 0, InProgress, Downloading, Step::Download, 25),
            (Phase::Downloading, 1000, 100, InProgress, DownloadSuccess, Step::Download, 50),
            (Phase::Verifying, 1000, 10, InProgress, Verify, Step::Download, 50),
            (Phase::Prepared, 1000, 0, InProgress, VerifySuccess, Step::Download, 50),
            (Phase::Delivering, 1000, 50, InProgress, UploadingDrone, Step::Upgrade, 60),
            (Phase::Delivered, 1000, 100, InProgress, UploadingDrone, Step::Upgrade, 70),
            (Phase::Installing, 1000, 50, InProgress, Upgrading, Step::Upgrade, 70),
            (Phase::Activating, 1000, 0, InProgress, Upgrading, Step::Upgrade, 92),
            (Phase::Confirming, 1000, 0, InProgress, Upgrading, Step::Upgrade, 95),
        ];
        for (phase, received, done, status, sub_status, step, percent) in table {
            let said = standing(&report(phase, received, Some(1000), done), 0).unwrap();
            assert_eq!(
                said,
                Standing {
                    status,
                    sub_status,
                    step,
                    percent
                },
                "{phase:?} {received}"
            );
        }
        // What a job waits for is said by its reason; the percentage is that of the bytes.
        #[rustfmt::skip]
        let waiting = [
            ("policy", "admit", 0, Sent, Blank, Step::Blank, 0),
            ("policy", "admit", 500, InProgress, Downloading, Step::Download, 25),
            ("source-lost", "download", 0, Sent, Blank, Step::Blank, 0),
            ("source-lost", "download", 500, InProgress, Downloading, Step::Download, 25),
            ("policy", "download", 1000, InProgress, DownloadSuccess, Step::Download, 50),
            ("policy", "verify", 1000, InProgress, Verify, Step::Download, 50),
            ("not-ready", "install", 1000, InProgress, Upgrading, Step::Upgrade, 50),
            ("not-ready", "activate", 1000, InProgress, Upgrading, Step::Upgrade, 50),
            ("invented-later", "later", 500, InProgress, Downloading, Step::Download, 25),
        ];
        for (code, stage, received, status, sub_status, step, percent) in waiting {
            let mut report = report(Phase::Waiting, received, Some(1000), 0);
            report.reason = Some(otahost_adapter::Reason::new(code, stage, "why"));
            assert_eq!(
                standing(&report, 0).unwrap(),
                Standing {
                    status,
                    sub_status,
                    step,
                    percent
                },
                "{code} {stage} {received}"
            );
        }
        let mut paused = report(Phase::Downloading, 500, Some(1000), 50);
        paused.paused = true;
        assert_eq!(standing(&paused, 0).unwrap().status, Status::Paused);
    }

    #[test]
    fn a_job_is_said_as_under_way_or_as_ended_and_never_both() {
        for phase in [
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
        ] {
            let report = report(phase, 1, Some(2), 50);
            assert_eq!(
                standing(&report, 0).is_some(),
                !phase.is_final(),
                "{phase:?}"
            );
            assert_eq!(
                outcome::ending(&report, 0).is_some(),
                phase.is_final(),
                "{phase:?}"
            );
            assert!(
                standing(&report, 0).is_none_or(|s| !s.status.is_terminal()),
                "{phase:?}"
            );
        }
    }

    #[test]
    fn two_devices_share_one_percentage() {
        let of = |first, second| {
            let mut both = report(first, 1000, Some(1000), 0);
            both.installs
                .extend(report(second, 500, Some(1000), 0).installs);
            percent(&both)
        };
        assert_eq!(of(Phase::Queued, Phase::Queued), 37, "bytes count");
        assert_eq!(of(Phase::Prepared, Phase::Downloading), 37);
        assert_eq!(of(Phase::Prepared, Phase::Prepared), 50);
        assert_eq!(of(Phase::Succeeded, Phase::Prepared), 75);
        assert_eq!(of(Phase::Succeeded, Phase::Confirming), 97);
        assert_eq!(of(Phase::Succeeded, Phase::Succeeded), 99);
    }

    #[test]
    fn odd_numbers_from_the_host_give_a_percentage_all_the_same() {
        for (received, total) in [
            (5, None),
            (5, Some(0)),
            (5, Some(4)),
            (u64::MAX, Some(u64::MAX)),
            (u64::MAX, Some(1)),
        ] {
            for phase in [Phase::Downloading, Phase::Installing, Phase::Succeeded] {
                assert!(percent(&report(phase, received, total, 255)) <= 99);
            }
        }
        let mut empty = report(Phase::Downloading, 0, None, 0);
        empty.installs.clear();
        assert_eq!(percent(&empty), 0);
        assert_eq!(standing(&empty, 7).unwrap().percent, 7);
    }

    #[test]
    fn a_percentage_is_told_once_a_second_and_a_word_at_once() {
        let told = Standing {
            status: Status::InProgress,
            sub_status: SubStatus::Downloading,
            step: Step::Download,
            percent: 10,
        };
        let before = Running {
            key: "k".into(),
            told,
            at: Some(5_000),
        };
        let more = Standing {
            percent: 11,
            ..told
        };
        assert!(!is_due(&before, &more, 5_999));
        assert!(is_due(&before, &more, 6_000));
        assert!(!is_due(&before, &told, 6_000), "nothing changed");
        assert!(is_due(
            &before,
            &Standing {
                sub_status: SubStatus::DownloadSuccess,
                ..told
            },
            5_001
        ));
        assert!(is_due(
            &before,
            &Standing {
                status: Status::Paused,
                ..told
            },
            5_001
        ));
        assert!(
            !is_due(&before, &more, 15_500),
            "the timer told it at 15,000"
        );
        assert!(is_due(&before, &more, 16_000));
        assert!(
            is_due(
                &Running {
                    at: None,
                    ..before.clone()
                },
                &told,
                1
            ),
            "after a boot it is told again"
        );
        assert!(
            is_due(&before, &told, 100),
            "a clock that ran backwards holds nothing back"
        );
    }
}
