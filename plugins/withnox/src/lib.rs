//! The adapter for firmware updates from the Withnox and Addnox cloud: it polls a REST API with bearer tokens, has the file fetched
//! through a signed redirect, and tells the cloud what runs.
//!
//! `README.md` beside this crate lists what it does when, and what was decided where the vendor's pages are silent.

pub mod attempt;
pub mod auth;
pub mod choice;
pub mod config;
pub mod errand;
pub mod job;
pub mod pace;
pub mod poll;
pub mod report;
pub mod state;
pub mod verdict;
pub mod wire;

use otahost_adapter::{
    Adapter, Description, Effect, Event, FetchOutcome, Requirements, View, register,
};

use crate::config::Config;
use crate::state::State;

/// The adapter.
#[derive(Debug)]
pub struct Withnox;

impl Adapter for Withnox {
    type Config = Config;
    type State = State;

    fn describe() -> Description {
        Description {
            protocol: "Withnox & Addnox firmware OTA over REST".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            config_schema: config::SCHEMA.into(),
            state_version: 1,
        }
    }

    fn requirements(config: &Config) -> Result<Requirements, Vec<String>> {
        config.requirements()
    }

    fn handle(
        state: &mut State,
        event: Event,
        config: &Config,
        view: &dyn View,
    ) -> Result<Vec<Effect>, String> {
        Ok(match event {
            Event::Started(reason) => poll::on_start(state, &reason, config, view),
            Event::Response(outcome) => on_response(state, &outcome, config, view),
            Event::Attempt(failed) => attempt::on_attempt(state, &failed, config, view),
            Event::Job(report) => job::on_report(state, &report, config, view),
            Event::Target(id) if id == config.target => job::on_target(state, config, view),
            Event::Timer(name) => match name.as_str() {
                poll::TIMER => poll::on_timer(state, config, view),
                report::TIMER => report::on_timer(state, config, view),
                auth::TIMER => auth::on_timer(state, config, view),
                auth::HOUR_TIMER => auth::on_hour(state, config, view),
                _ => Vec::new(),
            },
            // Another target's events, and what this adapter never asks for.
            Event::Target(_)
            | Event::Link(_)
            | Event::Message(_)
            | Event::Request(_)
            | Event::Listing(_)
            | Event::Extension(_) => Vec::new(),
        })
    }
}

register!(Withnox);

fn on_response(
    state: &mut State,
    answer: &FetchOutcome,
    config: &Config,
    view: &dyn View,
) -> Vec<Effect> {
    let tag = answer.tag.split_once('/');
    let Some((word, Ok(number))) = tag.map(|(word, number)| (word, number.parse::<u64>())) else {
        return Vec::new();
    };
    let outcome = &answer.outcome;
    match word {
        poll::TIMER => poll::on_answer(state, number, outcome, config, view),
        report::TIMER => report::on_answer(state, number, outcome, config, view),
        auth::REFRESH => auth::on_refreshed(state, number, outcome, config, view),
        auth::SIGN_IN => auth::on_signed_in(state, number, outcome, config, view),
        _ => Vec::new(),
    }
}
