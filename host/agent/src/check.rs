//! What `otahost check` says of a configuration that reads well: adapters against their grants, targets against their slots.

use std::sync::Arc;

use otahost_disk::{Disk, RealDisk};

use crate::assemble::{self, drop_in};
use crate::config::{Config, Finding};

/// Everything that stands against a start, and against adapters. Nothing is started or written, and an agent may be running.
pub fn check(config: &Config) -> Vec<Finding> {
    let mut config = config.clone();
    let mut findings = match assemble::loader() {
        Ok(loader) => {
            let waiting = drop_in::complete(&mut config, &loader);
            let mut findings = match assemble::assemble(&config, &loader) {
                Ok(assembled) => assembled.faults,
                Err(findings) => findings,
            };
            findings.extend(waiting.into_iter().map(|file| {
                let lines: Vec<&str> = file.lines.lines().collect();
                let advice = match lines.is_empty() {
                    true => String::new(),
                    false => format!("add to this file:\n{}", lines.join("\n")),
                };
                let what = format!("{} does not run: {}", file.path, file.why);
                Finding::warning(None, format!("adapters.{}", file.name), what, advice)
            }));
            findings
        }
        Err(findings) => findings,
    };
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::operator_only());
    findings.extend(assemble::flashers(&disk, &config).err().unwrap_or_default());
    findings
}
