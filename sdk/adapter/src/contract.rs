//! Conveniences on the contract's types: what an author would otherwise write again and again.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{
    Apply, Artifact, ArtifactSource, Capture, Dedupe, Effect, Fetch, Field, HttpResponse,
    InboundRequest, Install, InstallReport, JobPlan, JobReport, LinkPath, Message, Persistence,
    Phase, Publication, Reason, Repeat, Requirements, Target, TopicNeeds,
};

/// Reads JSON; the error says what was read.
fn read_json<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(bytes)
        .map_err(|e| format!("{what} is not the JSON that was expected: {e}"))
}

/// Writes JSON. Fails only for a type that has no JSON form at all (a map with keys that are no strings), which is the
/// author's mistake in every run.
fn write_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("a value that an adapter sends has a JSON form")
}

impl Message {
    /// The payload read as JSON.
    ///
    /// # Errors
    /// A sentence that names the topic, fit to be returned from `handle`.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, String> {
        read_json(&format!("the message on {}", self.topic), &self.payload)
    }
}

impl InboundRequest {
    /// The body read as JSON.
    ///
    /// # Errors
    /// A sentence that names the path, fit to be answered with status 400.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, String> {
        read_json(
            &format!("the body of {} {}", self.method, self.path),
            &self.body,
        )
    }
}

impl HttpResponse {
    /// An answer without a body.
    pub fn status(status: u16) -> Self {
        HttpResponse {
            status,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    /// An answer with a JSON body.
    ///
    /// # Panics
    /// When the value has no JSON form (a map with keys that are no strings).
    pub fn with_json(status: u16, value: &impl Serialize) -> Self {
        let headers = vec![Field {
            name: "content-type".into(),
            value: "application/json".into(),
        }];
        HttpResponse {
            status,
            headers,
            body: write_json(value),
        }
    }

    /// The body read as JSON.
    ///
    /// # Errors
    /// A sentence that names the status.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, String> {
        read_json(
            &format!("the body of the answer with status {}", self.status),
            &self.body,
        )
    }
}

impl Publication {
    /// Sets the payload; at most 256 KiB.
    pub fn payload(mut self, payload: impl Into<Vec<u8>>) -> Self {
        self.payload = payload.into();
        self
    }

    /// Sends it at QoS 0: it may get lost.
    pub fn qos0(mut self) -> Self {
        self.qos = 0;
        self
    }

    /// Sends it at QoS 1: at least once. This is what it is from the start.
    pub fn qos1(mut self) -> Self {
        self.qos = 1;
        self
    }

    /// Has the broker keep it for later subscribers.
    pub fn retained(mut self) -> Self {
        self.retain = true;
        self
    }

    /// The effect, kept until the broker has it, over restarts and reboots.
    pub fn durable(mut self) -> Effect {
        self.persistence = Persistence::Durable;
        Effect::Publish(self)
    }

    /// The effect, of which only the newest with this key is kept, and only in memory. For progress.
    pub fn latest(mut self, key: &str) -> Effect {
        self.persistence = Persistence::Latest(key.into());
        Effect::Publish(self)
    }

    /// Sets the payload to this value as JSON.
    ///
    /// # Panics
    /// When the value has no JSON form (a map with keys that are no strings).
    pub fn json(mut self, value: &impl Serialize) -> Self {
        self.payload = write_json(value);
        self
    }

    /// The payload read as JSON; for tests.
    ///
    /// # Errors
    /// A sentence that names the topic.
    pub fn payload_json<T: DeserializeOwned>(&self) -> Result<T, String> {
        read_json(&format!("the publication to {}", self.topic), &self.payload)
    }
}

impl Target {
    /// The operator's attribute of this name.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes
            .iter()
            .find(|field| field.name == name)
            .map(|field| field.value.as_str())
    }
}

impl Phase {
    /// True when nothing follows.
    pub fn is_final(self) -> bool {
        self >= Phase::Succeeded
    }

    /// The word of the contract: `rolled-back`.
    pub fn word(self) -> &'static str {
        match self {
            Phase::Queued => "queued",
            Phase::Waiting => "waiting",
            Phase::Downloading => "downloading",
            Phase::Verifying => "verifying",
            Phase::Prepared => "prepared",
            Phase::Delivering => "delivering",
            Phase::Delivered => "delivered",
            Phase::Installing => "installing",
            Phase::Activating => "activating",
            Phase::Confirming => "confirming",
            Phase::Succeeded => "succeeded",
            Phase::Rejected => "rejected",
            Phase::Failed => "failed",
            Phase::RolledBack => "rolled-back",
            Phase::RollbackFailed => "rollback-failed",
            Phase::Cancelled => "cancelled",
            Phase::Partial => "partial",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl Reason {
    /// A reason from its three parts.
    pub fn new(code: &str, stage: &str, text: impl Into<String>) -> Self {
        Reason {
            code: code.into(),
            stage: stage.into(),
            text: text.into(),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} at {})", self.text, self.code, self.stage)
    }
}

impl JobReport {
    /// The context of the plan read as JSON.
    ///
    /// # Errors
    /// A sentence that names the job.
    pub fn context_json<T: DeserializeOwned>(&self) -> Result<T, String> {
        read_json(&format!("the context of job {}", self.key), &self.context)
    }

