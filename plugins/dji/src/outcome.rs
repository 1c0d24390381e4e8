//! From the host's words to the vendor's: how an ended job or a refusal is said.
//!
//! The vendor's table is older and shorter than what can go wrong, so several causes share a number; which ones is decided here
//! and nowhere else. Consumers judge by `status`; `result` is never 0 on anything but `ok`.
//!
//! The tables have no wildcard: a phase, a cause or a stage that is added has to be decided on before this compiles. What the host
//! may say beyond the words known here is one cause of its own, `Cause::Other`.

use otahost_adapter::{JobReport, Phase, Reason};

use crate::wire::{Code, Standing, Status, Step, SubStatus};

/// The words of the contract's `reason.code`. The list there is open, so there is `Cause::Other`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    Busy,
    NotGranted,
    UnknownTarget,
    Offline,
    Policy,
    Authority,
    NotReady,
    TooManyActivations,
    NoSpace,
    SourceRefused,
    SourceLost,
    TooLong,
    TooShort,
    Size,
    Digest,
    Unsigned,
    Signature,
    Compatible,
    RollbackIndex,
    Version,
    Downgrade,
    Flash,
    Activate,
    BootFailed,
    VersionMismatch,
    ProbeFailed,
    Deadline,
    KnownBad,
    Cancelled,
    InvalidPlan,
    TooManyJobs,
    Unsupported,
    Other,
}

impl Cause {
    fn of(code: &str) -> Cause {
        match code {
            "busy" => Cause::Busy,
            "not-granted" => Cause::NotGranted,
            "unknown-target" => Cause::UnknownTarget,
            "offline" => Cause::Offline,
            "policy" => Cause::Policy,
            "authority" => Cause::Authority,
            "not-ready" => Cause::NotReady,
            "too-many-activations" => Cause::TooManyActivations,
            "no-space" => Cause::NoSpace,
            "source-refused" => Cause::SourceRefused,
            "source-lost" => Cause::SourceLost,
            "too-long" => Cause::TooLong,
            "too-short" => Cause::TooShort,
            "size" => Cause::Size,
            "digest" => Cause::Digest,
            "unsigned" => Cause::Unsigned,
            "signature" => Cause::Signature,
            "compatible" => Cause::Compatible,
            "rollback-index" => Cause::RollbackIndex,
            "version" => Cause::Version,
            "downgrade" => Cause::Downgrade,
            "flash" => Cause::Flash,
            "activate" => Cause::Activate,
            "boot-failed" => Cause::BootFailed,
            "version-mismatch" => Cause::VersionMismatch,
            "probe-failed" => Cause::ProbeFailed,
            "deadline" => Cause::Deadline,
            "known-bad" => Cause::KnownBad,
            "cancelled" => Cause::Cancelled,
            "invalid-plan" => Cause::InvalidPlan,
            "too-many-jobs" => Cause::TooManyJobs,
            "unsupported" => Cause::Unsupported,
            _ => Cause::Other,
        }
    }
}

/// The words of the contract's `reason.stage`, as far as the vendor tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Before the first byte, or not said.
    Before,
    Download,
    Verify,
    Unpack,
    /// Delivering, installing, activating, confirming.
    Upgrade,
}

impl Stage {
    /// The stage a reason names.
    pub(crate) fn of(reason: &Reason) -> Stage {
        match reason.stage.as_str() {
            "download" => Stage::Download,
            "verify" => Stage::Verify,
            "unpack" => Stage::Unpack,
            "deliver" | "install" | "activate" | "confirm" => Stage::Upgrade,
            _ => Stage::Before,
        }
    }

    /// What failed, where only the stage is known.
    fn failure(self) -> SubStatus {
        match self {
            Stage::Before => SubStatus::Unknown,
            Stage::Download => SubStatus::DownloadFailed,
            Stage::Verify => SubStatus::VerifyFailed,
            Stage::Unpack | Stage::Upgrade => SubStatus::UpgradeFail,
        }
    }
}

