//! What the operator decides about a listener, checked once so that a mistake is an error at the start and not a dead port.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use otahost_core::secret::Secret;

/// Who may call.
#[derive(Clone)]
pub enum Callers {
    /// Anybody who reaches the port.
    Anonymous,
    /// HTTP Basic: user names and passwords, at least one pair. A name may stand twice, while a password is being changed.
    Basic(Vec<(String, Secret)>),
}

impl fmt::Debug for Callers {
    /// Shows no names.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Callers::Anonymous => f.write_str("Anonymous"),
            Callers::Basic(pairs) => write!(f, "Basic({} pairs)", pairs.len()),
        }
    }
}

/// A TLS identity.
#[derive(Clone)]
pub struct Identity {
    /// Certificate chain, PEM, the server's own first.
    pub certificate: Vec<u8>,
    /// Private key, PEM (PKCS #8, PKCS #1 or SEC 1).
    pub key: Secret,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({} bytes)", self.certificate.len())
    }
}

/// How to listen.
#[derive(Debug, Clone)]
pub struct HttpServerOptions {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// TLS 1.2 and 1.3, or plain HTTP without.
    pub tls: Option<Identity>,
    /// Who may call.
    pub callers: Callers,
    /// Realm of the Basic challenge: printable ASCII without `"` and `\`. Default `otahost`.
    pub realm: String,
    /// Time for an adapter's answer; then 504. From 1 ms to 10 min, default 15 s.
    pub answer_within: Duration,
    /// Requests a minute from one peer address, and as many at once; more get 429. 0: no limit. Default 120.
    pub per_minute: u32,
    /// Requests that wait for an answer at once; more get 503. From 1 to 1,000, default 16.
    pub parallel: usize,
    /// Limits that rarely need a change.
    pub limits: Limits,
}

impl HttpServerOptions {
    /// Options with the defaults, without TLS.
    #[must_use]
    pub fn new(listen: SocketAddr, callers: Callers) -> Self {
        Self {
            listen,
            tls: None,
            callers,
            realm: "otahost".into(),
            answer_within: Duration::from_secs(15),
            per_minute: 120,
            parallel: 16,
            limits: Limits::default(),
        }
    }
}

/// What keeps a slow, greedy or broken caller from harming others.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Failed authentications a minute from one peer address, and as many at once; then requests with credentials get 429 unread
    /// until one is allowed again. 0: no limit. Default 10.
    pub failures_per_minute: u32,
    /// Connections at once, 1 to 10,000; more wait in the kernel's queue until one ends. Default 32.
    pub connections: usize,
    /// Connections at once from one peer address, at least 1; more are closed. Default 16.
    pub connections_per_peer: usize,
    /// From the opening of a connection, or the end of its last answer, to the end of a request's head. Idle connections are closed
    /// by it, too. Default 15 s.
    pub head_within: Duration,
    /// For the whole body of a request. Default 15 s.
    pub body_within: Duration,
    /// For a caller to take its whole answer. Default 15 s.
    pub write_within: Duration,
    /// For the TLS handshake. Default 10 s.
    pub handshake_within: Duration,
    /// For room in the event channel; then 503. Default 2 s.
    pub hand_over_within: Duration,
    /// The first wait after a port could not be bound. Default 500 ms.
    pub backoff_first: Duration,
    /// The longest such wait. Default 30 s.
    pub backoff_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            failures_per_minute: 10,
            connections: 32,
            connections_per_peer: 16,
            head_within: Duration::from_secs(15),
            body_within: Duration::from_secs(15),
            write_within: Duration::from_secs(15),
            handshake_within: Duration::from_secs(10),
            hand_over_within: Duration::from_secs(2),
            backoff_first: Duration::from_millis(500),
            backoff_max: Duration::from_secs(30),
        }
    }
}

/// Options that can never work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// An option is out of its range.
    #[error("HTTP listener option {name}: {problem}")]
    Option {
        /// Which.
        name: &'static str,
        /// What is wrong and what is right.
        problem: String,
    },
    /// The TLS identity cannot be used.
    #[error("HTTP listener TLS identity: {0}")]
    Identity(String),
}

