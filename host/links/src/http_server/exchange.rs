//! From a request to its one answer. Each runs in a task of its own, because a caller's connection can end at any moment, and the
//! agent must be told.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use otahost_core::model::HttpResponse;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::shared::Shared;
use crate::{Inbound, LinkEvent};

/// Numbers are unique in this process, whichever listener gives them.
static NEXT: AtomicU64 = AtomicU64::new(1);

type Waiting = HashMap<u64, oneshot::Sender<HttpResponse>>;

/// The requests that wait for an answer.
#[derive(Debug)]
pub(super) struct Exchanges {
    /// None once the link ends.
    waiting: Mutex<Option<Waiting>>,
    /// Answers that nobody waited for.
    ignored: AtomicU64,
}

impl Default for Exchanges {
    fn default() -> Self {
        Self {
            waiting: Mutex::new(Some(Waiting::new())),
            ignored: AtomicU64::new(0),
        }
    }
}

impl Exchanges {
    fn waiting(&self) -> MutexGuard<'_, Option<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> Option<(u64, oneshot::Receiver<HttpResponse>)> {
        let (sender, receiver) = oneshot::channel();
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        self.waiting().as_mut()?.insert(id, sender);
        Some((id, receiver))
    }

    /// Passes the agent's answer on to the one who waits for it.
    pub(super) fn answer(&self, id: u64, response: HttpResponse) {
        let mut waiting = self.waiting();
        // Sent under the lock: who finds the number gone finds the answer in the channel.
        let taken = waiting
            .as_mut()
            .and_then(|waiting| waiting.remove(&id))
            .is_some_and(|sender| sender.send(response).is_ok());
        if !taken {
            let ignored = self.ignored.fetch_add(1, Ordering::Relaxed) + 1;
            debug!(id, ignored, "nobody waits for this answer (any more)");
        }
    }

    /// True when it still waited.
    fn forget(&self, id: u64) -> bool {
        self.waiting()
            .as_mut()
            .is_some_and(|waiting| waiting.remove(&id).is_some())
    }

    /// The link ends: nobody will answer those who wait.
    pub(super) fn close(&self) {
        *self.waiting() = None;
    }
}

/// How an exchange ended.
#[derive(Debug)]
pub(super) enum Outcome {
    Answered(HttpResponse),
    /// No answer in time.
    Late,
    /// The agent does not take requests fast enough.
    Full,
    /// The link ends.
    Ending,
}

/// Hands a request over and waits for its answer. Dropped when the caller goes away; the agent learns of it.
pub(super) async fn exchange(
    shared: &Arc<Shared>,
    permit: OwnedSemaphorePermit,
    request: Inbound,
) -> Outcome {
    let room = match timeout(
        shared.options.limits.hand_over_within,
        shared.events.reserve(),
    )
    .await
    {
        Ok(Ok(room)) => room,
        Ok(Err(_)) => return Outcome::Ending,
        Err(_) => return Outcome::Full,
    };
    let Some((id, answer)) = shared.exchanges.open() else {
        return Outcome::Ending;
    };
    room.send(LinkEvent::Request {
        id,
        request: Box::new(request),
    });
    let (reply, outcome) = oneshot::channel();
    tokio::spawn(settle(Arc::clone(shared), permit, id, answer, reply));
    outcome.await.unwrap_or(Outcome::Ending)
}

/// Waits for answer, deadline or the caller's end. Keeps the permit until the agent was told, so that what is to be told is bounded.
async fn settle(
    shared: Arc<Shared>,
    permit: OwnedSemaphorePermit,
    id: u64,
    mut answer: oneshot::Receiver<HttpResponse>,
    mut reply: oneshot::Sender<Outcome>,
) {
    tokio::select! {
        answered = &mut answer => {
            let _ = reply.send(answered.map_or(Outcome::Ending, Outcome::Answered));
            return;
        }
        () = sleep(shared.options.answer_within) => {}
        () = reply.closed() => {}
    }
    if !shared.exchanges.forget(id) {
        // The answer came in the same moment.
        let _ = reply.send(answer.await.map_or(Outcome::Ending, Outcome::Answered));
        return;
    }
    let _ = reply.send(Outcome::Late);
    let _ = shared.events.send(LinkEvent::Withdrawn(id)).await;
    drop(permit);
}
