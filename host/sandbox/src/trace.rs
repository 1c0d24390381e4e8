//! What an adapter did, step by step, in a form that can be run again.
//!
//! A step is a pure function of what the adapter was shown, so keeping that is keeping the step: a debugger for whoever asks why the
//! device did something last night, and the trial run of an adapter's next version on this device's own events. Most of what is shown hardly
//! changes from step to step; it is cut into parts, and each part is stored once, by its digest.

mod part;
mod record;
mod recording;
mod ring;

pub(crate) use record::effect_in_words;

pub use record::{Brief, Outcome, StepRecord, event_in_words};
pub use recording::{Recorder, Recording};
pub use ring::{Change, Entry, Incomplete, TraceRing};
