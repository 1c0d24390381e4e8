//! What the link does: one log-in for each listing and each file, and a second one where TLS sessions stand in the way.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use otahost_core::model::DirectoryEntry;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::body::{FtpsBody, FtpsOpened};
use super::control::{Session, Shared};
use super::data::{Data, Obstacle, Read};
use super::listing::{self, Form};
use super::reply::Reply;
use super::{EXPLANATION, FtpsError, FtpsLink, MAX_ENTRIES, MAX_LISTING};
use crate::tls::Versions;
use crate::{LinkCommand, LinkEvent};

/// Answers listings until the agent closes a channel.
pub(super) async fn run(
    link: FtpsLink,
    events: mpsc::Sender<LinkEvent>,
    mut commands: mpsc::Receiver<LinkCommand>,
) {
    while let Some(command) = commands.recv().await {
        // What is not said to a server of files.
        let LinkCommand::List { id, path } = command else {
            continue;
        };
        let entries = tokio::select! {
            entries = link.list(&path) => entries.map_err(|error| error.to_string()),
            () = events.closed() => return,
        };
        if events
            .send(LinkEvent::Listed { id, entries })
            .await
            .is_err()
        {
            return;
        }
    }
}

/// Opens a file by its absolute path.
pub(super) async fn open(
    shared: &Arc<Shared>,
    path: &str,
    from: u64,
    validator: Option<&str>,
) -> Result<FtpsOpened, FtpsError> {
    with_session(shared, |session| retrieve(session, path, from, validator)).await
}

/// Lists a directory by its absolute path.
pub(super) async fn list(
    shared: &Arc<Shared>,
    path: &str,
) -> Result<Vec<DirectoryEntry>, FtpsError> {
    with_session(shared, |session| entries(session, path)).await
}

/// Does something in a session; once more with TLS 1.2 alone where the server refuses the data connection's TLS session.
async fn with_session<T, F: Future<Output = Result<T, Obstacle>> + Send>(
    shared: &Arc<Shared>,
    work: impl Fn(Session) -> F + Send + Sync,
) -> Result<T, FtpsError> {
    let versions = shared.versions();
    let failed =
        |reply: &Reply| shared.broken(format_args!("the server refused: {}", reply.shown()));
    let first = match work(Session::log_in(shared, versions).await?).await {
        Ok(result) => return Ok(result),
        Err(Obstacle::Failed(error)) => return Err(error),
        Err(Obstacle::Refused(reply)) => return Err(failed(&reply)),
        Err(Obstacle::Session(reply)) if versions == Versions::Tls12 => return Err(failed(&reply)),
        Err(Obstacle::Session(reply)) => reply,
    };
    debug!(server = %shared.place, reply = %first.shown(), "the TLS session of the data connection is refused; trying TLS 1.2");
    let session = match Session::log_in(shared, Versions::Tls12).await {
        // Perhaps it knows no TLS 1.2; what it said before is what somebody can mend.
        Err(FtpsError::Unreachable(_)) => return Err(failed(&first)),
        session => session?,
    };
    match work(session).await {
        Ok(result) => {
            shared.stay_with_tls12();
            Ok(result)
        }
        Err(Obstacle::Failed(error)) => Err(error),
        Err(Obstacle::Refused(reply) | Obstacle::Session(reply)) => Err(failed(&reply)),
    }
}

