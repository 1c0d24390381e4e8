//! The two kinds of boot selector against a real file and a real command.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use otahost_disk::{Disk, Place, RealDisk};
use otahost_flash::{BootSelector, BootState, CommandSelector, FileSelector, FlashError, Slot};
use support::*;

/// A boot loader's tool as an integrator would write it: the state in four small files.
const TOOL: &str = r#"#!/bin/sh
set -e
cd "$(dirname "$0")"
show() {
    case "$(cat "$1")" in
        trial*) printf '{"state":"trial","tries":%s}' "$(cut -d' ' -f2 < "$1")" ;;
        *) printf '{"state":"%s"}' "$(cat "$1")" ;;
    esac
}
case "$1" in
    get) printf '{"booted":"%s","primary":"%s","slots":{"a":%s,"b":%s}}\n' \
        "$(cat booted)" "$(cat primary)" "$(show a)" "$(show b)" ;;
    set) test "$3" = trial; echo "trial $4" > "$2" ;;
    mark) echo "$3" > "$2" ;;
    primary) echo "$2" > primary ;;
    *) echo "unknown: $*" >&2; exit 2 ;;
esac
"#;

fn script(home: &Path, text: &str) -> CommandSelector {
    let path = home.join("boot-tool");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
    // By its interpreter: the file itself may still count as being written by a test that forks just now.
    CommandSelector::new(vec!["/bin/sh".into(), path.to_str().unwrap().into()]).unwrap()
}

fn in_a_shell(text: &str) -> CommandSelector {
    CommandSelector::new(vec![
        "/bin/sh".into(),
        "-c".into(),
        text.into(),
        "tool".into(),
    ])
    .unwrap()
}

#[test]
fn a_command_does_what_every_selector_does() {
    let home = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("a", "good"),
        ("b", "bad"),
        ("booted", "a"),
        ("primary", "a"),
    ] {
        std::fs::write(home.path().join(name), text).unwrap();
    }
    check_selector(&script(home.path(), TOOL));
}

#[test]
fn a_file_does_what_every_selector_does() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("boot.json");
    std::fs::write(&path, state(Slot::A, Slot::A, GOOD, BAD).to_json()).unwrap();
    let disk = Arc::new(RealDisk::new(&home.path().join("data")).unwrap());
    check_selector(&FileSelector::new(disk, Place::operator(&path)));
    let text = std::fs::read_to_string(&path).unwrap();
    let form =
        r#"{"booted":"a","primary":"b","slots":{"a":{"state":"good"},"b":{"state":"good"}}}"#;
    assert_eq!(text, format!("{form}\n"));
}

/// Two calls of a job that was given up may still run when the next job's begin.
#[test]
fn changes_at_the_same_time_lose_nothing_and_leave_a_whole_file() {
    const ROUNDS: u32 = 100;
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("boot.json");
    std::fs::write(&path, state(Slot::A, Slot::A, GOOD, BAD).to_json()).unwrap();
    let disk = Arc::new(RealDisk::new(&home.path().join("data")).unwrap());
    let selector = &FileSelector::new(disk, Place::operator(&path));
    let start = &std::sync::Barrier::new(3);
    std::thread::scope(|scope| {
        // Each has a part of the state to itself, and must find there what it put.
        for slot in [Slot::A, Slot::B] {
            scope.spawn(move || {
                start.wait();
                for round in 0..ROUNDS {
                    let wanted = trial((round % 250) as u8);
                    selector.set_state(slot, wanted).unwrap();
                    assert_eq!(selector.read().unwrap().of(slot), wanted, "round {round}");
                }
            });
        }
        scope.spawn(move || {
            start.wait();
            for round in 0..ROUNDS {
                let wanted = [Slot::A, Slot::B][round as usize % 2];
                selector.set_primary(wanted).unwrap();
                assert_eq!(selector.read().unwrap().primary, wanted, "round {round}");
            }
        });
    });
}

fn check_selector(selector: &dyn BootSelector) {
    assert_eq!(selector.read(), Ok(state(Slot::A, Slot::A, GOOD, BAD)));
    selector.set_state(Slot::B, trial(3)).unwrap();
    assert_eq!(selector.read(), Ok(state(Slot::A, Slot::A, GOOD, trial(3))));
    selector.set_primary(Slot::B).unwrap();
    assert_eq!(selector.read(), Ok(state(Slot::A, Slot::B, GOOD, trial(3))));
    selector.set_state(Slot::A, BAD).unwrap();
    assert_eq!(selector.read(), Ok(state(Slot::A, Slot::B, BAD, trial(3))));
    selector.set_state(Slot::A, GOOD).unwrap();
    selector.set_state(Slot::B, GOOD).unwrap();
    assert_eq!(selector.read(), Ok(state(Slot::A, Slot::B, GOOD, GOOD)));
}

