//! What is measured: one row in each module.

pub(crate) mod command;
pub(crate) mod emus;
pub(crate) mod install;
pub(crate) mod memory;
pub(crate) mod rate;
pub(crate) mod resume;
pub(crate) mod sizes;
pub(crate) mod start;
pub(crate) mod step;
pub(crate) mod swap;
pub(crate) mod wear;
