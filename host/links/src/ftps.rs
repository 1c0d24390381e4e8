//! Files over explicit FTPS, from servers that each read the standards in their own way.
//!
//! FTP is old, its replies are prose, and its data come over a second connection that ends the same way whether all bytes were sent
//! or the cable was cut. The rules here (facts and sources: the protocol page of the 112 kit, tests K07-K15):
//!
//! - **TLS first.** `AUTH TLS` before anything that names a user; a server that refuses it gets nothing more. Data are protected too.
//! - **Sessions resume.** Many servers take a data connection only when it resumes the TLS session of its control connection, so one
//!   configuration, made for each log-in, serves both. Where a server still refuses, which TLS 1.3's single-use tickets can cause,
//!   the link connects once more with TLS 1.2 alone and stays with it once that helped.
//! - **The end is counted.** A file is complete when as many bytes came as `SIZE` said *and* the server says so with 226 or 250. Then
//!   a missing close_notify does not matter, nor what the control connection says afterwards.
//! - **A resume is agreed on.** It starts in the middle only where `SIZE` and `MDTM` are those of before; where `REST` is refused it
//!   starts at byte 0 and says so.
//! - **Addresses come from us.** Data connections go to the address of the control connection, whatever `PASV` answers.
//! - **Names are checked.** A path stays below the link's directory; a name in a listing is a plain name or is left out.
//! - **Nothing waits for ever.** Every connection, reply and read has its limit; listings are bounded in bytes and entries.
//!
//! The client crate makes the control connection and reads its replies, bounded and safe against injected commands. Data
//! connections are made here, because the crate does not say which of `PASV`, `REST` and `RETR` a refusal answers, nor whether a
//! session was resumed. It writes the commands of a log-in to the `log` facade; they are kept from there.

mod body;
mod control;
mod data;
mod driver;
mod listing;
mod path;
mod reply;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use otahost_core::model::DirectoryEntry;
use otahost_core::secret::Secret;
use tokio::sync::mpsc;
use tokio::time::timeout;

pub use body::{FtpsBody, FtpsOpened};

use crate::tls::ServerTrust;
use crate::{Kind, Link, LinkCommand, LinkEvent};
use control::Shared;

/// Listings waiting for their turn.
const COMMANDS: usize = 16;

/// Most entries of a listing; a directory with more is refused, because the newest file may be among those left out.
const MAX_ENTRIES: usize = 10_000;

/// Largest listing, in bytes.
const MAX_LISTING: usize = 4 * 1024 * 1024;

/// Longest time for a listing, so that one that drips ends.
const LISTING_LIMIT: Duration = Duration::from_secs(60);

/// After a refused log-in the server is left alone for so long: it may lock an account out that is tried too often.
const LOGIN_PAUSE: Duration = Duration::from_secs(60);

/// Longest wait for a reply that only explains a failure that is already known.
const EXPLANATION: Duration = Duration::from_secs(5);

/// How to reach one FTPS server. `Debug` shows neither user name nor password.
#[derive(Debug, Clone)]
pub struct FtpsOptions {
    /// Host name or address.
    pub host: String,
    /// Control port, 21 by default.
    pub port: u16,
    /// User name, sent after TLS only.
    pub username: Secret,
    /// Password, sent after TLS only.
    pub password: Secret,
    /// Directory on the server that the link is confined to; absolute, `/` for all the account shows.
    pub directory: String,
    /// Why the server is trusted.
    pub trust: ServerTrust,
    /// Limit for a TCP connection, and for a TLS handshake with what belongs to it. Default 10 s.
    pub connect_timeout: Duration,
    /// Longest silence on control and data connections. Default 30 s.
    pub idle_timeout: Duration,
}

impl FtpsOptions {
    /// Options with the defaults: port 21, the account's whole tree, the system's trust.
    #[must_use]
    pub fn new(host: impl Into<String>, username: Secret, password: Secret) -> Self {
        Self {
            host: host.into(),
            port: 21,
            username,
            password,
            directory: "/".into(),
            trust: ServerTrust::System,
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
        }
    }
}

/// Options that can never work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// An option is out of its range.
    #[error("FTPS option {name}: {problem}")]
    Option {
        /// Which.
        name: &'static str,
        /// What is wrong and what is right.
        problem: String,
    },
    /// The certificates to trust cannot be used.
    #[error("FTPS trust: {0}")]
    Trust(String),
}

