//! Every table and key of the configuration, once: the reader refuses what is not here and takes its defaults from here, and the
//! reference in the README is a copy of it that a test compares.

mod adapters;
mod links;
mod targets;

pub(super) use adapters::{ADAPTER, GRANTS, LINK_GRANT, REPOSITORY};
pub(super) use links::{AUTH, BASIC, CALL_GRANT, FTPS, HTTP_CLIENT, HTTP_SERVER, IDENTITY, SECRET};
pub(super) use targets::{ATTRIBUTES, BOOT, LIMITS, POLICY, READY, TARGET, TRUST, VERSION};

/// One key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What it takes.
    pub takes: &'static str,
    /// The default, as it would be written; `required`, or `-` for none.
    pub default: &'static str,
    /// A line to write.
    pub example: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

/// One table; names in `<>` are the operator's own.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    /// Where it stands: `targets.<name>.trust`.
    pub path: &'static str,
    /// Its keys.
    pub keys: &'static [Key],
}

impl Table {
    /// The rows of the reference.
    pub fn markdown(&self) -> String {
        let mut rows = String::from("| key | takes | default | meaning |\n|---|---|---|---|\n");
        for key in self.keys {
            let default = if key.default == "required" {
                "**required**".to_owned()
            } else {
                format!("`{}`", key.default)
            };
            let default = if key.default == "-" {
                "-".to_owned()
            } else {
                default
            };
            rows.push_str(&format!(
                "| `{}` | {} | {default} | {} |\n",
                key.name, key.takes, key.meaning
            ));
        }
        rows
    }

    pub(super) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|k| k.name == name)
    }
}

const fn key(
    name: &'static str,
    takes: &'static str,
    default: &'static str,
    example: &'static str,
    meaning: &'static str,
) -> Key {
    Key {
        name,
        takes,
        default,
        example,
        meaning,
    }
}

/// Every table, in the order of the reference.
pub static TABLES: [&Table; 28] = [
    &ROOT,
    &DEVICE,
    &LINK,
    &HTTP_SERVER,
    &IDENTITY,
    &HTTP_CLIENT,
    &AUTH,
    &BASIC,
    &FTPS,
    &SECRET,
    &TARGET,
    &BOOT,
    &LIMITS,
    &TRUST,
    &VERSION,
    &READY,
    &POLICY,
    &ATTRIBUTES,
    &REPOSITORY,
    &ADAPTER,
    &GRANTS,
    &LINK_GRANT,
    &CALL_GRANT,
    &ALERT,
    &OFFLINE,
    &TRANSFER,
    &DEADLINES,
    &COMPILER,
];

pub(super) static ROOT: Table = Table {
    path: "",
    keys: &[
        key(
            "device",
            "table",
            "required",
            "[device]",
            "The device and this agent.",
        ),
        key(
            "links",
            "table of tables",
            "-",
            "[links.cloud]",
            "Named connections, one table each.",
        ),
        key(
            "targets",
            "table of tables",
            "-",
            "[targets.dock]",
            "What can be updated, one table each; this order is the order everywhere.",
        ),
        key(
            "adapters",
            "table of tables",
            "-",
            "[adapters.dji]",
            "The vendor protocols, one table each.",
        ),
        key(
            "repositories",
            "table of tables",
            "-",
            "[repositories.vendor]",
            "Where new versions of adapters are looked for, one table each.",
        ),
        key(
            "alerts",
            "table of tables",
            "-",
            "[alerts.sms]",
            "Where alerts go, one table for each sink. Without one they are only logged.",
        ),
        key(
            "offline",
            "table",
            "-",
            "[offline]",
            "Where signed files on media are looked for.",
        ),
        key(
            "transfer",
            "table",
            "-",
            "[transfer]",
            "Budgets of every download.",
        ),
        key(
            "deadlines",
            "table",
            "-",
            "[deadlines]",
            "How long a job may stay in each part of its way.",
        ),
        key(
            "compiler",
            "table",
            "-",
            "[compiler]",
            "What making native code of an adapter may cost, and whose is run that was made elsewhere.",
        ),
    ],
};

