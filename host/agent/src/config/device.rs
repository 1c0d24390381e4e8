//! `[device]`.

use std::ops::Range;
use std::path::PathBuf;

use super::reader::Section;
use super::{Device, schema};

/// The longest path of a Unix socket that every system takes.
const MAX_SOCKET: usize = 100;

/// What could be read: the device, and its data directory with its place even when another key is faulty.
#[derive(Default)]
pub(super) struct ReadDevice {
    pub(super) device: Option<Device>,
    pub(super) data_dir: Option<(PathBuf, Range<usize>)>,
}

pub(super) fn read(root: &Section<'_>) -> ReadDevice {
    let section = root
        .require(
            "device",
            "the agent has to know its data directory and how to reboot",
        )
        .and_then(|i| i.section(&schema::DEVICE));
    let Some(section) = section else {
        return ReadDevice::default();
    };
    // Every key is read before any is missed, so that all faults are found.
    let id = section.require("id", "").and_then(|i| i.name());
    let data_dir = section.require(
        "data_dir",
        "the agent keeps there what must survive a reboot",
    );
    let data_dir_path = data_dir.as_ref().and_then(|i| i.absolute_path());
    let reboot = section
        .require("reboot", "an update into a slot ends with a reboot")
        .and_then(|i| i.command());
    let boot_id = match section.get("boot_id") {
        None => Some(PathBuf::from(section.default("boot_id"))),
        Some(item) => {
            let path = item.absolute_path();
            if path.as_ref().is_some_and(|p| !p.is_file()) {
                item.fault("this file does not exist", "leave the key out on Linux; elsewhere name a file that changes with every boot");
            }
            path
        }
    };
    let socket = socket(&section, data_dir_path.clone());
    let adapters_dir = match section.get("adapters_dir") {
        None => Some(root.reader.beside(section.default("adapters_dir"))),
        Some(item) => {
            let path = item.string().map(|path| root.reader.beside(path));
            if path.as_ref().is_some_and(|p| p.exists() && !p.is_dir()) {
                item.fault("is not a directory", "name a directory; it may be missing");
            }
            path
        }
    };
    if let (Some(item), Some(path)) = (&data_dir, &data_dir_path)
        && path.exists()
        && !path.is_dir()
    {
        item.fault(
            "is not a directory",
            "name a directory; it is made when it is missing",
        );
    }
    let data_dir = data_dir_path.clone().zip(data_dir.map(|i| i.at));
    let device = (|| {
        Some(Device {
            id: id?.into(),
            data_dir: data_dir_path?,
            reboot: reboot?,
            boot_id: boot_id?,
            socket: socket?,
            adapters_dir: adapters_dir?,
        })
    })();
    ReadDevice { device, data_dir }
}

/// Only the socket.
pub(super) fn read_socket(root: &Section<'_>) -> Option<PathBuf> {
    let section = root
        .require("device", "it says where the agent's socket is")?
        .section(&schema::DEVICE)?;
    if section.get("socket").is_some() {
        return socket(&section, None);
    }
    let data_dir = section
        .require("data_dir", "the agent's socket is there")?
        .absolute_path()?;
    socket(&section, Some(data_dir))
}

fn socket(section: &Section<'_>, data_dir: Option<PathBuf>) -> Option<PathBuf> {
    let written = section.get("socket");
    let path = match &written {
        Some(item) => item.absolute_path()?,
        None => data_dir?.join("otahost.sock"),
    };
    if path.as_os_str().len() <= MAX_SOCKET {
        return Some(path);
    }
    let (what, advice) = (
        format!(
            "the socket's path {} has more than {MAX_SOCKET} bytes; the system takes no longer one",
            path.display()
        ),
        "name a short one, as in `socket = \"/run/otahost.sock\"`",
    );
    match written.or_else(|| section.get("data_dir")) {
        Some(item) => item.fault(what, advice),
        None => section.fault(what, advice),
    }
    None
}
