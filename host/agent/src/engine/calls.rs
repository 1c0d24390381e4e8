//! What adapters ask of links that answer later: small requests, and listings of directories.
//!
//! A call is a row from the commit of the step that asked for it to the commit of the step that took its answer, so it survives a
//! cut at any moment. A request that may be sent twice is sent again after a start; one that may not comes back as `interrupted`,
//! because the row says from the beginning that it may have been received. What an answer brings for the vault becomes durable in one
//! commit with the answer itself, before anybody uses it.

use std::collections::BTreeMap;

use otahost_core::model::{
    Effect, Event, Fetch, FetchOutcome, FetchResult, ListingOutcome, ListingRequest, Repeat,
};
use otahost_core::paths;
use otahost_core::secret::Secret;
use otahost_journal::{Change, Key, json};
use otahost_links::LinkCommand;
use serde::{Deserialize, Serialize};

use super::rows::SecretRow;
use super::steps::{Origin, Queued};
use super::{Engine, Release};

/// Most calls of one adapter that wait for their answer, or for the adapter to take it.
const MAX_CALLS: usize = 64;

/// What an adapter asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Asked {
    Fetch(Box<Fetch>),
    List(ListingRequest),
}

impl Asked {
    fn link(&self) -> &str {
        match self {
            Asked::Fetch(fetch) => &fetch.link,
            Asked::List(listing) => &listing.source.link,
        }
    }

    fn is_once(&self) -> bool {
        matches!(self, Asked::Fetch(fetch) if fetch.repeat == Repeat::Once)
    }
}

/// A call as the journal keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CallRow {
    pub adapter: String,
    pub asked: Asked,
    /// A person or platform asked just now.
    #[serde(default)]
    pub commanded: bool,
    /// The answer, where it must not be asked for again.
    #[serde(default)]
    pub answer: Option<FetchResult>,
}

impl CallRow {
    fn failed(&self, why: String) -> Event {
        match &self.asked {
            Asked::Fetch(fetch) => Event::Response(FetchOutcome {
                tag: fetch.tag.clone(),
                outcome: FetchResult::Failed(why),
            }),
            Asked::List(listing) => Event::Listing(ListingOutcome {
                tag: listing.tag.clone(),
                entries: Err(why),
            }),
        }
    }
}

/// The calls that are not done.
#[derive(Debug, Default)]
pub(super) struct Calls {
    rows: BTreeMap<u64, CallRow>,
    next: u64,
}

impl Engine {
    /// Whether what an adapter asks for finds room beside what it still waits for. The answer that it is taking makes room.
    pub(super) fn calls_take(
        &self,
        adapter: &str,
        origin: &Origin,
        effects: &[Effect],
    ) -> Result<(), String> {
        let asks = |e: &&Effect| matches!(e, Effect::Fetch(_) | Effect::ListDirectory(_));
        let more = effects.iter().filter(asks).count();
        let mine = |(seq, row): &(&u64, &CallRow)| {
            row.adapter == adapter && *origin != Origin::Call(**seq)
        };
        let held = self.calls.rows.iter().filter(mine).count();
        if more > 0 && held + more > MAX_CALLS {
            return Err(format!(
                "{held} requests and listings wait for an answer already; {MAX_CALLS} may"
            ));
        }
        Ok(())
    }

    /// Takes a call in.
    pub(super) fn admit_call(
        &mut self,
        adapter: &str,
        asked: Asked,
        commanded: bool,
        changes: &mut Vec<Change>,
        releases: &mut Vec<Release>,
    ) {
        let seq = self.calls.next;
        self.calls.next += 1;
        let row = CallRow {
            adapter: adapter.to_owned(),
            asked,
            commanded,
            answer: None,
        };
        changes.push(Change::Put(Key::Call { seq }, json(&row)));
        self.calls.rows.insert(seq, row);
        releases.push(Release::Call(seq));
    }

    fn call_denial(&self, adapter: &str, asked: &Asked) -> Option<String> {
        let grants = &self.adapters.get(adapter)?.grants;
        match asked {
            Asked::Fetch(fetch) => grants
                .allows_call(fetch)
                .err()
                .map(|denial| format!("not-granted: {denial}")),
            Asked::List(listing) if grants.allows_file(&listing.source) => None,
            Asked::List(listing) => Some(format!(
                "not-granted: {} on link `{link}` is outside what grants.links.{link}.files allows",
                paths::without_query(&listing.source.path),
                link = listing.source.link,
            )),
        }
    }

    fn tell_answer(&mut self, seq: u64, row: &CallRow, event: Event) {
        let adapter = row.adapter.clone();
        let mut queued = Queued::new(event, Origin::Call(seq));
        queued.commanded = row.commanded;
        self.queue(&adapter, queued);
    }

