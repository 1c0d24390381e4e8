//! Values that are used and never shown: tokens, passwords, and how they get into a request and out of an answer.
//!
//! Secrets never cross into the sandbox. An adapter writes `{secret:name}` where a value belongs and says which values of an answer
//! are secrets; this module fills, cuts and scrubs, without I/O, so that it can be tested as tables.

mod capture;
mod fill;
mod scrub;
mod template;
#[cfg(test)]
mod tests;

use std::fmt;

use zeroize::Zeroize;

pub use capture::{Captured, MAX_CAPTURED, NotJson, capture};
pub use fill::{FillError, Filled, fill};
pub use scrub::{HIDDEN, MIN_SCRUBBED, Scrubber};
pub use template::{Place, uses};

/// A value that is never shown: `Debug` says `Secret(…)`, there is no `Display` and no serialisation but by way of
/// [`Secret::reveal`], and its memory is overwritten when it is dropped.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value.
    pub fn new(value: impl Into<String>) -> Self {
        Secret(value.into())
    }

    /// The value, for the one place that sends or stores it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The text for a secret that a request needs and the link does not have. Adapters may look for `no-secret:` at its start.
pub fn missing(name: &str) -> String {
    format!("no-secret: {name} is not known on this link")
}
