//! An adapter that cannot run is set aside: it keeps nothing else from running, and nothing of it is lost. A version that brings the
//! whole agent down is left like one that traps. (DESIGN §1, §7.)
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;

use otahost_e2e::component;
use otahost_e2e::device::{Cli, Device, PATIENCE, Said, eventually};
use otahost_e2e::numbers::{FIRST, NEXT, Numbers};
use otahost_lab::broker::free_port;
use otahost_lab::image::Image;
use otahost_lab::machine::{Machine, MachineSpec};
use otahost_lab::mosquitto::Mosquitto;
use otahost_lab::peer::Peer;
use otahost_lab::signing::Publisher;
use serde_json::{Value, json};
use tempfile::TempDir;

/// What `otahost check` ends with when the configuration does not stand.
const CONFIGURATION: Option<i32> = Some(3);

/// A machine with two rogues: `kit` serves requests and listens to a broker, and `emu` as the test says.
struct Pair {
    machine: Machine,
    peer: Peer,
    web: u16,
    dir: TempDir,
    _broker: Mosquitto,
}

impl Pair {
    fn off(emu: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let broker = Mosquitto::start().unwrap();
        let web = free_port();
        for name in ["kit", "emu"] {
            fs::write(dir.path().join(format!("{name}.wasm")), component("rogue")).unwrap();
        }
        let place = |name: &str| Value::from(dir.path().join(name).display().to_string());
        let more = format!(
            r#"
[links.cloud]
kind = "mqtt"
url = "mqtt://127.0.0.1:{}"

[links.web]
kind = "http_server"
listen = "127.0.0.1:{web}"
anonymous = true

[adapters.kit]
component = {}
config = {{ link = "cloud", prefix = "kit", web = "web" }}
grants = {{ links.cloud = {{ subscribe = ["kit/do"], publish = ["kit/out"] }}, links.web.serve = ["POST /kit/do"] }}

[adapters.emu]
component = {}
{emu}
"#,
            broker.port(),
            place("kit.wasm"),
            place("emu.wasm"),
        );
        let home = dir.path().join("machine");
        fs::create_dir(&home).unwrap();
        let spec = MachineSpec {
            trust: vec![Publisher::generate().unwrap().public_key()],
            ..MachineSpec::bare("PAIR", "dock", &more)
        };
        Pair {
            machine: Machine::create(&home, spec, &Image::new("1.0.0", 4 * 1024)).unwrap(),
            peer: Peer::connect(broker.port(), "kit/out").unwrap(),
            web,
            dir,
            _broker: broker,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn cli(&self, arguments: &[&str]) -> Said {
        Cli::on(&self.machine, arguments).end()
    }

    /// Switches it on, or on again after a power cut, and waits until it listens.
    fn start(&self) {
        if self.machine.boot_count() > 0 {
            self.machine.lose_power();
        }
        self.machine.power_on().unwrap();
        eventually("the agent on its links", || {
            assert!(self.machine.agent_runs(), "{}", self.log());
            let status = self.status();
            let links = status["links"].as_array();
            links.is_some_and(|links| links.iter().all(|link| link["up"] == true))
        });
    }

    fn status(&self) -> Value {
        let said = self.machine.cli(&["status", "--json"]).unwrap();
        serde_json::from_slice(&said.stdout).unwrap_or_default()
    }

    fn adapter(&self, name: &str) -> Value {
        let status = self.status();
        let all = status["adapters"].as_array().cloned().unwrap_or_default();
        all.into_iter()
            .find(|adapter| adapter["name"] == name)
            .unwrap_or_default()
    }

    fn await_heard(&self, text: &str) {
        let heard = |heard: &[(String, Vec<u8>)]| heard.iter().any(|(_, p)| p == text.as_bytes());
        let there = self.peer.wait_for(PATIENCE, heard);
        assert!(there, "{text}: {:?}; {}", self.heard(), self.log());
    }

    /// What was published, without what was said twice.
    fn heard(&self) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        for (_, payload) in self.peer.heard() {
            let text = String::from_utf8(payload).unwrap();
            if !all.contains(&text) {
                all.push(text);
            }
        }
        all
    }

    /// The status of the answer to a request to `kit`.
    fn call(&self, command: &str) -> u16 {
        let mut stream = TcpStream::connect(("127.0.0.1", self.web)).unwrap();
        let length = command.len();
        let request = format!(
            "POST /kit/do HTTP/1.1\r\nhost: kit\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{command}"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap().parse().unwrap()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.machine.layout().log()).unwrap_or_default()
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the agent's log:\n{}", self.log());
        }
    }
}

/// Why an adapter is set aside; empty when it is not.
fn why(adapter: &Value) -> &str {
    adapter["health"]["set-aside"]["why"]
        .as_str()
        .unwrap_or_default()
}

