//! One connection of the file server: reads a request, answers it as planned.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::{Content, Fault, Request, Shared, Stored};
use crate::proxy::end_by_reset;

/// Largest head of a request, in bytes.
const MAX_HEAD: u64 = 32 * 1024;

/// Bytes written at once; smaller when throttled, so that progress is smooth.
const PIECE: usize = 256 * 1024;

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// What an answer sends after its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Whole,
    CutAfter(u64),
    ResetAfter(u64),
    StallAfter(u64),
    Extra(u64),
}

pub(super) fn serve(
    shared: &Shared,
    stream: TcpStream,
    tls: Option<Arc<ServerConfig>>,
) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.set_nodelay(true)?;
    let socket = stream.try_clone()?;
    let mut stream: Box<dyn Stream> = match tls {
        None => Box::new(stream),
        Some(config) => Box::new(StreamOwned::new(
            ServerConnection::new(config).map_err(io::Error::other)?,
            stream,
        )),
    };
    let Some(request) = read_request(&mut stream)? else {
        return Ok(());
    };
    let name = request
        .path
        .strip_prefix("/public/")
        .unwrap_or_default()
        .to_owned();
    let guard = shared.state().guard.clone();
    let refused = guard.and_then(|guard| (guard.0)(&request));
    let (index, releases, content, fault) = shared.change(|state| {
        state.requests.push(request.clone());
        let fault = refused.or_else(|| take_fault(state.faults.get_mut(&name)));
        (
            state.requests.len() - 1,
            state.releases,
            state.files.get(&name).cloned(),
            fault,
        )
    });
    let answering = Answering {
        shared,
        index,
        releases,
        head_only: request.method == "HEAD",
    };
    let result = answering.answer(&mut stream, &socket, &request, content, fault);
    let _ = stream.flush();
    // The end of a connection that is to be reset comes with its last copy, in place of this one.
    if !matches!(result, Ok(true)) {
        let _ = socket.shutdown(Shutdown::Both);
    }
    result.map(|_reset| ())
}

fn take_fault(planned: Option<&mut std::collections::VecDeque<super::Planned>>) -> Option<Fault> {
    let planned = planned?;
    loop {
        let first = planned.front_mut()?;
        match &mut first.left {
            None => return Some(first.fault.clone()),
            Some(0) => {
                planned.pop_front();
            }
            Some(left) => {
                *left -= 1;
                return Some(first.fault.clone());
            }
        }
    }
}

fn read_request(stream: &mut Box<dyn Stream>) -> io::Result<Option<Request>> {
    let mut reader = BufReader::new(stream.as_mut().take(MAX_HEAD));
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        return Ok(None);
    };
    let (path, query) = target
        .split_once('?')
        .map_or((target, None), |(path, query)| {
            (path, Some(query.to_owned()))
        });
    let (method, path) = (method.to_owned(), path.to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    Ok(Some(Request {
        method,
        path,
        query,
        headers,
        status: 0,
        offset: 0,
        sent: 0,
    }))
}

struct Answering<'a> {
    shared: &'a Shared,
    index: usize,
    /// Releases before this request: who has seen that it is here can release it, however far its answer is.
    releases: u64,
    head_only: bool,
}

