//! The platform of a wudun EMS: sends the four OTA commands, collects the results, and judges every message by the vendor's pages.
//!
//! It has nothing to tell the device but what a platform tells it. What breaks a rule is in [`violations`](Platform::violations), and a
//! test ends by looking there. What the EMS and the EMUs behind it look like is in [`site`].
//!
//! Every call blocks; from async code call it on a blocking thread.

mod book;
mod session;
pub mod site;

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rumqttc::{AsyncClient, MqttOptions, NetworkOptions, PublishOptions};
use serde_json::{Value, json};

use crate::ids::{hex, uuid};
use book::Book;
use session::Session;

/// The largest packet that it takes or sends.
const LARGEST_PACKET: usize = 2 * 1024 * 1024;
/// How long `connect` waits for its subscription.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two attempts to connect.
const RECONNECT: Duration = Duration::from_millis(50);
/// Publications that may wait for the broker: a platform updates all its devices in the same second.
const CAPACITY: usize = 16 * 1024;

/// The four commands of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Update the system, or a device behind it.
    Upgrade,
    /// Say what is known of every EMU.
    EmuVersion,
    /// Update one EMU.
    EmuUpgrade,
    /// Say how the update of one EMU stands.
    EmuUpgradeResult,
}

impl Kind {
    const ALL: [(Kind, &'static str, &'static str); 4] = [
        (Kind::Upgrade, "upgrade", "ota_upgrade"),
        (Kind::EmuVersion, "emu_version", "emu_version"),
        (Kind::EmuUpgrade, "emu_upgrade", "emu_upgrade"),
        (
            Kind::EmuUpgradeResult,
            "emu_upgrade_result",
            "emu_upgrade_result",
        ),
    ];

    /// Its last level but one in the topics.
    pub fn level(self) -> &'static str {
        Kind::ALL[self as usize].1
    }

    /// Its `type` in the messages.
    pub fn word(self) -> &'static str {
        Kind::ALL[self as usize].2
    }

    fn of_level(level: &str) -> Option<Self> {
        let found = Kind::ALL.iter().find(|(_, known, _)| *known == level)?;
        Some(found.0)
    }
}

/// A command that was sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Sent {
    /// What it asks for.
    pub kind: Kind,
    /// What stands before `/ota/…` in its topic.
    pub base: String,
    /// Its `mid`.
    pub mid: String,
    /// Its `trace_id`, by which results are known.
    pub trace_id: String,
    /// What it says.
    pub message: Value,
    payload: Vec<u8>,
}

/// A result.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// To which command.
    pub kind: Kind,
    /// What stands before `/ota/…` in its topic.
    pub base: String,
    /// Its own `mid`.
    pub mid: String,
    /// The `trace_id` of its command.
    pub trace_id: String,
    /// Its `data`.
    pub data: Value,
    /// The whole message.
    pub message: Value,
}

impl Answer {
    /// A whole number of `data`.
    pub fn number(&self, field: &str) -> Option<u64> {
        self.data[field].as_u64()
    }
}

/// Why the platform has no answer.
#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    /// What was waited for did not come.
    #[error("the platform waited {waited:?} for {what}")]
    Timeout {
        /// What did not come.
        what: String,
        /// How long.
        waited: Duration,
    },
    /// A command that is no JSON object.
    #[error("a command must be a JSON object")]
    NotAnObject,
    /// The MQTT client has ended.
    #[error("the platform's MQTT client: {0}")]
    Client(String),
}

/// The platform, connected to a broker on 127.0.0.1. It disconnects when dropped.
pub struct Platform {
    device_uid: String,
    client: AsyncClient,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    book: Book,
    subscribed: usize,
    closing: bool,
}

