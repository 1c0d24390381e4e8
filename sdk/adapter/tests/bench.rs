//! What the bench promises: the rules of the host, nothing by itself.

#![allow(clippy::unwrap_used, reason = "tests")]

use otahost_adapter::bench::{Bench, World, published, report, started, target, timers};
use otahost_adapter::effects::{
    alert, fetch, list_directory, publish, respond, start_job, timer, timer_every,
};
use otahost_adapter::{
    Adapter, ArtifactSource, CallNeed, Description, Effect, Event, Extension, HttpResponse,
    Install, JobPlan, Level, Phase, Requirements, RouteNeed, StartReason, TopicNeeds, Verdict,
    View, register, uuid,
};
use serde::{Deserialize, Serialize};

/// Answers a timer with effects that the test chose: an adapter that can be made to ask for anything.
struct Puppet;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct State {
    steps: u32,
    #[serde(skip)]
    in_memory: u32,
    text: String,
}

thread_local! {
    static EFFECTS: std::cell::RefCell<Vec<Effect>> = const { std::cell::RefCell::new(Vec::new()) };
}

register!(Puppet);

impl Adapter for Puppet {
    type Config = Config;
    type State = State;

    fn describe() -> Description {
        Description {
            protocol: "puppet".into(),
            version: "0.0.0".into(),
            config_schema: "{}".into(),
            state_version: 3,
        }
    }

    fn requirements(_: &Config) -> Result<Requirements, Vec<String>> {
        Ok(Requirements {
            topics: vec![TopicNeeds {
                link: "cloud".into(),
                subscribe: vec!["in/+".into()],
                publish: vec!["out/#".into()],
            }],
            routes: vec![RouteNeed {
                link: "http".into(),
                method: "POST".into(),
                path: "/u".into(),
                max_body: 1000,
            }],
            calls: vec![CallNeed {
                link: "api".into(),
                method: "GET".into(),
                path: "/d/*/f".into(),
                secrets: vec![],
            }],
            sources: vec!["files".into()],
            downloads: vec![],
            targets: vec!["dock".into()],
        })
    }

    fn handle(
        state: &mut State,
        event: Event,
        _: &Config,
        view: &dyn View,
    ) -> Result<Vec<Effect>, String> {
        state.steps += 1;
        state.in_memory += 1;
        match event {
            Event::Timer(name) if name == "refuse" => Err("refused".into()),
            Event::Timer(name) if name == "grow" => {
                state.text = "x".repeat(60_000);
                Ok(vec![])
            }
            Event::Timer(name) if name == "memory" => {
                view.log(Level::Info, &state.in_memory.to_string());
                Ok(vec![])
            }
            Event::Timer(name) if name == "ids" => {
                view.log(Level::Info, &uuid(view));
                view.log(Level::Info, &uuid(view));
                Ok(vec![])
            }
            Event::Timer(_) => Ok(EFFECTS.with_borrow(Clone::clone)),
            Event::Started(_) => {
                view.log(
                    Level::Info,
                    &format!("{} {} {}", view.now(), view.uptime(), view.boot_id()),
                );
                Ok(vec![])
            }
            _ => Ok(vec![]),
        }
    }
}

fn bench() -> Bench<Puppet> {
    Bench::new("{}").unwrap()
}

fn ask(effects: Vec<Effect>) -> Result<Vec<Effect>, String> {
    EFFECTS.set(effects);
    bench().timer("effects")
}

fn plan() -> JobPlan {
    let url = ArtifactSource::Url("https://files.example/x".into());
    start_job("k").install(Install::new("dock", "2", url))
}

#[test]
fn the_state_goes_through_json_at_every_event_and_stays_after_a_refusal() {
    let mut bench = bench();
    assert!(bench.state().is_empty());
    bench.timer("memory").unwrap();
    bench.timer("memory").unwrap();
    // What is not in the JSON is gone at the next event, as on a device.
    assert_eq!(
        bench
            .log()
            .iter()
            .map(|(_, line)| line.as_str())
            .collect::<Vec<_>>(),
        ["1", "1"]
    );
    assert_eq!(bench.read_state().unwrap().steps, 2);
    assert_eq!(bench.timer("refuse").unwrap_err(), "refused");
    assert!(
        bench
            .timer("grow")
            .unwrap_err()
            .contains("the limit is 60000")
    );
    assert_eq!(bench.read_state().unwrap().steps, 2);
}

