//! The real vsftpd, as Debian packs it: a strict FTPS server that others wrote and devices meet in the field.
//!
//! Nothing of the machine's configuration is used or changed. A local user would need PAM, and PAM reads `/etc/pam.d` alone; so the
//! one user is vsftpd's own `ftp`, who is anonymous to it, with a password that must be on a list of ours
//! (`secure_email_list_enable`). It logs that password, as it does with anonymous users. Root may run it, and only root: it gives up
//! its rights to serve.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::daemon::{self, Daemon};
use crate::proxy::wait_until;
use crate::tls::{Certificate, Versions};

/// Why there is no vsftpd.
#[derive(Debug, thiserror::Error)]
pub enum VsftpdError {
    /// The program is not there.
    #[error(
        "vsftpd is not installed; install it: `cargo xtask setup`, or apt-get install --no-install-recommends vsftpd"
    )]
    NotInstalled,
    /// It does not run.
    #[error("vsftpd did not start (it needs root): {0}")]
    NotStarted(String),
}

/// How to run it.
#[derive(Clone)]
pub struct VsftpdOptions {
    /// The password of its only user, [`Vsftpd::USER`]. No line breaks.
    pub password: String,
    /// What it shows in both kinds of connections.
    pub certificate: Certificate,
    /// What it speaks in both kinds of connections.
    pub versions: Versions,
    /// Whether a data connection must resume the TLS session (`require_ssl_reuse`, its default).
    pub require_reuse: bool,
    /// First and last port for data connections; none: any.
    pub passive_ports: Option<(u16, u16)>,
    /// The address that `PASV` names instead of its own. `EPSV` names none.
    pub pasv_address: Option<Ipv4Addr>,
    /// Bytes a second it sends at most.
    pub rate: Option<u32>,
}

impl VsftpdOptions {
    /// As it is by default, with a password that the test makes up.
    #[must_use]
    pub fn new(password: &str) -> Self {
        Self {
            password: password.to_owned(),
            certificate: Certificate::default(),
            versions: Versions::default(),
            require_reuse: true,
            passive_ports: None,
            pasv_address: None,
            rate: None,
        }
    }
}

/// A vsftpd process of our own on a loopback port, with its files in a temporary directory. It takes logins with TLS only.
pub struct Vsftpd {
    // Ends before its files are removed.
    process: Option<Daemon>,
    program: PathBuf,
    directory: TempDir,
    port: u16,
    options: VsftpdOptions,
}

impl Vsftpd {
    /// The name of its only user.
    pub const USER: &str = "ftp";

    /// Starts one with the default options.
    ///
    /// # Errors
    /// [`VsftpdError`] says what to install, or shows the log.
    pub fn start(password: &str) -> Result<Self, VsftpdError> {
        Self::start_with(VsftpdOptions::new(password))
    }

    /// Starts one.
    ///
    /// # Errors
    /// [`VsftpdError`] says what to install, or shows the log.
    pub fn start_with(options: VsftpdOptions) -> Result<Self, VsftpdError> {
        let program = daemon::find("vsftpd").ok_or(VsftpdError::NotInstalled)?;
        let directory = prepare(&options).map_err(failed)?;
        let mut server = Self {
            process: None,
            program,
            directory,
            port: 0,
            options,
        };
        daemon::on_a_free_port(|port| {
            server.port = port;
            server.launch()
        })?;
        Ok(server)
    }

    /// The port on 127.0.0.1. The certificate is good for `localhost` and `127.0.0.1`.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where its files are; a client sees this as `/`. What lies there must be readable by everybody.
    #[must_use]
    pub fn files(&self) -> PathBuf {
        self.path("files")
    }

