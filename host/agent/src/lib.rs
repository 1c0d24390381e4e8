//! The otahost agent as a library: configuration, engine, local API and command line. The binary is a thin shell around [`cli`].

pub mod alerts;
pub mod api;
pub mod assemble;
pub mod check;
pub mod cli;
pub mod config;
pub mod deadman;
pub mod doctor;
pub mod engine;
pub mod exit;
pub mod notices;
pub mod offline;
pub mod outside;
pub mod platform;
mod reload;
pub mod repository;
pub mod run;
pub mod sign;
pub mod sources;
mod wants;
