//! Which version of an adapter runs from a start on, or why none can.
//!
//! What should run is tried first, and then what can stand in for it. A version runs only if it loads, asks for no more than is
//! granted, clashes with no link and no other adapter, and can take over what is stored. Where none can, nothing of what is stored is
//! touched, and the adapter is set aside.

use std::fmt;

use otahost_core::grants::Grants;
use otahost_core::model::{Requirements, StartReason};

use super::migration::{Contexts, Migrated, in_layout, lost, migrate};
use super::rows::{AdapterRow, KeptRow};
use super::swap::{Former, STRIKES, Versions};
use crate::platform::AdapterSetup;

/// An adapter as the configuration has it.
#[derive(Debug, Clone)]
pub(super) struct Configured {
    pub(super) name: String,
    pub(super) config: String,
    pub(super) grants: Grants,
    /// Its component, or why that cannot be loaded.
    pub(super) component: Result<AdapterSetup, String>,
}

/// What the journal holds of an adapter.
#[derive(Debug, Clone, Default)]
pub(super) struct Stored {
    /// None: it never ran.
    pub(super) row: Option<AdapterRow>,
    pub(super) state: Vec<u8>,
    pub(super) contexts: Contexts,
    pub(super) kept: Option<KeptRow>,
}

/// How versions are looked at.
pub(super) struct Tools<'a> {
    /// Loads a kept component.
    pub(super) prepare: &'a dyn Fn(&str) -> Result<AdapterSetup, String>,
    /// What of a version's wishes cannot be, beside its grants.
    pub(super) clash: &'a dyn Fn(&AdapterSetup) -> Option<String>,
}

/// The version that runs.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) setup: AdapterSetup,
    pub(super) versions: Versions,
    /// What it may return to.
    pub(super) former: Option<Former>,
    /// Why it is told that it starts, where that is another version than ran before.
    pub(super) reason: Option<StartReason>,
    /// What it takes over, where that is not what is stored.
    pub(super) taken: Option<Migrated>,
    pub(super) kept: Keep,
    /// Why what should run does not.
    pub(super) fault: Option<String>,
    /// The version that was left, with what it did.
    pub(super) left: Option<String>,
}

/// What becomes of what the version before had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Keep {
    AsIs,
    Put(KeptRow),
    Delete,
}

/// Why none runs.
#[derive(Debug)]
pub(super) struct NoneRuns {
    pub(super) why: String,
    /// What a version asked for that could be loaded.
    pub(super) asked: Option<Box<Requirements>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Candidate {
    Configured,
    Installed,
    Former,
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Candidate::Configured => "the configured component",
            Candidate::Installed => "the installed version",
            Candidate::Former => "the version before",
        })
    }
}

struct Fault {
    why: String,
    asked: Option<Box<Requirements>>,
}

/// Chooses the version of an adapter that runs from now on. Blocks.
pub(super) fn choose(
    configured: &Configured,
    stored: &Stored,
    tools: &Tools<'_>,
) -> Result<Box<Chosen>, NoneRuns> {
    let (mut faults, mut asked) = (Vec::new(), None);
    let choice = Choice {
        configured,
        stored,
        tools,
        versions: stored
            .row
            .as_ref()
            .map(|row| row.versions.clone())
            .unwrap_or_default(),
    };
    for candidate in choice.candidates() {
        match choice.attempt(candidate) {
            Ok(mut chosen) => {
                chosen.fault = (!faults.is_empty()).then(|| faults.join("; "));
                return Ok(Box::new(chosen));
            }
            Err(fault) => {
                tracing::error!(
                    adapter = configured.name,
                    why = fault.why,
                    "{candidate} cannot run"
                );
                faults.push(format!("{candidate}: {}", fault.why));
                asked = asked.or(fault.asked);
            }
        }
    }
    Err(NoneRuns {
        why: faults.join("; "),
        asked,
    })
}

struct Choice<'a> {
    configured: &'a Configured,
    stored: &'a Stored,
    tools: &'a Tools<'a>,
    versions: Versions,
}

