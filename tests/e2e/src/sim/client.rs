//! The link to the API, which keeps the real one's promises: secrets are filled in and captured by the same rules, and whoever
//! replaces one is alone with it from the start of the request until it is durable.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use otahost_core::model::{Fetch, FetchResult, HttpResponse};
use otahost_core::secret::{Secret, capture, fill, missing, uses};
use otahost_links::{Kind, Link, LinkCommand, LinkEvent};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock, mpsc};
use tokio::task::JoinSet;

use super::api::Asked;
use super::outer::{Shared, VirtualTime};

/// Virtual time a request takes to the server, and its answer back.
const WAY: Duration = Duration::from_millis(150);
/// Virtual time until the agent hears of an answer; longer than it takes to send the next request.
const TELLING: Duration = Duration::from_millis(400);
/// The secret that is sent with everything.
const BEARER: &str = "access_token";

type Secrets = BTreeMap<String, Secret>;

/// The secrets in memory. A process that starts, and an engine that comes again, has another.
#[derive(Debug, Clone, Default)]
pub(super) struct Vault {
    secrets: Arc<Mutex<Arc<RwLock<Secrets>>>>,
    /// What is captured is used at once, and not when it is durable.
    used_at_once: bool,
}

impl Vault {
    pub(super) fn new(used_at_once: bool) -> Self {
        Vault {
            secrets: Arc::default(),
            used_at_once,
        }
    }

    fn renew(&self) -> Arc<RwLock<Secrets>> {
        let configured = [
            ("account_user", "cam@example"),
            ("account_password", "p&w+1"),
        ];
        let configured = configured.map(|(name, value)| (name.to_owned(), Secret::new(value)));
        let new = Arc::new(RwLock::new(configured.into()));
        *self.secrets.lock().unwrap() = new.clone();
        new
    }

    /// The token that is sent with everything, once nobody replaces it.
    pub(super) async fn token(&self) -> Result<String, String> {
        let secrets = self.secrets.lock().unwrap().clone();
        bearer(&*secrets.read().await)
    }
}

fn bearer(secrets: &Secrets) -> Result<String, String> {
    let token = secrets.get(BEARER).ok_or_else(|| missing(BEARER))?;
    Ok(token.reveal().to_owned())
}

enum Held {
    Nothing,
    Reading(OwnedRwLockReadGuard<Secrets>),
    Replacing(OwnedRwLockWriteGuard<Secrets>),
}

impl Held {
    fn secrets(&self) -> Secrets {
        match self {
            Held::Nothing => Secrets::new(),
            Held::Reading(secrets) => (**secrets).clone(),
            Held::Replacing(secrets) => (**secrets).clone(),
        }
    }
}

/// What is captured and not durable yet, by the number of its request.
type Pending = Arc<Mutex<BTreeMap<u64, (OwnedRwLockWriteGuard<Secrets>, Vec<(String, Secret)>)>>>;

#[derive(Debug)]
pub(super) struct SimClient {
    pub world: Shared,
    pub time: VirtualTime,
    pub vault: Vault,
}

#[derive(Clone)]
struct Running {
    world: Shared,
    time: VirtualTime,
    secrets: Arc<RwLock<Secrets>>,
    pending: Pending,
    used_at_once: bool,
    events: mpsc::Sender<LinkEvent>,
}

impl Link for SimClient {
    fn start(&self, events: mpsc::Sender<LinkEvent>) -> mpsc::Sender<LinkCommand> {
        let (commands, mut queue) = mpsc::channel(64);
        let running = Running {
            world: self.world.clone(),
            time: self.time,
            secrets: self.vault.renew(),
            pending: Pending::default(),
            used_at_once: self.vault.used_at_once,
            events,
        };
        tokio::spawn(async move {
            // Dropped with this task, and every request with it.
            let mut requests = JoinSet::new();
            while let Some(command) = queue.recv().await {
                match command {
                    LinkCommand::Secrets(secrets) => running.restore(secrets).await,
                    LinkCommand::Fetch { id, fetch } => {
                        requests.spawn(running.clone().fetch(id, fetch));
                    }
                    LinkCommand::Kept(id) => {
                        let kept = running.pending.lock().unwrap().remove(&id);
                        if let Some((mut secrets, captured)) = kept {
                            secrets.extend(captured);
                        }
                    }
                    _ => {}
                }
            }
        });
        commands
    }

    fn kind(&self) -> Kind {
        Kind::HttpClient
    }

    fn place(&self) -> String {
        "https://api.example".into()
    }
}

impl Running {
    async fn restore(&self, secrets: Vec<(String, Secret)>) {
        let shown = secrets
            .iter()
            .map(|(name, value)| (name.clone(), value.reveal().to_owned()));
        self.look_at(&shown.collect());
        self.secrets.write().await.extend(secrets);
    }

    fn look_at(&self, secrets: &BTreeMap<String, String>) {
        let mut world = self.world.lock().unwrap();
        if let Err(fault) = world.api.check_vault(secrets) {
            world.faults.push(fault);
        }
    }

    async fn fetch(self, id: u64, fetch: Box<Fetch>) {
        let guarded = !fetch.path.starts_with("/free/");
        let held = if !fetch.captures.is_empty() {
            Held::Replacing(self.secrets.clone().write_owned().await)
        } else if guarded || !uses(&fetch).is_empty() {
            Held::Reading(self.secrets.clone().read_owned().await)
        } else {
            Held::Nothing
        };
        let (result, captured) = match self.exchange(&fetch, guarded, &held.secrets()).await {
            Ok((answer, captured)) => (FetchResult::Answered(answer), captured),
            Err(why) => (FetchResult::Failed(why), Vec::new()),
        };
        if let (Held::Replacing(mut secrets), false) = (held, captured.is_empty()) {
            if self.used_at_once {
                secrets.extend(captured.clone());
            } else {
                let mut pending = self.pending.lock().unwrap();
                pending.insert(id, (secrets, captured.clone()));
            }
        }
        // What the link knows the agent knows only a little later.
        tokio::time::sleep(TELLING).await;
        let fetched = LinkEvent::Fetched {
            id,
            result,
            captured,
        };
        let _ = self.events.send(fetched).await;
    }

    async fn exchange(
        &self,
        fetch: &Fetch,
        guarded: bool,
        secrets: &Secrets,
    ) -> Result<(HttpResponse, Vec<(String, Secret)>), String> {
        let filled = fill(fetch, |name| secrets.get(name)).map_err(|e| e.to_string())?;
        // What brings the token goes without it.
        let brings = fetch.captures.iter().any(|c| c.secret == BEARER);
        let token = if guarded && !brings {
            bearer(secrets)?
        } else {
            String::new()
        };
        let asked = Asked {
            method: fetch.method.clone(),
            path: filled.path,
            body: String::from_utf8_lossy(&filled.body).into_owned(),
            token,
        };
        tokio::time::sleep(WAY).await;
        let answer = self
            .world
            .lock()
            .unwrap()
            .api
            .answer(self.time.now(), asked);
        let Some(mut answer) = answer else {
            tokio::time::sleep(Duration::from_millis(fetch.timeout)).await;
            return Err("no answer in time".into());
        };
        tokio::time::sleep(WAY).await;
        let mut captured = Vec::new();
        if !fetch.captures.is_empty() {
            let taken = capture(&answer.body, &fetch.captures).map_err(|e| e.to_string())?;
            answer.body = taken.body;
            if (200..300).contains(&answer.status) {
                captured = taken.values;
            }
        }
        Ok((answer, captured))
    }
}
