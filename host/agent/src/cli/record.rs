//! `otahost adapter inspect`, `logs` and `replay`: one adapter, what it did, and what its record gives on another build of it.

use std::fmt::Write;
use std::path::Path;

use otahost_sandbox::{Brief, Finding, Replay};

use super::adapters::standing;
use super::render::{lines, section};
use super::words::{argument, bytes, clean, count, span, time};
use super::{Cli, Failure, client, print_json, print_text, show, unexpected};
use crate::api::{
    AdapterDetails, AdapterLogs, DeadView, ReplayReport, Reply, Request, WaitingView, WishView,
};
use crate::exit::{Exit, ExitError};

pub(super) fn inspect(cli: &Cli, adapter: &str) -> Result<Exit, Failure> {
    let request = Request::AdapterInspect {
        adapter: adapter.to_owned(),
    };
    match client(cli)?.ask(&request)? {
        Reply::Adapter(details) => {
            show(cli, &*details, || in_detail(&details));
            Ok(Exit::Ok)
        }
        other => Err(unexpected(other)),
    }
}

pub(super) fn logs(cli: &Cli, adapter: &str, last: u64, follow: bool) -> Result<Exit, Failure> {
    let request = Request::AdapterLogs {
        adapter: adapter.to_owned(),
        last: Some(last),
        follow,
    };
    for reply in client(cli)?.call(&request)? {
        match reply? {
            Reply::Logs(logs) => show(cli, &*logs, || told(&logs)),
            Reply::Logged(step) if cli.json => print_json(&*step),
            Reply::Logged(step) => print_text(&one_step(&step)),
            other => return Err(unexpected(other)),
        }
    }
    Ok(Exit::Ok)
}

/// What `replay` is asked for.
pub(super) struct Wanted<'a> {
    pub(super) adapter: &'a str,
    pub(super) with: Option<&'a Path>,
    pub(super) step: Option<u64>,
    pub(super) dead: Option<u64>,
}

pub(super) fn replay(cli: &Cli, wanted: &Wanted<'_>) -> Result<Exit, Failure> {
    let path = match wanted.with {
        None => None,
        Some(file) => Some(absolute(file)?),
    };
    let request = Request::AdapterReplay {
        adapter: wanted.adapter.to_owned(),
        path,
        step: wanted.step,
        dead: wanted.dead,
    };
    match client(cli)?.ask(&request)? {
        Reply::Replayed(report) => {
            let one = wanted.step.is_some() || wanted.dead.is_some();
            show(cli, &*report, || found(&report, one));
            Ok(verdict(&report))
        }
        other => Err(unexpected(other)),
    }
}

/// The absolute path of a component, which the agent reads.
pub(super) fn absolute(file: &Path) -> Result<String, Failure> {
    let path = std::path::absolute(file).map_err(|e| {
        let what = format!("{} cannot be found: {e}", file.display());
        ExitError::new(Exit::Usage, what, "name the component's file")
    })?;
    Ok(path.display().to_string())
}

/// A difference goes before a step of which nothing can be said.
fn verdict(report: &ReplayReport) -> Exit {
    match report {
        r if r.differing > 0 => Exit::Differs,
        r if r.failed > 0 || r.same == 0 => Exit::Failure,
        _ => Exit::Ok,
    }
}

fn many(n: u64, one: &str, many: &str) -> String {
    count(usize::try_from(n).unwrap_or(usize::MAX), one, many)
}

/// A replay: what was not the same, and how many were.
fn found(report: &ReplayReport, one: bool) -> String {
    let mut text = String::new();
    for step in &report.steps {
        if one || step.finding != Finding::Same {
            text.push_str(&one_replay(step));
        }
    }
    let version = clean(&report.version);
    if report.steps.is_empty() && report.not_run == 0 {
        return format!("no step is on record yet; nothing was run on version {version}\n");
    }
    if !one {
        let _ = writeln!(text, "on version {version}: {}", in_numbers(report));
    }
    text
}

