//! A target that a program installs: what its exit status means, what is remembered of it, and the way back.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/ends.rs"]
mod ends;
#[path = "support/follower.rs"]
mod follower;

use std::sync::Arc;
use std::time::Duration;

use ends::ends;
use follower::Followed;
use otahost_disk::{Place, RealDisk};
use otahost_flash::{
    Activation, CommandFlasher, CommandSetup, FlashError, Flasher, Program, Staged, Standing, Work,
};

const LONG: Duration = Duration::from_secs(120);

struct Bench {
    dir: tempfile::TempDir,
    program: Program,
    rollback: Option<Program>,
    reboot: bool,
}

fn shell(script: &str, timeout: Duration) -> Program {
    Program {
        command: ["/bin/sh", "-c", script, "install"]
            .map(str::to_owned)
            .to_vec(),
        timeout,
    }
}

impl Bench {
    /// `DIR` stands for a directory of the test's own.
    fn new(script: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let script = script.replace("DIR", &dir.path().display().to_string());
        Bench {
            dir,
            program: shell(&script, LONG),
            rollback: None,
            reboot: false,
        }
    }

    fn with_rollback(mut self, script: &str) -> Self {
        let script = script.replace("DIR", &self.dir.path().display().to_string());
        self.rollback = Some(shell(&script, LONG));
        self
    }

    fn flasher(&self) -> CommandFlasher {
        CommandFlasher::new(
            Arc::new(RealDisk::operator_only()),
            CommandSetup {
                directory: Place::operator(self.dir.path().join("stage")),
                program: self.program.clone(),
                rollback: self.rollback.clone(),
                reboot: self.reboot,
            },
        )
    }

    fn stage(&self) -> Staged {
        let flasher = self.flasher();
        let stage = flasher.begin(false).unwrap();
        stage.write_at(b"firmware", 0).unwrap();
        stage.sync().unwrap();
        let sha256 = "3fd8a5c2f9c07b1f3b5c1a5b2f2ea1a3d6a1f5c2f3e4d5c6b7a8990011223344";
        flasher.finish(8, sha256).unwrap()
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(name)).unwrap_or_default()
    }
}

fn activate(bench: &Bench, staged: &Staged) -> Result<Activation, FlashError> {
    bench.flasher().activate(staged, &Work::quiet())
}

fn roll_back(bench: &Bench, staged: &Staged) -> Result<Activation, FlashError> {
    bench.flasher().roll_back(staged, &Work::quiet())
}

#[test]
fn the_program_gets_the_file_and_installs_it_once() {
    let mut bench = Bench::new(
        r#"echo run >> DIR/runs; test "$(cat "$1")" = firmware && test "$2 $3" = "drone 2.0" || exit 11
           echo '{"stage": "write", "percent": 30}'"#,
    );
    bench.reboot = true;
    let staged = bench.stage();
    let flasher = bench.flasher();
    assert_eq!(flasher.standing(&staged), Ok(Standing::NotActivated));
    let followed = Followed::default();
    let work = Work {
        target: "drone",
        version: "2.0",
        old_version: None,
        progress: &followed,
    };
    assert_eq!(
        flasher.activate(&staged, &work),
        Ok(Activation::NeedsReboot)
    );
    assert_eq!(followed.steps(), [("write".to_owned(), 30, None)]);
    assert_eq!(
        flasher.standing(&staged),
        Ok(Standing::New { confirmed: false })
    );
    // Asked again after a restart of the agent.
    assert_eq!(
        flasher.activate(&staged, &work),
        Ok(Activation::NeedsReboot)
    );
    assert_eq!(bench.read("runs"), "run\n");
    flasher.confirm(&staged).unwrap();
    flasher.confirm(&staged).unwrap();
    assert_eq!(
        flasher.standing(&staged),
        Ok(Standing::New { confirmed: true })
    );
    assert!(!bench.dir.path().join("stage/artifact").exists());
    // The same once more is another installation.
    let staged = bench.stage();
    assert_eq!(flasher.standing(&staged), Ok(Standing::NotActivated));
    flasher.activate(&staged, &work).unwrap();
    assert_eq!(bench.read("runs"), "run\nrun\n");
}

