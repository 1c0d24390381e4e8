//! An API with tokens: an access token that expires, and a refresh token that is good for one use. A refresh with any but the last
//! one is taken for a thief's, and logs the device out.
//!
//! `/free/*` answers anybody, `/tokens` and `/guarded` are a token server and what it guards, and below `/api/v1/addnox` is the
//! firmware API of Withnox.

use std::collections::BTreeMap;

use otahost_core::model::HttpResponse;
use serde_json::{Value, json};

/// Where the firmware API begins.
pub(super) const WITHNOX: &str = "/api/v1/addnox";
/// The account, and its password as a form writes it.
const ACCOUNT: &str = "username=cam%40example&password=p%26w%2B1";

/// A request as it reached the server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Asked {
    /// Method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Body.
    pub body: String,
    /// The token it came with; empty: none.
    pub token: String,
}

/// The server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Api {
    /// All requests, oldest first.
    pub asked: Vec<Asked>,
    /// Virtual milliseconds an access token is good for; 0: for ever.
    pub life: u64,
    /// The firmware on offer, and its version.
    pub offer: Option<(u64, String)>,
    /// The firmware that the device has reported.
    pub installed: Option<u64>,
    /// All reports, as they were taken.
    pub reports: Vec<u64>,
    /// So many reports more are answered 500.
    pub report_failures: u32,
    /// Pairs of tokens given out. The last one is good.
    pub pairs: u64,
    /// When the last pair was given out.
    pub born: u64,
    /// The last pair is good.
    pub logged_in: bool,
    /// Sign-ins with the stored account.
    pub sign_ins: u32,
    /// Refreshes that were granted.
    pub refreshes: u32,
    /// Refreshes with any but the last token.
    pub stale: u32,
    /// The last pair of which the device has used one.
    pub used: u64,
}

fn answer(status: u16, body: &Value) -> HttpResponse {
    HttpResponse {
        status,
        headers: Vec::new(),
        body: body.to_string().into_bytes(),
    }
}

fn refusal(status: u16, detail: &str) -> HttpResponse {
    answer(status, &json!({ "detail": detail }))
}

impl Api {
    /// How often this path was asked for.
    pub fn count(&self, path: &str) -> usize {
        self.asked.iter().filter(|asked| asked.path == path).count()
    }

    /// The answer to a request; none: it never comes.
    pub(super) fn answer(&mut self, now: u64, asked: Asked) -> Option<HttpResponse> {
        let (method, path) = (asked.method.clone(), asked.path.clone());
        let (body, token) = (asked.body.clone(), asked.token.clone());
        self.asked.push(asked);
        if path == "/free/silent" {
            return None;
        }
        if path.starts_with("/free/") {
            return Some(answer(200, &json!({ "n": self.count(&path) })));
        }
        Some(match (method.as_str(), path.as_str()) {
            ("POST", "/tokens") if body.is_empty() => self.new_pair(now),
            ("POST", "/tokens") => self.refresh(now, &body),
            ("GET", "/guarded") => match self.check(now, &token) {
                Ok(()) => answer(200, &json!({ "n": self.count(&path) })),
                Err(refused) => refused,
            },
            (method, path) => match path.strip_prefix(WITHNOX) {
                Some(path) => self.withnox(now, method, path, &body, &token),
                None => refusal(404, "Not Found"),
            },
        })
    }

    /// Looks at a token.
    pub(super) fn check(&mut self, now: u64, token: &str) -> Result<(), HttpResponse> {
        let pair = number(token, "access-").ok_or_else(|| refusal(401, "Not authenticated"))?;
        self.used = self.used.max(pair);
        let is_young = self.life == 0 || now < self.born + self.life;
        if pair == self.pairs && self.logged_in && is_young {
            Ok(())
        } else {
            Err(refusal(401, "Token is expired"))
        }
    }

    /// The device starts with these secrets: none that it has used may be gone.
    pub(super) fn check_vault(&self, secrets: &BTreeMap<String, String>) -> Result<(), String> {
        let value = |name| secrets.get(name).map_or("", String::as_str);
        let access = number(value("access_token"), "access-").unwrap_or(0);
        let refresh = number(value("refresh_token"), "refresh-").unwrap_or(0);
        if access.min(refresh) < self.used {
            return Err(format!(
                "pair {} of the tokens was used before it was durable: the vault holds {access} and {refresh}",
                self.used
            ));
        }
        Ok(())
    }

    fn new_pair(&mut self, now: u64) -> HttpResponse {
        self.pairs += 1;
        self.born = now;
        self.logged_in = true;
        let pair = json!({
            "access_token": format!("access-{}", self.pairs), "expires_in": self.life / 1_000,
            "refresh_token": format!("refresh-{}", self.pairs), "refresh_expires_in": 1_209_600,
            "id": 9, "token_type": "bearer",
        });
        answer(200, &pair)
    }

    fn refresh(&mut self, now: u64, body: &str) -> HttpResponse {
        let body: Value = serde_json::from_str(body).unwrap_or_default();
        let token = body["refresh_token"].as_str().unwrap_or_default();
        let Some(pair) = number(token, "refresh-") else {
            return refusal(422, "no refresh token");
        };
        self.used = self.used.max(pair);
        if pair != self.pairs {
            self.stale += 1;
            self.logged_in = false;
        }
        if !self.logged_in {
            return refusal(401, "Refresh token is not valid");
        }
        self.refreshes += 1;
        self.new_pair(now)
    }

    fn withnox(
        &mut self,
        now: u64,
        method: &str,
        path: &str,
        body: &str,
        token: &str,
    ) -> HttpResponse {
        match (method, path) {
            ("POST", "/auth/email/signin") if body == ACCOUNT => {
                self.sign_ins += 1;
                return self.new_pair(now);
            }
            ("POST", "/auth/email/signin") => return refusal(401, "Incorrect password"),
            ("POST", "/auth/refresh-token") => return self.refresh(now, body),
            _ => {}
        }
        if let Err(refused) = self.check(now, token) {
            return refused;
        }
        let report = path
            .strip_prefix("/firmware/update-result/4/")
            .and_then(|rest| rest.strip_suffix("/9"))
            .and_then(|id| id.parse().ok());
        match (method, path, report) {
            ("GET", "/firmware/latest/4/9", _) => answer(200, &self.list()),
            ("PATCH", _, Some(_)) if self.report_failures > 0 => {
                self.report_failures -= 1;
                refusal(500, "Internal server error")
            }
            ("PATCH", _, Some(firmware)) => {
                self.reports.push(firmware);
                self.installed = Some(firmware);
                answer(200, &json!({ "now_firmware_id": firmware }))
            }
            _ => refusal(404, "Resource not found"),
        }
    }

    fn list(&self) -> Value {
        let newer = self
            .offer
            .iter()
            .filter(|(id, _)| self.installed != Some(*id));
        let entry = |(id, version): &(u64, String)| {
            json!({
                "id": 11, "firmware_id": id, "hardware_id": 3,
                "firmware": { "id": id, "name": "cam.bin", "is_active": true, "version": version, "file_key": "firmwares/cam.bin" },
            })
        };
        newer.map(entry).collect()
    }
}

/// The number in a token of this kind.
fn number(token: &str, kind: &str) -> Option<u64> {
    token.strip_prefix(kind)?.parse().ok()
}
