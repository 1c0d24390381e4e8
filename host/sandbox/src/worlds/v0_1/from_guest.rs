//! From this contract's types to the host's model: what an adapter says of itself, and its steps.

use otahost_core::model;

use super::wit;

/// Words that are the same on both sides.
macro_rules! words {
    ($($name:ident { $($word:ident),* })*) => {
        $(impl From<wit::$name> for model::$name {
            fn from(word: wit::$name) -> Self {
                match word { $(wit::$name::$word => model::$name::$word,)* }
            }
        })*
    };
}

words! {
    Level { Trace, Debug, Info, Warn, Error }
    Apply { Immediately, WhenTold }
    Repeat { Safe, Once }
}

/// Records whose fields have the same names: moved, converted, or converted one by one.
macro_rules! records {
    ($($name:ident { $($same:ident),*; $($into:ident),*; $($each:ident),* })*) => {
        $(impl From<wit::$name> for model::$name {
            fn from(from: wit::$name) -> Self {
                model::$name {
                    $($same: from.$same,)*
                    $($into: from.$into.into(),)*
                    $($each: from.$each.into_iter().map(Into::into).collect(),)*
                }
            }
        })*
    };
}

records! {
    Description { protocol, version, config_schema, state_version; ; }
    TopicNeeds { link, subscribe, publish; ; }
    RouteNeed { link, method, path, max_body; ; }
    CallNeed { link, method, path, secrets; ; }
    Requirements { sources, downloads, targets; ; topics, routes, calls }
    Field { name, value; ; }
    HttpResponse { status, body; ; headers }
    Extension { name, data; ; }
    LinkPath { link, path; ; }
    Artifact { size, digests, identity; source; }
    Install { target, version; artifact; }
    JobPlan { key, context; dedupe, apply; installs }
    Publication { link, topic, payload, qos, retain; persistence; }
    ResponseTo { request; response; }
    Capture { pointer, secret; ; }
    Fetch { tag, link, method, path, body, timeout, redirects; repeat; headers, captures }
    ListingRequest { tag; source; }
    Retry { job, install; decision; }
    Timer { name, after, period; ; }
    Alert { code, text; level; }
    Step { state; ; effects }
}

impl From<wit::ArtifactSource> for model::ArtifactSource {
    fn from(from: wit::ArtifactSource) -> Self {
        match from {
            wit::ArtifactSource::Url(url) => model::ArtifactSource::Url(url),
            wit::ArtifactSource::OnLink(path) => model::ArtifactSource::OnLink(path.into()),
        }
    }
}

impl From<wit::Dedupe> for model::Dedupe {
    fn from(from: wit::Dedupe) -> Self {
        match from {
            wit::Dedupe::WhileActive => model::Dedupe::WhileActive,
            wit::Dedupe::Lasting(span) => model::Dedupe::Lasting(span),
        }
    }
}

impl From<wit::Persistence> for model::Persistence {
    fn from(from: wit::Persistence) -> Self {
        match from {
            wit::Persistence::Durable => model::Persistence::Durable,
            wit::Persistence::Latest(key) => model::Persistence::Latest(key),
        }
    }
}

impl From<wit::RetryDecision> for model::RetryDecision {
    fn from(from: wit::RetryDecision) -> Self {
        match from {
            wit::RetryDecision::After(span) => model::RetryDecision::After(span),
            wit::RetryDecision::WithSource(source) => {
                model::RetryDecision::WithSource(source.into())
            }
            wit::RetryDecision::Stop(why) => model::RetryDecision::Stop(why),
        }
    }
}

impl From<wit::Effect> for model::Effect {
    fn from(from: wit::Effect) -> Self {
        match from {
            wit::Effect::Publish(publication) => model::Effect::Publish(publication.into()),
            wit::Effect::Respond(response) => model::Effect::Respond(response.into()),
            wit::Effect::Fetch(fetch) => model::Effect::Fetch(fetch.into()),
            wit::Effect::ListDirectory(request) => model::Effect::ListDirectory(request.into()),
            wit::Effect::StartJob(plan) => model::Effect::StartJob(plan.into()),
            wit::Effect::RetryAttempt(retry) => model::Effect::RetryAttempt(retry.into()),
            wit::Effect::ApplyJob(key) => model::Effect::ApplyJob(key),
            wit::Effect::PauseJob(key) => model::Effect::PauseJob(key),
            wit::Effect::ResumeJob(key) => model::Effect::ResumeJob(key),
            wit::Effect::CancelJob(key) => model::Effect::CancelJob(key),
            wit::Effect::ConfirmJob(key) => model::Effect::ConfirmJob(key),
            wit::Effect::SetTimer(timer) => model::Effect::SetTimer(timer.into()),
            wit::Effect::CancelTimer(name) => model::Effect::CancelTimer(name),
            wit::Effect::Alert(alert) => model::Effect::Alert(alert.into()),
            wit::Effect::Extension(extension) => model::Effect::Extension(extension.into()),
        }
    }
}
