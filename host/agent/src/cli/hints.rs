//! What stands out in an agent's status, and what a person can do about it: one line for each.
//!
//! Status shows facts. Whoever comes to a device after a rollback has not read the documentation and wants to know what is wrong, what
//! ends by itself, and what to type.

use otahost_core::model::Phase;

use super::offers;
use super::words::{argument, clean, count, time};
use crate::api::{
    AdapterHealth, AdapterView, BadImageView, FailureView, LinkView, StatusView, TargetView,
};

/// One line for each thing that needs a person, or that a person should know before pulling the plug.
pub(super) fn hints(status: &StatusView) -> Vec<String> {
    let mut hints = Vec::new();
    if let Some(missing) = &status.journal.missing {
        hints.push(format!(
            "the journal cannot be used: {}. Until it can, no adapter runs and nothing new is begun; a version on trial is confirmed or \
             rolled back all the same. The agent tries again by itself",
            clean(missing)
        ));
    } else if status.safe_mode {
        hints.push(
            "safe mode, because the agent ended several times soon after its start: no adapter runs and no link connects. Look at the \
             log of the starts before; a restart after a minute, or a reboot, ends it. If a new version of an adapter may be to blame, \
             `otahost adapter rollback NAME` leaves it"
                .into(),
        );
    }
    if let Some(damage) = &status.journal.damaged {
        hints.push(format!(
            "the journal was damaged ({}): {} of its rows go on, and what else was in it is forgotten. Updates that were under way may \
             have to be asked for again, and an account may have to be logged in again. The damaged file is kept as `{}` in the data \
             directory; take it away when you have looked at it, and this line goes with the next start",
            clean(&damage.why),
            damage.rows,
            clean(&damage.kept)
        ));
    }
    for target in &status.targets {
        hints.extend(
            target
                .memory
                .last_failed
                .as_ref()
                .map(|f| failed(target, f)),
        );
        hints.extend(on_trial(target));
        hints.extend(unread(target));
        hints.extend(unwell(target));
        hints.extend(exhausted(target));
    }
    if !status.safe_mode {
        hints.extend(status.links.iter().filter(|link| !link.up).map(link_down));
    }
    // In safe mode all are set aside, and that was said.
    if !status.safe_mode {
        hints.extend(status.adapters.iter().filter_map(adapter));
    }
    hints.extend(status.adapters.iter().flat_map(offers::waits));
    hints.extend(offers::pending(status));
    hints.extend(status.repositories.iter().filter_map(offers::refused));
    hints
}

fn name(target: &TargetView) -> String {
    format!("`{}`", clean(&target.id))
}

fn failed(target: &TargetView, failure: &FailureView) -> String {
    let name = name(target);
    let version = clean(&failure.version);
    let reason = failure
        .reason
        .as_ref()
        .map(|r| format!(": {}", clean(&r.text)))
        .unwrap_or_default();
    let code = failure.reason.as_ref().map_or("", |r| r.code.as_str());
    let advice = match advice(code) {
        "" => String::new(),
        advice => format!(" {advice}."),
    };
    let runs = match &target.version {
        Some(version) => format!("Version {} runs", clean(version)),
        None => "What runs is not known".to_owned(),
    };
    let job = format!(
        "`otahost jobs {}` shows how it went",
        argument(&failure.job)
    );
    match failure.phase {
        Phase::RolledBack => format!(
            "{name}: version {version} was rolled back{reason}. {runs}; {job}.{advice} {}",
            allowed_again(target, failure)
        ),
        Phase::RollbackFailed => format!(
            "{name}: version {version} did not prove itself and the way back failed{reason}. {runs}; {job}. Look at the slots and at \
             `targets.{}.boot`, make the good slot the next to boot by hand, reboot, and install a version that works: `otahost \
             install FILE --target {}`",
            clean(&target.id),
            argument(&target.id)
        ),
        _ => format!(
            "{name}: the update to version {version} failed{reason}. What ran before still runs; {job}.{advice}"
        ),
    }
}

