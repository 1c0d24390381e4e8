//! Which target the platform means. The operator says so by attributes; the platform's ids are no names of ours.

use otahost_adapter::{Health, Target};

use crate::command;
use crate::command::Correlation;
use crate::config::{Config, Running};

/// `emu_upgrade_device` of an EMU itself.
const EMU: i64 = 3;
/// The longest version or serial number in bytes that is told or remembered.
pub const VERSION_MAX: usize = 64;

/// The target that `ota/upgrade` means: of this `source`, and where a `sub_device_uid` is named, with that one.
pub fn of_upgrade<'t>(
    command: &Correlation,
    targets: &'t [Target],
    config: &Config,
) -> Option<&'t Target> {
    let source = command.source.as_deref()?;
    let uid = command.sub_device_uid.as_ref().map(command::text);
    targets.iter().find(|target| {
        target.attribute(&config.attributes.source) == Some(source)
            && target.attribute(&config.attributes.sub_device_uid) == uid.as_deref()
    })
}

/// An EMU, or a communication board of one.
#[derive(Debug, Clone, Copy)]
pub struct Emu<'t> {
    /// The platform's number for it.
    pub device_id: i64,
    /// What it is: 3 the EMU, 21 to 26 a communication board.
    pub upgrade_device: i64,
    /// The target that stands for it.
    pub target: &'t Target,
}

impl<'t> Emu<'t> {
    /// This target, where it is one.
    pub fn of(target: &'t Target, config: &Config) -> Option<Self> {
        let whole = |name: &str| target.attribute(name)?.trim().parse().ok();
        Some(Emu {
            device_id: whole(&config.attributes.device_id)?,
            upgrade_device: whole(&config.attributes.emu_upgrade_device).unwrap_or(EMU),
            target,
        })
    }

    /// All of them, in the order of the host's configuration.
    pub fn all(targets: &'t [Target], config: &Config) -> impl Iterator<Item = Emu<'t>> {
        targets.iter().filter_map(|target| Emu::of(target, config))
    }

    /// The one with this number. Where its boards bear the same number, the EMU itself.
    pub fn find(device_id: i64, targets: &'t [Target], config: &Config) -> Option<Self> {
        let mut first = None;
        for emu in Emu::all(targets, config).filter(|emu| emu.device_id == device_id) {
            if emu.upgrade_device == EMU {
                return Some(emu);
            }
            first = first.or(Some(emu));
        }
        first
    }

    /// `status`.
    pub fn status(&self, config: &Config) -> u8 {
        let running = match self.target.health {
            Health::Healthy => Running::Running,
            Health::Offline => Running::Offline,
            Health::Unwell => Running::Fault,
            Health::Unknown => config.unknown_health,
        };
        match running {
            Running::Running => 1,
            Running::Offline => 2,
            Running::Fault => 3,
        }
    }

    /// `emu_product_sn`: the operator's attribute, else the version that runs, else nothing.
    pub fn product_sn(&self, config: &Config) -> &'t str {
        self.target
            .attribute(&config.attributes.emu_product_sn)
            .or(self.target.version.as_deref())
            .filter(|text| is_tellable(text))
            .unwrap_or_default()
    }

    /// The bit of a bitmask that says it went well: 7 for the EMU, 1 to 6 for a board, none for what the vendor has no number for.
    pub fn bit(&self) -> u16 {
        match self.upgrade_device {
            EMU => 1 << 7,
            board @ 21..=26 => 1 << (board - 20),
            _ => 0,
        }
    }
}

/// A version that can be told: the platform's fields are optional, so what is unknown is left out.
pub fn version(text: Option<&str>) -> Option<String> {
    text.filter(|text| is_tellable(text)).map(Into::into)
}

