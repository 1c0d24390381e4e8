//! From the host's words to the vendor's numbers: what a job's report, or a refusal, says to the platform.
//!
//! The tables have no wildcard: a phase, a cause or a stage that is added has to be decided on before this compiles. What the host may
//! say beyond the words known here is one cause of its own, `Cause::Other`, and one stage, `Stage::Other`.

use otahost_adapter::{InstallReport, JobReport, Phase, Reason};

/// `status` of `ota/upgrade`: refused before anything was done.
pub const FORBIDDEN: u8 = 1;
/// `status` of `ota/upgrade`: the package is here and good; the last answer follows.
pub const PREPARED: u8 = 2;
/// `status` of `ota/upgrade`: the package could not be had or is no good.
pub const NOT_PREPARED: u8 = 3;
/// `status` of `ota/upgrade`: the new version runs and is confirmed.
pub const SUCCEEDED: u8 = 4;
/// `status` of `ota/upgrade`: the old version runs.
pub const ROLLED_BACK: u8 = 5;
/// `status` of `ota/upgrade`: neither confirmed nor rolled back cleanly.
pub const ROLLBACK_FAILED: u8 = 6;

/// `download_status` of `ota/emu_upgrade`: handed to the EMU.
pub const PUSHED: u8 = 1;
/// `download_status`: the package could not be fetched.
pub const DOWNLOAD_FAILED: u8 = 2;
/// `download_status`: the package is not the one that was announced, or is not signed as it must be.
pub const DIGEST_WRONG: u8 = 3;
/// `download_status`: the staging folder could not be emptied.
pub const CLEAR_FAILED: u8 = 4;
/// `download_status`: the package could not be unpacked.
pub const UNPACK_FAILED: u8 = 5;
/// `download_status`: not handed to the EMU, or not even begun.
pub const PUSH_FAILED: u8 = 6;

/// The words of the contract's `reason.code`. The list there is open, so there is `Cause::Other`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
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
    Downgrade,
    Flash,
    Activate,
    BootFailed,
    VersionMismatch,
    ProbeFailed,
    Deadline,
    KnownBad,
    Cancelled,
    TooLate,
    InvalidPlan,
    TooManyJobs,
    Unsupported,
    Other,
}

impl Cause {
    fn of(reason: Option<&Reason>) -> Cause {
        match reason.map_or("", |reason| reason.code.as_str()) {
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
            "downgrade" => Cause::Downgrade,
            "flash" => Cause::Flash,
            "activate" => Cause::Activate,
            "boot-failed" => Cause::BootFailed,
            "version-mismatch" => Cause::VersionMismatch,
            "probe-failed" => Cause::ProbeFailed,
            "deadline" => Cause::Deadline,
            "known-bad" => Cause::KnownBad,
            "cancelled" => Cause::Cancelled,
            "too-late" => Cause::TooLate,
            "invalid-plan" => Cause::InvalidPlan,
            "too-many-jobs" => Cause::TooManyJobs,
            "unsupported" => Cause::Unsupported,
            _ => Cause::Other,
        }
    }

    /// The device does not want this update, or not from this platform: no fault of the package or the way to it.
    fn is_refusal(self) -> bool {
        match self {
            Cause::Busy
            | Cause::NotGranted
            | Cause::UnknownTarget
            | Cause::Offline
            | Cause::Policy
            | Cause::Authority
            | Cause::NotReady
            | Cause::TooManyActivations
            | Cause::RollbackIndex
            | Cause::Downgrade
            | Cause::KnownBad
            | Cause::InvalidPlan
            | Cause::TooManyJobs
            | Cause::Unsupported => true,
            Cause::NoSpace
            | Cause::SourceRefused
            | Cause::SourceLost
            | Cause::TooLong
            | Cause::TooShort
            | Cause::Size
            | Cause::Digest
            | Cause::Unsigned
            | Cause::Signature
            | Cause::Compatible
            | Cause::Flash
            | Cause::Activate
            | Cause::BootFailed
            | Cause::VersionMismatch
            | Cause::ProbeFailed
            | Cause::Deadline
            | Cause::Cancelled
            | Cause::TooLate
            | Cause::Other => false,
        }
    }
}

/// The words of the contract's `reason.stage`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Admit,
    Download,
    Verify,
    Clear,
    Unpack,
    Deliver,
    Install,
    Activate,
    Confirm,
    Other,
}

