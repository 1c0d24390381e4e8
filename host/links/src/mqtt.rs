//! MQTT 3.1.1, so that a command reaches the agent and its answer reaches the cloud over a network that fails all the time.
//!
//! The client crate leaves to its user what a device cannot do without (shared facts on MQTT clients in the field): back-off,
//! subscribing again, knowing what was delivered. The rules here:
//!
//! - **One connection, one client.** Every connection gets a fresh client state. What was queued or in flight on the last one is
//!   forgotten on purpose: the agent's durable outbox sends it again after `Up`, so nothing is replayed by two parties.
//! - **The session is the broker's.** Fixed client id, `clean_session = false`, acknowledgements only when the agent says so and
//!   in the order of receipt, so that the broker is the inbox. All filters are subscribed again at every CONNACK.
//! - **No busy loop.** Waits double from 1 s to 120 s, each drawn evenly from zero to the limit, back to the start after 60 s up.
//! - **No poison.** A message over the packet limit ends a connection and comes back with the session. The same size twice in a
//!   row: one connection with `clean_session = true` empties the session, and a warning says so.
//! - **No deadlock.** The client's event loop runs in a task of its own; all channels are bounded; a slow agent slows the reading.

mod acks;
mod backoff;
mod connection;
mod driver;
mod names;
mod silence;
mod subscriptions;

use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

use rumqttc::{TlsConfiguration, Transport};
use tokio::sync::mpsc;
use url::Url;

use crate::tls::{ServerTrust, Versions, client_config};
use crate::{Kind, Link, LinkCommand, LinkEvent};

/// Largest payload, in bytes, in both directions.
pub const MAX_PAYLOAD: usize = 256 * 1024;

/// Largest packet: the payload, the longest topic MQTT knows, and the headers.
const MAX_PACKET: usize = MAX_PAYLOAD + 65_535 + 16;

/// Publications in flight at once; the rest waits here in order.
const WINDOW: usize = 8;

/// Commands taken ahead of what the connection can do.
const COMMANDS: usize = 64;

/// How to reach one broker. `Debug` shows neither user name nor password.
#[derive(Clone)]
pub struct MqttOptions {
    /// `mqtt://host:port` (port 1883 unless given) or `mqtts://host:port` (8883). No path, no credentials in it.
    pub url: Url,
    /// The session's name at the broker: fixed for the life of the device, not empty.
    pub client_id: String,
    /// User name, where the broker wants one.
    pub username: Option<String>,
    /// Password; needs a user name.
    pub password: Option<Vec<u8>>,
    /// PEM certificates to trust for `mqtts`; without them the platform's.
    pub ca_pem: Option<Vec<u8>>,
    /// Silence after which the broker is asked whether it is there, and how long it may take to answer, in whole seconds from 1 to 65,535.
    /// Default 30 s.
    pub keep_alive: Duration,
    /// Limit for TCP, TLS and CONNACK together, and for a SUBACK; in whole seconds, at least 1. Default 10 s.
    pub connect_timeout: Duration,
    /// Upper bound of the first wait before a new connection. Default 1 s.
    pub backoff_first: Duration,
    /// Upper bound of all waits. Default 120 s.
    pub backoff_max: Duration,
    /// Seed of the waits' jitter; without one it is drawn by the process.
    pub jitter_seed: Option<u64>,
}

impl MqttOptions {
    /// Options with the defaults and no credentials.
    #[must_use]
    pub fn new(url: Url, client_id: impl Into<String>) -> Self {
        Self {
            url,
            client_id: client_id.into(),
            username: None,
            password: None,
            ca_pem: None,
            keep_alive: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            backoff_first: Duration::from_secs(1),
            backoff_max: Duration::from_secs(120),
            jitter_seed: None,
        }
    }
}

impl fmt::Debug for MqttOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MqttOptions")
            .field("broker", &place(&self.url))
            .field("client_id", &self.client_id)
            .field("credentials", &self.username.is_some())
            .field("keep_alive", &self.keep_alive)
            .finish_non_exhaustive()
    }
}

