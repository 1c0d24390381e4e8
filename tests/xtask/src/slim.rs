//! `cargo xtask slim`: the agent without the compiler, its size, and the tests that apply to it.
//!
//! Beside the other builds, with a directory of its own: its features are others, and one directory for both would build everything twice
//! over, again and again.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::stage::{Failed, Show, Stages};

/// DESIGN §10: the binary without the compiler, stripped.
const BUDGET: u64 = 10_000_000;
/// The program, below the root.
const PROGRAM: &str = "target/slim/slim/otahost";
/// What the lab's machines are made of in its place: see `OTAHOST_LAB_SLIM` in tests/lab.
const LAB: &str = "target/slim/lab";

pub(crate) fn all(stages: &mut Stages) -> Result<(), Failed> {
    stages.cargo(
        "build without the compiler",
        &[
            "build",
            "--profile",
            "slim",
            "--package",
            "otahost",
            "--no-default-features",
            "--target-dir",
            "target/slim",
        ],
        &[],
    )?;
    let root = stages.root().to_owned();
    stages.run("size", || size(&root.join(PROGRAM)))?;
    let lab = root.join(LAB);
    stages.run("a place for the lab", || prepare(&root, &lab))?;
    let at = |name: &str| lab.join(name).display().to_string();
    let make = |stages: &mut Stages, stage: &str, arguments: &[&str]| {
        stages.program(stage, "otahost", arguments, Show::Problems)
    };
    make(stages, "keys", &["keygen", &at("vendor")])?;
    let code = at("dji.cwasm");
    let compile = ["compile", "target/adapters/dji.wasm", "--out", &code];
    make(stages, "compile an adapter", &compile)?;
    let (key, signed) = (at("vendor.key"), at("dji"));
    let sign = ["sign", &code, "--key", &key, "--out", &signed];
    make(stages, "sign it", &sign)?;
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
    stages.cargo(
        "tests of the whole, without the compiler",
        &[
            "test",
            "--workspace",
            "--test",
            "ota_create",
            "--test",
            "images",
            "--test",
            "kills",
            "--test",
            "safe_mode",
        ],
        &[("OTAHOST_LAB_SLIM", &lab.display().to_string())],
    )?;
    stages.summary();
    Ok(())
}

/// Says the size beside the budget, missed or not: the tests after it are about something else.
fn size(program: &Path) -> Result<(), String> {
    let bytes = fs::metadata(program).map_err(|e| e.to_string())?.len();
    let verdict = if bytes <= BUDGET { "kept" } else { "missed" };
    eprintln!("{bytes} bytes, stripped; the budget of {BUDGET} is {verdict}");
    Ok(())
}

/// Fresh keys for every run: none lie about.
fn prepare(root: &Path, lab: &Path) -> Result<(), String> {
    if lab.exists() {
        fs::remove_dir_all(lab).map_err(|e| e.to_string())?;
    }
    fs::create_dir_all(lab).map_err(|e| e.to_string())?;
    let copied = Command::new("cp").arg(root.join(PROGRAM)).arg(lab).status();
    match copied {
        Ok(status) if status.success() => Ok(()),
        other => Err(format!("the program cannot be copied: {other:?}")),
    }
}
