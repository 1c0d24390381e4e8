//! What people hear of an update that leaves the kit unwell: a program that sends a short message, and a webhook of the operator's.

use std::fs;
use std::path::Path;

use otahost_e2e::device::eventually;
use otahost_e2e::kit::{DEVICE, Kit, NEW, OLD, PATIENCE, quoted};
use otahost_flash::slots::TRIES;
use otahost_lab::image::Image;
use otahost_lab::webhook::Webhook;
use serde_json::{Value, json};

use super::{MIB, strict};

const TOKEN: &str = "Lokum-77-Hook";

/// Both sinks. The program writes a line for each alert into `told`.
fn sinks(dir: &Path, told: &Path, hook: &Webhook) -> String {
    let token = dir.join("token");
    fs::write(&token, TOKEN).unwrap();
    let script = json!("printf '%s|%s|%s|%s\\n' \"$1\" \"$2\" \"$3\" \"$4\" >> \"$0\"");
    format!(
        "[alerts.sms]\ncommand = [\"/bin/sh\", \"-c\", {script}, {}]\n\n\
         [alerts.ops]\nwebhook = \"{}\"\ntoken = {{ file = {} }}\n",
        quoted(told),
        hook.url("/hook?kit=7"),
        quoted(&token),
    )
}

fn lines(told: &Path) -> Vec<String> {
    let text = fs::read_to_string(told).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn taken(hook: &Webhook) -> usize {
    let all = hook.deliveries();
    all.iter().filter(|delivery| delivery.status == 204).count()
}

#[test]
fn a_rolled_back_update_is_told_to_every_sink_once_over_a_kill_and_what_happens_again_is_merged() {
    let (server, mut spec) = strict();
    let (dir, hook) = (tempfile::tempdir().unwrap(), Webhook::start());
    let told = dir.path().join("told");
    spec.tables = sinks(dir.path(), &told, &hook);
    // The operator's own server is down.
    hook.answer(503);
    let kit = Kit::on(&spec);
    let dead = kit.release_image(&Image::new(NEW, MIB / 4).that_does_not_boot(), NEW);
    server.put(&dead.name, dead.bytes.clone());
    kit.update();
    kit.await_last_update("rolled-back");
    let failed = kit.machine.boots().iter().filter(|b| !b.came_up()).count();
    assert_eq!(failed, usize::from(TRIES));

    // One sink has taken it, the other one has not; that is durable, and the agent is killed.
    kit.await_log("an alert was taken", 1);
    kit.await_log("did not take an alert", 1);
    kit.settle();
    kit.machine.kill_agent().unwrap();
    assert_eq!(taken(&hook), 0);
    hook.answer(204);
    kit.machine.start_agent().unwrap();
    assert!(hook.wait_for(PATIENCE, |all| all.iter().any(|d| d.status == 204)));
    kit.await_log("an alert was taken", 2);

    let line = lines(&told);
    assert_eq!(line.len(), 1, "{line:?}");
    let parts: Vec<&str> = line[0].split('|').collect();
    assert_eq!(
        (parts[0], parts[1], parts[3]),
        ("warn", "update-rolled-back", DEVICE)
    );
    for word in ["34 XX 000", NEW, OLD] {
        assert!(parts[2].contains(word), "{parts:?}");
    }
    let delivery = hook.deliveries().pop().unwrap();
    assert_eq!(delivery.target, "/hook?kit=7");
    assert_eq!(delivery.authorization, Some(format!("Bearer {TOKEN}")));
    let body: Value = serde_json::from_slice(&delivery.body).unwrap();
    assert_eq!(
        (
            &body["device"],
            &body["source"],
            &body["code"],
            &body["level"]
        ),
        (
            &json!(DEVICE),
            &json!("kit112"),
            &json!("update-rolled-back"),
            &json!("warn")
        )
    );
    assert_eq!(body["text"], json!(parts[2]));

    // The same again: another roll-back within the hour. And nobody is told a second time, neither of it nor of the first.
    kit.await_version(OLD);
    kit.update();
    kit.await_log("alert: ", 2);
    kit.await_idle();
    kit.settle();
    kit.crash();
    kit.await_version(OLD);
    kit.settle();
    assert_eq!((lines(&told).len(), taken(&hook)), (1, 1));
    // An image that was rolled back twice is not offered a third time.
    kit.refused(404);
    kit.assert_well();
}

#[test]
fn a_kit_that_becomes_unwell_after_a_confirmed_update_raises_an_alert() {
    let (server, mut spec) = strict();
    let (dir, hook) = (tempfile::tempdir().unwrap(), Webhook::start());
    let (told, well) = (dir.path().join("told"), dir.path().join("well"));
    fs::write(&well, "").unwrap();
    spec.tables = sinks(dir.path(), &told, &hook);
    spec.target_lines = format!("probe = [\"/usr/bin/test\", \"-e\", {}]", quoted(&well));
    let kit = Kit::on(&spec);
    let release = kit.release(NEW, MIB / 4);
    server.put(&release.name, release.bytes.clone());
    kit.update();
    kit.assert_runs(NEW, "b");
    kit.await_last_update("succeeded");
    assert_eq!(lines(&told), Vec::<String>::new());

    // It is looked at now and then, also after the agent was started anew by a supervisor.
    fs::remove_file(&well).unwrap();
    kit.crash();
    eventually("a message to the owner", || !lines(&told).is_empty());
    assert!(hook.wait_for(PATIENCE, |all| !all.is_empty()));
    let line = lines(&told);
    assert!(
        line[0].starts_with("error|unwell-after-update|"),
        "{line:?}"
    );
    assert_eq!(kit.health()["health"], "unwell");
    assert_eq!(kit.centre.version().as_deref(), Some(NEW));
    kit.assert_well();
}
