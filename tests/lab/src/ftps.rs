//! An FTPS server (explicit TLS, RFC 4217) that insists on what strict servers insist on, and does on command what servers and
//! networks do to a download: refuses data connections whose TLS session is not resumed, cuts, stalls, lies about sizes, lists
//! hostile names, sends a private address, falls silent at any point. It behaves until told otherwise, and remembers every command.
//!
//! It stands beside the real vsftpd ([`crate::vsftpd`]) for what that one cannot be told to do. It judges a data session by rustls'
//! own word (resumed, or a full handshake), as vsftpd does by OpenSSL's.
//!
//! Strict means: no user name before TLS, PBSZ before PROT, no transfer without PROT P, SIZE and REST only in binary mode, and an
//! offset that is forgotten when anything comes between REST and RETR. `PORT` and everything that writes is refused.
//!
//! The server has a thread of its own, so that tests may block.

mod control;
mod record;
mod script;
mod transfer;
mod tree;
mod wire;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustls::server::ServerSessionMemoryCache;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::tls::{self, Certificate, Versions};

pub use record::{Command, Connection, Data, Retrieval, Session};
pub use script::{Answer, Fault};

use control::Control;
use script::Plans;
use tree::Tree;

/// What vsftpd 3.0.3 (Debian 12) says to a data connection with a new TLS session, by its default `require_ssl_reuse=YES`. Later
/// ones have a semicolon, and a hint, in it.
pub const REFUSAL_522: &str = "522 SSL connection failed: session reuse required";

/// What FileZilla Server 1.x says to it.
pub const REFUSAL_425: &str =
    "425 Unable to build data connection: TLS session of data connection not resumed.";

/// What older FileZilla Servers say to it.
pub const REFUSAL_450: &str = "450 TLS session of data connection has not resumed or the session does not match the control connection";

/// Sessions and tickets the server keeps.
const SESSIONS: usize = 1024;