#[test]
fn what_an_exit_status_says_of_the_old_version_is_what_is_remembered() {
    for (script, standing, is_old) in [
        ("exit 10", Standing::NotActivated, true),
        ("exit 11", Standing::NotActivated, true),
        ("exit 1", Standing::Unclear, false),
        ("exit 127", Standing::Unclear, false),
        ("kill -9 $$", Standing::Unclear, false),
    ] {
        let bench = Bench::new(&format!("echo the reason >&2; {script}"));
        let staged = bench.stage();
        let error = activate(&bench, &staged).unwrap_err();
        assert!(error.to_string().contains("the reason"), "{error}");
        assert_eq!(bench.flasher().standing(&staged), Ok(standing), "{script}");
        let back = roll_back(&bench, &staged);
        if is_old {
            assert_eq!(back, Ok(Activation::Now), "{script}");
        } else {
            assert!(
                matches!(back, Err(FlashError::NoWayBack(_))),
                "{script}: {back:?}"
            );
        }
        assert!(bench.flasher().confirm(&staged).is_err());
    }
}

#[test]
fn a_program_that_does_not_exist_has_changed_nothing() {
    let mut bench = Bench::new("");
    bench.program.command = vec!["/no/such/program".into()];
    let staged = bench.stage();
    activate(&bench, &staged).unwrap_err();
    assert_eq!(
        bench.flasher().standing(&staged),
        Ok(Standing::NotActivated)
    );
}

#[test]
fn a_program_that_hangs_is_killed_and_leaves_nobody_knows_what() {
    let mut bench = Bench::new("sleep 3600 & echo $! > DIR/pid; wait");
    bench.program.timeout = Duration::from_secs(3);
    let staged = bench.stage();
    let error = activate(&bench, &staged).unwrap_err();
    assert!(error.to_string().contains("was killed"), "{error}");
    assert!(ends(&bench.dir.path().join("pid")));
    assert_eq!(bench.flasher().standing(&staged), Ok(Standing::Unclear));
}

#[test]
fn the_way_back_is_the_rollback_program_and_only_after_something_was_begun() {
    let bench = Bench::new("exit 0").with_rollback("echo back >> DIR/back");
    let staged = bench.stage();
    assert_eq!(roll_back(&bench, &staged), Ok(Activation::Now));
    assert_eq!(bench.read("back"), "", "nothing was begun");
    activate(&bench, &staged).unwrap();
    assert_eq!(roll_back(&bench, &staged), Ok(Activation::Now));
    assert_eq!(roll_back(&bench, &staged), Ok(Activation::Now), "once more");
    assert_eq!(bench.read("back"), "back\n");
    assert_eq!(
        bench.flasher().standing(&staged),
        Ok(Standing::NotActivated)
    );

    let mut reboots = Bench::new("exit 0").with_rollback("true");
    reboots.reboot = true;
    let staged = reboots.stage();
    activate(&reboots, &staged).unwrap();
    assert_eq!(roll_back(&reboots, &staged), Ok(Activation::NeedsReboot));

    let fails = Bench::new("exit 0").with_rollback("echo no >&2; exit 1");
    let staged = fails.stage();
    activate(&fails, &staged).unwrap();
    let error = roll_back(&fails, &staged).unwrap_err();
    assert!(matches!(error, FlashError::NoWayBack(_)), "{error:?}");
}

#[test]
fn a_cut_in_the_middle_of_the_program_is_seen_and_the_program_is_run_again() {
    let bench =
        Bench::new("echo run >> DIR/runs; test -e DIR/second || { touch DIR/second; exit 1; }");
    let staged = bench.stage();
    // For the flasher a cut and an end that says nothing are the same.
    activate(&bench, &staged).unwrap_err();
    assert_eq!(bench.flasher().standing(&staged), Ok(Standing::Unclear));
    assert_eq!(activate(&bench, &staged), Ok(Activation::Now));
    assert_eq!(bench.read("runs"), "run\nrun\n");
    assert_eq!(
        bench.flasher().standing(&staged),
        Ok(Standing::New { confirmed: false })
    );
}
