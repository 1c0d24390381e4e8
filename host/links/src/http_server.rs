//! HTTP in: what platforms call. A listener is the one link that strangers speak to first, so this module's work is to say no: what
//! reaches an adapter is authenticated, complete, within its limits and on a route that was granted, and gets exactly one answer.
//!
//! - **Routes.** An exact method and an exact path. The path is percent-decoded once and never normalised: `//`, `..` and a slash at
//!   the end make another path. Unknown path 404, another method 405 with `Allow`, before the first [`LinkCommand::Serve`] 503.
//! - **Callers.** The host checks HTTP Basic (RFC 7617) in constant time over all pairs and shows the adapter nothing but the
//!   principal: `Authorization`, `Proxy-Authorization` and `Cookie` are taken out. Otherwise 401 with a challenge. Without TLS everybody
//!   on the way can read the password: listen on the address of the private network (an APN's, say) and on no other.
//! - **Limits.** Requests a minute for each peer address, and apart from them failed authentications (429 with `Retry-After`); they
//!   slow down the peer they belong to and lock out nobody: after a wrong password the right one is let in, at worst after
//!   `60 s / failures_per_minute`. A request without any `Authorization` is no failed one, because many clients ask first without.
//!   An IPv6 peer is its /64 network. Connections in all and for each peer, requests at once (503), the head in bytes, fields and time
//!   (also the time a connection may idle), the request target (414), the body by route (413) and in time (408), and the time in
//!   which a caller must have taken its answer, are limited as well. Nothing is queued without a bound.
//! - **Answers.** A request becomes [`LinkEvent::Request`] with a number and is answered by [`LinkCommand::Respond`]. Without an answer
//!   in time the caller gets 504, and [`LinkEvent::Withdrawn`] says so, as it does when the caller went away. Answers that nobody
//!   waits for are ignored and counted. An answer that HTTP does not allow becomes a 500; `Content-Length` and hop-by-hop headers are ours.
//! - **What the host itself answers** (400, 401, 404, 405, 408, 413, 414, 429, 500, 503, 504) is `application/json`:
//!   `{"status":401,"message":"…"}`. It is nobody's protocol: the envelope of a vendor is its adapter's. A head that is not HTTP, or too
//!   large (431), is answered without a body and ends the connection.
//!
//! # Behind the kit's own server
//!
//! Where another server owns the port, listen on loopback and let it pass requests on. It then makes the TLS and must limit the
//! callers, because to this link they are all one peer: `X-Forwarded-For` is not trusted, it is data for the adapter. Raise
//! `per_minute` to the sum of all callers, and switch `failures_per_minute` off (0), or a stranger's guesses slow down the platform.
//!
//! ```nginx
//! limit_req_zone $binary_remote_addr zone=ota:1m rate=60r/m;
//!
//! location /api/ {
//!     limit_req zone=ota burst=20 nodelay;
//!     client_max_body_size 256k;
//!     # No path behind the port: the request target is passed on as it came. Authorization is passed on by itself; no auth_basic here.
//!     proxy_pass http://127.0.0.1:8112;
//!     proxy_http_version 1.1;
//!     proxy_set_header Connection "";
//!     proxy_set_header Host $host;
//!     # Longer than answer_within, so that the 504 is ours and the request is withdrawn.
//!     proxy_read_timeout 20s;
//! }
//! ```

mod answers;
mod callers;
mod driver;
mod exchange;
mod handler;
mod headers;
mod identity;
mod options;
mod peers;
mod routes;
mod shared;
mod stream;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ServerConfig;
use tokio::sync::{mpsc, watch};

pub use options::{Callers, HttpServerOptions, Identity, Limits, LinkError};

use crate::{Kind, Link, LinkCommand, LinkEvent};

/// Largest body, in bytes, in both directions.
pub const MAX_BODY: usize = 256 * 1024;

/// Commands taken ahead. They are carried out at once, so few are ever there.
const COMMANDS: usize = 64;

/// One HTTP listener, kept up.
#[derive(Clone)]
pub struct HttpServer {
    options: HttpServerOptions,
    tls: Option<Arc<ServerConfig>>,
    address: watch::Sender<Option<SocketAddr>>,
}

impl HttpServer {
    /// A listener that is not started.
    ///
    /// # Errors
    /// An option out of its range, or a TLS identity that cannot be used; the text names which and what is right.
    pub fn new(options: HttpServerOptions) -> Result<Self, LinkError> {
        options.check()?;
        let tls = options.tls.as_ref().map(identity::config).transpose()?;
        Ok(Self {
            options,
            tls,
            address: watch::Sender::new(None),
        })
    }

    /// Where it listens: none until the port is bound and after the end. With port 0 this is how the port is learnt.
    pub fn local_addr(&self) -> watch::Receiver<Option<SocketAddr>> {
        self.address.subscribe()
    }
}

impl fmt::Debug for HttpServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpServer")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Link for HttpServer {
    /// Needs a tokio runtime. Says `Up` when it listens; while the port is taken `Down`, and it tries again. Ends when the command
    /// channel or the event channel closes: callers who wait get 503.
    fn start(&self, events: mpsc::Sender<LinkEvent>) -> mpsc::Sender<LinkCommand> {
        let (sender, commands) = mpsc::channel(COMMANDS);
        tokio::spawn(driver::run(
            self.options.clone(),
            self.tls.clone(),
            self.address.clone(),
            events,
            commands,
        ));
        sender
    }

    fn kind(&self) -> Kind {
        Kind::HttpServer
    }
}
