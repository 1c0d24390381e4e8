//! What holds whatever the cloud says and whenever it says it: no panic, no loop, one refresh at a time, one sign-in an hour, a bounded
//! state, and a way back once the cloud is itself again.

use std::collections::BTreeMap;

use otahost_adapter::bench::{Bench, alerts, fetched, report, started, timers};
use otahost_adapter::{
    Effect, Event, FetchResult, Field, HttpResponse, JobPlan, Phase, Reason, StartReason, Verdict,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use withnox::Withnox;

use crate::cloud::{
    HOUR, LATEST, MINUTE, PAGE, REFRESH, SIGN_IN, bench, bench_with, config, device, entry, status,
    tokens,
};

const DETAILS: [&str; 12] = [
    "Token is expired",
    "Could not validate credentials",
    "Refresh token is not valid",
    "Not authorized user",
    "No credentials",
    "Permission denied",
    "Device not found",
    "Firmware not found",
    "Firmware not matched with device",
    "Invalid firmware",
    "Resource not found",
    "무엇",
];

/// What an answer may be.
fn any_outcome() -> impl Strategy<Value = FetchResult> {
    let json_body = prop_oneof![
        prop::sample::select(DETAILS.to_vec()).prop_map(|d| json!({ "detail": d })),
        Just(json!({ "detail": [{ "msg": "x" }] })),
        Just(json!([])),
        Just(json!([
            entry(7, "1.0.0"),
            entry(8, "1.10.0"),
            entry(5, "0.9.0")
        ])),
        Just(json!([entry(8, "1.10.0")])),
        Just(device(7)),
        Just(device(8)),
        Just(tokens()),
        Just(json!(null)),
    ];
    let status = prop_oneof![
        6 => prop::sample::select(vec![200_u16, 200, 200, 401, 401]),
        2 => prop::sample::select(vec![302_u16, 400, 403, 404, 422, 423, 429, 500, 502, 503]),
        1 => any::<u16>(),
    ];
    let header = prop::option::of(".{0,12}|[0-9]{1,20}");
    prop_oneof![
        8 => (status.clone(), json_body, header.clone()).prop_map(|(status, body, header)| {
            let mut answer = HttpResponse::with_json(status, &body);
            answer.headers.extend(header.map(|value| Field { name: "retry-after".into(), value }));
            FetchResult::Answered(answer)
        }),
        1 => (status, prop::collection::vec(any::<u8>(), 0..120)).prop_map(|(status, body)| {
            FetchResult::Answered(HttpResponse { body, ..HttpResponse::status(status) })
        }),
        1 => prop::sample::select(vec!["time-out", "no-secret: access_token", ""])
            .prop_map(|why| FetchResult::Failed(why.into())),
        1 => Just(FetchResult::Interrupted),
    ]
}

const PHASES: [Phase; 9] = [
    Phase::Downloading,
    Phase::Activating,
    Phase::Confirming,
    Phase::Succeeded,
    Phase::Succeeded,
    Phase::Rejected,
    Phase::Failed,
    Phase::RolledBack,
    Phase::Cancelled,
];

/// What may happen.
#[derive(Debug, Clone)]
enum Happening {
    /// One of the requests under way ends.
    Outcome(usize, FetchResult),
    /// The next timer is due.
    Timer,
    Pass(u64),
    Attempt(u32, u16, String),
    Report(Phase, &'static str, bool),
    Runs(&'static str),
    Verdict(Verdict),
    Start(StartReason),
}

fn any_happening() -> impl Strategy<Value = Happening> {
    let code = prop::sample::select(vec![
        "known-bad",
        "signature",
        "source-lost",
        "probe-failed",
    ]);
    let verdict = prop::sample::select(vec![
        Verdict::Allow,
        Verdict::Allow,
        Verdict::Defer(0),
        Verdict::Defer(u64::MAX >> 12),
        Verdict::Refuse(Reason::new("known-bad", "admit", "x")),
        Verdict::Refuse(Reason::new("policy", "admit", "x")),
        Verdict::Busy("-".into()),
    ]);
    let start = prop::sample::select(vec![
        StartReason::Booted,
        StartReason::Restarted,
        StartReason::Reconfigured,
    ]);
    let body = prop_oneof![
        prop::sample::select(DETAILS.to_vec()).prop_map(|d| json!({ "detail": d }).to_string()),
        ".{0,60}",
        Just("<Error><Code>AccessDenied</Code></Error>".to_owned()),
    ];
    prop_oneof![
        10 => (any::<usize>(), any_outcome()).prop_map(|(which, o)| Happening::Outcome(which, o)),
        6 => Just(Happening::Timer),
        2 => (0..2 * HOUR).prop_map(Happening::Pass),
        2 => (1_u32..6, prop::sample::select(vec![0_u16, 400, 401, 401, 403, 404, 500, 999]), body)
            .prop_map(|(n, status, body)| Happening::Attempt(n, status, body)),
        3 => (prop::sample::select(PHASES.to_vec()), code, prop::bool::weighted(0.2))
            .prop_map(|(phase, code, foreign)| Happening::Report(phase, code, foreign)),
        2 => prop::sample::select(vec!["0.9.0", "1.0.0", "1.10.0", "odd"]).prop_map(Happening::Runs),
        1 => verdict.prop_map(Happening::Verdict),
        1 => start.prop_map(Happening::Start),
    ]
}

fn is_for_tokens(path: &str) -> bool {
    path == REFRESH || path == SIGN_IN
}

/// A device with honest timers, and what is under way.
struct Device {
    bench: Bench<Withnox>,
    /// Milliseconds since the beginning; nothing resets it.
    clock: u64,
    due: BTreeMap<String, u64>,
    /// Tags and paths of the requests under way.
    open: Vec<(String, String)>,
    /// Those that were given up for lost; their answers may come all the same.
    lost: Vec<(String, String)>,
    plan: Option<JobPlan>,
    signed_in: Option<u64>,
    /// When it was asked for newer firmware last, by a timer.
    polled: Option<u64>,
}

impl Device {
    fn new() -> Self {
        let mut device = Device {
            bench: bench(),
            clock: 0,
            due: BTreeMap::new(),
            open: Vec::new(),
            lost: Vec::new(),
            plan: None,
            signed_in: None,
            polled: None,
        };
        let effects = device.bench.start(StartReason::Installed).unwrap();
        device.take(effects, true);
        device
    }

    fn take(&mut self, effects: Vec<Effect>, by_timer: bool) {
        let requests = fetched(&effects);
        assert!(requests.len() <= 2, "{effects:?}");
        assert!(
            alerts(&effects).len() <= 2 && started(&effects).len() <= 1,
            "{effects:?}"
        );
        for timer in timers(&effects) {
            self.due
                .insert(timer.name.clone(), self.clock + timer.after);
        }
        for effect in &effects {
            if let Effect::CancelTimer(name) = effect {
                self.due.remove(name);
            }
        }
        for request in requests {
            if request.path == SIGN_IN
                && let Some(last) = self.signed_in.replace(self.clock)
            {
                assert!(
                    self.clock - last >= HOUR,
                    "signed in again after {} ms",
                    self.clock - last
                );
            }
            if is_for_tokens(&request.path) {
                let other = self.open.iter().find(|(_, path)| is_for_tokens(path));
                assert!(other.is_none(), "{} beside {other:?}", request.path);
            }
            if request.path == LATEST
                && by_timer
                && let Some(last) = self.polled.replace(self.clock)
            {
                assert!(
                    self.clock - last >= MINUTE,
                    "polled after {} ms",
                    self.clock - last
                );
            }
            self.open.push((request.tag.clone(), request.path.clone()));
        }
        if let Some(plan) = started(&effects).first() {
            self.plan = Some((*plan).clone());
            self.bench.set_job(report(plan, Phase::Queued));
        }
        assert!(self.bench.state().len() < 8_000);
        assert!(
            self.due.contains_key("poll"),
            "nothing brings the next poll"
        );
    }

    fn pass(&mut self, milliseconds: u64) {
        self.clock += milliseconds;
        self.bench.advance(milliseconds);
    }

    /// Lets the next timer fire when its time has come.
    fn next_timer(&mut self) {
        let Some((name, due)) = self
            .due
            .iter()
            .min_by_key(|(_, due)| **due)
            .map(|(name, due)| (name.clone(), *due))
        else {
            return;
        };
        self.due.remove(&name);
        self.pass(due.saturating_sub(self.clock));
        if name == "auth" {
            let (lost, open) = std::mem::take(&mut self.open)
                .into_iter()
                .partition(|(_, path)| is_for_tokens(path));
            self.open = open;
            self.lost.extend::<Vec<_>>(lost);
        }
        let effects = self.bench.timer(&name).unwrap();
        if name == "poll" && effects.is_empty() {
            panic!("a poll that comes to nothing sets no timer");
        }
        self.take(effects, name == "poll");
    }

    fn end(&mut self, at: usize, outcome: FetchResult) {
        let (tag, _) = self.open.remove(at);
        let effects = self.bench.outcome(&tag, outcome).unwrap();
        self.take(effects, false);
    }

    fn happens(&mut self, happening: Happening) {
        match happening {
            Happening::Outcome(which, outcome) => {
                if let Some((tag, _)) = self.lost.pop() {
                    let late = self.bench.outcome(&tag, outcome.clone()).unwrap();
                    assert!(late.is_empty(), "{late:?}");
                }
                if !self.open.is_empty() {
                    self.end(which % self.open.len(), outcome);
                }
            }
            Happening::Timer => self.next_timer(),
            Happening::Pass(ms) => {
                let next = self
                    .due
                    .values()
                    .min()
                    .map_or(ms, |due| due.saturating_sub(self.clock));
                self.pass(ms.min(next));
            }
            Happening::Attempt(attempt, http, body) => {
                let key = self
                    .plan
                    .as_ref()
                    .map_or("withnox/7", |p| p.key.as_str())
                    .to_owned();
                let effects = self
                    .bench
                    .attempt_failed(&key, attempt, http, body, "why")
                    .unwrap();
                self.take(effects, false);
            }
            Happening::Report(phase, code, foreign) => {
                let Some(plan) = self.plan.clone() else {
                    return;
                };
                let mut standing = report(&plan, phase);
                standing.reason = Some(Reason::new(code, "verify", "why"));
                if foreign {
                    standing.foreign = true;
                    standing.key = "operator/1".into();
                    standing.context = Vec::new();
                }
                let effects = self.bench.report(standing).unwrap();
                self.take(effects, false);
            }
            Happening::Runs(version) => {
                self.bench.world.targets[0].version = Some(version.into());
                let effects = self.bench.send(Event::Target("cam".into())).unwrap();
                self.take(effects, false);
            }
            Happening::Verdict(verdict) => self.bench.world.verdict = verdict,
            Happening::Start(reason) => {
                let effects = self.bench.start(reason).unwrap();
                self.take(effects, false);
            }
        }
    }

    /// The cloud as it should be, for two days.
    fn recovers(&mut self) {
        self.bench.world.jobs.clear();
        self.bench.world.verdict = Verdict::Allow;
        self.bench.world.targets[0].version = Some("9.0.0".into());
        self.happens(Happening::Start(StartReason::Restarted));
        let end = self.clock + 48 * HOUR;
        for _ in 0..500 {
            while !self.open.is_empty() {
                let (_, path) = &self.open[0];
                let body = match path.as_str() {
                    LATEST => json!([]),
                    REFRESH | SIGN_IN => tokens(),
                    report => {
                        let firmware: u64 = report.split('/').nth(7).unwrap().parse().unwrap();
                        device(firmware)
                    }
                };
                self.end(
                    0,
                    FetchResult::Answered(HttpResponse::with_json(200, &body)),
                );
            }
            if self.clock > end {
                break;
            }
            self.next_timer();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 384, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_there_is_no_loop_and_a_way_back(
        happenings in prop::collection::vec(any_happening(), 1..120)
    ) {
        let mut device = Device::new();
        for happening in happenings {
            device.happens(happening);
        }
        device.recovers();
        prop_assert_eq!(status(&device.bench), "up-to-date");
    }

    #[test]
    fn any_value_in_any_place_of_a_list_is_survived(
        value in prop_oneof![
            Just(Value::Null), any::<bool>().prop_map(Value::from), any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from), any::<f64>().prop_map(Value::from), ".{0,80}".prop_map(Value::from),
            Just(json!([])), Just(json!({})),
        ],
        place in prop::sample::select(vec![
            "", "/0", "/0/id", "/0/firmware_id", "/0/hardware_id", "/0/firmware", "/0/firmware/version",
            "/0/firmware/is_active", "/0/firmware/name", "/0/firmware/id", "/0/hardware",
        ]),
        hardware in any::<bool>(),
    ) {
        let mut config = config();
        if hardware {
            config["hardware_id"] = json!(3);
        }
        let mut bench = bench_with(&config);
        let request = crate::cloud::poll(&mut bench);
        let mut page: Value = serde_json::from_str(PAGE).unwrap();
        *page.pointer_mut(place).unwrap() = value;
        let effects = bench.answered(&request.tag, 200, &page).unwrap();
        prop_assert!(started(&effects).len() <= 1);
        prop_assert!(crate::cloud::wait(&effects, "poll").unwrap() >= MINUTE);
    }

    #[test]
    fn any_bytes_as_an_answer_to_anything_are_survived(
        status in any::<u16>(),
        body in prop::collection::vec(any::<u8>(), 0..200),
        tag in "(poll|report|refresh|sign-in)/[0-9]{1,3}|.{0,20}",
    ) {
        let mut bench = bench();
        crate::cloud::poll(&mut bench);
        let answer = HttpResponse { body, ..HttpResponse::status(status) };
        prop_assert!(bench.outcome(&tag, FetchResult::Answered(answer)).is_ok());
    }

    #[test]
    fn any_body_of_a_failed_attempt_is_answered_at_most_once(
        status in any::<u16>(),
        body in prop::collection::vec(any::<u8>(), 0..200),
        reason in ".{0,40}",
        attempt in any::<u32>(),
    ) {
        let mut bench = bench();
        let effects = bench.attempt_failed("withnox/7", attempt, status, body, &reason).unwrap();
        prop_assert!(otahost_adapter::bench::retries(&effects).len() <= 1);
        prop_assert!(fetched(&effects).len() <= 1);
    }
}
