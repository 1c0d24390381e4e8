//! The real nginx, as Debian packs it: a file server whose ranges and validators nobody here wrote, and the reverse proxy that stands
//! before other people's services.
//!
//! Nothing of the machine's configuration is used or changed: the whole configuration is ours, and everything it writes is in a
//! temporary directory.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde::Deserialize;
use tempfile::TempDir;

use crate::daemon::{self, Daemon};
use crate::proxy::wait_until;
use crate::tls::{Certificate, Versions};

/// Why there is no nginx.
#[derive(Debug, thiserror::Error)]
pub enum NginxError {
    /// The program is not there.
    #[error(
        "nginx is not installed; install it: `cargo xtask setup`, or apt-get install --no-install-recommends nginx"
    )]
    NotInstalled,
    /// It does not run.
    #[error("nginx did not start: {0}")]
    NotStarted(String),
}

/// How to run it.
#[derive(Debug, Clone, Default)]
pub struct NginxOptions {
    /// HTTPS with this certificate; none: HTTP.
    pub tls: Option<Certificate>,
    /// The TLS versions it speaks.
    pub versions: Versions,
    /// Answers ranges with the whole file.
    pub no_ranges: bool,
    /// Bytes a second it sends at most in one answer.
    pub rate: Option<u32>,
    /// Lines for its one `server` block, as a documentation shows them: `location /api/ { proxy_pass http://127.0.0.1:8112; }`.
    pub server_lines: String,
}

/// One request it answered, as its access log has it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Access {
    /// `GET`, `HEAD` …
    pub method: String,
    /// Path and query as they came.
    pub target: String,
    /// The `Range` header; empty: there was none.
    pub range: String,
    /// The `If-Range` header; empty: there was none.
    pub if_range: String,
    /// There was an `Authorization` header. What it said is not logged.
    pub authorization: bool,
    /// Status of the answer; 499: the client went before it.
    pub status: u16,
    /// Bytes of the body that were sent.
    pub sent: u64,
}

impl Access {
    /// The path without the query.
    #[must_use]
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or(&self.target)
    }
}

/// An nginx process of our own on a loopback port, with its files in a temporary directory.
#[derive(Debug)]
pub struct Nginx {
    // Ends before its files are removed.
    process: Option<Daemon>,
    program: PathBuf,
    directory: TempDir,
    port: u16,
    options: NginxOptions,
}

impl Nginx {
    /// Starts one that serves its files over HTTP.
    ///
    /// # Errors
    /// [`NginxError`] says what to install, or shows the log.
    pub fn start() -> Result<Self, NginxError> {
        Self::start_with(NginxOptions::default())
    }

    /// Starts one that hands every request to a port of 127.0.0.1, over HTTP, instead of serving files.
    ///
    /// # Errors
    /// [`NginxError`] says what to install, or shows the log.
    pub fn before(upstream: u16) -> Result<Self, NginxError> {
        Self::start_with(NginxOptions {
            server_lines: format!(
                "location / {{ proxy_pass http://127.0.0.1:{upstream}; proxy_set_header Host $http_host; }}"
            ),
            ..NginxOptions::default()
        })
    }

    /// Starts one.
    ///
    /// # Errors
    /// [`NginxError`] says what to install, or shows the log.
    pub fn start_with(options: NginxOptions) -> Result<Self, NginxError> {
        let program = daemon::find("nginx").ok_or(NginxError::NotInstalled)?;
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

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `http://127.0.0.1:PORT` or `https://localhost:PORT`, without a path.
    #[must_use]
    pub fn origin(&self) -> String {
        if self.options.tls.is_some() {
            format!("https://localhost:{}", self.port)
        } else {
            format!("http://127.0.0.1:{}", self.port)
        }
    }

    /// The URL of a file, whether it is there or not: `ORIGIN/PATH`.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.origin())
    }

    /// Where its files are; a client sees this as `/`.
    #[must_use]
    pub fn files(&self) -> PathBuf {
        self.path("files")
    }