/// Why there is no listing, or no (more) bytes. The texts name host, port and path, never user name or password; what a server said
/// is cut short and left out where it names one of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FtpsError {
    /// No connection, or a server that takes none now.
    #[error("{0}")]
    Unreachable(String),
    /// The server gives no TLS, or shows a certificate that is not trusted. No user name was sent. Trying again is of no use.
    #[error("{0}")]
    Trust(String),
    /// User name or password is refused. Trying again is of no use, and may lock the account.
    #[error("{0}")]
    Login(String),
    /// No such file or directory, or not for this user.
    #[error("{0}")]
    Missing(String),
    /// The connection broke, the file ended early, the server did not confirm its end, or it answers nonsense.
    #[error("{0}")]
    Broken(String),
    /// Nothing came for the idle time-out.
    #[error("{0}")]
    Stalled(String),
    /// The path leads out of the link's directory or is no plain path. Trying again is of no use.
    #[error("{0}")]
    Forbidden(String),
}

impl FtpsError {
    /// Whether trying again is of no use until somebody changes the configuration or the server's files.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            FtpsError::Trust(_)
            | FtpsError::Login(_)
            | FtpsError::Missing(_)
            | FtpsError::Forbidden(_) => true,
            FtpsError::Unreachable(_) | FtpsError::Broken(_) | FtpsError::Stalled(_) => false,
        }
    }
}

/// One FTPS server. It has no standing connection: every listing and every file logs in anew. Clones are the same link.
#[derive(Clone)]
pub struct FtpsLink {
    shared: Arc<Shared>,
}

impl fmt::Debug for FtpsLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FtpsLink")
            .field("server", &self.shared.place)
            .field("directory", &self.shared.options.directory)
            .finish_non_exhaustive()
    }
}

impl FtpsLink {
    /// Checks the options; connects nowhere yet.
    ///
    /// # Errors
    /// [`LinkError`] names the option that can never work, certificates that cannot be read included.
    pub fn new(options: FtpsOptions) -> Result<Self, LinkError> {
        check(&options)?;
        let shared = Shared::new(options).map_err(LinkError::Trust)?;
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Lists a directory below the link's own; `""` is that one. Entries with names that are no plain names are left out. Times are
    /// given where the server speaks MLSD, sizes there and in LIST.
    ///
    /// # Errors
    /// [`FtpsError`]; `Broken` for more than 10,000 entries or 4 MiB.
    pub async fn list(&self, path: &str) -> Result<Vec<DirectoryEntry>, FtpsError> {
        let whole = path::directory(&self.shared.options.directory, path)
            .map_err(|problem| self.forbidden(&problem))?;
        timeout(LISTING_LIMIT, driver::list(&self.shared, &whole))
            .await
            .unwrap_or_else(|_| {
                Err(FtpsError::Stalled(format!(
                    "{}{whole}: the listing takes longer than {} s",
                    self.shared.place,
                    LISTING_LIMIT.as_secs()
                )))
            })
    }

    /// Opens a file below the link's directory at `from` bytes. `validator` is what an earlier opening said; with one, the file is
    /// opened in the middle only if it still is the same. Where the server cannot resume, or has another file by that name now, the
    /// bytes start at 0: look at [`FtpsOpened::offset`]. Where all bytes are there already nothing is fetched.
    ///
    /// # Errors
    /// [`FtpsError`]
    pub async fn open(
        &self,
        path: &str,
        from: u64,
        validator: Option<&str>,
    ) -> Result<FtpsOpened, FtpsError> {
        let whole = path::file(&self.shared.options.directory, path)
            .map_err(|problem| self.forbidden(&problem))?;
        driver::open(&self.shared, &whole, from, validator).await
    }

    /// The content of a small file; `None` where there is none. Of one above `max` bytes the first `max + 1` come, for the caller to
    /// refuse.
    ///
    /// # Errors
    /// [`FtpsError`]; `Stalled` when the bytes take longer than the idle time-out together.
    pub async fn small_file(&self, path: &str, max: usize) -> Result<Option<Vec<u8>>, FtpsError> {
        let mut body = match self.open(path, 0, None).await {
            Err(FtpsError::Missing(_)) => return Ok(None),
            opened => opened?.body,
        };
        let mut bytes = Vec::new();
        let whole = async {
            while bytes.len() <= max
                && let Some(piece) = body.next().await?
            {
                let room = max + 1 - bytes.len();
                bytes.extend_from_slice(&piece[..piece.len().min(room)]);
            }
            Ok(())
        };
        match timeout(self.shared.options.idle_timeout, whole).await {
            Ok(result) => result?,
            Err(_) => {
                return Err(FtpsError::Stalled(format!(
                    "{}: {path:?} comes too slowly",
                    self.shared.place
                )));
            }
        }
        Ok(Some(bytes))
    }

    fn forbidden(&self, problem: &str) -> FtpsError {
        FtpsError::Forbidden(format!("{}: {problem}", self.shared.place))
    }
}

impl Link for FtpsLink {
    /// Must be called within a tokio runtime. Answers every `List` with a `Listed`, one at a time and in order; says neither `Up` nor
    /// `Down`, because nothing is connected between them. The link ends when either channel is closed by the agent.
    fn start(&self, events: mpsc::Sender<LinkEvent>) -> mpsc::Sender<LinkCommand> {
        let (sender, commands) = mpsc::channel(COMMANDS);
        tokio::spawn(driver::run(self.clone(), events, commands));
        sender
    }