impl HttpServerOptions {
    /// What no listener can work with.
    pub(super) fn check(&self) -> Result<(), LinkError> {
        let wrong = |name, problem: &str| {
            Err(LinkError::Option {
                name,
                problem: problem.into(),
            })
        };
        if let Callers::Basic(pairs) = &self.callers {
            if pairs.is_empty() {
                return wrong("users", "there is none; name at least one");
            }
            for (name, password) in pairs {
                if name.is_empty() || name.contains(':') || name.chars().any(char::is_control) {
                    return wrong(
                        "users",
                        "a name is empty or holds a colon or a control character, which HTTP Basic cannot carry",
                    );
                }
                if password.reveal().is_empty() || password.reveal().chars().any(char::is_control) {
                    return wrong(
                        "users",
                        "a password is empty or holds a control character (a line end of its file?)",
                    );
                }
            }
        }
        let plain = |c: char| (' '..='~').contains(&c) && c != '"' && c != '\\';
        if self.realm.is_empty() || !self.realm.chars().all(plain) {
            return wrong("realm", "must be printable ASCII without \" and \\");
        }
        if self.answer_within < Duration::from_millis(1)
            || self.answer_within > Duration::from_secs(600)
        {
            return wrong("answer_within", "must be from 1 ms to 10 min");
        }
        if !(1..=1_000).contains(&self.parallel) {
            return wrong("parallel", "must be from 1 to 1,000");
        }
        if !(1..=10_000).contains(&self.limits.connections) {
            return wrong("connections", "must be from 1 to 10,000");
        }
        if self.limits.connections_per_peer == 0 {
            return wrong("connections_per_peer", "must be at least 1");
        }
        for (name, time) in [
            ("head_within", self.limits.head_within),
            ("body_within", self.limits.body_within),
            ("write_within", self.limits.write_within),
            ("handshake_within", self.limits.handshake_within),
            ("hand_over_within", self.limits.hand_over_within),
            ("backoff_first", self.limits.backoff_first),
            ("backoff_max", self.limits.backoff_max),
        ] {
            if time.is_zero() || time > Duration::from_secs(3_600) {
                return wrong(name, "must be more than 0 and at most 1 h");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn options(pairs: &[(&str, &str)]) -> HttpServerOptions {
        HttpServerOptions::new(
            "127.0.0.1:0".parse().unwrap(),
            Callers::Basic(
                pairs
                    .iter()
                    .map(|(name, password)| ((*name).to_owned(), Secret::new(*password)))
                    .collect(),
            ),
        )
    }

    #[test]
    fn what_basic_cannot_carry_is_refused_at_the_start() {
        assert_eq!(options(&[("gate", "open sesame")]).check(), Ok(()));
        for pairs in [
            &[][..],
            &[("", "x")],
            &[("a:b", "x")],
            &[("a\n", "x")],
            &[("a", "")],
            &[("a", "x\n")],
        ] {
            let error = options(pairs).check().unwrap_err();
            assert!(
                matches!(error, LinkError::Option { name: "users", .. }),
                "{pairs:?}"
            );
        }
    }

    #[test]
    fn options_out_of_range_are_named() {
        let wrong = |change: fn(&mut HttpServerOptions)| {
            let mut options = options(&[("a", "b")]);
            change(&mut options);
            match options.check() {
                Err(LinkError::Option { name, .. }) => name,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(wrong(|o| o.realm = "a\"b".into()), "realm");
        assert_eq!(wrong(|o| o.realm = "a\r\nb".into()), "realm");
        assert_eq!(wrong(|o| o.realm.clear()), "realm");
        assert_eq!(wrong(|o| o.answer_within = Duration::ZERO), "answer_within");
        assert_eq!(wrong(|o| o.parallel = 0), "parallel");
        assert_eq!(wrong(|o| o.limits.connections = 0), "connections");
        assert_eq!(
            wrong(|o| o.limits.connections_per_peer = 0),
            "connections_per_peer"
        );
        assert_eq!(
            wrong(|o| o.limits.head_within = Duration::ZERO),
            "head_within"
        );
    }

    #[test]
    fn debug_shows_neither_users_nor_passwords_nor_keys() {
        let mut options = options(&[("vehicle-owner", "open sesame")]);
        options.tls = Some(Identity {
            certificate: b"certificate".to_vec(),
            key: Secret::new("private key"),
        });
        let text = format!("{options:?}");
        for secret in ["vehicle-owner", "open sesame", "private key"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}