#[test]
fn a_state_that_cannot_be_read_is_an_error_that_names_it() {
    let mut bench = bench();
    bench.set_state("{\"steps\":\"many\"}");
    let error = bench.timer("x").unwrap_err();
    assert!(
        error.contains("the stored state (16 bytes) cannot be read"),
        "{error}"
    );
}

#[test]
fn every_effect_within_the_requirements_is_let_through_in_order() {
    let effects = vec![
        publish("cloud", "out/a/b").json(&1).durable(),
        respond("boot/1", HttpResponse::with_json(200, &"ok")),
        fetch("t", "api", "GET", "/d/17/f?x=1").safe(),
        list_directory("l", "files", "/"),
        plan().context(&"ids").when_told().start(),
        start_job("k2")
            .install(Install::new(
                "dock",
                "2",
                ArtifactSource::on_link("files", "/x"),
            ))
            .start(),
        timer("t", 100),
        timer_every("e", 100, 1_000),
        alert(Level::Warn, "c", "text"),
    ];
    let given = ask(effects.clone()).unwrap();
    assert_eq!(given, effects);
    assert_eq!(
        (
            published(&given).len(),
            started(&given).len(),
            timers(&given).len()
        ),
        (1, 2, 2)
    );
}

#[test]
fn an_effect_outside_the_requirements_is_undeclared() {
    let elsewhere = Install::new(
        "drone",
        "2",
        ArtifactSource::Url("https://files.example/x".into()),
    );
    for (effect, what) in [
        (
            publish("cloud", "elsewhere").durable(),
            "publishing to elsewhere on link cloud",
        ),
        (
            publish("other", "out/a").durable(),
            "publishing to out/a on link other",
        ),
        (
            fetch("t", "api", "POST", "/d/17/f").once(),
            "the request POST /d/17/f",
        ),
        (
            fetch("t", "api", "GET", "/d/17/x/f").once(),
            "the request GET /d/17/x/f",
        ),
        (list_directory("l", "api", "/"), "files of link api"),
        (
            start_job("k").install(elsewhere).start(),
            "an update of target drone",
        ),
        (
            start_job("k")
                .install(Install::new(
                    "dock",
                    "2",
                    ArtifactSource::on_link("api", "/x"),
                ))
                .start(),
            "files of link api",
        ),
    ] {
        let error = ask(vec![effect]).unwrap_err();
        assert!(
            error.contains("undeclared effect") && error.contains(what),
            "{error}"
        );
    }
}

#[test]
fn an_effect_beyond_a_limit_discards_the_step() {
    let long = "x".repeat(201);
    let install = || {
        Install::new(
            "dock",
            "2",
            ArtifactSource::Url("https://files.example/x".into()),
        )
    };
    for (effect, what) in [
        (
            publish("cloud", "out/+").durable(),
            "no topic to publish to",
        ),
        (
            publish("cloud", "out/a")
                .payload(vec![0; 262_145])
                .durable(),
            "the limit is 262144",
        ),
        (publish("cloud", "out/a").latest(""), "1 to 200 bytes"),
        (timer("t", 99), "100 ms to 400 days"),
        (timer_every("t", 100, 999), "1,000 ms to 400 days"),
        (timer(&long, 100), "1 to 200 bytes"),
        (timer("a\nb", 100), "control characters"),
        (start_job("k").start(), "0 installs"),
        (
            start_job("k").install(install()).install(install()).start(),
            "target dock twice",
        ),
        (
            start_job("k").install(install().md5("abc")).start(),
            "no digest",
        ),
        (
            plan().context(&"x".repeat(4096)).start(),
            "the limit is 4096",
        ),
        (
            fetch("t", "api", "GET", "/d/1/f").timeout(120_001).safe(),
            "the limit is 120,000",
        ),
        (
            fetch("t", "api", "GET", "/d/1/f").redirects(6).safe(),
            "the limit is 5",
        ),
        (
            Effect::Extension(Extension {
                name: "x".into(),
                data: "{}".into(),
            }),
            "none that `features` lists",
        ),
    ] {
        let error = ask(vec![effect]).unwrap_err();
        assert!(error.contains(what), "{what}: {error}");
    }
    let many = vec![timer("t", 100); 257];
    assert!(ask(many).unwrap_err().contains("257 effects"));
    assert!(ask(vec![timer("t", 100); 256]).is_ok());
    assert!(
        ask(vec![
            publish("cloud", "out/a")
                .payload(vec![0; 262_144])
                .durable();
            4
        ])
        .unwrap_err()
        .contains("in all")
    );
}

