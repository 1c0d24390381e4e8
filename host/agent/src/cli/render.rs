//! Answers for people: tables and sentences.

use crate::api::{AdapterHealth, JobView, LinkView, StatusView, TargetView};
use crate::config::{Config, FlasherConfig, LinkConfig, TrustConfig};

use super::words::{bytes, clean, count, outlook, span, time};

/// Rows with columns as wide as they need, indented by two.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<_> = (0..columns)
        .map(|c| {
            rows.iter()
                .filter_map(|r| r.get(c))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::from(" ");
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!(" {cell:<width$} "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn section(title: &str, rows: &[Vec<String>]) -> String {
    if rows.is_empty() {
        format!("{title}: none\n")
    } else {
        format!("{title}\n{}", table(rows))
    }
}

/// What a sound configuration says.
pub(super) fn sound(config: &Config) -> String {
    let mut rows = Vec::new();
    for (name, LinkConfig::Mqtt(link)) in &config.links {
        rows.push(vec!["link".into(), name.clone(), link.url.clone()]);
    }
    for (name, target) in &config.targets {
        let FlasherConfig::Slots { slots, .. } = &target.flasher;
        let trust = match &target.trust {
            TrustConfig::Unsigned => "takes unsigned images".to_owned(),
            TrustConfig::Minisign { keys, .. } => {
                format!("trusts {}", count(keys.len(), "key", "keys"))
            }
        };
        rows.push(vec![
            "target".into(),
            name.clone(),
            format!("{} and {}, {trust}", slots[0].display(), slots[1].display()),
        ]);
    }
    for (name, adapter) in &config.adapters {
        rows.push(vec![
            "adapter".into(),
            name.clone(),
            adapter.component.display().to_string(),
        ]);
    }
    format!("{}: no faults\n{}", config.path.display(), table(&rows))
}

/// `otahost status`.
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
    text.push_str(&section(
        "targets",
        &status.targets.iter().map(target).collect::<Vec<_>>(),
    ));
    let adapters: Vec<_> = status
        .adapters
        .iter()
        .map(|a| {
            let health = match &a.health {
                AdapterHealth::Running => "running".to_owned(),
                AdapterHealth::Failing { last_failure } => {
                    format!("failing: {}", clean(last_failure))
                }
            };
            let digest: String = a.digest.chars().take(19).collect();
            let dead = if a.dead_letters == 0 {
                String::new()
            } else {
                count_set_aside(a.dead_letters)
            };
            vec![
                clean(&a.name),
                format!("{} {}", clean(&a.protocol), clean(&a.version)),
                clean(&digest),
                health + &dead,
            ]
        })
        .collect();
    text.push_str(&section("adapters", &adapters));
    text.push_str(&section(
        "jobs",
        &status.jobs.iter().map(job_row).collect::<Vec<_>>(),
    ));
    text
}

fn count_set_aside(n: u64) -> String {
    format!(
        ", {} set aside",
        count(usize::try_from(n).unwrap_or(usize::MAX), "event", "events")
    )
}

fn link(link: &LinkView) -> Vec<String> {
    let mut state = match (link.up, link.since) {
        (true, Some(since)) => format!("up since {}", time(since)),
        (true, None) => "up".to_owned(),
        (false, since) => {
            let since = since
                .map(|at| format!(" since {}", time(at)))
                .unwrap_or_default();
            let reason = if link.reason.is_empty() {
                String::new()
            } else {
                format!(": {}", clean(&link.reason))
            };
            format!("down{since}{reason}; it tries again by itself")
        }
    };
    if link.waiting > 0 {
        state.push_str(&format!(
            ", {} waiting",
            count(
                usize::try_from(link.waiting).unwrap_or(usize::MAX),
                "message",
                "messages"
            )
        ));
    }
    vec![clean(&link.name), clean(&link.kind), state]
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

/// `otahost jobs`.
pub(super) fn jobs(jobs: &[JobView]) -> String {
    if jobs.is_empty() {
        "no jobs\n".into()
    } else {
        table(&jobs.iter().map(job_row).collect::<Vec<_>>())
    }
}

fn job_row(job: &JobView) -> Vec<String> {
    let targets: Vec<_> = job
        .installs
        .iter()
        .map(|i| format!("{} → {}", clean(&i.target), clean(&i.new_version)))
        .collect();
    let percent = job.installs.iter().map(|i| i.percent).min().unwrap_or(0);
    let progress = if job.phase.is_final() {
        String::new()
    } else {
        format!("{percent} %")
    };
    vec![
        clean(&job.key),
        clean(&job.owner),
        targets.join(", "),
        job.phase.word().into(),
        progress,
        outlook(job),
    ]
}

/// `otahost jobs KEY`.
pub(super) fn job_details(jobs: &[JobView]) -> String {
    let mut text = String::new();
    for (i, job) in jobs.iter().enumerate() {
        if i > 0 {
            text.push('\n');
        }
        text.push_str(&format!(
            "{} of {}: {}\n",
            clean(&job.key),
            clean(&job.owner),
            job.phase.word()
        ));
        text.push_str(&format!("  {}\n", outlook(job)));
        if let Some(reason) = &job.reason {
            text.push_str(&format!(
                "  reason: {} at {}\n",
                clean(&reason.code),
                clean(&reason.stage)
            ));
        }
        text.push_str(&format!(
            "  asked for {}, last change {}\n",
            time(job.created),
            time(job.updated)
        ));
        for install in &job.installs {
            let from = install
                .old_version
                .as_deref()
                .map_or_else(|| "?".to_owned(), clean);
            let total = install.total.map_or_else(|| "?".to_owned(), bytes);
            let reason = install
                .reason
                .as_ref()
                .map(|r| format!(": {}", clean(&r.text)))
                .unwrap_or_default();
            text.push_str(&format!(
                "  {} {from} → {}: {} {} %, {} of {total} fetched{reason}\n",
                clean(&install.target),
                clean(&install.new_version),
                install.phase.word(),
                install.percent,
                bytes(install.received),
            ));
        }
        let history: Vec<_> = job
            .history
            .iter()
            .map(|h| vec![time(h.at), h.phase.word().to_owned(), clean(&h.text)])
            .collect();
        if !history.is_empty() {
            text.push_str(&table(&history));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use otahost_core::model::{ClockQuality, Phase, Reason};

    use super::*;
    use crate::api::{AdapterView, HistoryView, InstallView, SlotView};

    fn job(phase: Phase) -> JobView {
        JobView {
            id: "dji/1".into(),
            key: "k1".into(),
            owner: "dji".into(),
            phase,
            paused: false,
            created: 0,
            updated: 1_709_251_199_000,
            reason: Some(Reason::new("no-space", "stage", "the slot is too small")),
            until: None,
            rate: 0,
            installs: vec![InstallView {
                target: "dock".into(),
                phase,
                received: 1536,
                total: Some(64 << 20),
                percent: 38,
                old_version: None,
                new_version: "2.0".into(),
                reason: None,
            }],
            history: vec![HistoryView {
                at: 0,
                phase: Phase::Queued,
                text: "asked\u{1b}".into(),
            }],
        }
    }

    #[test]
    fn a_job_says_why_it_stands_and_what_comes_next() {
        assert_eq!(
            jobs(&[job(Phase::Downloading)]),
            "  k1  dji  dock → 2.0  downloading  38 %  is being fetched: the slot is too small; verified next\n"
        );
        assert_eq!(
            job_details(&[job(Phase::Failed)]),
            "k1 of dji: failed\n  failed: the slot is too small; what ran before still runs\n  reason: no-space at stage\n  \
             asked for 1970-01-01 00:00:00 UTC, last change 2024-02-29 23:59:59 UTC\n  \
             dock ? → 2.0: failed 38 %, 1.5 KiB of 64.0 MiB fetched\n  1970-01-01 00:00:00 UTC  queued  asked?\n"
        );
    }

    #[test]
    fn the_status_shows_each_part_or_says_that_there_is_none() {
        let mut view = StatusView {
            device: "gw-7".into(),
            version: "0.1.0".into(),
            uptime_ms: 61_000,
            boot_id: "b".into(),
            now: 0,
            clock: ClockQuality::Synced,
            links: vec![],
            targets: vec![],
            adapters: vec![],
            jobs: vec![],
        };
        assert_eq!(
            status(&view),
            "gw-7: otahost 0.1.0, running for 1 min 1 s, boot b\nlinks: none\ntargets: none\nadapters: none\njobs: none\n"
        );
        view.links.push(LinkView {
            name: "cloud".into(),
            kind: "mqtt".into(),
            up: false,
            since: Some(0),
            reason: "refused".into(),
            waiting: 2,
        });
        view.targets.push(TargetView {
            id: "dock".into(),
            version: Some("1.0".into()),
            health: "healthy".into(),
            observed: None,
            slots: vec![
                SlotView {
                    name: "a".into(),
                    state: "good".into(),
                    running: true,
                },
                SlotView {
                    name: "b".into(),
                    state: "bad".into(),
                    running: false,
                },
            ],
            busy: Some("k1".into()),
        });
        view.adapters.push(AdapterView {
            name: "dji".into(),
            protocol: "DJI".into(),
            version: "1".into(),
            digest: "sha256:0123456789abcdef0123".into(),
            health: AdapterHealth::Failing {
                last_failure: "trap".into(),
            },
            dead_letters: 1,
        });
        assert_eq!(
            status(&view),
            "gw-7: otahost 0.1.0, running for 1 min 1 s, boot b\n\
             links\n  cloud  mqtt  down since 1970-01-01 00:00:00 UTC: refused; it tries again by itself, 2 messages waiting\n\
             targets\n  dock  1.0  healthy  a good (runs), b bad  busy with k1\n\
             adapters\n  dji  DJI 1  sha256:0123456789ab  failing: trap, 1 event set aside\n\
             jobs: none\n"
        );
    }
}