/// Whether a data connection must resume a TLS session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reuse {
    /// It need not.
    #[default]
    NotAsked,
    /// It must; otherwise this line comes after the 150 ([`REFUSAL_522`], [`REFUSAL_425`], [`REFUSAL_450`] or one's own).
    Required(&'static str),
    /// It must, and on TLS 1.3 it is never good enough: a client gets through only after a new login on TLS 1.2.
    RequiredAndNeverOnTls13(&'static str),
}

/// How to run the server.
#[derive(Clone)]
pub struct FtpsOptions {
    /// The only user.
    pub user: String,
    /// The user's password.
    pub password: String,
    /// What the server shows in both kinds of connections.
    pub certificate: Certificate,
    /// What it speaks in both kinds of connections.
    pub versions: Versions,
    /// Whether data connections must resume a session.
    pub reuse: Reuse,
    /// How many TLS 1.3 tickets a login gets; data connections then get none, as with OpenSSL servers, whose clients run out of
    /// tickets. None: two for every connection.
    pub login_tickets: Option<usize>,
    /// The address that `PASV` names instead of its own. `EPSV` names none.
    pub pasv_address: Option<Ipv4Addr>,
}

impl FtpsOptions {
    /// A server that asks for nothing unusual, with credentials that the test makes up.
    #[must_use]
    pub fn new(user: &str, password: &str) -> Self {
        Self {
            user: user.to_owned(),
            password: password.to_owned(),
            certificate: Certificate::default(),
            versions: Versions::default(),
            reuse: Reuse::default(),
            login_tickets: None,
            pasv_address: None,
        }
    }
}

/// The server. Ends with its value, and its connections with it.
pub struct Ftps {
    port: u16,
    shared: Arc<Shared>,
    stop: Option<watch::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Ftps {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Ftps")
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

/// What all connections need and no test changes.
struct Settings {
    options: FtpsOptions,
    login: TlsAcceptor,
    data: TlsAcceptor,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    released: watch::Sender<()>,
    cut: watch::Sender<()>,
    hang_up: watch::Sender<String>,
}

#[derive(Debug, Default)]
struct State {
    tree: Tree,
    answers: Plans<Answer>,
    faults: Plans<Fault>,
    connections: Vec<Connection>,
    /// The control connections that are not over.
    open: BTreeMap<usize, TcpStream>,
    throttle: Option<u64>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state());
        self.changed.notify_all();
        result
    }
}

impl Settings {
    fn new(options: FtpsOptions) -> Self {
        let mut login = tls::server_config(options.certificate, options.versions);
        // One memory for both kinds of connections, so that one resumes the other's session.
        login.session_storage = ServerSessionMemoryCache::new(SESSIONS);
        let mut data = login.clone();
        if let Some(tickets) = options.login_tickets {
            login.send_tls13_tickets = tickets;
            data.send_tls13_tickets = 0;
        }
        Self {
            options,
            login: TlsAcceptor::from(Arc::new(login)),
            data: TlsAcceptor::from(Arc::new(data)),
        }
    }
}

impl Ftps {
    /// Starts a server on a free port of 127.0.0.1, with no files and one user.
    ///
    /// # Panics
    /// When no loopback port can be had.
    #[must_use]
    pub fn start(user: &str, password: &str) -> Self {
        Self::start_with(FtpsOptions::new(user, password))
    }

    /// Starts a server on a free port of 127.0.0.1, with no files.
    ///
    /// # Panics
    /// When no loopback port can be had.
    #[must_use]
    pub fn start_with(options: FtpsOptions) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback port");
        let port = listener.local_addr().expect("a bound port").port();
        listener
            .set_nonblocking(true)
            .expect("a socket of our own can be made non-blocking");
        let settings = Arc::new(Settings::new(options));
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            released: watch::Sender::new(()),
            cut: watch::Sender::new(()),
            hang_up: watch::Sender::new(String::new()),
        });
        let (stop, mut stopped) = watch::channel(());
        let serving = Arc::clone(&shared);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let thread = std::thread::Builder::new()
            .name("lab-ftps".into())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = accept(&serving, &settings, listener) => {}
                        // The sender is dropped.
                        _ = stopped.changed() => {}
                    }
                });
            })
            .expect("a thread");
        Self {
            port,
            shared,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// The port on 127.0.0.1. The certificate is good for `localhost` and `127.0.0.1`.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Puts a file there: `kit/a.bin`, with its directories. Its date (`MDTM`) is a second later than that of the file put before
    /// it, also when it replaces one.
    pub fn put(&self, path: &str, bytes: impl Into<Vec<u8>>) {
        let bytes = bytes.into().into();
        self.shared
            .change(|state| state.tree.put(path.as_bytes(), bytes));
    }

    /// Takes a file away.
    pub fn remove(&self, path: &str) {
        self.shared
            .change(|state| state.tree.remove(path.as_bytes()));
    }

    /// Makes an empty directory.
    pub fn make_directory(&self, path: &str) {
        self.shared
            .change(|state| state.tree.make_directory(path.as_bytes()));
    }

    /// Dates a file: `YYYYMMDDHHMMSS`, UTC; none: `MDTM` and `MLSD` say no date.
    ///
    /// # Panics
    /// When there is no such file.
    pub fn date(&self, path: &str, modified: Option<&str>) {
        self.shared.change(|state| {
            state.tree.change(path.as_bytes(), |file| {
                file.modified = modified.map(str::to_owned);
            });
        });
    }

    /// Lies about the size of a file, in `SIZE` and in listings, until it is put there again.
    ///
    /// # Panics
    /// When there is no such file.
    pub fn claim_size(&self, path: &str, size: u64) {
        self.shared.change(|state| {
            state
                .tree
                .change(path.as_bytes(), |file| file.claimed = Some(size));
        });
    }

    /// Shows a file in the listings of a directory that is not there, under any name: `../x`, or bytes that are no text.
    pub fn list_name(&self, directory: &str, name: impl Into<Vec<u8>>, size: u64) {
        let name = name.into();
        self.shared.change(|state| {
            state.tree.list_name(directory.as_bytes(), name, size);
        });
    }

    /// Ends the listings of a directory with these bytes, as they are.
    pub fn list_raw(&self, directory: &str, bytes: impl Into<Vec<u8>>) {
        let bytes = bytes.into();
        self.shared
            .change(|state| state.tree.list_raw(directory.as_bytes(), bytes));
    }

    /// Orders what happens with the next `times` commands of a verb, in any connection; `CONNECT` is the greeting. Orders for one
    /// verb are done one after the other.
    pub fn answer(&self, verb: &str, times: u32, answer: Answer) {
        self.shared.change(|state| {
            state.answers.add(verb.as_bytes(), Some(times), answer);
        });
    }

    /// Orders what happens with every command of a verb, after what was ordered before. A verb that is refused always is not in the
    /// list of `FEAT`.
    pub fn answer_always(&self, verb: &str, answer: Answer) {
        self.shared
            .change(|state| state.answers.add(verb.as_bytes(), None, answer));
    }

    /// Orders a fault for the next `times` transfers of a file, or listings of a directory (`/` is the first one). Orders for one
    /// path are done one after the other.
    pub fn fault(&self, path: &str, times: u32, fault: Fault) {
        let path = tree::absolute(b"/", path.as_bytes());
        self.shared
            .change(|state| state.faults.add(&path, Some(times), fault));
    }

    /// Orders a fault for every transfer of a file, or listing of a directory, after what was ordered before.
    pub fn fault_always(&self, path: &str, fault: Fault) {
        let path = tree::absolute(b"/", path.as_bytes());
        self.shared
            .change(|state| state.faults.add(&path, None, fault));
    }

    /// Forgets all orders for a verb and for a path of this name.
    pub fn heal(&self, verb_or_path: &str) {
        let path = tree::absolute(b"/", verb_or_path.as_bytes());
        self.shared.change(|state| {
            state.answers.forget(verb_or_path.as_bytes());
            state.faults.forget(&path);
        });
    }

    /// Limits every transfer to this many bytes a second; `None`: as fast as it goes.
    pub fn throttle(&self, bytes_per_second: Option<u64>) {
        self.shared
            .change(|state| state.throttle = bytes_per_second);
    }

    /// Lets connections that are silent go on.
    pub fn release(&self) {
        self.shared.released.send_replace(());
    }

    /// Cuts every connection now, without a word.
    pub fn cut(&self) {
        self.shared.cut.send_replace(());
        // A command that is sent from now on must not be answered any more.
        self.shared.change(|state| {
            for stream in state.open.values() {
                let _ = stream.shutdown(Shutdown::Both);
            }
        });
    }

    /// Says a line (`421 Timeout.`) to every client that waits between two commands, and closes its connection.
    pub fn hang_up(&self, line: &str) {
        self.shared.hang_up.send_replace(line.to_owned());
    }

    /// All control connections so far, in order.
    #[must_use]
    pub fn connections(&self) -> Vec<Connection> {
        self.shared.state().connections.clone()
    }

    /// All transfers of files so far, over all connections, in order of the connections.
    #[must_use]
    pub fn retrievals(&self) -> Vec<Retrieval> {
        let state = self.shared.state();
        let connections = state.connections.iter();
        connections
            .flat_map(|connection| connection.retrievals.clone())
            .collect()
    }

    /// Bytes of files sent so far, over all transfers.
    #[must_use]
    pub fn bytes_sent(&self) -> u64 {
        self.retrievals()
            .iter()
            .map(|retrieval| retrieval.sent)
            .sum()
    }

    /// Waits until a condition on the connections holds. Says whether it did within the limit.
    #[must_use]
    pub fn wait_for(&self, limit: Duration, condition: impl Fn(&[Connection]) -> bool) -> bool {
        let state = self.shared.state();
        let (state, _) = self
            .shared
            .changed
            .wait_timeout_while(state, limit, |state| !condition(&state.connections))
            .unwrap_or_else(PoisonError::into_inner);
        condition(&state.connections)
    }
}