/// Scheme, host and port: what of a broker's URL may be shown.
fn place(url: &Url) -> String {
    let host = url.host_str().unwrap_or("?");
    match url.port() {
        Some(port) => format!("{}://{host}:{port}", url.scheme()),
        None => format!("{}://{host}", url.scheme()),
    }
}

/// Options that can never work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The URL is not one of a broker.
    #[error("broker URL: {0}; write mqtt://HOST:PORT or mqtts://HOST:PORT")]
    Url(String),
    /// An option is out of its range.
    #[error("MQTT option {name}: {problem}")]
    Option {
        /// Which.
        name: &'static str,
        /// What is wrong and what is right.
        problem: String,
    },
    /// The certificates to trust cannot be used.
    #[error("MQTT trust: {0}")]
    Trust(String),
}

/// One broker connection, kept up.
#[derive(Debug, Clone)]
pub struct MqttLink {
    options: MqttOptions,
    /// Ready for the client, credentials included.
    client: ClientOptions,
}

/// The client crate's options, with a `Debug` that shows nothing.
#[derive(Clone)]
struct ClientOptions(rumqttc::MqttOptions);

impl fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientOptions(..)")
    }
}

impl MqttLink {
    /// Checks the options; connects nowhere yet.
    ///
    /// # Errors
    /// [`LinkError`] names the option that can never work, certificates that cannot be read included.
    pub fn new(options: MqttOptions) -> Result<Self, LinkError> {
        let client = client_options(&options)?;
        Ok(Self {
            options,
            client: ClientOptions(client),
        })
    }
}

impl Link for MqttLink {
    /// Must be called within a tokio runtime. The link ends when either channel is closed by the agent.
    fn start(&self, events: mpsc::Sender<LinkEvent>) -> mpsc::Sender<LinkCommand> {
        let (sender, commands) = mpsc::channel(COMMANDS);
        let seed = self
            .options
            .jitter_seed
            .unwrap_or_else(|| std::hash::RandomState::new().build_hasher().finish());
        let backoff =
            backoff::Backoff::new(self.options.backoff_first, self.options.backoff_max, seed);
        tokio::spawn(
            driver::Driver::new(
                self.options.clone(),
                self.client.0.clone(),
                backoff,
                events,
                commands,
            )
            .run(),
        );
        sender
    }

    fn kind(&self) -> Kind {
        Kind::Mqtt
    }
}

fn client_options(options: &MqttOptions) -> Result<rumqttc::MqttOptions, LinkError> {
    let url = &options.url;
    let secure = match url.scheme() {
        "mqtt" => false,
        "mqtts" => true,
        other => return Err(LinkError::Url(format!("scheme \"{other}\" is not known"))),
    };
    let host = url
        .host_str()
        .filter(|host| !host.is_empty())
        .ok_or_else(|| LinkError::Url("no host in it".into()))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(LinkError::Url(
            "credentials do not belong in it but in their own keys".into(),
        ));
    }
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return Err(LinkError::Url("it ends after the port".into()));
    }
    if secure && host.starts_with('[') {
        return Err(LinkError::Url(
            "mqtts needs a name or an IPv4 address, not an IPv6 literal".into(),
        ));
    }
    if options.client_id.is_empty()
        || options.client_id.len() > 65_535
        || options.client_id.contains('\0')
    {
        return Err(option(
            "client_id",
            "must be 1 to 65,535 bytes without NUL: the broker keeps our session by it",
        ));
    }
    let keep_alive = u16::try_from(options.keep_alive.as_secs()).unwrap_or(0);
    if keep_alive == 0 {
        return Err(option("keep_alive", "must be 1 to 65,535 seconds"));
    }
    if options.connect_timeout < Duration::from_secs(1) {
        return Err(option("connect_timeout", "must be at least 1 second"));
    }
    if options.backoff_first.is_zero() || options.backoff_first > options.backoff_max {
        return Err(option(
            "backoff_first",
            "must be over zero and at most backoff_max",
        ));
    }
    let port = url.port().unwrap_or(if secure { 8883 } else { 1883 });
    let mut client = rumqttc::MqttOptions::new(options.client_id.clone(), (host, port));
    client.set_keep_alive(keep_alive);
    client.set_max_packet_size(MAX_PACKET, MAX_PACKET);
    client.set_clean_session(false);
    client.set_ack_mode(rumqttc::AckMode::Manual);
    client.set_inflight(u16::try_from(WINDOW).expect("a small window"));
    client.set_request_channel_capacity(COMMANDS);
    // Packets read ahead of the agent; each may be as large as the limit.
    client.set_read_batch_size(4);
    match (&options.username, &options.password) {
        (Some(user), Some(password)) => {
            client.set_credentials(user.clone(), password.clone());
        }
        (Some(user), None) => {
            client.set_username(user.clone());
        }
        (None, Some(_)) => return Err(option("password", "needs a user name beside it")),
        (None, None) => {}
    }
    if secure {
        let trust = match &options.ca_pem {
            Some(pem) => ServerTrust::Ca(pem.clone()),
            None => ServerTrust::System,
        };
        let tls = client_config(&trust, Versions::Both).map_err(LinkError::Trust)?;
        client.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(tls)));
    } else if options.ca_pem.is_some() {
        return Err(option(
            "ca_pem",
            "is of no use with mqtt://; write mqtts://",
        ));
    }
    Ok(client)
}

