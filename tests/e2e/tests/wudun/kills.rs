//! The agent is killed in the middle of deliveries.

use std::thread;
use std::time::Duration;

use otahost_e2e::device::eventually;
use otahost_lab::wudun::site;
use serde_json::json;

use crate::ems::Ems;

const RUNS: u64 = 5;
/// A delivery takes about this long.
const DELIVERY_MS: u64 = 500;

/// The moment of a run, in milliseconds after the delivery began, and whether the whole machine loses power.
fn moment(run: u64) -> (u64, bool) {
    // A fixed stride that is prime to the length spreads the moments evenly and in no order.
    ((run * 237 + 40) % DELIVERY_MS, run % 2 == 1)
}

#[test]
fn a_kill_at_any_moment_of_a_delivery_leaves_one_result_and_an_emu_that_is_updated() {
    let ids: Vec<i64> = (2..).take(usize::try_from(RUNS).unwrap()).collect();
    let ems = Ems::online(&ids);
    let package = ems.serve("emu.zip", site::ZIP);
    for (run, id) in (0..RUNS).zip(ids) {
        let (after_ms, power) = moment(run);
        let emu = ems.site.emu(id);
        emu.pace(0.1).unwrap();
        let sent = ems.emu_upgrade(id, &package);
        eventually("the delivery", || emu.deliveries().0 > 0);
        thread::sleep(Duration::from_millis(after_ms));
        if power {
            ems.site.machine.lose_power();
            ems.site.machine.power_on().unwrap();
        } else {
            ems.site.machine.kill_agent().unwrap();
            ems.site.machine.start_agent().unwrap();
        }
        let said = format!("run {run}: {after_ms} ms, power {power}");
        assert_eq!(ems.numbers(&sent, 1), [1], "{said}");
        assert!(emu.is_new(), "{said}");
        eventually("the end of the update", || {
            ems.standing(id)["emu_upgrade_status"] == json!(5)
        });
        assert_eq!(ems.standing(id)["emu_upgrade_success"], json!(1), "{said}");
        assert_eq!(ems.all_numbers(&sent), [1], "{said}");
        assert!(emu.deliveries().0 <= 2, "{said}: {:?}", emu.deliveries());
    }
    assert_eq!(ems.requests(&package).len(), ems.site.emus().count());
    ems.assert_well();
}
