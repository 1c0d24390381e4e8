//! The shape of what an adapter hands over: lengths, counts, characters and bounds that the contract names.
//!
//! Everything behind the sandbox may rely on it: an id fits a key of the journal, a header cannot smuggle a second one, a
//! step fits a transaction. A fault here is the adapter's own and discards the step. What depends on the device or on
//! foreign data is not looked at: whether an effect is declared, granted or possible, and what an address says.
//!
//! Each check gives `Err` with a sentence for the adapter's author; values are not repeated in it, they may be secret.

use otahost_core::model::{
    Alert, Artifact, ArtifactSource, Dedupe, Description, Effect, Fetch, Field, HttpResponse,
    JobPlan, MAX_CONTEXT, MAX_EFFECTS, MAX_ID, MAX_PAYLOAD, MAX_STATE, MAX_STEP_BYTES, Millis,
    Persistence, Publication, Requirements, Retry, RetryDecision, Step, Timer,
};
use otahost_core::topics;

/// Whole numbers stay below this, so that every guest language can hold them.
pub(crate) const MAX_WHOLE: u64 = (1 << 53) - 1;

const MAX_HEADERS: usize = 64;
const MAX_HEADER_BYTES: usize = 16 * 1024;
const MAX_INSTALLS: usize = 1_000;
const MAX_PROTOCOL: usize = 100;
const MAX_SCHEMA: usize = 32 * 1024;
const MAX_REQUIREMENTS: usize = 1_000;
const MAX_METHOD: usize = 20;
const MAX_FETCH_TIMEOUT: Millis = 120_000;
const MAX_REDIRECTS: u8 = 5;
const MIN_TIMER: Millis = 100;
const MIN_PERIOD: Millis = 1_000;
const MAX_TIMER: Millis = 400 * 24 * 60 * 60 * 1_000;

type Shape = Result<(), String>;

/// The answer of `handle`.
pub(crate) fn step(step: &Step) -> Shape {
    at_most("the state", "bytes", step.state.len(), MAX_STATE)?;
    at_most("the step", "effects", step.effects.len(), MAX_EFFECTS)?;
    let bytes = step
        .effects
        .iter()
        .map(effect_bytes)
        .fold(0, usize::saturating_add);
    at_most("the step's effects", "bytes in all", bytes, MAX_STEP_BYTES)?;
    for (i, e) in step.effects.iter().enumerate() {
        effect(e).map_err(|fault| format!("effect {} ({}): {fault}", i + 1, e.kind()))?;
    }
    Ok(())
}

/// The answer of `describe`.
pub(crate) fn description(d: &Description) -> Shape {
    name("the protocol", &d.protocol, MAX_PROTOCOL)?;
    id("the version", &d.version)?;
    at_most(
        "the configuration schema",
        "bytes",
        d.config_schema.len(),
        MAX_SCHEMA,
    )?;
    match serde_json::from_str(&d.config_schema) {
        Ok(serde_json::Value::Object(_) | serde_json::Value::Bool(_)) => Ok(()),
        Ok(_) => Err("the configuration schema is JSON, but no JSON Schema (an object)".into()),
        Err(e) => Err(format!("the configuration schema is no JSON: {e}")),
    }
}

