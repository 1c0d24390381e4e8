//! Many EMUs behind one EMS. (What 1,000 of them cost is a row of the benchmarks.)

use std::time::Duration;

use otahost_e2e::device::eventually;
use otahost_lab::files::Fault;
use otahost_lab::wudun::Kind;
use otahost_lab::wudun::site;
use serde_json::{Value, json};

use crate::ems::{Ems, KIB};

const EMUS: usize = 100;
const PARALLEL: usize = 3;
const LONG: Duration = Duration::from_secs(120);

#[test]
fn a_hundred_updates_at_once_transfer_a_few_at_a_time_and_all_end_well() {
    let ids: Vec<i64> = (1..).take(EMUS).collect();
    let ems = Ems::off(&ids, |spec| spec.parallel = Some(PARALLEL));
    ems.switch_on();
    assert_eq!(ems.ping().data.as_array().unwrap().len(), EMUS);

    let package = ems.serve("emu.zip", site::ZIP);
    ems.files
        .fault_always(&package.name, Fault::StallAfter(4 * KIB));
    let sent: Vec<_> = ids
        .iter()
        .map(|id| ems.emu_upgrade(*id, &package))
        .collect();
    // All were taken in, and only so many are worked on as long as these do not come to an end.
    let waiting = |list: &Value| {
        let emus = list.as_array().unwrap().iter();
        emus.filter(|emu| emu["emu_upgrade_status"] == json!(1))
            .count()
    };
    eventually("a hundred jobs", || waiting(&ems.ping().data) == EMUS);
    eventually("the transfers", || ems.files.requests().len() >= PARALLEL);
    ems.ping();
    assert_eq!(ems.files.requests().len(), PARALLEL);

    ems.files.heal(&package.name);
    ems.files.release();
    ems.platform
        .await_count(Kind::EmuUpgrade, EMUS, LONG)
        .unwrap();
    for sent in &sent {
        assert_eq!(ems.numbers(sent, 1), [1]);
    }
    assert_eq!(ems.site.emus().filter(|emu| emu.is_new()).count(), EMUS);
    assert_eq!(ems.files.requests().len(), EMUS);
    eventually("the end of all", || {
        let list = ems.ping().data;
        let emus = list.as_array().unwrap();
        emus.iter()
            .all(|emu| emu["emu_upgrade_success"] == json!(1))
    });
    ems.assert_well();
}
