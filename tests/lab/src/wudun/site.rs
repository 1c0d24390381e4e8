//! A site: an EMS that is a [machine](crate::machine) with two slots, and EMUs behind it, each with a directory that packages are unpacked
//! into and a program that hands them over.
//!
//! An EMU is a directory with the version and the firmware that run there. It is away, hangs or refuses when a test says so, and keeps
//! account of what was handed to it, so that a test need not believe the EMS.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use md5::{Digest, Md5};

use crate::ids::hex;
use crate::image::Image;
use crate::machine::{Machine, MachineError, MachineSpec, built_adapter};

/// The vendor's name for the EMS itself.
pub const SOURCE: &str = "ems_II";
/// What the EMS's images must be signed as.
pub const COMPATIBLE: &str = "wudun-ems-ii";
/// What the factory installed on the EMS.
pub const EMS_OLD: &str = "0.9.0";
/// What the EMUs run when the site is made.
pub const EMU_OLD: &str = "emu-v1.0.0";
/// What they run after one of the packages.
pub const EMU_NEW: &str = "emu-v1.1.0";
/// SHA-256 of the firmware in the packages.
const EMU_NEW_SHA256: &str = "a459728169e31d160b167ea095795bae302a5cbb6fd88496bc36e4119b77b19f";

/// A package for EMUs, made by zip.
pub const ZIP: &[u8] = include_bytes!("../../fixtures/wudun_emu_1_1_0.zip");
/// The same made by tar and gzip.
pub const TAR_GZ: &[u8] = include_bytes!("../../fixtures/wudun_emu_1_1_0.tar.gz");
/// The same made by tar and zstd.
pub const TAR_ZST: &[u8] = include_bytes!("../../fixtures/wudun_emu_1_1_0.tar.zst");
/// A zip of which one entry leads two directories up.
pub const HOSTILE_ZIP: &[u8] = include_bytes!("../../fixtures/wudun_emu_escape.zip");

/// Hands an unpacked package to an EMU, with progress lines. It may be ended at any moment and run again.
const PUSH: &str = r#"#!/bin/sh
# $1 where the EMUs are, $2 the unpacked package, $3 the EMU's name
set -eu
emu="$1/$3"
echo begun >> "$emu/deliveries"
for percent in 0 20 40 60 80; do
    printf '{"stage":"push","percent":%s,"device":"%s"}\n' "$percent" "$3"
    if [ -e "$emu/pace" ]; then sleep "$(cat "$emu/pace")"; fi
    while [ "$percent" = 40 ] && [ -e "$emu/hold" ]; do sleep 0.02; done
done
if [ -e "$emu/refuses" ]; then
    echo "the EMU does not take it" >&2
    exit 1
fi
cp "$2/firmware/emu.bin" "$emu/firmware.$$"
mv "$emu/firmware.$$" "$emu/firmware"
cp "$2/version" "$emu/version.$$"
mv "$emu/version.$$" "$emu/version"
echo done >> "$emu/deliveries"
echo '{"stage":"push","percent":100}'
"#;

/// What one site has of its own.
#[derive(Debug, Clone)]
pub struct SiteSpec {
    /// The device's mark.
    pub device_uid: String,
    /// Port of the broker on 127.0.0.1.
    pub broker: u16,
    /// URL prefixes it may download from.
    pub downloads: Vec<String>,
    /// Minisign public keys of the EMS.
    pub trust: Vec<String>,
    /// `sub_device_id` of each EMU.
    pub emus: Vec<i64>,
    /// Most jobs that are worked on at once; the agent's default where there is none.
    pub parallel: Option<usize>,
    /// Names of further targets that `more` describes.
    pub more_targets: Vec<String>,
    /// More lines of configuration.
    pub more: String,
}

impl SiteSpec {
    /// An EMS that trusts nobody and may download from nowhere, with these EMUs, until the fields say more.
    pub fn new(device_uid: &str, broker: u16, emus: &[i64]) -> Self {
        SiteSpec {
            device_uid: device_uid.to_owned(),
            broker,
            downloads: Vec::new(),
            trust: Vec::new(),
            emus: emus.to_vec(),
            parallel: None,
            more_targets: Vec::new(),
            more: String::new(),
        }
    }
}

