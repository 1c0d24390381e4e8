//! The log, and what of it is asked for.
//!
//! Filters name levels and parts of the program, and nothing else: filtering by values would bring a whole regex engine along.

use std::io::IsTerminal;

use tracing_subscriber::filter::{LevelFilter, ParseError, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Logs go to standard error, from level info on unless `OTAHOST_LOG` says otherwise.
pub(super) fn start() {
    let asked = std::env::var("OTAHOST_LOG").unwrap_or_default();
    let (filter, fault) = filter(&asked);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // In a process that has a log already (a test) that one stays.
    let _ = tracing_subscriber::registry()
        .with(lines)
        .with(filter)
        .try_init();
    if let Some(fault) = fault {
        tracing::warn!(
            "OTAHOST_LOG={asked:?} is not understood ({fault}), so the log begins at info; write LEVEL or TARGET=LEVEL, with commas between"
        );
    }
}

/// What `OTAHOST_LOG` asks for, as in `debug` or `info,otahost::engine=debug`, and what is wrong with it.
fn filter(asked: &str) -> (Targets, Option<ParseError>) {
    let info = Targets::new().with_default(LevelFilter::INFO);
    let mut asked = asked.split(',').map(str::trim).filter(|a| !a.is_empty());
    let Some(first) = asked.next() else {
        return (info, None);
    };
    match asked
        .fold(first.to_owned(), |all, one| all + "," + one)
        .parse()
    {
        Ok(filter) => (filter, None),
        Err(fault) => (info, Some(fault)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use tracing_subscriber::filter::LevelFilter as L;

    use super::filter;

    /// The levels that a filter lets through of everything, and of one part.
    fn levels(asked: &str) -> (Option<L>, L) {
        let (filter, _) = filter(asked);
        let engine = [L::TRACE, L::DEBUG, L::INFO, L::WARN, L::ERROR]
            .into_iter()
            .find(|l| filter.would_enable("otahost::engine", &l.into_level().unwrap()));
        (filter.default_level(), engine.unwrap_or(L::OFF))
    }

    #[test]
    fn what_is_logged_is_a_level_for_all_and_levels_for_parts() {
        assert_eq!(levels(""), (Some(L::INFO), L::INFO));
        assert_eq!(levels("debug"), (Some(L::DEBUG), L::DEBUG));
        assert_eq!(levels("off"), (Some(L::OFF), L::OFF));
        assert_eq!(
            levels("info, otahost::engine=debug,"),
            (Some(L::INFO), L::DEBUG)
        );
        assert_eq!(levels("otahost=trace"), (None, L::TRACE));
        assert_eq!(levels("debug,otahost=warn"), (Some(L::DEBUG), L::WARN));
    }

    #[test]
    fn what_is_not_understood_is_logged_from_info_on_with_a_word_about_it() {
        let (info, fault) = filter("otahost=loud");
        assert_eq!(info.default_level(), Some(L::INFO));
        assert!(fault.is_some());
        assert!(filter("info,otahost=debug").1.is_none());
    }
}
