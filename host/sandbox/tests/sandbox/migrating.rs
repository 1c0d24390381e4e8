//! `migrate`: what comes back, and what bounds it. The rogue gives back what it got from version 1 and 4, refuses version 2, and makes a
//! state that is too large of version 3.

use otahost_core::model::{MAX_CONTEXT, MAX_STATE};
use otahost_sandbox::{FailureKind, Limits};

use crate::components::rogue_but;
use crate::{rogue, rogue_with};

#[test]
fn a_state_of_any_size_up_to_the_limit_is_migrated_and_the_original_stays() {
    for size in [0, 1, MAX_CONTEXT, MAX_STATE] {
        let state = vec![7; size];
        assert_eq!(rogue().migrate(1, &state).unwrap().unwrap(), state);
        assert_eq!(state, vec![7; size]);
    }
}

#[test]
fn a_refusal_is_an_answer_and_no_failure() {
    assert_eq!(
        rogue().migrate(2, b"s").unwrap(),
        Err("no thanks\\n".into())
    );
    assert_eq!(
        rogue().migrate_context(2, b"s").unwrap(),
        Err("no thanks\\n".into())
    );
}

#[test]
fn what_comes_out_is_bounded_as_a_state_or_as_a_context() {
    let failed = rogue().migrate(1, &[0; MAX_STATE + 1]).unwrap_err();
    assert_eq!(
        failed.kind,
        FailureKind::Malformed("the migrated state has 60001 bytes, more than 60000".into())
    );
    let context = vec![1; MAX_CONTEXT];
    assert_eq!(
        rogue().migrate_context(1, &context).unwrap().unwrap(),
        context
    );
    let failed = rogue()
        .migrate_context(1, &[0; MAX_CONTEXT + 1])
        .unwrap_err();
    assert_eq!(
        failed.kind,
        FailureKind::Malformed("the migrated job context has 4097 bytes, more than 4096".into())
    );
}

#[test]
fn a_migration_that_traps_loops_or_asks_the_host_is_a_failure() {
    let with = |body: &str| {
        let marker = "(call $pair (i32.const 4100) (local.get $state) (local.get $length))";
        let component = rogue_but(marker, &format!("{body}\n{marker}"));
        let limits = Limits {
            other_fuel: 1_000_000,
            ..Limits::default()
        };
        let sandbox = otahost_sandbox::Sandbox::new(limits).unwrap();
        let adapter = sandbox.load("rogue", &component).unwrap();
        adapter.migrate(1, b"state").unwrap_err().kind
    };
    assert!(matches!(with("(unreachable)"), FailureKind::Trap(_)));
    assert_eq!(
        with("(loop $again (br $again))"),
        FailureKind::OutOfFuel(1_000_000)
    );
    let asked = with("(drop (call $now))");
    assert!(
        matches!(&asked, FailureKind::Malformed(why) if why.contains("`now`")),
        "{asked}"
    );
}

#[test]
fn a_migration_that_takes_too_much_memory_is_a_failure() {
    let adapter = rogue_with(Limits {
        memory_bytes: 4 * 65_536,
        ..Limits::default()
    });
    // Its memory of 256 KiB has room for the state four times, and `cabi_realloc` gives nothing back.
    assert!(
        adapter
            .migrate(1, &[0; 100_000])
            .unwrap_err()
            .to_string()
            .contains("100000")
    );
    let kind = adapter.migrate(1, &[0; 300_000]).unwrap_err().kind;
    assert!(matches!(kind, FailureKind::Limit(_)), "{kind}");
}