/// The answer of `requirements`.
pub(crate) fn requirements(r: &Requirements) -> Shape {
    let filters = r
        .topics
        .iter()
        .map(|t| t.subscribe.len() + t.publish.len())
        .sum::<usize>();
    let secrets = r.calls.iter().map(|c| c.secrets.len()).sum::<usize>();
    let lists = [
        r.topics.len(),
        r.routes.len(),
        r.calls.len(),
        r.sources.len(),
        r.downloads.len(),
        r.targets.len(),
    ];
    let entries = filters + secrets + lists.iter().sum::<usize>();
    at_most(
        "the requirements",
        "entries in all",
        entries,
        MAX_REQUIREMENTS,
    )?;
    for needs in &r.topics {
        id("a link", &needs.link)?;
        for filter in needs.subscribe.iter().chain(&needs.publish) {
            topic(topics::filter_fault(filter), filter)?;
        }
    }
    for route in &r.routes {
        id("a link", &route.link)?;
        method(&route.method)?;
        path("the path of a route", &route.path)?;
        if route.path.contains('?') {
            return Err("the path of a route has no query".into());
        }
        at_most(
            "the body of a route",
            "bytes",
            usize::try_from(route.max_body).unwrap_or(usize::MAX),
            MAX_PAYLOAD,
        )?;
    }
    for call in &r.calls {
        id("a link", &call.link)?;
        method(&call.method)?;
        path("the path of a call", &call.path)?;
        if call.path.contains('?')
            || call
                .path
                .split('/')
                .any(|segment| segment.contains('*') && segment != "*")
        {
            return Err(
                "the path of a call has no query, and `*` stands alone in its segment".into(),
            );
        }
        call.secrets
            .iter()
            .try_for_each(|secret| id("a secret", secret))?;
    }
    r.sources.iter().try_for_each(|link| id("a source", link))?;
    r.targets
        .iter()
        .try_for_each(|target| id("a target", target))?;
    for prefix in &r.downloads {
        if !(prefix.starts_with("http://") || prefix.starts_with("https://"))
            || prefix.contains(char::is_control)
        {
            return Err("a download is an address that begins with `http://` or `https://`".into());
        }
    }
    Ok(())
}

/// A job plan, in a step or in `check-job`.
pub(crate) fn plan(plan: &JobPlan) -> Shape {
    id("the job's key", &plan.key)?;
    if let Dedupe::Lasting(span) = plan.dedupe {
        whole("the dedupe time", span)?;
    }
    at_most("the context", "bytes", plan.context.len(), MAX_CONTEXT)?;
    if plan.installs.is_empty() {
        return Err("the plan installs nothing".into());
    }
    at_most("the plan", "installs", plan.installs.len(), MAX_INSTALLS)?;
    let mut targets = std::collections::BTreeSet::new();
    for install in &plan.installs {
        id("a target", &install.target)?;
        if !targets.insert(&install.target) {
            return Err("the plan names a target twice".into());
        }
        // Empty where the platform names none.
        if !install.version.is_empty() {
            id("the version", &install.version)?;
        }
        artifact(&install.artifact)?;
    }
    Ok(())
}

/// The bytes of a plan that count against limits on size.
pub(crate) fn plan_bytes(plan: &JobPlan) -> usize {
    let installs = plan.installs.iter().map(|i| {
        let digests = i.artifact.digests.iter().map(String::len).sum::<usize>();
        let identity = i.artifact.identity.as_ref().map_or(0, String::len);
        i.target.len() + i.version.len() + source_bytes(&i.artifact.source) + digests + identity
    });
    plan.key.len() + plan.context.len() + installs.sum::<usize>()
}

fn effect(effect: &Effect) -> Shape {
    match effect {
        Effect::Publish(p) => publication(p),
        Effect::Respond(r) => {
            id("the request", &r.request)?;
            response(&r.response)
        }
        Effect::Fetch(f) => fetch(f),
        Effect::ListDirectory(l) => {
            id("the tag", &l.tag)?;
            id("the link", &l.source.link)
        }
        Effect::StartJob(p) => plan(p),
        Effect::RetryAttempt(r) => retry(r),
        Effect::ApplyJob(key)
        | Effect::PauseJob(key)
        | Effect::ResumeJob(key)
        | Effect::CancelJob(key)
        | Effect::ConfirmJob(key) => id("the job's key", key),
        Effect::SetTimer(t) => timer(t),
        Effect::CancelTimer(name) => id("the timer", name),
        Effect::Alert(Alert { code, .. }) => id("the alert's code", code),
        Effect::Extension(e) => {
            id("the extension", &e.name)?;
            match serde_json::from_str::<serde_json::Value>(&e.data) {
                Ok(_) => Ok(()),
                Err(fault) => Err(format!("the extension's data is no JSON: {fault}")),
            }
        }
    }
}