fn one_replay(step: &Replay) -> String {
    let text = clean(&step.to_string());
    format!("{text}\n")
}

fn in_numbers(report: &ReplayReport) -> String {
    let mut words = vec![format!("{} the same", many(report.same, "step", "steps"))];
    if report.differing > 0 {
        words.push(format!("{} otherwise", report.differing));
    }
    if report.failed > 0 {
        words.push(format!("{} could not be compared", report.failed));
    }
    if report.not_run > 0 {
        words.push(format!("{} not run", report.not_run));
    }
    words.join(", ")
}

/// What a version that was taken made of the record of the one before.
pub(super) fn trial(report: &ReplayReport, adapter: &str) -> String {
    if report.steps.is_empty() && report.same + report.differing + report.failed == 0 {
        return "no step of the version before is on record to be compared\n".into();
    }
    let mut text = format!("the record of the version before: {}\n", in_numbers(report));
    let telling = |step: &&Replay| step.finding != Finding::Same;
    let mut told = 0;
    for step in report.steps.iter().filter(telling) {
        for line in clean(&step.to_string()).lines() {
            let _ = writeln!(text, "  {line}");
        }
        told += 1;
    }
    let untold = (report.differing + report.failed).saturating_sub(told);
    if untold > 0 {
        let _ = writeln!(text, "  and {} more", many(untold, "step", "steps"));
    }
    if report.differing > 0 {
        let adapter = argument(adapter);
        let _ = writeln!(
            text,
            "  if it should not be so: `otahost adapter rollback {adapter}`"
        );
    }
    text
}

/// `otahost adapter logs`.
fn told(logs: &AdapterLogs) -> String {
    let mut text = String::new();
    let name = argument(&logs.adapter);
    if logs.steps.is_empty() {
        let _ = writeln!(text, "no step is on record");
    } else if logs.earlier > 0 {
        let all = logs.earlier + u64::try_from(logs.steps.len()).unwrap_or(u64::MAX);
        let _ = writeln!(
            text,
            "{} before; `otahost adapter logs {name} --last {all}` shows all",
            many(logs.earlier, "step", "steps")
        );
    }
    for step in &logs.steps {
        text.push_str(&one_step(step));
    }
    text.push_str(&dead_letters(&logs.dead, &name));
    text
}

fn one_step(step: &Brief) -> String {
    let mut text = format!(
        "{}  step {}  {}: {}",
        time(step.now),
        step.n,
        clean(&step.event),
        clean(&step.outcome)
    );
    if let Some(reason) = &step.reason {
        let _ = write!(text, ": {}", clean(reason));
    }
    if step.state_changed {
        text.push_str(", new state");
    }
    if !step.replayable {
        text.push_str(", too large to be replayed");
    }
    let _ = writeln!(text, " ({} fuel)", step.fuel);
    if let Some(why) = &step.discarded {
        let _ = writeln!(text, "    discarded: {}", clean(why));
    }
    match &step.effects {
        None => text.push_str("    effects too large to be kept\n"),
        Some(effects) => {
            for effect in effects {
                let _ = writeln!(text, "    {}", clean(effect));
            }
        }
    }
    for line in &step.log {
        let level = format!("{:?}", line.level).to_lowercase();
        let _ = writeln!(text, "    log {level}: {}", clean(&line.text));
    }
    text
}

fn dead_letters(dead: &[DeadView], name: &str) -> String {
    if dead.is_empty() {
        return String::new();
    }
    let mut text = String::from("dead letters\n");
    for letter in dead {
        let _ = writeln!(
            text,
            "  {}  {}  {}: {}",
            letter.n,
            time(letter.at),
            clean(&letter.event),
            clean(&letter.error)
        );
        if letter.replayable {
            let _ = writeln!(
                text,
                "    `otahost adapter replay {name} --dead {}`",
                letter.n
            );
        }
    }
    text
}

