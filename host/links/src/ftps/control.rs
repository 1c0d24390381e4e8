//! A control connection: TLS before the user name, one command and one reply at a time, each within its limit.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use suppaftp::FtpError;
use suppaftp::tokio::{AsyncRustlsConnector, AsyncRustlsFtpStream};
use suppaftp::types::Response;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tracing::Dispatch;
use tracing::instrument::WithSubscriber;

use super::reply::Reply;
use super::{FtpsError, FtpsOptions, LOGIN_PAUSE};
use crate::tls::{Versions, certificate_problem, client_config};

/// Longest farewell, beside everything else.
const FAREWELL: Duration = Duration::from_secs(2);

/// What all connections of a link share.
pub(super) struct Shared {
    pub(super) options: FtpsOptions,
    /// Protocol, host and port: what may be shown.
    pub(super) place: String,
    name: ServerName<'static>,
    any: Arc<ClientConfig>,
    tls12: Arc<ClientConfig>,
    /// This server takes our data connections only with TLS 1.2.
    only_tls12: AtomicBool,
    /// This server does not know MLSD.
    pub(super) no_mlsd: AtomicBool,
    /// When the server refused the log-in, and its reply.
    refused: Mutex<Option<(Instant, String)>>,
}

impl Shared {
    /// `Err` says what is wrong with the certificates.
    pub(super) fn new(options: FtpsOptions) -> Result<Self, String> {
        let name = ServerName::try_from(options.host.clone())
            .map_err(|_| "the host is no name and no address".to_owned())?;
        let host = if options.host.contains(':') {
            format!("[{}]", options.host)
        } else {
            options.host.clone()
        };
        Ok(Self {
            place: format!("ftps://{host}:{}", options.port),
            name,
            any: client_config(&options.trust, Versions::Both)?,
            tls12: client_config(&options.trust, Versions::Tls12)?,
            only_tls12: AtomicBool::new(false),
            no_mlsd: AtomicBool::new(false),
            refused: Mutex::new(None),
            options,
        })
    }

    pub(super) fn versions(&self) -> Versions {
        if self.only_tls12.load(Ordering::Relaxed) {
            Versions::Tls12
        } else {
            Versions::Both
        }
    }

    /// TLS 1.2 alone has helped.
    pub(super) fn stay_with_tls12(&self) {
        self.only_tls12.store(true, Ordering::Relaxed);
    }

    /// A configuration with no sessions in it: those of an earlier log-in are others than the one a server wants resumed.
    fn tls(&self, versions: Versions) -> Arc<ClientConfig> {
        let mut config = ClientConfig::clone(match versions {
            Versions::Both => &self.any,
            Versions::Tls12 => &self.tls12,
        });
        config.resumption = Resumption::default();
        Arc::new(config)
    }

    /// A refused log-in is not tried again at once.
    fn check_login(&self) -> Result<(), FtpsError> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        match &*refused {
            Some((at, reply)) if at.elapsed() < LOGIN_PAUSE => Err(self.login_refused(reply)),
            _ => Ok(()),
        }
    }

    fn login_refused(&self, reply: &str) -> FtpsError {
        FtpsError::Login(format!(
            "{}: the server refused user name or password (it answered {reply}); correct them in the link's configuration",
            self.place
        ))
    }

    fn reply(&self, response: &Response) -> Reply {
        let hidden = [
            self.options.username.reveal(),
            self.options.password.reveal(),
        ];
        Reply::read(&response.body, &hidden)
    }

    fn unreachable(&self, why: impl std::fmt::Display) -> FtpsError {
        FtpsError::Unreachable(format!("{}: {why}", self.place))
    }

    pub(super) fn broken(&self, why: impl std::fmt::Display) -> FtpsError {
        FtpsError::Broken(format!("{}: {why}", self.place))
    }

    pub(super) fn stalled(&self, what: &str, limit: Duration) -> FtpsError {
        FtpsError::Stalled(format!(
            "{}: {what} within {} s",
            self.place,
            limit.as_secs_f32()
        ))
    }

    /// What a TLS handshake ended with.
    pub(super) fn tls_error(&self, text: &str) -> FtpsError {
        match certificate_problem(text) {
            Some(why) => FtpsError::Trust(format!(
                "{}: the server's certificate is not trusted: {why}; name its CA or pin it in the link's configuration if it is right",
                self.place
            )),
            None => self.unreachable(format_args!("no TLS connection: {text}")),
        }
    }
}

/// A control connection, logged in.
pub(super) struct Session {
    pub(super) shared: Arc<Shared>,
    ftp: AsyncRustlsFtpStream,
    /// The server's address; data connections go there and nowhere else.
    peer: SocketAddr,
    tls: Arc<ClientConfig>,
}

