//! Asks a component what it is, in the sandbox of the devices: what cannot be asked there, no device could run.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use otahost_adapters::{MAX_COMPONENT, TargetName};
use otahost_sandbox::{Limits, Sandbox};

use super::{PublishError, PublishedAdapter};
use crate::component;

/// A component and what it said of itself.
#[derive(Debug, Clone)]
pub(super) struct Component {
    pub(super) name: TargetName,
    pub(super) bytes: Vec<u8>,
    pub(super) adapter: PublishedAdapter,
}

pub(super) fn inspect(file: &Path, name: Option<&str>) -> Result<Component, PublishError> {
    let refuse = |why: String| PublishError::Component {
        file: file.to_owned(),
        why,
    };
    let mut bytes = Vec::new();
    File::open(file)
        .and_then(|file| file.take(MAX_COMPONENT + 1).read_to_end(&mut bytes))
        .map_err(PublishError::machine(format!("read {}", file.display())))?;
    if bytes.len() as u64 > MAX_COMPONENT {
        return Err(refuse(format!(
            "it has more than the {MAX_COMPONENT} bytes that devices fetch"
        )));
    }
    let stem = file.file_stem().map(|stem| stem.to_string_lossy());
    let name = name.or(stem.as_deref()).unwrap_or_default();
    let (_, exports) = component::audit_component(&bytes)
        .map_err(|e| refuse(format!("{e}; is it a component?")))?;
    let limits = Limits {
        component_bytes: usize::try_from(MAX_COMPONENT).unwrap_or(usize::MAX),
        ..Limits::default()
    };
    let description = Sandbox::new(limits)
        .map_err(|e| refuse(format!("the sandbox cannot be started: {e}")))?
        .load(name, &bytes)
        .map_err(|e| refuse(e.to_string()))?
        .describe()
        .map_err(|e| refuse(e.to_string()))?;
    let name = TargetName::new(name, &description.version).map_err(|e| refuse(e.to_string()))?;
    Ok(Component {
        adapter: PublishedAdapter {
            adapter: name.adapter().to_owned(),
            version: name.version().to_owned(),
            digest: component::digest(&bytes),
            size: bytes.len() as u64,
            state_version: description.state_version,
            protocol: description.protocol,
            contract: contract(&exports),
        },
        name,
        bytes,
    })
}

/// The world an adapter was built against, by the interface it exports.
fn contract(exports: &[String]) -> String {
    let version = exports
        .iter()
        .find_map(|name| name.strip_prefix("otahost:adapter/adapter"))
        .unwrap_or_default();
    format!("otahost:adapter/update-adapter{version}")
}
