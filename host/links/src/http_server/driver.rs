//! The task behind a listener: binds, takes connections, and carries out commands. Commands never wait for events, so an agent that
//! waits for us and is waited for makes nobody stand still.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info, warn};

use super::HttpServerOptions;
use super::handler::handle;
use super::routes::Routes;
use super::shared::{Seat, Shared};
use super::stream::{Patient, Stream};
use crate::{LinkCommand, LinkEvent};

/// Largest head of a request in bytes and header fields. hyper needs 8 KiB at least.
const MAX_HEAD: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;

/// When a connection cannot be taken (no descriptors left, say), the next try is not at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// How long callers have to take their last answer when the link ends.
const FAREWELL: Duration = Duration::from_secs(2);

/// Runs until the agent closes a channel.
pub(super) async fn run(
    options: HttpServerOptions,
    tls: Option<Arc<ServerConfig>>,
    address: watch::Sender<Option<SocketAddr>>,
    events: mpsc::Sender<LinkEvent>,
    commands: mpsc::Receiver<LinkCommand>,
) {
    let listen = options.listen;
    let shared = Arc::new(Shared::new(options, events));
    let ending = watch::Sender::new(false);
    let mut connections = JoinSet::new();
    tokio::select! {
        () = obey(&shared, commands) => {}
        () = shared.events.closed() => {}
        () = accept(&shared, tls.map(TlsAcceptor::from), &address, &ending, &mut connections) => {}
    }
    address.send_replace(None);
    shared.exchanges.close();
    ending.send_replace(true);
    let all_gone = async { while connections.join_next().await.is_some() {} };
    let _ = timeout(FAREWELL, all_gone).await;
    connections.shutdown().await;
    debug!(%listen, "HTTP listener ended");
}

/// Carries out commands, each at once, until nobody can send any more.
async fn obey(shared: &Shared, mut commands: mpsc::Receiver<LinkCommand>) {
    while let Some(command) = commands.recv().await {
        match command {
            LinkCommand::Serve(needs) => shared.serve(Routes::new(needs)),
            LinkCommand::Respond { id, response } => shared.exchanges.answer(id, response),
            // What is not said to a listener.
            _ => {}
        }
    }
}

/// Binds, says so, and takes connections as long as it lives. Ends only when nobody listens to events.
async fn accept(
    shared: &Arc<Shared>,
    tls: Option<TlsAcceptor>,
    address: &watch::Sender<Option<SocketAddr>>,
    ending: &watch::Sender<bool>,
    connections: &mut JoinSet<()>,
) {
    let Some(listener) = bind(shared).await else {
        return;
    };
    let local = listener.local_addr().unwrap_or(shared.options.listen);
    info!(address = %local, tls = tls.is_some(), "listening for HTTP");
    address.send_replace(Some(local));
    let up = LinkEvent::Up {
        generation: 1,
        session_present: false,
    };
    if shared.events.send(up).await.is_err() {
        return;
    }
    let mut troubled = false;
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(place) = Arc::clone(&shared.connections).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, from)) => {
                troubled = false;
                let Some(seat) = Seat::take(shared, from) else {
                    debug!(peer = %from.ip(), "too many connections from this address; closed");
                    continue;
                };
                let shared = Arc::clone(shared);
                let ending = ending.subscribe();
                connections.spawn(connection(shared, tls.clone(), stream, place, seat, ending));
            }
            Err(error) if is_the_callers(&error) => {}
            Err(error) => {
                if !troubled {
                    warn!(address = %local, %error, "cannot take connections; trying on");
                }
                troubled = true;
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The caller was gone before we looked; nothing is wrong here.
fn is_the_callers(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// Tries until the port is ours. None when nobody listens to events any more.
async fn bind(shared: &Shared) -> Option<TcpListener> {
    let listen = shared.options.listen;
    let limits = &shared.options.limits;
    let mut wait = limits.backoff_first;
    let mut told = None;
    loop {
        match TcpListener::bind(listen).await {
            Ok(listener) => return Some(listener),
            Err(error) => {
                let reason = format!("cannot listen on {listen}: {error}");
                if told.as_ref() != Some(&reason) {
                    warn!("{reason}; trying on");
                    let reason = reason.clone();
                    shared.events.send(LinkEvent::Down { reason }).await.ok()?;
                }
                told = Some(reason);
            }
        }
        sleep(wait).await;
        wait = wait.saturating_mul(2).min(limits.backoff_max);
    }
}

/// The link ends.
async fn end(ending: &mut watch::Receiver<bool>) {
    let _ = ending.wait_for(|ending| *ending).await;
}

/// Serves one connection to its end. Its place and its seat go with it.
async fn connection(
    shared: Arc<Shared>,
    tls: Option<TlsAcceptor>,
    stream: TcpStream,
    place: OwnedSemaphorePermit,
    seat: Seat,
    mut ending: watch::Receiver<bool>,
) {
    let _ = stream.set_nodelay(true);
    let limits = &shared.options.limits;
    let peer = seat.address;
    let stream = match tls {
        None => Stream::Plain(stream),
        Some(acceptor) => match timeout(limits.handshake_within, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => Stream::Tls(Box::new(stream)),
            Ok(Err(error)) => return debug!(%peer, %error, "TLS handshake failed"),
            Err(_) => return debug!(%peer, "TLS handshake took too long"),
        },
    };
    let io = TokioIo::new(Patient::new(stream, limits.write_within));
    let seat = Arc::new(seat);
    let service = service_fn(|request| {
        let answer = handle(Arc::clone(&shared), Arc::clone(&seat), request);
        async { Ok::<_, Infallible>(answer.await) }
    });
    let mut serving = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head_within)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEAD)
            .serve_connection(io, service)
    );
    let served = tokio::select! {
        served = serving.as_mut() => served,
        () = end(&mut ending) => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = served {
        debug!(%peer, %error, "connection ended");
    }
    drop(place);
}
