//! The lab: everything around an update agent that a test needs and that can go wrong on command.
//!
//! Brokers, file servers, a vendor's cloud, and a machine that reboots, loses power and falls back. Nothing here knows the agent:
//! the lab judges it from outside, by messages, files and boots, so it does not share the agent's mistakes.

pub mod broker;
pub mod centre;
pub mod cloud;
mod daemon;
pub mod files;
pub mod ftps;
pub mod ids;
pub mod image;
pub mod machine;
pub mod mosquitto;
pub mod nginx;
pub mod peer;
pub mod proxy;
pub mod signing;
pub mod tls;
pub mod vsftpd;
pub mod webhook;
pub mod withnox;
pub mod wudun;