fn publication(p: &Publication) -> Shape {
    id("the link", &p.link)?;
    topic(topics::topic_fault(&p.topic), &p.topic)?;
    at_most("the payload", "bytes", p.payload.len(), MAX_PAYLOAD)?;
    if p.qos > 1 {
        return Err(format!("the QoS is 0 or 1, not {}", p.qos));
    }
    match &p.persistence {
        Persistence::Durable => Ok(()),
        Persistence::Latest(key) => id("the key of `latest`", key),
    }
}

fn response(r: &HttpResponse) -> Shape {
    if !(200..=599).contains(&r.status) {
        return Err(format!(
            "the status is one of a final HTTP answer (200 to 599), not {}",
            r.status
        ));
    }
    headers(&r.headers)?;
    at_most("the body", "bytes", r.body.len(), MAX_PAYLOAD)
}

fn fetch(f: &Fetch) -> Shape {
    id("the tag", &f.tag)?;
    id("the link", &f.link)?;
    method(&f.method)?;
    path("the path", &f.path)?;
    headers(&f.headers)?;
    at_most("the body", "bytes", f.body.len(), MAX_PAYLOAD)?;
    for capture in &f.captures {
        id("the secret of a capture", &capture.secret)?;
        if !(capture.pointer.is_empty() || capture.pointer.starts_with('/')) {
            return Err("the pointer of a capture is empty or begins with `/` (RFC 6901)".into());
        }
    }
    within("the time-out", f.timeout, 1, MAX_FETCH_TIMEOUT)?;
    within("redirects", f.redirects.into(), 0, MAX_REDIRECTS.into())
}

fn retry(r: &Retry) -> Shape {
    id("the job's key", &r.job)?;
    match r.decision {
        RetryDecision::After(span) => whole("the wait", span),
        RetryDecision::WithSource(_) | RetryDecision::Stop(_) => Ok(()),
    }
}

fn timer(t: &Timer) -> Shape {
    id("the timer", &t.name)?;
    within("`after`", t.after, MIN_TIMER, MAX_TIMER)?;
    t.period.map_or(Ok(()), |period| {
        within("`period`", period, MIN_PERIOD, MAX_TIMER)
    })
}

fn artifact(a: &Artifact) -> Shape {
    a.size.map_or(Ok(()), |size| whole("the size", size))?;
    if a.digests.iter().any(|digest| !is_digest(digest)) {
        return Err(
            "a digest is `md5:` and 32 or `sha256:` and 64 lower-case hexadecimal digits".into(),
        );
    }
    a.identity
        .as_ref()
        .map_or(Ok(()), |identity| id("the artifact's identity", identity))
}

fn is_digest(text: &str) -> bool {
    let digits = match text.split_once(':') {
        Some(("md5", hex)) if hex.len() == 32 => hex,
        Some(("sha256", hex)) if hex.len() == 64 => hex,
        _ => return false,
    };
    digits
        .bytes()
        .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Names are lower-case tokens and values hold no control character, so that no header can end early and start another.
fn headers(headers: &[Field]) -> Shape {
    at_most("the message", "headers", headers.len(), MAX_HEADERS)?;
    let bytes = headers.iter().map(field_bytes).sum();
    at_most("the headers", "bytes", bytes, MAX_HEADER_BYTES)?;
    for header in headers {
        let token =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&b);
        if header.name.is_empty() || !header.name.bytes().all(token) {
            return Err("the name of a header is a lower-case token (RFC 9110 §5.6.2)".into());
        }
        if header.value.contains(|c: char| c.is_control() && c != '\t') {
            return Err("the value of a header has no control character".into());
        }
    }
    Ok(())
}