impl Stage {
    fn of(reason: Option<&Reason>) -> Stage {
        match reason.map_or("", |reason| reason.stage.as_str()) {
            "admit" => Stage::Admit,
            "download" => Stage::Download,
            "verify" => Stage::Verify,
            "clear" => Stage::Clear,
            "unpack" => Stage::Unpack,
            "deliver" => Stage::Deliver,
            "install" => Stage::Install,
            "activate" => Stage::Activate,
            "confirm" => Stage::Confirm,
            _ => Stage::Other,
        }
    }

    /// What failed at this stage.
    fn download_status(self) -> u8 {
        match self {
            Stage::Download => DOWNLOAD_FAILED,
            Stage::Verify => DIGEST_WRONG,
            Stage::Clear => CLEAR_FAILED,
            Stage::Unpack => UNPACK_FAILED,
            Stage::Admit
            | Stage::Deliver
            | Stage::Install
            | Stage::Activate
            | Stage::Confirm
            | Stage::Other => PUSH_FAILED,
        }
    }
}

/// Why the one install of a job stands as it does: its own reason, else the job's.
pub fn reason<'r>(report: &'r JobReport, install: Option<&'r InstallReport>) -> Option<&'r Reason> {
    install
        .and_then(|install| install.reason.as_ref())
        .or(report.reason.as_ref())
}

/// What a report says to an `ota/upgrade`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upgrade {
    /// Nothing new.
    Nothing,
    /// 2, where it was not said yet.
    Prepared,
    /// 1 or 3: the only answer.
    Alone(u8),
    /// 4, 5 or 6: the last answer, with a 2 before it.
    Last(u8),
}

/// What a phase says to an `ota/upgrade`; `prepared` when 2 was said.
///
/// One that was prepared and failed before anything was replaced is 5: the vendor has no other number for "the old version runs", and
/// after a 2 one of 4, 5 and 6 has to follow.
pub fn upgrade(phase: Phase, reason: Option<&Reason>, prepared: bool) -> Upgrade {
    match phase {
        Phase::Queued | Phase::Waiting | Phase::Downloading | Phase::Verifying => Upgrade::Nothing,
        Phase::Prepared
        | Phase::Delivering
        | Phase::Delivered
        | Phase::Installing
        | Phase::Activating
        | Phase::Confirming => Upgrade::Prepared,
        Phase::Succeeded => Upgrade::Last(SUCCEEDED),
        Phase::RolledBack => Upgrade::Last(ROLLED_BACK),
        Phase::RollbackFailed | Phase::Partial => Upgrade::Last(ROLLBACK_FAILED),
        Phase::Rejected | Phase::Failed | Phase::Cancelled if prepared => {
            Upgrade::Last(ROLLED_BACK)
        }
        Phase::Rejected => Upgrade::Alone(FORBIDDEN),
        Phase::Failed | Phase::Cancelled if Cause::of(reason).is_refusal() => {
            Upgrade::Alone(FORBIDDEN)
        }
        Phase::Failed | Phase::Cancelled => Upgrade::Alone(NOT_PREPARED),
    }
}

/// The `download_status` that a report is worth; none while the package is not yet handed to the EMU.
///
/// A flasher with a delivery says when that is done. One without hands the package over by activating it, so there the end of that
/// counts: confirming. What went wrong after that had been pushed, and is for `ota/emu_upgrade_result` to tell.
pub fn download_status(phase: Phase, reason: Option<&Reason>) -> Option<u8> {
    match phase {
        Phase::Queued
        | Phase::Waiting
        | Phase::Downloading
        | Phase::Verifying
        | Phase::Prepared
        | Phase::Delivering
        | Phase::Installing
        | Phase::Activating => None,
        Phase::Delivered | Phase::Confirming | Phase::Succeeded => Some(PUSHED),
        Phase::Rejected
        | Phase::Failed
        | Phase::Cancelled
        | Phase::RolledBack
        | Phase::RollbackFailed
        | Phase::Partial => match Stage::of(reason) {
            Stage::Confirm => Some(PUSHED),
            Stage::Admit
            | Stage::Download
            | Stage::Verify
            | Stage::Clear
            | Stage::Unpack
            | Stage::Deliver
            | Stage::Install
            | Stage::Activate
            | Stage::Other => Some(emu_failure(reason)),
        },
    }
}

