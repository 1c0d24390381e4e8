//! A kit of 112 whole, with the real adapter: the centre's call, the folder, a transfer that is cut and resumed, the reboot, and what the
//! kit says then. Power is cut at every disk operation (issue 4, K01 to K17 as one).
#![allow(clippy::unwrap_used, reason = "tests")]

use otahost_core::model::Phase;
use otahost_disk::sim::Controls;
use otahost_e2e::sim::scenarios::kit112::{
    NEXT, accepted, kit, look, order_every, told_once, updated,
};
use otahost_e2e::sim::{Boot, Caller, KIT_ID, LOSSES, OLD, check, jobs};
use serde_json::json;

#[test]
fn a_kit_that_is_told_to_updates_once_and_says_so_whenever_power_is_cut() {
    let scenario = updated();
    let run = scenario.play();
    run.verdict.unwrap();
    let world = &run.world;
    assert_eq!(accepted(world), [(OLD.to_owned(), NEXT.to_owned())]);
    assert_eq!((world.reboots, world.boots), (1, 2));
    assert_eq!(world.served, world.offered(), "every byte once");
    let found = scenario.cut_everywhere(Controls::default(), &LOSSES, 1);
    found.assert_none(scenario.name);
}

#[test]
fn a_kit_whose_new_version_does_not_come_up_says_the_old_one_and_how_it_ended_whenever_power_is_cut()
 {
    let mut story = kit("112, rolled back", Boot::Dead);
    let ended = r#""outcome":"rolled-back""#;
    // An order lost with its answer is repeated while the job runs; once it has ended, the same order would be another one.
    story.world().web.callers = vec![order_every(2_000), look("/healthCheck", ended)];
    story.scenario.promises = |world, disk| {
        told_once(world, disk, Phase::RolledBack)?;
        check((world.slot, world.version.as_str()) == (0, OLD), || {
            format!("{} runs in slot {}", world.version, world.slot)
        })
    };
    story.scenario.play().verdict.unwrap();
    story.scenario.holds(3);
}

#[test]
fn a_wrong_kit_id_changes_nothing() {
    let mut story = kit("112, another kit", Boot::Up);
    let other = KIT_ID.replace('7', "8");
    let body = json!({ "kitId": other }).to_string();
    let call = |body: &str| Caller::new(2_000, "POST", "/updateDevice", body);
    story.world().web.callers = vec![call(&body), call("no JSON")];
    let run = story.scenario.play();
    run.verdict.unwrap();
    let statuses: Vec<u16> = run.world.web.heard.iter().map(|h| h.status).collect();
    assert_eq!(statuses, [404, 400]);
    assert!(run.world.listings.is_empty() && jobs(&run.disk).is_empty());
}
