//! Handing an unpacked directory over: the operator's program, what it says, and what ends it.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/archives.rs"]
mod archives;
#[path = "support/bench.rs"]
mod bench;
#[path = "support/ends.rs"]
mod ends;
#[path = "support/follower.rs"]
mod follower;

use std::time::Duration;

use archives::*;
use bench::Bench;
use ends::ends;
use follower::Followed;
use otahost_flash::{FlashError, Flasher, Program, Standing, Work};

fn shell(script: &str, timeout: Duration) -> Option<Program> {
    Some(Program {
        command: ["/bin/sh", "-c", script, "deliver"]
            .map(str::to_owned)
            .to_vec(),
        timeout,
    })
}

const LONG: Duration = Duration::from_secs(120);

fn work<'a>(followed: &'a Followed) -> Work<'a> {
    Work {
        target: "emu-2",
        version: "2.0.1",
        old_version: Some("1.0"),
        progress: followed,
    }
}

#[test]
fn the_delivery_program_is_told_what_it_delivers_and_its_progress_is_followed() {
    let mut bench = Bench::new();
    let script = r#"
        test "$#" = 3 && test -d "$1" && test "$1" = "$OTAHOST_ARTIFACT" || exit 9
        test "$2 $3" = "emu-2 2.0.1" && test "$OTAHOST_TARGET $OTAHOST_VERSION $OTAHOST_OLD_VERSION" = "emu-2 2.0.1 1.0" || exit 8
        test "$(cat "$1/version.txt")" = new || exit 7
        echo pushing
        echo '{"stage": "push", "percent": 50, "device": "board 1", "more": [1]}'
        echo '{"percent": 250}'
        echo '{"percent": "none"}'
        echo 'a warning' >&2
        printf 'no end of line'
    "#;
    bench.deliver = shell(script, LONG);
    let staged = bench.stage(&tar(&[file("version.txt", "new")]));
    let followed = Followed::default();
    bench.flasher().deliver(&staged, &work(&followed)).unwrap();
    let steps = followed.steps();
    let after = steps
        .iter()
        .skip_while(|(stage, ..)| stage != "deliver")
        .cloned()
        .collect::<Vec<_>>();
    let step = |stage: &str, percent, device: Option<&str>| {
        (stage.to_owned(), percent, device.map(str::to_owned))
    };
    assert_eq!(
        after,
        [
            step("deliver", 50, None),
            step("push", 75, Some("board 1")),
            step("", 100, None)
        ]
    );
    assert!(
        steps.windows(2).all(|pair| pair[0].1 <= pair[1].1),
        "{steps:?}"
    );
    let mut lines = followed.lines();
    lines.sort();
    assert_eq!(
        lines,
        [
            "a warning",
            "no end of line",
            "pushing",
            "{\"percent\": \"none\"}"
        ]
    );
    assert_eq!(
        bench.flasher().standing(&staged),
        Ok(Standing::New { confirmed: false })
    );
}

#[test]
fn a_delivery_program_that_fails_fails_at_delivering_with_its_words() {
    let mut bench = Bench::new();
    bench.deliver = shell("echo EMU 2 does not answer >&2; exit 3", LONG);
    let error = bench.deliver(&tar(&[file("f", "1")])).unwrap_err();
    assert_eq!(error.stage(), Some("deliver"));
    assert!(
        error.to_string().contains("EMU 2 does not answer"),
        "{error}"
    );
    let staged = bench.stage(&tar(&[file("f", "1")]));
    assert_eq!(
        bench.flasher().standing(&staged),
        Ok(Standing::NotActivated),
        "it was not delivered"
    );
    bench.deliver = Some(Program {
        command: vec!["/no/such/program".into()],
        timeout: LONG,
    });
    let error = bench.deliver(&tar(&[file("f", "1")])).unwrap_err();
    assert_eq!(error.stage(), Some("deliver"));
    // The next attempt is whole again.
    bench.deliver = shell("true", LONG);
    bench.deliver(&tar(&[file("f", "2")])).unwrap();
    assert_eq!(bench.current()["f"], "2");
}

#[test]
fn a_delivery_program_that_hangs_is_killed_in_time_with_all_it_started() {
    let mut bench = Bench::new();
    let pid = bench.path("pid");
    let script = format!("sleep 3600 & echo $! > {}; wait", pid.display());
    bench.deliver = shell(&script, Duration::from_secs(3));
    let error = bench.deliver(&tar(&[file("f", "1")])).unwrap_err();
    assert_eq!(error.stage(), Some("deliver"));
    assert!(error.to_string().contains("was killed"), "{error}");
    assert!(ends(&pid));
}

#[test]
fn a_delivery_program_that_chatters_without_end_is_heard_out_and_its_chatter_is_bounded() {
    let mut bench = Bench::new();
    let script = r#"
        n=0; while test $n -lt 3000; do echo "line $n of chatter, and more of it"; n=$((n+1)); done
        head -c 3000000 /dev/zero | tr '\0' x; echo
        echo '{"percent": 90}'
    "#;
    bench.deliver = shell(script, LONG);
    let staged = bench.stage(&tar(&[file("f", "1")]));
    let followed = Followed::default();
    bench.flasher().deliver(&staged, &work(&followed)).unwrap();
    let kept: usize = followed.lines().iter().map(String::len).sum();
    assert!(kept < 17_000, "{kept} bytes in the log");
    assert!(followed.lines().last().unwrap().contains("left out"));
    assert_eq!(followed.steps().last().unwrap().1, 95);
    // Without end it is the time that ends it.
    bench.deliver = shell("exec yes", Duration::from_millis(500));
    let error = bench.deliver(&tar(&[file("f", "1")])).unwrap_err();
    assert!(error.to_string().contains("was killed"), "{error}");
}

