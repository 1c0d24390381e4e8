//! `otahost status`: how everything is, what is remembered of each target, and what can be done.

use super::hints::{clear, hints, refused, times};
use super::offers::offers;
use super::render::{jobs, lines, section};
use super::words::{clean, count, span, time};
use crate::api::{AdapterHealth, AdapterView, LinkView, StatusView, TargetView};

/// Digits of a digest that are enough for people to tell it.
const DIGITS: usize = 12;

/// The whole answer.
pub(super) fn status(status: &StatusView) -> String {
    let mut text = format!(
        "{}: otahost {}, running for {}, boot {}\n",
        clean(&status.device),
        clean(&status.version),
        span(status.uptime_ms),
        clean(&status.boot_id)
    );
    text.push_str(&section(
        "links",
        &status.links.iter().map(link).collect::<Vec<_>>(),
    ));
    text.push_str(&targets(&status.targets));
    text.push_str(&section(
        "adapters",
        &status.adapters.iter().map(adapter).collect::<Vec<_>>(),
    ));
    text.push_str(&offers(status));
    if status.jobs.is_empty() {
        text.push_str("jobs: none\n");
    } else {
        text.push_str("jobs\n");
        text.push_str(&jobs(&status.jobs));
    }
    let hints = hints(status);
    if !hints.is_empty() {
        text.push_str("to look at\n");
    }
    for hint in hints {
        text.push_str(&format!("  - {hint}\n"));
    }
    text
}

fn link(link: &LinkView) -> Vec<String> {
    let mut state = match (link.up, link.since) {
        _ if matches!(link.kind.as_str(), "http_client" | "ftps") => {
            "connects when there is something to do".to_owned()
        }
        (true, Some(since)) => format!("up since {}", time(since)),
        (true, None) => "up".to_owned(),
        (false, Some(since)) => format!("down since {}", time(since)),
        (false, None) => "down".to_owned(),
    };
    if link.waiting > 0 {
        state.push_str(&format!(
            ", {} waiting",
            many(link.waiting, "message", "messages")
        ));
    }
    vec![clean(&link.name), clean(&link.kind), state]
}

fn targets(targets: &[TargetView]) -> String {
    if targets.is_empty() {
        return "targets: none\n".into();
    }
    let rows: Vec<_> = targets.iter().map(target).collect();
    let mut text = String::from("targets\n");
    for (line, target) in lines(&rows).iter().zip(targets) {
        text.push_str(&format!("{line}\n"));
        for line in memory(target) {
            text.push_str(&format!("      {line}\n"));
        }
    }
    text
}

fn target(target: &TargetView) -> Vec<String> {
    let slots: Vec<_> = target
        .slots
        .iter()
        .map(|s| {
            format!(
                "{} {}{}",
                clean(&s.name),
                clean(&s.state),
                if s.running { " (runs)" } else { "" }
            )
        })
        .collect();
    vec![
        clean(&target.id),
        target
            .version
            .as_deref()
            .map_or_else(|| "version unknown".to_owned(), clean),
        clean(&target.health),
        slots.join(", "),
        target
            .busy
            .as_deref()
            .map_or_else(String::new, |key| format!("busy with {}", clean(key))),
    ]
}

/// What is remembered of a target; nothing of one that was never updated.
fn memory(target: &TargetView) -> Vec<String> {
    let memory = &target.memory;
    let mut lines = Vec::new();
    if let Some(failure) = &memory.last_failed {
        let reason = failure
            .reason
            .as_ref()
            .map(|r| format!(": {}", clean(&r.text)))
            .unwrap_or_default();
        lines.push(format!(
            "last failed: version {}, {} {}{reason}",
            clean(&failure.version),
            failure.phase,
            time(failure.at)
        ));
    }
    for bad in &memory.bad {
        let digits: String = clean(&bad.sha256).chars().take(DIGITS).collect();
        lines.push(format!(
            "known bad: version {} (sha256 {digits}…), rolled back {}, {}; `{}` allows it again",
            clean(&bad.version),
            times(bad.rollbacks),
            refused(bad),
            clear(target, bad)
        ));
    }
    if memory.activations > 0 {
        lines.push(format!(
            "activated {} in the last 24 h, {} allowed",
            times(memory.activations),
            memory.activations_allowed
        ));
    }
    if memory.rollback_index > 0 {
        lines.push(format!(
            "images with a rollback index below {} are refused",
            memory.rollback_index
        ));
    }
    lines
}