/// What has to happen so that another try makes sense.
fn advice(code: &str) -> &'static str {
    match code {
        "no-space" => "It needs a smaller image, or larger slots",
        "source-refused" | "source-lost" | "too-short" | "deadline" => {
            "Look whether the file is there and its server can be reached, then have it asked for again"
        }
        "size" | "too-long" | "digest" => {
            "The file is not the one that was announced: have it uploaded and announced again"
        }
        "unsigned" | "signature" => {
            "Have it signed (`otahost sign`) with a key that `trust.minisign` of the target names"
        }
        "compatible" => "It is made for another kind of device",
        "rollback-index" | "downgrade" => "It is older than what may run here",
        "flash" => "The medium may be failing: look at the kernel's log",
        "activate" => "Look at the boot selector (`boot` of the target)",
        "boot-failed" => "The image does not come up: look at the console of such a boot",
        "version-mismatch" => {
            "The image has to report exactly the version under which it is announced"
        }
        "probe-failed" => "Look at what `probe` of the target says in the new version",
        _ => "",
    }
}

/// Whether the image that was rolled back is tried again, and how.
fn allowed_again(target: &TargetView, failure: &FailureView) -> String {
    let known = target
        .memory
        .bad
        .iter()
        .rev()
        .find(|bad| Some(&bad.sha256) == failure.sha256.as_ref());
    match known {
        Some(bad) => format!(
            "This image is {}; publish a mended one, or `{}` allows it again",
            refused(bad),
            clear(target, bad)
        ),
        None => "Nothing stands against another try".into(),
    }
}

/// To whom an image is refused.
pub(super) fn refused(bad: &BadImageView) -> &'static str {
    if bad.refused_always {
        "refused to every adapter"
    } else {
        "refused to adapters that come to it by themselves"
    }
}

/// The command that allows an image again.
pub(super) fn clear(target: &TargetView, bad: &BadImageView) -> String {
    let image = if bad.version.is_empty() {
        &bad.sha256
    } else {
        &bad.version
    };
    format!("otahost clear {} {}", argument(&target.id), argument(image))
}

fn on_trial(target: &TargetView) -> Option<String> {
    // One that neither runs nor has tries left is not booted any more.
    let slot = target
        .slots
        .iter()
        .find(|s| s.state.starts_with("trial") && (s.running || s.state != "trial with 0 tries"))?;
    let (name, state) = (clean(&slot.name), clean(&slot.state));
    let target_name = self::name(target);
    let does = if slot.running {
        format!("slot {name} of {target_name} runs on {state}")
    } else {
        format!("slot {name} of {target_name} is the next to run, on {state}")
    };
    Some(match &target.busy {
        Some(key) => format!(
            "{does}: leave the power on, job {} confirms it or goes back by itself",
            clean(key)
        ),
        None => format!(
            "{does}, and no job of this agent watches over it: unless it is marked good with the boot selector, the device goes back to \
             the other slot (at the latest by the dead-man)"
        ),
    })
}

fn unread(target: &TargetView) -> Option<String> {
    if target.version.is_some() {
        return None;
    }
    let fault = target
        .version_fault
        .as_ref()
        .map(|fault| format!(": {}", clean(fault)))
        .unwrap_or_default();
    Some(format!(
        "{}: its version cannot be read{fault}. No update of it can prove itself; mend what `targets.{}.version` names",
        name(target),
        clean(&target.id)
    ))
}

fn unwell(target: &TargetView) -> Option<String> {
    let advice = match target.health.as_str() {
        "unwell" => {
            "its probe fails, and so an update of it would be rolled back; run what `probe` of the target names by hand"
        }
        "offline" => "it is offline; updates of it are refused",
        _ => return None,
    };
    Some(format!("{}: {advice}", name(target)))
}

fn exhausted(target: &TargetView) -> Option<String> {
    let until = target.memory.activations_until?;
    Some(format!(
        "{}: it was activated {} within a day, and its policy allows no more. The next one waits until {}; \
         `policy.activations_per_day` of the target says how many",
        name(target),
        times(target.memory.activations),
        time(until)
    ))
}

fn link_down(link: &LinkView) -> String {
    let reason = if link.reason.is_empty() {
        String::new()
    } else {
        format!(": {}", clean(&link.reason))
    };
    let name = clean(&link.name);
    format!(
        "link {name} is down{reason}. It tries again by itself, and nothing that waits is lost; if it stays down, look at the network and \
         at `links.{name}` (url, username, password, ca)"
    )
}

