//! The compiler in its own process: what it gives, and how each limit ends it.
//!
//! This executable is its own child: with a word as argument it plays a part, without one it runs the tests. No harness, because the
//! compiler's standard output has to be its own.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../sandbox/components.rs"]
mod components;
mod parts;

use std::ffi::OsString;
use std::panic::{self, AssertUnwindSafe};
use std::time::Duration;

use otahost_sandbox::{
    Bounds, Cache, ChildFault, ChildLimits, Compile, How, Limits, LoadError, Sandbox,
};

use components::{ROGUE, bloated, contract, encode, rogue_component};

/// Long enough that only a fault ever reaches it.
const PATIENCE: Duration = Duration::from_secs(120);
const MIB: u64 = 1024 * 1024;

fn program(part: &str) -> Vec<OsString> {
    vec![std::env::current_exe().unwrap().into(), part.into()]
}

fn limits() -> ChildLimits {
    ChildLimits {
        wall: PATIENCE,
        ..ChildLimits::default()
    }
}

fn sandbox() -> Sandbox {
    Sandbox::new(Limits::default()).unwrap()
}

fn fault_of(program: &[OsString], component: &[u8], limits: &ChildLimits) -> ChildFault {
    match sandbox().compile_in_child("rogue", program, component, limits) {
        Err(LoadError::Compiler { adapter, fault }) => {
            assert_eq!(adapter, "rogue");
            fault
        }
        Err(other) => panic!("{other}"),
        Ok(code) => panic!("{code:?}"),
    }
}

fn fault(part: &str, limits: &ChildLimits) -> ChildFault {
    fault_of(&program(part), rogue_component(), limits)
}

fn a_component_compiles_there_to_the_same_code_as_here() {
    let sandbox = sandbox();
    let there = sandbox
        .compile_in_child("rogue", &program("compile"), rogue_component(), &limits())
        .unwrap();
    assert!(there == sandbox.compile("rogue", rogue_component()).unwrap());
    let adapter = sandbox.load_compiled("rogue", &there).unwrap();
    assert_eq!(adapter.describe().unwrap().version, "0.0.1");
    assert_eq!(adapter.digest(), there.component());
}

fn the_cache_compiles_there_and_loads_here() {
    let disk = std::sync::Arc::new(otahost_disk::sim::SimDisk::new());
    let place = otahost_disk::Place::data("native");
    let cache = Cache::open(disk, place, Bounds::default()).unwrap();
    let (program, limits) = (program("compile"), limits());
    let compile = Compile::InChild {
        program: &program,
        limits: &limits,
    };
    let how = || {
        let loaded = cache.load(&sandbox(), "rogue", rogue_component(), compile);
        loaded.unwrap().how
    };
    assert!(matches!(how(), How::Compiled { .. }));
    assert_eq!(how(), How::Cached);
}

fn garbage_is_refused_before_a_process_is_started() {
    let nowhere = [OsString::from("/nonexistent/otahost")];
    for garbage in [&b"\0asm"[..], b"", b"#!/bin/sh\n"] {
        let error = sandbox().compile_in_child("rogue", &nowhere, garbage, &limits());
        let error = error.unwrap_err();
        assert!(matches!(error, LoadError::Invalid { .. }), "{error}");
    }
}

fn a_component_that_is_not_valid_is_refused_in_the_compilers_words() {
    let broken = ROGUE.replace(";;FUNCTIONS", "(func (result i32) (i64.const 0))");
    let broken = encode(&broken, &[&contract()], "update-adapter");
    let fault = fault_of(&program("compile"), &broken, &limits());
    assert!(
        matches!(&fault, ChildFault::Invalid(why) if why.contains("type mismatch")),
        "{fault}"
    );
    assert!(!fault.may_pass());
}

fn a_bomb_of_many_functions_runs_out_of_processor_time() {
    let limits = ChildLimits {
        cpu_seconds: 1,
        ..limits()
    };
    let fault = fault_of(&program("compile"), &bloated(3_000, 300), &limits);
    assert_eq!(fault, ChildFault::CpuTime(1));
    assert!(
        fault.to_string().contains("1 s of processor time"),
        "{fault}"
    );
}

fn a_bomb_of_one_huge_function_runs_out_of_memory() {
    let limits = ChildLimits {
        memory: 192 * MIB,
        ..limits()
    };
    let fault = fault_of(&program("compile"), &bloated(1, 500_000), &limits);
    assert_eq!(fault, ChildFault::Memory(192 * MIB));
    assert!(fault.to_string().contains("192 MiB"), "{fault}");
    // The limit is the bomb's doing and not the rogue's.
    let code = sandbox().compile_in_child("rogue", &program("compile"), rogue_component(), &limits);
    code.unwrap();
}

fn too_little_memory_to_begin_with_is_told_as_such() {
    let limits = ChildLimits {
        memory: MIB,
        ..limits()
    };
    assert_eq!(fault("compile", &limits), ChildFault::Memory(MIB));
}

