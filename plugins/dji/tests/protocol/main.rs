//! The adapter on the bench, from message to message. The tests bear the ids of the protocol's test list.

#![allow(clippy::unwrap_used, reason = "tests")]

mod cloud;
mod commands;
mod dialects;
mod dock_and_drone;
mod presence;
mod properties;
mod result;
mod update;
