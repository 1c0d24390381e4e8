//! A restart in the middle of a call: whoever waited is gone, and nothing begins that nobody was told of.

use otahost_adapter::StartReason;
use otahost_adapter::bench::{responses, started};
use serde_json::json;

use crate::centre::{answer, bench, bench_with, folder, post, tag};

#[test]
fn after_a_boot_or_a_restart_the_folder_of_before_starts_nothing_and_the_next_call_works() {
    for reason in [StartReason::Booted, StartReason::Restarted] {
        let mut bench = bench();
        let before = tag(&post(&mut bench));
        if reason == StartReason::Booted {
            bench.reboot("boot-2", 3_000);
        }
        assert!(responses(&bench.start(reason).unwrap()).is_empty());
        assert_eq!(bench.listing(&before, Ok(folder())).unwrap(), []);
        assert_eq!(bench.timer("listing").unwrap(), []);
        let after = tag(&post(&mut bench));
        assert_ne!(before, after);
        let effects = bench.listing(&after, Ok(folder())).unwrap();
        assert_eq!(answer(&effects)["status"], 200);
    }
}

#[test]
fn what_an_earlier_boot_left_waiting_is_not_answered_nor_waited_for() {
    // The listing, the timer or the next call come before the adapter is told of the boot.
    for first in ["listing", "timer", "call"] {
        let mut bench = bench_with(&json!({ "repeat": "answer" }));
        let before = tag(&post(&mut bench));
        bench.reboot("boot-2", 60_000);
        match first {
            "listing" => {
                let effects = bench.listing(&before, Ok(folder())).unwrap();
                assert!(started(&effects).is_empty() && responses(&effects).is_empty());
            }
            // An answer to a request of another boot finds nobody; the host drops it.
            "timer" => assert_eq!(answer(&bench.timer("listing").unwrap())["status"], 503),
            _ => {}
        }
        let asked = post(&mut bench);
        let effects = bench.listing(&tag(&asked), Ok(folder())).unwrap();
        assert_eq!(responses(&effects).len(), 1, "{first}");
        assert!(
            responses(&effects)[0].request.starts_with("boot-2/"),
            "{first}"
        );
        assert_eq!(started(&effects).len(), 1, "{first}");
    }
}

#[test]
fn a_swap_of_the_adapter_keeps_the_caller_waiting_and_a_new_configuration_answers_it() {
    for reason in [
        StartReason::Upgraded("0.0.9".into()),
        StartReason::RolledBack("0.0.9".into()),
    ] {
        let mut bench = bench();
        let asked = tag(&post(&mut bench));
        assert_eq!(bench.start(reason).unwrap(), []);
        let effects = bench.listing(&asked, Ok(folder())).unwrap();
        assert_eq!(answer(&effects)["status"], 200);
    }
    let mut bench = bench();
    let asked = tag(&post(&mut bench));
    let effects = bench.start(StartReason::Reconfigured).unwrap();
    assert_eq!(answer(&effects)["status"], 503);
    assert_eq!(bench.listing(&asked, Ok(folder())).unwrap(), []);
}
