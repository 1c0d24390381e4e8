//! An agent that dies again and again soon after its start still confirms, rolls back and answers: safe mode (DESIGN §6).
#![allow(clippy::unwrap_used, reason = "tests")]

use otahost_e2e::device::{Device, eventually};
use serde_json::Value;

/// The agent's status, once it answers.
fn status(device: &Device) -> Value {
    let mut answer = Value::Null;
    eventually("the agent answers", || {
        let said = device.cli(&["status", "--json"]).end();
        answer = serde_json::from_str(&said.out).unwrap_or_default();
        said.code() == Some(0)
    });
    answer
}

/// Adapters that run.
fn adapters(status: &Value) -> usize {
    let runs = |adapter: &&Value| adapter["health"] == "running";
    let all = status["adapters"].as_array();
    all.map_or(0, |all| all.iter().filter(runs).count())
}

#[test]
fn three_quick_crashes_lead_to_safe_mode_and_a_boot_ends_it() {
    let device = Device::online();
    for crash in 1..=3 {
        let now = status(&device);
        assert_eq!(
            (adapters(&now), &now["safe_mode"]),
            (1, &Value::Bool(false)),
            "before crash {crash}"
        );
        device.machine.kill_agent().unwrap();
        device.machine.start_agent().unwrap();
    }
    let safe = status(&device);
    assert_eq!(
        (adapters(&safe), &safe["safe_mode"]),
        (0, &Value::Bool(true)),
        "{safe}"
    );

    device.machine.lose_power();
    device.machine.power_on().unwrap();
    let now = status(&device);
    assert_eq!(
        (adapters(&now), &now["safe_mode"]),
        (1, &Value::Bool(false)),
        "{now}"
    );
}
