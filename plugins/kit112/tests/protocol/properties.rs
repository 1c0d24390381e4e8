//! What holds for any input: no panic, one answer to every call, no change before a call has passed its checks, one alert for a job.

use std::collections::BTreeSet;

use otahost_adapter::bench::{alerts, file, report, responses, started};
use otahost_adapter::{Effect, Event, Health, JobPlan, Phase, Reason, StartReason};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::centre::{KIT, PAGE, answer, bench, bench_with};

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
        any::<f64>().prop_map(Value::from),
        ".{0,40}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("(kitId|.{0,8})", inner, 0..4)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

/// Bodies that are none of ours: any bytes, any JSON, and the page's with some bytes changed.
fn any_body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        any_json().prop_map(|value| value.to_string().into_bytes()),
        (0..PAGE.len(), any::<u8>()).prop_map(|(at, byte)| {
            let mut body = PAGE.as_bytes().to_vec();
            body[at] = byte;
            body
        }),
    ]
}

/// The kit id that this body names, by another reading than the adapter's.
fn names_the_kit(body: &[u8]) -> bool {
    serde_json::from_slice::<Value>(body).is_ok_and(|body| body["kitId"] == KIT)
}

/// What may happen to a kit.
#[derive(Debug, Clone)]
enum Happening {
    Call { right: bool },
    Listing { fails: bool, newest: u32 },
    Timer,
    Report { phase: Phase },
    Health(Health),
    Pass(u64),
    Boot,
    Restart,
    Swap,
}

fn any_happening() -> impl Strategy<Value = Happening> {
    let healths = vec![
        Health::Unknown,
        Health::Healthy,
        Health::Unwell,
        Health::Offline,
    ];
    prop_oneof![
        4 => any::<bool>().prop_map(|right| Happening::Call { right }),
        4 => (any::<bool>(), 20u32..25).prop_map(|(fails, newest)| Happening::Listing { fails, newest }),
        1 => Just(Happening::Timer),
        5 => prop::sample::select(PHASES.to_vec()).prop_map(|phase| Happening::Report { phase }),
        2 => prop::sample::select(healths).prop_map(Happening::Health),
        1 => (0u64..20_000).prop_map(Happening::Pass),
        1 => Just(Happening::Boot),
        1 => Just(Happening::Restart),
        1 => Just(Happening::Swap),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_body_is_survived_and_one_that_does_not_name_the_kit_changes_nothing(body in any_body(), which in 0usize..3) {
        let mut bench = bench();
        let path = ["/updateDevice", "/getDeviceInfo", "/healthCheck"][which];
        let names = names_the_kit(&body);
        let effects = bench.request("kit", "POST", path, body).unwrap();
        if which > 0 {
            prop_assert!([200, 400, 404].contains(&answer(&effects)["status"].as_u64().unwrap()));
        }
        if !(which == 0 && names) {
            prop_assert_eq!(effects.len(), 1);
            prop_assert_eq!(responses(&effects).len(), 1);
            prop_assert_eq!(bench.read_state().unwrap(), kit112::state::State::default());
        }
        if which == 0 && !names {
            prop_assert!([400, 404].contains(&answer(&effects)["status"].as_u64().unwrap()));
        }
    }

    #[test]
    fn every_call_of_a_boot_is_answered_once_and_every_job_is_promised_before(
        happenings in prop::collection::vec(any_happening(), 0..80),
        repeat in prop::sample::select(vec!["busy", "answer"]),
    ) {
        let mut bench = bench_with(&json!({ "repeat": repeat }));
        // Calls of this process that are still to be answered.
        let mut waiting: BTreeSet<String> = BTreeSet::new();
        let mut answered: BTreeSet<String> = BTreeSet::new();
        let mut tag = "none".to_owned();
        let mut plan: Option<JobPlan> = None;
        let (mut calls, mut boot, mut alerted) = (0u32, 1, 0u32);
        for happening in happenings {
            let mut called = None;
            let effects = match happening {
                Happening::Call { right } => {
                    calls += 1;
                    let body = if right { PAGE } else { r#"{"kitId":"other"}"# };
                    let effects = bench.request("kit", "POST", "/updateDevice", body).unwrap();
                    called = Some(());
                    effects
                }
                Happening::Listing { fails, newest } => {
                    let entries = vec![file(&format!("kit-0.0.{newest}.img"), 7)];
                    bench.listing(&tag, if fails { Err("why".into()) } else { Ok(entries) }).unwrap()
                }
                Happening::Timer => bench.timer("listing").unwrap(),
                Happening::Report { phase } => match &plan {
                    None => continue,
                    Some(plan) => {
                        let mut now = report(plan, phase);
                        now.reason = phase.is_final().then(|| Reason::new("other", "download", "why"));
                        // An end is an end; what comes after it is the same again.
                        let standing = bench.world.jobs.iter().find(|job| job.key == plan.key).map(|job| job.phase);
                        if standing.is_some_and(Phase::is_final) {
                            now.phase = standing.unwrap();
                            now.installs[0].phase = now.phase;
                        }
                        bench.report(now).unwrap()
                    }
                },
                Happening::Health(health) => {
                    bench.world.targets[0].health = health;
                    bench.send(Event::Target("kit".into())).unwrap()
                }
                Happening::Pass(ms) => {
                    bench.advance(ms);
                    continue;
                }
                Happening::Boot => {
                    boot += 1;
                    waiting.clear();
                    bench.reboot(&format!("boot-{boot}"), 1_000);
                    bench.start(StartReason::Booted).unwrap()
                }
                Happening::Restart => {
                    waiting.clear();
                    bench.start(StartReason::Restarted).unwrap()
                }
                Happening::Swap => bench.start(StartReason::Upgraded("0".into())).unwrap(),
            };
            if called.is_some() {
                // The bench names calls itself; the newest that waits is in the state, where it is not answered at once.
                let state = bench.read_state().unwrap();
                if let Some(pending) = state.pending {
                    waiting.extend(pending.requests.into_iter().filter(|id| !answered.contains(id)));
                }
            }
            if let Some(Effect::ListDirectory(listing)) = effects.iter().find(|e| matches!(e, Effect::ListDirectory(_))) {
                tag = listing.tag.clone();
            }
            let mut accepted = 0;
            for response in responses(&effects) {
                prop_assert!(answered.insert(response.request.clone()), "answered twice: {}", response.request);
                waiting.remove(&response.request);
                accepted += u32::from(response.response.status == 200);
            }
            let begun = started(&effects);
            prop_assert!(begun.len() <= 1);
            if let Some(begun) = begun.first() {
                prop_assert!(accepted > 0, "a job that nobody was told of");
                let (begun, at_work) = ((*begun).clone(), plan.as_ref().and_then(|p| bench.world.jobs.iter().find(|j| j.key == p.key)));
                prop_assert!(at_work.is_none_or(|job| job.phase.is_final()), "a second job beside the first");
                bench.set_job(report(&begun, Phase::Queued));
                plan = Some(begun);
                alerted = 0;
            }
            alerted += alerts(&effects).len() as u32;
            prop_assert!(alerted <= 2, "the update before may be told as unwell, and this one, each once");
            let pending = bench.read_state().unwrap().pending.map_or(0, |pending| pending.requests.len());
            prop_assert_eq!(pending, waiting.len());
            prop_assert!(bench.state().len() < 4_000);
        }
        prop_assert!(answered.len() + waiting.len() <= calls as usize);
    }
}
