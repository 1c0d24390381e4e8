//! `cargo xtask slim`: the agent without the compiler, its size, and the tests that apply to it.
//!
//! Beside the other builds, with a directory of its own: its features are others, and one directory for both would build everything twice
//! over, again and again.

use std::fs;
use std::path::Path;

use crate::stage::{Failed, Show, Stages};

/// DESIGN §10: the binary without the compiler, stripped.
const BUDGET: u64 = 10_000_000;
/// The program, below the root, where everybody looks for it.
const PROGRAM: &str = "target/slim/slim/otahost";
/// Tables for unwinding would be a sixth of the program, and nothing unwinds in this profile. Only the target's code does without: build
/// scripts are built for the host, and unwind.
const FLAGS: &str = "-C force-unwind-tables=no";
/// Those of std and of the C libraries were built before: they are left out when the program is linked.
const NO_TABLES: &str = "SECTIONS { /DISCARD/ : { *(.eh_frame) *(.eh_frame_hdr) *(.gcc_except_table .gcc_except_table.*) } } INSERT BEFORE .text;\n";
/// What applies to an agent without a compiler: whatever talks to a real agent through an adapter it loads from its configuration. The
/// rest needs a compiler (`adapter_cache`, `refused_components`: what compiling says and keeps), a component of the test's own or of a
/// repository (`adapter_set_aside`, `drop_in`, `repository`), or runs in the simulator, which has no such build.
const TESTS: [&str; 16] = [
    "broker",
    "deadman",
    "four_adapters",
    "images",
    "kills",
    "kit112",
    "network",
    "operator",
    "ota_create",
    "safe_mode",
    "storage",
    "swap_kills",
    "swap_traffic",
    "withnox",
    "withnox_kills",
    "wudun",
];
/// Of those, what is about the cache of compiled code.
const SKIPPED: [&str; 1] = ["an_adapter_runs_also_where_there_is_no_space_for_its_native_code"];
/// The same with the interpreter alone, for `cargo xtask bench`.
const PULLEY: &str = "target/pulley/otahost";
/// What the lab's machines are made of in its place: see `OTAHOST_LAB_SLIM` in tests/lab.
const LAB: &str = "target/slim/lab";
/// Where the components are.
const COMPONENTS: &str = "target/adapters";

pub(crate) fn all(stages: &mut Stages) -> Result<(), Failed> {
    build(stages, "build without the compiler", &[], PROGRAM)?;
    let root = stages.root().to_owned();
    let program = root.join(PROGRAM);
    stages.run("size", || size(&program))?;
    let lab = root.join(LAB);
    stages.run("a place for the lab", || prepare(&program, &lab))?;
    let at = |name: &str| lab.join(name).display().to_string();
    let make = |stages: &mut Stages, stage: &str, arguments: &[&str]| {
        stages.program(stage, "otahost", arguments, Show::Problems)
    };
    make(stages, "keys", &["keygen", &at("vendor")])?;
    let key = at("vendor.key");
    for adapter in adapters(&root.join(COMPONENTS)) {
        let component = format!("{COMPONENTS}/{adapter}.wasm");
        let (code, signed) = (at(&format!("{adapter}.cwasm")), at(&adapter));
        let compile = ["compile", &component, "--out", &code];
        make(stages, &format!("compile {adapter}"), &compile)?;
        let sign = ["sign", &code, "--key", &key, "--out", &signed];
        make(stages, &format!("sign {adapter}"), &sign)?;
    }
    stages.run("the signer's key", || {
        let public = fs::read_to_string(lab.join("vendor.pub")).map_err(|e| e.to_string())?;
        let key = public.lines().nth(1).ok_or("a public key has two lines")?;
        fs::write(lab.join("trust"), key).map_err(|e| e.to_string())
    })?;
    stages.cargo(
        "tests of signed code",
        &[
            "test",
            "--workspace",
            "--test",
            "signed_code",
            "--",
            "--include-ignored",
        ],
        &[],
    )?;
    let mut tests = vec!["test", "--workspace", "--no-fail-fast"];
    tests.extend(TESTS.iter().flat_map(|test| ["--test", test]));
    tests.push("--");
    tests.extend(SKIPPED.iter().flat_map(|test| ["--skip", test]));
    stages.cargo(
        "tests of the whole, without the compiler",
        &tests,
        &[("OTAHOST_LAB_SLIM", &lab.display().to_string())],
    )?;
    stages.summary();
    Ok(())
}

/// Builds it, and one that has the engine's interpreter too, and tests neither.
pub(crate) fn builds(stages: &mut Stages) -> Result<(), Failed> {
    build(stages, "build without the compiler", &[], PROGRAM)?;
    let with = ["--features", "interpreter"];
    build(stages, "build with the interpreter alone", &with, PULLEY)?;
    let root = stages.root().to_owned();
    stages.run("sizes", || {
        size(&root.join(PROGRAM))?;
        size(&root.join(PULLEY))
    })?;
    stages.summary();
    Ok(())
}

fn build(stages: &mut Stages, stage: &str, with: &[&str], program: &str) -> Result<(), Failed> {
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let root = stages.root().to_owned();
    let script = root.join("target/slim/no-tables.ld");
    stages.run("what the linker leaves out", || {
        fs::create_dir_all(root.join("target/slim"))
            .and_then(|()| fs::write(&script, NO_TABLES))
            .map_err(|e| format!("{} cannot be written: {e}", script.display()))
    })?;
    let script = format!("link-arg=-Wl,-T,{}", script.display());
    let arguments = [
        "rustc",
        "--profile",
        "slim",
        "--package",
        "otahost",
        "--no-default-features",
        "--target",
        &triple,
        "--target-dir",
        "target/slim",
        "--bin",
        "otahost",
    ];
    // Addresses that are moved at the start take few bits each in their packed form, and twenty-four bytes in the other.
    let to_linker = [
        "--",
        "-C",
        "link-arg=-Wl,-z,pack-relative-relocs",
        "-C",
        "link-arg=-Wl,--no-eh-frame-hdr",
        "-C",
        &script,
    ];
    let arguments = [&arguments[..], with, &to_linker].concat();
    stages.cargo(stage, &arguments, &[("RUSTFLAGS", FLAGS)])?;
    let built = root.join("target/slim").join(&triple).join("slim/otahost");
    stages.run("put it into its place", || {
        place(&built, &root.join(program))
    })
}

/// The names of the components that were built.
fn adapters(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            name.strip_suffix(".wasm").map(str::to_owned)
        })
        .collect();
    names.sort();
    names
}

/// Says the size beside the budget, missed or not: the tests after it are about something else.
fn size(program: &Path) -> Result<(), String> {
    let bytes = fs::metadata(program).map_err(|e| e.to_string())?.len();
    let verdict = if bytes <= BUDGET { "kept" } else { "missed" };
    eprintln!("{bytes} bytes, stripped; the budget of {BUDGET} is {verdict}");
    Ok(())
}

/// Fresh keys for every run: none lie about.
fn prepare(program: &Path, lab: &Path) -> Result<(), String> {
    if lab.exists() {
        fs::remove_dir_all(lab).map_err(|e| e.to_string())?;
    }
    place(program, &lab.join("otahost"))
}

/// Copies a program. What was there may be running.
fn place(program: &Path, to: &Path) -> Result<(), String> {
    let copy = || {
        fs::create_dir_all(to.parent().unwrap_or(Path::new(".")))?;
        let _ = fs::remove_file(to);
        fs::copy(program, to)
    };
    copy()
        .map(drop)
        .map_err(|e| format!("{} cannot be copied: {e}", program.display()))
}
