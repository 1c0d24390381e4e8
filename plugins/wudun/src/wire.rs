//! What goes over the wire: the four commands, and the one envelope of all results.

use otahost_adapter::effects::publish;
use otahost_adapter::{Effect, View, uuid};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::command::Correlation;
use crate::config::Config;

/// The four commands of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Update the system, or a device behind it. Answered in two phases.
    #[serde(rename = "ota_upgrade")]
    Upgrade,
    /// Say what is known of every EMU.
    EmuVersion,
    /// Update one EMU. Answered once the package is handed to it.
    EmuUpgrade,
    /// Say how the update of one EMU stands.
    EmuUpgradeResult,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 4] = [
        Kind::Upgrade,
        Kind::EmuVersion,
        Kind::EmuUpgrade,
        Kind::EmuUpgradeResult,
    ];

    /// Its levels in the topics.
    pub fn path(self) -> &'static str {
        match self {
            Kind::Upgrade => "ota/upgrade",
            Kind::EmuVersion => "ota/emu_version",
            Kind::EmuUpgrade => "ota/emu_upgrade",
            Kind::EmuUpgradeResult => "ota/emu_upgrade_result",
        }
    }

    /// Its `type` in the messages.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Upgrade => "ota_upgrade",
            Kind::EmuVersion => "emu_version",
            Kind::EmuUpgrade => "emu_upgrade",
            Kind::EmuUpgradeResult => "emu_upgrade_result",
        }
    }
}

/// A result, in the order of the vendor's samples.
#[derive(Serialize)]
struct Envelope<'a, D: Serialize> {
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<&'a Value>,
    mid: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    msg: Option<&'a str>,
    device_uid: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub_device_uid: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub_device_id: Option<&'a Value>,
    timestamp: u64,
    data: D,
}

/// The result to publish: with a `mid` of its own, the time of now, and everything of the command that the platform knows it by.
/// `fault` is what is wrong with a parameter of the command.
pub fn result(
    to: &Correlation,
    data: &impl Serialize,
    fault: Option<&str>,
    config: &Config,
    view: &dyn View,
) -> Effect {
    let fault = fault.filter(|_| config.error_code);
    let message = Envelope {
        trace_id: to.trace_id.as_ref(),
        mid: &uuid(view),
        kind: to.kind.word(),
        reply: to.mid.as_deref().filter(|_| config.reply),
        code: fault.map(|_| 400),
        msg: fault,
        device_uid: &config.device_uid,
        sub_device_uid: to.sub_device_uid.as_ref(),
        sub_device_id: to.sub_device_id.as_ref(),
        timestamp: view.now(),
        data,
    };
    let mut bases = config.bases();
    // The operator may have changed the topics since the command came: then the result goes where commands come from now.
    let base = match bases.iter().position(|base| *base == to.base) {
        Some(at) => bases.swap_remove(at),
        None => bases.swap_remove(0),
    };
    publish(&config.link, &format!("{base}/{}/result", to.kind.path()))
        .json(&message)
        .durable()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn the_words_of_the_context_are_those_of_the_wire() {
        for kind in Kind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.word());
        }
    }
}
