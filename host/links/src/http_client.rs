//! A REST API the agent calls: small requests for adapters, files behind its redirects, and the vault of its secrets.
//!
//! Adapters describe requests and never see a credential. So everything that could show one is here: placeholders are filled just
//! before a request leaves, values an adapter named are cut from the answer, and every known secret is scrubbed from all that comes
//! back, errors included. Our `Authorization` goes to the API's own origin (scheme, host and port) and nowhere else: object stores
//! refuse a request with two authentications, and others would learn our token.
//!
//! A token that the server replaces at every use is lost when it is used twice. A request that captures secrets is therefore alone
//! with them, from its start until the agent has made the new values durable ([`crate::LinkCommand::Kept`]): whatever else uses one
//! of them waits, and goes on with the new value.
//!
//! No cookies, no proxy from the environment, no compression, one connection per request.

mod answer;
mod fetch;
mod files;
mod gate;
mod request;
mod run;
mod vault;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use otahost_core::paths;
use otahost_core::secret::Secret;
use reqwest::Client;
use tokio::sync::mpsc;
use url::Url;

use crate::http::{TlsFor, USER_AGENT};
use crate::tls::{ServerTrust, Versions, client_config};
use crate::{Kind, Link, LinkCommand, LinkEvent};
use gate::Gate;
use vault::Vault;

/// Commands waiting for the link.
const COMMANDS: usize = 64;

/// Credentials a link adds to each request to its own origin.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Auth {
    /// None.
    #[default]
    None,
    /// HTTP Basic.
    Basic {
        /// User name.
        username: Secret,
        /// Password.
        password: Secret,
    },
    /// `Authorization: Bearer` with the vault's secret of this name.
    Bearer(String),
}

/// How to reach one API.
#[derive(Debug, Clone)]
pub struct HttpClientOptions {
    /// Base: scheme, host, port and perhaps a path that is put before every request's path.
    pub url: Url,
    /// Why the server is trusted. A server that a redirect of a file leads to is trusted by the system's authorities, or by the
    /// ones named here where `redirects` names it.
    pub trust: ServerTrust,
    /// Credentials.
    pub auth: Auth,
    /// Secrets of the configuration, by name. What was captured under the same name comes before them.
    pub secrets: Vec<(String, Secret)>,
    /// Limit for name look-up, TCP and TLS. Default 10 s.
    pub connect_timeout: Duration,
    /// Longest silence. Default 30 s.
    pub idle_timeout: Duration,
    /// URL prefixes outside the base that redirects of files may lead to beside public addresses (tests, private object stores).
    pub redirects: Vec<String>,
}

impl HttpClientOptions {
    /// Options with the defaults: no credentials, no secrets.
    #[must_use]
    pub fn new(url: Url) -> Self {
        Self {
            url,
            trust: ServerTrust::default(),
            auth: Auth::default(),
            secrets: Vec::new(),
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
            redirects: Vec::new(),
        }
    }
}

/// The link can never work as it is configured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The URL is not one of an API.
    #[error("API URL: {0}; write http://HOST[:PORT][/PATH] or https://HOST[:PORT][/PATH]")]
    Url(String),
    /// An option cannot be used.
    #[error("http_client option {name}: {problem}")]
    Option {
        /// Which.
        name: &'static str,
        /// What is wrong and what is right.
        problem: String,
    },
    /// The certificates to trust cannot be used.
    #[error("http_client trust: {0}")]
    Trust(String),
}

/// One API. Clones are the same link.
#[derive(Clone)]
pub struct HttpClient(Arc<Shared>);

/// What requests, files and the link's own task share.
struct Shared {
    options: HttpClientOptions,
    /// For requests; files make their own, whose addresses are pinned.
    client: Client,
    /// Trust by URL, for files.
    tls: TlsFor,
    gate: Arc<Gate>,
    vault: Vault,
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient")
            .field("place", &self.place())
            .finish_non_exhaustive()
    }
}

