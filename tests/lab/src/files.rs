//! A file server over HTTP/1.1 that does what servers and networks do to a download: cut it, stall it, lie about ranges, change the
//! file, redirect, answer with errors. It behaves until told otherwise, and remembers every request, so that a test can say which
//! bytes were fetched twice.
//!
//! One request per connection, on threads: what is sent is exactly what the test ordered, with no HTTP library in between that
//! would correct it.

mod wire;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;
use std::{fs, io};

use rustls::ServerConfig;

use crate::tls;

/// What the server does wrong with one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Announces everything, sends this many bytes of the body, and cuts the connection.
    CutAfter(u64),
    /// Announces everything, sends this many bytes of the body, and falls silent until the client goes or [`Files::release`].
    StallAfter(u64),
    /// Announces everything, sends this many bytes of the body, and resets the connection: what was on its way is lost too.
    ResetAfter(u64),
    /// Takes the request and never answers, until the client goes or [`Files::release`].
    Mute,
    /// Answers a range with the whole file (200).
    IgnoreRange,
    /// Answers a range with the part that begins at this offset instead, and says so.
    WrongOffset(u64),
    /// Answers a range with the right bytes and this `Content-Range`.
    ContentRange(String),
    /// Sends a redirect.
    Redirect {
        /// 301, 302, 303, 307 or 308.
        status: u16,
        /// The `Location`, absolute or relative.
        location: String,
    },
    /// Answers with a status of one's choice.
    Status {
        /// HTTP status.
        status: u16,
        /// Headers beside the length.
        headers: Vec<(String, String)>,
        /// The body.
        body: Vec<u8>,
    },
    /// Sends the body chunked, without a length, and this many zero bytes after it.
    Longer(u64),
    /// Sends the body chunked, without a length, and ends it well formed this many bytes early.
    Shorter(u64),
    /// Sends a right `Content-Length` and this many zero bytes after the body.
    Overrun(u64),
    /// Names no validator: neither ETag nor Last-Modified.
    NoValidator,
}

/// One request that was served, or is being served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `GET` or `HEAD`.
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// The query, without the question mark.
    pub query: Option<String>,
    /// All headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The status of the answer; 0 before there is one.
    pub status: u16,
    /// Offset of the first byte of the answer's body.
    pub offset: u64,
    /// Bytes of the file sent so far.
    pub sent: u64,
}

impl Request {
    /// A header by its name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// The `Range` header.
    #[must_use]
    pub fn range(&self) -> Option<&str> {
        self.header("range")
    }
}

/// The server. Ends with its value.
#[derive(Debug)]
pub struct Files {
    port: u16,
    secure: bool,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<String, Content>,
    guard: Option<Guard>,
    versions: u64,
    faults: BTreeMap<String, VecDeque<Planned>>,
    requests: Vec<Request>,
    throttle: Option<u64>,
    /// Counts the calls of `release`.
    releases: u64,
    stopped: bool,
    open: BTreeMap<usize, TcpStream>,
}

type Look = dyn Fn(&Request) -> Option<Fault> + Send + Sync;

/// Who looks at every request first, and may have it answered by a fault.
#[derive(Clone)]
struct Guard(Arc<Look>);

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Guard")
    }
}

#[derive(Debug, Clone)]
struct Content {
    bytes: Stored,
    length: u64,
    version: u64,
    tag: Option<String>,
}

#[derive(Debug, Clone)]
enum Stored {
    Bytes(Arc<[u8]>),
    File(PathBuf),
}

#[derive(Debug, Clone)]
struct Planned {
    fault: Fault,
    /// Requests left; none: all.
    left: Option<u32>,
}

impl Content {
    fn etag(&self) -> String {
        match &self.tag {
            Some(tag) => format!("\"{tag}\""),
            None => format!("\"v{}\"", self.version),
        }
    }

    /// One second later for every version.
    fn last_modified(&self) -> String {
        let (minute, second) = (self.version / 60 % 60, self.version % 60);
        format!("Mon, 01 Jan 2024 00:{minute:02}:{second:02} GMT")
    }
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

impl Files {
    /// Starts an HTTP server on a free port of 127.0.0.1, with no files.
    ///
    /// # Panics
    /// When no loopback port can be had.
    #[must_use]
    pub fn start() -> Self {
        Self::launch(None)
    }

    /// Starts an HTTPS server with the certificate of [`crate::tls`].
    ///
    /// # Panics
    /// When no loopback port can be had.
    #[must_use]
    pub fn start_tls() -> Self {
        let config = tls::server_config(tls::Certificate::Lab, tls::Versions::Both);
        Self::launch(Some(Arc::new(config)))
    }