#[test]
fn one_bad_adapter_file_keeps_neither_firmware_nor_another_adapter_from_running() {
    let device = Device::off("");
    let config = device.machine.layout().config();
    let bad = config.with_file_name("bad.wasm");
    fs::write(&bad, b"this is no component").unwrap();
    let more = format!(
        "\n[adapters.bad]\ncomponent = {}\n[adapters.gone]\ncomponent = \"/nowhere/gone.wasm\"\n",
        Value::from(bad.display().to_string())
    );
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text + &more).unwrap();

    device.switch_on();
    let said = device.cli(&["check"]).end();
    assert_eq!(said.code(), CONFIGURATION, "{said:?}");
    for word in [
        "adapters.bad.component",
        "adapters.gone.component",
        "/nowhere/gone.wasm",
    ] {
        assert!(said.err.contains(word), "{word}: {}", said.err);
    }

    let adapters = device.json(&["adapter", "list"]);
    assert!(why(&adapters[0]).contains("bad.wasm"), "{adapters}");
    assert_eq!(adapters[1]["health"], json!("running"), "{adapters}");
    assert!(why(&adapters[2]).contains("gone.wasm"), "{adapters}");
    let said = device.cli(&["status"]).end();
    assert!(
        said.out.contains("otahost adapter install bad FILE"),
        "{}",
        said.out
    );
    // The firmware is updated, rebooted into and confirmed as ever.
    let release = device.release("2.0.0", 64 * 1024);
    device.update(&device.order(&release));
    device.assert_runs("2.0.0", "b");
}

#[test]
fn what_comes_for_an_adapter_that_is_set_aside_waits_for_a_version_that_runs() {
    let pair = Pair::off("config = { link = \"cloud\", prefix = \"emu\" }");
    pair.start();
    pair.await_heard("started installed");
    pair.peer.say("kit/do", "count").unwrap();
    pair.await_heard("1");
    assert_eq!(pair.call("echo called"), 200);

    let component = pair.file("kit.wasm");
    let sound = fs::read(&component).unwrap();
    fs::write(&component, b"damaged").unwrap();
    pair.start();
    assert!(why(&pair.adapter("kit")).contains("kit.wasm"));
    assert_eq!(pair.adapter("kit")["version"], FIRST, "what ran last");
    pair.peer.say("kit/do", "count").unwrap();
    pair.peer.say("kit/do", "count").unwrap();
    eventually("both in the inbox", || pair.adapter("kit")["inbox"] == 2);
    assert_eq!(pair.call("count"), 503);

    // They wait over a power cut too.
    pair.start();
    assert_eq!(pair.adapter("kit")["inbox"], 2);
    let mended = pair.file("mended.wasm");
    fs::write(&mended, &sound).unwrap();
    let said = pair.cli(&["adapter", "install", "kit", mended.to_str().unwrap()]);
    assert!(said.status.success(), "{said:?}");
    pair.await_heard("3");
    assert_eq!(
        pair.heard(),
        [
            "started installed",
            "1",
            "called",
            "started booted",
            "2",
            "3"
        ]
    );
    assert_eq!(pair.call("count"), 200);

    // The version that was installed runs on, while the configured one is no better.
    pair.start();
    let kit = pair.adapter("kit");
    assert_eq!(
        (&kit["health"], &kit["installed"]),
        (&json!("running"), &json!(true)),
        "{kit}"
    );
    // And the configured one takes its place, once it is there in another form.
    let mut rebuilt = sound.clone();
    rebuilt.extend([0, 2, 1, b'x']);
    fs::write(&component, &rebuilt).unwrap();
    pair.start();
    let kit = pair.adapter("kit");
    assert_eq!(
        (&kit["health"], &kit["installed"]),
        (&json!("running"), &json!(false)),
        "{kit}"
    );
    pair.peer.say("kit/do", "count").unwrap();
    pair.await_heard("5");
}

#[test]
fn an_adapter_that_asks_for_more_than_is_granted_waits_for_the_operator() {
    let pair = Pair::off("config = { link = \"cloud\", prefix = \"emu\" }");
    pair.start();
    pair.await_heard("started installed");
    let emu = pair.adapter("emu");
    assert!(why(&emu).contains("grants.links.cloud"), "{emu}");

    let config = pair.machine.layout().config();
    let text = fs::read_to_string(&config).unwrap();
    let less = text.replace("publish = [\"kit/out\"]", "publish = []");
    assert_ne!(less, text);
    fs::write(&config, less).unwrap();
    pair.start();
    let kit = pair.adapter("kit");
    assert!(
        why(&kit).contains("\"kit/out\" to grants.links.cloud.publish"),
        "{kit}"
    );
    // What is still granted goes on for it: nothing that is said to it is lost.
    pair.peer.say("kit/do", "count").unwrap();
    eventually("it in the inbox", || pair.adapter("kit")["inbox"] == 1);
    fs::write(&config, text).unwrap();
    pair.start();
    pair.await_heard("1");
}