/// The `download_status` of an update that is refused, or failed before the package was handed over.
pub fn emu_failure(reason: Option<&Reason>) -> u8 {
    let stage = Stage::of(reason);
    match Cause::of(reason) {
        // The platform may not have the package fetched from there.
        Cause::NotGranted | Cause::SourceRefused | Cause::SourceLost => DOWNLOAD_FAILED,
        Cause::Digest | Cause::Unsigned | Cause::Signature | Cause::Compatible => DIGEST_WRONG,
        Cause::Busy
        | Cause::UnknownTarget
        | Cause::Offline
        | Cause::Policy
        | Cause::Authority
        | Cause::NotReady
        | Cause::TooManyActivations
        | Cause::RollbackIndex
        | Cause::Downgrade
        | Cause::KnownBad
        | Cause::InvalidPlan
        | Cause::TooManyJobs
        | Cause::Unsupported
        | Cause::Cancelled
        | Cause::TooLate
        | Cause::Activate
        | Cause::BootFailed
        | Cause::ProbeFailed => PUSH_FAILED,
        Cause::NoSpace
        | Cause::TooLong
        | Cause::TooShort
        | Cause::Size
        | Cause::Flash
        | Cause::VersionMismatch
        | Cause::Deadline
        | Cause::Other => stage.download_status(),
    }
}

/// How much of the package the EMU had when the job ended without success, from the percentage it was reported with last. `pushed` when
/// it was told that the package is handed over.
pub fn transferred_percent(reason: Option<&Reason>, percent: u8, pushed: bool) -> u8 {
    match Stage::of(reason) {
        _ if pushed => 100,
        Stage::Confirm => 100,
        Stage::Deliver | Stage::Activate => percent.min(100),
        // It counted something else: bytes of the download, or files.
        Stage::Admit
        | Stage::Download
        | Stage::Verify
        | Stage::Clear
        | Stage::Unpack
        | Stage::Install
        | Stage::Other => 0,
    }
}

