//! What holds for any input: no panic, one reply to a command, a percentage that never falls, one result.

use std::collections::BTreeMap;

use crate::cloud::{EVENTS, REPLIES, SERVICES, SN, answer, bench, bench_with, command, on, send};
use otahost_adapter::bench::{report, started};
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

/// Any JSON of a little depth.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,40}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(".{0,8}", inner, 0..4)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

/// What may happen to an update.
#[derive(Debug, Clone)]
enum Happening {
    Report {
        phase: Phase,
        received: u64,
        percent: u8,
        paused: bool,
        code: &'static str,
    },
    Again {
        fresh_bid: bool,
    },
    Timer(&'static str),
    Answer,
    Link(bool),
    Pass(u64),
    Reboot,
}

fn any_happening() -> impl Strategy<Value = Happening> {
    let codes = prop::sample::select(vec![
        "digest",
        "source-lost",
        "boot-failed",
        "deadline",
        "cancelled",
        "policy",
        "new",
    ]);
    prop_oneof![
        6 => (prop::sample::select(PHASES.to_vec()), any::<u64>(), any::<u8>(), any::<bool>(), codes).prop_map(
            |(phase, received, percent, paused, code)| Happening::Report {
                phase,
                received: received % 700_000_000,
                percent,
                paused,
                code
            }
        ),
        2 => any::<bool>().prop_map(|fresh_bid| Happening::Again { fresh_bid }),
        3 => prop::sample::select(vec!["progress", "result"]).prop_map(Happening::Timer),
        1 => Just(Happening::Answer),
        1 => any::<bool>().prop_map(Happening::Link),
        2 => (0u64..15_000).prop_map(Happening::Pass),
        1 => Just(Happening::Reboot),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_on_any_topic_are_survived(payload in prop::collection::vec(any::<u8>(), 0..200), which in 0usize..3) {
        let mut bench = bench();
        let topic = [SERVICES, crate::cloud::EVENTS_REPLY, crate::cloud::STATUS_REPLY][which];
        prop_assert!(bench.message_bytes("cloud", topic, payload).is_ok());
    }

    #[test]
    fn any_json_as_data_gets_exactly_one_reply(data in any_json()) {
        let mut bench = bench();
        for method in ["ota_create", "other"] {
            let effects = send(&mut bench, &json!({ "tid": "t", "bid": "b", "method": method, "data": data }));
            prop_assert_eq!(on(REPLIES, &effects).len(), 1);
            prop_assert!(started(&effects).is_empty());
        }
    }

    #[test]
    fn any_json_in_any_place_of_a_command_gets_at_most_one_reply_and_one_job(
        value in any_json(),
        place in prop::sample::select(vec![
            "/tid", "/bid", "/method", "/timestamp", "/data", "/data/devices", "/data/devices/0", "/data/devices/0/sn",
            "/data/devices/0/product_version", "/data/devices/0/file_url", "/data/devices/0/md5",
            "/data/devices/0/file_size", "/data/devices/0/file_name", "/data/devices/0/firmware_upgrade_type",
        ]),
    ) {
        let mut bench = bench();
        let mut command = command("t", "b");
        *command.pointer_mut(place).unwrap() = value;
        let effects = send(&mut bench, &command);
        let replies = on(REPLIES, &effects);
        prop_assert!(replies.len() <= 1);
        let accepted = replies.iter().any(|r| r["data"]["result"] == 0);
        prop_assert_eq!(started(&effects).len(), usize::from(accepted));
    }

    #[test]
    fn whatever_is_reported_the_percentage_never_falls_and_a_business_has_one_result(
        happenings in prop::collection::vec(any_happening(), 0..60),
        dialect in prop::sample::select(vec!["autel", "dji-v1", "dji-2026"]),
        presence in prop::sample::select(vec!["own", "none"]),
    ) {
        let mut bench = bench_with(&json!({ "gateway_sn": SN, "dialect": dialect, "presence": presence }));
        let first = send(&mut bench, &command("t0", "b0"));
        let mut plan: JobPlan = started(&first)[0].clone();
        bench.set_job(report(&plan, Phase::Queued));
        let mut bid = 0;
        // Results whose tid the cloud has answered: they are not told on a timer again.
        let mut answered: Vec<Value> = Vec::new();
        let mut last: Option<Value> = None;
        // What the cloud has seen of each business: the percentage, and the result once there is one.
        let mut seen: BTreeMap<String, (u64, Option<Value>)> = BTreeMap::new();
        for (n, happening) in happenings.into_iter().enumerate() {
            let effects = match happening {
                Happening::Report { phase, received, percent, paused, code } => {
                    let mut now = report(&plan, phase);
                    now.paused = paused;
                    now.installs[0].received = received;
                    now.installs[0].percent = percent;
                    now.reason = phase.is_final().then(|| Reason::new(code, "download", "why"));
                    bench.report(now).unwrap()
                }
                Happening::Again { fresh_bid } => {
                    bid += u32::from(fresh_bid);
                    let effects = send(&mut bench, &command(&format!("t{n}x"), &format!("b{bid}")));
                    prop_assert_eq!(on(REPLIES, &effects).len(), 1);
                    if let Some(again) = started(&effects).first() {
                        plan = (*again).clone();
                        let phase = bench.world.jobs[0].phase;
                        let mut now = bench.world.jobs[0].clone();
                        if phase.is_final() {
                            now = report(&plan, Phase::Queued);
                        }
                        now.context = plan.context.clone();
                        bench.set_job(now);
                    }
                    effects
                }
                Happening::Timer(name) => {
                    let effects = bench.timer(name).unwrap();
                    for event in on(EVENTS, &effects) {
                        prop_assert!(!answered.contains(&event["tid"]), "told again after its answer: {event}");
                    }
                    effects
                }
                Happening::Answer => match &last {
                    Some(event) => {
                        answered.push(event["tid"].clone());
                        answer(&mut bench, event)
                    }
                    None => continue,
                },
                Happening::Link(up) => bench.link("cloud", up, false).unwrap(),
                Happening::Pass(ms) => {
                    bench.advance(ms);
                    continue;
                }
                Happening::Reboot => {
                    bench.reboot(&format!("boot-{n}"), 100);
                    bench.start(StartReason::Booted).unwrap()
                }
            };
            for event in on(EVENTS, &effects) {
                let standing = &event["data"]["output"];
                let percent = standing["progress"]["percent"].as_u64().unwrap();
                let entry = seen.entry(event["bid"].to_string()).or_default();
                if event["need_reply"] == 1 {
                    last = Some(event.clone());
                    let result = entry.1.get_or_insert_with(|| event.clone());
                    prop_assert_eq!(&*result, &event, "a second result");
                } else {
                    prop_assert!(entry.1.is_none(), "progress after the result: {}", event);
                }
                prop_assert!(percent >= entry.0 && percent <= 100, "{} -> {}", entry.0, percent);
                entry.0 = percent;
                prop_assert_eq!(event["data"]["result"] == 0, !["failed", "rejected", "canceled", "timeout"]
                    .contains(&standing["status"].as_str().unwrap()));
            }
            prop_assert!(bench.state().len() < 20_000);
        }
    }
}
