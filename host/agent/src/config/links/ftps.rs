//! `[links.<name>]` of kind `ftps`.

use otahost_core::paths;

use super::super::reader::Section;
use super::{FtpsConfig, secret, trust, waits};

pub(super) fn read(section: &Section<'_>) -> Option<FtpsConfig> {
    let host = section.require("host", "").and_then(|i| {
        let host = i.string()?;
        if host.contains(['/', '@', ' ']) || host.contains("::") && host.starts_with('[') {
            i.fault(
                "is no host name or address",
                "write the name alone: `ftp.example`",
            );
            return None;
        }
        Some(host.to_owned())
    });
    let username = section
        .require("username", "FTPS knows no other way to log in")
        .and_then(|i| secret::user_name(&i));
    let password = section
        .require("password", "")
        .and_then(|i| secret::read(&i));
    let directory = match section.get("directory") {
        None => Some(section.default("directory").to_owned()),
        Some(item) => {
            let text = item.string();
            let fits = |d: &&str| d.starts_with('/') && paths::is_plain(d);
            if text.is_some_and(|d| !fits(&d)) {
                item.fault(
                    "is no plain directory from the root on",
                    "write it as in `/kits/model-a`, without `..`",
                );
            }
            text.filter(fits).map(str::to_owned)
        }
    };
    let (connect_timeout, idle_timeout) = waits(section);
    Some(FtpsConfig {
        at: section.location(),
        port: u16::try_from(section.count("port", 1..=65_535)).unwrap_or(21),
        trust: trust::read(section)?,
        host: host?,
        username: username?,
        password: password?,
        directory: directory?,
        connect_timeout,
        idle_timeout,
    })
}