    fn launch(tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback port");
        let port = listener.local_addr().expect("a bound port").port();
        let shared = Arc::new(Shared::default());
        let secure = tls.is_some();
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for (id, stream) in listener.incoming().enumerate() {
                if accepting.state().stopped {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (shared, tls) = (Arc::clone(&accepting), tls.clone());
                thread::spawn(move || {
                    if let Ok(copy) = stream.try_clone() {
                        shared.change(|state| state.open.insert(id, copy));
                    }
                    // A client that goes away, or is cut, is what this server is for.
                    let _ = wire::serve(&shared, stream, tls);
                    shared.change(|state| state.open.remove(&id));
                });
            }
        });
        Self {
            port,
            secure,
            shared,
        }
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `http://127.0.0.1:PORT` or `https://localhost:PORT`, without a path.
    #[must_use]
    pub fn origin(&self) -> String {
        if self.secure {
            format!("https://localhost:{}", self.port)
        } else {
            format!("http://127.0.0.1:{}", self.port)
        }
    }

    /// The URL of a file, whether it is there or not: `ORIGIN/public/NAME`.
    #[must_use]
    pub fn url(&self, name: &str) -> String {
        format!("{}/public/{name}", self.origin())
    }

    /// Serves these bytes under a name. A name that is there already gets the new content, and a new ETag and date.
    pub fn put(&self, name: &str, bytes: impl Into<Vec<u8>>) {
        let bytes = bytes.into();
        let length = bytes.len() as u64;
        self.insert(name, Stored::Bytes(bytes.into()), length, None);
    }

    /// The same with an ETag of one's choice, without its quotes.
    pub fn put_tagged(&self, name: &str, bytes: impl Into<Vec<u8>>, tag: &str) {
        let bytes = bytes.into();
        let length = bytes.len() as u64;
        self.insert(
            name,
            Stored::Bytes(bytes.into()),
            length,
            Some(tag.to_owned()),
        );
    }

    /// Serves a file of the disk under a name, read anew for every request.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn put_file(&self, name: &str, path: &Path) -> io::Result<()> {
        let length = fs::metadata(path)?.len();
        self.insert(name, Stored::File(path.to_owned()), length, None);
        Ok(())
    }

    fn insert(&self, name: &str, bytes: Stored, length: u64, tag: Option<String>) {
        self.shared.change(|state| {
            state.versions += 1;
            state.files.insert(
                name.to_owned(),
                Content {
                    bytes,
                    length,
                    version: state.versions,
                    tag,
                },
            );
        });
    }

    /// Takes a file away: 404 from now on.
    pub fn remove(&self, name: &str) {
        self.shared.change(|state| state.files.remove(name));
    }

    /// Plans a fault for the next `times` requests for a name. Faults of one name happen in the order of planning.
    pub fn fault(&self, name: &str, times: u32, fault: Fault) {
        self.plan(name, Some(times), fault);
    }

    /// Plans a fault for every request for a name that comes after those planned before.
    pub fn fault_always(&self, name: &str, fault: Fault) {
        self.plan(name, None, fault);
    }

    fn plan(&self, name: &str, left: Option<u32>, fault: Fault) {
        self.shared.change(|state| {
            state
                .faults
                .entry(name.to_owned())
                .or_default()
                .push_back(Planned { fault, left })
        });
    }

    /// Has every request looked at first: what this answers with is done in place of a planned fault. It must not block.
    pub fn guard(&self, guard: impl Fn(&Request) -> Option<Fault> + Send + Sync + 'static) {
        self.shared
            .change(|state| state.guard = Some(Guard(Arc::new(guard))));
    }

    /// Forgets all planned faults of a name.
    pub fn heal(&self, name: &str) {
        self.shared.change(|state| state.faults.remove(name));
    }

    /// Lets stalled answers go on.
    pub fn release(&self) {
        self.shared.change(|state| state.releases += 1);
    }

    /// Limits every answer to this many bytes a second; `None`: as fast as it goes.
    pub fn throttle(&self, bytes_per_second: Option<u64>) {
        self.shared
            .change(|state| state.throttle = bytes_per_second);
    }

    /// Cuts every connection now.
    pub fn cut(&self) {
        self.shared.change(|state| {
            for stream in state.open.values() {
                let _ = stream.shutdown(std::net::Shutdown::Both);
            }
        });
    }

    /// All requests so far, in order.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.shared.state().requests.clone()
    }

    /// Bytes of files sent so far, over all requests.
    #[must_use]
    pub fn bytes_sent(&self) -> u64 {
        self.shared
            .state()
            .requests
            .iter()
            .map(|request| request.sent)
            .sum()
    }

    /// Waits until a condition on the requests holds. Says whether it did within the limit.
    #[must_use]
    pub fn wait_for(&self, limit: Duration, condition: impl Fn(&[Request]) -> bool) -> bool {
        let state = self.shared.state();
        let (state, _) = self
            .shared
            .changed
            .wait_timeout_while(state, limit, |state| !condition(&state.requests))
            .unwrap_or_else(PoisonError::into_inner);
        condition(&state.requests)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        self.shared.change(|state| state.stopped = true);
        self.cut();
        // Wakes the accepting thread, so that it sees the end.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}