    fn kind(&self) -> Kind {
        Kind::Ftps
    }
}

fn check(options: &FtpsOptions) -> Result<(), LinkError> {
    let option = |name, problem: &str| {
        Err(LinkError::Option {
            name,
            problem: problem.into(),
        })
    };
    let line = |text: &str| !text.chars().any(char::is_control);
    if rustls::pki_types::ServerName::try_from(options.host.as_str()).is_err() {
        return option("host", "must be a host name or an IP address");
    }
    if options.port == 0 {
        return option("port", "must be 1 to 65,535; 21 as a rule");
    }
    if options.username.reveal().is_empty() || !line(options.username.reveal()) {
        return option("username", "must be one line that is not empty");
    }
    if !line(options.password.reveal()) {
        return option("password", "must be one line");
    }
    if !path::is_base(&options.directory) {
        return option("directory", "must be an absolute path without `..`");
    }
    if options.connect_timeout.is_zero() {
        return option("connect_timeout", "must be over zero");
    }
    if options.idle_timeout.is_zero() {
        return option("idle_timeout", "must be over zero");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn options() -> FtpsOptions {
        FtpsOptions {
            trust: ServerTrust::Pin([7; 32]),
            ..FtpsOptions::new(
                "files.invalid",
                Secret::new("kit-7"),
                Secret::new("hunter2"),
            )
        }
    }

    #[test]
    fn options_that_can_never_work_are_refused_by_name() {
        assert!(FtpsLink::new(options()).is_ok());
        let refused = |change: fn(&mut FtpsOptions), expected: &str| {
            let mut options = options();
            change(&mut options);
            let error = FtpsLink::new(options).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(
                !error.contains("kit-7") && !error.contains("hunter2"),
                "{error}"
            );
        };
        refused(|o| o.host.clear(), "host");
        refused(|o| o.host = "a b".into(), "host");
        refused(|o| o.port = 0, "port");
        refused(|o| o.username = Secret::default(), "username");
        refused(|o| o.username = Secret::new("kit-7\r\nDELE x"), "username");
        refused(|o| o.password = Secret::new("hunter2\nDELE x"), "password");
        refused(|o| o.directory = "fw".into(), "directory");
        refused(|o| o.directory = "/fw/../etc".into(), "directory");
        refused(|o| o.connect_timeout = Duration::ZERO, "connect_timeout");
        refused(|o| o.idle_timeout = Duration::ZERO, "idle_timeout");
        refused(|o| o.trust = ServerTrust::Ca(b"junk".to_vec()), "trust");
    }

    #[test]
    fn debug_shows_no_credentials() {
        let shown = format!("{:?} {:?}", options(), FtpsLink::new(options()).unwrap());
        assert!(shown.contains("files.invalid"), "{shown}");
        assert!(
            !shown.contains("kit-7") && !shown.contains("hunter2"),
            "{shown}"
        );
    }

    #[test]
    fn what_a_retry_cannot_mend_is_final() {
        let text = String::new;
        for (error, expected) in [
            (FtpsError::Unreachable(text()), false),
            (FtpsError::Trust(text()), true),
            (FtpsError::Login(text()), true),
            (FtpsError::Missing(text()), true),
            (FtpsError::Broken(text()), false),
            (FtpsError::Stalled(text()), false),
            (FtpsError::Forbidden(text()), true),
        ] {
            assert_eq!(error.is_final(), expected, "{error:?}");
        }
    }
}
