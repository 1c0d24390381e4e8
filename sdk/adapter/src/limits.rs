//! The limits of the contract, checked on the bench as the host checks them on a device: a step that breaks one is discarded whole.

use std::collections::BTreeSet;

use crate::{
    ArtifactSource, Effect, Fetch, Field, JobPlan, LinkPath, Persistence, Requirements,
    RetryDecision, topic,
};

/// Largest state.
pub(crate) const MAX_STATE: usize = 60_000;
/// Largest job context.
const MAX_CONTEXT: usize = 4 * 1024;
/// Largest payload or body.
pub(crate) const MAX_PAYLOAD: usize = 256 * 1024;
/// Most effects of one step.
pub(crate) const MAX_EFFECTS: usize = 256;
/// Largest sum of a step's effects.
const MAX_STEP_BYTES: usize = 1024 * 1024;
/// Longest key, tag, name or token.
const MAX_ID: usize = 200;
/// Most entries of `requirements`.
const MAX_NEEDS: usize = 1_000;
/// Most installs of one plan.
const MAX_INSTALLS: usize = 1_000;
/// 400 days.
const MAX_TIMER: u64 = 400 * 24 * 3_600_000;

/// Checks what `requirements` answered.
pub(crate) fn check_requirements(needs: &Requirements) -> Result<(), String> {
    let entries = needs
        .topics
        .iter()
        .map(|t| t.subscribe.len() + t.publish.len())
        .sum::<usize>()
        + needs.routes.len()
        + needs.calls.len()
        + needs.sources.len()
        + needs.downloads.len()
        + needs.targets.len();
    if entries > MAX_NEEDS {
        return Err(format!(
            "the requirements have {entries} entries; the limit is {MAX_NEEDS}"
        ));
    }
    for filter in needs
        .topics
        .iter()
        .flat_map(|t| t.subscribe.iter().chain(&t.publish))
    {
        if !topic::is_filter(filter) {
            return Err(format!(
                "the requirements name {filter:?}, which is no MQTT topic filter"
            ));
        }
    }
    if let Some(route) = needs
        .routes
        .iter()
        .find(|r| r.max_body as usize > MAX_PAYLOAD)
    {
        return Err(format!(
            "the route {} asks for bodies above the limit of {MAX_PAYLOAD} bytes",
            route.path
        ));
    }
    Ok(())
}

/// Checks a step's outcome against the contract's limits and what was declared.
pub(crate) fn check_step(
    state: &[u8],
    effects: &[Effect],
    needs: &Requirements,
) -> Result<(), String> {
    if state.len() > MAX_STATE {
        return Err(format!(
            "the state has {} bytes; the limit is {MAX_STATE}",
            state.len()
        ));
    }
    if effects.len() > MAX_EFFECTS {
        return Err(format!(
            "the step has {} effects; the limit is {MAX_EFFECTS}",
            effects.len()
        ));
    }
    let mut bytes = 0;
    for (at, effect) in effects.iter().enumerate() {
        check_effect(effect, needs).map_err(|what| format!("effect {at}: {what}"))?;
        bytes += size(effect);
    }
    if bytes > MAX_STEP_BYTES {
        return Err(format!(
            "the effects have {bytes} bytes in all; the limit is {MAX_STEP_BYTES}"
        ));
    }
    Ok(())
}