#[test]
fn a_delivery_that_is_told_to_stop_stops_its_program_and_begins_anew_the_next_time() {
    let mut bench = Bench::new();
    let pid = bench.path("pid");
    let script = format!(
        "echo $$ > {0}.tmp; mv {0}.tmp {0}; echo '{{\"percent\": 10}}'; exec sleep 3600",
        pid.display()
    );
    bench.deliver = shell(&script, LONG);
    let staged = bench.stage(&tar(&[file("f", "1")]));
    let followed = Followed::stopping_at(51);
    let stopped = bench.flasher().deliver(&staged, &work(&followed));
    assert_eq!(stopped, Err(FlashError::Stopped));
    assert!(ends(&pid));
    // In the middle of unpacking, too.
    let followed = Followed::stopping_at(0);
    let stopped = bench.flasher().deliver(&staged, &work(&followed));
    assert_eq!(stopped, Err(FlashError::Stopped));
    bench.deliver = shell("true", LONG);
    bench.flasher().deliver(&staged, &Work::quiet()).unwrap();
    assert_eq!(bench.current()["f"], "1");
}

/// What power going at the end of handing over leaves, with a medium that spoils the archive then.
fn spoil(bench: &Bench) {
    let artifact = bench.path("stage/artifact");
    let mut bytes = std::fs::read(&artifact).unwrap();
    bytes[0] ^= 1;
    std::fs::write(artifact, bytes).unwrap();
}

#[test]
fn an_archive_that_is_spoilt_after_it_was_handed_over_is_no_failure_and_not_handed_over_again() {
    let mut bench = Bench::new();
    let count = bench.path("count");
    bench.deliver = shell(&format!("echo >> {}", count.display()), LONG);
    let archive = tar(&[file("f", "1")]);
    let staged = bench.deliver(&archive).unwrap();
    spoil(&bench);
    let again = bench.flasher();
    again.verify(&staged).unwrap();
    again.deliver(&staged, &Work::quiet()).unwrap();
    assert_eq!(std::fs::read_to_string(&count).unwrap().lines().count(), 1);
    assert_eq!(
        again.standing(&staged),
        Ok(Standing::New { confirmed: false })
    );
    // Another time is another time, also with the same bytes.
    let anew = bench.stage(&archive);
    assert_eq!(bench.flasher().standing(&anew), Ok(Standing::NotActivated));
    spoil(&bench);
    assert!(matches!(
        bench.flasher().verify(&anew),
        Err(FlashError::Corrupt(_))
    ));
    bench.stage(&archive);
    bench.flasher().deliver(&anew, &Work::quiet()).unwrap();
    assert_eq!(std::fs::read_to_string(&count).unwrap().lines().count(), 2);
}

#[test]
fn an_archive_that_is_spoilt_while_it_is_handed_over_is_left_to_the_target_to_tell() {
    let mut bench = Bench::new();
    bench.deliver = shell("echo '{\"percent\": 10}'; exec sleep 3600", LONG);
    let staged = bench.stage(&tar(&[file("f", "1")]));
    let followed = Followed::stopping_at(51);
    let stopped = bench.flasher().deliver(&staged, &work(&followed));
    assert_eq!(stopped, Err(FlashError::Stopped));
    bench.deliver = shell("exit 1", LONG);
    let again = bench.flasher();
    assert_eq!(again.standing(&staged), Ok(Standing::NotActivated));
    spoil(&bench);
    again.verify(&staged).unwrap();
    // The program is not called with what nobody can vouch for.
    again.deliver(&staged, &Work::quiet()).unwrap();
    assert_eq!(
        again.standing(&staged),
        Ok(Standing::New { confirmed: false })
    );
}

#[test]
fn a_program_that_fails_has_not_handed_over_whatever_becomes_of_the_archive_then() {
    let mut bench = Bench::new();
    bench.deliver = shell("exit 1", LONG);
    let staged = bench.stage(&tar(&[file("f", "1")]));
    bench
        .flasher()
        .deliver(&staged, &Work::quiet())
        .unwrap_err();
    spoil(&bench);
    assert!(matches!(
        bench.flasher().verify(&staged),
        Err(FlashError::Corrupt(_))
    ));
}

#[test]
fn what_an_agent_delivered_before_it_forgot_at_staging_is_activated_and_delivered_anew() {
    let mut bench = Bench::new();
    let count = bench.path("count");
    bench.deliver = shell(&format!("echo >> {}", count.display()), LONG);
    let staged = bench.stage(&tar(&[file("f", "1")]));
    let record = format!(r#"{{"sha256":"{}","confirmed":false}}"#, staged.sha256);
    std::fs::write(bench.path("stage/delivered"), record).unwrap();
    let flasher = bench.flasher();
    assert_eq!(
        flasher.standing(&staged),
        Ok(Standing::New { confirmed: false })
    );
    flasher.activate(&staged, &Work::quiet()).unwrap();
    // A job that has not delivered yet does not take it for its own.
    flasher.deliver(&staged, &Work::quiet()).unwrap();
    assert_eq!(std::fs::read_to_string(&count).unwrap().lines().count(), 1);
    std::fs::write(
        bench.path("stage/delivered"),
        format!(r#"{{"sha256":"{}","confirmed":true}}"#, staged.sha256),
    )
    .unwrap();
    spoil(&bench);
    assert!(matches!(
        flasher.verify(&staged),
        Err(FlashError::Corrupt(_))
    ));
}