impl Platform {
    /// Connects with a persistent session of its own and subscribes to everything. Nothing a device publishes after this returns is
    /// missed, on whichever topic it may be.
    ///
    /// # Errors
    /// When there is no broker, or it does not let us subscribe.
    pub fn connect(port: u16, device_uid: &str) -> Result<Self, PlatformError> {
        let mut name = [0; 4];
        aws_lc_rs::rand::fill(&mut name)
            .map_err(|_| PlatformError::Client("no random bytes".to_owned()))?;
        let mut options =
            MqttOptions::new(format!("lab-platform-{}", hex(&name)), ("127.0.0.1", port));
        options
            .set_clean_session(false)
            .set_keep_alive(30)
            .set_max_packet_size(LARGEST_PACKET, LARGEST_PACKET);
        let (client, mut events) = AsyncClient::builder(options).capacity(CAPACITY).build();
        // Without it every publication waits for the broker's delayed acknowledgement of the last one.
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        events.set_network_options(network);
        let shared = Arc::new(Shared::default());
        shared.state().book = Book::new(device_uid);
        let session = Session {
            client: client.clone(),
            shared: Arc::clone(&shared),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| PlatformError::Client(e.to_string()))?;
        let thread = thread::spawn(move || runtime.block_on(session.run(events)));
        let platform = Platform {
            device_uid: device_uid.to_owned(),
            client,
            shared,
            thread: Some(thread),
        };
        platform
            .shared
            .wait(CONNECT_TIMEOUT, "its subscription", |state| {
                (state.subscribed > 0).then_some(())
            })?;
        Ok(platform)
    }

    /// Sends a command at QoS 1, on the topic `{base}/ota/{kind}/command`. `mid`, `trace_id`, `timestamp` and `device_uid` of the message
    /// are replaced by fresh ones.
    ///
    /// # Errors
    /// When the message is no object, or the client has ended.
    pub fn send(&self, base: &str, kind: Kind, message: &Value) -> Result<Sent, PlatformError> {
        let mut message = message.clone();
        let fields = message.as_object_mut().ok_or(PlatformError::NotAnObject)?;
        let mid = uuid();
        // As in the vendor's samples it looks like a UUID and is none.
        let trace_id = format!("{}wfg2", &uuid()[..32]);
        fields.insert("mid".to_owned(), json!(mid));
        fields.insert("trace_id".to_owned(), json!(trace_id));
        fields.insert("device_uid".to_owned(), json!(self.device_uid));
        fields.insert("timestamp".to_owned(), json!(now()));
        self.send_as(base, kind, message.to_string().as_bytes(), &message)
    }

    /// Sends these bytes, which mean this message and have its `mid` and `trace_id`.
    ///
    /// # Errors
    /// When the client has ended.
    pub fn send_as(
        &self,
        base: &str,
        kind: Kind,
        payload: &[u8],
        meaning: &Value,
    ) -> Result<Sent, PlatformError> {
        let text = |field: &str| meaning[field].as_str().unwrap_or_default().to_owned();
        let sent = Sent {
            kind,
            base: base.to_owned(),
            mid: text("mid"),
            trace_id: text("trace_id"),
            message: meaning.clone(),
            payload: payload.to_vec(),
        };
        self.send_again(&sent)?;
        Ok(sent)
    }

    /// Sends a command once more, byte for byte.
    ///
    /// # Errors
    /// When the client has ended.
    pub fn send_again(&self, sent: &Sent) -> Result<(), PlatformError> {
        self.shared.state().book.sent(sent);
        self.publish(&sent.base, sent.kind, &sent.payload, false)
    }

    /// Sends bytes that nothing may be said to.
    ///
    /// # Errors
    /// When the client has ended.
    pub fn send_raw(&self, base: &str, kind: Kind, payload: &[u8]) -> Result<(), PlatformError> {
        self.publish(base, kind, payload, false)
    }

    /// The same, to be kept by the broker and given to whoever subscribes later.
    ///
    /// # Errors
    /// When the client has ended.
    pub fn send_retained(
        &self,
        base: &str,
        kind: Kind,
        payload: &[u8],
    ) -> Result<(), PlatformError> {
        self.publish(base, kind, payload, true)
    }

    fn publish(
        &self,
        base: &str,
        kind: Kind,
        payload: &[u8],
        retain: bool,
    ) -> Result<(), PlatformError> {
        let topic = format!("{base}/ota/{}/command", kind.level());
        let options = PublishOptions::at_least_once().retain(retain);
        let sent = self.client.try_publish(topic, payload.to_vec(), options);
        sent.map_err(|e| PlatformError::Client(e.to_string()))
    }