    /// Puts a file there: `firmware/a.bin`, with its directories, in one step. Every call dates its file a second later than the
    /// last, so that a file that is replaced gets another `ETag` and `Last-Modified`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        daemon::put(&self.files(), path, bytes)
    }

    /// The requests it answered so far, in the order of their ends. It logs a request just after the end of its answer: a test waits
    /// with [`Self::wait_for`].
    ///
    /// # Panics
    /// When the access log cannot be understood.
    #[must_use]
    pub fn requests(&self) -> Vec<Access> {
        let text = fs::read_to_string(self.path("access.log")).unwrap_or_default();
        text.split_inclusive('\n')
            // The last line may be half written.
            .filter(|line| line.ends_with('\n'))
            .map(|line| serde_json::from_str(line).expect("a line of the access log"))
            .collect()
    }

    /// Waits until a condition on the requests holds. Says whether it did within the limit.
    #[must_use]
    pub fn wait_for(&self, limit: Duration, condition: impl Fn(&[Access]) -> bool) -> bool {
        wait_until(limit, || condition(&self.requests()))
    }

    /// What it wrote to its error log so far.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.path("error.log")).unwrap_or_default()).into_owned()
    }

    /// Kills it (SIGKILL), so that connections break where they are. Does nothing when it does not run.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Starts it again on the same port.
    ///
    /// # Errors
    /// [`NginxError::NotStarted`] shows the log.
    pub fn restart(&mut self) -> Result<(), NginxError> {
        self.kill();
        self.launch()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn launch(&mut self) -> Result<(), NginxError> {
        let configuration = self.path("nginx.conf");
        fs::write(&configuration, self.configuration()).map_err(failed)?;
        let mut command = Command::new(&self.program);
        command.arg("-c").arg(&configuration);
        command.arg("-e").arg(self.path("error.log"));
        match Daemon::start(&mut command, &self.path("error.log"), self.port) {
            Ok(process) => self.process = Some(process),
            Err(error) => {
                let log = self.log();
                return Err(NginxError::NotStarted(format!("{error}; its log: {log}")));
            }
        }
        Ok(())
    }

    fn configuration(&self) -> String {
        let directory = self.directory.path().display();
        let options = &self.options;
        let mut server = format!("root {directory}/files;\n");
        if let Some(rate) = options.rate {
            server += &format!("limit_rate {rate};\n");
        }
        if options.no_ranges {
            server += "max_ranges 0;\n";
        }
        let mut listen = format!("127.0.0.1:{}", self.port);
        if options.tls.is_some() {
            listen += " ssl";
            let versions = match options.versions {
                Versions::Both => "TLSv1.2 TLSv1.3",
                Versions::Only12 => "TLSv1.2",
                Versions::Only13 => "TLSv1.3",
            };
            server += &format!(
                "ssl_certificate {directory}/server.pem;\nssl_certificate_key {directory}/server.key;\nssl_protocols {versions};\n"
            );
        }
        server += &options.server_lines;
        // One process: no workers, so that none must be found and ended, and no change of the user.
        format!(
            r#"daemon off;
master_process off;
pid {directory}/pid;
error_log {directory}/error.log info;
events {{ worker_connections 512; }}
http {{
    default_type application/octet-stream;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    map $http_authorization $has_authorization {{ "" false; default true; }}
    log_format lab escape=json '{{"method":"$request_method","target":"$request_uri","range":"$http_range",'
        '"if_range":"$http_if_range","authorization":$has_authorization,"status":$status,"sent":$body_bytes_sent}}';
    access_log {directory}/access.log lab;
    server {{
        listen {listen};
        server_name localhost;
{server}
    }}
}}
"#
        )
    }
}

fn failed(error: io::Error) -> NginxError {
    NginxError::NotStarted(error.to_string())
}

/// The directory with all it needs before its port is known.
fn prepare(options: &NginxOptions) -> io::Result<TempDir> {
    let directory = tempfile::tempdir()?;
    let path = |name: &str| directory.path().join(name);
    fs::create_dir(path("files"))?;
    if let Some(certificate) = options.tls {
        fs::write(path("server.pem"), certificate.pem())?;
        fs::write(path("server.key"), certificate.key_pem())?;
    }
    Ok(directory)
}
