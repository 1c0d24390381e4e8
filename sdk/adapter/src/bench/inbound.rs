//! The bench for adapters that serve HTTP and list directories: what comes in, and pickers for what goes out.

use super::Bench;
use crate::{
    Adapter, Alert, DirectoryEntry, Effect, Event, Field, InboundRequest, ListingOutcome,
    ListingRequest, ResponseTo,
};

/// How long the host waits for the answer to a request, in milliseconds.
const ANSWER_WITHIN: u64 = 15_000;

impl<A: Adapter> Bench<A> {
    /// Lets an authenticated HTTP request arrive, with a deadline 15 s away. Its id is made of the boot and a number, so that no two
    /// are the same. The path may have a query (`/health?kitId=k`), which is split but not decoded.
    ///
    /// # Errors
    /// As [`Bench::send`]; also where no declared route covers the request or its body is larger than the route allows, because then
    /// the host answers it and it never would arrive.
    pub fn request(
        &mut self,
        link: &str,
        method: &str,
        path: &str,
        body: impl Into<Vec<u8>>,
    ) -> Result<Vec<Effect>, String> {
        let body = body.into();
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let Some(route) = self
            .requirements
            .routes
            .iter()
            .find(|route| route.link == link && route.method == method && route.path == path)
        else {
            return Err(format!(
                "the adapter serves no {method} {path} on link {link}"
            ));
        };
        if body.len() > route.max_body as usize {
            return Err(format!(
                "the body has {} bytes; the route takes {}",
                body.len(),
                route.max_body
            ));
        }
        let query = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| Field {
                name: name.into(),
                value: value.into(),
            })
            .collect();
        let request = InboundRequest {
            id: format!("{}/{}", self.world.boot_id, self.steps),
            link: link.into(),
            method: method.into(),
            path: path.into(),
            query,
            headers: Vec::new(),
            body,
            principal: "caller".into(),
            deadline: self.world.now + ANSWER_WITHIN,
        };
        self.send(Event::Request(request))
    }

    /// Tells the adapter what the directory that it listed under this tag holds, or why that cannot be said.
    ///
    /// # Errors
    /// As [`Bench::send`].
    pub fn listing(
        &mut self,
        tag: &str,
        entries: Result<Vec<DirectoryEntry>, String>,
    ) -> Result<Vec<Effect>, String> {
        self.send(Event::Listing(ListingOutcome {
            tag: tag.into(),
            entries,
        }))
    }
}

/// A file of this name and size in a directory, without a time.
pub fn file(name: &str, size: u64) -> DirectoryEntry {
    DirectoryEntry {
        name: name.into(),
        directory: false,
        size: Some(size),
        modified: None,
    }
}

/// The answers to HTTP requests among these effects, in order.
pub fn responses(effects: &[Effect]) -> Vec<&ResponseTo> {
    effects
        .iter()
        .filter_map(|e| {
            if let Effect::Respond(r) = e {
                Some(r)
            } else {
                None
            }
        })
        .collect()
}

/// The directories to be listed among these effects, in order.
pub fn listings(effects: &[Effect]) -> Vec<&ListingRequest> {
    effects
        .iter()
        .filter_map(|e| {
            if let Effect::ListDirectory(l) = e {
                Some(l)
            } else {
                None
            }
        })
        .collect()
}

/// The alerts among these effects, in order.
pub fn alerts(effects: &[Effect]) -> Vec<&Alert> {
    effects
        .iter()
        .filter_map(|e| {
            if let Effect::Alert(a) = e {
                Some(a)
            } else {
                None
            }
        })
        .collect()
}