impl HttpClient {
    /// Checks the options; connects nowhere yet.
    ///
    /// # Errors
    /// [`LinkError`] names the option that can never work.
    pub fn new(options: HttpClientOptions) -> Result<Self, LinkError> {
        check(&options)?;
        let tls = trust(&options)?;
        let builder = Client::builder()
            .user_agent(USER_AGENT)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .no_proxy()
            .http1_only()
            // A connection that was kept may be dead, and a request that must not be sent twice would be the one to learn it.
            .pool_max_idle_per_host(0)
            .connect_timeout(options.connect_timeout);
        let client = if options.url.scheme() == "https" {
            let config = tls(&options.url).map_err(LinkError::Trust)?;
            builder.tls_backend_preconfigured((*config).clone())
        } else {
            builder.tls_certs_only([])
        }
        .build()
        .map_err(|error| LinkError::Trust(crate::http::describe(error)))?;
        let vault = Vault::new(&options);
        Ok(Self(Arc::new(Shared {
            options,
            client,
            tls,
            gate: Arc::new(Gate::default()),
            vault,
        })))
    }
}

impl Link for HttpClient {
    /// Must be called within a tokio runtime. The link ends when either channel is closed by the agent; requests that run are given
    /// up then. Starts with the secrets of the configuration only, again too.
    fn start(&self, events: mpsc::Sender<LinkEvent>) -> mpsc::Sender<LinkCommand> {
        let (sender, commands) = mpsc::channel(COMMANDS);
        self.0.vault.restore(Vec::new());
        tokio::spawn(run::run(Arc::clone(&self.0), events, commands));
        sender
    }

    fn kind(&self) -> Kind {
        Kind::HttpClient
    }

    /// With the secrets of the configuration in short: when the operator puts another one there, what was captured with the old one
    /// is worth nothing.
    fn place(&self) -> String {
        let options = &self.0.options;
        let mut context = digest::Context::new(&digest::SHA256);
        for (name, value) in &options.secrets {
            for part in [name.as_str(), value.reveal()] {
                context.update(&(part.len() as u64).to_be_bytes());
                context.update(part.as_bytes());
            }
        }
        let short: String = context.finish().as_ref()[..4]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!("{} {short}", options.url.origin().ascii_serialization())
    }
}

fn check(options: &HttpClientOptions) -> Result<(), LinkError> {
    let url = &options.url;
    let fault = |what: &str| Err(LinkError::Url(what.into()));
    if !matches!(url.scheme(), "http" | "https") {
        return fault("only http and https are spoken");
    }
    if url.host_str().is_none_or(str::is_empty) {
        return fault("no host in it");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return fault("credentials do not belong in it but in their own keys");
    }
    if url.query().is_some() || url.fragment().is_some() || !paths::is_plain(url.path()) {
        return fault("it ends after a plain path");
    }
    match &options.auth {
        Auth::None => {}
        Auth::Basic { username, password } => {
            let whole = |secret: &Secret| !secret.reveal().contains(char::is_control);
            if username.reveal().contains(':') || !whole(username) || !whole(password) {
                return Err(option(
                    "auth",
                    "a user name has no colon, and neither it nor the password a control character (RFC 7617)",
                ));
            }
        }
        Auth::Bearer(name) if name.is_empty() => {
            return Err(option("auth", "names no secret for the bearer token"));
        }
        Auth::Bearer(_) => {}
    }
    if options.connect_timeout.is_zero() || options.idle_timeout.is_zero() {
        return Err(option(
            "connect_timeout and idle_timeout",
            "must be over zero",
        ));
    }
    for prefix in &options.redirects {
        if !Url::parse(prefix).is_ok_and(|url| matches!(url.scheme(), "http" | "https")) {
            return Err(option(
                "redirects",
                "holds something that is no URL of http or https",
            ));
        }
    }
    Ok(())
}