#[test]
fn time_moves_only_when_the_test_says_so_and_a_reboot_begins_it_anew() {
    let mut bench = bench();
    bench.start(StartReason::Installed).unwrap();
    bench.advance(5_000);
    bench.start(StartReason::Restarted).unwrap();
    bench.reboot("boot-2", 900);
    bench.start(StartReason::Booted).unwrap();
    let lines: Vec<&str> = bench.log().iter().map(|(_, line)| line.as_str()).collect();
    assert_eq!(
        lines,
        [
            "1767225600000 60000 boot-1",
            "1767225605000 65000 boot-1",
            "1767225605000 900 boot-2"
        ]
    );
}

#[test]
fn ids_differ_within_a_step_and_between_steps_and_a_second_bench_draws_the_same() {
    let draw = || {
        let mut bench = bench();
        bench.timer("ids").unwrap();
        bench.timer("ids").unwrap();
        bench
            .log()
            .iter()
            .map(|(_, line)| line.clone())
            .collect::<Vec<_>>()
    };
    let ids = draw();
    let distinct: std::collections::BTreeSet<&String> = ids.iter().collect();
    assert_eq!(distinct.len(), 4, "{ids:?}");
    assert_eq!(ids, draw());
}

#[test]
fn a_message_arrives_only_where_a_subscription_covers_it() {
    let mut bench = bench();
    bench.message("cloud", "in/a", &1).unwrap();
    assert!(
        bench
            .message("cloud", "in/a/b", &1)
            .unwrap_err()
            .contains("subscribes to nothing")
    );
    assert!(bench.message("other", "in/a", &1).is_err());
}

#[test]
fn the_world_answers_with_the_jobs_that_the_test_put_there() {
    struct Asker;
    impl Adapter for Asker {
        type Config = Config;
        type State = ();
        fn describe() -> Description {
            Puppet::describe()
        }
        fn requirements(config: &Config) -> Result<Requirements, Vec<String>> {
            Puppet::requirements(config)
        }
        fn handle(
            _: &mut (),
            _: Event,
            _: &Config,
            view: &dyn View,
        ) -> Result<Vec<Effect>, String> {
            let phase = view.job("k").map(|job| job.phase.word());
            let other = start_job("other").install(plan().installs.remove(0));
            let line = format!(
                "{phase:?} {} {:?}",
                view.active_jobs().len(),
                view.check_job(&other)
            );
            view.log(Level::Info, &line);
            Ok(vec![])
        }
    }

    let world = World {
        targets: vec![target("dock", "1")],
        ..World::default()
    };
    let mut bench = Bench::<Asker>::in_world("{}", world).unwrap();
    bench.timer("ask").unwrap();
    bench.report(report(&plan(), Phase::Downloading)).unwrap();
    let mut foreign = report(&plan(), Phase::Installing);
    foreign.foreign = true;
    bench.report(report(&plan(), Phase::Succeeded)).unwrap();
    bench.report(foreign).unwrap();
    bench.world.jobs.clear();
    bench.world.verdict = Verdict::Defer(7);
    bench.timer("ask").unwrap();
    let lines: Vec<&str> = bench.log().iter().map(|(_, line)| line.as_str()).collect();
    assert_eq!(
        lines,
        [
            "None 0 Verdict::Allow",
            "Some(\"downloading\") 1 Verdict::Busy(\"k\")",
            "Some(\"succeeded\") 0 Verdict::Allow",
            "Some(\"succeeded\") 1 Verdict::Busy(\"-\")",
            "None 0 Verdict::Defer(7)",
        ]
    );
}

#[test]
fn a_wrong_configuration_never_comes_to_an_adapter() {
    let faults = Bench::<Puppet>::new(r#"{"a":1,"b":2}"#).unwrap_err();
    assert_eq!(faults.len(), 2, "{faults:?}");
}