/// The forms of topics that every site is configured for; what stands before `/ota/…`.
pub fn bases(device_uid: &str) -> [String; 3] {
    [
        format!("v1/user/acme/{device_uid}"),
        format!("v1/wudun/EMS200/{device_uid}"),
        format!("plant/7/{device_uid}"),
    ]
}

/// The site. Everything of it is in one directory, which stays; the machine stops when it is dropped.
#[derive(Debug)]
pub struct Site {
    /// The EMS.
    pub machine: Machine,
    dir: PathBuf,
    emus: Vec<i64>,
}

/// One EMU.
#[derive(Debug, Clone)]
pub struct Emu {
    dir: PathBuf,
    staging: PathBuf,
}

impl Site {
    /// Makes a site in an existing, empty directory. It is off, and every EMU runs [`EMU_OLD`].
    ///
    /// # Errors
    /// When its files cannot be made.
    pub fn create(dir: &Path, spec: &SiteSpec) -> Result<Self, MachineError> {
        let make = || -> io::Result<()> {
            for name in ["machine", "staging", "emus"] {
                fs::create_dir(dir.join(name))?;
            }
            fs::write(dir.join("emu-push"), PUSH)?;
            for id in &spec.emus {
                let emu = dir.join(format!("emus/emu-{id}"));
                fs::create_dir(&emu)?;
                fs::write(emu.join("version"), format!("{EMU_OLD}\n"))?;
            }
            Ok(())
        };
        make().map_err(|error| io_error("make", dir, error))?;
        let machine = MachineSpec {
            compatible: COMPATIBLE.to_owned(),
            trust: spec.trust.clone(),
            ..MachineSpec::bare(&spec.device_uid, "ems", &toml(dir, spec))
        };
        let machine = Machine::create(&dir.join("machine"), machine, &Image::new(EMS_OLD, 4096))?;
        let site = Site {
            machine,
            dir: dir.to_path_buf(),
            emus: spec.emus.clone(),
        };
        let sn = format!("attributes = {{ sn = {} }}", quoted(&spec.device_uid));
        site.configure(
            &sn,
            &format!("attributes = {{ source = {} }}", quoted(SOURCE)),
        )?;
        if let Some(parallel) = spec.parallel {
            site.configure(
                "[transfer]\n",
                &format!("[transfer]\nparallel = {parallel}\n"),
            )?;
        }
        Ok(site)
    }

    /// Replaces a part of the configuration.
    ///
    /// # Errors
    /// When it is not there, or the file cannot be written.
    pub fn configure(&self, part: &str, by: &str) -> Result<(), MachineError> {
        let path = self.machine.layout().config();
        let text = fs::read_to_string(&path).map_err(|e| io_error("read", &path, e))?;
        if !text.contains(part) {
            let missing = io::Error::other(format!("{part:?} is not in {text}"));
            return Err(io_error("change", &path, missing));
        }
        fs::write(&path, text.replace(part, by)).map_err(|e| io_error("write", &path, e))
    }

    /// The EMU with this `sub_device_id`.
    pub fn emu(&self, id: i64) -> Emu {
        Emu {
            dir: self.dir.join(format!("emus/emu-{id}")),
            staging: self.dir.join(format!("staging/{id}")),
        }
    }

    /// All of them.
    pub fn emus(&self) -> impl Iterator<Item = Emu> {
        self.emus.iter().map(|id| self.emu(*id))
    }

    /// Where everything of it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Emu {
    /// The version that runs there; none when it is away.
    pub fn version(&self) -> Option<String> {
        let text = fs::read_to_string(self.dir.join("version")).ok()?;
        Some(text.trim().to_owned())
    }

    /// It runs [`EMU_NEW`], with the firmware of the packages, whole.
    pub fn is_new(&self) -> bool {
        let firmware = fs::read(self.dir.join("firmware")).unwrap_or_default();
        self.version().as_deref() == Some(EMU_NEW)
            && hex(digest(&SHA256, &firmware).as_ref()) == EMU_NEW_SHA256
    }

    /// Takes it off the bus.
    ///
    /// # Errors
    /// When its file cannot be removed.
    pub fn take_away(&self) -> io::Result<()> {
        fs::remove_file(self.dir.join("version"))
    }

