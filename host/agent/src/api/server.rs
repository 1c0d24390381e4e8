//! The server's side: takes requests off the socket, hands them to the engine, writes its answers back. It decides nothing.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::{ApiCall, ErrorCode, Reply, Request};

/// What one server allows its clients.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Longest request in bytes.
    pub(super) line: u64,
    /// Clients at one time.
    pub(super) clients: usize,
    /// The request has to be there within this.
    pub(super) request: Duration,
    /// A client that does not take an answer within this has gone.
    pub(super) write: Duration,
    /// How often a quiet conversation says that it lives.
    pub(super) alive: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            line: 64 * 1024,
            clients: 32,
            request: Duration::from_secs(10),
            write: Duration::from_secs(10),
            alive: Duration::from_secs(10),
        }
    }
}

/// A running server. Dropping it stops it and removes the socket.
#[derive(Debug)]
pub struct Server {
    task: JoinHandle<()>,
    path: PathBuf,
    identity: (u64, u64),
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
        // Only our own: another agent may have taken the place of a socket that somebody removed.
        if identity(&self.path).is_ok_and(|now| now == self.identity) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|m| (m.dev(), m.ino()))
}

/// Serves the local API at `path`, with mode 0600. A socket that nobody answers on any more is replaced. Must be called in a
/// tokio runtime with I/O and time.
///
/// # Errors
/// `AddrInUse` when another agent answers there; `AlreadyExists` when something is there that is no socket; else what the system says.
pub fn serve(path: &Path, to_engine: mpsc::Sender<ApiCall>) -> io::Result<Server> {
    serve_within(path, to_engine, Limits::default())
}

pub(super) fn serve_within(
    path: &Path,
    to_engine: mpsc::Sender<ApiCall>,
    limits: Limits,
) -> io::Result<Server> {
    refuse_what_is_there(path)?;
    // Bound beside its place and moved there when its mode is right: nobody ever meets it open or half made.
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    match std::fs::remove_file(&temporary) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(named(&temporary, &e)),
        _ => {}
    }
    let listener = UnixListener::bind(&temporary).map_err(|e| named(&temporary, &e))?;
    std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(0o600))
        .map_err(|e| named(&temporary, &e))?;
    std::fs::rename(&temporary, path).map_err(|e| named(path, &e))?;
    let identity = identity(path).map_err(|e| named(path, &e))?;
    let task = tokio::spawn(accept(listener, to_engine, limits));
    Ok(Server {
        task,
        path: path.into(),
        identity,
    })
}

fn named(path: &Path, e: &io::Error) -> io::Error {
    io::Error::new(e.kind(), format!("{}: {e}", path.display()))
}

fn refuse_what_is_there(path: &Path) -> io::Result<()> {
    let found = match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(|e| named(path, &e))?,
    };
    if !found.file_type().is_socket() {
        let text = format!(
            "{} is no socket; remove it, or name another `device.socket`",
            path.display()
        );
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => {
            let text = format!("another agent answers at {}; stop it first", path.display());
            Err(io::Error::new(io::ErrorKind::AddrInUse, text))
        }
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
            ) =>
        {
            Ok(())
        }
        Err(e) => Err(named(path, &e)),
    }
}

async fn accept(listener: UnixListener, to_engine: mpsc::Sender<ApiCall>, limits: Limits) {
    let places = Arc::new(Semaphore::new(limits.clients));
    // Dropped with this task, and with it every conversation.
    let mut conversations = JoinSet::new();
    loop {
        while conversations.try_join_next().is_some() {}
        let mut stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(e) => {
                // Out of descriptors, as a rule: without a pause this loop would take a whole core.
                tracing::warn!("the local API cannot take a client: {e}");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        match Arc::clone(&places).try_acquire_owned() {
            Ok(place) => {
                let to_engine = to_engine.clone();
                conversations.spawn(async move {
                    converse(stream, to_engine, limits).await;
                    drop(place);
                });
            }
            Err(_) => {
                let text = format!(
                    "{} clients are connected already; try again",
                    limits.clients
                );
                // Into an empty socket buffer: this never waits for the client.
                let line = line(&Reply::Error {
                    code: ErrorCode::Unavailable,
                    message: text,
                });
                let _ = timeout(limits.write, stream.write_all(&line)).await;
            }
        }
    }
}

async fn converse(stream: UnixStream, to_engine: mpsc::Sender<ApiCall>, limits: Limits) {
    let (reader, mut writer) = stream.into_split();
    let (reply, mut replies) = mpsc::channel(16);
    match timeout(limits.request, read_request(reader, limits.line)).await {
        Ok(Ok(Some(request))) => {
            let call = ApiCall { request, reply };
            if !matches!(
                timeout(limits.request, to_engine.send(call)).await,
                Ok(Ok(()))
            ) {
                let error = error(
                    ErrorCode::Unavailable,
                    "the agent is starting, stopping or busy; try again in a moment",
                );
                let _ = timeout(limits.write, writer.write_all(&line(&error))).await;
                return;
            }
        }
        Ok(Ok(None)) => return,
        Ok(Err(fault)) => {
            let _ = timeout(
                limits.write,
                writer.write_all(&line(&error(ErrorCode::Invalid, &fault))),
            )
            .await;
            return;
        }
        Err(_) => {
            let error = error(
                ErrorCode::Invalid,
                "no request came in time; send one line of JSON",
            );
            let _ = timeout(limits.write, writer.write_all(&line(&error))).await;
            return;
        }
    }
    let mut alive =
        tokio::time::interval_at(tokio::time::Instant::now() + limits.alive, limits.alive);
    loop {
        let text = tokio::select! {
            reply = replies.recv() => match reply {
                Some(reply) => line(&reply),
                None => return,
            },
            _ = alive.tick() => b"\n".to_vec(),
        };
        if !matches!(
            timeout(limits.write, writer.write_all(&text)).await,
            Ok(Ok(()))
        ) {
            return;
        }
    }
}

fn error(code: ErrorCode, message: &str) -> Reply {
    Reply::Error {
        code,
        message: message.into(),
    }
}

fn line(reply: &Reply) -> Vec<u8> {
    let mut text = serde_json::to_vec(reply).expect("a reply has string keys only");
    text.push(b'\n');
    text
}

/// `None` when the client left without a word.
async fn read_request(
    reader: tokio::net::unix::OwnedReadHalf,
    limit: u64,
) -> Result<Option<Request>, String> {
    let mut text = Vec::new();
    let read = BufReader::new(reader.take(limit))
        .read_until(b'\n', &mut text)
        .await;
    if read.map_err(|e| format!("the request could not be read: {e}"))? == 0 {
        return Ok(None);
    }
    if text.last() != Some(&b'\n') && text.len() as u64 >= limit {
        return Err(format!("the request has more than {limit} bytes"));
    }
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|e| format!("the request cannot be understood: {e}"))
}
