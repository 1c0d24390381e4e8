//! An ordering left out on purpose, for the crash simulator's negative controls.
//!
//! That no effect leaves before its commit is durable is what keeps a power cut from making the device lie. A search that never finds a
//! breach of it proves nothing unless it finds one that is there. Nothing on a device sets this, and no configuration can.

use super::{Engine, Release};

/// A kind of effect that leaves before its commit is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Early {
    /// The acknowledgement of a message.
    Acknowledgement,
    /// A publication.
    Publication,
    /// The answer to a request that came in.
    Answer,
    /// A request that goes out.
    Call,
    /// The word that a captured secret may be used.
    Secret,
    /// What a job does next.
    Action,
    /// An alert.
    Alert,
    /// The answer to the operator at the device.
    Reply,
}

impl Early {
    fn of(release: &Release) -> Option<Early> {
        Some(match release {
            Release::Settle { .. } => Early::Acknowledgement,
            Release::Publish { .. } => Early::Publication,
            Release::Respond { .. } => Early::Answer,
            Release::Call(_) => Early::Call,
            Release::Kept { .. } => Early::Secret,
            Release::Act(..) => Early::Action,
            Release::Alert(_) => Early::Alert,
            Release::Reply(..) => Early::Reply,
            Release::Watched(_) => return None,
        })
    }
}

impl Engine {
    /// From now on effects of this kind do not wait for their commit. For negative controls in tests.
    #[doc(hidden)]
    pub fn release_early(&mut self, kind: Early) {
        self.early = Some(kind);
    }

    /// What leaves now, and what waits as it should.
    pub(super) fn split_early(&self, releases: Vec<Release>) -> (Vec<Release>, Vec<Release>) {
        match self.early {
            None => (Vec::new(), releases),
            kind => releases.into_iter().partition(|r| Early::of(r) == kind),
        }
    }
}
