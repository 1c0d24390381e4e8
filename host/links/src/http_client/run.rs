//! The link's own task: takes commands in order, sends each fetch when it is its turn, and tells how it ended.

use std::sync::Arc;

use otahost_core::model::Fetch;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tracing::debug;

use super::Shared;
use super::answer::Outcome;
use super::gate::Pass;
use super::{fetch, request};
use crate::{LinkCommand, LinkEvent};

pub(super) async fn run(
    shared: Arc<Shared>,
    events: mpsc::Sender<LinkEvent>,
    mut commands: mpsc::Receiver<LinkCommand>,
) {
    // Dropped with this task, and every request with it.
    let mut requests = JoinSet::new();
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                None => break,
                Some(LinkCommand::Secrets(secrets)) => shared.vault.restore(secrets),
                Some(LinkCommand::Kept(id)) => shared.vault.commit(id),
                Some(LinkCommand::Fetch { id, fetch }) => {
                    // The place in the line is taken here, so that the order is that of the commands.
                    let turn = shared.gate.enter(request::needs(&fetch, &shared.options.auth));
                    requests.spawn(answer(Arc::clone(&shared), events.clone(), id, fetch, turn));
                }
                Some(_) => {}
            },
            Some(ended) = requests.join_next() => {
                if let Err(error) = ended {
                    debug!(%error, "a request ended without an answer");
                }
            }
            () = events.closed() => break,
        }
    }
}

async fn answer(
    shared: Arc<Shared>,
    events: mpsc::Sender<LinkEvent>,
    id: u64,
    wanted: Box<Fetch>,
    turn: Option<oneshot::Receiver<Pass>>,
) {
    let outcome = match turn {
        None => Outcome::failed(&shared.vault, "too many requests wait on this link"),
        Some(turn) => {
            let Ok(mut pass) = turn.await else { return };
            let outcome = fetch::fetch(&shared, &wanted).await;
            if !outcome.captured.is_empty() {
                // Before the agent can say `Kept`.
                pass.end_request();
                shared.vault.hold(id, outcome.captured.clone(), pass);
            }
            outcome
        }
    };
    // An agent that is gone needs no answer.
    let _ = events
        .send(LinkEvent::Fetched {
            id,
            result: outcome.result,
            captured: outcome.captured,
        })
        .await;
}