fn is_tellable(text: &str) -> bool {
    !text.is_empty() && text.len() <= VERSION_MAX && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use otahost_adapter::{Field, bench};
    use serde_json::{Value, json};

    use super::*;
    use crate::wire::Kind;

    fn config() -> Config {
        serde_json::from_value(json!({ "device_uid": "D", "prefix": "p" })).unwrap()
    }

    fn target(id: &str, attributes: &[(&str, &str)]) -> Target {
        let mut target = bench::target(id, "1.0");
        target.attributes = attributes
            .iter()
            .map(|(name, value)| Field {
                name: (*name).into(),
                value: (*value).into(),
            })
            .collect();
        target
    }

    fn found(source: Value, uid: Value, targets: &[Target]) -> Option<String> {
        let value = json!({ "mid": "m", "sub_device_uid": uid, "data": { "source": source } });
        let command = command::read(value, Kind::Upgrade, "p/D".into(), String::new).unwrap();
        of_upgrade(&command.known_by, targets, &config()).map(|t| t.id.clone())
    }

    #[test]
    fn an_upgrade_means_the_target_of_this_source_and_sub_device_and_no_other() {
        let targets = [
            target("below", &[("source", "ems_I"), ("sub_device_uid", "S1")]),
            target("ems", &[("source", "ems_I")]),
            target("other", &[("source", "ems_II")]),
            target("none", &[]),
        ];
        let is = |source: &str, uid: Value| found(json!(source), uid, &targets);
        assert_eq!(is("ems_I", Value::Null).as_deref(), Some("ems"));
        assert_eq!(is("ems_I", json!("")).as_deref(), Some("ems"));
        assert_eq!(is("ems_I", json!("S1")).as_deref(), Some("below"));
        assert_eq!(is("ems_I", json!("S2")), None);
        assert_eq!(is("ems_II", json!("S1")), None);
        assert_eq!(is("ems_III", Value::Null), None);
        assert_eq!(found(Value::Null, Value::Null, &targets), None);
        assert_eq!(found(json!(1), Value::Null, &targets), None);
    }

    #[test]
    fn an_emu_is_what_has_a_whole_number_as_device_id() {
        let targets = [
            target("ems", &[("source", "ems_I")]),
            target("board", &[("device_id", "2"), ("emu_upgrade_device", "21")]),
            target("emu2", &[("device_id", "2")]),
            target(
                "emu3",
                &[("device_id", " 3 "), ("emu_upgrade_device", "26")],
            ),
            target("odd", &[("device_id", "three")]),
        ];
        let config = config();
        let all: Vec<_> = Emu::all(&targets, &config)
            .map(|e| e.target.id.as_str())
            .collect();
        assert_eq!(all, ["board", "emu2", "emu3"]);
        let find = |id| Emu::find(id, &targets, &config);
        assert_eq!(find(2).unwrap().target.id, "emu2", "the EMU, not its board");
        assert_eq!(find(3).unwrap().upgrade_device, 26);
        assert!(find(4).is_none());
        assert_eq!(find(2).unwrap().bit(), 128);
        assert_eq!(find(3).unwrap().bit(), 64);
        assert_eq!(Emu::of(&targets[1], &config).unwrap().bit(), 2);
    }

    #[test]
    fn health_becomes_the_vendors_status_and_the_unknown_what_the_operator_says() {
        let mut target = target("emu", &[("device_id", "2")]);
        let mut config = config();
        for (health, status) in [
            (Health::Healthy, 1),
            (Health::Offline, 2),
            (Health::Unwell, 3),
            (Health::Unknown, 1),
        ] {
            target.health = health;
            assert_eq!(Emu::of(&target, &config).unwrap().status(&config), status);
        }
        for (word, status) in [(Running::Offline, 2), (Running::Fault, 3)] {
            config.unknown_health = word;
            assert_eq!(Emu::of(&target, &config).unwrap().status(&config), status);
        }
    }

    #[test]
    fn the_product_sn_is_the_attribute_or_else_the_version() {
        let config = config();
        let mut target = target("emu", &[("device_id", "2"), ("emu_product_sn", "SN-7")]);
        assert_eq!(
            Emu::of(&target, &config).unwrap().product_sn(&config),
            "SN-7"
        );
        target.attributes.pop();
        assert_eq!(
            Emu::of(&target, &config).unwrap().product_sn(&config),
            "1.0"
        );
        for version in [None, Some("a\nb".into()), Some("v".repeat(VERSION_MAX + 1))] {
            target.version = version;
            assert_eq!(Emu::of(&target, &config).unwrap().product_sn(&config), "");
        }
    }
}
