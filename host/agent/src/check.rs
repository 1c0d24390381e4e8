//! What `otahost check` says of a configuration that reads well: adapters against their grants, targets against their slots.

use std::sync::Arc;

use otahost_disk::{Disk, RealDisk};

use crate::assemble;
use crate::config::{Config, Finding};

/// Everything that stands against a start. Nothing is started or written, and an agent may be running.
pub fn check(config: &Config) -> Vec<Finding> {
    let mut findings = assemble::assemble(config).err().unwrap_or_default();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::operator_only());
    findings.extend(assemble::flashers(&disk, config).err().unwrap_or_default());
    findings
}
