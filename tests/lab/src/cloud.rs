//! A cloud that speaks DJI's side of `ota_create`/`ota_progress` over MQTT, by the book.
//!
//! It answers what a cloud answers (`status_reply`, `events_reply`), sends commands with DJI's retry rule, correlates replies by tid
//! *and* bid, and judges every message it gets; what breaks a rule is in [`violations`](Cloud::violations), and a test ends by
//! looking there. One difference from the book: replies go at QoS 1, not 2, which a device that subscribes at QoS 1 cannot tell.
//!
//! Every call blocks; from async code call it on a blocking thread.

mod book;
mod session;

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rumqttc::{AsyncClient, MqttOptions, PublishOptions};
use serde_json::{Value, json};

use crate::ids::{hex, uuid};
use book::Book;
use session::Session;

/// How long DJI's cloud waits for a reply before it sends again.
pub const REPLY_TIMEOUT: Duration = Duration::from_millis(3000);
/// How often DJI's cloud sends a command in all.
pub const SENDS: usize = 3;
/// The largest packet that it takes or sends.
const LARGEST_PACKET: usize = 2 * 1024 * 1024;
/// How long `connect` waits for its subscriptions.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two attempts to connect.
const RECONNECT: Duration = Duration::from_millis(50);

/// What names a message: one transaction, and the business it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Ids {
    /// One request and its reply.
    pub tid: String,
    /// One business over many transactions.
    pub bid: String,
}

impl Ids {
    /// New ones.
    pub fn fresh() -> Self {
        Ids {
            tid: uuid(),
            bid: uuid(),
        }
    }
}

/// How an update stands, in the protocol's eight words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// The command was taken.
    Sent,
    /// It goes on.
    InProgress,
    /// It will go on later.
    Paused,
    /// The end: the new version runs.
    Ok,
    /// The end: never begun.
    Rejected,
    /// The end.
    Failed,
    /// The end.
    Canceled,
    /// The end.
    Timeout,
}

impl Status {
    const WORDS: [(Status, &'static str); 8] = [
        (Status::Sent, "sent"),
        (Status::InProgress, "in_progress"),
        (Status::Paused, "paused"),
        (Status::Ok, "ok"),
        (Status::Rejected, "rejected"),
        (Status::Failed, "failed"),
        (Status::Canceled, "canceled"),
        (Status::Timeout, "timeout"),
    ];

    fn from_value(value: &Value) -> Option<Self> {
        let word = value.as_str()?;
        Status::WORDS
            .iter()
            .find(|(_, known)| *known == word)
            .map(|(status, _)| *status)
    }

    /// True where nothing comes after it.
    pub fn is_terminal(self) -> bool {
        !matches!(self, Status::Sent | Status::InProgress | Status::Paused)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = Status::WORDS
            .iter()
            .find(|(status, _)| status == self)
            .map_or("?", |(_, word)| word);
        f.write_str(word)
    }
}

/// The answer to a command.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// Those of the command.
    pub ids: Ids,
    /// 0, or an error code.
    pub result: i64,
    /// How the update stands, where the answer says so.
    pub status: Option<Status>,
    /// The whole message.
    pub message: Value,
}

/// One `ota_progress`.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// Its own tid, the update's bid.
    pub ids: Ids,
    /// How the update stands.
    pub status: Status,
    /// Of the whole update.
    pub percent: u8,
    /// 0, or an error code.
    pub result: i64,
    /// `download_firmware` or `upgrade_firmware`.
    pub step_key: String,
    /// The vendor's finer word; empty where there is none.
    pub sub_status: String,
    /// The whole message.
    pub message: Value,
}

/// How an update ended. The same result sent again counts as a copy; another tid is another result.
#[derive(Debug, Clone, PartialEq)]
pub struct TerminalResult {
    /// The event that said so.
    pub progress: Progress,
    /// How often it came, at least 1.
    pub copies: usize,
}

/// Why the cloud has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CloudError {
    /// What was waited for did not come.
    #[error("the cloud waited {waited:?} for {what}")]
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
    #[error("the cloud's MQTT client: {0}")]
    Client(String),
}

type Callback = Box<dyn FnMut(&Progress) + Send>;

/// The cloud, connected to a broker on 127.0.0.1. It disconnects when dropped.
pub struct Cloud {
    gateway: String,
    client: AsyncClient,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    callback: Mutex<Option<Callback>>,
}