/// The number and the word for a cause.
fn say(cause: Cause, stage: Stage) -> (Code, SubStatus) {
    match cause {
        Cause::Busy => (Code::UPDATING, SubStatus::Unknown),
        Cause::Policy
        | Cause::Authority
        | Cause::NotReady
        | Cause::TooManyActivations
        | Cause::TooManyJobs => (Code::BUSY, stage.failure()),
        // The operator does not allow this address or device: to the cloud, a parameter that cannot be used here.
        Cause::NotGranted => (Code::PARAMETERS, stage.failure()),
        Cause::UnknownTarget | Cause::InvalidPlan => (Code::PARAMETERS, SubStatus::Unknown),
        Cause::Unsupported => (Code::MISMATCH, stage.failure()),
        Cause::Offline => (Code::NOT_CONNECTED, stage.failure()),
        Cause::NoSpace | Cause::SourceRefused | Cause::SourceLost | Cause::TooShort => {
            (Code::FAILED, SubStatus::DownloadFailed)
        }
        // More bytes than announced: found while downloading, but the file is wrong, not the way to it.
        Cause::TooLong => (Code::VALIDATION, SubStatus::DownloadFailed),
        Cause::Size => (
            Code::VALIDATION,
            match stage {
                Stage::Before | Stage::Download => SubStatus::DownloadFailed,
                Stage::Verify | Stage::Unpack | Stage::Upgrade => SubStatus::VerifyFailed,
            },
        ),
        Cause::Digest
        | Cause::Unsigned
        | Cause::Signature
        | Cause::Compatible
        | Cause::RollbackIndex
        | Cause::KnownBad => (Code::VALIDATION, SubStatus::VerifyFailed),
        // A version that may not be installed, one that the file's header contradicts, or one that does not run afterwards. The
        // header is read while the file arrives: that is verifying, not downloading.
        Cause::Version | Cause::Downgrade | Cause::VersionMismatch => (
            Code::VERSION,
            match stage {
                Stage::Before => SubStatus::Unknown,
                Stage::Download | Stage::Verify => SubStatus::VerifyFailed,
                Stage::Unpack | Stage::Upgrade => SubStatus::UpgradeFail,
            },
        ),
        Cause::Flash => (unpacking_or_other(stage), SubStatus::UpgradeFail),
        Cause::Activate => (Code::FAILED, SubStatus::UpgradeFail),
        Cause::BootFailed => (Code::RESTARTED, SubStatus::UpgradeFail),
        Cause::ProbeFailed => (Code::VERSION, SubStatus::UpgradeFail),
        Cause::Deadline => (Code::FAILED, stage.failure()),
        Cause::Other => (unpacking_or_other(stage), stage.failure()),
        Cause::Cancelled => (Code::FAILED, SubStatus::Unknown),
    }
}

/// The number for what has no word of its own: unpacking has one.
fn unpacking_or_other(stage: Stage) -> Code {
    match stage {
        Stage::Unpack => Code::UNPACK,
        Stage::Before | Stage::Download | Stage::Verify | Stage::Upgrade => Code::FAILED,
    }
}

/// The status of a job that ended before anything was activated.
fn failed(cause: Cause) -> Status {
    match cause {
        Cause::Deadline => Status::Timeout,
        Cause::Cancelled => Status::Canceled,
        // The device said no, however late: nothing broke.
        Cause::Policy
        | Cause::Authority
        | Cause::NotReady
        | Cause::TooManyActivations
        | Cause::TooManyJobs => Status::Rejected,
        Cause::Busy
        | Cause::NotGranted
        | Cause::UnknownTarget
        | Cause::Offline
        | Cause::NoSpace
        | Cause::SourceRefused
        | Cause::SourceLost
        | Cause::TooLong
        | Cause::TooShort
        | Cause::Size
        | Cause::Digest
        | Cause::Unsigned
        | Cause::Signature
        | Cause::Compatible
        | Cause::RollbackIndex
        | Cause::Version
        | Cause::Downgrade
        | Cause::Flash
        | Cause::Activate
        | Cause::BootFailed
        | Cause::VersionMismatch
        | Cause::ProbeFailed
        | Cause::KnownBad
        | Cause::InvalidPlan
        | Cause::Unsupported
        | Cause::Other => Status::Failed,
    }
}

