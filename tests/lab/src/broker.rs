//! An MQTT broker inside the test's process: nothing to install, a port of its own, gone with the test.
//!
//! rumqttd cannot be told to stop, so its server runs on a runtime of ours that is dropped: the sockets close as with a killed
//! process. Sessions live in its router, and every start gets a new one: a restarted broker has forgotten everything. To cut
//! connections and keep the sessions, put a [`crate::proxy::Proxy`] in front.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rumqttd::protocol::v4::V4;
use rumqttd::{ConnectionSettings, LinkType, Router, RouterConfig, Server, ServerSettings};
use tokio::sync::oneshot;

/// Largest packet the broker takes, in bytes.
const MAX_PACKET: usize = 4 * 1024 * 1024;

/// How long a start may take.
const START: Duration = Duration::from_secs(10);

/// A running (or stopped) rumqttd on a loopback port.
#[derive(Debug)]
pub struct Broker {
    port: u16,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Broker {
    /// Starts a broker on a free port.
    ///
    /// # Panics
    /// When no free port can be had.
    #[must_use]
    pub fn start() -> Self {
        // Between choosing a port and listening on it another process may take it.
        for _ in 0..10 {
            let port = free_port();
            if let Ok(running) = launch(port) {
                return Self {
                    port,
                    running: Some(running),
                };
            }
        }
        panic!("no free port for the broker after ten tries");
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `mqtt://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    /// Ends it as a kill would: connections break, sessions and queued messages are lost. Does nothing when it is stopped.
    pub fn stop(&mut self) {
        if let Some(Running { stop, thread }) = self.running.take() {
            let _ = stop.send(());
            let _ = thread.join();
        }
    }

    /// Starts it again on the same port, without any memory of before.
    ///
    /// # Panics
    /// When the port was taken meanwhile.
    pub fn restart(&mut self) {
        self.stop();
        self.running = Some(launch(self.port).expect("the broker's own port is free again"));
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Where [`free_port`] looks: below the range that systems give out by themselves (Linux from 32768 on), and beside vsftpd's of the lab.
const PORTS: std::ops::Range<u16> = 10_000..20_000;

/// A port that was free a moment ago, and that nobody is given who asks the system for any: a program that binds it a little later, or
/// again after its restart, finds it as it is. Each is given out once in a process.
///
/// # Panics
/// When none is free.
#[must_use]
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Processes at the same time begin apart.
    let first = std::process::id().wrapping_mul(97);
    let ports = u32::from(PORTS.end - PORTS.start);
    for _ in 0..ports {
        let nth = first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % ports;
        let port = PORTS.start + u16::try_from(nth).expect("below the length of a range of u16");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no port of {PORTS:?} is free");
}

/// Waits until something accepts on a loopback port; `alive` says whether it still may.
pub(crate) fn wait_for_port(port: u16, limit: Duration, mut alive: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + limit;
    while Instant::now() < until && alive() {
        if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return true;
        }
        thread::sleep(Duration::from_millis(5));
    }
    false
}

fn launch(port: u16) -> Result<Running, String> {
    let settings = ServerSettings {
        name: "lab".into(),
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        tls: None,
        next_connection_delay_ms: 0,
        connections: ConnectionSettings {
            connection_timeout_ms: 10_000,
            max_payload_size: MAX_PACKET,
            max_inflight_count: 100,
            auth: None,
            external_auth: None,
            dynamic_filters: true,
        },
    };
    let router = RouterConfig {
        max_connections: 100,
        max_outgoing_packet_count: 200,
        max_segment_size: 16 * 1024 * 1024,
        max_segment_count: 4,
        custom_segment: None,
        initialized_filters: None,
        ..RouterConfig::default()
    };
    let (stop, stopped) = oneshot::channel();
    let (failed, failure) = mpsc::channel();
    let thread = thread::Builder::new()
        .name("lab-broker".into())
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            let router = Router::new(0, router).spawn();
            let mut server = Server::new(settings, router, V4);
            runtime.block_on(async move {
                tokio::select! {
                    result = server.start(LinkType::Remote) => {
                        let _ = failed.send(format!("{:?}", result.err()));
                    }
                    _ = stopped => {}
                }
            });
        })
        .map_err(|error| error.to_string())?;
    let mut problem = None;
    let up = wait_for_port(port, START, || {
        problem = failure.try_recv().ok();
        problem.is_none()
    });
    if up {
        Ok(Running { stop, thread })
    } else {
        Err(problem.unwrap_or_else(|| "it does not listen".into()))
    }
}