impl Choice<'_> {
    /// The configured component is another one than when it was last seen. It takes the place of what was installed.
    fn is_replaced(&self) -> bool {
        let digest = self
            .configured
            .component
            .as_ref()
            .map(|s| s.component.digest());
        digest.is_ok_and(|digest| {
            // What was installed may have become the configured one since.
            self.versions.factory != digest && self.versions.installed.as_deref() != Some(digest)
        })
    }

    fn is_struck_out(&self) -> bool {
        self.versions.strikes.is_some_and(|n| n >= STRIKES)
    }

    fn candidates(&self) -> Vec<Candidate> {
        let versions = &self.versions;
        let returns = versions.installed.is_some()
            && versions.previous.is_some()
            && versions.strikes.is_some()
            && self.stored.kept.is_some();
        let mut candidates = Vec::new();
        if self.is_replaced() {
            candidates.push(Candidate::Configured);
        }
        if returns && self.is_struck_out() {
            candidates.push(Candidate::Former);
        }
        if versions.installed.is_some() {
            candidates.push(Candidate::Installed);
        }
        if returns && !self.is_struck_out() {
            candidates.push(Candidate::Former);
        }
        if !self.is_replaced() {
            candidates.push(Candidate::Configured);
        }
        candidates
    }

    fn load(&self, digest: Option<&String>) -> Result<AdapterSetup, Fault> {
        let loaded = match digest.filter(|digest| !digest.is_empty()) {
            Some(digest) => (self.tools.prepare)(digest),
            None => self.configured.component.clone(),
        };
        let setup = loaded.map_err(|why| Fault { why, asked: None })?;
        let denial = setup
            .grants
            .denials(&setup.requirements)
            .first()
            .map(ToString::to_string);
        match denial.or_else(|| (self.tools.clash)(&setup)) {
            None => Ok(setup),
            Some(why) => Err(Fault {
                why: format!("version {}: {why}", setup.description.version),
                asked: Some(Box::new(setup.requirements)),
            }),
        }
    }

    fn attempt(&self, candidate: Candidate) -> Result<Chosen, Fault> {
        let setup = match candidate {
            Candidate::Configured => self.load(None),
            Candidate::Installed => self.load(self.versions.installed.as_ref()),
            Candidate::Former => self.load_former(),
        }?;
        let (taken, kept) = self.take_over(candidate, &setup)?;
        let digest = setup.component.digest();
        let row = self.stored.row.as_ref();
        let reason = match row {
            None => Some(StartReason::Installed),
            Some(row) if row.digest == digest => None,
            Some(row) if taken.is_some() && !matches!(kept, Keep::Put(_)) => {
                Some(StartReason::RolledBack(row.version.clone()))
            }
            Some(row) => Some(StartReason::Upgraded(row.version.clone())),
        };
        let left = row
            .filter(|_| candidate == Candidate::Former)
            .map(|row| row.version.clone());
        Ok(Chosen {
            versions: self.versions_with(candidate, digest),
            former: self.former(candidate),
            setup,
            reason,
            taken,
            kept,
            fault: None,
            left,
        })
    }

    fn versions_with(&self, candidate: Candidate, digest: &str) -> Versions {
        let versions = self.versions.clone();
        match candidate {
            Candidate::Configured if self.is_replaced() => {
                if !versions.factory.is_empty() && versions.installed.is_some() {
                    tracing::info!(
                        adapter = self.configured.name,
                        "the configured component is another one than before; it takes the place of what was installed"
                    );
                }
                Versions {
                    factory: digest.to_owned(),
                    rejected: versions.rejected,
                    ..Versions::default()
                }
            }
            // It stands in for what is installed, which is tried again at the next start.
            Candidate::Configured => Versions {
                previous: None,
                strikes: None,
                ..versions
            },
            Candidate::Installed => versions,
            Candidate::Former => {
                let left = versions.installed.clone();
                let struck_out = self.is_struck_out();
                versions.returned(left.filter(|_| struck_out))
            }
        }
    }

    /// The version that one on probation may return to.
    fn former(&self, candidate: Candidate) -> Option<Former> {
        let kept = self.stored.kept.as_ref()?;
        self.versions.strikes?;
        self.versions.previous.as_ref()?;
        if candidate != Candidate::Installed {
            return None;
        }
        Some(Former {
            setup: self.load_former().ok()?,
            kept: kept.clone(),
        })
    }

    fn load_former(&self) -> Result<AdapterSetup, Fault> {
        let previous = self.versions.previous.as_ref();
        let setup = self.load(previous)?;
        let is_another = setup.component.digest() != self.versions.factory;
        if previous.is_none_or(String::is_empty) && is_another {
            return Err(Fault {
                why: "it was the configured component, and that is another one now".into(),
                asked: None,
            });
        }
        Ok(setup)
    }

    /// What a version has of what is stored: what it finds, its own from before, or a copy it makes.
    fn take_over(
        &self,
        candidate: Candidate,
        setup: &AdapterSetup,
    ) -> Result<(Option<Migrated>, Keep), Fault> {
        let Stored {
            row,
            state,
            contexts,
            kept,
        } = self.stored;
        let fault = |why: String| Fault {
            why: format!("version {}: {why}", setup.description.version),
            asked: Some(Box::new(setup.requirements.clone())),
        };
        let now = setup.description.state_version;
        let before = row.as_ref().map_or(now, |row| row.state_version);
        let its_own = kept.as_ref().filter(|kept| kept.state_version == now);
        let its_own = its_own.map(|kept| Migrated {
            state: kept.state.clone(),
            contexts: lost(kept.contexts.clone(), contexts, now),
        });
        if candidate == Candidate::Former {
            let its_own = its_own.ok_or_else(|| fault("what it knew is gone".into()))?;
            return Ok((Some(its_own), Keep::Delete));
        }
        if before == now {
            return Ok((None, Keep::AsIs));
        }
        if before > now && its_own.is_some() {
            return Ok((its_own, Keep::AsIs));
        }
        let made = migrate(setup, before, state, contexts).map_err(fault)?;
        let keeps = KeptRow {
            state_version: before,
            state: state.clone(),
            contexts: in_layout(contexts, before),
            trial: None,
        };
        Ok((Some(made), Keep::Put(keeps)))
    }
}