/// The number for a new version that ran, or tried to, and was taken back: either it started and proved to be the wrong one, or it
/// did not come through the restart.
fn taken_back(cause: Cause) -> Code {
    match cause {
        Cause::Version
        | Cause::Downgrade
        | Cause::VersionMismatch
        | Cause::ProbeFailed
        | Cause::Deadline => Code::VERSION,
        Cause::Busy
        | Cause::NotGranted
        | Cause::UnknownTarget
        | Cause::Offline
        | Cause::Policy
        | Cause::Authority
        | Cause::NotReady
        | Cause::TooManyActivations
        | Cause::NoSpace
        | Cause::SourceRefused
        | Cause::SourceLost
        | Cause::TooLong
        | Cause::TooShort
        | Cause::Size
        | Cause::Digest
        | Cause::Unsigned
        | Cause::Signature
        | Cause::Compatible
        | Cause::RollbackIndex
        | Cause::Flash
        | Cause::Activate
        | Cause::BootFailed
        | Cause::KnownBad
        | Cause::Cancelled
        | Cause::InvalidPlan
        | Cause::TooManyJobs
        | Cause::Unsupported
        | Cause::Other => Code::RESTARTED,
    }
}

/// The number that refuses a command for this reason.
pub fn refusal(reason: &Reason) -> Code {
    say(Cause::of(&reason.code), Stage::of(reason)).0
}

/// How an ended job is said, with this percent unless it is `ok`; nothing while it has not ended.
pub fn ending(report: &JobReport, percent: u8) -> Option<(Code, Standing)> {
    let reason = report
        .reason
        .as_ref()
        .or_else(|| report.installs.iter().find_map(|i| i.reason.as_ref()));
    let cause = reason.map_or(Cause::Other, |r| Cause::of(&r.code));
    let stage = reason.map_or(Stage::Before, Stage::of);
    let (code, word) = say(cause, stage);
    let (code, status, sub_status) = match report.phase {
        Phase::Queued
        | Phase::Waiting
        | Phase::Downloading
        | Phase::Verifying
        | Phase::Prepared
        | Phase::Delivering
        | Phase::Delivered
        | Phase::Installing
        | Phase::Activating
        | Phase::Confirming => return None,
        Phase::Succeeded => (Code::OK, Status::Ok, SubStatus::UpgradeSuccess),
        Phase::Rejected => (code, Status::Rejected, word),
        Phase::Failed => (code, failed(cause), word),
        Phase::RolledBack | Phase::RollbackFailed => {
            (taken_back(cause), Status::Failed, SubStatus::UpgradeFail)
        }
        Phase::Cancelled => (Code::FAILED, Status::Canceled, SubStatus::Unknown),
        // `ota_progress` names no device, so a mixed result cannot be told apart: it is a failure.
        Phase::Partial => (Code::FAILED, Status::Failed, SubStatus::UpgradeFail),
    };
    let percent = match status {
        Status::Ok => 100,
        Status::Sent
        | Status::InProgress
        | Status::Paused
        | Status::Rejected
        | Status::Failed
        | Status::Canceled
        | Status::Timeout => percent.min(99),
    };
    let standing = Standing {
        status,
        sub_status,
        step: step(sub_status, stage),
        percent,
    };
    Some((code, standing))
}

