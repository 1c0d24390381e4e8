//! What holds for any input: no panic, no result without a command, at most one last result, a state within its bound.

use std::collections::BTreeMap;

use crate::platform::{
    BASE, EMU_RESULT, EMU_UPGRADE, EMU_VERSION, UPGRADE, at, bench, bench_with, emu_upgrade,
    sample, send, upgrade, with,
};
use otahost_adapter::bench::{published, report, started};
use otahost_adapter::{JobPlan, Phase, Reason, StartReason};
use proptest::prelude::*;
use serde_json::{Value, json};

const PHASES: [Phase; 17] = [
    Phase::Queued,
    Phase::Waiting,
    Phase::Downloading,
    Phase::Verifying,
    Phase::Prepared,
    Phase::Delivering,
    Phase::Delivered,
    Phase::Installing,
    Phase::Activating,
    Phase::Confirming,
    Phase::Succeeded,
    Phase::Rejected,
    Phase::Failed,
    Phase::RolledBack,
    Phase::RollbackFailed,
    Phase::Cancelled,
    Phase::Partial,
];
const PATHS: [&str; 4] = [UPGRADE, EMU_VERSION, EMU_UPGRADE, EMU_RESULT];

/// Any JSON of a little depth.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,120}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(".{0,8}", inner, 0..4)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

/// What may happen.
#[derive(Debug, Clone)]
enum Happening {
    Command {
        path: &'static str,
        mid: u8,
        device_id: i64,
    },
    Report {
        job: usize,
        phase: Phase,
        percent: u8,
        code: &'static str,
        stage: &'static str,
    },
    Reboot,
}

