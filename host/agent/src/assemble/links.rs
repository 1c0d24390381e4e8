//! From a link's table to the link.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use otahost_links::Link;
use otahost_links::ftps::{FtpsLink, FtpsOptions};
use otahost_links::http_client::{Auth, HttpClient, HttpClientOptions};
use otahost_links::http_server::{Callers, HttpServer, HttpServerOptions, Identity};
use otahost_links::mqtt::{MqttLink, MqttOptions};
use url::Url;

use crate::alerts::{Sink, Way};
use crate::config::{
    AlertWay, AuthConfig, CallersConfig, Config, Finding, FtpsConfig, HttpClientConfig,
    HttpServerConfig, LinkConfig, Location, MqttConfig,
};
use crate::platform::AdapterSetup;
use crate::sources::Files;
use crate::wants::clashes;

/// The links of a configuration.
#[derive(Debug, Default)]
pub(super) struct Links {
    pub(super) links: BTreeMap<String, Arc<dyn Link>>,
    /// Those that give files.
    pub(super) files: BTreeMap<String, Files>,
}

/// Makes the links; nothing is connected yet.
pub(super) fn make(config: &Config, findings: &mut Vec<Finding>) -> Links {
    let mut made = Links::default();
    for (name, link) in &config.links {
        let (at, link) = match link {
            LinkConfig::Mqtt(c) => (c.at, mqtt(c).map(|l| Arc::new(l) as Arc<dyn Link>)),
            LinkConfig::HttpServer(c) => {
                (c.at, http_server(c).map(|l| Arc::new(l) as Arc<dyn Link>))
            }
            LinkConfig::HttpClient(c) => (
                c.at,
                http_client(c).map(|l| {
                    made.files.insert(name.clone(), Files::Http(l.clone()));
                    Arc::new(l) as Arc<dyn Link>
                }),
            ),
            LinkConfig::Ftps(c) => (
                c.at,
                ftps(c).map(|l| {
                    let link = Arc::new(l);
                    made.files.insert(name.clone(), Files::Ftps(link.clone()));
                    link as Arc<dyn Link>
                }),
            ),
        };
        match link {
            Ok(link) => {
                made.links.insert(name.clone(), link);
            }
            Err(what) => findings.push(Finding::error(
                Some(at),
                format!("links.{name}"),
                what,
                "mend the link's table",
            )),
        }
    }
    made
}

/// What adapters want of links that cannot give it, or want of the same route.
pub(super) fn check(
    adapters: &[AdapterSetup],
    at: impl Fn(&str) -> Option<Location>,
    links: &Links,
    findings: &mut Vec<Finding>,
) {
    for (index, adapter) in adapters.iter().enumerate() {
        let before = adapters.iter().take(index);
        let before = before.map(|other| (other.name.as_str(), &other.requirements));
        let kind = |link: &str| links.links.get(link).map(|link| link.kind());
        for clash in clashes(&adapter.name, &adapter.requirements, before, kind) {
            let key = format!("adapters.{}.config", adapter.name);
            let at = at(&adapter.name);
            findings.push(Finding::error(at, key, clash.what, clash.advice));
        }
    }
}

/// The sinks of alerts.
pub(super) fn sinks(config: &Config, findings: &mut Vec<Finding>) -> Vec<Sink> {
    let mut sinks = Vec::new();
    for (name, sink) in &config.alerts {
        let way = match &sink.way {
            AlertWay::Command(command) => Ok(Way::Command(command.clone())),
            AlertWay::Webhook { client, path } => {
                http_client(client).map(|client| Way::Webhook(client, path.clone()))
            }
        };
        match way {
            Ok(way) => sinks.push(Sink {
                name: name.clone(),
                level: sink.level,
                way,
            }),
            Err(what) => findings.push(Finding::error(
                Some(sink.at),
                format!("alerts.{name}"),
                what,
                "mend the sink's table",
            )),
        }
    }
    sinks
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|e| format!("{} cannot be read: {e}", path.display()))
}

fn mqtt(config: &MqttConfig) -> Result<MqttLink, String> {
    let url = Url::parse(&config.url).map_err(|e| format!("`url` is no URL: {e}"))?;
    let mut options = MqttOptions::new(url, config.client_id.clone());
    options.username.clone_from(&config.username);
    options.password = config
        .password
        .as_ref()
        .map(|p| p.reveal().as_bytes().to_vec());
    options.ca_pem = config.ca.as_deref().map(read).transpose()?;
    options.keep_alive = config.keep_alive;
    options.backoff_first = config.backoff_first;
    options.backoff_max = config.backoff_max;
    MqttLink::new(options).map_err(|e| e.to_string())
}

fn http_server(config: &HttpServerConfig) -> Result<HttpServer, String> {
    let tls = match &config.tls {
        None => None,
        Some(identity) => Some(Identity {
            certificate: read(&identity.certificate)?,
            key: identity.key.clone(),
        }),
    };
    let callers = match &config.callers {
        CallersConfig::Anonymous => Callers::Anonymous,
        CallersConfig::Basic(users) => Callers::Basic(users.clone()),
    };
    let mut options = HttpServerOptions::new(config.listen, callers);
    options.tls = tls;
    options.realm.clone_from(&config.realm);
    options.answer_within = config.answer_within;
    options.per_minute = config.per_minute;
    options.parallel = usize::try_from(config.parallel).unwrap_or(usize::MAX);
    HttpServer::new(options).map_err(|e| e.to_string())
}

fn http_client(config: &HttpClientConfig) -> Result<HttpClient, String> {
    HttpClient::new(HttpClientOptions {
        url: config.url.clone(),
        trust: config.trust.clone(),
        auth: match &config.auth {
            AuthConfig::None => Auth::None,
            AuthConfig::Basic { username, password } => Auth::Basic {
                username: username.clone(),
                password: password.clone(),
            },
            AuthConfig::Bearer(name) => Auth::Bearer(name.clone()),
        },
        secrets: config.secrets.clone(),
        connect_timeout: config.connect_timeout,
        idle_timeout: config.idle_timeout,
        redirects: config.redirects.clone(),
    })
    .map_err(|e| e.to_string())
}

fn ftps(config: &FtpsConfig) -> Result<FtpsLink, String> {
    FtpsLink::new(FtpsOptions {
        host: config.host.clone(),
        port: config.port,
        username: config.username.clone(),
        password: config.password.clone(),
        directory: config.directory.clone(),
        trust: config.trust.clone(),
        connect_timeout: config.connect_timeout,
        idle_timeout: config.idle_timeout,
    })
    .map_err(|e| e.to_string())
}