pub(super) static DEVICE: Table = Table {
    path: "device",
    keys: &[
        key(
            "id",
            "name",
            "required",
            "id = \"gw-7\"",
            "Name of this device in logs, in `status` and in MQTT client ids.",
        ),
        key(
            "data_dir",
            "absolute path",
            "required",
            "data_dir = \"/var/lib/otahost\"",
            "Directory of the journal and of partial downloads; made when it is missing. Must survive an update: never on a slot.",
        ),
        key(
            "reboot",
            "command",
            "required",
            "reboot = [\"systemctl\", \"reboot\"]",
            "Restarts the device; run once when an update needs it.",
        ),
        key(
            "boot_id",
            "absolute path",
            "/proc/sys/kernel/random/boot_id",
            "boot_id = \"/proc/sys/kernel/random/boot_id\"",
            "File whose content changes with every boot: how the agent tells a boot from its own restart.",
        ),
        key(
            "socket",
            "absolute path",
            "<data_dir>/otahost.sock",
            "socket = \"/run/otahost/otahost.sock\"",
            "Unix socket of the local API; at most 100 bytes.",
        ),
        key(
            "adapters_dir",
            "path",
            "adapters",
            "adapters_dir = \"/var/lib/otahost/adapters.d\"",
            "Directory whose `NAME.wasm` are the components of adapters; a relative path starts beside this file. It may be missing.",
        ),
    ],
};

pub(super) static LINK: Table = Table {
    path: "links.<name>",
    keys: &[
        key(
            "kind",
            "`\"mqtt\"`",
            "required",
            "kind = \"mqtt\"",
            "What speaks on this link: `mqtt` (3.1.1) has the keys of this table, the other kinds have tables of their own below.",
        ),
        key(
            "url",
            "URL",
            "required",
            "url = \"mqtts://broker.example:8883\"",
            "`mqtt://` (port 1883) or `mqtts://` (TLS, port 8883), host and port only.",
        ),
        key(
            "client_id",
            "string",
            "otahost-<device.id>-<name>",
            "client_id = \"otahost-gw-7-cloud\"",
            "MQTT client id; the broker keeps the session under it, so it must be unique there and never change.",
        ),
        key(
            "username",
            "string or secret",
            "-",
            "username = \"gw-7\"",
            "MQTT user name.",
        ),
        key(
            "password",
            "secret",
            "-",
            "password = { file = \"/etc/otahost/secrets/cloud\" }",
            "MQTT password; see `secret`.",
        ),
        key(
            "ca",
            "path",
            "-",
            "ca = \"/etc/otahost/broker-ca.pem\"",
            "PEM file of the certificate authorities to trust instead of the system's; only with `mqtts://`.",
        ),
        key(
            "keep_alive",
            "time, 5s to 18h",
            "30s",
            "keep_alive = \"30s\"",
            "A silent connection is dead after one and a half of this.",
        ),
        key(
            "backoff_first",
            "time",
            "1s",
            "backoff_first = \"1s\"",
            "Pause after the first failed connection; doubles with each, with jitter.",
        ),
        key(
            "backoff_max",
            "time",
            "2m",
            "backoff_max = \"2m\"",
            "The longest pause.",
        ),
    ],
};

pub(super) static ALERT: Table = Table {
    path: "alerts.<name>",
    keys: &[
        key(
            "command",
            "command",
            "-",
            "command = [\"/usr/libexec/otahost-sms\"]",
            "A program that is run for each alert with level, code, text and device id as further arguments; exit status 0 says that it took it.",
        ),
        key(
            "webhook",
            "URL",
            "-",
            "webhook = \"https://ops.example/otahost\"",
            "Gets a POST with the alert as JSON; an answer of 2xx says that it took it.",
        ),
        key(
            "token",
            "secret",
            "-",
            "token = { file = \"/etc/otahost/secrets/ops\" }",
            "Bearer token for the webhook.",
        ),
        key(
            "ca",
            "path",
            "-",
            "ca = \"/etc/otahost/ops-ca.pem\"",
            "PEM file of the authorities to trust for the webhook instead of the system's.",
        ),
        key(
            "pin",
            "`sha256:` and hex",
            "-",
            "pin = \"sha256:…\"",
            "Instead of `ca`: the webhook's certificate.",
        ),
        key(
            "level",
            "`\"info\"`, `\"warn\"` or `\"error\"`",
            "warn",
            "level = \"warn\"",
            "The least level this sink wants.",
        ),
    ],
};