fn check_effect(effect: &Effect, needs: &Requirements) -> Result<(), String> {
    match effect {
        Effect::Publish(publication) => {
            if !topic::is_name(&publication.topic) {
                return Err(format!("{:?} is no topic to publish to", publication.topic));
            }
            if publication.qos > 1 {
                return Err(format!(
                    "QoS {} is not supported; use 0 or 1",
                    publication.qos
                ));
            }
            if let Persistence::Latest(key) = &publication.persistence {
                check_id("the key of a `latest` publication", key)?;
            }
            check_body("payload", &publication.payload)?;
            let declared = needs
                .topics
                .iter()
                .filter(|t| t.link == publication.link)
                .flat_map(|t| &t.publish)
                .any(|filter| topic::matches(filter, &publication.topic));
            declare(declared, || {
                format!(
                    "publishing to {} on link {}",
                    publication.topic, publication.link
                )
            })
        }
        Effect::Respond(answer) => {
            check_id("the request's id", &answer.request)?;
            check_headers(&answer.response.headers)?;
            check_body("body", &answer.response.body)?;
            if !(100..=999).contains(&answer.response.status) {
                return Err(format!("{} is no HTTP status", answer.response.status));
            }
            declare(!needs.routes.is_empty(), || {
                "answering a request".to_owned()
            })
        }
        Effect::Fetch(fetch) => check_fetch(fetch, needs),
        Effect::ListDirectory(listing) => {
            check_id("the tag", &listing.tag)?;
            check_link_path(&listing.source, needs)
        }
        Effect::StartJob(plan) => check_plan(plan, needs),
        Effect::RetryAttempt(retry) => {
            check_id("the job's key", &retry.job)?;
            match &retry.decision {
                RetryDecision::WithSource(source) => check_source(source, needs),
                RetryDecision::After(_) | RetryDecision::Stop(_) => Ok(()),
            }
        }
        Effect::ApplyJob(key)
        | Effect::PauseJob(key)
        | Effect::ResumeJob(key)
        | Effect::CancelJob(key)
        | Effect::ConfirmJob(key) => check_id("the job's key", key),
        Effect::SetTimer(timer) => {
            check_id("the timer's name", &timer.name)?;
            if !(100..=MAX_TIMER).contains(&timer.after) {
                return Err(format!(
                    "a timer of {} ms; it takes 100 ms to 400 days",
                    timer.after
                ));
            }
            match timer.period {
                Some(period) if !(1_000..=MAX_TIMER).contains(&period) => Err(format!(
                    "a timer with a period of {period} ms; it takes 1,000 ms to 400 days"
                )),
                _ => Ok(()),
            }
        }
        Effect::CancelTimer(name) => check_id("the timer's name", name),
        Effect::Alert(alert) => check_id("the alert's code", &alert.code),
        Effect::Extension(extension) => check_id("the extension's name", &extension.name),
    }
}

fn check_fetch(fetch: &Fetch, needs: &Requirements) -> Result<(), String> {
    check_id("the tag", &fetch.tag)?;
    check_headers(&fetch.headers)?;
    check_body("body", &fetch.body)?;
    if fetch.timeout > 120_000 {
        return Err(format!(
            "a fetch with a time-out of {} ms; the limit is 120,000",
            fetch.timeout
        ));
    }
    if fetch.redirects > 5 {
        return Err(format!(
            "a fetch with {} redirects; the limit is 5",
            fetch.redirects
        ));
    }
    let path = fetch.path.split('?').next().unwrap_or_default();
    let declared = needs.calls.iter().any(|call| {
        call.link == fetch.link && call.method == fetch.method && covers(&call.path, path)
    });
    declare(declared, || {
        format!("the request {} {path} on link {}", fetch.method, fetch.link)
    })
}

fn check_plan(plan: &JobPlan, needs: &Requirements) -> Result<(), String> {
    check_id("the plan's key", &plan.key)?;
    if plan.context.len() > MAX_CONTEXT {
        return Err(format!(
            "the plan's context has {} bytes; the limit is {MAX_CONTEXT}",
            plan.context.len()
        ));
    }
    if plan.installs.is_empty() || plan.installs.len() > MAX_INSTALLS {
        return Err(format!(
            "the plan has {} installs; it takes 1 to {MAX_INSTALLS}",
            plan.installs.len()
        ));
    }
    let mut targets = BTreeSet::new();
    for install in &plan.installs {
        check_id("the target's id", &install.target)?;
        // Empty where the platform names none.
        if !install.version.is_empty() {
            check_id("the version", &install.version)?;
        }
        if !targets.insert(install.target.as_str()) {
            return Err(format!("the plan names target {} twice", install.target));
        }
        let declared = needs
            .targets
            .iter()
            .any(|id| id == "*" || *id == install.target);
        declare(declared, || {
            format!("an update of target {}", install.target)
        })?;
        for digest in &install.artifact.digests {
            if !is_digest(digest) {
                return Err(format!(
                    "{digest:?} is no digest; write md5: or sha256: and lower-case hexadecimal digits"
                ));
            }
        }
        if let Some(identity) = &install.artifact.identity {
            check_id("the artifact's identity", identity)?;
        }
        check_source(&install.artifact.source, needs)?;
    }
    Ok(())
}

