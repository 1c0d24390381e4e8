//! The adapter on the bench, from answer to answer. The tests bear the ids of the protocol's test list; R04 to R07 and R11 to R13 are the
//! host's link.

#![allow(clippy::unwrap_used, reason = "tests")]

mod attempts;
mod cloud;
mod polling;
mod properties;
mod report;
mod tokens;
mod update;