fn option(name: &'static str, problem: &str) -> LinkError {
    LinkError::Option {
        name,
        problem: problem.into(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn options(url: &str) -> MqttOptions {
        MqttOptions::new(url.parse().unwrap(), "gw-7")
    }

    #[test]
    fn options_that_can_never_work_are_refused_with_the_reason() {
        let long = Duration::from_secs(70_000);
        let cases: [(MqttOptions, &str); 11] = [
            (options("http://host:1"), "scheme"),
            (options("mqtt:host"), "no host"),
            (options("mqtt://joe:pw@host:1"), "credentials"),
            (options("mqtt://host:1/path"), "ends after the port"),
            (options("mqtts://[::1]:8883"), "IPv6"),
            (
                MqttOptions {
                    client_id: String::new(),
                    ..options("mqtt://host")
                },
                "client_id",
            ),
            (
                MqttOptions {
                    keep_alive: Duration::from_millis(500),
                    ..options("mqtt://host")
                },
                "keep_alive",
            ),
            (
                MqttOptions {
                    keep_alive: long,
                    ..options("mqtt://host")
                },
                "keep_alive",
            ),
            (
                MqttOptions {
                    backoff_first: long,
                    ..options("mqtt://host")
                },
                "backoff_first",
            ),
            (
                MqttOptions {
                    password: Some(b"x".to_vec()),
                    ..options("mqtt://host")
                },
                "user name",
            ),
            (
                MqttOptions {
                    ca_pem: Some(b"junk".to_vec()),
                    ..options("mqtts://host")
                },
                "no certificate",
            ),
        ];
        for (options, expected) in cases {
            let error = MqttLink::new(options).unwrap_err().to_string();
            assert!(
                error.contains(expected),
                "{error:?} does not say {expected:?}"
            );
            assert!(
                !error.contains("joe") && !error.contains("pw@"),
                "{error:?} shows credentials"
            );
        }
        assert!(MqttLink::new(options("mqtt://host")).is_ok());
    }

    #[test]
    fn debug_output_shows_no_credentials() {
        let link = MqttLink::new(MqttOptions {
            username: Some("joe-the-user".into()),
            password: Some(b"hunter2".to_vec()),
            ..options("mqtt://broker.example:1883")
        })
        .unwrap();
        let shown = format!("{link:?}");
        assert!(shown.contains("broker.example:1883"));
        assert!(
            !shown.contains("joe") && !shown.contains("hunter"),
            "{shown}"
        );
    }
}
