//! What the cloud knows, and what it hands out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::{Value, json};

use super::script::Scripted;
use super::{Call, Credential, DEVICE, HARDWARE, Route, Session, USER};
use crate::ids::{hex, uuid};

/// Status of a redirect where nobody asked for another.
const REDIRECT: u16 = 307;

/// One firmware that is offered.
#[derive(Debug, Clone)]
pub(super) struct Firmware {
    pub(super) version: String,
    /// In the store.
    pub(super) name: String,
}

/// A signed address.
#[derive(Debug, Clone)]
pub(super) struct Signed {
    pub(super) name: String,
    pub(super) token: String,
    pub(super) expired: bool,
}

#[derive(Debug)]
pub(super) struct Book {
    pub(super) username: String,
    pub(super) password: String,
    /// The stored refresh token; none: logged out.
    pub(super) refresh: Option<String>,
    used_up: BTreeSet<String>,
    /// Access tokens, and whether their time is not over.
    access: BTreeMap<String, bool>,
    passwords: Vec<String>,
    pub(super) firmware: BTreeMap<u64, Firmware>,
    pub(super) now_firmware: Option<u64>,
    /// Where the store's files are.
    pub(super) store: String,
    /// By signature.
    pub(super) signed: BTreeMap<String, Signed>,
    pub(super) redirects: VecDeque<u16>,
    pub(super) script: BTreeMap<Route, VecDeque<Scripted>>,
    pub(super) calls: Vec<Call>,
    pub(super) violations: Vec<String>,
    pub(super) releases: u64,
    pub(super) stopped: bool,
}

impl Default for Book {
    fn default() -> Self {
        Book {
            username: format!("device-{}@lab.example", random(4)),
            // Characters that mean something in a form, so that a value that is not escaped is refused.
            password: format!("p+{}&=%41", random(8)),
            refresh: None,
            used_up: BTreeSet::new(),
            access: BTreeMap::new(),
            passwords: Vec::new(),
            firmware: BTreeMap::new(),
            now_firmware: None,
            store: String::new(),
            signed: BTreeMap::new(),
            redirects: VecDeque::new(),
            script: BTreeMap::new(),
            calls: Vec::new(),
            violations: Vec::new(),
            releases: 0,
            stopped: false,
        }
    }
}

impl Book {
    /// New tokens in place of the old ones. Access tokens that were given before are good until their time is over.
    pub(super) fn new_session(&mut self) -> Session {
        let session = Session {
            access: format!("at.{}", random(24)),
            refresh: format!("rt.{}", random(24)),
        };
        self.access.insert(session.access.clone(), true);
        if let Some(old) = self.refresh.replace(session.refresh.clone()) {
            self.used_up.insert(old);
        }
        session
    }

    pub(super) fn expire_access(&mut self) {
        self.access.values_mut().for_each(|good| *good = false);
    }

    pub(super) fn change_password(&mut self) {
        let new = format!("p+{}", random(8));
        self.passwords
            .push(std::mem::replace(&mut self.password, new));
    }

    /// What this bearer token is.
    pub(super) fn bearer(&self, token: Option<&str>) -> Credential {
        match token.map(|token| self.access.get(token)) {
            None => Credential::None,
            Some(None) => Credential::Unknown,
            Some(Some(true)) => Credential::Good,
            Some(Some(false)) => Credential::Expired,
        }
    }

    /// What this refresh token is.
    pub(super) fn refresh_token(&self, token: &str) -> Credential {
        if self.refresh.as_deref() == Some(token) {
            Credential::Good
        } else if self.used_up.contains(token) {
            Credential::UsedUp
        } else {
            Credential::Unknown
        }
    }

    /// A second login, as the vendor takes it: the session is over.
    pub(super) fn log_out(&mut self) {
        if let Some(old) = self.refresh.take() {
            self.used_up.insert(old);
        }
    }

    pub(super) fn offer(&mut self, id: u64, version: &str, name: String) {
        let version = version.to_owned();
        self.firmware.insert(id, Firmware { version, name });
    }

    pub(super) fn withdraw(&mut self, id: u64) -> Option<String> {
        self.firmware.remove(&id).map(|firmware| firmware.name)
    }

    /// The list of the page, with three ids that all differ.
    pub(super) fn list(&self) -> Value {
        let entry = |(id, firmware): (&u64, &Firmware)| {
            json!({
                "id": id + 1_000, "created_at": "2025-02-28T06:05:32", "firmware_id": id, "hardware_id": HARDWARE,
                "firmware": {
                    "project_id": 2, "name": firmware.name.rsplit('/').next(), "description": "lab release", "is_active": true,
                    "created_at": "2025-02-28T06:05:31", "id": id + 2_000, "version": firmware.version, "file_key": firmware.name,
                    "updated_at": "2025-02-28T06:05:31",
                },
                "hardware": {
                    "name": "withnox", "version": "1.0.0", "is_active": true, "updated_at": "2025-02-28T06:03:15", "id": HARDWARE,
                    "description": "withnox release version", "created_at": "2024-07-01T00:00:00",
                },
            })
        };
        self.firmware.iter().map(entry).collect()
    }

    /// The device as `update-result` shows it.
    pub(super) fn device(&self) -> Value {
        json!({
            "id": DEVICE, "real_user_id": USER, "project_id": 2, "hardware_id": HARDWARE, "now_firmware_id": self.now_firmware,
            "unique_id": "lab", "serial_code": "LAB0001", "device_alias": "camera", "mac_id": "02:00:00:00:00:01",
            "created_at": "2025-03-06T05:08:06.745Z", "last_log_file_id": 0,
        })
    }

    /// A signed address of a file, and the status to redirect with.
    pub(super) fn sign(&mut self, name: &str) -> (String, u16) {
        let (signature, token) = (random(32), random(24));
        let url = format!(
            "{}{name}?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIALAB%2F20250228%2Feu-west-1%2Fs3%2Faws4_request\
             &X-Amz-Date=20250228T060531Z&X-Amz-Expires=3600&X-Amz-SignedHeaders=host&X-Amz-Security-Token={token}\
             &X-Amz-Signature={signature}",
            self.store
        );
        let signed = Signed {
            name: name.to_owned(),
            token,
            expired: false,
        };
        self.signed.insert(signature, signed);
        let status = match self.redirects.len() {
            0 => REDIRECT,
            1 => self.redirects[0],
            _ => self.redirects.pop_front().unwrap_or(REDIRECT),
        };
        (url, status)
    }

    pub(super) fn secrets(&self) -> Vec<String> {
        let tokens = self.access.keys().chain(&self.used_up);
        let account = [&self.username, &self.password];
        let all = tokens.chain(&self.refresh).chain(account);
        all.chain(&self.passwords).cloned().collect()
    }

    pub(super) fn signatures(&self) -> Vec<String> {
        let both =
            |(signature, signed): (&String, &Signed)| [signature.clone(), signed.token.clone()];
        self.signed.iter().flat_map(both).collect()
    }
}

/// Random hexadecimal digits, two for each byte.
fn random(bytes: usize) -> String {
    let mut buffer = vec![0; bytes];
    match aws_lc_rs::rand::fill(&mut buffer) {
        Ok(()) => hex(&buffer),
        Err(_) => uuid(),
    }
}
