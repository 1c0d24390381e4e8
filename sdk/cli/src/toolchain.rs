//! Finds a compiler that can build for `wasm32-unknown-unknown`: the active one, one that rustup completes, or a distribution's
//! with its library sources.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::Error;

/// The one target: it has no system interface, so that nothing but the contract can be imported.
pub(crate) const TARGET: &str = "wasm32-unknown-unknown";

/// Where Debian's `rustc-web` puts its compiler.
const DISTRIBUTION_RUSTC: &str = "/usr/bin/rustc";

/// The oldest compiler that takes the SDK, from its own `rust-version`.
const OLDEST: &str = env!("CARGO_PKG_RUST_VERSION");

/// Which toolchain may be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The first that works: installed, rustup, distribution.
    Auto,
    /// The active toolchain, with the target's standard library that it has already.
    Installed,
    /// The active toolchain, after `rustup target add`.
    Rustup,
    /// A distribution's compiler, which builds the standard library from its sources.
    Distribution,
}

/// A compiler that can.
#[derive(Debug, Clone)]
pub(crate) enum Toolchain {
    /// The standard library for the target is there.
    Active { version: Version, added: bool },
    /// The standard library is built from its sources.
    Distribution {
        version: Version,
        rustc: PathBuf,
        sources: PathBuf,
        linker: PathBuf,
    },
}

/// What `rustc -vV` says.
#[derive(Debug, Clone)]
pub(crate) struct Version {
    line: String,
    release: String,
    commit: String,
    host: String,
}

impl Toolchain {
    /// Names the cache: what one compiler built is of no use to another.
    pub(crate) fn key(&self) -> String {
        let (version, kind) = match self {
            Toolchain::Active { version, .. } => (version, "std"),
            Toolchain::Distribution { version, .. } => (version, "build-std"),
        };
        let commit: String = version
            .commit
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .take(9)
            .collect();
        format!("rustc-{}-{commit}-{kind}", version.release)
    }

    /// The compiler's version line.
    pub(crate) fn compiler(&self) -> &str {
        match self {
            Toolchain::Active { version, .. } | Toolchain::Distribution { version, .. } => {
                &version.line
            }
        }
    }
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Toolchain::Active {
                version,
                added: false,
            } => {
                write!(f, "{} (active; has the library for {TARGET})", version.line)
            }
            Toolchain::Active {
                version,
                added: true,
            } => {
                write!(
                    f,
                    "{} (active; rustup added the library for {TARGET})",
                    version.line
                )
            }
            Toolchain::Distribution {
                version,
                rustc,
                sources,
                linker,
            } => write!(
                f,
                "{} ({}; builds the library from {}, links with {})",
                version.line,
                rustc.display(),
                sources.display(),
                linker.display()
            ),
        }
    }
}

/// Finds one. `dir` is the project's, because a `rust-toolchain.toml` there decides what is active; `adapters` is where a
/// former refusal of rustup is remembered.
pub(crate) fn find(
    choice: Choice,
    dir: &Path,
    adapters: &Path,
    progress: &mut dyn FnMut(&str),
) -> Result<Toolchain, Error> {
    let mut tried = Vec::new();
    let active = version(Path::new("rustc"), dir);
    let wants = |one: Choice| choice == Choice::Auto || choice == one;
    match &active {
        Err(why) => tried.push(format!("the active toolchain: {why}")),
        Ok(version) if wants(Choice::Installed) || choice == Choice::Rustup => {
            match std_library(dir) {
                Ok(()) => {
                    return Ok(Toolchain::Active {
                        version: version.clone(),
                        added: false,
                    });
                }
                Err(why) => tried.push(format!("the active toolchain ({}): {why}", version.line)),
            }
            if wants(Choice::Rustup) {
                match rustup_add(version, choice, dir, adapters, progress) {
                    Ok(()) => {
                        return Ok(Toolchain::Active {
                            version: version.clone(),
                            added: true,
                        });
                    }
                    Err(why) => tried.push(format!("rustup target add {TARGET}: {why}")),
                }
            }
        }
        Ok(_) => {}
    }
    if wants(Choice::Distribution) {
        match distribution(Path::new(DISTRIBUTION_RUSTC), dir, active.as_ref().ok()) {
            Ok(toolchain) => return Ok(toolchain),
            Err(why) => tried.push(format!("a distribution's compiler: {why}")),
        }
    }
    Err(Error::NoToolchain(tried))
}

/// Asks a compiler what it is, and refuses one that is too old.
fn version(rustc: &Path, dir: &Path) -> Result<Version, String> {
    let text = ask(rustc, &["-vV"], dir)?;
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name))
            .map(|value| value.trim().to_owned())
            .ok_or_else(|| format!("{} -vV does not say its {name}", rustc.display()))
    };
    let version = Version {
        line: text.lines().next().unwrap_or_default().to_owned(),
        release: field("release:")?,
        commit: field("commit-hash:")?,
        host: field("host:")?,
    };
    if numbers(&version.release) < numbers(OLDEST) {
        return Err(format!(
            "{} is too old; the SDK needs {OLDEST}",
            version.line
        ));
    }
    Ok(version)
}

