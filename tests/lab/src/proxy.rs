//! A TCP proxy that turns toxic on command: it cuts or resets every connection, refuses new ones, forgets those that are open, or
//! holds back the bytes of one direction, so that a test can put a failure exactly between two messages.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// A proxy from a loopback port to one upstream address.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Connections of an earlier generation are cut.
    generation: u64,
    refuse: bool,
    hold_to_client: bool,
    hold_to_server: bool,
    /// Connections up to this one are forgotten: nothing passes, and nobody hears of an end.
    forgotten: u64,
    /// The newest generation that was cut by a reset.
    reset: u64,
    stopped: bool,
    accepted: u64,
    refused: u64,
    to_client: u64,
    to_server: u64,
    open: Vec<(u64, TcpStream, TcpStream)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToClient,
    ToServer,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }
}

impl Proxy {
    /// Starts a proxy on a free loopback port.
    ///
    /// # Panics
    /// When no loopback port can be had.
    #[must_use]
    pub fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback port");
        let port = listener.local_addr().expect("a bound port").port();
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.state().stopped {
                    return;
                }
                if let Ok(client) = client {
                    accept(&accepting, client, upstream);
                }
            }
        });
        Self { port, shared }
    }

    /// A proxy to a port on 127.0.0.1.
    #[must_use]
    pub fn to_port(port: u16) -> Self {
        Self::start(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Cuts every connection now. What was held back is lost.
    pub fn cut(&self) {
        self.shared.change(State::cut);
    }

    /// Resets every connection now (RST to both sides). What was on its way is lost.
    pub fn reset(&self) {
        self.shared.change(State::reset);
    }

    /// Forgets the connections that are open, as a router does that was switched off and on: nothing passes on them any more, and
    /// neither side hears of an end. New ones pass.
    pub fn forget(&self) {
        self.shared.change(|state| state.forgotten = state.accepted);
    }

    /// Cuts new connections as soon as they are made, until told otherwise. Those that are open stay.
    pub fn refuse(&self, refuse: bool) {
        self.shared.change(|state| state.refuse = refuse);
    }

    /// Holds back what the server sends, until told otherwise.
    pub fn hold_to_client(&self, hold: bool) {
        self.shared.change(|state| state.hold_to_client = hold);
    }

    /// Holds back what the client sends, until told otherwise.
    pub fn hold_to_server(&self, hold: bool) {
        self.shared.change(|state| state.hold_to_server = hold);
    }

    /// Connections clients made so far, refused ones included.
    #[must_use]
    pub fn connections(&self) -> u64 {
        let state = self.shared.state();
        state.accepted + state.refused
    }

    /// Bytes passed to the server so far.
    #[must_use]
    pub fn bytes_to_server(&self) -> u64 {
        self.shared.state().to_server
    }

    /// Bytes passed to clients so far.
    #[must_use]
    pub fn bytes_to_client(&self) -> u64 {
        self.shared.state().to_client
    }

    /// Waits until clients made this many connections, refused ones included. Says whether they did within the limit.
    #[must_use]
    pub fn wait_for_connections(&self, count: u64, limit: Duration) -> bool {
        self.wait(limit, |state| state.accepted + state.refused >= count)
    }

    /// Waits until this many bytes were passed to the server. Says whether they were within the limit.
    #[must_use]
    pub fn wait_for_bytes_to_server(&self, count: u64, limit: Duration) -> bool {
        self.wait(limit, |state| state.to_server >= count)
    }

    fn wait(&self, limit: Duration, condition: impl Fn(&State) -> bool) -> bool {
        let state = self.shared.state();
        let (state, _) = self
            .shared
            .changed
            .wait_timeout_while(state, limit, |state| !condition(state))
            .unwrap_or_else(PoisonError::into_inner);
        condition(&state)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.change(|state| {
            state.stopped = true;
            state.cut();
        });
        // Wakes the accepting thread, so that it sees the end.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

impl State {
    fn reset(&mut self) {
        self.reset = self.generation;
        self.generation += 1;
        for (_, client, server) in self.open.drain(..) {
            for socket in [&client, &server] {
                let _ = end_by_reset(socket);
                // Wakes who reads; the reset comes with the last copy of the socket.
                let _ = socket.shutdown(Shutdown::Read);
            }
        }
    }

    fn cut(&mut self) {
        self.generation += 1;
        for (_, client, server) in self.open.drain(..) {
            let _ = client.shutdown(Shutdown::Both);
            let _ = server.shutdown(Shutdown::Both);
        }
    }
}

fn accept(shared: &Arc<Shared>, client: TcpStream, upstream: SocketAddr) {
    let server = if shared.state().refuse {
        None
    } else {
        TcpStream::connect_timeout(&upstream, Duration::from_secs(5)).ok()
    };
    let pair = server
        .and_then(|server| Some(((client.try_clone().ok()?, server.try_clone().ok()?), server)));
    let Some(((client_copy, server_copy), server)) = pair else {
        shared.change(|state| state.refused += 1);
        return;
    };
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let mut generation = 0;
    let mut id = 0;
    let mut copies = None;
    shared.change(|state| {
        state.accepted += 1;
        id = state.accepted;
        generation = state.generation;
        copies = client.try_clone().ok().zip(server.try_clone().ok());
        state.open.push((id, client, server));
    });
    let Some((client, server)) = copies else {
        shared.change(State::cut);
        return;
    };
    let (up, down) = (Arc::clone(shared), Arc::clone(shared));
    thread::spawn(move || {
        pump(
            &up,
            Direction::ToServer,
            generation,
            id,
            client,
            server_copy,
        )
    });
    thread::spawn(move || {
        pump(
            &down,
            Direction::ToClient,
            generation,
            id,
            server,
            client_copy,
        )
    });
}

fn pump(
    shared: &Shared,
    direction: Direction,
    generation: u64,
    id: u64,
    mut from: TcpStream,
    mut to: TcpStream,
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = match from.read(&mut buffer) {
            // Also the end of the one side is nothing that the other hears of, once they are forgotten.
            Ok(0) | Err(_) if shared.state().forgotten < id => break,
            Ok(read) => read,
            Err(_) => 0,
        };
        let state = shared.state();
        let held = |state: &mut State| {
            state.generation == generation
                && (id <= state.forgotten
                    || match direction {
                        Direction::ToClient => state.hold_to_client,
                        Direction::ToServer => state.hold_to_server,
                    })
        };
        let state = shared
            .changed
            .wait_while(state, held)
            .unwrap_or_else(PoisonError::into_inner);
        let cut = state.generation != generation;
        drop(state);
        if cut || to.write_all(&buffer[..read]).is_err() {
            break;
        }
        shared.change(|state| match direction {
            Direction::ToClient => state.to_client += read as u64,
            Direction::ToServer => state.to_server += read as u64,
        });
    }
    let mut state = shared.state();
    if state.generation == generation || state.reset != generation {
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }
    state.open.retain(|(open, ..)| *open != id);
}

/// Makes the end of a connection, when the last copy of its socket is closed, a reset (RST).
pub(crate) fn end_by_reset(socket: &TcpStream) -> io::Result<()> {
    // The standard library cannot do it yet, and the runtime only lends its sockets' option.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let _inside = runtime.enter();
    let copy = socket.try_clone()?;
    copy.set_nonblocking(true)?;
    let copy = tokio::net::TcpStream::from_std(copy)?;
    let set = copy.set_zero_linger();
    drop(copy);
    socket.set_nonblocking(false)?;
    set
}

/// Waits until a condition holds, looking every few milliseconds. Says whether it did within the limit: for conditions of things that
/// cannot wake a waiter.
#[must_use]
pub fn wait_until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= until {
            return false;
        }
        thread::sleep(Duration::from_millis(5));
    }
}
