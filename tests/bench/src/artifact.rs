//! The image that everybody installs, in everybody's format, and the slots it is installed into.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use otahost_lab::image::{Described, Image};
use otahost_lab::signing::{Claims, Publisher};

use crate::Failed;
use crate::table::Missing;

/// A mebibyte.
pub(crate) const MIB: u64 = 1024 * 1024;
/// What a slot has more than the image.
const SPARE: u64 = MIB;

/// An image of one size.
pub(crate) struct Artifact {
    /// The bare image.
    pub(crate) image: PathBuf,
    /// The same, signed our way.
    pub(crate) signed: PathBuf,
    /// Size and digests of the signed one.
    pub(crate) described: Described,
    /// The key it is signed with.
    pub(crate) key: String,
    /// SHA-256 of the bare image.
    pub(crate) image_sha256: String,
}

impl Artifact {
    /// Makes it in this directory. Its body is noise, which does not compress.
    pub(crate) fn make(dir: &Path, size: u64) -> Result<Self, Failed> {
        let (image, signed) = (dir.join("image.img"), dir.join("image.signed"));
        Image::new("1.0", size).write(&image)?;
        let image_sha256 = Described::of(&image)?.sha256;
        let publisher = Publisher::generate()?;
        let claims = Claims {
            compatible: "bench".to_owned(),
            version: "1.0".to_owned(),
            rollback_index: 1,
        };
        let described = publisher.sign(&image, &signed, &claims)?;
        fs::set_permissions(&signed, fs::Permissions::from_mode(0o644))?;
        Ok(Artifact {
            image,
            signed,
            described,
            key: publisher.public_key(),
            image_sha256,
        })
    }

    /// The content of `slot` from `offset` on is the image.
    pub(crate) fn is_in(&self, slot: &Path, content: &Path) -> Result<(), Missing> {
        let failed = |e: std::io::Error| Missing::Failed(format!("{}: {e}", slot.display()));
        let mut wanted = File::open(content).map_err(failed)?;
        let mut found = File::open(slot).map_err(failed)?;
        let (mut a, mut b) = (vec![0; 1 << 20], vec![0; 1 << 20]);
        loop {
            let read = wanted.read(&mut a).map_err(failed)?;
            if read == 0 {
                return Ok(());
            }
            found.read_exact(&mut b[..read]).map_err(failed)?;
            if a[..read] != b[..read] {
                return Err(Missing::Failed(format!(
                    "{} does not hold the image after it was said to be installed",
                    slot.display()
                )));
            }
        }
    }
}

/// Two slots: loop devices without a cache of their own where the machine has them, else files. All contestants write to the second;
/// nobody looks into the first, which is small.
#[derive(Debug)]
pub(crate) struct Slots {
    /// What they are: for the table.
    pub(crate) kind: &'static str,
    places: [PathBuf; 2],
    attached: bool,
}

impl Slots {
    /// For an image of this size.
    pub(crate) fn make(dir: &Path, size: u64) -> Result<Self, Failed> {
        let files = ["slot-a", "slot-b"].map(|name| dir.join(name));
        for (file, length) in files.iter().zip([SPARE, size + SPARE]) {
            // Allocated before anybody writes, so that nobody pays for it.
            let made = Command::new("fallocate")
                .args(["-l", &length.to_string()])
                .arg(file)
                .status();
            if !made.is_ok_and(|status| status.success()) {
                File::create(file)?.set_len(length)?;
            }
        }
        let mut slots = Slots {
            kind: "loop devices",
            places: files.clone(),
            attached: false,
        };
        let Some(first) = attach(&files[0]) else {
            slots.kind = "files";
            return Ok(slots);
        };
        let Some(second) = attach(&files[1]) else {
            detach(&first);
            slots.kind = "files";
            return Ok(slots);
        };
        slots.places = [first, second];
        slots.attached = true;
        Ok(slots)
    }

    /// The one that runs.
    pub(crate) fn running(&self) -> &Path {
        &self.places[0]
    }

    /// The one that is written.
    pub(crate) fn other(&self) -> &Path {
        &self.places[1]
    }

    /// Whether they are devices.
    pub(crate) fn are_devices(&self) -> bool {
        self.attached
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        if self.attached {
            self.places.iter().for_each(|place| detach(place));
        }
    }
}

fn attach(file: &Path) -> Option<PathBuf> {
    let mut command = Command::new("losetup");
    command
        .args(["--find", "--show", "--direct-io=on"])
        .arg(file);
    let output = command.output().ok()?;
    let path = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(path.trim()))
}

fn detach(device: &Path) {
    let _ = Command::new("losetup").arg("--detach").arg(device).status();
}
