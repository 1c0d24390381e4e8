//! A gateway that speaks four protocols and has nothing to do all day but to say how it is.

use std::time::Duration;

use otahost_core::grants::{Grants, LinkGrant};
use serde_json::json;

use super::scenarios::wudun::wudun;
use super::story::{DOCK_SN, adapter};
use super::{Caller, Story, World};

/// Virtual milliseconds between two calls of the 112 centre, which wants to know how the kit is.
const HEALTH_CHECKS: u64 = 60_000;
/// Virtual milliseconds for which an access token of Withnox's is good.
const TOKEN: u64 = 3_600_000;

impl Story {
    /// Four adapters without any update for so long: a dock that sends its telemetry every two seconds, a kit that is asked every minute
    /// how it is, a camera that looks for firmware, an energy management system that waits.
    pub fn idle(name: &'static str, time: Duration) -> Self {
        let mut story = Story::bare(name);
        let cloud = LinkGrant {
            subscribe: vec![
                format!("thing/product/{DOCK_SN}/services"),
                format!("thing/product/{DOCK_SN}/events_reply"),
                format!("sys/product/{DOCK_SN}/status_reply"),
            ],
            publish: vec![
                format!("thing/product/{DOCK_SN}/#"),
                format!("sys/product/{DOCK_SN}/status"),
            ],
            ..LinkGrant::default()
        };
        let grants = Grants {
            links: [("cloud".to_owned(), cloud)].into(),
            download: Vec::new(),
            targets: vec!["dock".into()],
        };
        let config = json!({ "gateway_sn": DOCK_SN, "dialect": "autel" });
        let dji = adapter("dji", "dji", &config, grants);
        story.setup().adapters.push(dji);
        story.add_kit112();
        story.add_withnox();
        story.setup().adapters.push(wudun());
        let world = story.world();
        world.greets = true;
        world.api.life = TOKEN;
        let end = u64::try_from(time.as_millis()).unwrap();
        let check = |at| Caller::new(at, "GET", "/healthCheck", "");
        let times = (HEALTH_CHECKS..end).step_by(usize::try_from(HEALTH_CHECKS).unwrap());
        world.web.callers = times.map(check).collect();
        // The last word of the day, which changes nothing: there is no job.
        world.operator.push((end, "cancel".into()));
        story.scenario.told = World::is_quiet;
        story.scenario.patience = time + Duration::from_secs(3_600);
        story
    }
}
