//! Answers for people: tables and sentences.

use otahost_core::model::Phase;

use super::outlook::outlook;
use super::words::{bytes, clean, count, part, time};
use crate::api::{InstallView, JobView};
use crate::config::{Config, FlasherConfig, LinkConfig, TrustConfig};

/// Rows with columns as wide as they need, indented by two.
pub(super) fn lines(rows: &[Vec<String>]) -> Vec<String> {
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
    rows.iter()
        .map(|row| {
            let mut line = String::from(" ");
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(&format!(" {cell:<width$} "));
            }
            line.truncate(line.trim_end().len());
            line
        })
        .collect()
}

fn table(rows: &[Vec<String>]) -> String {
    lines(rows).iter().map(|line| format!("{line}\n")).collect()
}

pub(super) fn section(title: &str, rows: &[Vec<String>]) -> String {
    if rows.is_empty() {
        format!("{title}: none\n")
    } else {
        format!("{title}\n{}", table(rows))
    }
}

/// What a sound configuration says.
pub(super) fn sound(config: &Config) -> String {
    let mut rows = Vec::new();
    for (name, link) in &config.links {
        let says = match link {
            LinkConfig::Mqtt(link) => link.url.clone(),
            LinkConfig::HttpServer(link) => match &link.tls {
                Some(_) => format!("https on {}", link.listen),
                None => format!("http on {}", link.listen),
            },
            LinkConfig::HttpClient(link) => link.url.to_string(),
            LinkConfig::Ftps(link) => {
                format!("ftps {}:{} {}", link.host, link.port, link.directory)
            }
        };
        rows.push(vec!["link".into(), name.clone(), says]);
    }
    for (name, target) in &config.targets {
        let written = match &target.flasher {
            FlasherConfig::Slots { slots, .. } => {
                format!("{} and {}", slots[0].display(), slots[1].display())
            }
            FlasherConfig::Archive { directory, .. } => {
                format!("archives into {}", directory.display())
            }
            FlasherConfig::Command {
                directory, program, ..
            } => format!(
                "by {} from {}",
                program.first().map_or("", String::as_str),
                directory.display()
            ),
        };
        let trust = match &target.trust {
            TrustConfig::Unsigned => "takes unsigned images".to_owned(),
            TrustConfig::Minisign { keys, .. } => {
                format!("trusts {}", count(keys.len(), "key", "keys"))
            }
        };
        rows.push(vec![
            "target".into(),
            name.clone(),
            format!("{written}, {trust}"),
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

/// `otahost jobs`: who wants what where since when, and below it where it stands.
pub(super) fn jobs(jobs: &[JobView]) -> String {
    if jobs.is_empty() {
        return "no jobs\n".into();
    }
    let rows: Vec<_> = jobs.iter().map(job_row).collect();
    let mut text = String::new();
    for (line, job) in lines(&rows).iter().zip(jobs) {
        text.push_str(&format!("{line}\n      {}\n", outlook(job)));
    }
    text
}

fn job_row(job: &JobView) -> Vec<String> {
    let targets: Vec<_> = job.installs.iter().map(versions).collect();
    let percent = job.installs.iter().map(|i| i.percent).min().unwrap_or(0);
    let progress = if job.phase.is_final() {
        String::new()
    } else {
        format!("{percent} %")
    };
    vec![
        time(job.created),
        clean(&job.key),
        format!("for {}", clean(&job.owner)),
        targets.join(", "),
        job.phase.word().into(),
        progress,
    ]
}

/// `dock 1.0 → 2.0`.
pub(super) fn versions(install: &InstallView) -> String {
    let from = install
        .old_version
        .as_deref()
        .map_or_else(|| "?".to_owned(), clean);
    // Until its header is here, nobody knows the version of a file.
    let to = match install.new_version.as_str() {
        "" => "?".to_owned(),
        version => clean(version),
    };
    format!("{} {from} → {to}", clean(&install.target))
}

/// `otahost jobs KEY`.
pub(super) fn job_details(jobs: &[JobView]) -> String {
    let details: Vec<_> = jobs.iter().map(details).collect();
    details.join("\n")
}

fn details(job: &JobView) -> String {
    let mut text = format!(
        "{} for {}: {}\n  {}\n",
        clean(&job.key),
        clean(&job.owner),
        job.phase.word(),
        outlook(job)
    );
    if let Some(reason) = &job.reason {
        text.push_str(&format!(
            "  reason: {} at {}\n",
            clean(&reason.code),
            clean(&reason.stage)
        ));
    }
    if matches!(
        job.phase,
        Phase::RolledBack | Phase::RollbackFailed | Phase::Partial
    ) {
        text.push_str("  `otahost status` says what can be done about it\n");
    }
    text.push_str(&format!(
        "  asked for {}, last change {}\n",
        time(job.created),
        time(job.updated)
    ));
    for install in &job.installs {
        text.push_str(&format!("  {}\n", one_install(install)));
    }
    text.push_str(&section(
        "history",
        &job.history
            .iter()
            .map(|h| vec![time(h.at), h.phase.word().to_owned(), clean(&h.text)])
            .collect::<Vec<_>>(),
    ));
    text
}

/// How one install stands or has ended.
fn one_install(install: &InstallView) -> String {
    let fetched = match install.total {
        Some(total) => part(install.received, total),
        None => bytes(install.received),
    };
    let percent = if install.phase.is_final() {
        String::new()
    } else {
        format!(" {} %", install.percent)
    };
    let reason = install
        .reason
        .as_ref()
        .map(|r| format!(": {}", clean(&r.text)))
        .unwrap_or_default();
    format!(
        "{}: {}{percent}, {fetched} fetched{reason}",
        versions(install),
        install.phase.word()
    )
}

#[cfg(test)]
mod tests {
    use otahost_core::model::Reason;

    use super::*;
    use crate::cli::samples::job;

    #[test]
    fn the_list_says_for_each_job_who_wants_what_and_where_it_stands() {
        let mut other = job(Phase::Succeeded);
        other.key = "operator/12".into();
        other.owner = "operator".into();
        other.installs[0].old_version = Some("1.0".into());
        assert_eq!(jobs(&[]), "no jobs\n");
        assert_eq!(
            jobs(&[job(Phase::Downloading), other]),
            "  1970-01-01 00:00:00 UTC  k1           for dji       dock ? → 2.0    downloading  38 %\n      \
             downloading 12.3 of 64.0 MiB; then it is verified, read back and activated\n  \
             1970-01-01 00:00:00 UTC  operator/12  for operator  dock 1.0 → 2.0  succeeded\n      \
             succeeded: the new version runs and is confirmed\n"
        );
    }

    #[test]
    fn a_job_shows_its_whole_history_and_how_each_of_its_targets_ended() {
        let mut partial = job(Phase::Partial);
        partial.reason = Some(Reason::new("probe-failed", "confirm", "it is not well"));
        partial.installs[0].phase = Phase::Succeeded;
        partial.installs[0].received = 64 << 20;
        let mut drone = partial.installs[0].clone();
        drone.target = "drone".into();
        drone.new_version = String::new();
        drone.phase = Phase::RolledBack;
        drone.reason = partial.reason.clone();
        partial.installs.push(drone);
        assert_eq!(
            job_details(&[partial, job(Phase::Downloading)]),
            "k1 for dji: partial\n  \
             partial: `dock` runs the new version; `drone` does not (rolled-back: it is not well)\n  \
             reason: probe-failed at confirm\n  \
             `otahost status` says what can be done about it\n  \
             asked for 1970-01-01 00:00:00 UTC, last change 2024-02-29 23:59:59 UTC\n  \
             dock ? → 2.0: succeeded, 64.0 of 64.0 MiB fetched\n  \
             drone ? → ?: rolled-back, 64.0 of 64.0 MiB fetched: it is not well\n\
             history\n  1970-01-01 00:00:00 UTC  queued  asked?\n\n\
             k1 for dji: downloading\n  \
             downloading 12.3 of 64.0 MiB; then it is verified, read back and activated\n  \
             asked for 1970-01-01 00:00:00 UTC, last change 2024-02-29 23:59:59 UTC\n  \
             dock ? → 2.0: downloading 38 %, 12.3 of 64.0 MiB fetched\n\
             history\n  1970-01-01 00:00:00 UTC  queued  asked?\n"
        );
    }
}
