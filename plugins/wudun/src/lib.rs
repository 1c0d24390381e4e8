//! The adapter for updates of wudun energy management systems: four MQTT commands for the system itself and the EMUs behind it.
//!
//! `README.md` beside this crate lists what it says when, and what was decided where the vendor's pages are silent.

pub mod command;
pub mod config;
pub mod emu;
pub mod json;
pub mod memory;
pub mod outcome;
pub mod status;
pub mod target;
pub mod upgrade;
pub mod wire;

use otahost_adapter::{
    Adapter, ClockQuality, Description, Effect, Event, JobReport, Level, Message, Requirements,
    View, register, uuid,
};

use crate::command::{Command, Correlation};
use crate::config::Config;
use crate::memory::{State, Told};
use crate::wire::Kind;

/// The adapter.
#[derive(Debug)]
pub struct Wudun;

impl Adapter for Wudun {
    type Config = Config;
    type State = State;

    fn describe() -> Description {
        Description {
            protocol: "wudun EMS OTA over MQTT, EMS and EMUs".into(),
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
            Event::Message(message) if message.link == config.link => {
                on_message(state, &message, config, view)
            }
            Event::Job(report) => on_report(state, &report, config, view),
            // Results wait for the broker in the host's outbox, so links need no care; EMUs are looked at when the platform asks;
            // which attempt to fetch a package is worth another the host knows itself.
            Event::Started(_)
            | Event::Link(_)
            | Event::Target(_)
            | Event::Attempt(_)
            | Event::Message(_)
            | Event::Request(_)
            | Event::Response(_)
            | Event::Listing(_)
            | Event::Timer(_)
            | Event::Extension(_) => Vec::new(),
        })
    }
}

register!(Wudun);

fn on_message(
    state: &mut State,
    message: &Message,
    config: &Config,
    view: &dyn View,
) -> Vec<Effect> {
    let Some((base, kind)) = config.route(&message.topic) else {
        return Vec::new();
    };
    match read(state, message, base, kind, config, view) {
        Ok(command) => on_command(state, &command, message.retained, config, view),
        Err(why) => {
            state.dropped = state.dropped.saturating_add(1);
            view.log(
                Level::Warn,
                &format!(
                    "a message on {} is dropped: {why} ({} so far)",
                    message.topic, state.dropped
                ),
            );
            Vec::new()
        }
    }
}

/// Reads a command that is meant for this device, now.
fn read(
    state: &mut State,
    message: &Message,
    base: String,
    kind: Kind,
    config: &Config,
    view: &dyn View,
) -> Result<Command, &'static str> {
    let read = json::read(&message.payload, config.lenient_json)?;
    let command = command::read(read.value, kind, base, || uuid(view))?;
    // In the topic stands who it is for; where the message says so too, both have to agree.
    if command
        .device_uid
        .as_ref()
        .is_some_and(|uid| *uid != config.device_uid)
    {
        return Err("its device_uid is that of another device");
    }
    if message.retained {
        check_retained(state, &command, config, view)?;
    }
    if read.lenient {
        state.lenient = state.lenient.saturating_add(1);
        view.log(
            Level::Warn,
            &format!(
                "a message on {} has trailing commas, which is no JSON; it is read all the same ({} so far)",
                message.topic, state.lenient
            ),
        );
    }
    Ok(command)
}

/// A retained command comes again at every connect, long after it was meant. One that is new may be carried out.
fn check_retained(
    state: &State,
    command: &Command,
    config: &Config,
    view: &dyn View,
) -> Result<(), &'static str> {
    if state.commands.told(command.known_by.id).is_some() {
        return Err("it is retained and was seen before");
    }
    if view.clock() != ClockQuality::Synced {
        return Err("it is retained, and the clock is not set, so nobody knows how old it is");
    }
    let Some(sent) = command.timestamp else {
        return Err("it is retained and has no timestamp");
    };
    if view.now().abs_diff(sent) > 1_000 * u64::from(config.retained_max_age)
        || config.retained_max_age == 0
    {
        return Err("it is retained and too old");
    }
    Ok(())
}

fn on_command(
    state: &mut State,
    command: &Command,
    retained: bool,
    config: &Config,
    view: &dyn View,
) -> Vec<Effect> {
    let to = &command.known_by;
    let told = state.commands.told(to.id);
    if told.is_some() {
        view.log(
            Level::Info,
            &format!(
                "{} came again; what was answered is answered again, and nothing is done",
                to.kind.path()
            ),
        );
    }
    match (to.kind, told) {
        (Kind::Upgrade, None) => upgrade::on_command(state, command, config, view),
        (Kind::Upgrade, Some(told)) => upgrade::again(state, told, to, config, view),
        (Kind::EmuUpgrade, None) => emu::on_command(state, command, config, view),
        (Kind::EmuUpgrade, Some(told)) => emu::again(told, to, config, view),
        (Kind::EmuVersion | Kind::EmuUpgradeResult, _) => {
            // A question costs nothing to answer again, and hundreds of them must not push out the commands that were carried out.
            if retained {
                state.commands.put(to.id, Told::Done(0), config.remember);
            }
            match to.kind {
                Kind::EmuVersion => status::versions(state, command, config, view),
                _ => status::result(state, command, config, view),
            }
        }
    }
}

fn on_report(
    state: &mut State,
    report: &JobReport,
    config: &Config,
    view: &dyn View,
) -> Vec<Effect> {
    emu::remember(state, report, config, view);
    if report.foreign {
        return Vec::new();
    }
    let to: Correlation = match report.context_json() {
        Ok(to) => to,
        Err(why) => {
            view.log(
                Level::Warn,
                &format!("a job's report is passed over: {why}"),
            );
            return Vec::new();
        }
    };
    match to.kind {
        Kind::Upgrade => upgrade::on_report(state, report, &to, config, view),
        Kind::EmuUpgrade => emu::on_report(state, report, &to, config, view),
        // Questions start no job.
        Kind::EmuVersion | Kind::EmuUpgradeResult => Vec::new(),
    }
}
