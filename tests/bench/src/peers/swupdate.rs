//! SWUpdate, as Debian packs it: it insists on signatures, verifies them, and streams a raw image into the slot.

use std::fs;
use std::path::{Path, PathBuf};

use super::keys::Keys;
use super::{find, word};
use crate::artifact::Artifact;
use crate::contest::Contestant;
use crate::table::Missing;
use crate::timed::{self, Cost};

/// Installs, and then syncs the slot, which it does not do itself.
const SCRIPT: &str = r#"
set -eu
slot=$1
shift
"$@" > swupdate.log 2>&1 || { tail -n 5 swupdate.log >&2; exit 1; }
dd if=/dev/null of="$slot" conv=notrunc,fsync status=none
"#;

/// Where it takes the bundle from.
#[derive(Debug, Clone)]
pub(crate) enum From {
    /// A file on the device.
    File,
    /// An address.
    Url(String),
}

/// SWUpdate with a bundle.
pub(crate) struct Swupdate<'a> {
    program: PathBuf,
    dir: PathBuf,
    bundle: PathBuf,
    keys: Keys,
    slot: &'a Path,
    artifact: &'a Artifact,
    /// Where from, next time.
    pub(crate) from: From,
}

impl<'a> Swupdate<'a> {
    /// Makes the bundle.
    pub(crate) fn prepare(
        dir: &Path,
        keys: &Keys,
        slot: &'a Path,
        artifact: &'a Artifact,
    ) -> Result<Self, Missing> {
        let program = find("swupdate")?;
        let failed = |e: std::io::Error| Missing::Failed(format!("making the bundle: {e}"));
        let description = format!(
            "software =\n{{\n  version = \"1.0\";\n  hardware-compatibility: [ \"1.0\" ];\n  images: ( {{ filename = \"image.img\"; \
             device = \"{}\"; type = \"raw\"; sha256 = \"{}\"; installed-directly = true; }} );\n}}\n",
            slot.display(),
            artifact.image_sha256,
        );
        fs::write(dir.join("sw-description"), description).map_err(failed)?;
        let (certificate, key) = (word(&keys.certificate), word(&keys.key));
        let sign = [
            "cms",
            "-sign",
            "-in",
            "sw-description",
            "-out",
            "sw-description.sig",
            "-signer",
            &certificate,
            "-inkey",
            &key,
            "-outform",
            "DER",
            "-nosmimecap",
            "-binary",
        ];
        timed::run(&find("openssl")?, &sign, dir)?;
        find("cpio")?;
        let pack = "printf 'sw-description\\nsw-description.sig\\nimage.img\\n' | cpio -o -H crc --quiet > bundle.swu";
        timed::run(&find("bash")?, &["-c", pack], dir)?;
        Ok(Swupdate {
            program,
            dir: dir.to_path_buf(),
            bundle: dir.join("bundle.swu"),
            keys: keys.clone(),
            slot,
            artifact,
            from: From::File,
        })
    }

    /// The bundle.
    pub(crate) fn bundle(&self) -> &Path {
        &self.bundle
    }
}

impl Contestant for Swupdate<'_> {
    fn name(&self) -> String {
        "SWUpdate".to_owned()
    }

    fn run(&mut self) -> Result<Cost, Missing> {
        let (program, slot) = (word(&self.program), word(self.slot));
        let certificate = word(&self.keys.certificate);
        let place = match &self.from {
            From::File => ["-i".to_owned(), word(&self.bundle)],
            From::Url(url) => ["-d".to_owned(), format!("-u {url}")],
        };
        let arguments = [
            "-c",
            SCRIPT,
            "swupdate",
            &slot,
            &program,
            "-H",
            "bench:1.0",
            "-M",
            "-m",
            "-k",
            &certificate,
            &place[0],
            &place[1],
        ];
        Ok(timed::run(&find("bash")?, &arguments, &self.dir)?.0)
    }

    fn check(&mut self) -> Result<(), Missing> {
        self.artifact.is_in(self.slot, &self.artifact.image)
    }
}
