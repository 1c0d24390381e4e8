//! One step of each shipped adapter: a fresh instance, a real event in, effects out, on warm code: native, and beside it in the
//! interpreter. No engine and no disk.

use std::fs;
use std::sync::Arc;
use std::time::Instant;

use otahost_core::admit::{Judge, JudgedTarget};
use otahost_core::model::{
    ClockQuality, Event, Field, Health, InboundRequest, LinkState, Message, StartReason, Target,
};
use otahost_core::view::View;
use otahost_sandbox::{Adapter, Limits, Sandbox, Target as CodeTarget, precompile};
use serde_json::{Value, json};

use crate::Failed;
use crate::agent::{SERIAL, component};
use crate::code::signed;
use crate::stats::{doubling, median};
use crate::table::{Line, Sample};
use crate::unit::Unit;

/// Of §10 of the design, in seconds.
const BUDGET: f64 = 60e-6;

/// What one adapter is told.
struct Case {
    adapter: &'static str,
    what: String,
    config: Value,
    /// What it was told before.
    before: Vec<Event>,
    event: Event,
    /// Devices it sees.
    targets: Vec<Target>,
}

/// Measures it.
///
/// # Errors
/// When an adapter is not built, or does not take what it is told.
pub(crate) fn measure(quick: bool) -> Result<Vec<Line>, Failed> {
    let size = if quick {
        Size {
            rounds: 2,
            steps: 20,
        }
    } else {
        Size {
            rounds: 15,
            steps: 1_000,
        }
    };
    let sandbox = Sandbox::new(Limits::default())?;
    let mut lines = Vec::new();
    for case in [dji(), kit112(), withnox()] {
        eprintln!("  {}", case.adapter);
        lines.push(
            Loaded::new(&sandbox, &case)?
                .line(&case, size)?
                .at_most(BUDGET),
        );
    }
    eprintln!("  wudun");
    let case = wudun(10);
    let wudun_loaded = Loaded::new(&sandbox, &case)?;
    lines.push(wudun_loaded.line(&case, size)?.at_most(BUDGET));
    // Enough devices for the work to show beside what every step costs.
    let size = Size {
        steps: size.steps.min(200),
        ..size
    };
    let [few, many] = [wudun(100), wudun(200)];
    let few_took = median(&wudun_loaded.native(&few, size)?.values);
    let line = wudun_loaded.line(&many, size)?;
    let many_took = line
        .ours
        .as_ref()
        .map_or(f64::NAN, |ours| median(&ours.values));
    lines.push(line.doubled(doubling([100.0, 200.0], [few_took, many_took])));
    Ok(lines)
}

/// How often.
#[derive(Debug, Clone, Copy)]
struct Size {
    rounds: usize,
    steps: usize,
}

/// An adapter as native code and as code for the interpreter.
struct Loaded {
    native: Adapter,
    interpreted: Adapter,
}

impl Loaded {
    fn new(sandbox: &Sandbox, case: &Case) -> Result<Self, Failed> {
        let path = component(case.adapter);
        let bytes = fs::read(&path)
            .map_err(|e| format!("{}: {e}; `cargo xtask adapters` builds it", path.display()))?;
        let code = precompile(case.adapter, &bytes, CodeTarget::Pulley64)?;
        let (signature, signers) = signed(&code)?;
        Ok(Loaded {
            native: sandbox.load(case.adapter, &bytes)?,
            interpreted: sandbox
                .load_signed(case.adapter, &code, &signature, &signers)?
                .adapter,
        })
    }

    fn native(&self, case: &Case, size: Size) -> Result<Sample, Failed> {
        steps_of(&self.native, case, size)
    }

    fn line(&self, case: &Case, size: Size) -> Result<Line, Failed> {
        let native = self.native(case, size)?;
        // It takes its time, and its median is as steady with fewer.
        let fewer = Size {
            steps: (size.steps / 5).max(1),
            ..size
        };
        // Its fuel is the same, by the way both count it.
        let interpreted = Sample::new(steps_of(&self.interpreted, case, fewer)?.values);
        let what = format!("{}: {}", case.adapter, case.what);
        Ok(Line::value(what, Unit::Seconds, native).against("Pulley", Ok(interpreted)))
    }
}