fn adapter(adapter: &AdapterView) -> Option<String> {
    let name = clean(&adapter.name);
    if let Some(fault) = &adapter.fault {
        return Some(format!(
            "adapter {name} runs version {} in place of what should run: {}. {}",
            clean(&adapter.version),
            clean(fault),
            mend(adapter)
        ));
    }
    let why = match &adapter.health {
        AdapterHealth::Running => String::new(),
        AdapterHealth::Failing { last_failure } => format!(": {}", clean(last_failure)),
        AdapterHealth::SetAside { why } => {
            return Some(format!(
                "adapter {name} is set aside: {}. Nothing of it is lost: its messages wait, and who calls it is told to come again. {}",
                clean(why),
                mend(adapter)
            ));
        }
    };
    if adapter.dead_letters > 0 {
        let events = count(
            usize::try_from(adapter.dead_letters).unwrap_or(usize::MAX),
            "event",
            "events",
        );
        Some(format!(
            "adapter {name} failed twice at {events}, set aside{why}. What they asked for was not done: have it asked for again, and \
             show the log to who made the adapter"
        ))
    } else if why.is_empty() {
        None
    } else {
        Some(format!(
            "adapter {name} fails{why}. Show the log to who made the adapter"
        ))
    }
}

/// What brings an adapter to run as it should.
fn mend(adapter: &AdapterView) -> String {
    format!(
        "Mend that (`otahost check` says where) and restart the agent, or give it a version that runs: `otahost adapter install {} FILE`",
        argument(&adapter.name)
    )
}

