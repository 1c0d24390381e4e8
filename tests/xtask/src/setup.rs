//! What the machine must have besides cargo: the WebAssembly standard library for adapters, and the real servers for tests.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const TARGET: &str = "wasm32-unknown-unknown";

/// Servers that tests run as processes of their own. Program, Debian package and systemd unit have the same name.
const SERVERS: [(&str, &str); 3] = [
    ("mosquitto", "the MQTT broker mosquitto, version 2"),
    ("nginx", "the web server nginx"),
    ("vsftpd", "the FTP server vsftpd"),
];

/// What benchmarks compare with and measure by: program and Debian package. None of it runs as a service of the machine.
const PEERS: [(&str, &str); 10] = [
    ("swupdate", "swupdate"),
    ("rauc", "rauc"),
    ("mksquashfs", "squashfs-tools"),
    ("mosquitto_sub", "mosquitto-clients"),
    ("dbus-daemon", "dbus-daemon"),
    ("openssl", "openssl"),
    ("curl", "curl"),
    ("cpio", "cpio"),
    ("time", "time"),
    ("strace", "strace"),
];
/// Units that they bring along.
const PEER_UNITS: [&str; 3] = [
    "swupdate.service",
    "swupdate.socket",
    "swupdate-progress.service",
];

/// All that tests and demo need.
pub(crate) fn all() -> Result<(), String> {
    adapters()?;
    servers()
}

/// What benchmarks need beside that. Where it cannot be installed they run without it, and say so in its place.
pub(crate) fn peers() -> Result<(), String> {
    let missing: Vec<&str> = PEERS
        .iter()
        .filter(|(program, _)| find(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return said("peers: all there".to_owned());
    }
    if !release_is("debian") || !root() {
        return said(format!(
            "peers: {} not there, and measured without; on Debian as root: `apt-get install --no-install-recommends {}`",
            missing.join(", "),
            missing.join(" ")
        ));
    }
    let unstarted = Unstarted::order(&PEER_UNITS)
        .map_err(|error| format!("no order not to start them: {error}"))?;
    let result = install(&missing);
    drop(unstarted);
    result
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

/// The servers that others wrote and that tests compare our own ones with.
fn servers() -> Result<(), String> {
    let mut missing = Vec::new();
    for (name, what) in SERVERS {
        match find(name) {
            Some(path) => said(format!("{name}: {}", path.display()))?,
            None => missing.push((name, what)),
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let (names, needs): (Vec<&str>, Vec<&str>) = missing.into_iter().unzip();
    let advice = format!(
        "Tests need {}. On Debian as root: `apt-get install --no-install-recommends {}`; that starts them on public ports, which \
         tests do not need.",
        needs.join(" and "),
        names.join(" ")
    );
    if !release_is("debian") || !root() {
        return Err(advice);
    }
    let units: Vec<String> = names.iter().map(|name| format!("{name}.service")).collect();
    let units: Vec<&str> = units.iter().map(String::as_str).collect();
    let unstarted = Unstarted::order(&units)
        .map_err(|error| format!("no order not to start {}: {error}", names.join(" ")))?;
    let result = install(&names).map_err(|error| format!("{error}\n{advice}"));
    drop(unstarted);
    result
}

/// Keeps Debian from starting what it installs: neither now nor at the next boot does a server of the tests listen on a public port.
struct Unstarted {
    policy: Option<PathBuf>,
}

impl Unstarted {
    /// Masks the units for good, and forbids all starts until the value is dropped. What is there already stays as it is.
    fn order(units: &[&str]) -> std::io::Result<Self> {
        let directory = Path::new("/etc/systemd/system");
        fs::create_dir_all(directory)?;
        for unit in units {
            let mask = directory.join(unit);
            if mask.symlink_metadata().is_err() {
                symlink("/dev/null", &mask)?;
                eprintln!(
                    "{unit} is masked: it is here for tests alone; `systemctl unmask {unit}` if you want it as a service"
                );
            }
        }
        // Without systemd, packages ask this program before they start anything; 101 means no.
        let policy = PathBuf::from("/usr/sbin/policy-rc.d");
        if policy.symlink_metadata().is_ok() {
            return Ok(Self { policy: None });
        }
        fs::write(
            &policy,
            "#!/bin/sh\n# otahost's set-up is installing servers for tests. Left over from a broken run? Then remove it.\nexit 101\n",
        )?;
        let unstarted = Self {
            policy: Some(policy.clone()),
        };
        fs::set_permissions(&policy, fs::Permissions::from_mode(0o755))?;
        Ok(unstarted)
    }
}

impl Drop for Unstarted {
    fn drop(&mut self) {
        if let Some(policy) = &self.policy {
            let _ = fs::remove_file(policy);
        }
    }
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