impl Drop for Ftps {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(shared: &Arc<Shared>, settings: &Arc<Settings>, listener: TcpListener) {
    let listener =
        tokio::net::TcpListener::from_std(listener).expect("the runtime takes the socket");
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let _ = stream.set_nodelay(true);
        let Ok((stream, copy)) = twice(stream) else {
            continue;
        };
        let mut cut = shared.cut.subscribe();
        let id = shared.change(|state| {
            let id = state.connections.len();
            state.connections.push(Connection::default());
            state.open.insert(id, copy);
            id
        });
        let control = Control::new(Arc::clone(shared), Arc::clone(settings), id, stream);
        let shared = Arc::clone(shared);
        tokio::spawn(async move {
            tokio::select! {
                biased;
                _ = cut.changed() => {}
                // A client that goes away, or is cut, is what this server is for.
                _ = control.serve() => {}
            }
            shared.change(|state| {
                state.open.remove(&id);
                state.connections[id].closed = true;
            });
        });
    }
}

/// A connection, and a handle to cut it by from another thread.
fn twice(stream: tokio::net::TcpStream) -> io::Result<(tokio::net::TcpStream, TcpStream)> {
    let stream = stream.into_std()?;
    let copy = stream.try_clone()?;
    Ok((tokio::net::TcpStream::from_std(stream)?, copy))
}