/// The median time of one step, for each round.
fn steps_of(adapter: &Adapter, case: &Case, size: Size) -> Result<Sample, Failed> {
    let view = Arc::new(view(case));
    let mut state = Vec::new();
    for event in &case.before {
        let handled = adapter
            .handle(&view, &state, event)
            .map_err(|f| format!("{}: {:?}", case.adapter, f.kind))?;
        state = handled.result?.state;
    }
    let mut middles = Vec::new();
    let mut fuel = 0;
    // The first round warms up.
    for round in 0..=size.rounds {
        let mut times = Vec::with_capacity(size.steps);
        for _ in 0..size.steps {
            let start = Instant::now();
            let handled = adapter.handle(&view, &state, &case.event);
            times.push(start.elapsed().as_secs_f64());
            let handled = handled.map_err(|f| format!("{}: {:?}", case.adapter, f.kind))?;
            let effects = handled.result?.effects;
            if effects.is_empty() {
                return Err(format!("{} does nothing with its event", case.adapter).into());
            }
            fuel = handled.fuel;
        }
        if round > 0 {
            middles.push(median(&times));
        }
    }
    Ok(Sample::new(middles).beside("fuel", Unit::Count, vec![fuel as f64]))
}

fn view(case: &Case) -> View {
    let judged = case
        .targets
        .iter()
        .map(|target| (target.id.clone(), JudgedTarget::default()));
    View {
        now: 1_700_000_000_123,
        clock: ClockQuality::Synced,
        uptime: 5_000,
        boot_id: "boot".into(),
        seed: [7; 32],
        config: case.config.to_string(),
        features: vec![],
        targets: Arc::new(case.targets.clone()),
        jobs: vec![],
        judge: Judge {
            targets: Arc::new(judged.collect()),
            downloads: Some(vec!["http://192.168.1.1:9000/public/".into()]),
            ..Judge::of_nobody()
        },
    }
}

fn target(id: &str, attribute: &str, value: &str) -> Target {
    Target {
        id: id.into(),
        parent: None,
        version: Some("1.2.0.68".into()),
        health: Health::Healthy,
        observed: Some(1_700_000_000_000),
        attributes: vec![Field {
            name: attribute.into(),
            value: value.into(),
        }],
        busy: None,
    }
}

fn message(topic: String, payload: &str) -> Event {
    Event::Message(Message {
        link: "cloud".into(),
        topic,
        payload: payload.into(),
        duplicate: false,
        retained: false,
    })
}

fn started() -> Event {
    Event::Started(StartReason::Installed)
}

fn up(link: &str) -> Event {
    Event::Link(LinkState {
        link: link.into(),
        up: true,
        session_present: false,
        reason: String::new(),
    })
}

fn dji() -> Case {
    Case {
        adapter: "dji",
        what: "`ota_create` taken, its job started".to_owned(),
        config: json!({ "gateway_sn": SERIAL, "dialect": "autel" }),
        before: vec![started(), up("cloud")],
        event: message(
            format!("thing/product/{SERIAL}/services"),
            include_str!("../../../../plugins/dji/fixtures/autel_page_ota_create.json"),
        ),
        targets: vec![target("dock", "sn", SERIAL)],
    }
}

fn kit112() -> Case {
    Case {
        adapter: "kit112",
        what: "`GET /getDeviceInfo`, answered".to_owned(),
        config: json!({ "kit_id": "kit", "link": "calls" }),
        before: vec![started()],
        event: Event::Request(InboundRequest {
            id: "1".into(),
            link: "calls".into(),
            method: "GET".into(),
            path: "/getDeviceInfo".into(),
            query: vec![],
            headers: vec![],
            body: vec![],
            principal: "centre".into(),
            deadline: 1_700_000_030_000,
        }),
        targets: vec![target("kit", "sn", "1")],
    }
}

fn withnox() -> Case {
    Case {
        adapter: "withnox",
        what: "its first start, the cloud asked".to_owned(),
        config: json!({ "target": "cam", "device_id": 4, "user_id": 9 }),
        before: vec![],
        event: started(),
        targets: vec![target("cam", "sn", "1")],
    }
}

fn wudun(emus: usize) -> Case {
    let what = format!("`emu_version` of {emus} EMUs");
    let emus = (1..=emus).map(|n| target(&format!("emu-{n}"), "device_id", &n.to_string()));
    let command =
        include_str!("../../../../plugins/wudun/fixtures/wudun_2024_11_emu_version_command.json");
    Case {
        adapter: "wudun",
        what,
        config: json!({ "device_uid": "test", "tenant": "acme" }),
        before: vec![started()],
        event: message("v1/user/acme/test/ota/emu_version/command".into(), command),
        targets: emus.collect(),
    }
}
