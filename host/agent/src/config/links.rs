//! `[links.<name>]`: one table for each connection, with the keys of its kind.

mod ftps;
mod http_client;
mod http_server;
mod mqtt;
pub(super) mod secret;
pub(super) mod trust;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use otahost_links::tls::ServerTrust;
use toml::de::DeValue;
use url::Url;

use super::reader::{Item, Section};
use super::{Location, Secret, schema};

/// A named connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkConfig {
    /// An MQTT broker.
    Mqtt(MqttConfig),
    /// A listener for HTTP requests.
    HttpServer(HttpServerConfig),
    /// A REST API.
    HttpClient(HttpClientConfig),
    /// An FTPS server.
    Ftps(FtpsConfig),
}

/// A listener for HTTP requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpServerConfig {
    /// Where the link stands in the file.
    pub at: Location,
    /// Address and port.
    pub listen: SocketAddr,
    /// TLS, or plain HTTP without.
    pub tls: Option<TlsIdentityConfig>,
    /// Who may call.
    pub callers: CallersConfig,
    /// Realm of the Basic challenge.
    pub realm: String,
    /// Time for an adapter's answer.
    pub answer_within: Duration,
    /// Requests a minute from one address.
    pub per_minute: u32,
    /// Requests being handled at once.
    pub parallel: u32,
}

/// What a listener shows of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsIdentityConfig {
    /// PEM file of the certificate and its chain.
    pub certificate: PathBuf,
    /// The private key in PEM.
    pub key: Secret,
}

/// Who may call a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallersConfig {
    /// Everybody who reaches the port.
    Anonymous,
    /// HTTP Basic: names and passwords.
    Basic(Vec<(String, Secret)>),
}

/// A REST API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpClientConfig {
    /// Where the link stands in the file.
    pub at: Location,
    /// Scheme, host, port and perhaps a path.
    pub url: Url,
    /// Why the server is trusted.
    pub trust: ServerTrust,
    /// Credentials of each request.
    pub auth: AuthConfig,
    /// Secrets by name.
    pub secrets: Vec<(String, Secret)>,
    /// URL prefixes outside the base that files may be redirected to, beside public addresses.
    pub redirects: Vec<String>,
    /// Limit for a connection.
    pub connect_timeout: Duration,
    /// Longest silence.
    pub idle_timeout: Duration,
}

/// Credentials of each request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthConfig {
    /// None.
    None,
    /// HTTP Basic.
    Basic {
        /// User name.
        username: Secret,
        /// Password.
        password: Secret,
    },
    /// The secret with this name as a bearer token.
    Bearer(String),
}

/// An FTPS server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FtpsConfig {
    /// Where the link stands in the file.
    pub at: Location,
    /// Host name or address.
    pub host: String,
    /// Control port.
    pub port: u16,
    /// User name.
    pub username: Secret,
    /// Password.
    pub password: Secret,
    /// The directory the link is confined to.
    pub directory: String,
    /// Why the server is trusted.
    pub trust: ServerTrust,
    /// Limit for a connection.
    pub connect_timeout: Duration,
    /// Longest silence.
    pub idle_timeout: Duration,
}

/// An MQTT broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MqttConfig {
    /// Where the link stands in the file.
    pub at: Location,
    /// `mqtt://host:port` or `mqtts://host:port`; the port may be missing.
    pub url: String,
    /// MQTT client id.
    pub client_id: String,
    /// MQTT user name.
    pub username: Option<String>,
    /// MQTT password.
    pub password: Option<Secret>,
    /// PEM file of the authorities to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// MQTT keep-alive; whole seconds.
    pub keep_alive: Duration,
    /// Pause after the first failed connection.
    pub backoff_first: Duration,
    /// The longest pause.
    pub backoff_max: Duration,
}

pub(super) fn read(root: &Section<'_>, device_id: &str) -> BTreeMap<String, LinkConfig> {
    let mut links = BTreeMap::new();
    for (name, item) in root
        .get("links")
        .map(|l| l.named("[links.cloud]"))
        .unwrap_or_default()
    {
        let Some(link) = link(&item, name, device_id) else {
            continue;
        };
        if let Some((fault, advice)) = twin(&links, &link) {
            item.reader.fault(&item.key_at, &item.path, fault, advice);
        }
        links.insert(name.to_owned(), link);
    }
    links
}

fn link(item: &Item<'_>, name: &str, device_id: &str) -> Option<LinkConfig> {
    let kind = item.value.as_table().and_then(|t| t.get("kind"));
    let kind = kind.and_then(|k| match k.get_ref() {
        DeValue::String(word) => Some(word.as_ref()),
        _ => None,
    });
    match kind {
        Some("http_server") => {
            let section = item.section(&schema::HTTP_SERVER)?;
            http_server::read(&section).map(LinkConfig::HttpServer)
        }
        Some("http_client") => {
            let section = item.section(&schema::HTTP_CLIENT)?;
            http_client::read(&section).map(LinkConfig::HttpClient)
        }
        Some("ftps") => {
            let section = item.section(&schema::FTPS)?;
            ftps::read(&section).map(LinkConfig::Ftps)
        }
        Some("mqtt") | None => {
            // One without a kind is read like the most usual: its other faults are told as well.
            let section = item.section(&schema::LINK)?;
            section
                .require("kind", "a link has to say what is spoken on it")?
                .string()?;
            mqtt::read(&section, name, device_id).map(LinkConfig::Mqtt)
        }
        Some(_) => {
            let entries = item.entries("");
            if let Some((_, kind)) = entries.iter().find(|(name, _)| *name == "kind") {
                kind.fault(
                    "this kind of link is not known",
                    "this version of otahost knows `mqtt`, `http_server`, `http_client` and `ftps`",
                );
            }
            None
        }
    }
}

/// What is wrong with two links that get in each other's way.
fn twin(links: &BTreeMap<String, LinkConfig>, link: &LinkConfig) -> Option<(String, &'static str)> {
    links.iter().find_map(|(twin, other)| match (other, link) {
        (LinkConfig::Mqtt(a), LinkConfig::Mqtt(b)) if a.url == b.url && a.client_id == b.client_id => Some((
            format!("has the broker and the client id of `links.{twin}`: the broker would close one connection for the other, for ever"),
            "give one of them another `client_id`",
        )),
        (LinkConfig::HttpServer(a), LinkConfig::HttpServer(b)) if a.listen == b.listen => Some((
            format!("listens where `links.{twin}` does"),
            "give one of them another port, or put both adapters' routes on one link",
        )),
        _ => None,
    })
}

/// `connect_timeout` and `idle_timeout`.
fn waits(section: &Section<'_>) -> (Duration, Duration) {
    let range = Duration::from_secs(1)..=Duration::from_secs(3_600);
    (
        section.duration("connect_timeout", range.clone()),
        section.duration("idle_timeout", range),
    )
}

/// `None` when the key is there and faulty; `Some(None)` when it is not there.
pub(super) fn lift<T>(read: Option<Option<T>>) -> Option<Option<T>> {
    match read {
        None => Some(None),
        Some(read) => read.map(Some),
    }
}
