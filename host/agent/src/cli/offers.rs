//! The versions of adapters that are there and do not run, and where they are looked for.

use super::render::section;
use super::words::{clean, time};
use crate::api::{AdapterView, RepositoryOutcome, RepositoryView, StatusView};

/// What waits, and the repositories; nothing of an agent that has neither.
pub(super) fn offers(status: &StatusView) -> String {
    let mut text = String::new();
    let waiting: Vec<Vec<String>> = status
        .adapters
        .iter()
        .flat_map(|adapter| {
            adapter
                .waiting
                .iter()
                .map(move |waiting| (adapter, waiting))
        })
        .map(|(adapter, waiting)| {
            let why = if waiting.missing.is_empty() {
                format!("cannot run: {}", clean(&waiting.why))
            } else {
                format!("needs grants: {}", clean(&waiting.missing.join("; ")))
            };
            vec![
                clean(&adapter.name),
                clean(&waiting.version),
                format!("from {}", clean(&waiting.source)),
                why,
            ]
        })
        .collect();
    if !waiting.is_empty() {
        text.push_str(&section("waiting", &waiting));
    }
    if !status.drop_ins.is_empty() {
        let rows: Vec<_> = status
            .drop_ins
            .iter()
            .map(|file| vec![clean(&file.name), clean(&file.path), clean(&file.why)])
            .collect();
        text.push_str(&section("in the adapters directory, not run", &rows));
        for line in status.drop_ins.iter().flat_map(|file| file.lines.lines()) {
            text.push_str(&format!("      {}\n", clean(line)));
        }
    }
    if !status.repositories.is_empty() {
        let rows: Vec<_> = status.repositories.iter().map(repository).collect();
        text.push_str(&section("repositories", &rows));
    }
    text
}

fn repository(repository: &RepositoryView) -> Vec<String> {
    let looked = match repository.looked {
        Some(at) => format!("looked at {}", time(at)),
        None => "not looked at yet".to_owned(),
    };
    let says = match repository.outcome {
        RepositoryOutcome::Failed => format!("failed: {}", clean(&repository.text)),
        _ => clean(&repository.text),
    };
    vec![
        clean(&repository.name),
        clean(&repository.place),
        looked,
        says,
    ]
}

/// What a person should know of a version that waits.
pub(super) fn waits(adapter: &AdapterView) -> impl Iterator<Item = String> {
    adapter.waiting.iter().map(|waiting| {
        let (name, version) = (clean(&adapter.name), clean(&waiting.version));
        if waiting.missing.is_empty() {
            let source = match version.as_str() {
                "" => clean(&waiting.source),
                version => format!("version {version} from {}", clean(&waiting.source)),
            };
            return format!(
                "adapter {name}: {source} cannot run, and {} goes on: {}",
                clean(&adapter.version),
                clean(&waiting.why)
            );
        }
        format!(
            "adapter {name}: version {version} from {} waits for you, and {} goes on: {}. Once `adapters.{name}` has these lines it is \
             taken by itself",
            clean(&waiting.source),
            clean(&adapter.version),
            clean(&waiting.missing.join("; "))
        )
    })
}

/// What a person should know of a change that was not taken in, and of files that wait.
pub(super) fn pending(status: &StatusView) -> impl Iterator<Item = String> {
    let problem = status.problem.as_ref().map(|problem| {
        let lines: Vec<String> = problem.lines().map(clean).collect();
        format!(
            "what was changed of the configuration is not taken in, and what ran before goes on:\n    {}",
            lines.join("\n    ")
        )
    });
    let files = status.drop_ins.iter().map(|file| {
        format!(
            "{} is there and does not run: {}. `otahost adapter list` shows the lines that `otahost.toml` needs for it",
            clean(&file.path),
            clean(&file.why)
        )
    });
    problem.into_iter().chain(files)
}

/// What a person should know of a repository that was refused.
pub(super) fn refused(repository: &RepositoryView) -> Option<String> {
    (repository.outcome == RepositoryOutcome::Failed).then(|| {
        format!(
            "repository {}: {}. What runs goes on; it is looked at again by itself",
            clean(&repository.name),
            clean(&repository.text)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{AdapterHealth, WaitingView};
    use crate::cli::samples::idle;

    #[test]
    fn what_waits_is_shown_with_the_lines_it_needs_and_each_repository_with_its_last_look() {
        let mut status = idle();
        assert_eq!(offers(&status), "");
        status.adapters.push(AdapterView {
            name: "dji".into(),
            protocol: "DJI".into(),
            version: "1.0".into(),
            digest: String::new(),
            loaded: String::new(),
            installed: false,
            origin: None,
            waiting: vec![WaitingView {
                version: "1.1".into(),
                digest: String::new(),
                source: "repository vendor".into(),
                missing: vec!["it asks to fly; add \"wings\"".into()],
                why: String::new(),
            }],
            strikes: None,
            previous: None,
            rejected: Vec::new(),
            fault: None,
            inbox: 0,
            health: AdapterHealth::Running,
            dead_letters: 0,
        });
        status.repositories.push(RepositoryView {
            name: "vendor".into(),
            place: "/media/usb".into(),
            looked: Some(0),
            outcome: RepositoryOutcome::Failed,
            text: "it\u{1b} expired".into(),
            expires: None,
        });
        assert_eq!(
            offers(&status),
            "waiting\n  dji  1.1  from repository vendor  needs grants: it asks to fly; add \"wings\"\n\
             repositories\n  vendor  /media/usb  looked at 1970-01-01 00:00:00 UTC  failed: it? expired\n"
        );
        let hints: Vec<String> = waits(&status.adapters[0]).collect();
        assert!(
            hints[0].contains("waits for you, and 1.0 goes on"),
            "{hints:?}"
        );
        assert!(refused(&status.repositories[0]).is_some());
    }
}
