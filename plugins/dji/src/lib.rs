//! The adapter for firmware updates over the DJI-style Cloud API: `ota_create` comes in over MQTT, `ota_progress` goes out.
//!
//! It speaks the dialects of Autel's and DJI's pages. `README.md` beside this crate lists what it says when, and what was decided
//! where the pages are silent.

pub mod attempt;
pub mod command;
pub mod config;
pub mod dialect;
pub mod outcome;
pub mod presence;
pub mod progress;
pub mod result;
pub mod service;
pub mod state;
pub mod wire;

use otahost_adapter::{
    Adapter, Description, Effect, Event, Level, LinkState, Message, Requirements, StartReason, View,
};

use crate::config::Config;
use crate::state::State;

/// The adapter.
#[derive(Debug)]
pub struct Dji;

impl Adapter for Dji {
    type Config = Config;
    type State = State;

    fn describe() -> Description {
        Description {
            protocol: "DJI-style Cloud API ota_create, dialects autel, dji-v1 and dji-2026".into(),
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
            Event::Started(reason) => on_start(state, &reason, config, view),
            Event::Link(link) if link.link == config.link => on_link(state, &link, config, view),
            Event::Message(message) if message.link == config.link => {
                on_message(state, &message, config, view)
            }
            Event::Job(report) => {
                let mut effects = Vec::new();
                if !report.foreign {
                    effects.extend(progress::on_report(state, &report, config, view));
                }
                let ended = report.phase.is_final().then_some(report.key.as_str());
                effects.extend(presence::refresh(state, ended, config, view));
                effects
            }
            Event::Target(_) => presence::refresh(state, None, config, view),
            Event::Timer(name) => match name.as_str() {
                progress::TIMER => progress::on_timer(state, config, view),
                presence::TOPO_TIMER => presence::on_topo_timer(state, config, view),
                presence::OSD_TIMER => presence::on_osd_timer(state, config, view),
                result::TIMER => result::tell_again(state, config, view),
                _ => Vec::new(),
            },
            Event::Attempt(failed) => attempt::on_attempt(&failed),
            // Another link's events, and answers to what this adapter never asks for.
            Event::Link(_)
            | Event::Message(_)
            | Event::Request(_)
            | Event::Response(_)
            | Event::Listing(_)
            | Event::Extension(_) => Vec::new(),
        })
    }
}

#[cfg(feature = "register")]
otahost_adapter::register!(Dji);

fn on_start(
    state: &mut State,
    reason: &StartReason,
    config: &Config,
    view: &dyn View,
) -> Vec<Effect> {
    match reason {
        // The link is not up yet; it will be told.
        StartReason::Booted => {
            progress::on_boot(state);
            on_down(state)
        }
        StartReason::Restarted => on_down(state),
        // The link may have been up all the time, and what is announced may have changed.
        StartReason::Installed
        | StartReason::Upgraded(_)
        | StartReason::RolledBack(_)
        | StartReason::Reconfigured => on_up(state, config, view),
    }
}

fn on_link(state: &mut State, link: &LinkState, config: &Config, view: &dyn View) -> Vec<Effect> {
    if link.up {
        on_up(state, config, view)
    } else {
        on_down(state)
    }
}

fn on_up(state: &mut State, config: &Config, view: &dyn View) -> Vec<Effect> {
    let mut effects = presence::announce(state, config, view);
    effects.extend(result::on_link_up(state));
    effects
}

fn on_down(state: &mut State) -> Vec<Effect> {
    let mut effects = presence::withdraw(state);
    effects.extend(result::on_link_down(state));
    effects
}

fn on_message(
    state: &mut State,
    message: &Message,
    config: &Config,
    view: &dyn View,
) -> Vec<Effect> {
    let is_command = message.topic == config.services();
    let is_status = message.topic == config.status_reply();
    if !is_command && !is_status && message.topic != config.events_reply() {
        return Vec::new();
    }
    // A retained command would start again at every connect, long after it was meant.
    let read = if message.retained && is_command {
        Err("it is retained")
    } else {
        wire::parse(&message.payload)
    };
    let inbound = match read {
        Ok(inbound) => inbound,
        Err(why) => {
            state.dropped = state.dropped.saturating_add(1);
            view.log(
                Level::Warn,
                &format!(
                    "a message on {} is dropped: {why} ({} so far)",
                    message.topic, state.dropped
                ),
            );
            return Vec::new();
        }
    };
    if is_command {
        return service::on_command(state, &inbound, config, view);
    }
    if is_status {
        let Some(mut effects) = presence::on_status_reply(state, &inbound, config, view) else {
            return Vec::new();
        };
        // A cloud that has just accepted the gateway listens to its events only from now on: it hears how an update stands, or
        // how the last one ended.
        if state.running.is_some() {
            effects.extend(progress::on_timer(state, config, view));
        }
        effects.extend(result::tell_again(state, config, view));
        return effects;
    }
    result::on_events_reply(state, &inbound, view)
}
