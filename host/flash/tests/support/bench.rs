//! A staging directory on a real disk.
#![allow(
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    reason = "tests; not every file uses all of it"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use otahost_disk::{Place, RealDisk};
use otahost_flash::archive::ArchiveSetup;
use otahost_flash::{Archive, ArchiveLimits, FlashError, Flasher, Program, Staged, Work};

/// A staging directory on a real disk, with something beside it that nobody may touch.
pub struct Bench {
    pub dir: tempfile::TempDir,
    pub limits: ArchiveLimits,
    pub deliver: Option<Program>,
}

impl Bench {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("precious"), "kept").unwrap();
        Bench {
            dir,
            limits: ArchiveLimits::default(),
            deliver: None,
        }
    }

    pub fn flasher(&self) -> Archive {
        Archive::new(
            Arc::new(RealDisk::operator_only()),
            ArchiveSetup {
                directory: Place::operator(self.dir.path().join("stage")),
                deliver: self.deliver.clone(),
                limits: self.limits,
            },
        )
    }

    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    pub fn stage(&self, archive: &[u8]) -> Staged {
        let flasher = self.flasher();
        let stage = flasher.begin(false).unwrap();
        stage.write_at(archive, 0).unwrap();
        stage.sync().unwrap();
        let staged = flasher
            .finish(archive.len() as u64, &sha256(archive))
            .unwrap();
        flasher.verify(&staged).unwrap();
        staged
    }

    pub fn deliver(&self, archive: &[u8]) -> Result<Staged, FlashError> {
        let staged = self.stage(archive);
        self.flasher().deliver(&staged, &Work::quiet())?;
        Ok(staged)
    }

    /// What the current directory holds: files with their content, links with where they lead, directories.
    pub fn current(&self) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        gather(&self.path("stage/current"), "", &mut found);
        found
    }

    /// The names beside the staging directory, with the content of files.
    pub fn beside(&self) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        for entry in std::fs::read_dir(self.dir.path()).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let content = std::fs::read_to_string(self.path(&name)).unwrap_or_default();
            found.insert(name, content);
        }
        found
    }
}

pub fn gather(dir: &Path, above: &str, found: &mut BTreeMap<String, String>) {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return;
    };
    for entry in entries {
        let entry = entry.unwrap();
        let name = format!("{above}{}", entry.file_name().into_string().unwrap());
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            gather(&entry.path(), &format!("{name}/"), found);
            found.insert(format!("{name}/"), String::new());
        } else if kind.is_symlink() {
            let target = std::fs::read_link(entry.path()).unwrap();
            found.insert(name, format!("-> {}", target.display()));
        } else {
            let content = std::fs::read(entry.path()).unwrap();
            found.insert(name, String::from_utf8_lossy(&content).into_owned());
        }
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
