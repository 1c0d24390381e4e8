//! The secrets of a link in memory: those of the configuration, those the agent gave back or made durable, and those that were
//! captured and are not durable yet. The last are scrubbed like all others and used by nobody.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use otahost_core::secret::{Scrubber, Secret};

use super::gate::Pass;
use super::{Auth, HttpClientOptions};

pub(super) struct Vault {
    configured: BTreeMap<String, Secret>,
    auth: Auth,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    known: BTreeMap<String, Secret>,
    /// By fetch. The pass holds back whoever needs these secrets.
    pending: HashMap<u64, (Vec<(String, Secret)>, Pass)>,
}

impl Vault {
    pub(super) fn new(options: &HttpClientOptions) -> Self {
        Self {
            configured: options.secrets.iter().cloned().collect(),
            auth: options.auth.clone(),
            kept: Mutex::default(),
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the journal holds; what was captured and never became durable is forgotten.
    pub(super) fn restore(&self, secrets: Vec<(String, Secret)>) {
        let known = secrets.into_iter().collect();
        let old = std::mem::replace(
            &mut *self.kept(),
            Kept {
                known,
                pending: HashMap::new(),
            },
        );
        // Wakes others, so not before the vault is free.
        drop(old);
    }

    /// Keeps what a fetch captured until it is durable.
    pub(super) fn hold(&self, id: u64, values: Vec<(String, Secret)>, pass: Pass) {
        let former = self.kept().pending.insert(id, (values, pass));
        drop(former);
    }

    /// What this fetch captured is durable.
    pub(super) fn commit(&self, id: u64) {
        let pass = {
            let mut kept = self.kept();
            let Some((values, pass)) = kept.pending.remove(&id) else {
                return;
            };
            kept.known.extend(values);
            pass
        };
        drop(pass);
    }

    /// All secrets that may be used, newest first by name.
    pub(super) fn usable(&self) -> BTreeMap<String, Secret> {
        let mut all = self.configured.clone();
        all.extend(self.kept().known.clone());
        all
    }

    /// Knows every secret there is, and these.
    pub(super) fn scrubber(&self, also: &[(String, Secret)]) -> Scrubber {
        let kept = self.kept();
        let pending = kept.pending.values().flat_map(|(values, _)| values);
        let named = pending.chain(also).map(|(_, value)| value);
        let all = self
            .configured
            .values()
            .chain(kept.known.values())
            .chain(named);
        match &self.auth {
            Auth::Basic { username, password } => {
                Scrubber::new(all.chain([username, password])).with_basic(username, password)
            }
            Auth::None | Auth::Bearer(_) => Scrubber::new(all),
        }
    }
}