pub(super) static OFFLINE: Table = Table {
    path: "offline",
    keys: &[
        key(
            "path",
            "absolute path",
            "required",
            "path = \"/media/usb\"",
            "Directory a medium is mounted at. A signed file in it whose signer and `compatible` fit a target is installed by itself. It may be missing while nothing is plugged in.",
        ),
        key(
            "every",
            "time, 1s to 1h",
            "5s",
            "every = \"5s\"",
            "Pause between two looks; a file is taken when it has not changed between them.",
        ),
        key(
            "progress",
            "command",
            "-",
            "progress = [\"/usr/libexec/otahost-led\"]",
            "A program that is run with phase, percentage and target as further arguments whenever one of them changes: a light for people without a screen.",
        ),
    ],
};

pub(super) static TRANSFER: Table = Table {
    path: "transfer",
    keys: &[
        key(
            "attempts",
            "number, 1 to 1000",
            "8",
            "attempts = 8",
            "Failed attempts without any progress before a download is given up.",
        ),
        key(
            "backoff_first",
            "time",
            "1s",
            "backoff_first = \"1s\"",
            "Pause after the first failed attempt; doubles with each, with jitter.",
        ),
        key(
            "backoff_max",
            "time",
            "1m",
            "backoff_max = \"1m\"",
            "The longest pause.",
        ),
        key(
            "idle_timeout",
            "time, 1s to 1h",
            "30s",
            "idle_timeout = \"30s\"",
            "An attempt fails when no byte came for so long.",
        ),
        key(
            "max_size",
            "size",
            "4GiB",
            "max_size = \"4GiB\"",
            "Artifacts larger than this are refused before they are fetched.",
        ),
        key(
            "parallel",
            "number, 1 to 64",
            "4",
            "parallel = 4",
            "Most jobs that download, read back or hand over at the same time; the others wait for their turn, in the order in which they came.",
        ),
    ],
};

pub(super) static DEADLINES: Table = Table {
    path: "deadlines",
    keys: &[
        key(
            "download",
            "time, 1s to 365d",
            "24h",
            "download = \"24h\"",
            "From the start of the download to the verified image, pauses between attempts included; then the job fails.",
        ),
        key(
            "waiting",
            "time, 1s to 365d",
            "30d",
            "waiting = \"30d\"",
            "How long a job may wait for a window, a lock file or its turn before it begins.",
        ),
        key(
            "prepared",
            "time, 1s to 365d",
            "7d",
            "prepared = \"7d\"",
            "How long a verified image may wait to be applied: for its platform's word, a window, or readiness.",
        ),
        key(
            "install",
            "time, 1s to 365d",
            "1h",
            "install = \"1h\"",
            "Reading the verified image back.",
        ),
        key(
            "deliver",
            "time, 1s to 365d",
            "2h",
            "deliver = \"2h\"",
            "Unpacking and handing over to one target; then it is stopped and the job fails.",
        ),
        key(
            "activate",
            "time, 1s to 365d",
            "30m",
            "activate = \"30m\"",
            "Switching to the new version, the reboot included. What follows is `confirm_within` of the target.",
        ),
    ],
};

pub(super) static COMPILER: Table = Table {
    path: "compiler",
    keys: &[
        key(
            "memory",
            "size, from 16MiB",
            "512MiB",
            "memory = \"512MiB\"",
            "Address space of the compiler's process.",
        ),
        key(
            "cpu",
            "time, 1s to 1h",
            "1m",
            "cpu = \"1m\"",
            "Processor time for one adapter, in whole seconds.",
        ),
        key(
            "time",
            "time, 1s to 1d",
            "5m",
            "time = \"5m\"",
            "Time on the clock for one adapter.",
        ),
        key(
            "trust",
            "list of keys",
            "[]",
            "trust = [\"RWQ…\"]",
            "Minisign public keys. Native code that one of them signed is run; see \"Without a compiler\".",
        ),
    ],
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_stands_twice_and_none_can_break_the_table() {
        for table in TABLES {
            for key in table.keys {
                assert_eq!(
                    table.keys.iter().filter(|k| k.name == key.name).count(),
                    1,
                    "{}.{}",
                    table.path,
                    key.name
                );
                assert!(
                    !key.meaning.contains('|')
                        && !key.takes.contains('|')
                        && !key.default.contains('|')
                );
            }
        }
    }
}