fn method(method: &str) -> Shape {
    let fits = (1..=MAX_METHOD).contains(&method.len())
        && method.bytes().all(|b| b.is_ascii_uppercase() || b == b'-');
    if fits {
        Ok(())
    } else {
        Err(format!("a method is 1 to {MAX_METHOD} upper-case letters"))
    }
}

fn path(what: &str, path: &str) -> Shape {
    if path.starts_with('/') && !path.contains(|c: char| c.is_control() || c == ' ' || c == '#') {
        Ok(())
    } else {
        Err(format!(
            "{what} begins with `/` and has no space, `#` or control character"
        ))
    }
}

fn topic(fault: Option<&str>, topic: &str) -> Shape {
    match fault {
        Some(fault) => Err(fault.into()),
        None if topic.contains(char::is_control) => Err("a topic has no control character".into()),
        None => Ok(()),
    }
}

fn id(what: &str, text: &str) -> Shape {
    name(what, text, MAX_ID)
}

fn name(what: &str, text: &str, most: usize) -> Shape {
    if text.is_empty() {
        return Err(format!("{what} is empty"));
    }
    at_most(what, "bytes", text.len(), most)?;
    if text.contains(char::is_control) {
        return Err(format!("{what} has a control character"));
    }
    Ok(())
}

fn at_most(what: &str, unit: &str, found: usize, most: usize) -> Shape {
    if found <= most {
        Ok(())
    } else {
        Err(format!(
            "{what}: {found} {unit}, and at most {most} are allowed"
        ))
    }
}

fn whole(what: &str, value: u64) -> Shape {
    within(what, value, 0, MAX_WHOLE)
}

fn within(what: &str, value: u64, least: u64, most: u64) -> Shape {
    if (least..=most).contains(&value) {
        Ok(())
    } else {
        Err(format!("{what} is {least} to {most}, not {value}"))
    }
}

fn source_bytes(source: &ArtifactSource) -> usize {
    match source {
        ArtifactSource::Url(text) | ArtifactSource::File(text) => text.len(),
        ArtifactSource::OnLink(path) => path.link.len() + path.path.len(),
    }
}

fn field_bytes(field: &Field) -> usize {
    field.name.len() + field.value.len()
}

/// All text and bytes of an effect.
fn effect_bytes(effect: &Effect) -> usize {
    let fields = |fields: &[Field]| fields.iter().map(field_bytes).sum::<usize>();
    match effect {
        Effect::Publish(p) => {
            let key = match &p.persistence {
                Persistence::Durable => 0,
                Persistence::Latest(key) => key.len(),
            };
            p.link.len() + p.topic.len() + p.payload.len() + key
        }
        Effect::Respond(r) => r.request.len() + fields(&r.response.headers) + r.response.body.len(),
        Effect::Fetch(f) => {
            let captures = f
                .captures
                .iter()
                .map(|c| c.pointer.len() + c.secret.len())
                .sum::<usize>();
            let words = f.tag.len() + f.link.len() + f.method.len() + f.path.len();
            words + fields(&f.headers) + f.body.len() + captures
        }
        Effect::ListDirectory(l) => l.tag.len() + l.source.link.len() + l.source.path.len(),
        Effect::StartJob(p) => plan_bytes(p),
        Effect::RetryAttempt(r) => {
            r.job.len()
                + match &r.decision {
                    RetryDecision::After(_) => 0,
                    RetryDecision::WithSource(source) => source_bytes(source),
                    RetryDecision::Stop(why) => why.len(),
                }
        }
        Effect::ApplyJob(text)
        | Effect::PauseJob(text)
        | Effect::ResumeJob(text)
        | Effect::CancelJob(text)
        | Effect::ConfirmJob(text)
        | Effect::CancelTimer(text) => text.len(),
        Effect::SetTimer(t) => t.name.len(),
        Effect::Alert(a) => a.code.len() + a.text.len(),
        Effect::Extension(e) => e.name.len() + e.data.len(),
    }
}

#[cfg(test)]
mod tests;
