//! What the demo plays in: keys, images, a broker, a file server, a cloud and a machine, all in a directory of its own.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;

use otahost_lab::broker::Broker;
use otahost_lab::cloud::Cloud;
use otahost_lab::files::Files;
use otahost_lab::image::{Described, Image};
use otahost_lab::machine::{Machine, MachineSpec, built_program};
use serde_json::{Value, json};
use tempfile::TempDir;

/// What ends the demo: a sentence.
pub(crate) type Failure = Box<dyn Error>;

/// The serial number of the vendor's example.
pub(crate) const SERIAL: &str = "NM1923221021";
/// The version of the vendor's example.
pub(crate) const NEW: &str = "1.2.0.69";
/// What the machine leaves the factory with.
pub(crate) const OLD: &str = "1.2.0.58";
const MIB: u64 = 1024 * 1024;
/// The main image; the short acts use `SMALL`.
pub(crate) const LARGE: u64 = 64 * MIB;
pub(crate) const SMALL: u64 = MIB;
/// The vendor's own message, with the fields and values of its page.
const VENDOR_MESSAGE: &str = include_str!("../../../fixtures/autel_ota_create.json");

/// All of it. Stops and is removed when dropped.
pub(crate) struct World {
    pub(crate) machine: Machine,
    pub(crate) cloud: Cloud,
    pub(crate) files: Arc<Files>,
    _broker: Broker,
    key: PathBuf,
    dir: TempDir,
}

impl World {
    pub(crate) fn build() -> Result<Self, Failure> {
        let dir = tempfile::Builder::new().prefix("otahost-demo-").tempdir()?;
        clean_up_when_interrupted(dir.path().to_path_buf())?;
        for program in [
            built_program("otahost"),
            MachineSpec::dock(SERIAL, 0).component,
        ] {
            if !program.is_file() {
                return Err(format!(
                    "{} is not there: `cargo xtask demo` builds it",
                    program.display()
                )
                .into());
            }
        }
        let prefix = dir.path().join("publisher");
        otahost(&[Path::new("keygen"), &prefix])?;
        let public = fs::read_to_string(prefix.with_extension("pub"))?;
        let public = public
            .lines()
            .rfind(|line| !line.trim().is_empty())
            .unwrap_or_default()
            .trim()
            .to_owned();

        let broker = Broker::start();
        let files = Arc::new(Files::start());
        let spec = MachineSpec {
            trust: vec![public],
            downloads: vec![files.url("")],
            ..MachineSpec::dock(SERIAL, broker.port())
        };
        let home = dir.path().join("machine");
        fs::create_dir(&home)?;
        let machine = Machine::create(&home, spec, &Image::new(OLD, SMALL))?;
        let cloud = Cloud::connect(broker.port(), SERIAL)?;
        Ok(World {
            machine,
            cloud,
            files,
            _broker: broker,
            key: prefix.with_extension("key"),
            dir,
        })
    }

    /// Makes an image, has it signed by `otahost sign`, and serves it under its name.
    pub(crate) fn publish(
        &self,
        name: &str,
        image: &Image,
        version: &str,
    ) -> Result<Described, Failure> {
        let (raw, signed) = (self.dir.path().join("image"), self.dir.path().join(name));
        image.write(&raw)?;
        let options = [
            "--key".as_ref(),
            self.key.as_path(),
            "--out".as_ref(),
            &signed,
        ];
        let claims = ["--compatible", "evonest-dock", "--version", version].map(Path::new);
        otahost(&[&["sign".as_ref(), raw.as_path()], &options[..], &claims[..]].concat())?;
        fs::remove_file(&raw)?;
        self.serve(name, &signed)
    }

    /// A path in the demo's directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Serves a file of the demo's directory.
    pub(crate) fn serve(&self, name: &str, path: &Path) -> Result<Described, Failure> {
        self.files.put_file(name, path)?;
        Ok(Described::of(path)?)
    }

    /// The vendor's message with only address, size and MD5 set to a file of ours.
    pub(crate) fn vendor_message(&self, name: &str, file: &Described) -> Value {
        let mut message: Value = serde_json::from_str(VENDOR_MESSAGE).expect("the fixture is JSON");
        let device = &mut message["data"]["devices"][0];
        device["file_url"] = json!(self.files.url(name));
        device["file_size"] = json!(file.size);
        device["md5"] = json!(file.md5);
        message
    }

    /// The same for another version.
    pub(crate) fn message(&self, name: &str, file: &Described, version: &str) -> Value {
        let mut message = self.vendor_message(name, file);
        message["data"]["devices"][0]["product_version"] = json!(version);
        message
    }

    /// Stops the machine and leaves its directory for who wants to know why.
    pub(crate) fn keep(self) -> PathBuf {
        let World { machine, dir, .. } = self;
        drop(machine);
        dir.keep()
    }
}

/// Runs the agent's command line.
fn otahost(arguments: &[&Path]) -> Result<(), Failure> {
    let output = Command::new(built_program("otahost"))
        .args(arguments)
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    let what = arguments
        .first()
        .map(|command| command.display().to_string())
        .unwrap_or_default();
    Err(format!(
        "`otahost {what}` failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    )
    .into())
}

/// Ctrl-C leaves no images behind. (The agent ends with us by the machine's own guard.)
fn clean_up_when_interrupted(dir: PathBuf) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    thread::spawn(move || {
        if runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
            let _ = fs::remove_dir_all(&dir);
            std::process::exit(130);
        }
    });
    Ok(())
}
