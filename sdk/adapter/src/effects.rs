//! Builders for effects. Each begins with what is indispensable, has methods for the rest (they are on the contract's own
//! types), and ends in an [`Effect`].
//!
//! ```
//! use otahost_adapter::effects::{alert, publish, start_job, timer};
//! use otahost_adapter::{ArtifactSource, Effect, Install, Level};
//!
//! let url = ArtifactSource::Url("https://files.example/dock.img".into());
//! let effects: Vec<Effect> = vec![
//!     publish("cloud", "dock/reply").json(&"accepted").durable(),
//!     publish("cloud", "dock/progress").json(&40).qos0().latest("progress"),
//!     start_job("ota/17")
//!         .context(&"the ids to answer with")
//!         .install(Install::new("dock", "2.0.0", url).size(67_108_864).md5("9e107d9d372bb6826bd81d3542a419d6"))
//!         .start(),
//!     timer("poll", 60_000),
//!     alert(Level::Warn, "odd-answer", "the cloud answered in a way that its manual does not know"),
//! ];
//! # assert_eq!(effects.len(), 5);
//! ```

use crate::{
    Alert, Effect, Fetch, HttpResponse, JobPlan, Level, LinkPath, ListingRequest, Persistence,
    Publication, Repeat, ResponseTo, Retry, RetryDecision, Timer,
};

/// An MQTT message, empty and at QoS 1 until its methods say otherwise. Ends with [`Publication::durable`] or [`Publication::latest`].
pub fn publish(link: &str, topic: &str) -> Publication {
    Publication {
        link: link.into(),
        topic: topic.into(),
        payload: Vec::new(),
        qos: 1,
        retain: false,
        persistence: Persistence::Durable,
    }
}

/// A request for an update under this key, without installs. Ends with [`JobPlan::start`]; as it stands it can be shown to
/// [`View::check_job`](crate::View::check_job).
pub fn start_job(key: &str) -> JobPlan {
    JobPlan::new(key)
}

/// Lets the prepared job with this key go on to flash.
pub fn apply_job(key: &str) -> Effect {
    Effect::ApplyJob(key.into())
}

/// Stops the job with this key until [`resume_job`].
pub fn pause_job(key: &str) -> Effect {
    Effect::PauseJob(key.into())
}

/// Lets the paused job with this key go on.
pub fn resume_job(key: &str) -> Effect {
    Effect::ResumeJob(key.into())
}

/// Ends the job with this key, unless it is past the point of no return.
pub fn cancel_job(key: &str) -> Effect {
    Effect::CancelJob(key.into())
}

/// Says that the platform accepts the new version of the job with this key.
pub fn confirm_job(key: &str) -> Effect {
    Effect::ConfirmJob(key.into())
}

/// Answers a failed attempt.
pub fn retry(job: &str, install: u32, decision: RetryDecision) -> Effect {
    Effect::RetryAttempt(Retry {
        job: job.into(),
        install,
        decision,
    })
}

/// Answers an inbound request, named by its id.
pub fn respond(request: &str, response: HttpResponse) -> Effect {
    Effect::Respond(ResponseTo {
        request: request.into(),
        response,
    })
}

/// A small HTTP request with a time-out of 30 s and no redirects. Ends with [`Fetch::safe`] or [`Fetch::once`].
pub fn fetch(tag: &str, link: &str, method: &str, path: &str) -> Fetch {
    Fetch {
        tag: tag.into(),
        link: link.into(),
        method: method.into(),
        path: path.into(),
        headers: Vec::new(),
        body: Vec::new(),
        captures: Vec::new(),
        repeat: Repeat::Safe,
        timeout: 30_000,
        redirects: 0,
    }
}

/// Lists a directory on a link.
pub fn list_directory(tag: &str, link: &str, path: &str) -> Effect {
    Effect::ListDirectory(ListingRequest {
        tag: tag.into(),
        source: LinkPath {
            link: link.into(),
            path: path.into(),
        },
    })
}

/// Sets the timer with this name to fire once, in milliseconds from now; at least 100.
pub fn timer(name: &str, after: u64) -> Effect {
    Effect::SetTimer(Timer {
        name: name.into(),
        after,
        period: None,
    })
}

/// Sets the timer with this name to fire again and again: first after `after`, then every `period` milliseconds; at least
/// 100 and 1,000.
pub fn timer_every(name: &str, after: u64, period: u64) -> Effect {
    Effect::SetTimer(Timer {
        name: name.into(),
        after,
        period: Some(period),
    })
}

/// Removes the timer with this name.
pub fn cancel_timer(name: &str) -> Effect {
    Effect::CancelTimer(name.into())
}

/// Something a person has to look at; alerts with the same code are merged.
pub fn alert(level: Level, code: &str, text: &str) -> Effect {
    Effect::Alert(Alert {
        code: code.into(),
        level,
        text: text.into(),
    })
}
