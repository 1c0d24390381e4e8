//! The real mosquitto: a broker that others wrote and that devices meet in the field, so that our client is not only tested against
//! a relative of itself.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::broker::{free_port, wait_for_port};
use crate::tls;

/// Where Debian puts it; the search path comes first.
const FALLBACK: &str = "/usr/sbin/mosquitto";

/// How long a start or a stop may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Why there is no mosquitto.
#[derive(Debug, thiserror::Error)]
pub enum MosquittoError {
    /// The program is not there.
    #[error("mosquitto is not installed; install it: apt-get install mosquitto")]
    NotInstalled,
    /// It does not run.
    #[error("mosquitto did not start: {0}")]
    NotStarted(String),
}

/// How to run it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MosquittoOptions {
    /// Sessions, queued and retained messages survive a [`Mosquitto::stop`] (a kill only as far as they were saved before).
    pub persistence: bool,
    /// TLS with the certificate of [`crate::tls`].
    pub tls: bool,
}

/// A mosquitto process of our own on a loopback port, with its files in a temporary directory.
#[derive(Debug)]
pub struct Mosquitto {
    program: PathBuf,
    directory: TempDir,
    port: u16,
    options: MosquittoOptions,
    process: Option<Child>,
}

impl Mosquitto {
    /// Starts one with the default options.
    ///
    /// # Errors
    /// [`MosquittoError`] says what to install, or shows the log.
    pub fn start() -> Result<Self, MosquittoError> {
        Self::start_with(MosquittoOptions::default())
    }

    /// Starts one.
    ///
    /// # Errors
    /// [`MosquittoError`] says what to install, or shows the log.
    pub fn start_with(options: MosquittoOptions) -> Result<Self, MosquittoError> {
        let program = find().ok_or(MosquittoError::NotInstalled)?;
        let directory =
            tempfile::tempdir().map_err(|error| MosquittoError::NotStarted(error.to_string()))?;
        let mut broker = Self {
            program,
            directory,
            port: 0,
            options,
            process: None,
        };
        let mut last = None;
        // Between choosing a port and listening on it another process may take it.
        for _ in 0..10 {
            broker.port = free_port();
            match broker.launch() {
                Ok(()) => return Ok(broker),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or(MosquittoError::NotInstalled))
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `mqtt://127.0.0.1:PORT`, or `mqtts://localhost:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        if self.options.tls {
            format!("mqtts://localhost:{}", self.port)
        } else {
            format!("mqtt://127.0.0.1:{}", self.port)
        }
    }

    /// What it wrote to its log so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Kills it (SIGKILL). Does nothing when it does not run.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Ends it in good order (SIGTERM): with persistence it saves first. Does nothing when it does not run.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = rustix::process::kill_process(
                rustix::process::Pid::from_child(&process),
                rustix::process::Signal::TERM,
            );
            if !crate::proxy::wait_until(LIMIT, || !matches!(process.try_wait(), Ok(None))) {
                let _ = process.kill();
                let _ = process.wait();
            }
        }
    }

    /// Starts it again on the same port; with persistence it knows what it knew.
    ///
    /// # Errors
    /// [`MosquittoError::NotStarted`] shows the log.
    pub fn restart(&mut self) -> Result<(), MosquittoError> {
        self.kill();
        self.launch()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn launch(&mut self) -> Result<(), MosquittoError> {
        let failed = |error: std::io::Error| MosquittoError::NotStarted(error.to_string());
        let configuration = self.path("mosquitto.conf");
        fs::write(&configuration, self.configuration().map_err(failed)?).map_err(failed)?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.path("log"))
            .map_err(failed)?;
        let process = Command::new(&self.program)
            .arg("-c")
            .arg(&configuration)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log)
            .spawn()
            .map_err(failed)?;
        let process = self.process.insert(process);
        if wait_for_port(self.port, LIMIT, || matches!(process.try_wait(), Ok(None))) {
            return Ok(());
        }
        self.kill();
        Err(MosquittoError::NotStarted(self.log()))
    }

    fn configuration(&self) -> std::io::Result<String> {
        let directory = self.directory.path();
        // As root it would become the user "mosquitto", who may not write here.
        let mut text = format!(
            "user root\nper_listener_settings false\nallow_anonymous true\nlog_dest stderr\nlog_type all\nmax_queued_messages 10000\n\
             listener {} 127.0.0.1\n",
            self.port
        );
        if self.options.tls {
            let (certificate, key) = (self.path("server.pem"), self.path("server.key"));
            fs::write(&certificate, tls::SERVER_PEM)?;
            fs::write(&key, tls::SERVER_KEY_PEM)?;
            text += &format!(
                "certfile {}\nkeyfile {}\n",
                certificate.display(),
                key.display()
            );
        }
        if self.options.persistence {
            text += &format!(
                "persistence true\npersistence_location {}/\n",
                directory.display()
            );
        } else {
            text += "persistence false\n";
        }
        Ok(text)
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.kill();
    }
}

fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|directory| directory.join("mosquitto"))
        .chain([Path::new(FALLBACK).to_owned()])
        .find(|program| program.is_file())
}
