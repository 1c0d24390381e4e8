//! Dock and drone in one command: one plan, one percentage, one result.

use crate::cloud::{
    DRONE_SN, EVENTS, REPLIES, SN, command, dock_and_drone, on, online, only, send,
};
use dji::Dji;
use otahost_adapter::bench::{Bench, report, started};
use otahost_adapter::{Health, JobPlan, JobReport, Phase, Reason};
use serde_json::{Value, json};

const DOCK_BYTES: u64 = 1_000_000;
const DRONE_BYTES: u64 = 400_000;

fn both(tid: &str, bid: &str) -> Value {
    let mut both = command(tid, bid);
    let mut dock = both["data"]["devices"][0].clone();
    let mut drone = dock.clone();
    dock["file_size"] = json!(DOCK_BYTES);
    drone["sn"] = json!(DRONE_SN);
    drone["product_version"] = json!("7.1");
    drone["file_url"] = json!("http://192.168.1.1:9000/public/drone.uav");
    drone["file_size"] = json!(DRONE_BYTES);
    drone["md5"] = json!("00000000000000000000000000000001");
    both["data"]["devices"] = json!([dock, drone]);
    both
}

fn started_bench() -> (Bench<Dji>, JobPlan) {
    let mut bench = dock_and_drone(&json!({ "gateway_sn": SN }));
    let effects = send(&mut bench, &both("t1", "b1"));
    let plan = started(&effects)[0].clone();
    bench.set_job(report(&plan, Phase::Queued));
    (bench, plan)
}

/// The job in this phase, its installs each in their own: drone, then dock.
fn at(plan: &JobPlan, phase: Phase, drone: (Phase, u64), dock: (Phase, u64)) -> JobReport {
    let mut report = report(plan, phase);
    for (install, (phase, received)) in report.installs.iter_mut().zip([drone, dock]) {
        install.phase = phase;
        install.received = received;
    }
    report
}

#[test]
fn two_devices_become_one_plan_with_the_farthest_first() {
    let (_, plan) = started_bench();
    let said: Vec<_> = plan
        .installs
        .iter()
        .map(|i| {
            (
                i.target.as_str(),
                i.version.as_str(),
                i.artifact.size,
                i.artifact.digests[0].as_str(),
            )
        })
        .collect();
    assert_eq!(
        said,
        [
            (
                "drone",
                "7.1",
                Some(DRONE_BYTES),
                "md5:00000000000000000000000000000001"
            ),
            (
                "dock",
                "1.2.0.69",
                Some(DOCK_BYTES),
                "md5:d1c9dacec124abd350379eb44b9143e5"
            ),
        ]
    );
}

#[test]
fn d02_both_on_the_way_are_one_course_of_events_that_ends_in_one_ok() {
    let (mut bench, plan) = started_bench();
    use Phase::{
        Activating, Confirming, Delivering, Downloading, Installing, Prepared, Queued, Succeeded,
        Verifying,
    };
    let way = [
        (Downloading, (Downloading, 200_000), (Queued, 0), 12),
        (Downloading, (Prepared, 400_000), (Downloading, 500_000), 37),
        (Verifying, (Prepared, 400_000), (Verifying, DOCK_BYTES), 50),
        (Prepared, (Prepared, 400_000), (Prepared, DOCK_BYTES), 50),
        (
            Delivering,
            (Delivering, 400_000),
            (Prepared, DOCK_BYTES),
            50,
        ),
        (
            Confirming,
            (Confirming, 400_000),
            (Prepared, DOCK_BYTES),
            72,
        ),
        // The job is back at installing, now the dock: no word for that, but the percentage goes on.
        (
            Installing,
            (Succeeded, 400_000),
            (Installing, DOCK_BYTES),
            75,
        ),
        (
            Activating,
            (Succeeded, 400_000),
            (Activating, DOCK_BYTES),
            96,
        ),
        (
            Succeeded,
            (Succeeded, 400_000),
            (Succeeded, DOCK_BYTES),
            100,
        ),
    ];
    let mut results = 0;
    for (phase, drone, dock, percent) in way {
        bench.advance(2_000);
        let effects = bench.report(at(&plan, phase, drone, dock)).unwrap();
        let event = only(EVENTS, &effects);
        assert_eq!(event["bid"], "b1");
        assert_eq!(
            event["data"]["output"]["progress"]["percent"], percent,
            "{phase:?}"
        );
        results += usize::from(event["need_reply"] == 1);
        assert_eq!(
            event["data"]["output"]["status"] == "ok",
            phase == Succeeded
        );
    }
    assert_eq!(results, 1);
}

