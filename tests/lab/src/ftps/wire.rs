//! The control connection: lines in, bytes out, first in the clear and then in TLS.

use std::io::{self, Cursor};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::record::Session;

/// Longest command, and most that is kept while the server is busy, in bytes.
const LIMIT: usize = 64 * 1024;

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// The connection with what was read of it and not used.
pub(super) struct Wire {
    stream: Box<dyn Duplex>,
    buffer: Vec<u8>,
}

/// How a session ends that nobody needs to hear more about.
pub(super) fn over() -> io::Error {
    io::Error::from(io::ErrorKind::ConnectionAborted)
}

/// The session of a TLS connection whose handshake is done.
pub(super) fn session<T>(stream: &TlsStream<T>) -> Session {
    let connection = stream.get_ref().1;
    Session {
        version: connection
            .protocol_version()
            .and_then(|version| version.as_str())
            .unwrap_or("unknown")
            .to_owned(),
        resumed: connection.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
    }
}

impl Wire {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self {
            stream: Box::new(stream),
            buffer: Vec::new(),
        }
    }

    /// The next line without its end. May be dropped and called again.
    pub(super) async fn line(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.buffer.drain(..=end).collect();
                line.truncate(line.trim_ascii_end().len());
                return Ok(line);
            }
            self.fill().await?;
        }
    }

    /// Something was read that is not used yet.
    pub(super) fn is_ahead(&self) -> bool {
        !self.buffer.is_empty()
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Waits for the end of the connection, and keeps what comes before it. May be dropped and called again.
    pub(super) async fn gone(&mut self) -> io::Error {
        loop {
            if let Err(error) = self.fill().await {
                return error;
            }
        }
    }

    /// Answers the TLS handshake that comes next; from then on everything goes through TLS.
    pub(super) async fn secure(&mut self, acceptor: &TlsAcceptor) -> io::Result<Session> {
        let plain = std::mem::replace(&mut self.stream, Box::new(tokio::io::empty()));
        let (reader, writer) = tokio::io::split(plain);
        // What came while the server was silent belongs to the handshake.
        let reader = Cursor::new(std::mem::take(&mut self.buffer)).chain(reader);
        let stream = acceptor.accept(tokio::io::join(reader, writer)).await?;
        let session = session(&stream);
        self.stream = Box::new(stream);
        Ok(session)
    }

    async fn fill(&mut self) -> io::Result<()> {
        if self.buffer.len() >= LIMIT || self.stream.read_buf(&mut self.buffer).await? == 0 {
            return Err(over());
        }
        Ok(())
    }
}
