//! The configuration of a machine's agent.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::Layout;

/// What one machine has of its own.
#[derive(Debug, Clone)]
pub struct MachineSpec {
    /// Serial number: of the gateway and of its one target.
    pub serial: String,
    /// What its artifacts must be signed as.
    pub compatible: String,
    /// Minisign public keys it trusts.
    pub trust: Vec<String>,
    /// Name of its one target.
    pub target: String,
    /// Port of the broker on 127.0.0.1 of a machine that speaks `dji`; without it `more` says what it speaks.
    pub broker: Option<u16>,
    /// URL prefixes it may download from.
    pub downloads: Vec<String>,
    /// The adapter component.
    pub component: PathBuf,
    /// More lines of the adapter's own table.
    pub adapter_lines: String,
    /// The agent's program and arguments before the machine's own (`--config FILE run`).
    pub agent: Vec<String>,
    /// More lines of configuration, put behind the machine's own.
    pub more: String,
}

impl MachineSpec {
    /// A dock that speaks the `autel` dialect, with the agent and the adapter this workspace has built. It trusts nobody and may
    /// download from nowhere until the fields say so.
    pub fn dock(serial: &str, broker: u16) -> Self {
        MachineSpec {
            serial: serial.to_owned(),
            compatible: "evonest-dock".to_owned(),
            trust: Vec::new(),
            target: "dock".to_owned(),
            broker: Some(broker),
            downloads: Vec::new(),
            component: built_adapter("dji"),
            adapter_lines: String::new(),
            agent: vec![built_program("otahost").display().to_string()],
            more: String::new(),
        }
    }

    /// A machine with one target of this name, no link and no adapter: `more` says what it speaks.
    pub fn bare(serial: &str, target: &str, more: &str) -> Self {
        MachineSpec {
            target: target.to_owned(),
            broker: None,
            more: more.to_owned(),
            ..Self::dock(serial, 0)
        }
    }

    /// The text of `otahost.toml`.
    pub(super) fn otahost_toml(&self, layout: &Layout) -> String {
        let sn = &self.serial;
        let mut text = String::new();
        let mut line =
            |args: std::fmt::Arguments<'_>| writeln!(text, "{args}").expect("writing to a string");
        line(format_args!("[device]"));
        line(format_args!("id = {}", quoted(sn)));
        line(format_args!("data_dir = {}", path(&layout.data())));
        line(format_args!("boot_id = {}", path(&layout.boot_id())));
        // The boot id goes along, so that a request that arrives after the power was cut reboots nothing.
        let ask = "cat \"$0\" > \"$1\"";
        line(format_args!(
            "reboot = [\"/bin/sh\", \"-c\", {}, {}, {}]",
            quoted(ask),
            path(&layout.boot_id()),
            path(&layout.button())
        ));
        line(format_args!(
            "\n[transfer]\nattempts = 6\nbackoff_first = \"200ms\"\nbackoff_max = \"1s\""
        ));
        line(format_args!(
            "\n[targets.{}]\nflasher = \"slots\"",
            self.target
        ));
        line(format_args!(
            "slots = [{}, {}]",
            path(&layout.slot("a")),
            path(&layout.slot("b"))
        ));
        line(format_args!(
            "boot = {{ file = {} }}",
            path(&layout.selector())
        ));
        let keys: Vec<String> = self.trust.iter().map(|key| quoted(key)).collect();
        line(format_args!(
            "trust = {{ minisign = [{}], compatible = {} }}",
            keys.join(", "),
            quoted(&self.compatible)
        ));
        line(format_args!(
            "version = {{ file = {}, key = \"VERSION_ID\" }}",
            path(&layout.os_release())
        ));
        line(format_args!("attributes = {{ sn = {} }}", quoted(sn)));
        if let Some(broker) = self.broker {
            self.dji(broker, &mut text);
        }
        text.push_str(&self.more);
        if let Some(slim) = slim() {
            text.push_str(&trust_in_code(&slim));
        }
        text
    }

    fn dji(&self, broker: u16, text: &mut String) {
        let sn = &self.serial;
        let mut line =
            |args: std::fmt::Arguments<'_>| writeln!(text, "{args}").expect("writing to a string");
        line(format_args!(
            "\n[links.cloud]\nkind = \"mqtt\"\nurl = \"mqtt://127.0.0.1:{}\"",
            broker
        ));
        line(format_args!(
            "backoff_first = \"100ms\"\nbackoff_max = \"1s\""
        ));
        line(format_args!(
            "\n[adapters.dji]\ncomponent = {}",
            path(&self.component)
        ));
        line(format_args!(
            "config = {{ gateway_sn = {}, dialect = \"autel\" }}",
            quoted(sn)
        ));
        line(format_args!("{}", self.adapter_lines));
        line(format_args!("\n[adapters.dji.grants]"));
        let down =
            ["services", "events_reply"].map(|leaf| quoted(&format!("thing/product/{sn}/{leaf}")));
        let reply = quoted(&format!("sys/product/{sn}/status_reply"));
        line(format_args!(
            "links.cloud.subscribe = [{}, {reply}]",
            down.join(", ")
        ));
        let up = [
            format!("thing/product/{sn}/#"),
            format!("sys/product/{sn}/status"),
        ]
        .map(|topic| quoted(&topic));
        line(format_args!("links.cloud.publish = [{}]", up.join(", ")));
        let downloads: Vec<String> = self.downloads.iter().map(|prefix| quoted(prefix)).collect();
        line(format_args!("download = [{}]", downloads.join(", ")));
        line(format_args!("targets = [{}]", quoted(&self.target)));
    }
}

/// The directory cargo builds into: where the running test or program lies.
pub fn target_dir() -> PathBuf {
    profile_dir()
        .parent()
        .map(Path::to_path_buf)
        .unwrap_or_default()
}

/// Where a build of the agent without the compiler is to be tested, by the variable `OTAHOST_LAB_SLIM`: a directory with its program
/// `otahost`, signed native code in the place of every adapter, under its name, and the signer's public key in `trust`.
fn slim() -> Option<PathBuf> {
    std::env::var_os("OTAHOST_LAB_SLIM").map(PathBuf::from)
}

/// An adapter this workspace has built: its component, or native code of it where the agent under test has no compiler.
pub fn built_adapter(name: &str) -> PathBuf {
    match slim() {
        Some(slim) => slim.join(name),
        None => target_dir().join(format!("adapters/{name}.wasm")),
    }
}

fn trust_in_code(slim: &Path) -> String {
    let key = std::fs::read_to_string(slim.join("trust")).expect("the signer's public key");
    format!("\n[compiler]\ntrust = [{}]\n", quoted(key.trim()))
}

/// A program this workspace builds.
pub fn built_program(name: &str) -> PathBuf {
    if let (Some(slim), "otahost") = (slim(), name) {
        return slim.join(name);
    }
    profile_dir().join(name)
}

fn profile_dir() -> PathBuf {
    let mut dir = std::env::current_exe().expect("the running program has a path");
    dir.pop();
    // Tests lie one directory deeper than programs.
    if dir.ends_with("deps") {
        dir.pop();
    }
    dir
}

/// A TOML basic string. JSON's escapes are a subset of TOML's.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn path(path: &Path) -> String {
    quoted(&path.display().to_string())
}