#[test]
fn a_state_that_is_none_is_refused_with_its_place_and_an_example() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("boot.json");
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(&home.path().join("data")).unwrap());
    let selector = FileSelector::new(disk, Place::operator(&path));
    let read = || {
        let error = selector.read().unwrap_err();
        assert!(matches!(error, FlashError::Selector(_)), "{error:?}");
        error.to_string()
    };
    assert!(read().contains("boot.json"), "{}", read());
    let slots = r#""slots":{"a":{"state":"good"},"b":{"state":"bad"}}"#;
    for (text, word) in [
        (String::new(), "EOF"),
        ("booted=a".into(), "line 1"),
        (r#"{"booted":"a","primary":"a"}"#.into(), "slots"),
        (format!(r#"{{"booted":"c","primary":"a",{slots}}}"#), "`c`"),
        (format!(r#"{{"primary":"a",{slots}}}"#), "booted"),
        (
            format!(r#"{{"booted":"a","primary":"a",{slots},"more":1}}"#),
            "more",
        ),
        (
            format!(r#"{{"booted":"a","primary":"a",{slots}}}{{"#),
            "trailing",
        ),
        (
            format!(r#"{{"booted":"a","primary":"a",{slots}}}"#).replace("bad", "trial"),
            "tries",
        ),
        (
            format!(r#"{{"booted":"a","primary":"a",{slots}}}"#)
                .replace("\"bad\"", "\"trial\",\"tries\":256"),
            "256",
        ),
        (" ".repeat(5000), "5000"),
    ] {
        std::fs::write(&path, &text).unwrap();
        let error = read();
        assert!(
            error.contains("boot.json") && error.contains(word),
            "{word}: {error}"
        );
        assert!(selector.set_primary(Slot::B).is_err());
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            text,
            "it is left as it is"
        );
    }
    assert!(
        BootState::parse(b"{}", &"here")
            .unwrap_err()
            .to_string()
            .contains("\"state\":\"trial\"")
    );
}

#[test]
fn a_command_that_fails_is_quoted() {
    let home = tempfile::tempdir().unwrap();
    let text =
        "echo one >&2; echo; printf '\\033[2Jtwo\\n' >&2; echo three >&2; echo four >&2; exit 1";
    let error = script(home.path(), text).read().unwrap_err().to_string();
    assert!(error.contains("exit status: 1"), "{error}");
    assert!(
        error.contains("one / [2Jtwo / three") && !error.contains("four"),
        "{error}"
    );
    assert!(!error.contains('\u{1b}'), "{error:?}");
    let silent = in_a_shell("exit 3")
        .set_primary(Slot::A)
        .unwrap_err()
        .to_string();
    assert!(
        silent.contains("primary a`") && silent.contains("said nothing"),
        "{silent}"
    );
    let killed = in_a_shell("kill -9 $$").read().unwrap_err().to_string();
    assert!(killed.contains("signal: 9"), "{killed}");
}

#[test]
fn a_command_that_talks_nonsense_is_refused() {
    let error = in_a_shell("echo hello").read().unwrap_err().to_string();
    assert!(
        error.contains("get`") && error.contains("expected is"),
        "{error}"
    );
    // As much as it likes, for as long as it likes.
    for to in ["1", "2"] {
        let error = in_a_shell(&format!("exec yes nonsense >&{to}"))
            .read()
            .unwrap_err()
            .to_string();
        assert!(error.contains("more than 65536 bytes"), "{error}");
    }
}

#[test]
fn a_command_that_hangs_is_given_up() {
    let error = in_a_shell("exec sleep 1000")
        .with_time_out(Duration::from_millis(100))
        .read()
        .unwrap_err()
        .to_string();
    assert!(error.contains("get` did not end within 0.1 s"), "{error}");
}

#[test]
fn a_command_that_is_not_there_is_named() {
    assert!(CommandSelector::new(vec![]).is_err());
    assert!(CommandSelector::new(vec![String::new()]).is_err());
    let none = CommandSelector::new(vec!["/nowhere/boot-tool".into()]).unwrap();
    let error = none.read().unwrap_err().to_string();
    assert!(
        error.contains("/nowhere/boot-tool get") && error.contains("cannot be started"),
        "{error}"
    );
}
