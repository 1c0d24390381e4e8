//! The bytes of an answer, counted: a body that ends before or after what its head announced is an error, never an end.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use reqwest::Response;
use tokio::time::timeout;

use super::client::describe;
use super::{HttpError, MAX_PIECE};

/// The rest of an artifact.
pub struct HttpBody {
    /// Gone after the end or an error.
    response: Option<Response>,
    /// Received, but too large for one piece.
    rest: Bytes,
    position: u64,
    /// Where the body must end, as announced.
    end: Option<u64>,
    total: Option<u64>,
    idle_timeout: Duration,
    place: String,
}

impl fmt::Debug for HttpBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpBody")
            .field("place", &self.place)
            .field("position", &self.position)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

impl HttpBody {
    pub(super) fn new(
        response: Response,
        position: u64,
        end: Option<u64>,
        total: Option<u64>,
        idle_timeout: Duration,
        place: String,
    ) -> Self {
        Self {
            response: Some(response),
            rest: Bytes::new(),
            position,
            end,
            total,
            idle_timeout,
            place,
        }
    }

    pub(super) fn empty(position: u64, place: String) -> Self {
        Self {
            response: None,
            rest: Bytes::new(),
            position,
            end: Some(position),
            total: Some(position),
            idle_timeout: Duration::ZERO,
            place,
        }
    }

    /// Gives bytes back that were looked at only: they come again.
    pub(super) fn put_back(&mut self, bytes: Vec<u8>) {
        self.position -= bytes.len() as u64;
        self.rest = [bytes.as_slice(), self.rest.as_ref()].concat().into();
    }

    /// The next piece, 1 byte to 256 KiB; `None` at the end and after an error.
    ///
    /// # Errors
    /// [`HttpError::Broken`] when the connection breaks or the body ends before, or goes on after, the announced length;
    /// [`HttpError::Stalled`] when nothing comes for the idle time-out.
    pub async fn next(&mut self) -> Result<Option<Bytes>, HttpError> {
        let result = self.piece().await;
        if !matches!(result, Ok(Some(_))) {
            self.response = None;
            self.rest = Bytes::new();
        }
        result
    }

    async fn piece(&mut self) -> Result<Option<Bytes>, HttpError> {
        while self.rest.is_empty() {
            let Some(response) = &mut self.response else {
                return Ok(None);
            };
            let received = match timeout(self.idle_timeout, response.chunk()).await {
                Err(_) => {
                    let seconds = self.idle_timeout.as_secs_f32();
                    return Err(HttpError::Stalled(format!(
                        "{}: nothing came for {seconds} s, at byte {}",
                        self.place, self.position
                    )));
                }
                Ok(Err(error)) => {
                    return Err(HttpError::Broken(format!(
                        "{}: the connection broke at byte {}: {}",
                        self.place,
                        self.position,
                        describe(error)
                    )));
                }
                Ok(Ok(received)) => received,
            };
            match received {
                Some(bytes) => self.rest = bytes,
                None => return self.check_end().map(|()| None),
            }
        }
        let piece = self.rest.split_to(self.rest.len().min(MAX_PIECE));
        self.position = self.position.saturating_add(piece.len() as u64);
        if let Some(end) = self.end.filter(|end| self.position > *end) {
            return Err(HttpError::Broken(format!(
                "{}: the body goes on after byte {end}, where it should end",
                self.place
            )));
        }
        Ok(Some(piece))
    }

    fn check_end(&self) -> Result<(), HttpError> {
        match self.total.or(self.end) {
            Some(end) if end != self.position => Err(HttpError::Broken(format!(
                "{}: the body ended at byte {} of {end}",
                self.place, self.position
            ))),
            _ => Ok(()),
        }
    }
}