fn option(name: &'static str, problem: &str) -> LinkError {
    LinkError::Option {
        name,
        problem: problem.into(),
    }
}

/// The link's own trust for its origin, and for named stores where it is an authority; the system's for everybody else.
fn trust(options: &HttpClientOptions) -> Result<TlsFor, LinkError> {
    let (base, prefixes) = (options.url.clone(), options.redirects.clone());
    let own = match (options.url.scheme(), &options.trust) {
        ("http", ServerTrust::System) => None,
        (_, trust) => Some(client_config(trust, Versions::Both).map_err(LinkError::Trust)?),
    };
    let authority = matches!(options.trust, ServerTrust::Ca(_));
    let system = options.trust == ServerTrust::System;
    Ok(Arc::new(move |url| {
        let named = authority && files::is_named(&prefixes, url);
        match &own {
            Some(own) if system || named || url.origin() == base.origin() => Ok(Arc::clone(own)),
            _ => client_config(&ServerTrust::System, Versions::Both),
        }
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn options(url: &str) -> HttpClientOptions {
        HttpClientOptions::new(url.parse().unwrap())
    }

    #[test]
    fn options_that_can_never_work_are_refused_with_the_reason() {
        let basic = |username: &str| Auth::Basic {
            username: Secret::new(username),
            password: Secret::new("hush"),
        };
        let cases = [
            (options("ftp://host/"), "only http and https"),
            (options("http://joe:hush@host/"), "credentials"),
            (options("http://host/?hush=1"), "plain path"),
            (options("http://host/#hush"), "plain path"),
            (options("http://host/a//b"), "plain path"),
            (
                HttpClientOptions {
                    auth: basic("jo:hush"),
                    ..options("http://host/")
                },
                "colon",
            ),
            (
                HttpClientOptions {
                    auth: Auth::Bearer(String::new()),
                    ..options("http://host/")
                },
                "bearer",
            ),
            (
                HttpClientOptions {
                    idle_timeout: Duration::ZERO,
                    ..options("http://host/")
                },
                "idle_timeout",
            ),
            (
                HttpClientOptions {
                    redirects: vec!["store".into()],
                    ..options("http://host/")
                },
                "redirects",
            ),
            (
                HttpClientOptions {
                    trust: ServerTrust::Ca(b"junk".to_vec()),
                    ..options("https://host/")
                },
                "trust",
            ),
        ];
        for (options, expected) in cases {
            let error = HttpClient::new(options).unwrap_err().to_string();
            assert!(
                error.contains(expected),
                "{error:?} does not say {expected:?}"
            );
            assert!(!error.contains("hush"), "{error}");
        }
        for url in ["http://host", "http://host:81/api/v1/", "http://[::1]/"] {
            assert!(HttpClient::new(options(url)).is_ok(), "{url}");
        }
    }

    #[test]
    fn debug_output_shows_no_credentials() {
        let link = HttpClient::new(HttpClientOptions {
            auth: Auth::Basic {
                username: Secret::new("joe-the-user"),
                password: Secret::new("hush-hush"),
            },
            secrets: vec![("pin".into(), Secret::new("hush-too"))],
            ..options("http://api.example:8080/v1")
        })
        .unwrap();
        let shown = format!("{link:?} {:?}", link.0.options);
        assert!(shown.contains("http://api.example:8080"), "{shown}");
        assert!(!shown.contains("hush") && !shown.contains("joe"), "{shown}");
        assert!(link.place().starts_with("http://api.example:8080 "));
        let other = HttpClient::new(HttpClientOptions {
            secrets: vec![("pin".into(), Secret::new("hush-now"))],
            ..options("http://api.example:8080/v1")
        })
        .unwrap();
        assert_ne!(
            link.place(),
            other.place(),
            "a secret that was replaced is another place"
        );
        assert_eq!(link.kind(), Kind::HttpClient);
    }
}