impl Answering<'_> {
    /// Says whether the connection is to end by a reset.
    fn answer(
        &self,
        stream: &mut Box<dyn Stream>,
        socket: &TcpStream,
        request: &Request,
        content: Option<Content>,
        fault: Option<Fault>,
    ) -> io::Result<bool> {
        let plain = |stream: &mut Box<dyn Stream>, status, headers: &[_], body: &[u8]| {
            self.plain(stream, status, headers, body).map(|()| false)
        };
        if !matches!(request.method.as_str(), "GET" | "HEAD") {
            return plain(stream, 405, &[], b"only GET and HEAD\n");
        }
        match &fault {
            Some(Fault::Mute) => {
                self.stall(socket);
                return Ok(false);
            }
            Some(Fault::Redirect { status, location }) => {
                return plain(
                    stream,
                    *status,
                    &[("Location".into(), location.clone())],
                    b"",
                );
            }
            Some(Fault::Status {
                status,
                headers,
                body,
            }) => return plain(stream, *status, headers, body),
            _ => {}
        }
        let Some(content) = content else {
            return plain(stream, 404, &[], b"no such file\n");
        };
        let mut headers = vec![("Accept-Ranges".to_owned(), "bytes".to_owned())];
        if fault != Some(Fault::NoValidator) {
            headers.push(("ETag".into(), content.etag()));
            headers.push(("Last-Modified".into(), content.last_modified()));
        }
        let range = if fault == Some(Fault::IgnoreRange) {
            None
        } else {
            asked_range(request, &content)
        };
        let (mut first, last) = match range {
            Some(Err(())) => {
                headers.push((
                    "Content-Range".into(),
                    format!("bytes */{}", content.length),
                ));
                return plain(stream, 416, &headers, b"");
            }
            Some(Ok((first, last))) => (first, last),
            None => (0, content.length.saturating_sub(1)),
        };
        let status = if range.is_some() { 206 } else { 200 };
        if let (Some(Fault::WrongOffset(offset)), Some(_)) = (&fault, &range) {
            first = (*offset).min(last);
        }
        if range.is_some() {
            headers.push(match &fault {
                Some(Fault::ContentRange(lie)) => ("Content-Range".into(), lie.clone()),
                _ => (
                    "Content-Range".into(),
                    format!("bytes {first}-{last}/{}", content.length),
                ),
            });
        }
        let length = if content.length == 0 {
            0
        } else {
            last - first + 1
        };
        self.shared.change(|state| {
            state.requests[self.index].offset = first;
        });
        let (chunked, send, end) = match fault {
            Some(Fault::CutAfter(bytes)) => (false, length, End::CutAfter(bytes)),
            Some(Fault::ResetAfter(bytes)) => (false, length, End::ResetAfter(bytes)),
            Some(Fault::StallAfter(bytes)) => (false, length, End::StallAfter(bytes)),
            Some(Fault::Overrun(bytes)) => (false, length, End::Extra(bytes)),
            Some(Fault::Longer(bytes)) => (true, length, End::Extra(bytes)),
            Some(Fault::Shorter(bytes)) => (true, length.saturating_sub(bytes), End::Whole),
            _ => (false, length, End::Whole),
        };
        headers.push(if chunked {
            ("Transfer-Encoding".into(), "chunked".into())
        } else {
            ("Content-Length".into(), length.to_string())
        });
        self.head(stream, status, &headers)?;
        if self.head_only {
            return Ok(false);
        }
        self.body(stream, socket, &content, first, send, end, chunked)
    }

    /// A short answer that is no file.
    fn plain(
        &self,
        stream: &mut Box<dyn Stream>,
        status: u16,
        headers: &[(String, String)],
        body: &[u8],
    ) -> io::Result<()> {
        let mut headers = headers.to_vec();
        headers.push(("Content-Length".into(), body.len().to_string()));
        self.head(stream, status, &headers)?;
        if self.head_only {
            Ok(())
        } else {
            stream.write_all(body)
        }
    }

    fn head(
        &self,
        stream: &mut Box<dyn Stream>,
        status: u16,
        headers: &[(String, String)],
    ) -> io::Result<()> {
        self.shared
            .change(|state| state.requests[self.index].status = status);
        let mut head =
            format!("HTTP/1.1 {status} Lab\r\nConnection: close\r\nServer: otahost-lab\r\n");
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += "\r\n";
        stream.write_all(head.as_bytes())?;
        stream.flush()
    }

    #[allow(clippy::too_many_arguments, reason = "one answer, spelled out")]
    fn body(
        &self,
        stream: &mut Box<dyn Stream>,
        socket: &TcpStream,
        content: &Content,
        first: u64,
        length: u64,
        end: End,
        chunked: bool,
    ) -> io::Result<bool> {
        let mut source: Box<dyn Read> = match &content.bytes {
            Stored::Bytes(bytes) => Box::new(io::Cursor::new(Arc::clone(bytes)).seeked(first)?),
            Stored::File(path) => Box::new(File::open(path)?.seeked(first)?),
        };
        let until = match end {
            End::CutAfter(bytes) | End::ResetAfter(bytes) | End::StallAfter(bytes) => {
                bytes.min(length)
            }
            End::Whole | End::Extra(_) => length,
        };
        self.copy(stream, source.as_mut(), until, chunked, true)?;
        match end {
            End::Whole => {}
            End::CutAfter(_) => {
                socket.shutdown(Shutdown::Both)?;
                return Ok(false);
            }
            End::ResetAfter(_) => {
                end_by_reset(socket)?;
                return Ok(true);
            }
            End::StallAfter(_) => {
                if !self.stall(socket) {
                    return Ok(false);
                }
                self.copy(stream, source.as_mut(), length - until, chunked, true)?;
            }
            End::Extra(bytes) => self.copy(stream, &mut io::repeat(0), bytes, chunked, false)?,
        }
        if chunked {
            stream.write_all(b"0\r\n\r\n")?;
        }
        stream.flush()?;
        Ok(false)
    }

    fn copy(
        &self,
        stream: &mut Box<dyn Stream>,
        source: &mut dyn Read,
        length: u64,
        chunked: bool,
        count: bool,
    ) -> io::Result<()> {
        let mut buffer = vec![0; PIECE];
        let mut left = length;
        while left > 0 {
            let throttle = self.shared.state().throttle;
            // Twenty pieces a second look smooth on a progress bar.
            let limit = throttle.map_or(PIECE as u64, |rate| (rate / 20).clamp(1, PIECE as u64));
            let want = usize::try_from(left.min(limit)).expect("at most a piece");
            source.read_exact(&mut buffer[..want])?;
            let started = Instant::now();
            if chunked {
                stream.write_all(format!("{want:x}\r\n").as_bytes())?;
            }
            stream.write_all(&buffer[..want])?;
            if chunked {
                stream.write_all(b"\r\n")?;
            }
            left -= want as u64;
            if count {
                self.shared
                    .change(|state| state.requests[self.index].sent += want as u64);
            }
            if let Some(rate) = throttle.filter(|rate| *rate > 0) {
                #[allow(clippy::cast_precision_loss, reason = "a pause")]
                let due = Duration::from_secs_f64(want as f64 / rate as f64);
                thread::sleep(due.saturating_sub(started.elapsed()));
            }
        }
        stream.flush()
    }

    /// Waits for `release`, the client's end, or the server's end. Says whether to go on.
    fn stall(&self, socket: &TcpStream) -> bool {
        let _ = socket.set_nonblocking(true);
        loop {
            let state = self.shared.state();
            if state.stopped {
                return false;
            }
            if state.releases != self.releases {
                let _ = socket.set_nonblocking(false);
                return true;
            }
            drop(
                self.shared
                    .changed
                    .wait_timeout(state, Duration::from_millis(50))
                    .unwrap_or_else(PoisonError::into_inner),
            );
            // A client that is gone reads as the end of its stream.
            if matches!(socket.peek(&mut [0]), Ok(0)) {
                return false;
            }
        }
    }
}

trait Seeked: Sized {
    fn seeked(self, offset: u64) -> io::Result<Self>;
}

impl<T: Seek> Seeked for T {
    fn seeked(mut self, offset: u64) -> io::Result<Self> {
        self.seek(SeekFrom::Start(offset))?;
        Ok(self)
    }
}

/// The range asked for, if it is to be honoured: `If-Range` must name the content there is now. `Err` when it cannot be satisfied.
fn asked_range(request: &Request, content: &Content) -> Option<Result<(u64, u64), ()>> {
    let range = request.range()?.strip_prefix("bytes=")?;
    if request.header("if-range").is_some_and(|validator| {
        validator != content.etag() && validator != content.last_modified()
    }) {
        return None;
    }
    let (first, last) = range.split_once('-')?;
    let first: u64 = first.parse().ok()?;
    let end = content.length.saturating_sub(1);
    let last = if last.is_empty() {
        end
    } else {
        last.parse::<u64>().ok()?.min(end)
    };
    Some(if first >= content.length || last < first {
        Err(())
    } else {
        Ok((first, last))
    })
}
