//! The adapter for the kits of the 112 emergency call button system: the centre calls `updateDevice` over HTTP, the kit answers which
//! version it will install and fetches it by explicit FTPS.
//!
//! `README.md` beside this crate lists what is answered when, and what was decided where the vendor's page is silent.

pub mod choice;
pub mod config;
pub mod device;
pub mod messages;
pub mod outcome;
pub mod rules;
pub mod state;
pub mod update;
pub mod version;
pub mod wire;

use otahost_adapter::{
    Adapter, Description, Effect, Event, InboundRequest, Requirements, StartReason, View, register,
};

use crate::config::Config;
use crate::state::State;

/// The adapter.
#[derive(Debug)]
pub struct Kit112;

impl Adapter for Kit112 {
    type Config = Config;
    type State = State;

    fn describe() -> Description {
        Description {
            protocol: "112 kit: updateDevice, getDeviceInfo, healthCheck".into(),
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
            Event::Request(request) if request.link == config.link => {
                on_request(state, &request, config, view)
            }
            Event::Listing(listing) => update::on_listing(state, &listing, config, view),
            Event::Job(report) => outcome::on_report(state, &report, config, view),
            Event::Target(id) if id == config.target => outcome::on_target(state, config, view),
            Event::Timer(name) => match name.as_str() {
                update::TIMER => update::on_timer(state, config, view),
                outcome::TIMER => outcome::on_timer(state),
                _ => Vec::new(),
            },
            // A transfer that broke off is resumed by the host's own rule. The rest is another link's, or was never asked for.
            Event::Attempt(_)
            | Event::Request(_)
            | Event::Target(_)
            | Event::Link(_)
            | Event::Message(_)
            | Event::Response(_)
            | Event::Extension(_) => Vec::new(),
        })
    }
}

register!(Kit112);

fn on_start(
    state: &mut State,
    reason: &StartReason,
    config: &Config,
    view: &dyn View,
) -> Vec<Effect> {
    match reason {
        // Whoever waited is gone with the old process.
        StartReason::Booted | StartReason::Restarted => update::forget(state),
        // The folder that was asked for may be another one now.
        StartReason::Reconfigured => update::on_timer(state, config, view),
        // A swap between two events: the callers wait on.
        StartReason::Installed | StartReason::Upgraded(_) | StartReason::RolledBack(_) => {
            Vec::new()
        }
    }
}

fn on_request(
    state: &mut State,
    request: &InboundRequest,
    config: &Config,
    view: &dyn View,
) -> Vec<Effect> {
    let service = request.path.strip_prefix(config.base_path.as_str());
    match service {
        Some(config::UPDATE_DEVICE) => update::on_request(state, request, config, view),
        Some(config::GET_DEVICE_INFO) => vec![device::info(state, request, config, view)],
        Some(config::HEALTH_CHECK) => vec![device::health(state, request, config, view)],
        // The host serves only what was declared, so this is never met; a caller must not wait for ever all the same.
        _ => vec![wire::refuse(
            &request.id,
            404,
            &config.messages.unknown_kit,
            view.now(),
        )],
    }
}