fn adapter(adapter: &AdapterView) -> Vec<String> {
    let mut health = match &adapter.health {
        AdapterHealth::Running => "running".to_owned(),
        AdapterHealth::Failing { .. } => "failing".to_owned(),
        AdapterHealth::SetAside { .. } => "set aside".to_owned(),
    };
    if adapter.inbox > 0 {
        let messages = many(adapter.inbox, "message waits", "messages wait");
        health.push_str(&format!(", {messages}"));
    }
    if adapter.dead_letters > 0 {
        health.push_str(&format!(
            ", {} set aside",
            many(adapter.dead_letters, "event", "events")
        ));
    }
    vec![
        clean(&adapter.name),
        format!("{} {}", clean(&adapter.protocol), clean(&adapter.version)),
        clean(&adapter.digest)
            .chars()
            .take("sha256:".len() + DIGITS)
            .collect(),
        health,
    ]
}

fn many(n: u64, one: &str, many: &str) -> String {
    count(usize::try_from(n).unwrap_or(usize::MAX), one, many)
}

#[cfg(test)]
mod tests {
    use otahost_core::model::Phase;

    use super::*;
    use crate::api::{BadImageView, MemoryView};
    use crate::cli::samples::{dock, down, failure, idle, job};

    #[test]
    fn the_status_shows_each_part_or_says_that_there_is_none() {
        let mut view = idle();
        assert_eq!(
            status(&view),
            "gw-7: otahost 0.1.0, running for 1 min 1 s, boot b\nlinks: none\ntargets: none\nadapters: none\njobs: none\n"
        );
        view.links.push(down());
        view.targets.push(TargetView {
            busy: Some("k1".into()),
            ..dock()
        });
        view.adapters.push(AdapterView {
            name: "dji".into(),
            protocol: "DJI".into(),
            version: "1".into(),
            digest: "sha256:0123456789abcdef0123".into(),
            loaded: "cached".into(),
            origin: None,
            waiting: Vec::new(),
            health: AdapterHealth::Running,
            dead_letters: 1,
            installed: false,
            strikes: None,
            previous: None,
            rejected: Vec::new(),
            fault: None,
            inbox: 0,
        });
        view.jobs.push(job(Phase::Downloading));
        assert_eq!(
            status(&view),
            "gw-7: otahost 0.1.0, running for 1 min 1 s, boot b\n\
             links\n  cloud  mqtt  down since 1970-01-01 00:00:00 UTC, 2 messages waiting\n\
             targets\n  dock  1.0  healthy  a good (runs), b bad  busy with k1\n\
             adapters\n  dji  DJI 1  sha256:0123456789ab  running, 1 event set aside\n\
             jobs\n  1970-01-01 00:00:00 UTC  k1  for dji  dock ? → 2.0  downloading  38 %\n      \
             downloading 12.3 of 64.0 MiB; then it is verified, read back and activated\n\
             to look at\n  \
             - link cloud is down: refused. It tries again by itself, and nothing that waits is lost; if it stays down, look at the network \
             and at `links.cloud` (url, username, password, ca)\n  \
             - adapter dji failed twice at 1 event, set aside. What they asked for was not done: have it asked for again, and show the log \
             to who made the adapter\n"
        );
    }

    #[test]
    fn a_target_shows_what_is_remembered_of_it() {
        let bad = |version: &str, rollbacks| BadImageView {
            sha256: "0123456789abcdef".into(),
            version: version.into(),
            rollbacks,
            refused_always: rollbacks > 1,
        };
        let memory = MemoryView {
            last_failed: Some(failure(Phase::RolledBack, "boot-failed", "it is dead")),
            bad: vec![bad("2.0", 1), bad("2.0 beta", 2)],
            activations: 1,
            activations_allowed: 4,
            activations_until: None,
            rollback_index: 7,
        };
        let text = targets(&[TargetView { memory, ..dock() }]);
        assert_eq!(
            text,
            "targets\n  dock  1.0  healthy  a good (runs), b bad\n      \
             last failed: version 2.0, rolled-back 2024-02-29 23:59:59 UTC: it is dead\n      \
             known bad: version 2.0 (sha256 0123456789ab…), rolled back once, refused to adapters that come to it by themselves; `otahost \
             clear dock 2.0` allows it again\n      \
             known bad: version 2.0 beta (sha256 0123456789ab…), rolled back 2 times, refused to every adapter; `otahost clear dock '2.0 \
             beta'` allows it again\n      \
             activated once in the last 24 h, 4 allowed\n      \
             images with a rollback index below 7 are refused\n"
        );
        assert_eq!(targets(&[dock()]).lines().count(), 2);
    }
}