impl Session {
    /// Connects, changes to TLS, protects the data connections, logs in, and asks for files as they are.
    pub(super) async fn log_in(
        shared: &Arc<Shared>,
        versions: Versions,
    ) -> Result<Self, FtpsError> {
        shared.check_login()?;
        let options = &shared.options;
        let stream = timeout(
            options.connect_timeout,
            TcpStream::connect((options.host.as_str(), options.port)),
        )
        .await
        .map_err(|_| {
            shared.unreachable(format_args!(
                "no connection within {} s",
                options.connect_timeout.as_secs_f32()
            ))
        })?
        .map_err(|error| shared.unreachable(format_args!("no connection: {error}")))?;
        let peer = stream
            .peer_addr()
            .map_err(|error| shared.unreachable(format_args!("no connection: {error}")))?;
        // A command is small and waits for its answer; without this only slower.
        let _ = stream.set_nodelay(true);
        let plain = timeout(
            options.idle_timeout,
            AsyncRustlsFtpStream::connect_with_stream(stream),
        )
        .await
        .map_err(|_| shared.stalled("no greeting", options.idle_timeout))?
        .map_err(|error| match error {
            FtpError::UnexpectedResponse(response) => shared.unreachable(format_args!(
                "the server takes no connections: {}",
                shared.reply(&response).shown()
            )),
            error => shared.unreachable(format_args!("no FTP greeting: {}", io_text(&error))),
        })?;
        let tls = shared.tls(versions);
        let connector = AsyncRustlsConnector::from(TlsConnector::from(Arc::clone(&tls)));
        let ftp = timeout(
            options.connect_timeout,
            plain.into_secure(connector, &options.host),
        )
        .await
        .map_err(|_| {
            shared.unreachable(format_args!(
                "no TLS connection within {} s",
                options.connect_timeout.as_secs_f32()
            ))
        })?
        .map_err(|error| match error {
            FtpError::UnexpectedResponse(response) => {
                let reply = shared.reply(&response);
                if (400..500).contains(&reply.code) {
                    shared.unreachable(format_args!("no TLS now: {}", reply.shown()))
                } else {
                    FtpsError::Trust(format!(
                        "{}: the server gives no TLS for commands and data ({}); nothing was sent to it",
                        shared.place,
                        reply.shown()
                    ))
                }
            }
            FtpError::SecureError(text) => shared.tls_error(&text),
            error => shared.unreachable(format_args!("no TLS connection: {}", io_text(&error))),
        })?;
        let mut session = Self {
            shared: Arc::clone(shared),
            ftp,
            peer,
            tls,
        };
        session.authenticate().await?;
        let reply = session.ask("TYPE I").await?;
        if reply.code != 200 {
            return Err(shared.broken(format_args!(
                "the server gives no binary files: {}",
                reply.shown()
            )));
        }
        Ok(session)
    }

    async fn authenticate(&mut self) -> Result<(), FtpsError> {
        let shared = &self.shared;
        let options = &shared.options;
        let login = self
            .ftp
            .login(options.username.reveal(), options.password.reveal())
            // The crate writes both to the log facade.
            .with_subscriber(Dispatch::none());
        match timeout(options.idle_timeout * 2, login).await {
            Err(_) => Err(shared.stalled("no answer to the log-in", options.idle_timeout * 2)),
            Ok(Ok(())) => Ok(()),
            Ok(Err(FtpError::UnexpectedResponse(response))) => {
                let reply = shared.reply(&response);
                // 430 is "invalid user name or password"; the other 4xx speak of the server.
                if (400..500).contains(&reply.code) && reply.code != 430 {
                    return Err(shared.unreachable(format_args!(
                        "the server takes no log-in now: {}",
                        reply.shown()
                    )));
                }
                let reply = reply.code.to_string();
                let refused = shared.login_refused(&reply);
                *shared
                    .refused
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), reply));
                Err(refused)
            }
            Ok(Err(error)) => Err(shared.broken(format_args!(
                "the connection broke at the log-in: {}",
                io_text(&error)
            ))),
        }
    }

    /// Sends a command and gives the reply, whatever it is but 421.
    pub(super) async fn ask(&mut self, command: impl Into<String>) -> Result<Reply, FtpsError> {
        let limit = self.shared.options.idle_timeout;
        let answer = timeout(limit, self.ftp.custom_command(command.into(), &[])).await;
        let reply = self.judge(answer, limit)?;
        if reply.code == 421 {
            return Err(self.shared.broken(format_args!(
                "the server closes the connection: {}",
                reply.shown()
            )));
        }
        Ok(reply)
    }

    /// The next reply, which no command of ours asked for: how a transfer ended.
    pub(super) async fn reply(&mut self, limit: Duration) -> Result<Reply, FtpsError> {
        let answer = timeout(limit, self.ftp.read_response_in(&[])).await;
        self.judge(answer, limit)
    }

    fn judge(
        &self,
        answer: Result<Result<Response, FtpError>, tokio::time::error::Elapsed>,
        limit: Duration,
    ) -> Result<Reply, FtpsError> {
        match answer {
            Err(_) => Err(self.shared.stalled("no answer", limit)),
            // Nothing is expected, so nothing is unexpected.
            Ok(Ok(response) | Err(FtpError::UnexpectedResponse(response))) => {
                Ok(self.shared.reply(&response))
            }
            Ok(Err(error)) => Err(self.shared.broken(format_args!(
                "the control connection broke: {}",
                io_text(&error)
            ))),
        }
    }

    pub(super) fn peer(&self) -> SocketAddr {
        self.peer
    }

    pub(super) fn connector(&self) -> TlsConnector {
        TlsConnector::from(Arc::clone(&self.tls))
    }

    pub(super) fn server_name(&self) -> ServerName<'static> {
        self.shared.name.clone()
    }

    /// Says goodbye in the background: nobody waits for a slow server's farewell.
    pub(super) fn quit(mut self) {
        tokio::spawn(async move {
            let _ = timeout(FAREWELL, self.ftp.quit()).await;
        });
    }
}

/// The innermost words of an error that is no reply.
fn io_text(error: &FtpError) -> String {
    match error {
        FtpError::ConnectionError(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the server closed it".into()
        }
        FtpError::ConnectionError(error) => error.to_string(),
        FtpError::BadResponse => "the server answers something that is not FTP".into(),
        other => other.to_string(),
    }
}