    /// How the install on this target stands.
    pub fn install(&self, target: &str) -> Option<&InstallReport> {
        self.installs
            .iter()
            .find(|install| install.target == target)
    }
}

impl Default for Requirements {
    /// Nothing at all.
    fn default() -> Self {
        Requirements {
            topics: Vec::new(),
            routes: Vec::new(),
            calls: Vec::new(),
            sources: Vec::new(),
            downloads: Vec::new(),
            targets: Vec::new(),
        }
    }
}

impl TopicNeeds {
    /// Needs on this link, none yet.
    pub fn on(link: &str) -> Self {
        TopicNeeds {
            link: link.into(),
            subscribe: Vec::new(),
            publish: Vec::new(),
        }
    }
}

impl ArtifactSource {
    /// A path on a link, fetched with that link's credentials.
    pub fn on_link(link: &str, path: &str) -> Self {
        ArtifactSource::OnLink(LinkPath {
            link: link.into(),
            path: path.into(),
        })
    }
}

impl Install {
    /// This version on this target, from there.
    pub fn new(target: &str, version: &str, source: ArtifactSource) -> Self {
        Install {
            target: target.into(),
            artifact: Artifact {
                source,
                size: None,
                digests: Vec::new(),
                identity: None,
            },
            version: version.into(),
        }
    }

    /// The exact size of the file in bytes.
    pub fn size(mut self, bytes: u64) -> Self {
        self.artifact.size = Some(bytes);
        self
    }

    /// The MD5 of the whole file, 32 hexadecimal digits in either case. Anything else makes the plan invalid: check it first.
    pub fn md5(self, hex: &str) -> Self {
        self.digest("md5", hex)
    }

    /// The SHA-256 of the whole file, 64 hexadecimal digits in either case. Anything else makes the plan invalid: check it first.
    pub fn sha256(self, hex: &str) -> Self {
        self.digest("sha256", hex)
    }

    fn digest(mut self, algorithm: &str, hex: &str) -> Self {
        self.artifact
            .digests
            .push(format!("{algorithm}:{}", hex.to_ascii_lowercase()));
        self
    }

    /// What names the content where there is no digest.
    pub fn identity(mut self, id: &str) -> Self {
        self.artifact.identity = Some(id.into());
        self
    }
}

impl JobPlan {
    /// A plan without installs: deduplicated while the job is active, applied immediately.
    pub fn new(key: &str) -> Self {
        JobPlan {
            key: key.into(),
            dedupe: Dedupe::WhileActive,
            context: Vec::new(),
            installs: Vec::new(),
            apply: Apply::Immediately,
        }
    }

    /// Correlation data, written as JSON; at most 4 KiB.
    ///
    /// # Panics
    /// When the value has no JSON form (a map with keys that are no strings).
    pub fn context(mut self, value: &impl Serialize) -> Self {
        self.context = write_json(value);
        self
    }

    /// Adds an install.
    pub fn install(mut self, install: Install) -> Self {
        self.installs.push(install);
        self
    }

    /// Keeps the key taken for so many milliseconds after the job's end.
    pub fn lasting(mut self, milliseconds: u64) -> Self {
        self.dedupe = Dedupe::Lasting(milliseconds);
        self
    }

    /// Stops at `prepared` until `apply-job`.
    pub fn when_told(mut self) -> Self {
        self.apply = Apply::WhenTold;
        self
    }

    /// The effect that asks for it.
    pub fn start(self) -> Effect {
        Effect::StartJob(self)
    }
}

impl Fetch {
    /// Adds a header; the name is lower case.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push(Field {
            name: name.into(),
            value: value.into(),
        });
        self
    }

    /// Sets a JSON body and its content type. Placeholders such as `{secret:name}` are filled in by the host.
    ///
    /// # Panics
    /// When the value has no JSON form (a map with keys that are no strings).
    pub fn json(mut self, value: &impl Serialize) -> Self {
        self.body = write_json(value);
        self.header("content-type", "application/json")
    }

    /// Puts the value at this JSON pointer of the answer into the link's vault under this name.
    pub fn capture(mut self, pointer: &str, secret: &str) -> Self {
        self.captures.push(Capture {
            pointer: pointer.into(),
            secret: secret.into(),
        });
        self
    }

    /// Waits so long for the answer, in milliseconds; at most 120,000.
    pub fn timeout(mut self, milliseconds: u64) -> Self {
        self.timeout = milliseconds;
        self
    }

    /// Follows so many redirects within the grant, 0 to 5.
    pub fn redirects(mut self, most: u8) -> Self {
        self.redirects = most;
        self
    }

    /// The effect, for a request that may be sent again after a failure or a crash.
    pub fn safe(mut self) -> Effect {
        self.repeat = Repeat::Safe;
        Effect::Fetch(self)
    }

    /// The effect, for a request that must never be sent twice.
    pub fn once(mut self) -> Effect {
        self.repeat = Repeat::Once;
        Effect::Fetch(self)
    }
}
