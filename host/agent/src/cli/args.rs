//! What can be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::adapters::AdapterCommand;
use super::isolation::{SALVAGE_CHILD, UNPACK_CHILD};
#[cfg(feature = "compiler")]
use crate::assemble::COMPILE_CHILD;
use crate::exit::Exit;

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "otahost",
    version,
    about = "Updates the firmware of this device over any vendor's protocol",
    after_help = Exit::table(),
    disable_help_subcommand = true
)]
pub struct Cli {
    /// The configuration
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        default_value = "/etc/otahost/otahost.toml"
    )]
    pub config: PathBuf,
    /// Answer in JSON, for programs
    #[arg(long, global = true)]
    pub json: bool,
    /// Ask the agent at this socket instead of the one the configuration names
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the agent until it is told to stop
    Run,
    /// Look for faults in the configuration, its files and the adapters' grants; start nothing
    Check,
    /// Show links, targets, adapters and running jobs, and what to do where something is wrong
    Status,
    /// List jobs: for whom, where they stand, why they wait and what comes next; or show one with its whole history
    Jobs {
        /// The job's key
        key: Option<String>,
    },
    /// Cancel a job that has not passed the point of no return
    Cancel {
        /// The job's key
        key: String,
    },
    /// Stop a job for now; the time it has goes on
    Pause {
        /// The job's key
        key: String,
    },
    /// Let a paused job go on
    Resume {
        /// The job's key
        key: String,
    },
    /// Allow images again that were rolled back on a target and are refused since
    Clear {
        /// The target's name
        target: String,
        /// Only this one: its version, its SHA-256, or a digest as the platform gave it (`md5:…`)
        image: Option<String>,
    },
    /// Which versions of the adapters run, and how to have others
    Adapter {
        /// What to do
        #[command(subcommand)]
        command: AdapterCommand,
    },
    /// Have the agent take in what was changed of the configuration and of the adapters' files; it looks every few seconds by itself
    Reload,
    /// Install a file on a target and follow it to the end
    Install(Install),
    /// Look at what the agent keeps (journal, slots, staged bytes, adapters, caches) and say what is whole; changes nothing, needs no agent
    Doctor,
    /// Reboot when a version runs that nobody confirmed; for a timer some time after the boot, needs no agent
    Deadman,
    /// Make a signed artifact of an image
    Sign(Sign),
    /// Make native code of an adapter for devices without a compiler; it has to be signed then
    #[cfg(feature = "compiler")]
    Compile(Compile),
    /// The compiler of the agent's own, in a process with limits: components come in on standard input
    #[cfg(feature = "compiler")]
    #[command(name = COMPILE_CHILD, hide = true)]
    CompileChild,
    /// Unpacks an archive for the agent, in a process of its own
    #[command(name = UNPACK_CHILD, hide = true)]
    UnpackChild {
        /// What the agent says
        arguments: Vec<String>,
    },
    /// Reads a damaged journal for the agent, in a process of its own: it comes in on standard input
    #[command(name = SALVAGE_CHILD, hide = true)]
    SalvageChild {
        /// What to begin with
        from: usize,
    },
    /// Make a key pair for `sign`: PREFIX.key and PREFIX.pub
    Keygen {
        /// Path of the pair without ending
        prefix: PathBuf,
        /// Encrypt the secret key with the password in this file's first line
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
}

/// `install`.
#[derive(Debug, Args)]
pub struct Install {
    /// The artifact, as `otahost sign` made it
    pub file: PathBuf,
    /// The target's name
    #[arg(long, value_name = "NAME")]
    pub target: String,
    /// The version it shall report afterwards; default: the one its signed header names
    #[arg(long, value_name = "VERSION")]
    pub version: Option<String>,
    /// Return when the agent has taken the job
    #[arg(long)]
    pub no_wait: bool,
}

/// `compile`.
#[cfg(feature = "compiler")]
#[derive(Debug, Args)]
pub struct Compile {
    /// The component
    pub component: PathBuf,
    /// What it shall run on: x86_64, aarch64 or pulley64 (the interpreter); default: this machine
    #[arg(long = "for", value_name = "TARGET", value_parser = target)]
    pub target: Option<otahost_sandbox::Target>,
    /// Where the native code goes
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

#[cfg(feature = "compiler")]
fn target(text: &str) -> Result<otahost_sandbox::Target, String> {
    otahost_sandbox::Target::parse(text)
        .ok_or_else(|| "it is none of x86_64, aarch64 and pulley64".into())
}

/// `sign`.
#[derive(Debug, Args)]
pub struct Sign {
    /// The image to sign
    pub file: PathBuf,
    /// The secret key, as `otahost keygen` or minisign made it
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// Where the signed artifact goes
    #[arg(long, value_name = "FILE", required_unless_present = "sidecar")]
    pub out: Option<PathBuf>,
    /// Leave the image as it is and write its signature to OUT.minisig (without --out: beside the image)
    #[arg(long)]
    pub sidecar: bool,
    /// The kind of device it is made for (`trust.compatible` of the target)
    #[arg(long, value_name = "NAME")]
    pub compatible: Option<String>,
    /// The version in it
    #[arg(long, value_name = "VERSION")]
    pub version: Option<String>,
    /// A number that never falls from release to release
    #[arg(long, value_name = "NUMBER")]
    pub rollback_index: Option<u64>,
    /// The key's password is this file's first line
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_is_understood() {
        for line in [
            "run",
            "check --json",
            "--config /x status",
            "status --config /x --socket /s",
            "jobs",
            "jobs KEY",
            "cancel KEY",
            "pause KEY",
            "resume KEY --json",
            "clear TARGET",
            "clear TARGET 7.1.0 --json",
            "deadman --config /x --json",
            "install F --target T",
            "install F --target T --version 1 --no-wait",
            "sign F --key K --out O",
            "sign F --key K --sidecar",
            "sign F --key K --sidecar --out O",
            "sign F --key K --out O --compatible C --version 1 --rollback-index 7 --password-file P",
            "keygen PREFIX",
            "reload --json",
        ] {
            let parsed = Cli::try_parse_from(std::iter::once("otahost").chain(line.split(' ')));
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
        }
        for line in [
            "",
            "install F",
            "sign F --key K",
            "cancel",
            "jobs A B",
            "pause",
            "resume A B",
            "clear",
            "clear T A B",
            "deadman --after 15m",
            "sign F --key K --out O --rollback-index -1",
        ] {
            let parsed =
                Cli::try_parse_from(std::iter::once("otahost").chain(line.split_whitespace()));
            assert!(parsed.is_err(), "{line}");
        }
    }

    #[test]
    fn the_help_documents_every_exit_code() {
        let help = Cli::command().render_help().to_string();
        for exit in Exit::ALL {
            assert!(
                help.contains(&format!(
                    "{:>2}  {:<16} {}",
                    exit.code(),
                    exit.word(),
                    exit.meaning()
                )),
                "{exit:?}"
            );
        }
    }
}
