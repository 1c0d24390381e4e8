//! The counting handler, written natively: the same link, the same journal, the same rows, and no sandbox and no engine in between. It
//! is what the agent's way of doing things is measured by.

use std::path::PathBuf;
use std::sync::Arc;

use otahost_core::model::Publication;
use otahost_disk::{Disk, Place, RealDisk, Seam};
use otahost_journal::{Change, Committer, Journal, Key, json};
use otahost_links::mqtt::{MqttLink, MqttOptions};
use otahost_links::{Link, LinkCommand, LinkEvent, Token};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::Failed;

/// Name of the link in rows.
const LINK: &str = "cloud";

/// The process: counts the messages on `PREFIX/do` and answers each with the count on `PREFIX/out`, until it is ended.
///
/// # Errors
/// When it cannot run, or a commit fails.
pub(crate) fn child(order: &str) -> Result<(), Failed> {
    let order: Value = serde_json::from_str(order)?;
    let text = |name: &str| {
        order[name]
            .as_str()
            .map(str::to_owned)
            .ok_or("the order is incomplete")
    };
    let (dir, url, prefix) = (PathBuf::from(text("dir")?), text("url")?, text("prefix")?);
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(&dir)?);
    let journal = Arc::new(Journal::open(disk, Place::data("journal.redb"))?);
    let link = MqttLink::new(MqttOptions::new(url.parse()?, prefix.clone()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(count(journal, &link, &prefix))
}

/// What a commit lets go.
struct Release {
    seq: u64,
    token: Token,
    count: u64,
}

async fn count(journal: Arc<Journal>, link: &MqttLink, prefix: &str) -> Result<(), Failed> {
    let (events_in, mut events) = mpsc::channel(64);
    let commands = link.start(events_in);
    commands
        .send(LinkCommand::Subscribe(vec![format!("{prefix}/do")]))
        .await?;
    let committer = Committer::start(journal, Seam::Threads);
    let (tell, mut committed) = mpsc::unbounded_channel();
    let topic = format!("{prefix}/out");
    let (mut counted, mut seq) = (0_u64, 0_u64);
    // Rows of no use any more: they go with the next commit.
    let mut garbage: Vec<Key> = Vec::new();
    loop {
        tokio::select! {
            event = events.recv() => match event {
                None => return Err("the link ended".into()),
                Some(LinkEvent::Message { token, .. }) => {
                    counted += 1;
                    seq += 1;
                    let mut changes: Vec<Change> = garbage.drain(..).map(Change::Delete).collect();
                    let publication = publication(&topic, counted);
                    changes.push(Change::Put(Key::State(prefix.to_owned()), format!("{{\"count\":{counted}}}").into_bytes()));
                    changes.push(Change::Put(Key::Outbox { seq }, json(&json!({ "adapter": prefix, "publication": publication }))));
                    changes.push(Change::Put(
                        Key::Seen { link: LINK.to_owned(), packet: token.packet },
                        json(&json!({ "hash": "0".repeat(64) })),
                    ));
                    let done = committer.commit(changes);
                    let (tell, release) = (tell.clone(), Release { seq, token, count: counted });
                    tokio::spawn(async move {
                        let _ = tell.send((done.await, release));
                    });
                }
                Some(LinkEvent::Delivered(id)) => garbage.push(Key::Outbox { seq: id }),
                Some(LinkEvent::Acknowledged(token)) => garbage.push(Key::Seen { link: LINK.to_owned(), packet: token.packet }),
                Some(_) => {}
            },
            Some((outcome, release)) = committed.recv() => {
                outcome?;
                let payload = release.count.to_string().into_bytes();
                let publish = LinkCommand::Publish { id: release.seq, topic: topic.clone(), payload, qos: 1, retain: false };
                commands.send(publish).await?;
                commands.send(LinkCommand::Acknowledge(release.token)).await?;
            }
        }
    }
}

fn publication(topic: &str, count: u64) -> Value {
    let publication = Publication {
        link: LINK.to_owned(),
        topic: topic.to_owned(),
        payload: count.to_string().into_bytes(),
        qos: 1,
        retain: false,
        persistence: otahost_core::model::Persistence::Durable,
    };
    serde_json::to_value(publication).unwrap_or_default()
}
