//! The client's side, for the command line: blocking, with time-outs.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Reply, Request};

/// The server says at least every 10 s that it lives.
const SILENCE: Duration = Duration::from_secs(45);
/// The longest answer that is taken.
const MAX_LINE: u64 = 16 * 1024 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody answers on the socket.
    #[error("no agent answers at {}: {source}", path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The conversation broke off, or nothing came for too long.
    #[error("the agent stopped answering: {0}")]
    Broken(io::Error),
    /// The answer is none that this version knows.
    #[error("the agent's answer cannot be understood: {0}")]
    Malformed(String),
}

/// Asks the agent at one socket.
#[derive(Debug, Clone)]
pub struct Client {
    path: PathBuf,
    silence: Duration,
}

impl Client {
    /// A client for the agent at this socket; nothing is opened yet.
    pub fn new(path: &Path) -> Self {
        Client {
            path: path.into(),
            silence: SILENCE,
        }
    }

    /// The socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Sends a request.
    ///
    /// # Errors
    /// Nobody answers there, or the request could not be sent.
    pub fn call(&self, request: &Request) -> Result<Replies, CallError> {
        let unreachable = |source| CallError::Unreachable {
            path: self.path.clone(),
            source,
        };
        let mut stream = UnixStream::connect(&self.path).map_err(unreachable)?;
        stream
            .set_read_timeout(Some(self.silence))
            .map_err(unreachable)?;
        stream
            .set_write_timeout(Some(self.silence))
            .map_err(unreachable)?;
        let mut line =
            serde_json::to_vec(request).map_err(|e| CallError::Malformed(e.to_string()))?;
        line.push(b'\n');
        // A server that has no place left answers and closes without reading.
        match stream.write_all(&line) {
            Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(CallError::Broken(e)),
            _ => Ok(Replies {
                reader: BufReader::new(stream),
            }),
        }
    }

    /// Sends a request that has one answer.
    ///
    /// # Errors
    /// As [`Client::call`]; or no answer came.
    pub fn ask(&self, request: &Request) -> Result<Reply, CallError> {
        match self.call(request)?.next() {
            Some(reply) => reply,
            None => Err(CallError::Broken(io::ErrorKind::UnexpectedEof.into())),
        }
    }
}

/// The answers to one request, until the server closes.
#[derive(Debug)]
pub struct Replies {
    reader: BufReader<UnixStream>,
}

impl Iterator for Replies {
    type Item = Result<Reply, CallError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let mut line = Vec::new();
            match self
                .reader
                .by_ref()
                .take(MAX_LINE)
                .read_until(b'\n', &mut line)
            {
                Ok(0) => return None,
                // Cut off in the middle of a line, or longer than anything that makes sense.
                Ok(_) if line.last() != Some(&b'\n') => {
                    return Some(Err(CallError::Broken(io::ErrorKind::UnexpectedEof.into())));
                }
                Ok(1) => {}
                Ok(_) => {
                    return Some(
                        serde_json::from_slice(&line)
                            .map_err(|e| CallError::Malformed(e.to_string())),
                    );
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    return Some(Err(CallError::Broken(io::ErrorKind::TimedOut.into())));
                }
                Err(e) => return Some(Err(CallError::Broken(e))),
            }
        }
    }
}
