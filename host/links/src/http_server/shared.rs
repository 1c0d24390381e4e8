//! What the tasks of one listener share.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use super::HttpServerOptions;
use super::callers::Gate;
use super::exchange::Exchanges;
use super::peers::{Peer, Peers};
use super::routes::Routes;
use crate::LinkEvent;

pub(super) struct Shared {
    pub(super) options: HttpServerOptions,
    pub(super) gate: Gate,
    pub(super) events: mpsc::Sender<LinkEvent>,
    pub(super) exchanges: Exchanges,
    /// One permit for each request that waits for its answer.
    pub(super) parallel: Arc<Semaphore>,
    /// One permit for each connection.
    pub(super) connections: Arc<Semaphore>,
    routes: RwLock<Arc<Routes>>,
    peers: Mutex<Peers>,
    started: Instant,
}

impl Shared {
    pub(super) fn new(options: HttpServerOptions, events: mpsc::Sender<LinkEvent>) -> Self {
        let limits = &options.limits;
        Self {
            gate: Gate::new(&options.callers, &options.realm),
            events,
            exchanges: Exchanges::default(),
            parallel: Arc::new(Semaphore::new(options.parallel)),
            connections: Arc::new(Semaphore::new(limits.connections)),
            routes: RwLock::default(),
            peers: Mutex::new(Peers::new(
                options.per_minute,
                limits.failures_per_minute,
                limits.connections_per_peer,
            )),
            started: Instant::now(),
            options,
        }
    }

    pub(super) fn routes(&self) -> Arc<Routes> {
        self.routes
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn serve(&self, routes: Routes) {
        *self.routes.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(routes);
    }

    /// Time as the table of peers counts it.
    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) fn peers(&self) -> MutexGuard<'_, Peers> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place among those of its peer; given back when it ends.
pub(super) struct Seat {
    pub(super) peer: Peer,
    pub(super) address: IpAddr,
    shared: Arc<Shared>,
}

impl Seat {
    /// None when the peer has too many connections.
    pub(super) fn take(shared: &Arc<Shared>, address: SocketAddr) -> Option<Self> {
        let peer = shared.peers().connect(address.ip(), shared.now())?;
        Some(Self {
            peer,
            address: address.ip(),
            shared: Arc::clone(shared),
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.shared.peers().disconnect(self.peer);
    }
}