#[derive(Default)]
struct State {
    book: Book,
    subscribed: usize,
    online: usize,
    replies: Vec<Reply>,
    progress: Vec<Progress>,
    results: Vec<TerminalResult>,
    firmware: Option<String>,
    osd: Option<Value>,
    received: usize,
    sent: usize,
    silent: bool,
    closing: bool,
}

impl Cloud {
    /// Connects with a persistent session of its own and subscribes. Nothing a device publishes after this returns is missed.
    ///
    /// # Errors
    /// When there is no broker, or it does not let us subscribe.
    pub fn connect(port: u16, gateway_sn: &str) -> Result<Self, CloudError> {
        let mut name = [0; 4];
        aws_lc_rs::rand::fill(&mut name)
            .map_err(|_| CloudError::Client("no random bytes".to_owned()))?;
        let mut options =
            MqttOptions::new(format!("lab-cloud-{}", hex(&name)), ("127.0.0.1", port));
        options
            .set_clean_session(false)
            .set_keep_alive(30)
            .set_max_packet_size(LARGEST_PACKET, LARGEST_PACKET);
        let (client, events) = AsyncClient::builder(options).capacity(4096).build();
        let shared = Arc::new(Shared::default());
        shared.state().book = Book::new(gateway_sn);
        let session = Session {
            gateway: gateway_sn.to_owned(),
            client: client.clone(),
            shared: Arc::clone(&shared),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| CloudError::Client(e.to_string()))?;
        let thread = thread::spawn(move || runtime.block_on(session.run(events)));
        let cloud = Cloud {
            gateway: gateway_sn.to_owned(),
            client,
            shared,
            thread: Some(thread),
        };
        cloud
            .shared
            .wait(CONNECT_TIMEOUT, "its subscriptions", |state| {
                (state.subscribed > 0).then_some(())
            })?;
        Ok(cloud)
    }

    /// Sends `ota_create` once, at QoS 1. tid, bid and timestamp of the message given are replaced by fresh ones.
    ///
    /// # Errors
    /// When the message is no object, or the client has ended.
    pub fn send_ota_create(&self, message: &Value) -> Result<Ids, CloudError> {
        let ids = Ids::fresh();
        self.send_with(message, &ids)?;
        Ok(ids)
    }

    /// The same with these ids: what was sent before can be sent again as it was.
    ///
    /// # Errors
    /// As [`send_ota_create`](Cloud::send_ota_create).
    pub fn send_with(&self, message: &Value, ids: &Ids) -> Result<(), CloudError> {
        let mut message = message.clone();
        let fields = message.as_object_mut().ok_or(CloudError::NotAnObject)?;
        fields.insert("tid".to_owned(), json!(ids.tid));
        fields.insert("bid".to_owned(), json!(ids.bid));
        fields.insert("timestamp".to_owned(), json!(now()));
        self.shared.state().book.sent(ids);
        self.send_raw(message.to_string().as_bytes())
    }

    /// Sends any bytes to the device's `services` topic.
    ///
    /// # Errors
    /// When the client has ended.
    pub fn send_raw(&self, payload: &[u8]) -> Result<(), CloudError> {
        self.shared.state().sent += 1;
        let topic = format!("thing/product/{}/services", self.gateway);
        self.publish(&topic, payload)
    }

    /// Publishes any bytes to any topic, at QoS 1: what somebody else on the broker says.
    ///
    /// # Errors
    /// When the client has ended.
    pub fn publish(&self, topic: &str, payload: &[u8]) -> Result<(), CloudError> {
        let (topic, payload) = (topic.to_owned(), payload.to_vec());
        let sent = self
            .client
            .try_publish(topic, payload, PublishOptions::at_least_once());
        sent.map_err(|e| CloudError::Client(e.to_string()))
    }