/// `once`, `2 times`.
pub(super) fn times(n: u32) -> String {
    match n {
        1 => "once".into(),
        n => format!("{n} times"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::MemoryView;
    use crate::cli::samples::{dock, down, failure, idle};

    fn with_target(target: TargetView) -> Vec<String> {
        let mut status = idle();
        status.targets.push(target);
        hints(&status)
    }

    fn dock_after(phase: Phase, code: &str, text: &str) -> TargetView {
        let memory = MemoryView {
            last_failed: Some(failure(phase, code, text)),
            ..MemoryView::default()
        };
        TargetView { memory, ..dock() }
    }

    fn bad(sha256: &str, version: &str, refused_always: bool) -> BadImageView {
        BadImageView {
            sha256: sha256.into(),
            version: version.into(),
            rollbacks: if refused_always { 2 } else { 1 },
            refused_always,
        }
    }

    #[test]
    fn what_is_well_needs_nobody() {
        let mut status = idle();
        assert_eq!(hints(&status), Vec::<String>::new());
        status.targets.push(TargetView {
            busy: Some("k1".into()),
            ..dock()
        });
        status.links.push(LinkView { up: true, ..down() });
        status.targets[0].slots[1].state = "trial with 0 tries".into();
        assert_eq!(hints(&status), Vec::<String>::new());
    }

    #[test]
    fn after_an_update_went_wrong_it_says_what_runs_and_what_to_do() {
        let rolled = || {
            dock_after(
                Phase::RolledBack,
                "probe-failed",
                "it is not well: busy\u{1b}",
            )
        };
        let mut known = rolled();
        let sha256 = "ab".repeat(32);
        known.memory.bad = vec![bad(&sha256, "2.0", false), bad("cd", "3.0", true)];
        let mut twice = rolled();
        twice.version = None;
        twice.version_fault = Some("no such file".into());
        twice.memory.bad = vec![bad(&sha256, "", true)];
        for (target, expected) in [
            (
                rolled(),
                "`dock`: version 2.0 was rolled back: it is not well: busy?. Version 1.0 runs; `otahost jobs k1` shows how it went. Look at \
                 what `probe` of the target says in the new version. Nothing stands against another try"
                    .to_owned(),
            ),
            (
                known,
                "`dock`: version 2.0 was rolled back: it is not well: busy?. Version 1.0 runs; `otahost jobs k1` shows how it went. Look at \
                 what `probe` of the target says in the new version. This image is refused to adapters that come to it by themselves; \
                 publish a mended one, or `otahost clear dock 2.0` allows it again"
                    .into(),
            ),
            (
                twice,
                format!(
                    "`dock`: version 2.0 was rolled back: it is not well: busy?. What runs is not known; `otahost jobs k1` shows how it \
                     went. Look at what `probe` of the target says in the new version. This image is refused to every adapter; publish a \
                     mended one, or `otahost clear dock {sha256}` allows it again"
                ),
            ),
            (
                dock_after(Phase::RollbackFailed, "activate", "the selector is locked"),
                "`dock`: version 2.0 did not prove itself and the way back failed: the selector is locked. Version 1.0 runs; `otahost jobs \
                 k1` shows how it went. Look at the slots and at `targets.dock.boot`, make the good slot the next to boot by hand, reboot, \
                 and install a version that works: `otahost install FILE --target dock`"
                    .into(),
            ),
            (
                dock_after(Phase::Failed, "digest", "the MD5 is wrong"),
                "`dock`: the update to version 2.0 failed: the MD5 is wrong. What ran before still runs; `otahost jobs k1` shows how it \
                 went. The file is not the one that was announced: have it uploaded and announced again."
                    .into(),
            ),
            (
                dock_after(Phase::Failed, "other", "x"),
                "`dock`: the update to version 2.0 failed: x. What ran before still runs; `otahost jobs k1` shows how it went.".into(),
            ),
        ] {
            assert_eq!(with_target(target)[0], expected);
        }
    }

    #[test]
    fn a_target_that_cannot_be_updated_as_it_is_says_why() {
        let trial = |running, busy: Option<&str>| {
            let mut target = dock();
            target.slots[1].state = "trial with 2 tries".into();
            target.slots[1].running = running;
            target.busy = busy.map(str::to_owned);
            target
        };
        let exhausted = MemoryView {
            activations: 4,
            activations_allowed: 4,
            activations_until: Some(1_709_251_199_000),
            ..MemoryView::default()
        };
        for (target, expected) in [
            (
                trial(true, Some("k1")),
                "slot b of `dock` runs on trial with 2 tries: leave the power on, job k1 confirms it or goes back by itself",
            ),
            (
                trial(false, Some("k1")),
                "slot b of `dock` is the next to run, on trial with 2 tries: leave the power on, job k1 confirms it or goes back by itself",
            ),
            (
                trial(true, None),
                "slot b of `dock` runs on trial with 2 tries, and no job of this agent watches over it: unless it is marked good with the \
                 boot selector, the device goes back to the other slot (at the latest by the dead-man)",
            ),
            (
                TargetView {
                    version: None,
                    version_fault: Some("no such file".into()),
                    ..dock()
                },
                "`dock`: its version cannot be read: no such file. No update of it can prove itself; mend what `targets.dock.version` names",
            ),
            (
                TargetView {
                    health: "unwell".into(),
                    ..dock()
                },
                "`dock`: its probe fails, and so an update of it would be rolled back; run what `probe` of the target names by hand",
            ),
            (
                TargetView {
                    memory: exhausted,
                    ..dock()
                },
                "`dock`: it was activated 4 times within a day, and its policy allows no more. The next one waits until 2024-02-29 23:59:59 \
                 UTC; `policy.activations_per_day` of the target says how many",
            ),
        ] {
            assert_eq!(with_target(target), [expected]);
        }
    }

    #[test]
    fn links_adapters_and_the_agent_itself_say_what_is_wrong_with_them() {
        let adapter = |failure: Option<&str>, dead_letters| AdapterView {
            name: "dji".into(),
            protocol: "DJI".into(),
            version: "1".into(),
            digest: String::new(),
            loaded: String::new(),
            origin: None,
            waiting: Vec::new(),
            health: failure.map_or(AdapterHealth::Running, |failure| AdapterHealth::Failing {
                last_failure: failure.into(),
            }),
            dead_letters,
            installed: false,
            strikes: None,
            previous: None,
            rejected: Vec::new(),
            fault: None,
            inbox: 0,
        };
        let mut status = idle();
        status.safe_mode = true;
        status.links.push(down());
        assert_eq!(
            hints(&status),
            [
                "safe mode, because the agent ended several times soon after its start: no adapter runs and no link connects. Look at the log \
                 of the starts before; a restart after a minute, or a reboot, ends it. If a new version of an adapter may be to blame, \
                 `otahost adapter rollback NAME` leaves it",
            ]
        );
        status.safe_mode = false;
        status.adapters = vec![
            adapter(None, 0),
            adapter(Some("trap"), 0),
            adapter(None, 1),
            adapter(Some("trap"), 3),
        ];
        assert_eq!(
            hints(&status),
            [
                "link cloud is down: refused. It tries again by itself, and nothing that waits is lost; if it stays down, look at the network \
                 and at `links.cloud` (url, username, password, ca)",
                "adapter dji fails: trap. Show the log to who made the adapter",
                "adapter dji failed twice at 1 event, set aside. What they asked for was not done: have it asked for again, and show the log \
                 to who made the adapter",
                "adapter dji failed twice at 3 events, set aside: trap. What they asked for was not done: have it asked for again, and show \
                 the log to who made the adapter",
            ]
        );
    }
}
