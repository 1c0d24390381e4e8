//! The bytes of a file, counted: they end when all of them came and the server confirms it, or with an error.

use std::fmt;

use bytes::Bytes;

use super::control::Session;
use super::data::{Data, End, Read};
use super::{EXPLANATION, FtpsError};

/// An opened file.
#[derive(Debug)]
pub struct FtpsOpened {
    /// Offset of the first byte that will come: what was asked for, or 0 when the server starts over.
    pub offset: u64,
    /// Whole size of the file in bytes, where the server says it.
    pub total: Option<u64>,
    /// Tells this content from another by the same name: `SIZE`, with `MDTM` where the server has it. None without `SIZE`.
    pub validator: Option<String>,
    /// The bytes.
    pub body: FtpsBody,
}

/// The rest of a file. Dropping it cuts the connection.
pub struct FtpsBody {
    /// Gone after the end or an error.
    open: Option<Box<Open>>,
    position: u64,
    total: Option<u64>,
    /// Server and path, to be shown.
    place: String,
}

struct Open {
    session: Session,
    data: Data,
    /// What was read at the opening.
    first: Option<Read>,
}

impl fmt::Debug for FtpsBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FtpsBody")
            .field("place", &self.place)
            .field("position", &self.position)
            .field("total", &self.total)
            .finish_non_exhaustive()
    }
}

impl FtpsBody {
    pub(super) fn new(
        session: Session,
        data: Data,
        first: Read,
        total: Option<u64>,
        place: String,
    ) -> Self {
        Self {
            position: data.offset,
            open: Some(Box::new(Open {
                session,
                data,
                first: Some(first),
            })),
            total,
            place,
        }
    }

    /// All bytes are there already.
    pub(super) fn empty(total: u64, place: String) -> Self {
        Self {
            open: None,
            position: total,
            total: Some(total),
            place,
        }
    }

    /// The next piece, 1 byte to 256 KiB; `None` at the end and after an error.
    ///
    /// # Errors
    /// [`FtpsError::Broken`] when the connection breaks, when the bytes end before or go on after the file's size, or when the server
    /// does not confirm the end; [`FtpsError::Stalled`] when nothing comes for the idle time-out.
    pub async fn next(&mut self) -> Result<Option<Bytes>, FtpsError> {
        let result = self.piece().await;
        match &result {
            Ok(Some(_)) => {}
            // A server that did all right hears it; others are left.
            Ok(None) => {
                if let Some(open) = self.open.take() {
                    open.session.quit();
                }
            }
            Err(_) => self.open = None,
        }
        result
    }

    async fn piece(&mut self) -> Result<Option<Bytes>, FtpsError> {
        let whole = self.total == Some(self.position);
        let Some(open) = &mut self.open else {
            return Ok(None);
        };
        let read = match open.first.take() {
            Some(first) => first,
            None => {
                let idle_timeout = open.session.shared.options.idle_timeout;
                // An early end is an error whatever the server says about it.
                let limit = if whole || self.total.is_none() {
                    idle_timeout
                } else {
                    idle_timeout.min(EXPLANATION)
                };
                open.data
                    .read(&mut open.session, limit)
                    .await
                    .map_err(|error| at(error, self.position))?
            }
        };
        match read {
            Read::Bytes(bytes) => {
                self.position = self.position.saturating_add(bytes.len() as u64);
                match self.total {
                    Some(total) if self.position > total => Err(self.broken(format_args!(
                        "the file goes on after byte {total}, where it should end"
                    ))),
                    _ => Ok(Some(bytes)),
                }
            }
            Read::End(end) => self.judge(end).map(|()| None),
        }
    }

    /// Whether this is the end of the file.
    fn judge(&self, end: End) -> Result<(), FtpsError> {
        let said = match &end.reply {
            Ok(reply) => format!("the server says {}", reply.shown()),
            Err(error) => error.to_string(),
        };
        if let Some(total) = self.total.filter(|total| self.position < *total) {
            return Err(self.broken(format_args!(
                "the file ended at byte {} of {total}; {said}",
                self.position
            )));
        }
        match end.reply {
            Ok(reply) if reply.is_complete() => {
                if self.total.is_none() && !end.clean {
                    return Err(self.broken(format_args!(
                        "the connection was cut at byte {}, and the server does not say how long the file is",
                        self.position
                    )));
                }
                Ok(())
            }
            Ok(_) => Err(self.broken(format_args!(
                "the end at byte {} is not confirmed; {said}",
                self.position
            ))),
            Err(error) => Err(at(error, self.position)),
        }
    }

    fn broken(&self, why: impl fmt::Display) -> FtpsError {
        FtpsError::Broken(format!("{}: {why}", self.place))
    }
}

/// Says where in the file it was.
fn at(error: FtpsError, position: u64) -> FtpsError {
    match error {
        FtpsError::Stalled(text) => FtpsError::Stalled(format!("{text}, at byte {position}")),
        FtpsError::Broken(text) => FtpsError::Broken(format!("{text}, at byte {position}")),
        other => other,
    }
}