/// The step that a word belongs to. A word that says nothing leaves it to the stage.
fn step(sub_status: SubStatus, stage: Stage) -> Step {
    match sub_status {
        SubStatus::Downloading
        | SubStatus::DownloadSuccess
        | SubStatus::DownloadFailed
        | SubStatus::Verify
        | SubStatus::VerifySuccess
        | SubStatus::VerifyFailed => Step::Download,
        SubStatus::UploadingDrone
        | SubStatus::Upgrading
        | SubStatus::UpgradeSuccess
        | SubStatus::UpgradeFail => Step::Upgrade,
        SubStatus::Blank | SubStatus::Unknown => match stage {
            Stage::Before => Step::Blank,
            Stage::Download | Stage::Verify => Step::Download,
            Stage::Unpack | Stage::Upgrade => Step::Upgrade,
        },
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    /// Every word that the contract lists for `reason.code`.
    pub(crate) const CODES: [&str; 32] = [
        "busy",
        "not-granted",
        "unknown-target",
        "offline",
        "policy",
        "authority",
        "not-ready",
        "too-many-activations",
        "no-space",
        "source-refused",
        "source-lost",
        "too-long",
        "too-short",
        "size",
        "digest",
        "unsigned",
        "signature",
        "compatible",
        "rollback-index",
        "version",
        "downgrade",
        "flash",
        "activate",
        "boot-failed",
        "version-mismatch",
        "probe-failed",
        "deadline",
        "known-bad",
        "cancelled",
        "invalid-plan",
        "too-many-jobs",
        "unsupported",
    ];

    /// Every word that the contract lists for `reason.stage`.
    pub(crate) const STAGES: [&str; 8] = [
        "admit", "download", "verify", "unpack", "deliver", "install", "activate", "confirm",
    ];

    /// The final phases.
    pub(crate) const FINAL: [Phase; 7] = [
        Phase::Succeeded,
        Phase::Rejected,
        Phase::Failed,
        Phase::RolledBack,
        Phase::RollbackFailed,
        Phase::Cancelled,
        Phase::Partial,
    ];

    fn report(phase: Phase, code: &str, stage: &str) -> JobReport {
        JobReport {
            key: "k".into(),
            foreign: false,
            context: Vec::new(),
            phase,
            paused: false,
            until: None,
            reason: Some(Reason {
                code: code.into(),
                stage: stage.into(),
                text: "why".into(),
            }),
            rate: 0,
            installs: Vec::new(),
        }
    }

    #[test]
    fn every_word_of_the_contract_has_an_answer_of_its_own() {
        for code in CODES {
            assert_ne!(Cause::of(code), Cause::Other, "{code}");
        }
        assert_eq!(Cause::of("invented-later"), Cause::Other);
    }

    #[test]
    fn result_is_zero_only_on_ok_and_only_ok_carries_100() {
        for phase in FINAL {
            for code in CODES.into_iter().chain(["invented-later", ""]) {
                for stage in STAGES.into_iter().chain(["invented-later", ""]) {
                    let (number, standing) = ending(&report(phase, code, stage), 100).unwrap();
                    let ok = phase == Phase::Succeeded;
                    assert!(standing.status.is_terminal(), "{phase:?} {code} {stage}");
                    assert_eq!(
                        standing.status == Status::Ok,
                        ok,
                        "{phase:?} {code} {stage}"
                    );
                    assert_eq!(number == Code::OK, ok, "{phase:?} {code} {stage}");
                    assert_eq!(standing.percent == 100, ok, "{phase:?} {code} {stage}");
                }
            }
        }
    }

    #[test]
    fn the_readme_explains_every_number_and_every_dialect() {
        let readme = include_str!("../README.md");
        for code in CODES.into_iter().chain([""]) {
            for stage in STAGES {
                let number = refusal(&Reason::new(code, stage, "")).0.to_string();
                assert!(readme.contains(&format!("| {number} |")), "{number}");
            }
        }
        for dialect in crate::dialect::Dialect::ALL {
            assert!(readme.contains(&format!("`{}`", dialect.word())));
        }
    }

    #[test]
    fn d03_a_digest_that_differs_fails_the_verification() {
        let (code, standing) = ending(&report(Phase::Failed, "digest", "verify"), 50).unwrap();
        assert_eq!(code, Code::VALIDATION);
        assert_eq!(standing.status, Status::Failed);
        assert_eq!(standing.sub_status, SubStatus::VerifyFailed);
        assert_eq!(standing.step, Step::Download);
    }

    #[test]
    fn each_cause_is_said_as_decided() {
        use Phase::{Cancelled, Failed, Partial, Rejected, RollbackFailed, RolledBack, Succeeded};
        use SubStatus::{DownloadFailed, Unknown, UpgradeFail, UpgradeSuccess, VerifyFailed};
        // One row, one line.
        #[rustfmt::skip]
        let table = [
            (Succeeded, "", "", 0, Status::Ok, UpgradeSuccess, Step::Upgrade),
            // D05 and D06: what the transfer finds.
            (Failed, "too-short", "download", 312_013, Status::Failed, DownloadFailed, Step::Download),
            (Failed, "too-long", "download", 312_003, Status::Failed, DownloadFailed, Step::Download),
            (Failed, "source-lost", "download", 312_013, Status::Failed, DownloadFailed, Step::Download),
            (Failed, "source-refused", "download", 312_013, Status::Failed, DownloadFailed, Step::Download),
            (Failed, "no-space", "download", 312_013, Status::Failed, DownloadFailed, Step::Download),
            (Failed, "no-space", "admit", 312_013, Status::Failed, DownloadFailed, Step::Download),
            (Failed, "size", "download", 312_003, Status::Failed, DownloadFailed, Step::Download),
            (Failed, "size", "verify", 312_003, Status::Failed, VerifyFailed, Step::Download),
            (Failed, "not-granted", "download", 312_012, Status::Failed, DownloadFailed, Step::Download),
            (Failed, "unsigned", "verify", 312_003, Status::Failed, VerifyFailed, Step::Download),
            (Failed, "signature", "verify", 312_003, Status::Failed, VerifyFailed, Step::Download),
            (Failed, "compatible", "download", 312_003, Status::Failed, VerifyFailed, Step::Download),
            (Failed, "rollback-index", "verify", 312_003, Status::Failed, VerifyFailed, Step::Download),
            (Failed, "known-bad", "verify", 312_003, Status::Failed, VerifyFailed, Step::Download),
            (Failed, "version", "verify", 312_017, Status::Failed, VerifyFailed, Step::Download),
            (Failed, "version-mismatch", "verify", 312_017, Status::Failed, VerifyFailed, Step::Download),
            (Failed, "downgrade", "download", 312_017, Status::Failed, VerifyFailed, Step::Download),
            (Failed, "not-ready", "install", 312_015, Status::Rejected, UpgradeFail, Step::Upgrade),
            (Failed, "not-ready", "activate", 312_015, Status::Rejected, UpgradeFail, Step::Upgrade),
            (Failed, "policy", "download", 312_015, Status::Rejected, DownloadFailed, Step::Download),
            (Failed, "authority", "install", 312_015, Status::Rejected, UpgradeFail, Step::Upgrade),
            (Failed, "too-many-activations", "activate", 312_015, Status::Rejected, UpgradeFail, Step::Upgrade),
            (Failed, "flash", "install", 312_013, Status::Failed, UpgradeFail, Step::Upgrade),
            (Failed, "flash", "unpack", 312_026, Status::Failed, UpgradeFail, Step::Upgrade),
            (Failed, "activate", "activate", 312_013, Status::Failed, UpgradeFail, Step::Upgrade),
            (Failed, "deadline", "download", 312_013, Status::Timeout, DownloadFailed, Step::Download),
            (Failed, "deadline", "install", 312_013, Status::Timeout, UpgradeFail, Step::Upgrade),
            (Failed, "deadline", "unpack", 312_013, Status::Timeout, UpgradeFail, Step::Upgrade),
            (Failed, "deadline", "admit", 312_013, Status::Timeout, Unknown, Step::Blank),
            (Failed, "cancelled", "download", 312_013, Status::Canceled, Unknown, Step::Download),
            (Failed, "invented-later", "verify", 312_013, Status::Failed, VerifyFailed, Step::Download),
            (Failed, "invented-later", "later", 312_013, Status::Failed, Unknown, Step::Blank),
            (RolledBack, "boot-failed", "activate", 312_028, Status::Failed, UpgradeFail, Step::Upgrade),
            (RolledBack, "version-mismatch", "confirm", 312_017, Status::Failed, UpgradeFail, Step::Upgrade),
            (RolledBack, "probe-failed", "confirm", 312_017, Status::Failed, UpgradeFail, Step::Upgrade),
            (RolledBack, "deadline", "confirm", 312_017, Status::Failed, UpgradeFail, Step::Upgrade),
            (RolledBack, "other", "activate", 312_028, Status::Failed, UpgradeFail, Step::Upgrade),
            (RollbackFailed, "boot-failed", "confirm", 312_028, Status::Failed, UpgradeFail, Step::Upgrade),
            (Rejected, "policy", "admit", 312_015, Status::Rejected, Unknown, Step::Blank),
            (Rejected, "not-ready", "admit", 312_015, Status::Rejected, Unknown, Step::Blank),
            (Rejected, "authority", "admit", 312_015, Status::Rejected, Unknown, Step::Blank),
            (Rejected, "too-many-activations", "admit", 312_015, Status::Rejected, Unknown, Step::Blank),
            (Rejected, "too-many-jobs", "admit", 312_015, Status::Rejected, Unknown, Step::Blank),
            (Rejected, "downgrade", "admit", 312_017, Status::Rejected, Unknown, Step::Blank),
            (Rejected, "compatible", "admit", 312_003, Status::Rejected, VerifyFailed, Step::Download),
            (Rejected, "known-bad", "admit", 312_003, Status::Rejected, VerifyFailed, Step::Download),
            (Rejected, "busy", "admit", 312_014, Status::Rejected, Unknown, Step::Blank),
            (Rejected, "offline", "admit", 312_022, Status::Rejected, Unknown, Step::Blank),
            (Rejected, "unsupported", "admit", 312_010, Status::Rejected, Unknown, Step::Blank),
            (Rejected, "unknown-target", "admit", 312_012, Status::Rejected, Unknown, Step::Blank),
            (Cancelled, "cancelled", "download", 312_013, Status::Canceled, Unknown, Step::Download),
            (Partial, "", "", 312_013, Status::Failed, UpgradeFail, Step::Upgrade),
            (Partial, "digest", "verify", 312_013, Status::Failed, UpgradeFail, Step::Upgrade),
        ];
        for (phase, code, stage, number, status, sub_status, step) in table {
            let (code_said, standing) = ending(&report(phase, code, stage), 40).unwrap();
            let said = (
                code_said.0,
                standing.status,
                standing.sub_status,
                standing.step,
            );
            assert_eq!(
                said,
                (number, status, sub_status, step),
                "{phase:?} {code} at {stage}"
            );
        }
    }

    #[test]
    fn a_job_without_a_reason_of_its_own_takes_that_of_an_install() {
        let mut failed = report(Phase::Failed, "digest", "verify");
        let reason = failed.reason.take();
        failed.installs.push(otahost_adapter::InstallReport {
            target: "dock".into(),
            phase: Phase::Failed,
            received: 1,
            total: None,
            percent: 0,
            old_version: None,
            new_version: "2".into(),
            reason,
        });
        assert_eq!(
            ending(&failed, 0).unwrap().1.sub_status,
            SubStatus::VerifyFailed
        );
    }

    #[test]
    fn a_refusal_is_never_a_success() {
        for code in CODES.into_iter().chain(["invented-later"]) {
            for stage in STAGES {
                assert_ne!(
                    refusal(&Reason {
                        code: code.into(),
                        stage: stage.into(),
                        text: String::new()
                    }),
                    Code::OK
                );
            }
        }
    }
}
