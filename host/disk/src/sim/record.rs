//! From a recorded run to the disk after a power cut at any of its moments.

use super::image::Image;
use super::op::Op;
use super::state::State;

/// What a power cut takes of that which was not synced.
///
/// Content and names have fates of their own: the content of a file lasts from its sync, a name from the sync of its directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Loss {
    /// Everything that was not synced is gone.
    AllDropped,
    /// Nothing is gone.
    AllKept,
    /// All names are as they were, and all content that was not synced is gone: what a file system leaves that writes its directories
    /// first.
    NamesKept,
    /// Nothing is gone but a part of the last write to each file, which was under way: of its sectors the seed chooses those that arrived,
    /// and never all.
    Torn(u64),
    /// The seed decides: of each sector of 512 bytes some state it had since the last sync survives, so writes are lost, reordered
    /// and torn; of each directory the first so many changes survive.
    Seeded(u64),
}

/// A run on a simulated disk: how it began, and every operation.
#[derive(Debug, Clone)]
pub struct Record {
    /// The disk before the first operation.
    pub start: Image,
    /// What happened, in order.
    pub ops: Vec<Op>,
}

impl Record {
    /// The disk after a power cut just before operation `cut`; `cut` may be their number, for a cut after the last.
    ///
    /// It replays the record up to there. Who wants the images of every cut walks along with a [`Replay`].
    ///
    /// # Panics
    /// When `cut` is larger than the number of operations.
    pub fn image_after(&self, cut: usize, loss: Loss) -> Image {
        let mut replay = Replay::new(&self.start);
        self.ops[..cut].iter().for_each(|op| replay.apply(op));
        replay.image(loss)
    }
}

/// A walk along a record, which shows the disk after a power cut at the place it has come to.
#[derive(Clone)]
pub struct Replay {
    state: State,
}

impl std::fmt::Debug for Replay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replay").finish_non_exhaustive()
    }
}

impl Replay {
    /// At the start of a record.
    pub fn new(start: &Image) -> Self {
        Replay {
            state: State::new(start),
        }
    }

    /// Goes one operation on.
    ///
    /// # Panics
    /// When the operation is not the record's next one and does not fit the disk.
    pub fn apply(&mut self, op: &Op) {
        self.state.apply(op);
    }

    /// The disk after a power cut here.
    pub fn image(&self, loss: Loss) -> Image {
        self.state.image(loss)
    }
}
