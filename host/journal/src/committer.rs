//! Group commit: the sync of one transaction is the time in which the next one gathers.

use std::future::Future;
use std::sync::{Arc, OnceLock};

use otahost_disk::Seam;
use tokio::sync::{mpsc, oneshot};

use crate::{Change, Journal, JournalError};

/// Submissions that share a transaction at most.
const BATCH_SUBMISSIONS: usize = 64;
/// Bytes of changes that share a transaction; a single submission may be larger.
const BATCH_BYTES: usize = 1 << 20;

struct Submission {
    changes: Vec<Change>,
    done: oneshot::Sender<Result<(), JournalError>>,
}

enum Order {
    Commit(Submission),
    Close,
}

/// Commits for many callers, in the order of their calls. Clones are the same committer.
#[derive(Debug, Clone)]
pub struct Committer {
    orders: mpsc::UnboundedSender<Order>,
    failed: Arc<OnceLock<JournalError>>,
}

impl Committer {
    /// Starts a task on the current tokio runtime that owns the commits of this journal until the last clone is dropped, [`Committer::close`]
    /// is called, or a commit fails.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(journal: Arc<Journal>, seam: Seam) -> Committer {
        let (orders, queue) = mpsc::unbounded_channel();
        let failed = Arc::new(OnceLock::new());
        tokio::spawn(work(journal, seam, queue, Arc::clone(&failed)));
        Committer { orders, failed }
    }

    /// Commits these changes, all or none. The place in the order is taken by this call, not by the first poll; dropping the future does not take
    /// the changes back. The queue has no bound of its own: callers wait for their commits.
    ///
    /// # Errors
    /// The future answers [`JournalError::Commit`] when the transaction failed in which these changes were: their fate is unknown;
    /// [`JournalError::Refused`] for every later submission: nothing of it happened. Then the task has dropped its journal,
    /// so that the owner can open it again. [`JournalError::Stopped`] after [`Committer::close`].
    pub fn commit(
        &self,
        changes: Vec<Change>,
    ) -> impl Future<Output = Result<(), JournalError>> + Send + 'static {
        let (done, outcome) = oneshot::channel();
        // Where the task is gone, so is the sender of the outcome.
        let _ = self
            .orders
            .send(Order::Commit(Submission { changes, done }));
        let failed = Arc::clone(&self.failed);
        async move {
            match outcome.await {
                Ok(outcome) => outcome,
                Err(_) => Err(failed.get().cloned().unwrap_or(JournalError::Stopped)),
            }
        }
    }

    /// Waits for what was submitted before, then ends the task; after that it has dropped its journal.
    pub async fn close(&self) {
        let _ = self.orders.send(Order::Close);
        self.orders.closed().await;
    }
}

async fn work(
    journal: Arc<Journal>,
    seam: Seam,
    queue: mpsc::UnboundedReceiver<Order>,
    failed: Arc<OnceLock<JournalError>>,
) {
    let mut queue = queue;
    let mut journal = Some(journal);
    let mut held = None;
    while let Some(open) = journal.clone() {
        let Some(batch) = gather(&mut queue, &mut held).await else {
            break;
        };
        let place = open.place().clone();
        let (changes, waiting): (Vec<_>, Vec<_>) = batch
            .into_iter()
            .map(|submission| (submission.changes, submission.done))
            .unzip();
        let outcome = seam
            .run(move || open.commit(&changes.into_iter().flatten().collect::<Vec<_>>()))
            .await;
        if let Err(e) = &outcome {
            let refused = match e {
                JournalError::Refused { .. } => e.clone(),
                e => JournalError::Refused {
                    place,
                    first: e.to_string(),
                },
            };
            failed.get_or_init(|| refused);
            journal = None;
        }
        for done in waiting {
            // A caller that went away wanted no answer.
            let _ = done.send(outcome.clone());
        }
    }
    drop(journal);
    // What is left in the queue, and what comes now, is answered by its closed channel.
    drop(held);
    drop(queue);
}

/// What goes into one transaction: what is there, up to the bounds. `None` when there will be no more.
async fn gather(
    queue: &mut mpsc::UnboundedReceiver<Order>,
    held: &mut Option<Order>,
) -> Option<Vec<Submission>> {
    let first = match held.take() {
        Some(order) => order,
        None => queue.recv().await?,
    };
    let Order::Commit(first) = first else {
        return None;
    };
    let size = |submission: &Submission| submission.changes.iter().map(Change::size).sum::<usize>();
    let mut bytes = size(&first);
    let mut batch = vec![first];
    while batch.len() < BATCH_SUBMISSIONS {
        match queue.try_recv() {
            Ok(Order::Commit(next)) if bytes + size(&next) <= BATCH_BYTES => {
                bytes += size(&next);
                batch.push(next);
            }
            Ok(next) => {
                *held = Some(next);
                break;
            }
            Err(_) => break,
        }
    }
    Some(batch)
}