/// `emu_upgrade_status` of a job: 1 preparing, 2 ready to transfer, 3 transferring, 4 checking, 5 finished. `pushed` when it was told
/// that the package is handed over.
pub fn upgrade_status(phase: Phase, pushed: bool) -> u8 {
    match phase {
        Phase::Waiting | Phase::Activating if pushed => 4,
        Phase::Queued | Phase::Waiting | Phase::Downloading | Phase::Verifying => 1,
        Phase::Prepared | Phase::Installing => 2,
        Phase::Delivering | Phase::Activating => 3,
        Phase::Delivered | Phase::Confirming => 4,
        Phase::Succeeded
        | Phase::Rejected
        | Phase::Failed
        | Phase::RolledBack
        | Phase::RollbackFailed
        | Phase::Cancelled
        | Phase::Partial => 5,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PHASES: [Phase; 17] = [
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

    /// Every code of the contract, and one it does not have.
    const CODES: [&str; 33] = [
        "busy",
        "not-granted",
        "unknown-target",
        "offline",
        "policy",
        "not-ready",
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
        "flash",
        "activate",
        "boot-failed",
        "version-mismatch",
        "probe-failed",
        "deadline",
        "known-bad",
        "cancelled",
        "downgrade",
        "too-many-activations",
        "authority",
        "too-late",
        "invalid-plan",
        "too-many-jobs",
        "unsupported",
        "other",
    ];
    const STAGES: [&str; 9] = [
        "admit", "download", "verify", "clear", "unpack", "deliver", "install", "activate",
        "confirm",
    ];

    fn because(code: &str, stage: &str) -> Reason {
        Reason::new(code, stage, "why")
    }

    #[test]
    fn every_word_of_the_contract_is_known() {
        for code in CODES {
            let known = Cause::of(Some(&because(code, "admit"))) != Cause::Other;
            assert_eq!(known, code != "other", "{code}");
        }
        for stage in STAGES {
            assert_ne!(
                Stage::of(Some(&because("other", stage))),
                Stage::Other,
                "{stage}"
            );
        }
        assert_eq!(Cause::of(None), Cause::Other);
        assert_eq!(Stage::of(None), Stage::Other);
    }

    #[test]
    fn w12_each_stage_has_its_own_download_status() {
        for (code, stage, status) in [
            ("source-lost", "download", 2),
            ("source-refused", "download", 2),
            ("not-granted", "admit", 2),
            ("too-short", "download", 2),
            ("no-space", "download", 2),
            ("deadline", "download", 2),
            ("digest", "verify", 3),
            ("signature", "verify", 3),
            ("unsigned", "download", 3),
            ("flash", "clear", 4),
            ("other", "clear", 4),
            ("flash", "unpack", 5),
            ("no-space", "unpack", 5),
            ("new-word", "unpack", 5),
            ("flash", "deliver", 6),
            ("deadline", "deliver", 6),
            ("flash", "install", 6),
            ("busy", "admit", 6),
            ("policy", "admit", 6),
            ("downgrade", "verify", 6),
            ("known-bad", "verify", 6),
            ("offline", "admit", 6),
            ("cancelled", "install", 6),
            ("new-word", "new-stage", 6),
        ] {
            let reason = because(code, stage);
            assert_eq!(
                download_status(Phase::Failed, Some(&reason)),
                Some(status),
                "{code} at {stage}"
            );
        }
        assert_eq!(emu_failure(None), 6);
    }

    #[test]
    fn w02_w03_what_is_wrong_before_it_is_prepared_is_1_or_3_alone() {
        for (code, stage, status) in [
            ("digest", "verify", 3),
            ("source-refused", "download", 3),
            ("too-short", "download", 3),
            ("size", "download", 3),
            ("signature", "verify", 3),
            ("other", "unpack", 3),
            ("cancelled", "install", 3),
            ("deadline", "download", 3),
            ("downgrade", "verify", 1),
            ("known-bad", "verify", 1),
            ("policy", "admit", 1),
        ] {
            let reason = because(code, stage);
            assert_eq!(
                upgrade(Phase::Failed, Some(&reason), false),
                Upgrade::Alone(status),
                "{code}"
            );
            assert_eq!(
                upgrade(Phase::Failed, Some(&reason), true),
                Upgrade::Last(5),
                "{code}: after a 2 the old version runs"
            );
            assert_eq!(
                upgrade(Phase::Rejected, Some(&reason), false),
                Upgrade::Alone(1)
            );
        }
    }

    #[test]
    fn w07_w08_the_last_answer_says_which_version_runs() {
        for prepared in [false, true] {
            let last = |phase| upgrade(phase, None, prepared);
            assert_eq!(last(Phase::Succeeded), Upgrade::Last(4));
            assert_eq!(last(Phase::RolledBack), Upgrade::Last(5));
            assert_eq!(last(Phase::RollbackFailed), Upgrade::Last(6));
            assert_eq!(last(Phase::Partial), Upgrade::Last(6));
        }
    }

    #[test]
    fn it_is_pushed_once_it_is_delivered_or_activated_and_what_fails_after_that_was_pushed() {
        for phase in [Phase::Delivered, Phase::Confirming, Phase::Succeeded] {
            assert_eq!(download_status(phase, None), Some(1), "{phase}");
        }
        for phase in [Phase::Failed, Phase::RolledBack, Phase::RollbackFailed] {
            let confirming = because("probe-failed", "confirm");
            assert_eq!(
                download_status(phase, Some(&confirming)),
                Some(1),
                "{phase}"
            );
            let activating = because("activate", "activate");
            assert_eq!(
                download_status(phase, Some(&activating)),
                Some(6),
                "{phase}"
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whatever_the_host_says_has_a_number_and_an_end_has_exactly_one(
            phase in prop::sample::select(PHASES.to_vec()),
            code in prop_oneof![prop::sample::select(CODES.to_vec()).prop_map(str::to_owned), ".{0,20}"],
            stage in prop_oneof![prop::sample::select(STAGES.to_vec()).prop_map(str::to_owned), ".{0,20}"],
            some in any::<bool>(),
            seen in any::<bool>(),
        ) {
            let reason = because(&code, &stage);
            let reason = some.then_some(&reason);
            match upgrade(phase, reason, seen) {
                Upgrade::Nothing | Upgrade::Prepared => prop_assert!(!phase.is_final()),
                Upgrade::Alone(status) => {
                    prop_assert!(phase.is_final() && !seen && [1, 3].contains(&status), "{}", status);
                }
                Upgrade::Last(status) => {
                    prop_assert!(phase.is_final() && [4, 5, 6].contains(&status), "{}", status);
                    prop_assert_eq!(status == 4, phase == Phase::Succeeded);
                }
            }
            match download_status(phase, reason) {
                None => prop_assert!(!phase.is_final()),
                Some(1) => prop_assert!(phase >= Phase::Delivered),
                Some(status) => prop_assert!(phase.is_final() && (2..=6).contains(&status), "{}", status),
            }
            prop_assert_eq!(upgrade_status(phase, seen) == 5, phase.is_final());
            prop_assert!(transferred_percent(reason, 255, seen) <= 100);
        }
    }
}
