//! The words between a job and those who carry it out: what happened, what to do, and what the outside says.

use super::{GateAt, Staged};
use crate::model::{ArtifactSource, Millis, Reason};
use crate::policy::Gate;

/// Whether the version that runs is the one that was installed, and well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fit {
    /// Version as asked, probe passed.
    Fits,
    /// Another version.
    WrongVersion(String),
    /// Not known or not well yet; look again.
    NotYet(String),
    /// Not well within the time the target has.
    Expired(String),
}

/// Where an activation stands, read from the boot selector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The new payload runs.
    New {
        /// Already marked good.
        confirmed: bool,
    },
    /// The old one runs, the new one was never made bootable.
    NotActivated,
    /// The old one runs, the new one is next.
    Pending,
    /// The old one runs, the new one used up its tries.
    FellBack,
    /// The switch was begun and nobody saw its end.
    Unclear,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The job may begin.
    Begin,
    /// Policy and readiness were asked.
    Gate(Gate),
    /// The wait is over: ask them again.
    GateAgain,
    /// Bytes arrived.
    Progress {
        /// Bytes that are here.
        received: u64,
        /// Size of the artifact, once known.
        total: Option<u64>,
    },
    /// All bytes are here; digests and signature are being settled.
    AllReceived,
    /// Digests and signature are right and the payload is in the staging area, synced.
    Staged {
        /// Where.
        staged: Staged,
        /// SHA-256 of the payload.
        image_sha256: String,
        /// Size of the artifact.
        size: u64,
        /// Version the signature names.
        version: Option<String>,
        /// Rollback index the signature names.
        rollback_index: Option<u64>,
        /// It has to be handed over before it can be activated.
        delivers: bool,
    },
    /// A transfer attempt failed.
    AttemptFailed {
        /// Why.
        reason: Reason,
        /// No other attempt can help.
        is_final: bool,
        /// A digest was wrong after a resume: one attempt from the first byte may help.
        clean_retry: bool,
        /// Wait before the next attempt.
        wait: Millis,
        /// Attempts allowed in a row without progress.
        budget: u32,
    },
    /// The wait is over, or the adapter names another source.
    Retry(Option<ArtifactSource>),
    /// The current install's staged payload was read back and is what was verified.
    ReadBack,
    /// The current install's staged payload was handed over.
    Delivered,
    /// The flasher has done so much, in percent, of what it was told last.
    Working(u8),
    /// The flasher failed at what it was told last.
    FlashFailed(Reason),
    /// The staged payload is the next to run, read back.
    Activated {
        /// It runs after a reboot only.
        reboot: bool,
    },
    /// The agent started.
    Restarted {
        /// In the boot whose id the job holds.
        same_boot: bool,
    },
    /// The boot selector, version and probe were asked.
    Examined(Standing, Fit),
    /// They could not be asked.
    ExamineFailed {
        /// Why.
        reason: Reason,
        /// The time the target has to prove itself is over.
        expired: bool,
    },
    /// The platform accepts the new version.
    ConfirmGiven,
    /// The new payload is permanent, read back.
    Confirmed,
    /// The old payload is the next to run, read back.
    RolledBack {
        /// It runs after a reboot only.
        reboot: bool,
    },
    /// The plan said `when-told`, and now it is told.
    Apply,
    /// Stop for now.
    Pause,
    /// Go on.
    Resume,
    /// Give up.
    Cancel(Reason),
    /// The phase took longer than it may.
    Deadline,
}

/// What to do once the job is committed. Every action may be repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Ask policy and readiness.
    CheckGate(GateAt),
    /// Give [`Input::GateAgain`] after this long.
    CheckGateIn(Millis),
    /// Transfer the current artifact, resuming what is there.
    Transfer,
    /// Transfer the current artifact from the first byte.
    TransferAfresh,
    /// Give [`Input::Retry`] after this long.
    RetryIn(Millis),
    /// Stop the transfer, or the work of the flasher.
    StopTransfer,
    /// Read the current staged payload back.
    ReadBack,
    /// Hand the current staged payload over.
    Deliver,
    /// Make it the next to run.
    Activate,
    /// The same, after this long.
    ActivateIn(Millis),
    /// Reboot the device.
    Reboot,
    /// Ask boot selector, version and probe.
    Examine,
    /// The same, a little later.
    ExamineLater,
    /// Give the new payload its boot tries back: it came up, and only power was lost since.
    Rearm,
    /// Make the new payload permanent.
    Confirm,
    /// Bring the old payload back.
    RollBack,
    /// The same, after this long.
    RollBackIn(Millis),
}

/// What [`Job::apply`](super::Job::apply) says of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// The job changed; commit it, then do this.
    Changed(Vec<Action>),
    /// Only progress numbers changed: worth a report, not a commit.
    Progressed,
    /// Nothing changed; do this.
    Unchanged(Vec<Action>),
    /// The input does not belong to the phase (it came late); nothing changed.
    Stale,
    /// Past the point of no return: too late to cancel or pause.
    TooLate,
}