    /// Puts a file there: `kit/a.bin`, with its directories, in one step. Every call dates its file a second later than the last.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        daemon::put(&self.files(), path, bytes)
    }

    /// What it wrote to its log so far: every command and reply, and for every TLS session whether it was `reused` or `not reused`.
    #[must_use]
    pub fn log(&self) -> String {
        [self.path("log"), self.path("words")]
            .iter()
            .map(|path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned())
            .collect()
    }

    /// Waits until its log satisfies a condition. Says whether it did within the limit.
    #[must_use]
    pub fn wait_for_log(&self, limit: Duration, condition: impl Fn(&str) -> bool) -> bool {
        wait_until(limit, || condition(&self.log()))
    }

    /// Kills it with all its sessions (SIGKILL), so that connections break where they are. Does nothing when it does not run.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Bytes a second of every transfer after its next start; `None`: as fast as it goes.
    pub fn set_rate(&mut self, rate: Option<u32>) {
        self.options.rate = rate;
    }

    /// Starts it again on the same port.
    ///
    /// # Errors
    /// [`VsftpdError::NotStarted`] shows the log.
    pub fn restart(&mut self) -> Result<(), VsftpdError> {
        self.kill();
        self.launch()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn launch(&mut self) -> Result<(), VsftpdError> {
        let configuration = self.path("vsftpd.conf");
        fs::write(&configuration, self.configuration()).map_err(failed)?;
        let mut command = Command::new(&self.program);
        // It has no setting for TLS 1.3; OpenSSL's own configuration does it.
        command
            .arg(&configuration)
            .env("OPENSSL_CONF", self.path("openssl.cnf"));
        match Daemon::start(&mut command, &self.path("words"), self.port) {
            Ok(process) => self.process = Some(process),
            Err(error) => {
                let log = self.log();
                return Err(VsftpdError::NotStarted(format!("{error}; its log: {log}")));
            }
        }
        Ok(())
    }

    fn configuration(&self) -> String {
        let directory = self.directory.path().display();
        let reuse = if self.options.require_reuse {
            "YES"
        } else {
            "NO"
        };
        let mut text = format!(
            "background=NO\nlisten=YES\nlisten_ipv6=NO\nlisten_address=127.0.0.1\nlisten_port={port}\n\
             local_enable=NO\nwrite_enable=NO\nport_enable=NO\nanonymous_enable=YES\nanon_root={directory}/files\n\
             secure_email_list_enable=YES\nemail_password_file={directory}/passwords\ndelay_failed_login=0\n\
             secure_chroot_dir={directory}/empty\n\
             ssl_enable=YES\nallow_anon_ssl=YES\nforce_anon_logins_ssl=YES\nforce_anon_data_ssl=YES\n\
             require_ssl_reuse={reuse}\nssl_ciphers=HIGH\n\
             rsa_cert_file={directory}/server.pem\nrsa_private_key_file={directory}/server.key\n\
             xferlog_enable=YES\nlog_ftp_protocol=YES\ndebug_ssl=YES\nvsftpd_log_file={directory}/log\n",
            port = self.port
        );
        if let Some((first, last)) = self.options.passive_ports {
            text += &format!("pasv_min_port={first}\npasv_max_port={last}\n");
        }
        if let Some(address) = self.options.pasv_address {
            text += &format!("pasv_address={address}\n");
        }
        if let Some(rate) = self.options.rate {
            text += &format!("anon_max_rate={rate}\n");
        }
        text
    }
}

fn failed(error: io::Error) -> VsftpdError {
    VsftpdError::NotStarted(error.to_string())
}

/// The directory with all it needs before its port is known.
fn prepare(options: &VsftpdOptions) -> io::Result<TempDir> {
    let directory = tempfile::tempdir()?;
    let path = |name: &str| directory.path().join(name);
    // It serves without root's rights, from a directory that its user may not write to.
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
    for name in ["files", "empty"] {
        fs::create_dir(path(name))?;
        fs::set_permissions(path(name), fs::Permissions::from_mode(0o755))?;
    }
    fs::write(path("passwords"), format!("{}\n", options.password))?;
    fs::write(path("server.pem"), options.certificate.pem())?;
    fs::write(path("server.key"), options.certificate.key_pem())?;
    let (lowest, highest) = match options.versions {
        Versions::Both => ("TLSv1.2", "TLSv1.3"),
        Versions::Only12 => ("TLSv1.2", "TLSv1.2"),
        Versions::Only13 => ("TLSv1.3", "TLSv1.3"),
    };
    fs::write(
        path("openssl.cnf"),
        format!(
            "openssl_conf = all\n[all]\nssl_conf = ssl\n[ssl]\nsystem_default = versions\n\
             [versions]\nMinProtocol = {lowest}\nMaxProtocol = {highest}\n"
        ),
    )?;
    Ok(directory)
}