async fn retrieve(
    mut session: Session,
    path: &str,
    from: u64,
    known: Option<&str>,
) -> Result<FtpsOpened, Obstacle> {
    let place = format!("{}{path}", session.shared.place);
    let total = session.ask(format!("SIZE {path}")).await?.size();
    let validator = match total {
        Some(total) => {
            let reply = session.ask(format!("MDTM {path}")).await?;
            // Two files may well have one size: without a time nothing tells them apart.
            let modified = reply.modified();
            modified.map(|modified| format!("SIZE {total} MDTM {modified}"))
        }
        None => None,
    };
    let same = known.is_none_or(|known| validator.as_deref() == Some(known));
    let within = total.is_some_and(|total| from <= total);
    let from = if same && within { from } else { 0 };
    if from > 0 && total == Some(from) {
        session.quit();
        return Ok(FtpsOpened {
            offset: from,
            total,
            validator,
            body: FtpsBody::empty(from, place),
        });
    }
    let idle_timeout = session.shared.options.idle_timeout;
    let limit = if total.is_some_and(|total| total > 0) {
        idle_timeout.min(EXPLANATION)
    } else {
        idle_timeout
    };
    match Data::open(&mut session, &format!("RETR {path}"), from, limit).await {
        Ok((data, first)) => Ok(FtpsOpened {
            offset: data.offset,
            total,
            validator,
            body: FtpsBody::new(session, data, first, total, place),
        }),
        Err(Obstacle::Refused(reply)) if reply.is_missing() => {
            let missing = format!("{place}: no such file: {}", reply.shown());
            session.quit();
            Err(FtpsError::Missing(missing).into())
        }
        Err(Obstacle::Refused(reply)) => Err(FtpsError::Broken(format!(
            "{place}: the server does not send the file: {}",
            reply.shown()
        ))
        .into()),
        Err(obstacle) => Err(obstacle),
    }
}

async fn entries(mut session: Session, path: &str) -> Result<Vec<DirectoryEntry>, Obstacle> {
    let place = format!("{}{path}", session.shared.place);
    let refused = |reply: &Reply| {
        FtpsError::Broken(format!(
            "{place}: the server does not list the directory: {}",
            reply.shown()
        ))
    };
    // The commands that follow name no path: servers disagree on spaces, patterns and options in it.
    let reply = session.ask(format!("CWD {path}")).await?;
    if reply.is_missing() {
        let missing = format!("{place}: no such directory: {}", reply.shown());
        session.quit();
        return Err(FtpsError::Missing(missing).into());
    }
    if !matches!(reply.code, 200 | 250) {
        return Err(refused(&reply).into());
    }
    let idle_timeout = session.shared.options.idle_timeout;
    for form in Form::ALL {
        if form == Form::Mlsd && session.shared.no_mlsd.load(Ordering::Relaxed) {
            continue;
        }
        match Data::open(&mut session, form.command(), 0, idle_timeout).await {
            Ok((data, first)) => {
                let bytes = read_all(&mut session, data, first, &place).await?;
                session.quit();
                let listing = listing::read(form, &bytes, MAX_ENTRIES)
                    .map_err(|problem| FtpsError::Broken(format!("{place}: {problem}")))?;
                if listing.dropped > 0 {
                    warn!(directory = %place, lines = listing.dropped, "left out of a listing: not understood, or no plain names");
                }
                return Ok(listing.entries);
            }
            Err(Obstacle::Refused(reply)) if reply.is_unknown_command() && form != Form::Nlst => {
                debug!(server = %session.shared.place, command = form.command(), code = reply.code, "not known there");
                if form == Form::Mlsd {
                    session.shared.no_mlsd.store(true, Ordering::Relaxed);
                }
            }
            // How some servers say that a directory is empty.
            Err(Obstacle::Refused(reply))
                if form != Form::Mlsd
                    && matches!(reply.code, 450 | 550)
                    && reply.text.to_ascii_lowercase().contains("no files") =>
            {
                session.quit();
                return Ok(Vec::new());
            }
            Err(Obstacle::Refused(reply)) => return Err(refused(&reply).into()),
            Err(obstacle) => return Err(obstacle),
        }
    }
    unreachable!("the last form ends the loop")
}

/// All bytes of a listing, confirmed by the server.
async fn read_all(
    session: &mut Session,
    mut data: Data,
    first: Read,
    place: &str,
) -> Result<Vec<u8>, FtpsError> {
    let idle_timeout = session.shared.options.idle_timeout;
    let (mut bytes, mut read) = (Vec::new(), first);
    loop {
        match read {
            Read::Bytes(piece) if bytes.len() + piece.len() > MAX_LISTING => {
                return Err(FtpsError::Broken(format!(
                    "{place}: the listing has more than {MAX_LISTING} bytes"
                )));
            }
            Read::Bytes(piece) => bytes.extend_from_slice(&piece),
            Read::End(end) => {
                let reply = end.reply?;
                if reply.is_complete() {
                    return Ok(bytes);
                }
                return Err(FtpsError::Broken(format!(
                    "{place}: the listing broke off: {}",
                    reply.shown()
                )));
            }
        }
        read = data.read(session, idle_timeout).await?;
    }
}
