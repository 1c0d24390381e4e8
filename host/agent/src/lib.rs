//! The otahost agent as a library: configuration, engine, local API and command line. The binary is a thin shell around [`cli`].

pub mod alerts;
pub mod api;
pub mod assemble;
pub mod check;
pub mod cli;
pub mod config;
pub mod deadman;
pub mod engine;
pub mod exit;
pub mod offline;
pub mod outside;
pub mod platform;
pub mod run;
pub mod sign;
pub mod sources;