fn any_happening() -> impl Strategy<Value = Happening> {
    let codes = prop::sample::select(vec![
        "digest",
        "source-lost",
        "flash",
        "policy",
        "cancelled",
        "new",
    ]);
    let stages = prop::sample::select(vec![
        "admit", "download", "verify", "clear", "unpack", "deliver", "confirm", "new",
    ]);
    prop_oneof![
        3 => (prop::sample::select(PATHS.to_vec()), 0u8..6, 1i64..6).prop_map(|(path, mid, device_id)| {
            Happening::Command { path, mid, device_id }
        }),
        6 => (any::<usize>(), prop::sample::select(PHASES.to_vec()), any::<u8>(), codes, stages).prop_map(
            |(job, phase, percent, code, stage)| Happening::Report { job, phase, percent, code, stage }
        ),
        1 => Just(Happening::Reboot),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_on_any_topic_are_survived_without_an_answer(
        payload in prop::collection::vec(any::<u8>(), 0..200),
        path in prop::sample::select(PATHS.to_vec()),
    ) {
        let mut bench = bench();
        let topic = format!("{BASE}/{path}/command");
        prop_assert!(bench.message_bytes("cloud", &topic, payload).unwrap().is_empty());
    }

    #[test]
    fn w14_a_sample_with_any_byte_changed_or_cut_off_is_survived_with_at_most_one_answer(
        file in prop::sample::select(vec!["wudun_ota_upgrade_command.lenient", "wudun_2025_07_emu_upgrade_command.lenient"]),
        path in prop::sample::select(PATHS.to_vec()),
        place in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<bool>(),
    ) {
        let mut bench = bench();
        let mut payload = sample(file).trim_ascii_end().to_vec();
        let place = place.index(payload.len());
        payload[place] = byte;
        if cut {
            payload.truncate(place);
        }
        let topic = format!("{BASE}/{path}/command");
        let effects = bench.message_bytes("cloud", &topic, payload).unwrap();
        prop_assert!(effects.len() <= 1);
        prop_assert!(!cut || effects.is_empty());
    }

    #[test]
    fn any_json_in_any_place_of_a_command_gets_at_most_one_answer(
        value in any_json(),
        place in prop::sample::select(vec![
            "", "/mid", "/trace_id", "/type", "/device_uid", "/timestamp", "/sub_device_id", "/sub_device_uid", "/data",
            "/data/source", "/data/download_url", "/data/md5_code",
        ]),
        path in prop::sample::select(PATHS.to_vec()),
    ) {
        let mut bench = bench();
        let mut command = emu_upgrade("m", 2);
        command["sub_device_uid"] = Value::Null;
        command["data"]["source"] = json!("ems_II");
        *command.pointer_mut(place).unwrap() = value;
        let effects = send(&mut bench, path, &command);
        prop_assert!(effects.len() <= 1);
        prop_assert!(started(&effects).iter().all(|plan| plan.context.len() <= 4_096));
    }

    #[test]
    fn whatever_happens_a_command_gets_one_last_result_and_two_results_at_most(
        happenings in prop::collection::vec(any_happening(), 0..80),
        success in prop::sample::select(vec!["flag", "bitmask"]),
    ) {
        let mut bench = bench_with(&json!({ "device_uid": "test", "tenant": "T", "emu_upgrade_success": success }));
        let mut plans: Vec<JobPlan> = Vec::new();
        // What was said in answer to each command the first time.
        let mut said: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for (n, happening) in happenings.into_iter().enumerate() {
            let (effects, repeat) = match happening {
                Happening::Command { path, mid, device_id } => {
                    let mid = format!("{path}-{mid}");
                    let mut command = emu_upgrade(&mid, device_id);
                    command["data"]["source"] = json!("ems_II");
                    let seen = said.contains_key(&mid) || plans.iter().any(|plan| plan.key.ends_with(&mid));
                    let effects = send(&mut bench, path, &command);
                    for plan in started(&effects) {
                        prop_assert!(!seen, "a second job for {}", mid);
                        bench.set_job(report(plan, Phase::Queued));
                        plans.push(plan.clone());
                    }
                    (effects, seen)
                }
                Happening::Report { job, phase, percent, code, stage } if !plans.is_empty() => {
                    let mut now = at(&plans[job % plans.len()], phase, percent);
                    now.reason = phase.is_final().then(|| Reason::new(code, stage, "why"));
                    (bench.report(now).unwrap(), false)
                }
                Happening::Report { .. } => continue,
                Happening::Reboot => {
                    bench.reboot(&format!("boot-{n}"), 100);
                    (bench.start(StartReason::Booted).unwrap(), false)
                }
            };
            let mut repeated: BTreeMap<String, Vec<u64>> = BTreeMap::new();
            for publication in published(&effects) {
                let result: Value = publication.payload_json().unwrap();
                let status = ["status", "download_status"].iter().find_map(|name| result["data"][name].as_u64());
                let (Some(status), "ota_upgrade" | "emu_upgrade") = (status, result["type"].as_str().unwrap()) else {
                    continue;
                };
                let all = if repeat { &mut repeated } else { &mut said };
                all.entry(result["reply"].as_str().unwrap().to_owned()).or_default().push(status);
            }
            for (mid, statuses) in repeated {
                prop_assert_eq!(&said[&mid], &statuses, "{}", mid);
            }
        }
        for (mid, statuses) in said {
            let legal = match statuses.as_slice() {
                [one] if mid.starts_with(UPGRADE) => [1, 2, 3].contains(one),
                [2, last] if mid.starts_with(UPGRADE) => [4, 5, 6].contains(last),
                [one] => (1..=6).contains(one),
                _ => false,
            };
            prop_assert!(legal, "{}: {:?}", mid, statuses);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_state_stays_within_its_bound_over_thousands_of_commands(
        ends in prop::collection::vec((any::<bool>(), any::<bool>(), any::<i64>()), 2_500),
    ) {
        let mut bench = bench();
        let mut largest = 0;
        for (n, (emu, ends, device_id)) in ends.into_iter().enumerate() {
            // A target of its own each time, so that as many jobs run at once as can.
            let id = device_id.to_string();
            let source = format!("s{n}");
            let longest = "\"".repeat(64);
            bench.world.targets = vec![with("t", &longest, &[("device_id", &id), ("source", &source)])];
            let mid = format!("{n:\u{1}>96}");
            let (path, mut command) = if emu {
                (EMU_UPGRADE, emu_upgrade(&mid, device_id))
            } else {
                (UPGRADE, upgrade(&mid))
            };
            command["data"]["source"] = json!(source);
            let effects = send(&mut bench, path, &command);
            let plan = started(&effects)[0].clone();
            let mut now = at(&plan, if ends { Phase::RolledBack } else { Phase::Delivering }, 77);
            now.installs[0].old_version = Some(longest.clone());
            now.installs[0].new_version = longest;
            // Told without being put into the world: the bench would hold the target then.
            bench.send(otahost_adapter::Event::Job(now)).unwrap();
            largest = largest.max(bench.state().len());
        }
        prop_assert!(largest < 60_000, "{}", largest);
        prop_assert!(largest > 30_000, "the test reaches its aim: {}", largest);
    }
}
