//! Takes webhooks: a listener that remembers what it was sent and answers as told.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Longest wait for a request that was begun.
const PATIENCE: Duration = Duration::from_secs(10);
/// Largest body that is taken.
const LARGEST: usize = 1024 * 1024;

/// One request, as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Its path and query.
    pub target: String,
    /// Its `Authorization` header.
    pub authorization: Option<String>,
    /// Its body.
    pub body: Vec<u8>,
    /// The status it was answered with.
    pub status: u16,
}

/// The listener. Answers 204 to everything until it is told otherwise, one request at a time. Ends with its value.
#[derive(Debug)]
pub struct Webhook {
    port: u16,
    shared: Arc<Shared>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    status: u16,
    deliveries: Vec<Delivery>,
}

impl Default for State {
    fn default() -> Self {
        State {
            status: 204,
            deliveries: Vec::new(),
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Webhook {
    /// Starts one on a free port of 127.0.0.1.
    ///
    /// # Panics
    /// When no loopback port can be had.
    #[must_use]
    pub fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback port");
        let port = listener.local_addr().expect("a bound port").port();
        let (shared, over) = (Arc::<Shared>::default(), Arc::<AtomicBool>::default());
        let (serving, ending) = (Arc::clone(&shared), Arc::clone(&over));
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if ending.load(Ordering::Relaxed) {
                    return;
                }
                // A caller that goes away is no reason to end.
                let _ = stream.and_then(|stream| serving.take(stream));
            }
        });
        Webhook {
            port,
            shared,
            over,
            thread: Some(thread),
        }
    }

    /// The URL of a path on it.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Answers with this status from now on.
    pub fn answer(&self, status: u16) {
        self.shared.state().status = status;
    }

    /// All requests so far, in order.
    #[must_use]
    pub fn deliveries(&self) -> Vec<Delivery> {
        self.shared.state().deliveries.clone()
    }

    /// Waits until a condition on the requests holds. Says whether it did within the limit.
    #[must_use]
    pub fn wait_for(&self, limit: Duration, condition: impl Fn(&[Delivery]) -> bool) -> bool {
        let state = self.shared.state();
        let (state, _) = self
            .shared
            .changed
            .wait_timeout_while(state, limit, |state| !condition(&state.deliveries))
            .unwrap_or_else(PoisonError::into_inner);
        condition(&state.deliveries)
    }
}

impl Shared {
    fn take(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut reader = BufReader::new(&stream);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let target = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let (mut authorization, mut length) = (None, 0);
        loop {
            line.clear();
            if reader.read_line(&mut line)? <= 2 {
                break;
            }
            if let Some((name, value)) = line.split_once(':') {
                match name.to_ascii_lowercase().as_str() {
                    "authorization" => authorization = Some(value.trim().to_owned()),
                    "content-length" => length = value.trim().parse().unwrap_or(0),
                    _ => {}
                }
            }
        }
        let mut body = vec![0; LARGEST.min(length)];
        reader.read_exact(&mut body)?;
        let mut state = self.state();
        let status = state.status;
        // Before the answer: who was answered can be sure that it is here.
        state.deliveries.push(Delivery {
            target,
            authorization,
            body,
            status,
        });
        drop(state);
        self.changed.notify_all();
        let end = if status == 204 {
            ""
        } else {
            "Content-Length: 0\r\n"
        };
        let answer = format!("HTTP/1.1 {status} As told\r\nConnection: close\r\n{end}\r\n");
        (&stream).write_all(answer.as_bytes())
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // Wakes the listener; when that fails the thread is left behind rather than waited for.
        if TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}