fn a_process_that_hangs_is_killed() {
    let limits = ChildLimits {
        wall: Duration::from_millis(300),
        ..limits()
    };
    let shell = |script: &str| ["/bin/sh", "-c", script].map(OsString::from).to_vec();
    for program in [
        program("hang"),
        program("hang-unread"),
        shell("exec <&- >&- 2>&-; exec sleep 3600"),
        // What it starts holds its streams and is killed with it.
        shell("sleep 3600 & wait"),
    ] {
        let fault = fault_of(&program, rogue_component(), &limits);
        assert_eq!(fault, ChildFault::WallClock(300), "{program:?}");
        assert!(fault.may_pass());
    }
    let mine = rustix::process::waitpid(None, rustix::process::WaitOptions::NOHANG);
    assert_eq!(
        mine.unwrap_err(),
        rustix::io::Errno::CHILD,
        "none is left behind"
    );
}

fn a_flood_of_output_is_cut_and_ends_the_process() {
    let limits = ChildLimits {
        output: 100_000,
        ..limits()
    };
    assert_eq!(fault("flood", &limits), ChildFault::Output(100_000));
    assert_eq!(
        fault(
            "compile",
            &ChildLimits {
                output: 1_000,
                ..limits
            }
        ),
        ChildFault::Output(1_000)
    );
}

fn a_flood_of_complaints_stops_nothing() {
    let code =
        sandbox().compile_in_child("rogue", &program("complain"), rogue_component(), &limits());
    assert_eq!(
        code.unwrap().component(),
        sandbox().load("rogue", rogue_component()).unwrap().digest()
    );
}

fn every_other_end_has_its_own_words() {
    let crashed = fault("panic", &limits());
    assert!(
        matches!(&crashed, ChildFault::Crashed(how) if how.contains("panicked") && how.contains("on purpose")),
        "{crashed}"
    );
    let aborted = fault("abort", &limits());
    assert!(
        matches!(&aborted, ChildFault::Crashed(how) if how.contains("signal 6")),
        "{aborted}"
    );
    assert_eq!(fault("killed", &limits()), ChildFault::Killed);
    for foreign in ["nonsense", "silence", "cut-off"] {
        let fault = fault(foreign, &limits());
        assert!(
            matches!(&fault, ChildFault::Foreign(_)),
            "{foreign}: {fault}"
        );
    }
    let other = fault("other-build", &limits());
    assert!(
        matches!(&other, ChildFault::Foreign(why) if why.contains("another build")),
        "{other}"
    );
    let nowhere = fault_of(
        &["/nonexistent/otahost".into()],
        rogue_component(),
        &limits(),
    );
    assert!(matches!(&nowhere, ChildFault::Start(_)), "{nowhere}");
    let nobody = fault_of(&[], rogue_component(), &limits());
    assert!(matches!(&nobody, ChildFault::Start(_)), "{nobody}");
}

fn the_process_is_under_its_limits_before_it_reads_the_component_and_has_no_environment() {
    let limits = ChildLimits {
        memory: 300 * MIB,
        cpu_seconds: 7,
        ..limits()
    };
    let ChildFault::Crashed(said) = fault("show-limits", &limits) else {
        panic!("it shows them by a panic")
    };
    let expected = format!("as {} cpu 7-8 core 0 fsize 0 nofile 16 env 0", 300 * MIB);
    assert!(said.contains(&expected), "{said}");
}

fn main() {
    let mut arguments = std::env::args().skip(1).peekable();
    if let Some(code) = arguments.peek().and_then(|part| parts::play(part)) {
        std::process::exit(code);
    }
    macro_rules! tests {
        ($($name:ident)*) => { [$((stringify!($name), $name as fn())),*] };
    }
    let tests = tests! {
        a_component_compiles_there_to_the_same_code_as_here
        the_cache_compiles_there_and_loads_here
        garbage_is_refused_before_a_process_is_started
        a_component_that_is_not_valid_is_refused_in_the_compilers_words
        a_bomb_of_many_functions_runs_out_of_processor_time
        a_bomb_of_one_huge_function_runs_out_of_memory
        too_little_memory_to_begin_with_is_told_as_such
        a_process_that_hangs_is_killed
        a_flood_of_output_is_cut_and_ends_the_process
        a_flood_of_complaints_stops_nothing
        every_other_end_has_its_own_words
        the_process_is_under_its_limits_before_it_reads_the_component_and_has_no_environment
    };
    let arguments: Vec<String> = arguments.collect();
    if arguments.iter().any(|argument| argument == "--list") {
        tests.iter().for_each(|(name, _)| println!("{name}: test"));
        return;
    }
    // As the usual harness: a word that is no option selects by name.
    let wanted = |name: &str| {
        let mut words = arguments
            .iter()
            .filter(|argument| !argument.starts_with('-'))
            .peekable();
        words.peek().is_none() || words.any(|word| name.contains(word.as_str()))
    };
    let (mut passed, mut failed) = (0, Vec::new());
    for (name, test) in tests.into_iter().filter(|(name, _)| wanted(name)) {
        match panic::catch_unwind(AssertUnwindSafe(test)) {
            Ok(()) => {
                passed += 1;
                println!("test {name} ... ok");
            }
            Err(_) => {
                failed.push(name);
                println!("test {name} ... FAILED");
            }
        }
    }
    println!("\ntest result: {passed} passed; {} failed", failed.len());
    if !failed.is_empty() {
        println!("failed: {}", failed.join(", "));
        std::process::exit(101);
    }
}