/// `otahost adapter inspect`.
fn in_detail(details: &AdapterDetails) -> String {
    let adapter = &details.adapter;
    let name = argument(&adapter.name);
    let mut text = format!(
        "{}: {} {}, {}\n",
        clean(&adapter.name),
        clean(&adapter.protocol),
        clean(&adapter.version),
        standing(adapter)
    );
    text.push_str(&table(facts(details)));
    for waiting in &adapter.waiting {
        text.push_str(&waits(waiting));
    }
    let wishes: Vec<Vec<String>> = details.wishes.iter().flat_map(side_by_side).collect();
    text.push_str(&section("asked | granted", &wishes));
    let timers = details.timers.iter().map(|timer| {
        let period = timer
            .period
            .map_or(String::new(), |p| format!(", every {}", span(p)));
        vec![
            clean(&timer.name),
            format!("in {}{period}", span(timer.due_in)),
        ]
    });
    text.push_str(&section("timers", &timers.collect::<Vec<_>>()));
    text.push_str(&dead_letters(&details.dead, &name));
    if let Some(report) = &details.trial {
        text.push_str(&trial(report, &adapter.name));
    }
    text
}

fn facts(details: &AdapterDetails) -> Vec<Vec<String>> {
    let (adapter, versions) = (&details.adapter, &details.versions);
    let mut rows = Vec::new();
    let mut row = |what: &str, says: String| rows.push(vec![what.to_owned(), says]);
    if let Some(running) = &versions.running {
        row(
            "runs",
            format!("{} ({})", clean(running), clean(&adapter.loaded)),
        );
    }
    if let Some(previous) = &versions.previous {
        row("before", clean(previous));
    }
    if let Some(factory) = &versions.factory {
        row("configured", clean(factory));
    }
    for rejected in &adapter.rejected {
        row("left", clean(rejected));
    }
    if adapter.strikes.is_some() {
        let proven = format!("{} of {} steps", details.proven, details.probation);
        row("probation", format!("{proven} without a failure"));
    }
    let layout = match details.state_version {
        Some(version) => format!("version {version}, "),
        None => String::new(),
    };
    row("state", format!("{layout}{}", bytes(details.state_bytes)));
    row(
        "waiting",
        format!(
            "{}, {} of them kept in the inbox ({})",
            many(details.waiting_events, "event", "events"),
            adapter.inbox,
            bytes(details.inbox_bytes)
        ),
    );
    row(
        "steps",
        format!(
            "{} since the agent's start, {} failed",
            details.steps, details.failures
        ),
    );
    row(
        "on record",
        format!(
            "{}, {}",
            many(details.record.steps, "step", "steps"),
            bytes(details.record.bytes)
        ),
    );
    rows
}

fn table(rows: Vec<Vec<String>>) -> String {
    lines(&rows)
        .iter()
        .map(|line| format!("{line}\n"))
        .collect()
}

fn waits(waiting: &WaitingView) -> String {
    let mut text = format!(
        "version {} from {} waits",
        clean(&waiting.version),
        clean(&waiting.source)
    );
    match waiting.why.as_str() {
        "" => text.push_str(" for grants\n"),
        why => {
            let _ = writeln!(text, ": {}", clean(why));
        }
    }
    for missing in &waiting.missing {
        let _ = writeln!(text, "  {}", clean(missing));
    }
    text
}

/// A line for each that is asked for or granted, those asked for first.
fn side_by_side(wish: &WishView) -> Vec<Vec<String>> {
    let what = match &wish.link {
        Some(link) => format!("{} {}", wish.what, clean(link)),
        None => wish.what.clone(),
    };
    let most = wish.asked.len().max(wish.granted.len());
    let cell = |of: &[String], i: usize| of.get(i).map_or_else(|| "-".to_owned(), |s| clean(s));
    (0..most)
        .map(|i| {
            let what = if i == 0 { what.clone() } else { String::new() };
            vec![
                what,
                cell(&wish.asked, i),
                "|".into(),
                cell(&wish.granted, i),
            ]
        })
        .collect()
}
