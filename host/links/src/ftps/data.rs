//! A data connection: made to the control connection's peer, in the control connection's TLS session, read to an end that says how
//! it came.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustls::HandshakeKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tracing::debug;

use super::control::Session;
use super::reply::Reply;
use super::{EXPLANATION, FtpsError};

/// Room made for a read, in bytes: some records of TLS.
const ROOM: usize = 64 * 1024;

/// Longest wait for our close_notify to leave.
const CLOSING: Duration = Duration::from_secs(1);

/// An open data connection.
pub(super) struct Data {
    stream: TlsStream<TcpStream>,
    buffer: BytesMut,
    /// The first byte of the file that comes.
    pub(super) offset: u64,
}

/// What a read gives.
pub(super) enum Read {
    Bytes(Bytes),
    End(End),
}

/// How the bytes ended.
pub(super) struct End {
    /// With TLS's own close_notify: nobody cut it.
    pub(super) clean: bool,
    /// What the server says about it, or why it says nothing.
    pub(super) reply: Result<Reply, FtpsError>,
}

/// Why there is no data connection, or nothing on it.
pub(super) enum Obstacle {
    /// The command was answered with this.
    Refused(Reply),
    /// The server wants the TLS session resumed, and says so.
    Session(Reply),
    Failed(FtpsError),
}

impl From<FtpsError> for Obstacle {
    fn from(error: FtpsError) -> Self {
        Obstacle::Failed(error)
    }
}

impl Data {
    /// Opens a data connection and sends the command it is for. With `from` over zero that is preceded by `REST`; where the server
    /// refuses that, the bytes start at 0 ([`Data::offset`]).
    ///
    /// The first read is done here too, because only then a server that refuses the TLS session has said so. `limit` is the longest
    /// wait for the server's word on an end that comes at once.
    pub(super) async fn open(
        session: &mut Session,
        command: &str,
        from: u64,
        limit: Duration,
    ) -> Result<(Self, Read), Obstacle> {
        let (connect_timeout, idle_timeout) = {
            let options = &session.shared.options;
            (options.connect_timeout, options.idle_timeout)
        };
        let address = passive(session).await?;
        let tcp = timeout(connect_timeout, TcpStream::connect(address)).await;
        let tcp = match tcp {
            Err(_) => Err(session
                .shared
                .stalled("no data connection", connect_timeout)),
            Ok(Err(error)) => Err(session
                .shared
                .broken(format_args!("no data connection: {error}"))),
            Ok(Ok(tcp)) => Ok(tcp),
        }?;
        let mut offset = from;
        if from > 0 {
            // RFC 3659, 5.3: right before the command; some servers forget it otherwise.
            let reply = session.ask(format!("REST {from}")).await?;
            if reply.code != 350 {
                debug!(
                    from,
                    code = reply.code,
                    "REST is refused; starting over at byte 0"
                );
                offset = 0;
            }
        }
        let reply = session.ask(command).await?;
        if !matches!(reply.code, 125 | 150) {
            return Err(if reply.refuses_session(None) {
                Obstacle::Session(reply)
            } else {
                Obstacle::Refused(reply)
            });
        }
        let handshake = session.connector().connect(session.server_name(), tcp);
        let why = match timeout(connect_timeout, handshake).await {
            Ok(Ok(stream)) => {
                let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
                let mut data = Self {
                    stream,
                    buffer: BytesMut::new(),
                    offset,
                };
                debug!(resumed, "data connection");
                let first = data.read(session, limit).await?;
                if let Read::End(End {
                    reply: Ok(reply), ..
                }) = &first
                    && reply.refuses_session(Some(resumed))
                {
                    return Err(Obstacle::Session(reply.clone()));
                }
                return Ok((data, first));
            }
            Ok(Err(error)) => session.shared.tls_error(&error.to_string()),
            Err(_) => session
                .shared
                .stalled("no TLS on the data connection", connect_timeout),
        };
        if matches!(why, FtpsError::Trust(_)) {
            return Err(why.into());
        }
        match session.reply(EXPLANATION.min(idle_timeout)).await {
            Ok(reply) if reply.refuses_session(None) => Err(Obstacle::Session(reply)),
            Ok(reply) if !matches!(why, FtpsError::Stalled(_)) => Err(session
                .shared
                .broken(format_args!("no data connection: {}", reply.shown()))
                .into()),
            _ => Err(why.into()),
        }
    }

    /// The next bytes, or how they ended. `limit` is the longest wait for the server's word on the end.
    pub(super) async fn read(
        &mut self,
        session: &mut Session,
        limit: Duration,
    ) -> Result<Read, FtpsError> {
        let idle_timeout = session.shared.options.idle_timeout;
        if self.buffer.capacity() < ROOM / 4 {
            self.buffer.reserve(ROOM);
        }
        let clean = match timeout(idle_timeout, self.stream.read_buf(&mut self.buffer)).await {
            Err(_) => return Err(session.shared.stalled("nothing came", idle_timeout)),
            Ok(Ok(0)) => true,
            Ok(Ok(_)) => return Ok(Read::Bytes(self.buffer.split().freeze())),
            Ok(Err(error)) => {
                if error.kind() != io::ErrorKind::UnexpectedEof {
                    debug!(%error, "the data connection broke");
                }
                false
            }
        };
        // Servers take a client that does not close TLS properly for one that gave up (426 after all bytes).
        let _ = timeout(CLOSING, self.stream.shutdown()).await;
        let reply = session.reply(limit).await;
        Ok(Read::End(End { clean, reply }))
    }
}

/// Where the data connection goes: the address is the control connection's.
async fn passive(session: &mut Session) -> Result<SocketAddr, Obstacle> {
    let mut address = session.peer();
    let extended = address.ip().to_canonical().is_ipv6();
    let mut reply = if extended {
        session.ask("EPSV").await?
    } else {
        session.ask("PASV").await?
    };
    if !extended && (500..600).contains(&reply.code) {
        reply = session.ask("EPSV").await?;
    }
    let port = match reply.code {
        227 => reply.passive_port(),
        229 => reply.extended_port(),
        _ => None,
    };
    let Some(port) = port else {
        return Err(session
            .shared
            .broken(format_args!(
                "the server names no data port: {}",
                reply.shown()
            ))
            .into());
    };
    address.set_port(port);
    Ok(address)
}