    /// From now on a delivery hangs at 40 %, or goes on.
    ///
    /// # Errors
    /// When its file cannot be changed.
    pub fn hold(&self, holds: bool) -> io::Result<()> {
        self.set("hold", holds.then_some(""))
    }

    /// From now on a delivery fails at its end, or does not.
    ///
    /// # Errors
    /// When its file cannot be changed.
    pub fn refuse(&self, refuses: bool) -> io::Result<()> {
        self.set("refuses", refuses.then_some(""))
    }

    /// Seconds that each fifth of a delivery takes.
    ///
    /// # Errors
    /// When its file cannot be changed.
    pub fn pace(&self, seconds: f64) -> io::Result<()> {
        self.set("pace", Some(&seconds.to_string()))
    }

    fn set(&self, name: &str, content: Option<&str>) -> io::Result<()> {
        let path = self.dir.join(name);
        match content {
            Some(content) => fs::write(path, content),
            None => match fs::remove_file(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                result => result,
            },
        }
    }

    /// How many deliveries were begun, and how many of them came to their end.
    pub fn deliveries(&self) -> (usize, usize) {
        let text = fs::read_to_string(self.dir.join("deliveries")).unwrap_or_default();
        let count = |word| text.lines().filter(|line| *line == word).count();
        (count("begun"), count("done"))
    }

    /// The EMS's staging directory for it.
    pub fn staging(&self) -> &Path {
        &self.staging
    }
}

/// MD5 as a platform writes it.
pub fn md5_of(bytes: &[u8]) -> String {
    hex(&Md5::digest(bytes))
}

/// Link, EMUs and adapter.
fn toml(dir: &Path, spec: &SiteSpec) -> String {
    let mut text = String::new();
    let mut line =
        |args: std::fmt::Arguments<'_>| writeln!(text, "{args}").expect("writing to a string");
    line(format_args!(
        "\n[links.cloud]\nkind = \"mqtt\"\nurl = \"mqtt://127.0.0.1:{}\"\nbackoff_first = \"100ms\"\nbackoff_max = \"1s\"",
        spec.broker
    ));
    let at = |name: &str| quoted(&dir.join(name).display().to_string());
    let (push, emus) = (at("emu-push"), at("emus"));
    for id in &spec.emus {
        line(format_args!(
            "\n[targets.emu-{id}]\nflasher = \"archive\"\nparent = \"ems\"\ndirectory = {}",
            at(&format!("staging/{id}"))
        ));
        line(format_args!(
            "deliver = [\"/bin/sh\", {push}, {emus}]\ntrust = \"unsigned\"\nversion = {{ file = {} }}",
            at(&format!("emus/emu-{id}/version"))
        ));
        line(format_args!("attributes = {{ device_id = \"{id}\" }}"));
    }
    let component = built_adapter("wudun");
    let uid = quoted(&spec.device_uid);
    line(format_args!(
        "\n[adapters.wudun]\ncomponent = {}\n\
         config = {{ device_uid = {uid}, tenant = \"acme\", product_key = \"EMS200\", prefix = \"plant/7\" }}",
        quoted(&component.display().to_string())
    ));
    let topics = |leaf: &str| {
        let topics = bases(&spec.device_uid).map(|base| quoted(&format!("{base}/ota/+/{leaf}")));
        topics.join(", ")
    };
    line(format_args!("\n[adapters.wudun.grants]"));
    line(format_args!(
        "links.cloud.subscribe = [{}]\nlinks.cloud.publish = [{}]",
        topics("command"),
        topics("result")
    ));
    let downloads: Vec<String> = spec.downloads.iter().map(|url| quoted(url)).collect();
    line(format_args!("download = [{}]", downloads.join(", ")));
    let emus = spec.emus.iter().map(|id| format!("emu-{id}"));
    let targets: Vec<String> = std::iter::once("ems".to_owned())
        .chain(emus)
        .chain(spec.more_targets.iter().cloned())
        .map(|name| quoted(&name))
        .collect();
    line(format_args!("targets = [{}]", targets.join(", ")));
    text.push_str(&spec.more);
    text
}

/// A TOML basic string. JSON's escapes are a subset of TOML's.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn io_error(what: &'static str, path: &Path, error: io::Error) -> MachineError {
    MachineError::Io {
        what,
        path: path.to_path_buf(),
        error,
    }
}
