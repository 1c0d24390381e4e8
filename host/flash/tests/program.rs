//! Programs of an operator at their worst.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/ends.rs"]
mod ends;

use std::time::Duration;

use ends::ends;
use otahost_flash::program::{Limits, ProgramError, run};

/// Longer than any of these programs needs on any machine that runs tests at all, and far shorter than those that hang.
const LONG: Duration = Duration::from_secs(120);

fn words(argv: &[&str]) -> Vec<String> {
    argv.iter().map(|word| (*word).to_owned()).collect()
}

fn shell(script: &str) -> Vec<String> {
    words(&["/bin/sh", "-c", script])
}

fn limits(time: Duration) -> Limits {
    Limits {
        time,
        ..Limits::default()
    }
}

#[test]
fn a_program_that_succeeds_gives_what_it_printed() {
    let said = run(&shell("printf 'a\\nb\\n'; echo no >&2"), Limits::default());
    assert_eq!(said.unwrap(), "a\nb\n");
    assert_eq!(run(&shell("true"), Limits::default()).unwrap(), "");
    // In the search path, with arguments as they are, and without input to wait for.
    let said = run(&words(&["printf", "%s|", "a b", "$HOME"]), limits(LONG));
    assert_eq!(said.unwrap(), "a b|$HOME|");
    assert_eq!(run(&words(&["cat"]), limits(LONG)).unwrap(), "");
    let said = run(&shell("printf '\\377'"), limits(LONG)).unwrap();
    assert_eq!(said, "\u{fffd}");
}

#[test]
fn a_program_that_fails_says_how_and_with_what_words() {
    let error = run(&shell("echo; echo no battery >&2; exit 3"), limits(LONG)).unwrap_err();
    assert!(
        matches!(&error, ProgramError::Failed { status, .. } if status.code() == Some(3)),
        "{error:?}"
    );
    let text = error.to_string();
    assert!(
        text.contains("exit status: 3") && text.contains("no battery"),
        "{text}"
    );
    let text = run(&shell("kill -9 $$"), limits(LONG))
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("signal: 9") && text.contains("said nothing"),
        "{text}"
    );
    // One line of the log, whatever it is made of.
    let text = run(&shell("exit 1\n# second line\t"), limits(LONG))
        .unwrap_err()
        .to_string();
    assert!(!text.contains(char::is_control), "{text:?}");
}

#[test]
fn a_program_that_is_not_there_is_no_program() {
    assert!(matches!(
        run(&[], Limits::default()),
        Err(ProgramError::Empty)
    ));
    assert!(matches!(
        run(&[String::new()], Limits::default()),
        Err(ProgramError::Empty)
    ));
    let error = run(&words(&["/nowhere/probe", "-x"]), Limits::default()).unwrap_err();
    assert!(
        matches!(error, ProgramError::NotStarted { .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains("`/nowhere/probe -x`"), "{error}");
}

/// The background child would keep a reader that waits for the end of the output waiting, long after the program has ended.
#[test]
fn a_child_left_in_the_background_does_not_hold_up_the_call_and_runs_on() {
    let home = tempfile::tempdir().unwrap();
    let (pid, go, done) = (
        home.path().join("pid"),
        home.path().join("go"),
        home.path().join("done"),
    );
    let script = format!(
        "(until test -e {}; do sleep 0.05; done; touch {}) & echo $! > {}; echo said; exit 0",
        go.display(),
        done.display(),
        pid.display()
    );
    let said = run(&shell(&script), limits(LONG)).unwrap();
    assert_eq!(said, "said\n");
    assert!(!done.exists(), "it was waited for");
    std::fs::write(&go, "").unwrap();
    assert!(ends(&pid));
    assert!(done.exists(), "it was killed");
}

#[test]
fn a_program_that_does_not_end_in_time_is_killed_with_what_it_started() {
    let home = tempfile::tempdir().unwrap();
    let (own, child) = (home.path().join("own"), home.path().join("child"));
    let script = format!(
        "echo $$ > {}; sleep 1000 & echo $! > {}; wait",
        own.display(),
        child.display()
    );
    // Long enough to have written the ids on any machine that runs tests at all.
    let error = run(&shell(&script), limits(Duration::from_secs(3))).unwrap_err();
    assert!(matches!(error, ProgramError::TooLong { .. }), "{error:?}");
    assert!(error.to_string().contains("within 3 s"), "{error}");
    assert!(ends(&own) && ends(&child));
}

#[test]
fn a_program_that_talks_without_end_is_killed_with_what_it_started() {
    let home = tempfile::tempdir().unwrap();
    let child = home.path().join("child");
    for (to, name) in [(1, "standard output"), (2, "standard error")] {
        let script = format!(
            "sleep 1000 & echo $! > {}; while :; do echo nonsense >&{to}; done",
            child.display()
        );
        let error = run(&shell(&script), limits(LONG)).unwrap_err();
        assert!(matches!(error, ProgramError::TooMuch { .. }), "{error:?}");
        let text = error.to_string();
        assert!(
            text.contains("65536 bytes") && text.contains(name),
            "{text}"
        );
        assert!(ends(&child));
    }
}

#[test]
fn as_much_as_the_limit_may_be_said_and_one_byte_more_may_not() {
    let limits = Limits {
        time: LONG,
        output: 1000,
    };
    let print = |bytes: u32| shell(&format!("head -c {bytes} /dev/zero"));
    assert_eq!(run(&print(1000), limits).unwrap().len(), 1000);
    assert!(matches!(
        run(&print(1001), limits),
        Err(ProgramError::TooMuch { limit: 1000, .. })
    ));
}