    /// The results to a command so far, in order; the same message that came again does not count.
    pub fn answers(&self, to: &Sent) -> Vec<Answer> {
        self.shared.state().book.answers(to).to_vec()
    }

    /// Waits until there are this many results to a command, and gives all there are.
    ///
    /// # Errors
    /// When they do not come in time.
    pub fn await_answers(
        &self,
        to: &Sent,
        count: usize,
        timeout: Duration,
    ) -> Result<Vec<Answer>, PlatformError> {
        let what = format!(
            "result {count} of {} {}: there are {:?}",
            to.kind.word(),
            to.trace_id,
            self.answers(to)
        );
        self.shared.wait(timeout, &what, |state| {
            let answers = state.book.answers(to);
            (answers.len() >= count).then(|| answers.to_vec())
        })
    }

    /// Sends a command and waits for its first result.
    ///
    /// # Errors
    /// When it does not come in time.
    pub fn ask(
        &self,
        base: &str,
        kind: Kind,
        message: &Value,
        timeout: Duration,
    ) -> Result<Answer, PlatformError> {
        let sent = self.send(base, kind, message)?;
        let mut answers = self.await_answers(&sent, 1, timeout)?;
        Ok(answers.swap_remove(0))
    }

    /// How many results there are to commands of this kind, repeated ones included.
    pub fn count(&self, kind: Kind) -> usize {
        self.shared.state().book.count(kind)
    }

    /// Waits until there are so many.
    ///
    /// # Errors
    /// When they do not come in time.
    pub fn await_count(
        &self,
        kind: Kind,
        count: usize,
        timeout: Duration,
    ) -> Result<(), PlatformError> {
        let what = format!("{count} results of {}", kind.word());
        self.shared.wait(timeout, &what, |state| {
            (state.book.count(kind) >= count).then_some(())
        })
    }

    /// What the device did against the vendor's pages, a sentence each, with its topic.
    pub fn violations(&self) -> Vec<String> {
        self.shared.state().book.violations()
    }
}

/// The vendor's `ota/upgrade` for this `source`.
pub fn ota_upgrade(source: &str, url: &str, md5: &str) -> Value {
    let mut message = sample(include_str!("../fixtures/wudun_ota_upgrade.json"));
    message["data"] = json!({ "source": source, "download_url": url, "md5_code": md5 });
    message
}

/// The vendor's `ota/emu_upgrade` for this EMU.
pub fn emu_upgrade(sub_device_id: i64, url: &str, md5: &str) -> Value {
    let mut message = sample(include_str!("../fixtures/wudun_emu_upgrade.json"));
    message["sub_device_id"] = json!(sub_device_id);
    message["data"] = json!({ "download_url": url, "md5_code": md5 });
    message
}

/// The vendor's `ota/emu_upgrade_result` for this EMU.
pub fn emu_upgrade_result(sub_device_id: i64) -> Value {
    let mut message = sample(include_str!("../fixtures/wudun_emu_upgrade_result.json"));
    message["sub_device_id"] = json!(sub_device_id);
    message
}

/// The vendor's `ota/emu_version`.
pub fn emu_version() -> Value {
    sample(include_str!("../fixtures/wudun_emu_version.json"))
}

fn sample(text: &str) -> Value {
    serde_json::from_str(text).expect("the fixture is JSON")
}

impl fmt::Debug for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Platform")
            .field("device_uid", &self.device_uid)
            .finish_non_exhaustive()
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        self.shared.state().closing = true;
        // With a full channel the thread ends at its next event instead; it is not waited for then.
        if self.client.try_disconnect_now().is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<T>(
        &self,
        timeout: Duration,
        what: &str,
        mut look: impl FnMut(&State) -> Option<T>,
    ) -> Result<T, PlatformError> {
        let deadline = Instant::now() + timeout;
        let mut state = self.state();
        loop {
            if let Some(found) = look(&state) {
                return Ok(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(PlatformError::Timeout {
                    what: what.to_owned(),
                    waited: timeout,
                });
            }
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

/// Milliseconds since the Unix epoch.
fn now() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or_default()
}
