//! What the dead-man needs of the configuration, read from whatever is left of it.
//!
//! The dead-man is there for a new version in which the agent does not come up, and a faulty configuration is one of the reasons.
//! So faults elsewhere do not matter to it, not even one that makes the file no TOML any more.

use std::path::Path;

use toml::de::DeTable;

use super::reader::{Reader, Section};
use super::{BootConfig, Config, Faults, read_file, schema, syntax_faults, targets};

/// What the dead-man watches, and what it may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    /// Program and arguments that restart the device.
    pub reboot: Vec<String>,
    /// The boot selectors that could be read, by target, in the order of the file.
    pub boots: Vec<(String, BootConfig)>,
    /// What is wrong with the file, when that may hide a boot selector.
    pub faults: Option<Faults>,
}

impl Config {
    /// Only `device.reboot` and the boot selectors. Faults elsewhere in the file do not matter.
    ///
    /// # Errors
    /// The file cannot be read, it does not say how the device is restarted, or it has faults and no boot selector is left.
    pub fn watched(path: &Path) -> Result<Watched, Faults> {
        let text = read_file(path)?;
        let reader = Reader::new(path, &text);
        let (document, errors) = DeTable::parse_recoverable(&text);
        syntax_faults(&reader, &errors);
        let root = Section::new(
            &reader,
            &schema::ROOT,
            String::new(),
            0..0,
            document.get_ref(),
        );
        let reboot = reboot(&root);
        let found = boots(&root);
        let hidden = !errors.is_empty() || found.iter().any(|(_, boot)| boot.is_none());
        let boots: Vec<_> = found
            .into_iter()
            .filter_map(|(target, boot)| Some((target, boot?)))
            .collect();
        let faults = Faults::new(path, &text, reader.into_findings());
        match reboot {
            Some(reboot) if !hidden || !boots.is_empty() => Ok(Watched {
                reboot,
                boots,
                faults: hidden.then_some(faults),
            }),
            Some(_) | None => Err(faults),
        }
    }
}

fn reboot(root: &Section<'_>) -> Option<Vec<String>> {
    root.require("device", "it says how the device is restarted")?
        .section(&schema::DEVICE)?
        .require("reboot", "it says how the device is restarted")?
        .command()
}

/// The boot selector of every target with slots; `None` where it cannot be told.
fn boots(root: &Section<'_>) -> Vec<(String, Option<BootConfig>)> {
    let items = root
        .get("targets")
        .map(|t| t.named("[targets.dock]"))
        .unwrap_or_default();
    let mut boots = Vec::new();
    for (name, item) in items {
        let Some(section) = item.section(&schema::TARGET) else {
            boots.push((name.to_owned(), None));
            continue;
        };
        let has_slots = section
            .get("flasher")
            .is_none_or(|kind| kind.value.as_str() == Some("slots"));
        if has_slots {
            let boot = section
                .require("boot", "it says which slot runs")
                .and_then(|i| targets::boot(&i));
            boots.push((name.to_owned(), boot));
        }
    }
    boots
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const DEVICE: &str = "[device]\nid = \"gw\"\nreboot = [\"reboot\", \"-f\"]\n";
    const DOCK: &str =
        "[targets.dock]\nflasher = \"slots\"\nboot = { command = [\"dock-boot\"] }\n";

    fn watched(text: &str) -> Result<Watched, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("otahost.toml");
        std::fs::write(&path, text).unwrap();
        Config::watched(&path).map_err(|faults| faults.to_string())
    }

    fn dock() -> Vec<(String, BootConfig)> {
        vec![(
            "dock".to_owned(),
            BootConfig::Command(vec!["dock-boot".to_owned()]),
        )]
    }

    #[test]
    fn a_file_that_no_agent_would_start_with_is_enough() {
        for more in [
            "",
            "[adapters.dji]\ncomponent = \"missing.wasm\"\n",
            "[links.cloud]\npassword = { file = \"/missing\" }\nfrob = 1\n",
            "[targets.drone]\nflasher = \"command\"\n",
        ] {
            let found = watched(&format!("{DEVICE}{DOCK}{more}")).unwrap();
            assert_eq!((found.boots, found.faults), (dock(), None), "{more}");
            assert_eq!(found.reboot, ["reboot", "-f"]);
        }
    }

    #[test]
    fn a_file_that_is_no_toml_any_more_is_read_as_far_as_it_can_be_and_its_faults_are_kept() {
        for broken in [
            "[adapters.dji\n",
            "= 3\n",
            "x = \"never ends\n",
            "more [[ = ]] nonsense\n",
            "[device]\n",
        ] {
            let found = watched(&format!("{DEVICE}{DOCK}{broken}")).unwrap();
            assert_eq!(found.boots, dock(), "{broken}");
            assert_eq!(found.reboot, ["reboot", "-f"], "{broken}");
            assert!(found.faults.is_some(), "{broken}");
        }
    }

    #[test]
    fn a_target_that_cannot_be_told_does_not_hide_the_others() {
        let text = format!("{DEVICE}[targets.a]\nflasher = \"slots\"\nboot = 7\n{DOCK}");
        let found = watched(&text).unwrap();
        assert_eq!(found.boots, dock());
        assert!(found.faults.unwrap().to_string().contains("targets.a.boot"));
    }

    #[test]
    fn without_a_reboot_or_any_boot_selector_there_is_nothing_to_be_done() {
        let error = watched(&format!("[device]\nid = \"gw\"\n{DOCK}")).unwrap_err();
        assert!(error.contains("device.reboot"), "{error}");
        assert!(watched(DOCK).unwrap_err().contains("device"));
        let error = watched(&format!("{DEVICE}[targets.dock]\nflasher = \"slots\"\n")).unwrap_err();
        assert!(error.contains("targets.dock.boot"), "{error}");
        watched("nonsense").unwrap_err();
        // A device without slots has nothing on trial.
        assert_eq!(watched(DEVICE).unwrap().boots, []);
    }
}
