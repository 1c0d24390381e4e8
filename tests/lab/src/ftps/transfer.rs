//! One data connection: opened after the command, judged by its TLS session, and ended as the test ordered.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::control::{Control, code};
use super::record::{Data, Retrieval, Session};
use super::script::Fault;
use super::wire::{over, session};
use super::{Reuse, Shared};

/// How long a client may take to open the data connection.
const OPENING: Duration = Duration::from_secs(30);

/// How long the end of a data connection waits for the client's.
const LINGERING: Duration = Duration::from_secs(10);

/// Bytes sent at once.
const CHUNK: usize = 64 * 1024;

/// What came of sending.
enum Sent {
    All,
    ClientWent,
}

impl Control {
    /// Sends bytes over the data connection that was agreed upon, from an offset on.
    pub(super) async fn transfer(
        &mut self,
        verb: &str,
        path: &[u8],
        bytes: Arc<[u8]>,
        rest: u64,
    ) -> io::Result<()> {
        if !self.private {
            let line = "521 Data connections are secret here: PROT P comes first.";
            return self.reply(line).await;
        }
        let Some(listener) = self.passive.take() else {
            return self.reply("425 PASV or EPSV comes first.").await;
        };
        let fault = self.shared.change(|state| state.faults.take(path));
        if let Some(Fault::Refuse(line)) = &fault {
            return self.reply(line).await;
        }
        let retrieval = (verb == "RETR").then(|| {
            self.note(|connection| {
                connection.retrievals.push(Retrieval {
                    path: String::from_utf8_lossy(path).into_owned(),
                    offset: rest,
                    sent: 0,
                    reply: 0,
                });
                connection.retrievals.len() - 1
            })
        });
        self.reply("150 Here it comes.").await?;
        let accepted = tokio::select! {
            accepted = tokio::time::timeout(OPENING, listener.accept()) => accepted,
            error = self.wire.gone() => return Err(error),
        };
        drop(listener);
        let Ok(Ok((stream, _))) = accepted else {
            let line = "425 Nobody came to the data connection.";
            return self.finish(retrieval, line).await;
        };
        let _ = stream.set_nodelay(true);
        let Some(stream) = self.open(verb, stream, fault.as_ref()).await? else {
            let line = "425 No TLS on the data connection.";
            return self.finish(retrieval, line).await;
        };
        if let Some(line) = refusal(self.settings.options.reuse, &session(&stream)) {
            self.note(|connection| {
                if let Some(data) = connection.data.last_mut() {
                    data.refused = true;
                }
            });
            end_in_good_order(stream).await;
            return self.finish(retrieval, line).await;
        }
        let from = if fault == Some(Fault::IgnoreRest) {
            0
        } else {
            usize::try_from(rest).unwrap_or(usize::MAX).min(bytes.len())
        };
        if self.binary {
            self.deliver(stream, &bytes[from..], fault, retrieval).await
        } else {
            let text = with_long_line_ends(&bytes[from..]);
            self.deliver(stream, &text, fault, retrieval).await
        }
    }

    /// Answers the handshake of the data connection. None: there was none, or it failed.
    async fn open(
        &mut self,
        verb: &str,
        mut stream: TcpStream,
        fault: Option<&Fault>,
    ) -> io::Result<Option<TlsStream<TcpStream>>> {
        let handshake = if fault == Some(&Fault::NoHandshake) {
            self.hush(&mut stream).await?;
            Err(over())
        } else {
            tokio::select! {
                result = self.settings.data.accept(stream) => result,
                error = self.wire.gone() => return Err(error),
            }
        };
        self.note(|connection| {
            connection.data.push(Data {
                verb: verb.to_owned(),
                tls: handshake.as_ref().ok().map(session),
                refused: false,
            });
        });
        Ok(handshake.ok())
    }

    /// Sends, ends the data connection and says how it went, with whatever fault was ordered.
    async fn deliver(
        &mut self,
        mut stream: TlsStream<TcpStream>,
        bytes: &[u8],
        fault: Option<Fault>,
        retrieval: Option<usize>,
    ) -> io::Result<()> {
        let stop = match &fault {
            Some(
                Fault::CutAfter(count)
                | Fault::DropAfter(count)
                | Fault::StallAfter(count)
                | Fault::ShortAfter(count),
            ) => usize::try_from(*count)
                .unwrap_or(usize::MAX)
                .min(bytes.len()),
            _ => bytes.len(),
        };
        let (first, second) = bytes.split_at(stop);
        let mut sent = self.push(&mut stream, first, retrieval).await?;
        match (&sent, &fault) {
            (Sent::All, Some(Fault::StallAfter(_))) => {
                sent = if self.hush(&mut stream).await? {
                    self.push(&mut stream, second, retrieval).await?
                } else {
                    Sent::ClientWent
                };
            }
            (Sent::All, Some(Fault::Longer(count))) => {
                let zeros = vec![0; usize::try_from(*count).unwrap_or(usize::MAX)];
                sent = self.push(&mut stream, &zeros, retrieval).await?;
            }
            _ => {}
        }
        if matches!(sent, Sent::ClientWent) {
            let line = "426 The data connection broke.";
            return self.finish(retrieval, line).await;
        }
        match fault {
            Some(Fault::CutAfter(_)) => {
                end_abruptly(stream);
                self.finish(retrieval, "426 The data connection broke.")
                    .await
            }
            Some(Fault::DropAfter(_)) => {
                end_abruptly(stream);
                Err(over())
            }
            Some(Fault::NoCloseNotify) => {
                end_abruptly(stream);
                self.finish(retrieval, "226 Done.").await
            }
            Some(Fault::Final(line)) => {
                end_in_good_order(stream).await;
                self.finish(retrieval, &line).await?;
                if code(&line) == 421 {
                    Err(over())
                } else {
                    Ok(())
                }
            }
            Some(Fault::ThenIdle) => {
                end_in_good_order(stream).await;
                self.finish(retrieval, "226 Done.").await?;
                self.send("421 Timeout.").await?;
                Err(over())
            }
            Some(Fault::NoFinalReply) => {
                end_in_good_order(stream).await;
                self.silence().await?;
                self.finish(retrieval, "226 Done.").await
            }
            _ => {
                end_in_good_order(stream).await;
                self.finish(retrieval, "226 Done.").await
            }
        }
    }