/// A URL is not compared with `downloads`: that lists what is expected, and a URL outside the grant is no fault of the adapter but
/// comes back as a rejected job.
fn check_source(source: &ArtifactSource, needs: &Requirements) -> Result<(), String> {
    match source {
        ArtifactSource::OnLink(path) => check_link_path(path, needs),
        ArtifactSource::Url(_) => Ok(()),
    }
}

fn check_link_path(path: &LinkPath, needs: &Requirements) -> Result<(), String> {
    declare(needs.sources.contains(&path.link), || {
        format!("files of link {}", path.link)
    })
}

fn declare(declared: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if declared {
        Ok(())
    } else {
        Err(format!(
            "undeclared effect: {} is not in `requirements`",
            what()
        ))
    }
}

fn check_id(what: &str, id: &str) -> Result<(), String> {
    if id.is_empty() || id.len() > MAX_ID || id.chars().any(char::is_control) {
        let shown: String = id.chars().take(40).collect();
        return Err(format!(
            "{what} is {shown:?}; it takes 1 to {MAX_ID} bytes without control characters"
        ));
    }
    Ok(())
}

fn check_body(what: &str, bytes: &[u8]) -> Result<(), String> {
    if bytes.len() > MAX_PAYLOAD {
        return Err(format!(
            "a {what} of {} bytes; the limit is {MAX_PAYLOAD}",
            bytes.len()
        ));
    }
    Ok(())
}

fn check_headers(headers: &[Field]) -> Result<(), String> {
    let bytes: usize = headers.iter().map(|h| h.name.len() + h.value.len()).sum();
    if headers.len() > 64 || bytes > 16 * 1024 {
        return Err(format!(
            "{} headers with {bytes} bytes; the limit is 64 and 16 KiB",
            headers.len()
        ));
    }
    Ok(())
}

fn is_digest(digest: &str) -> bool {
    let digits = match digest.split_once(':') {
        Some(("md5", hex)) if hex.len() == 32 => hex,
        Some(("sha256", hex)) if hex.len() == 64 => hex,
        _ => return false,
    };
    digits
        .bytes()
        .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// True when the declared path, where `*` stands for one segment, covers this one.
fn covers(declared: &str, path: &str) -> bool {
    let mut segments = path.split('/');
    declared.split('/').all(|part| {
        segments
            .next()
            .is_some_and(|segment| part == "*" || part == segment)
    }) && segments.next().is_none()
}

/// What an effect weighs: its variable parts.
fn size(effect: &Effect) -> usize {
    let headers = |fields: &[Field]| {
        fields
            .iter()
            .map(|f| f.name.len() + f.value.len())
            .sum::<usize>()
    };
    let source = |source: &ArtifactSource| match source {
        ArtifactSource::Url(url) => url.len(),
        ArtifactSource::OnLink(path) => path.link.len() + path.path.len(),
    };
    match effect {
        Effect::Publish(p) => p.link.len() + p.topic.len() + p.payload.len(),
        Effect::Respond(r) => {
            r.request.len() + headers(&r.response.headers) + r.response.body.len()
        }
        Effect::Fetch(f) => {
            f.tag.len() + f.link.len() + f.path.len() + headers(&f.headers) + f.body.len()
        }
        Effect::ListDirectory(l) => l.tag.len() + l.source.link.len() + l.source.path.len(),
        Effect::StartJob(plan) => {
            plan.key.len()
                + plan.context.len()
                + plan
                    .installs
                    .iter()
                    .map(|i| {
                        i.target.len()
                            + i.version.len()
                            + source(&i.artifact.source)
                            + i.artifact.digests.iter().map(String::len).sum::<usize>()
                            + i.artifact.identity.as_ref().map_or(0, String::len)
                    })
                    .sum::<usize>()
        }
        Effect::RetryAttempt(retry) => {
            retry.job.len()
                + match &retry.decision {
                    RetryDecision::After(_) => 0,
                    RetryDecision::WithSource(from) => source(from),
                    RetryDecision::Stop(text) => text.len(),
                }
        }
        Effect::ApplyJob(key)
        | Effect::PauseJob(key)
        | Effect::ResumeJob(key)
        | Effect::CancelJob(key)
        | Effect::ConfirmJob(key)
        | Effect::CancelTimer(key) => key.len(),
        Effect::SetTimer(timer) => timer.name.len(),
        Effect::Alert(alert) => alert.code.len() + alert.text.len(),
        Effect::Extension(extension) => extension.name.len() + extension.data.len(),
    }
}
