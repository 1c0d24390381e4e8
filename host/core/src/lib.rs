//! The decisions of the host: what a step may do, which job may start, where a job goes next, when to try again.
//!
//! Nothing here does I/O, waits or reads a clock; everything is a function of its arguments, so that each decision can be
//! tested as a table, replayed, and asked for in advance (`check-job`).

pub mod admit;
pub mod backoff;
pub mod bytes_as_base64;
pub mod grants;
pub mod job;
pub mod model;
pub mod paths;
pub mod policy;
pub mod secret;
mod shared;
pub mod topics;
pub mod view;
