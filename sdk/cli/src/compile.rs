//! Runs the nested cargo: own target directory, own profile, and an environment in which nothing of the outer build is left.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::error::Error;
use crate::project::{self, Project};
use crate::toolchain::{TARGET, Toolchain};

/// The profile's name; it is defined on the command line, so that no workspace needs to know it.
const PROFILE: &str = "adapter";

/// `2` and not `s`: measured on `tests/guest`, a step takes a third less fuel for a seventh more bytes. One unit and fat LTO,
/// because a component is loaded far more often than it is built. The adapter's own arithmetic stays checked: a wrong
/// number in an update is worse than a trap.
const PROFILE_SETTINGS: [&str; 9] = [
    "inherits=\"release\"",
    "opt-level=2",
    "lto=\"fat\"",
    "codegen-units=1",
    "panic=\"abort\"",
    "strip=true",
    "debug=false",
    "overflow-checks=true",
    "package.\"*\".overflow-checks=false",
];

/// The most of cargo's output that an error repeats.
const MOST_LINES: usize = 60;

#[derive(Deserialize)]
struct Line {
    reason: String,
    manifest_path: Option<PathBuf>,
    #[serde(default)]
    filenames: Vec<PathBuf>,
}

/// Compiles the crate and gives the core module.
pub(crate) fn compile(
    project: &Project,
    toolchain: &Toolchain,
    cache: &Path,
    quiet: bool,
) -> Result<Vec<u8>, Error> {
    let mut command = project::cargo();
    clear(&mut command);
    command
        .current_dir(&project.workspace_root)
        .args([
            "build",
            "--lib",
            "--message-format",
            "json-render-diagnostics",
            "--target",
            TARGET,
        ])
        .args(["--profile", PROFILE])
        .arg("--manifest-path")
        .arg(&project.manifest)
        .arg("--target-dir")
        .arg(cache)
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(project, toolchain))
        .stdout(Stdio::piped());
    for setting in PROFILE_SETTINGS {
        command
            .arg("--config")
            .arg(format!("profile.{PROFILE}.{setting}"));
    }
    if let Toolchain::Distribution { rustc, linker, .. } = toolchain {
        command
            .arg("-Zbuild-std=std,panic_abort")
            .env("RUSTC", rustc)
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
    }
    if quiet {
        command.arg("--quiet").stderr(Stdio::piped());
    }
    let output = command
        .spawn()
        .and_then(std::process::Child::wait_with_output)
        .map_err(Error::machine(
            "start cargo; is Rust installed and in the PATH?",
        ))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = said.trim_end().lines().collect();
        let said = lines[lines.len().saturating_sub(MOST_LINES)..].join("\n");
        return Err(Error::Compile {
            name: project.name.clone(),
            said,
        });
    }
    let module = module(&output.stdout, &project.manifest)
        .ok_or_else(|| Error::Encode("cargo does not name a .wasm file for it".to_owned()))?;
    std::fs::read(&module).map_err(Error::machine(format!("read {}", module.display())))
}

/// The file that cargo says it made of this crate.
fn module(stdout: &[u8], manifest: &Path) -> Option<PathBuf> {
    String::from_utf8_lossy(stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Line>(line).ok())
        .filter(|line| {
            line.reason == "compiler-artifact" && line.manifest_path.as_deref() == Some(manifest)
        })
        .flat_map(|line| line.filenames)
        .find(|file| {
            file.extension()
                .is_some_and(|extension| extension == "wasm")
        })
}

/// Takes out of the environment what the outer cargo or the user's habits left there: flags for another target, wrappers,
/// profiles, another target directory.
fn clear(command: &mut Command) {
    let prefixes = [
        "CARGO_PROFILE_",
        "CARGO_BUILD_",
        "CARGO_TARGET_",
        "CARGO_UNSTABLE_",
        "CARGO_RESOLVER_",
        "CARGO_PKG_",
    ];
    let names = [
        "RUSTC",
        "RUSTC_BOOTSTRAP",
        "RUSTDOC",
        "RUSTFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_INCREMENTAL",
        "CARGO_MANIFEST_DIR",
        "CARGO_MANIFEST_PATH",
        "__CARGO_TEST_CHANNEL_OVERRIDE_DO_NOT_USE_THIS",
    ];
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if names.contains(&text.as_ref()) || prefixes.iter().any(|prefix| text.starts_with(prefix))
        {
            command.env_remove(&name);
        }
    }
    // Empty, not absent: that also overrules a wrapper of a configuration file.
    command
        .env("RUSTC_WRAPPER", "")
        .env("RUSTC_WORKSPACE_WRAPPER", "");
}

/// Takes this machine's folders out of panic messages, so that the same source gives the same component elsewhere. Being set at
/// all, they also overrule flags of a configuration file.
fn rustflags(project: &Project, toolchain: &Toolchain) -> OsString {
    let mut flags = OsString::new();
    let mut remap = |from: &Path, to: &str| {
        if !flags.is_empty() {
            flags.push("\u{1f}");
        }
        flags.push("--remap-path-prefix=");
        flags.push(from);
        flags.push("=");
        flags.push(to);
    };
    if let Some(home) = cargo_home() {
        // The folder of one registry has a hash in its name; it is the same everywhere.
        remap(&home.join("registry/src"), "/registry");
        remap(&home.join("git/checkouts"), "/git");
    }
    if let Toolchain::Distribution { sources, .. } = toolchain {
        remap(sources, "/library");
    }
    remap(&project.workspace_root, ".");
    flags
}

fn cargo_home() -> Option<PathBuf> {
    std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_is_the_one_of_the_crate_asked_for() {
        let stdout = br#"not json
{"reason":"compiler-artifact","manifest_path":"/other/Cargo.toml","filenames":["/t/other.wasm"]}
{"reason":"compiler-message","manifest_path":"/mine/Cargo.toml"}
{"reason":"compiler-artifact","manifest_path":"/mine/Cargo.toml","filenames":["/t/libmine.rlib","/t/mine.wasm"]}
{"reason":"build-finished","success":true}"#;
        assert_eq!(
            module(stdout, Path::new("/mine/Cargo.toml")),
            Some("/t/mine.wasm".into())
        );
        assert_eq!(module(stdout, Path::new("/third/Cargo.toml")), None);
    }
}
