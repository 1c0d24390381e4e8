//! The adapter on the bench, from request to answer. The tests bear the ids of the protocol's test list.

#![allow(clippy::unwrap_used, reason = "tests")]

mod centre;
mod info;
mod outcome;
mod properties;
mod readme;
mod restart;
mod update;
