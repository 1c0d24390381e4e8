//! One request and its answer over HTTP/1.1, by hand, so that what goes out is exactly what was ordered.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// Largest head of a request, in bytes.
const MAX_HEAD: u64 = 32 * 1024;
/// Largest body, in bytes.
const MAX_BODY: u64 = 1024 * 1024;

/// A request.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: Option<String>,
    headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Asked {
    /// A header by its name in lower case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Beside the length.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

/// Reads one request. `None` when nobody asks.
pub(super) fn read(stream: &TcpStream) -> io::Result<Option<Asked>> {
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.take(MAX_HEAD + MAX_BODY));
    let mut line = String::new();
    reader.by_ref().take(MAX_HEAD).read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        return Ok(None);
    };
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (target, None),
    };
    let mut asked = Asked {
        method: method.to_owned(),
        path: path.to_owned(),
        query,
        headers: Vec::new(),
        body: Vec::new(),
    };
    loop {
        let mut line = String::new();
        reader.by_ref().take(MAX_HEAD).read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        let header = (name.to_ascii_lowercase(), value.trim().to_owned());
        asked.headers.push(header);
    }
    let length = asked.header("content-length").unwrap_or("0").parse::<u64>();
    let length = length.map_err(io::Error::other)?.min(MAX_BODY);
    asked.body = vec![0; usize::try_from(length).unwrap_or_default()];
    reader.read_exact(&mut asked.body)?;
    Ok(Some(asked))
}

/// Writes an answer and ends the connection.
pub(super) fn write(stream: &mut TcpStream, answer: &Answer) -> io::Result<()> {
    let mut bytes = format!(
        "HTTP/1.1 {} Lab\r\nConnection: close\r\nServer: uvicorn\r\nContent-Length: {}\r\n",
        answer.status,
        answer.body.len()
    )
    .into_bytes();
    for (name, value) in &answer.headers {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(&answer.body);
    stream.write_all(&bytes)?;
    stream.flush()?;
    stream.shutdown(Shutdown::Write)
}