    /// Hands a committed call to its link, unless it is not granted. That is asked here, because the grants may have changed since an
    /// earlier process took it in.
    pub(super) fn send_call(&mut self, seq: u64) {
        let Some(row) = self.calls.rows.get(&seq) else {
            return;
        };
        if let Some(why) = self.call_denial(&row.adapter, &row.asked) {
            tracing::warn!(
                adapter = row.adapter,
                why,
                "a request of the adapter is refused"
            );
            let (row, event) = (row.clone(), row.failed(why));
            return self.tell_answer(seq, &row, event);
        }
        let Some(link) = self.links.get(row.asked.link()) else {
            let why = format!("link `{}` is not configured", row.asked.link());
            let (row, event) = (row.clone(), row.failed(why));
            return self.tell_answer(seq, &row, event);
        };
        link.send(match row.asked.clone() {
            Asked::Fetch(fetch) => LinkCommand::Fetch { id: seq, fetch },
            Asked::List(listing) => LinkCommand::List {
                id: seq,
                path: listing.source.path,
            },
        });
    }

    /// A request was answered. What it brought for the vault is used once it is durable.
    pub(super) fn on_answered(
        &mut self,
        link: &str,
        seq: u64,
        result: FetchResult,
        captured: Vec<(String, Secret)>,
    ) {
        let place = self.place_of(link);
        let mut changes: Vec<Change> = captured
            .into_iter()
            .map(|(name, value)| {
                let link = link.to_owned();
                let row = SecretRow {
                    place: place.clone(),
                    value: value.reveal().to_owned(),
                };
                Change::Put(Key::Secret { link, name }, json(&row))
            })
            .collect();
        // The link holds back whoever needs what was captured until it hears this, whoever asked.
        let kept = Release::Kept {
            link: link.to_owned(),
            id: seq,
        };
        let mut told = None;
        if let Some(row) = self.calls.rows.get_mut(&seq)
            && let Asked::Fetch(fetch) = &row.asked
        {
            let event = Event::Response(FetchOutcome {
                tag: fetch.tag.clone(),
                outcome: result.clone(),
            });
            if !changes.is_empty() || row.asked.is_once() {
                row.answer = Some(result);
                changes.push(Change::Put(Key::Call { seq }, json(row)));
            }
            told = Some((row.clone(), event));
        }
        self.commit(changes, vec![kept]);
        if let Some((row, event)) = told {
            self.tell_answer(seq, &row, event);
        }
    }

    pub(super) fn on_listed(&mut self, seq: u64, outcome: ListingOutcome) {
        let Some(row) = self.calls.rows.get(&seq).cloned() else {
            return;
        };
        let Asked::List(listing) = &row.asked else {
            return;
        };
        let tag = listing.tag.clone();
        self.tell_answer(seq, &row, Event::Listing(ListingOutcome { tag, ..outcome }));
    }

    /// Its adapter has taken the answer.
    pub(super) fn call_done(&mut self, seq: u64, changes: &mut Vec<Change>) {
        if self.calls.rows.remove(&seq).is_some() {
            changes.push(Change::Delete(Key::Call { seq }));
        }
    }

    /// A call of an earlier process. [`Engine::resume_calls`] goes on with it.
    pub(super) fn restore_call(&mut self, seq: u64, row: CallRow) {
        self.calls.next = self.calls.next.max(seq + 1);
        if self.adapters.contains_key(&row.adapter) {
            self.calls.rows.insert(seq, row);
        } else {
            tracing::warn!(
                adapter = row.adapter,
                "a request of an adapter that is not configured any more is dropped"
            );
            self.discard(Key::Call { seq });
        }
    }

    /// Goes on with the calls of an earlier process.
    pub(super) fn resume_calls(&mut self) {
        let running = self.adapters.iter().filter(|(_, a)| a.runs().is_some());
        let running: Vec<String> = running.map(|(name, _)| name.clone()).collect();
        for adapter in running {
            self.resume_calls_of(&adapter);
        }
    }

    /// The same for one adapter: answers that are here are told, what may be sent again is sent.
    pub(super) fn resume_calls_of(&mut self, adapter: &str) {
        let mut rows = self.calls.rows.clone();
        rows.retain(|_, row| row.adapter == adapter);
        for (seq, row) in rows {
            let outcome = match (&row.answer, row.asked.is_once()) {
                (Some(answer), _) => answer.clone(),
                (None, true) => FetchResult::Interrupted,
                (None, false) => {
                    self.send_call(seq);
                    continue;
                }
            };
            if let Asked::Fetch(fetch) = &row.asked {
                let tag = fetch.tag.clone();
                self.tell_answer(seq, &row, Event::Response(FetchOutcome { tag, outcome }));
            }
        }
    }

    /// Where a link leads; the vault's secrets belong to that place.
    pub(super) fn place_of(&self, link: &str) -> String {
        let link = self.platform.links.get(link);
        link.map(|link| link.place()).unwrap_or_default()
    }
}