    /// Sends `ota_create` by DJI's rule: three times at most, with fresh ids, 3 s apart, until a reply comes. Gives the ids that were
    /// answered and the reply.
    ///
    /// # Errors
    /// When no reply comes to any of them.
    pub fn send_with_retries(&self, message: &Value) -> Result<Reply, CloudError> {
        let mut last = CloudError::NotAnObject;
        for _ in 0..SENDS {
            let ids = self.send_ota_create(message)?;
            match self.await_reply(&ids, REPLY_TIMEOUT) {
                Ok(reply) => return Ok(reply),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Waits for the reply to this command: same tid and same bid.
    ///
    /// # Errors
    /// When it does not come in time.
    pub fn await_reply(&self, ids: &Ids, timeout: Duration) -> Result<Reply, CloudError> {
        self.shared.wait(timeout, "a reply", |state| {
            state
                .replies
                .iter()
                .find(|reply| reply.ids == *ids)
                .cloned()
        })
    }

    /// Waits for the last event of this business.
    ///
    /// # Errors
    /// When it does not come in time.
    pub fn await_terminal(&self, bid: &str, timeout: Duration) -> Result<Progress, CloudError> {
        self.await_progress(bid, timeout, |progress| progress.status.is_terminal())
    }

    /// Waits for an event of this business that answers to `what`; earlier ones count.
    ///
    /// # Errors
    /// When it does not come in time.
    pub fn await_progress(
        &self,
        bid: &str,
        timeout: Duration,
        what: impl Fn(&Progress) -> bool,
    ) -> Result<Progress, CloudError> {
        let wanted = |state: &State| {
            state
                .progress
                .iter()
                .find(|progress| progress.ids.bid == bid && what(progress))
                .cloned()
        };
        self.shared.wait(timeout, "an event of the update", wanted)
    }

    /// Waits until the device has announced itself (`update_topo`) this often in all.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn await_online(&self, count: usize, timeout: Duration) -> Result<(), CloudError> {
        self.shared
            .wait(timeout, "the device to come online", |state| {
                (state.online >= count).then_some(())
            })
    }

    /// Waits until the device's `state` says that this version runs.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn await_firmware(&self, version: &str, timeout: Duration) -> Result<(), CloudError> {
        let what = format!("firmware_version {version} in the device's state");
        self.shared.wait(timeout, &what, |state| {
            (state.firmware.as_deref() == Some(version)).then_some(())
        })
    }

    /// Every `ota_progress` so far, in order, copies included.
    pub fn events(&self) -> Vec<Progress> {
        self.shared.state().progress.clone()
    }

    /// Every reply so far, in order, copies included.
    pub fn replies(&self) -> Vec<Reply> {
        self.shared.state().replies.clone()
    }

    /// The results that differ, and how often each came.
    pub fn results(&self) -> Vec<TerminalResult> {
        self.shared.state().results.clone()
    }

    /// The version the device said last in its `state`.
    pub fn firmware_version(&self) -> Option<String> {
        self.shared.state().firmware.clone()
    }

    /// The data of the last `osd`.
    pub fn osd(&self) -> Option<Value> {
        self.shared.state().osd.clone()
    }

    /// How often the device has announced itself.
    pub fn announcements(&self) -> usize {
        self.shared.state().online
    }

    /// Messages received and sent, replies and telemetry included.
    pub fn messages(&self) -> (usize, usize) {
        let state = self.shared.state();
        (state.received, state.sent)
    }

    /// What the device did against the book, a sentence each, with its topic.
    pub fn violations(&self) -> Vec<String> {
        self.shared.state().book.violations()
    }

    /// From now on no `events_reply` is sent (or again), as when the cloud is down: the device has to send its last event again.
    pub fn withhold_replies(&self, silent: bool) {
        self.shared.state().silent = silent;
    }

    /// Calls this for every `ota_progress`, on the cloud's own thread; it must not block. Replaces the former one.
    pub fn on_event(&self, callback: impl FnMut(&Progress) + Send + 'static) {
        *lock(&self.shared.callback) = Some(Box::new(callback));
    }
}

impl fmt::Debug for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cloud")
            .field("gateway", &self.gateway)
            .finish_non_exhaustive()
    }
}

impl Drop for Cloud {
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
        lock(&self.state)
    }

    fn wait<T>(
        &self,
        timeout: Duration,
        what: &str,
        mut look: impl FnMut(&State) -> Option<T>,
    ) -> Result<T, CloudError> {
        let deadline = Instant::now() + timeout;
        let mut state = self.state();
        loop {
            if let Some(found) = look(&state) {
                return Ok(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(CloudError::Timeout {
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

impl State {
    fn note(&mut self, progress: &Progress) {
        self.progress.push(progress.clone());
        if !progress.status.is_terminal() {
            return;
        }
        let same = |result: &&mut TerminalResult| {
            result.progress.ids == progress.ids && result.progress.status == progress.status
        };
        match self.results.iter_mut().find(same) {
            Some(result) => result.copies += 1,
            None => self.results.push(TerminalResult {
                progress: progress.clone(),
                copies: 1,
            }),
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
