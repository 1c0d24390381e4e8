//! From the host's model to this contract's types: events, and what the `host` interface answers.

use otahost_core::model;

use super::wit;

/// Words that are the same on both sides.
macro_rules! words {
    ($($name:ident { $($word:ident),* })*) => {
        $(impl From<model::$name> for wit::$name {
            fn from(word: model::$name) -> Self {
                match word { $(model::$name::$word => wit::$name::$word,)* }
            }
        })*
    };
}

words! {
    ClockQuality { Unset, Floor, Synced }
    Health { Unknown, Healthy, Unwell, Offline }
    Phase {
        Queued, Waiting, Downloading, Verifying, Prepared, Delivering, Delivered, Installing, Activating, Confirming,
        Succeeded, Rejected, Failed, RolledBack, RollbackFailed, Cancelled, Partial
    }
}

/// Records whose fields have the same names: cloned, converted, or converted one by one.
macro_rules! records {
    ($($name:ident { $($same:ident),*; $($into:ident),*; $($each:ident),* })*) => {
        $(impl From<&model::$name> for wit::$name {
            fn from(from: &model::$name) -> Self {
                wit::$name {
                    $($same: from.$same.clone(),)*
                    $($into: from.$into.into(),)*
                    $($each: from.$each.iter().map(Into::into).collect(),)*
                }
            }
        })*
    };
}

records! {
    Field { name, value; ; }
    LinkState { link, up, session_present, reason; ; }
    Message { link, topic, payload, duplicate, retained; ; }
    InboundRequest { id, link, method, path, body, principal, deadline; ; query, headers }
    HttpResponse { status, body; ; headers }
    DirectoryEntry { name, directory, size, modified; ; }
    FailedAttempt { job, install, attempt, status, body, reason; ; headers }
    Extension { name, data; ; }
    Reason { code, stage, text; ; }
    Target { id, parent, version, observed, busy; health; attributes }
}

impl From<&model::InstallReport> for wit::InstallReport {
    fn from(from: &model::InstallReport) -> Self {
        wit::InstallReport {
            target: from.target.clone(),
            phase: from.phase.into(),
            received: from.received,
            total: from.total,
            percent: from.percent,
            old_version: from.old_version.clone(),
            new_version: from.new_version.clone(),
            reason: from.reason.as_ref().map(Into::into),
        }
    }
}

impl From<&model::JobReport> for wit::JobReport {
    fn from(from: &model::JobReport) -> Self {
        wit::JobReport {
            key: from.key.clone(),
            foreign: from.foreign,
            context: from.context.clone(),
            phase: from.phase.into(),
            paused: from.paused,
            until: from.until,
            reason: from.reason.as_ref().map(Into::into),
            rate: from.rate,
            installs: from.installs.iter().map(Into::into).collect(),
        }
    }
}

impl From<model::JobSummary> for wit::JobSummary {
    fn from(from: model::JobSummary) -> Self {
        wit::JobSummary {
            key: from.key,
            foreign: from.foreign,
            phase: from.phase.into(),
            targets: from.targets,
        }
    }
}

impl From<model::Verdict> for wit::Verdict {
    fn from(from: model::Verdict) -> Self {
        match from {
            model::Verdict::Allow => wit::Verdict::Allow,
            model::Verdict::Defer(until) => wit::Verdict::Defer(until),
            model::Verdict::Refuse(reason) => wit::Verdict::Refuse((&reason).into()),
            model::Verdict::Busy(key) => wit::Verdict::Busy(key),
        }
    }
}

impl From<&model::StartReason> for wit::StartReason {
    fn from(from: &model::StartReason) -> Self {
        match from {
            model::StartReason::Booted => wit::StartReason::Booted,
            model::StartReason::Restarted => wit::StartReason::Restarted,
            model::StartReason::Installed => wit::StartReason::Installed,
            model::StartReason::Upgraded(version) => wit::StartReason::Upgraded(version.clone()),
            model::StartReason::RolledBack(version) => {
                wit::StartReason::RolledBack(version.clone())
            }
            model::StartReason::Reconfigured => wit::StartReason::Reconfigured,
        }
    }
}

impl From<&model::FetchOutcome> for wit::FetchOutcome {
    fn from(from: &model::FetchOutcome) -> Self {
        let outcome = match &from.outcome {
            model::FetchResult::Answered(response) => wit::FetchResult::Answered(response.into()),
            model::FetchResult::Failed(why) => wit::FetchResult::Failed(why.clone()),
            model::FetchResult::Interrupted => wit::FetchResult::Interrupted,
        };
        wit::FetchOutcome {
            tag: from.tag.clone(),
            outcome,
        }
    }
}

impl From<&model::ListingOutcome> for wit::ListingOutcome {
    fn from(from: &model::ListingOutcome) -> Self {
        let entries = match &from.entries {
            Ok(entries) => Ok(entries.iter().map(Into::into).collect()),
            Err(why) => Err(why.clone()),
        };
        wit::ListingOutcome {
            tag: from.tag.clone(),
            entries,
        }
    }
}

impl From<&model::Event> for wit::Event {
    fn from(from: &model::Event) -> Self {
        match from {
            model::Event::Started(reason) => wit::Event::Started(reason.into()),
            model::Event::Link(state) => wit::Event::Link(state.into()),
            model::Event::Message(message) => wit::Event::Message(message.into()),
            model::Event::Request(request) => wit::Event::Request(request.into()),
            model::Event::Response(outcome) => wit::Event::Response(outcome.into()),
            model::Event::Listing(outcome) => wit::Event::Listing(outcome.into()),
            model::Event::Attempt(attempt) => wit::Event::Attempt(attempt.into()),
            model::Event::Job(report) => wit::Event::Job(report.into()),
            model::Event::Target(id) => wit::Event::Target(id.clone()),
            model::Event::Timer(name) => wit::Event::Timer(name.clone()),
            model::Event::Extension(extension) => wit::Event::Extension(extension.into()),
        }
    }
}
