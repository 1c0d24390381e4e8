//! Stories of adapters that call, and are called: the one that misbehaves on command, a camera of Withnox's, a kit of the 112 system.

use std::sync::Arc;
use std::time::Duration;

use otahost_core::grants::{CallGrant, Grants, LinkGrant, RouteGrant};
use otahost_core::secret::Place;
use serde_json::{Value, json};

use super::api::WITHNOX;
use super::story::adapter;
use super::{Delivery, Release, Story, When, World};

/// The id of the kit of 112.
pub const KIT_ID: &str = "0f6c1a52-7d1e-4c0b-9a55-2b1f0c9d8e77";
/// The firmware on offer at Withnox.
const FIRMWARE: u64 = 7;
/// Virtual time in which an hour's wait for a sign-in can be sat out, and more than one.
const DAY: Duration = Duration::from_secs(86_400);

fn route(method: &str, path: &str) -> RouteGrant {
    RouteGrant {
        method: method.into(),
        path: path.into(),
    }
}

fn call(method: &str, path: &str, secrets: &[(&str, Place)], capture: bool) -> CallGrant {
    let captured = ["access_token", "refresh_token"].map(|name| (name.into(), format!("/{name}")));
    CallGrant {
        method: method.into(),
        path: path.into(),
        secrets: secrets
            .iter()
            .map(|(name, place)| ((*name).into(), *place))
            .collect(),
        capture: captured.into_iter().filter(|_| capture).collect(),
    }
}

fn on(links: Vec<(&str, LinkGrant)>, targets: &[&str]) -> Grants {
    let links = links.into_iter().map(|(name, grant)| (name.into(), grant));
    Grants {
        links: links.collect(),
        download: Vec::new(),
        targets: targets.iter().map(|target| (*target).into()).collect(),
    }
}

/// What the misbehaving adapter with this prefix published.
pub fn output(world: &World, prefix: &str) -> Vec<String> {
    let topic = format!("{prefix}/out");
    let out = world.received.iter().filter(|(to, _)| *to == topic);
    out.map(|(_, payload)| String::from_utf8_lossy(payload).into_owned())
        .collect()
}

impl Story {
    /// A dock without any adapter, and nobody who wants anything of it.
    pub fn bare(name: &'static str) -> Self {
        let mut story = Story::new(name);
        story.setup().adapters.clear();
        story.scenario.told = World::is_quiet;
        story
    }

    /// Adds the adapter that misbehaves on command, on all links. Its name is its prefix too.
    pub fn add_linked_rogue(&mut self, name: &str) {
        let config = json!({ "link": "cloud", "prefix": name, "web": "web", "api": "api", "folder": "folder" });
        let cloud = LinkGrant {
            subscribe: vec![format!("{name}/do")],
            publish: vec![format!("{name}/out")],
            ..LinkGrant::default()
        };
        let web = LinkGrant {
            serve: vec![route("POST", &format!("/{name}/do"))],
            ..LinkGrant::default()
        };
        let api = LinkGrant {
            call: vec![
                call("GET", "/free/*", &[], false),
                call("POST", "/free/*", &[], false),
                call("GET", "/guarded", &[("access_token", Place::Header)], false),
                call("POST", "/tokens", &[("refresh_token", Place::Body)], true),
            ],
            ..LinkGrant::default()
        };
        let folder = LinkGrant {
            files: vec!["/model".into()],
            ..LinkGrant::default()
        };
        let links = vec![
            ("cloud", cloud),
            ("web", web),
            ("api", api),
            ("folder", folder),
        ];
        let rogue = adapter(name, "rogue", &config, on(links, &["dock"]));
        self.setup().adapters.push(rogue);
    }

    /// Has somebody tell the misbehaving adapter with this prefix something.
    pub fn tell(&mut self, at: u64, prefix: &str, command: &str) {
        let world = self.world();
        let packet = 1000 + u16::try_from(world.later.len()).unwrap();
        let delivery = Delivery {
            packet,
            topic: format!("{prefix}/do"),
            payload: command.as_bytes().to_vec(),
        };
        world.later.push((When::At(at), delivery));
    }

    /// Adds the adapter for a camera of Withnox's.
    pub(super) fn add_withnox(&mut self) {
        let config = json!({ "target": "dock", "device_id": 4, "user_id": 9, "hardware_id": 3, "link": "api" });
        let account = [
            ("account_user", Place::Body),
            ("account_password", Place::Body),
        ];
        let path = |rest: &str| format!("{WITHNOX}{rest}");
        let api = LinkGrant {
            files: vec![path("/firmware/file/")],
            call: vec![
                call("GET", &path("/firmware/latest/*/*"), &[], false),
                call("PATCH", &path("/firmware/update-result/*/*/*"), &[], false),
                call(
                    "POST",
                    &path("/auth/refresh-token"),
                    &[("refresh_token", Place::Body)],
                    true,
                ),
                call("POST", &path("/auth/email/signin"), &account, true),
            ],
            ..LinkGrant::default()
        };
        let withnox = adapter(
            "withnox",
            "withnox",
            &config,
            on(vec![("api", api)], &["dock"]),
        );
        self.setup().adapters.push(withnox);
    }

    /// A camera whose cloud offers this release.
    pub fn withnox(name: &'static str, release: &Release) -> Self {
        let mut story = Story::bare(name);
        story.add_withnox();
        let path = |rest: &str| format!("{WITHNOX}{rest}");
        let file = path(&format!("/firmware/file/4/{FIRMWARE}/9"));
        story.publish_as(&format!("api:{file}"), release);
        story.world().api.offer = Some((FIRMWARE, release.version.into()));
        story.scenario.told = |world| world.is_quiet() && !world.api.reports.is_empty();
        story.scenario.patience = 2 * DAY;
        story
    }

    /// Adds the adapter for a kit of the 112 system.
    pub(super) fn add_kit112(&mut self) {
        let config: Value =
            json!({ "kit_id": KIT_ID, "target": "dock", "link": "web", "source": "folder" });
        let web = LinkGrant {
            serve: vec![
                route("POST", "/updateDevice"),
                route("GET", "/getDeviceInfo"),
                route("POST", "/getDeviceInfo"),
                route("GET", "/healthCheck"),
                route("POST", "/healthCheck"),
            ],
            ..LinkGrant::default()
        };
        let folder = LinkGrant {
            files: vec!["/".into()],
            ..LinkGrant::default()
        };
        let links = vec![("web", web), ("folder", folder)];
        let kit = adapter("kit112", "kit112", &config, on(links, &["dock"]));
        self.setup().adapters.push(kit);
    }

    /// A kit of the 112 system, whose folder holds this release.
    pub fn kit112(name: &'static str, release: &Release) -> Self {
        let mut story = Story::bare(name);
        story.add_kit112();
        story.publish_as(&format!("folder:/kit-{}.img", release.version), release);
        story
    }

    /// Publishes a release under this name, and under no other.
    fn publish_as(&mut self, name: &str, release: &Release) {
        let url = self.publish(release);
        let file: Arc<Vec<u8>> = self.world().files.remove(&url).unwrap();
        self.world().files.insert(name.to_owned(), file);
    }
}