    /// Sends bytes and counts them.
    async fn push(
        &mut self,
        stream: &mut TlsStream<TcpStream>,
        bytes: &[u8],
        retrieval: Option<usize>,
    ) -> io::Result<Sent> {
        let (shared, id) = (Arc::clone(&self.shared), self.id);
        tokio::select! {
            sent = send(&shared, id, stream, bytes, retrieval) => Ok(sent),
            error = self.wire.gone() => Err(error),
        }
    }

    /// Says nothing until the test lets it go on (true) or the client closes the data connection (false). An error when the client
    /// closes the control connection.
    async fn hush(&mut self, data: &mut (impl AsyncRead + Unpin)) -> io::Result<bool> {
        let mut released = self.shared.released.subscribe();
        self.note(|connection| connection.silent = true);
        let result = tokio::select! {
            _ = released.changed() => Ok(true),
            () = drain(data) => Ok(false),
            error = self.wire.gone() => Err(error),
        };
        self.note(|connection| connection.silent = false);
        result
    }

    /// Says how a transfer went.
    async fn finish(&mut self, retrieval: Option<usize>, line: &str) -> io::Result<()> {
        if let Some(retrieval) = retrieval {
            self.note(|connection| connection.retrievals[retrieval].reply = code(line));
        }
        self.send(line).await
    }
}

/// What the server says to a data connection with this session, if it refuses it.
fn refusal(reuse: Reuse, session: &Session) -> Option<&'static str> {
    match reuse {
        Reuse::NotAsked => None,
        Reuse::Required(line) => (!session.resumed).then_some(line),
        Reuse::RequiredAndNeverOnTls13(line) => {
            (!session.resumed || session.version == "TLSv1_3").then_some(line)
        }
    }
}

async fn send(
    shared: &Shared,
    id: usize,
    stream: &mut TlsStream<TcpStream>,
    bytes: &[u8],
    retrieval: Option<usize>,
) -> Sent {
    let mut left = bytes;
    while !left.is_empty() {
        let throttle = shared.change(|state| state.throttle);
        let most = throttle.map_or(CHUNK, |rate| {
            usize::try_from(rate / 20).unwrap_or(CHUNK).clamp(1, CHUNK)
        });
        let (chunk, rest) = left.split_at(most.min(left.len()));
        if stream.write_all(chunk).await.is_err() || stream.flush().await.is_err() {
            return Sent::ClientWent;
        }
        if let Some(retrieval) = retrieval {
            shared.change(|state| {
                state.connections[id].retrievals[retrieval].sent += chunk.len() as u64;
            });
        }
        left = rest;
        if let Some(rate) = throttle {
            tokio::time::sleep(Duration::from_secs_f64(
                chunk.len() as f64 / rate.max(1) as f64,
            ))
            .await;
        }
    }
    Sent::All
}

/// Reads and forgets until there is nothing more.
async fn drain(data: &mut (impl AsyncRead + Unpin)) {
    let mut buffer = [0; 4096];
    while matches!(data.read(&mut buffer).await, Ok(count) if count > 0) {}
}

/// close_notify, then the end of the TCP connection.
async fn end_in_good_order(mut stream: TlsStream<TcpStream>) {
    let _ = stream.shutdown().await;
    linger(stream.into_inner().0);
}

/// The end of the TCP connection without close_notify.
fn end_abruptly(stream: TlsStream<TcpStream>) {
    linger(stream.into_inner().0);
}

/// Ends our side and waits for the client's: closing at once would throw away what the client has not read yet, whenever there is
/// something that we have not read.
fn linger(mut stream: TcpStream) {
    tokio::spawn(async move {
        let _ = stream.shutdown().await;
        let _ = tokio::time::timeout(LINGERING, drain(&mut stream)).await;
    });
}

/// As ASCII mode sends a file: a carriage return before every line feed.
fn with_long_line_ends(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes.len());
    for byte in bytes {
        if *byte == b'\n' && text.last() != Some(&b'\r') {
            text.push(b'\r');
        }
        text.push(*byte);
    }
    text
}
