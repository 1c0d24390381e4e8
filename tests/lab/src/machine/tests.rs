//! The machine with a shell script for an agent.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::proxy::wait_until;

const SOON: Duration = Duration::from_secs(30);

/// A machine whose agent is a shell script; `$2` is the configuration beside which the machine's files lie.
fn machine(dir: &Path, script: &str) -> Machine {
    let spec = MachineSpec {
        agent: ["/bin/sh", "-c", script, "agent"]
            .map(str::to_owned)
            .to_vec(),
        ..MachineSpec::dock("NM1", 1)
    };
    Machine::create(dir, spec, &Image::new("1.0", 2_000)).unwrap()
}

#[test]
fn a_machine_that_is_switched_on_runs_the_image_of_slot_a() {
    let dir = tempfile::tempdir().unwrap();
    let machine = machine(dir.path(), "exec sleep 600");
    machine.power_on().unwrap();
    assert_eq!(
        (
            machine.slot().unwrap().as_str(),
            machine.version().unwrap().as_str()
        ),
        ("a", "1.0")
    );
    assert!(
        fs::read_to_string(machine.layout().os_release())
            .unwrap()
            .contains("VERSION_ID=\"1.0\"\n")
    );
    assert!(matches!(machine.power_on(), Err(MachineError::State(_))));
}

#[test]
fn a_reboot_that_is_asked_for_starts_the_new_slot_under_a_new_boot_id() {
    let dir = tempfile::tempdir().unwrap();
    // Asks once, when it may: the second boot finds the mark.
    let machine = machine(
        dir.path(),
        "test -e asked || { until test -e go; do sleep 0.02; done; touch asked; cat boot-id > reboot-button; }; exec sleep 600",
    );
    Image::new("2.0", 3_000)
        .write(&machine.layout().slot("b"))
        .unwrap();
    let mut selector = machine.selector().unwrap();
    selector.primary = "b".to_owned();
    selector.slots.insert(
        "b".to_owned(),
        Slot {
            state: SlotState::Trial,
            tries: Some(3),
        },
    );
    selector.write(&machine.layout().selector()).unwrap();
    machine.power_on().unwrap();
    let first = fs::read_to_string(machine.layout().boot_id()).unwrap();
    fs::write(dir.path().join("go"), "").unwrap();
    machine.await_boots(2, SOON).unwrap();
    assert_eq!(
        (
            machine.slot().unwrap().as_str(),
            machine.version().unwrap().as_str()
        ),
        ("b", "2.0")
    );
    assert_eq!(
        machine
            .boots()
            .iter()
            .map(|boot| boot.why)
            .collect::<Vec<_>>(),
        [Why::PowerOn, Why::Reboot]
    );
    assert_ne!(
        first,
        fs::read_to_string(machine.layout().boot_id()).unwrap()
    );
    assert!(machine.crashes().is_empty());
}

#[test]
fn a_request_of_an_earlier_boot_reboots_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let machine = machine(dir.path(), "exec sleep 600");
    machine.power_on().unwrap();
    let own = fs::read_to_string(machine.layout().boot_id()).unwrap();
    fs::write(machine.layout().button(), format!("an earlier boot\n{own}")).unwrap();
    machine.await_boots(2, SOON).unwrap();
    // Once the machine is dropped, every request was looked at.
    let shared = Arc::clone(&machine.shared);
    drop(machine);
    assert_eq!(shared.state().boots.len(), 2);
}

#[test]
fn an_agent_that_ends_by_itself_is_a_crash_and_one_that_is_killed_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let machine = machine(
        dir.path(),
        "test -e mark && exec sleep 600; touch mark; exit 3",
    );
    machine.power_on().unwrap();
    machine
        .shared
        .wait(SOON, "the exit", |state| {
            (!state.exits.is_empty()).then_some(Ok(()))
        })
        .unwrap();
    assert_eq!(machine.crashes()[0].code(), Some(3));
    machine.start_agent().unwrap();
    machine.kill_agent().unwrap();
    machine.lose_power();
    assert_eq!((machine.crashes().len(), machine.boot_count()), (1, 1));
}

#[test]
fn what_the_agent_started_ends_with_its_boot() {
    let dir = tempfile::tempdir().unwrap();
    let machine = machine(
        dir.path(),
        "test -e child && exec sleep 600; sleep 600 & echo $! > child; cat boot-id > reboot-button; wait",
    );
    machine.power_on().unwrap();
    machine.await_boots(2, SOON).unwrap();
    let child = fs::read_to_string(dir.path().join("child")).unwrap();
    let stat = format!("/proc/{}/stat", child.trim());
    // Killed is not yet gone; and where nobody reaps orphans it stays as a zombie.
    let is_gone = || fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "));
    assert!(wait_until(SOON, is_gone), "process {child} still runs");
}

#[test]
fn in_an_image_without_agent_nothing_runs_but_what_the_timer_starts() {
    let dir = tempfile::tempdir().unwrap();
    // Whatever it is asked for, it marks that it ran.
    let spec = MachineSpec {
        agent: [
            "/bin/sh",
            "-c",
            "echo \"$3\" >> ran; cat boot-id > reboot-button",
            "agent",
        ]
        .map(str::to_owned)
        .to_vec(),
        ..MachineSpec::dock("NM1", 1)
    };
    let image = Image::new("1.0", 2_000).without_agent();
    let machine = Machine::create(dir.path(), spec, &image).unwrap();
    assert!(matches!(machine.run_deadman(), Err(MachineError::State(_))));
    machine.power_on().unwrap();
    machine.await_boots(1, SOON).unwrap();
    assert!(!machine.agent_runs() && matches!(machine.start_agent(), Err(MachineError::State(_))));
    assert!(machine.run_deadman().unwrap().status.success());
    machine.await_boots(2, SOON).unwrap();
    assert_eq!(
        fs::read_to_string(dir.path().join("ran")).unwrap(),
        "deadman\n"
    );
    assert!(machine.crashes().is_empty());
}