/// Major and minor version.
fn numbers(release: &str) -> (u32, u32) {
    let mut parts = release.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

/// Runs a program and gives what it printed.
fn ask(program: &Path, arguments: &[&str], dir: &Path) -> Result<String, String> {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(dir)
        .output()
        .map_err(|e| format!("{} does not start: {e}", program.display()))?;
    if !output.status.success() {
        return Err(last_words(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The line of an error output that says most: the last that begins with `error`, else the last.
fn last_words(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let error = lines.iter().rev().find(|line| line.starts_with("error"));
    error.or(lines.last()).map_or_else(
        || "it failed without a word".to_owned(),
        |line| (*line).to_owned(),
    )
}

/// Checks that the active compiler has the target's standard library.
fn std_library(dir: &Path) -> Result<(), String> {
    let folder = ask(
        Path::new("rustc"),
        &["--print", "target-libdir", "--target", TARGET],
        dir,
    )?;
    let folder = PathBuf::from(folder.trim());
    let has_std = std::fs::read_dir(&folder).is_ok_and(|entries| {
        entries.flatten().any(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.starts_with("libstd-") && name.ends_with(".rlib")
        })
    });
    if has_std {
        Ok(())
    } else {
        Err(format!("has no standard library for {TARGET}"))
    }
}

/// Has rustup add the target. A refusal (no network) is remembered for a day and this compiler, so that the next build need not wait for it.
fn rustup_add(
    version: &Version,
    choice: Choice,
    dir: &Path,
    adapters: &Path,
    progress: &mut dyn FnMut(&str),
) -> Result<(), String> {
    let refusal = adapters.join(format!(
        "rustup-refused-{}-{}",
        version.release, version.host
    ));
    let day = std::time::Duration::from_secs(24 * 3600);
    let fresh = std::fs::metadata(&refusal)
        .and_then(|meta| meta.modified())
        .is_ok_and(|at| at.elapsed().is_ok_and(|age| age < day));
    if fresh && choice == Choice::Auto {
        let why = std::fs::read_to_string(&refusal).unwrap_or_default();
        return Err(format!(
            "{} (remembered; remove {} to try again)",
            why.trim(),
            refusal.display()
        ));
    }
    if Command::new("rustup")
        .arg("--version")
        .current_dir(dir)
        .output()
        .is_err()
    {
        return Err("there is no rustup".to_owned());
    }
    progress(&format!(
        "the active compiler has no library for {TARGET}: asking rustup for it"
    ));
    let outcome =
        ask(Path::new("rustup"), &["target", "add", TARGET], dir).and_then(|_| std_library(dir));
    match &outcome {
        Ok(()) => {
            // Nothing to remember any more; where nothing was, nothing is lost.
            let _ = std::fs::remove_file(&refusal);
        }
        Err(why) => {
            // Only a saving of time: without the note the next build asks again.
            let _ = std::fs::create_dir_all(adapters).and_then(|()| std::fs::write(&refusal, why));
        }
    }
    outcome
}

/// A distribution's compiler, its library sources and a linker for WebAssembly.
fn distribution(rustc: &Path, dir: &Path, active: Option<&Version>) -> Result<Toolchain, String> {
    if !rustc.is_file() {
        return Err(format!("there is no {}", rustc.display()));
    }
    let version = version(rustc, dir)?;
    let sysroot = ask(rustc, &["--print", "sysroot"], dir)?;
    let sources = PathBuf::from(sysroot.trim()).join("lib/rustlib/src/rust/library");
    if !sources.join("std/Cargo.toml").is_file() {
        return Err(format!(
            "{} has no library sources in {}",
            version.line,
            sources.display()
        ));
    }
    let linker = linker(dir, active, &version)?;
    Ok(Toolchain::Distribution {
        version,
        rustc: rustc.to_owned(),
        sources,
        linker,
    })
}

/// Debian's compiler comes without a linker for WebAssembly; the one that rustup ships does.
fn linker(dir: &Path, active: Option<&Version>, distribution: &Version) -> Result<PathBuf, String> {
    let host = active.map_or(&distribution.host, |version| &version.host);
    let shipped = |rustc: &str| {
        let sysroot = ask(Path::new(rustc), &["--print", "sysroot"], dir).ok()?;
        let lld = PathBuf::from(sysroot.trim())
            .join("lib/rustlib")
            .join(host)
            .join("bin/rust-lld");
        lld.is_file().then_some(lld)
    };
    let in_path = || {
        let path = std::env::var_os("PATH")?;
        let mut folders = std::env::split_paths(&path);
        folders.find_map(|folder| {
            ["rust-lld", "wasm-ld"]
                .iter()
                .map(|name| folder.join(name))
                .find(|file| file.is_file())
        })
    };
    shipped("rustc").or_else(|| shipped(DISTRIBUTION_RUSTC)).or_else(in_path).ok_or_else(|| {
        format!(
            "{} has no linker for WebAssembly: neither rust-lld in a toolchain of rustup nor wasm-ld in the PATH \
             (apt-get install lld)",
            distribution.line
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(numbers("1.100.0") > numbers("1.95"));
        assert!(numbers("1.63.0") < numbers("1.95"));
        assert_eq!(numbers("1.95.0-nightly"), numbers("1.95"));
    }

    #[test]
    fn what_went_wrong_is_taken_from_the_line_that_says_error() {
        assert_eq!(
            last_words(b"info: trying\nerror: no network\nnote: see above\n"),
            "error: no network"
        );
        assert_eq!(last_words(b"a\nb\n\n"), "b");
        assert_eq!(last_words(b""), "it failed without a word");
    }

    #[test]
    fn a_missing_compiler_is_told_and_not_taken() {
        let why = distribution(Path::new("/nonexistent/rustc"), Path::new("."), None)
            .expect_err("there is none");
        assert!(why.contains("there is no /nonexistent/rustc"), "{why}");
    }
}
