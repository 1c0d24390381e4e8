//! Answers of an agent to try words and tables on.

use otahost_core::model::{ClockQuality, Phase, Reason};

use crate::api::{
    FailureView, HistoryView, InstallView, JobView, LinkView, MemoryView, SlotView, StatusView,
    TargetView,
};

/// A job of the adapter `dji` on the target `dock`, 12.3 MiB of 64 fetched.
pub(super) fn job(phase: Phase) -> JobView {
    JobView {
        id: "1".into(),
        key: "k1".into(),
        owner: "dji".into(),
        phase,
        paused: false,
        gate: None,
        current: 0,
        awaits_owner: false,
        when_told: false,
        failed_attempts: 0,
        allowed_attempts: 8,
        activation: None,
        rolling_back: false,
        time_left: None,
        created: 0,
        updated: 1_709_251_199_000,
        reason: None,
        until: None,
        rate: 0,
        installs: vec![InstallView {
            target: "dock".into(),
            phase,
            received: 12_897_485,
            total: Some(64 << 20),
            percent: 38,
            old_version: None,
            new_version: "2.0".into(),
            reason: None,
        }],
        history: vec![HistoryView {
            at: 0,
            phase: Phase::Queued,
            text: "asked\u{1b}".into(),
        }],
    }
}

/// An agent that has nothing.
pub(super) fn idle() -> StatusView {
    StatusView {
        device: "gw-7".into(),
        version: "0.1.0".into(),
        uptime_ms: 61_000,
        boot_id: "b".into(),
        now: 0,
        clock: ClockQuality::Synced,
        safe_mode: false,
        journal: Default::default(),
        links: vec![],
        targets: vec![],
        adapters: vec![],
        repositories: vec![],
        drop_ins: vec![],
        problem: None,
        jobs: vec![],
    }
}

/// The target `dock`: version 1.0 runs from slot `a`.
pub(super) fn dock() -> TargetView {
    let slot = |name: &str, state: &str, running| SlotView {
        name: name.into(),
        state: state.into(),
        running,
    };
    TargetView {
        id: "dock".into(),
        version: Some("1.0".into()),
        health: "healthy".into(),
        observed: None,
        slots: vec![slot("a", "good", true), slot("b", "bad", false)],
        busy: None,
        version_fault: None,
        memory: MemoryView::default(),
    }
}

/// Version 2.0 of job `k1`, which went wrong.
pub(super) fn failure(phase: Phase, code: &str, text: &str) -> FailureView {
    FailureView {
        job: "k1".into(),
        at: 1_709_251_199_000,
        phase,
        version: "2.0".into(),
        sha256: Some("ab".repeat(32)),
        reason: Some(Reason::new(code, "confirm", text)),
    }
}

/// The link `cloud`, which is down.
pub(super) fn down() -> LinkView {
    LinkView {
        name: "cloud".into(),
        kind: "mqtt".into(),
        up: false,
        since: Some(0),
        reason: "refused".into(),
        waiting: 2,
    }
}