#[test]
fn no_two_adapters_serve_one_route_and_the_second_is_set_aside() {
    let pair = Pair::off(
        "config = { link = \"cloud\", prefix = \"kit\", web = \"web\" }\n\
         grants = { links.cloud = { subscribe = [\"kit/do\"], publish = [\"kit/out\"] }, links.web.serve = [\"POST /kit/do\"] }",
    );
    let taken = "POST /kit/do on link `web` is served by adapter `emu` already";
    pair.start();
    let said = pair.cli(&["check"]);
    assert_eq!(said.code(), CONFIGURATION, "{said:?}");
    assert!(said.err.contains(taken), "{}", said.err);
    assert_eq!(pair.adapter("emu")["health"], json!("running"));
    assert!(why(&pair.adapter("kit")).contains(taken));

    // A version that comes later is asked the same.
    let next = pair.file("next.wasm");
    fs::write(&next, component("rogue-next")).unwrap();
    let said = pair.cli(&["adapter", "install", "kit", next.to_str().unwrap()]);
    assert!(!said.status.success(), "{said:?}");
    assert!(said.err.contains(taken), "{}", said.err);
    assert!(said.err.contains("stays set aside"), "{}", said.err);
}

/// The one adapter of a device that answers.
fn the_adapter(device: &Numbers) -> Value {
    let mut status = Value::Null;
    eventually("the agent answers", || {
        status = device.status();
        !status["adapters"][0].is_null()
    });
    assert_eq!(status["safe_mode"], false, "{status}");
    status["adapters"][0].clone()
}

/// The agent's process ends, and its service starts it again.
fn crash(device: &Numbers) {
    device.machine.kill_agent().unwrap();
    device.machine.start_agent().unwrap();
}

/// On the next release, on probation, after some messages.
fn on_probation(broker: &Mosquitto) -> Numbers {
    let device = Numbers::off(broker.port());
    device.switch_on();
    device.say();
    device.await_answers(1);
    let said = device.install(&device.release("rogue-next", 0)).end();
    assert!(said.status.success(), "{said:?}");
    device.say();
    device.await_answers(2);
    assert_eq!(device.version(), NEXT);
    device
}

#[test]
fn a_version_on_probation_under_which_the_agent_ends_twice_is_left_before_safe_mode() {
    let broker = Mosquitto::start().unwrap();
    let device = on_probation(&broker);
    // A power cut is nobody's fault.
    device.machine.lose_power();
    device.machine.power_on().unwrap();
    assert_eq!(the_adapter(&device)["strikes"], 0);
    crash(&device);
    let adapter = the_adapter(&device);
    assert_eq!(
        (&adapter["strikes"], &adapter["version"]),
        (&json!(1), &json!(NEXT))
    );
    device.machine.lose_power();
    device.machine.power_on().unwrap();
    assert_eq!(
        the_adapter(&device)["strikes"],
        1,
        "and it is not forgotten"
    );
    crash(&device);
    let adapter = the_adapter(&device);
    assert_eq!(
        (&adapter["strikes"], &adapter["version"], &adapter["health"]),
        (&Value::Null, &json!(FIRST), &json!("running")),
        "{adapter}"
    );
    assert_eq!(adapter["rejected"].as_array().unwrap().len(), 1);
    // With the state it had, and it goes on.
    device.say();
    device.await_answers(3);
    assert_eq!(device.version(), FIRST);
}

#[test]
fn in_safe_mode_the_way_back_is_open() {
    let broker = Mosquitto::start().unwrap();
    let device = Numbers::off(broker.port());
    device.switch_on();
    // Two crashes that no new version has to do with.
    for _ in 0..2 {
        crash(&device);
        the_adapter(&device);
    }
    device.say();
    device.await_answers(1);
    let said = device.install(&device.release("rogue-next", 0)).end();
    assert!(said.status.success(), "{said:?}");
    crash(&device);
    let mut status = Value::Null;
    eventually("safe mode", || {
        status = device.status();
        status["safe_mode"] == true
    });
    let adapter = &status["adapters"][0];
    assert!(why(adapter).starts_with("safe mode"), "{adapter}");
    assert_eq!(
        (&adapter["version"], &adapter["previous"]),
        (&json!(NEXT), &json!(FIRST))
    );

    let said = device.install(&device.release("rogue-back", 0)).end();
    assert!(
        !said.status.success() && said.err.contains("safe mode"),
        "{said:?}"
    );
    let said = device
        .machine
        .cli(&["adapter", "rollback", "rogue"])
        .unwrap();
    assert!(said.status.success(), "{said:?}");
    assert_eq!(device.status()["adapters"][0]["version"], FIRST);
    let said = device
        .machine
        .cli(&["adapter", "rollback", "rogue"])
        .unwrap();
    assert!(!said.status.success(), "there is no other");

    device.machine.lose_power();
    device.machine.power_on().unwrap();
    assert_eq!(the_adapter(&device)["version"], FIRST);
    device.say();
    device.await_answers(2);
    assert_eq!(device.version(), FIRST);
    assert!(
        device
            .peer
            .heard()
            .iter()
            .any(|(_, text)| text == b"started rolled-back 0.2.0")
    );
}