#[test]
fn a_mixed_result_is_one_failure_with_312013() {
    let (mut bench, plan) = started_bench();
    bench
        .report(at(
            &plan,
            Phase::Activating,
            (Phase::Succeeded, DRONE_BYTES),
            (Phase::Activating, DOCK_BYTES),
        ))
        .unwrap();
    let mut mixed = at(
        &plan,
        Phase::Partial,
        (Phase::Succeeded, DRONE_BYTES),
        (Phase::RolledBack, DOCK_BYTES),
    );
    mixed.installs[1].reason = Some(Reason::new("boot-failed", "confirm", "why"));
    let event = only(EVENTS, &bench.report(mixed).unwrap());
    assert_eq!(event["data"]["result"], 312_013);
    assert_eq!(event["data"]["output"]["status"], "failed");
    assert_ne!(event["data"]["output"]["progress"]["percent"], 100);
    assert_eq!(event["need_reply"], 1);
}

#[test]
fn d03_one_wrong_file_fails_both_before_anything_is_installed() {
    let (mut bench, plan) = started_bench();
    let mut failed = at(
        &plan,
        Phase::Failed,
        (Phase::Failed, DRONE_BYTES),
        (Phase::Failed, DOCK_BYTES),
    );
    failed.installs[1].reason = Some(Reason::new("digest", "verify", "why"));
    let event = only(EVENTS, &bench.report(failed).unwrap());
    assert_eq!(event["data"]["result"], 312_003);
    assert_eq!(event["data"]["output"]["sub_status"], "VERIFY_FAILED");
}

#[test]
fn d07_the_same_two_in_the_other_order_are_the_same_command() {
    let (mut bench, plan) = started_bench();
    let mut swapped = both("t2", "b2");
    swapped["data"]["devices"].as_array_mut().unwrap().reverse();
    let effects = send(&mut bench, &swapped);
    assert_eq!(only(REPLIES, &effects)["data"]["result"], 0);
    assert_eq!(started(&effects)[0].key, plan.key);
    // One of the two alone is another command.
    let effects = send(&mut bench, &command("t3", "b3"));
    assert_eq!(only(REPLIES, &effects)["data"]["result"], 312_014);
}

#[test]
fn one_that_is_offline_or_wrong_refuses_both() {
    let mut bench = dock_and_drone(&json!({ "gateway_sn": SN }));
    bench.world.targets[1].health = Health::Offline;
    let effects = send(&mut bench, &both("t1", "b1"));
    assert_eq!(only(REPLIES, &effects)["data"]["result"], 312_022);
    assert!(started(&effects).is_empty());
    bench.world.targets[1].health = Health::Healthy;
    let mut wrong = both("t1", "b1");
    wrong["data"]["devices"][1]["md5"] = json!("abcdefabcdefabcdef");
    let effects = send(&mut bench, &wrong);
    assert_eq!(only(REPLIES, &effects)["data"]["result"], 312_012);
    assert!(started(&effects).is_empty());
}

#[test]
fn the_drones_state_says_that_it_is_upgraded() {
    let mut bench = dock_and_drone(&json!({ "gateway_sn": SN, "sub_devices": [DRONE_SN] }));
    online(&mut bench);
    let effects = send(&mut bench, &both("t1", "b1"));
    let plan = started(&effects)[0].clone();
    let begun = bench.report(report(&plan, Phase::Downloading)).unwrap();
    let states: Vec<_> = ["thing/product/DRONE/state", crate::cloud::STATE]
        .into_iter()
        .flat_map(|topic| on(topic, &begun))
        .map(|m| m["data"]["firmware_upgrade_status"].clone())
        .collect();
    assert_eq!(states, [1, 1]);
}
