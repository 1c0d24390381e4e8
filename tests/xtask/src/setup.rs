//! What the machine must have besides cargo: the WebAssembly standard library for adapters, and the real mosquitto for tests.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

const TARGET: &str = "wasm32-unknown-unknown";

/// All that tests, demo and benchmarks need.
pub(crate) fn all() -> Result<(), String> {
    adapters()?;
    mosquitto()
}

/// What building an adapter needs: a standard library for WebAssembly, or the sources to build one.
pub(crate) fn adapters() -> Result<(), String> {
    if toolchain_has_target() {
        return said(format!("{TARGET}: in the active toolchain"));
    }
    if debian_has("rustc-web") && debian_has("rust-web-src") {
        return said(format!("{TARGET}: by Debian's rustc-web and rust-web-src"));
    }
    eprintln!("{TARGET}: not in the active toolchain; trying rustup");
    if quiet(Command::new("rustup").args(["target", "add", TARGET])) && toolchain_has_target() {
        return said(format!("{TARGET}: added by rustup"));
    }
    let advice = format!(
        "Adapters need the standard library of {TARGET}. Either run `rustup target add {TARGET}`, or on Debian as root \
         `apt-get install --no-install-recommends rustc-web rust-web-src`."
    );
    if !release_is("debian") || !root() {
        return Err(advice);
    }
    install(&["rustc-web", "rust-web-src"]).map_err(|error| format!("{error}\n{advice}"))
}

/// The broker that tests compare our own one with.
fn mosquitto() -> Result<(), String> {
    if let Some(path) = find("mosquitto") {
        return said(format!("mosquitto: {}", path.display()));
    }
    let advice = "Tests need the broker mosquitto, version 2. On Debian as root: `apt-get install --no-install-recommends mosquitto`.";
    if !release_is("debian") || !root() {
        return Err(advice.to_owned());
    }
    install(&["mosquitto"]).map_err(|error| format!("{error}\n{advice}"))
}

fn said(text: String) -> Result<(), String> {
    eprintln!("{text}");
    Ok(())
}

fn toolchain_has_target() -> bool {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let Ok(output) = Command::new(rustc)
        .args(["--print", "target-libdir", "--target", TARGET])
        .stderr(Stdio::null())
        .output()
    else {
        return false;
    };
    let directory = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let Ok(entries) = fs::read_dir(directory) else {
        return false;
    };
    entries
        .flatten()
        .any(|entry| entry.file_name().to_string_lossy().starts_with("libstd-"))
}

fn debian_has(package: &str) -> bool {
    let query = Command::new("dpkg-query")
        .args(["--show", "--showformat", "${db:Status-Status}", package])
        .stderr(Stdio::null())
        .output();
    query.is_ok_and(|output| output.stdout == b"installed")
}

/// Installs Debian packages, asking the archive for its newest lists only when the ones at hand are not enough.
fn install(packages: &[&str]) -> Result<(), String> {
    eprintln!("installing {} with apt-get", packages.join(" "));
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null());
        quiet(&mut command)
    };
    let arguments = [&["install", "--yes", "--no-install-recommends"], packages].concat();
    if apt(&arguments) || (apt(&["update"]) && apt(&arguments)) {
        return said(format!("installed {}", packages.join(" ")));
    }
    Err(format!(
        "`apt-get install {}` failed; run it by hand to see why.",
        packages.join(" ")
    ))
}

fn quiet(command: &mut Command) -> bool {
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// A program in the search path, or where Debian keeps daemons.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/sbin")]);
    directories
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
}

fn root() -> bool {
    // The owner of a process's own entry is its effective user.
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

fn release_is(id: &str) -> bool {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    release.lines().any(|line| {
        line.strip_prefix("ID=")
            .is_some_and(|found| found.trim_matches('"') == id)
    })
}
