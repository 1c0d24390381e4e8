//! Requests that come in: each is given to the one adapter that serves its route, and answered exactly once.
//!
//! A request lives in memory only: its caller holds a connection to this process, and after a restart there is nobody to answer.
//! Its id names the process, so that an answer that an adapter gives later finds nobody and is dropped.

use std::collections::BTreeMap;

use otahost_core::model::{Event, Field, HttpResponse, InboundRequest, ResponseTo};
use otahost_links::{Inbound, LinkCommand};

use super::links::sha256_hex;
use super::steps::{Origin, Queued};
use super::{Engine, Release};

/// Most requests of one adapter that wait for their answer; more get 503.
const MAX_REQUESTS: usize = 64;

/// The requests that wait for their answer.
#[derive(Debug, Default)]
pub(super) struct Requests {
    /// Link, the link's number, and the adapter, by the id the adapter knows.
    waiting: BTreeMap<String, (String, u64, String)>,
    /// Answers that nobody waited for any more.
    late: u64,
}

/// An answer of the host's own, for programs and people.
fn own_answer(status: u16, message: &str) -> HttpResponse {
    let body = serde_json::json!({ "status": status, "message": message });
    HttpResponse {
        status,
        headers: vec![Field {
            name: "content-type".into(),
            value: "application/json".into(),
        }],
        body: body.to_string().into_bytes(),
    }
}

impl Engine {
    pub(super) fn on_request(&mut self, link: &str, number: u64, request: Inbound) {
        let serves = |needs: &otahost_core::model::RouteNeed| {
            needs.link == link && needs.method == request.method && needs.path == request.path
        };
        let adapter = self
            .adapters
            .iter()
            .find(|(_, a)| a.requirements().routes.iter().any(serves))
            .map(|(name, _)| name.clone());
        let waiting = |name: &str| {
            let mine = self.requests.waiting.values().filter(|w| w.2 == name);
            mine.count()
        };
        let adapter = match adapter {
            Some(name) if self.runs(&name) && waiting(&name) < MAX_REQUESTS => name,
            known => {
                let (status, why) = match known {
                    Some(_) => (503, "the device cannot answer now; try again later"),
                    None => (404, "nothing is served here"),
                };
                return self.respond(link, number, own_answer(status, why));
            }
        };
        let process = sha256_hex(&[self.boot_id.as_bytes(), self.platform.process.as_bytes()]);
        let id = format!("{}-{link}-{number}", &process[..16]);
        let event = Event::Request(InboundRequest {
            id: id.clone(),
            link: link.to_owned(),
            method: request.method,
            path: request.path,
            query: request.query,
            headers: request.headers,
            body: request.body,
            principal: request.principal,
            deadline: self.now().saturating_add(
                u64::try_from(request.answer_within.as_millis()).unwrap_or(u64::MAX),
            ),
        });
        let waits = (link.to_owned(), number, adapter.clone());
        self.requests.waiting.insert(id.clone(), waits);
        self.queue(&adapter, Queued::new(event, Origin::Request(id)));
    }

    /// Nobody waits for this answer any more.
    pub(super) fn on_withdrawn(&mut self, link: &str, number: u64) {
        self.requests
            .waiting
            .retain(|_, (l, n, _)| !(l == link && *n == number));
    }

    /// An adapter's answer; only the first to a request of its own counts.
    pub(super) fn admit_response(
        &mut self,
        adapter: &str,
        answer: ResponseTo,
        releases: &mut Vec<Release>,
    ) {
        match self.requests.waiting.get(&answer.request) {
            Some((_, _, owner)) if owner == adapter => {}
            _ => {
                self.requests.late += 1;
                tracing::info!(
                    adapter,
                    late = self.requests.late,
                    "an answer to a request that nobody waits for (any more) is dropped"
                );
                return;
            }
        }
        if let Some((link, number, _)) = self.requests.waiting.remove(&answer.request) {
            releases.push(Release::Respond {
                link,
                id: number,
                response: answer.response,
            });
        }
    }

    /// The step of a request came to nothing.
    pub(super) fn request_failed(&mut self, id: &str, releases: &mut Vec<Release>) {
        if let Some((link, number, _)) = self.requests.waiting.remove(id) {
            releases.push(Release::Respond {
                link,
                id: number,
                response: own_answer(500, "the device failed to handle the request"),
            });
        }
    }

    pub(super) fn respond(&self, link: &str, id: u64, response: HttpResponse) {
        if let Some(link) = self.links.get(link) {
            link.send(LinkCommand::Respond { id, response });
        }
    }
}
