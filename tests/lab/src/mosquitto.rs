//! The real mosquitto: a broker that others wrote and that devices meet in the field, so that our client is not only tested against
//! a relative of itself.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::daemon::{self, Daemon};
use crate::proxy::wait_until;
use crate::tls;

/// How long it may take from listening to running.
const START: Duration = Duration::from_secs(10);

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
    /// A user and the password: who names a user must know it. Who names none is let in.
    pub account: Option<(&'static str, &'static str)>,
    /// A filter that nobody may subscribe: its SUBACK is a refusal.
    pub refused: Option<&'static str>,
}

/// A mosquitto process of our own on a loopback port, with its files in a temporary directory.
#[derive(Debug)]
pub struct Mosquitto {
    // Ends before its files are removed.
    process: Option<Daemon>,
    program: PathBuf,
    directory: TempDir,
    port: u16,
    options: MosquittoOptions,
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
        let program = daemon::find("mosquitto").ok_or(MosquittoError::NotInstalled)?;
        let directory =
            tempfile::tempdir().map_err(|error| MosquittoError::NotStarted(error.to_string()))?;
        let mut broker = Self {
            program,
            directory,
            port: 0,
            options,
            process: None,
        };
        daemon::on_a_free_port(|port| {
            broker.port = port;
            broker.launch()
        })?;
        Ok(broker)
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
            process.kill();
        }
    }

    /// Ends it in good order (SIGTERM): with persistence it saves first. Does nothing when it does not run.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.stop();
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

    /// How often it said that it runs.
    fn starts(&self) -> usize {
        self.log().matches(" running").count()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn launch(&mut self) -> Result<(), MosquittoError> {
        let failed = |error: io::Error| MosquittoError::NotStarted(error.to_string());
        let configuration = self.path("mosquitto.conf");
        fs::write(&configuration, self.configuration().map_err(failed)?).map_err(failed)?;
        let starts = self.starts();
        let mut command = Command::new(&self.program);
        command.arg("-c").arg(&configuration);
        match Daemon::start(&mut command, &self.path("log"), self.port) {
            // It listens before it knows what to do with a SIGTERM.
            Ok(process) if wait_until(START, || self.starts() > starts) => {
                self.process = Some(process);
            }
            Ok(_) => return Err(MosquittoError::NotStarted(self.log())),
            Err(error) => {
                return Err(MosquittoError::NotStarted(format!(
                    "{error}; its log: {}",
                    self.log()
                )));
            }
        }
        Ok(())
    }

    fn configuration(&self) -> io::Result<String> {
        let directory = self.directory.path();
        // As root it would become the user "mosquitto", who may not write here.
        let mut text = format!(
            "user root\nper_listener_settings false\nallow_anonymous true\nset_tcp_nodelay true\nlog_dest stderr\nlog_type all\nmax_queued_messages 10000\n\
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
        if let Some((user, password)) = self.options.account {
            let accounts = self.path("accounts");
            let made = Command::new("mosquitto_passwd")
                .args(["-b", "-c"])
                .arg(&accounts)
                .args([user, password])
                .status()?;
            if !made.success() {
                return Err(io::Error::other("mosquitto_passwd failed"));
            }
            text += &format!("password_file {}\n", accounts.display());
        }
        if let Some(filter) = self.options.refused {
            let rules = self.path("rules.json");
            fs::write(&rules, rules_against(filter).to_string())?;
            text += &format!(
                "plugin {}\nplugin_opt_config_file {}\n",
                plugin()?.display(),
                rules.display()
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

/// Lets anybody do anything but subscribe this filter. For the plugin of mosquitto that decides about subscriptions: its access lists
/// do not.
fn rules_against(filter: &str) -> Value {
    let refusal = json!({
        "acltype": "subscribeLiteral", "topic": filter, "priority": 1, "allow": false,
    });
    json!({
        "defaultACLAccess": {
            "publishClientSend": true, "publishClientReceive": true, "subscribe": true, "unsubscribe": true,
        },
        "clients": [],
        "groups": [{ "groupname": "all", "roles": [{ "rolename": "all" }] }],
        "roles": [{ "rolename": "all", "acls": [refusal] }],
        "anonymousGroup": "all",
    })
}

/// Where Debian puts it, by the name of the machine.
fn plugin() -> io::Result<PathBuf> {
    let places = fs::read_dir("/usr/lib")?.flatten();
    let mut plugins = places.map(|place| place.path().join("mosquitto_dynamic_security.so"));
    plugins.find(|plugin| plugin.is_file()).ok_or_else(|| {
        io::Error::other("mosquitto_dynamic_security.so is not below /usr/lib: install mosquitto")
    })
}
