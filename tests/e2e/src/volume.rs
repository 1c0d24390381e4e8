//! A small file system of its own: a real one, on a loop device, that can be filled, fail, and be damaged behind the kernel's back.
//!
//! Mounting needs root and loop devices. Where this process is root and it does not work all the same, that is an error and no reason
//! to leave a test out.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

const MIB: u64 = 1024 * 1024;

/// An ext4 at a place. Gone with its value.
#[derive(Debug)]
pub struct Volume {
    at: PathBuf,
    dir: TempDir,
}

impl Volume {
    /// Of so many MiB at this place, which is made; `None`, with a word about it, where a user may not mount.
    ///
    /// # Panics
    /// When root cannot mount it.
    pub fn mount(at: &Path, mib: u64) -> Option<Volume> {
        let dir = tempfile::tempdir().unwrap();
        let volume = Volume {
            at: at.to_owned(),
            dir,
        };
        let image = File::create(volume.image()).unwrap();
        image.set_len(mib * MIB).unwrap();
        fs::create_dir_all(at).unwrap();
        run("mkfs.ext4", &["-q", "-F", "-m", "0"], &[&volume.image()]).unwrap();
        let mounted = volume.mount_again();
        if let Err(why) = &mounted {
            assert!(!is_root(), "root cannot mount a file system here: {why}");
            eprintln!("skipped: a file system can be mounted by root only: {why}");
        }
        mounted.is_ok().then_some(volume)
    }

    /// The file that stands for the medium.
    fn image(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    /// Where it is.
    pub fn at(&self) -> &Path {
        &self.at
    }

    /// Takes all its space, but for so many MiB.
    pub fn fill(&self, leave_mib: u64) {
        let mut file = File::create(self.at.join("ballast")).unwrap();
        let block = [1; 4096];
        // The space is taken when it is synced.
        while file
            .write_all(&block)
            .and_then(|()| file.sync_all())
            .is_ok()
        {}
        let size = file.metadata().unwrap().len();
        file.set_len(size.saturating_sub(leave_mib * MIB)).unwrap();
        file.sync_all().unwrap();
    }

    /// Gives back the space that was taken.
    pub fn free(&self) {
        fs::remove_file(self.at.join("ballast")).unwrap();
    }

    /// The kernel finds an error in it, and makes it read-only from now on, as it does with a medium that fails.
    pub fn fail(&self) {
        run("mount", &["-o", "remount,abort"], &[&self.at]).unwrap();
    }

    /// Takes it away. Nobody may use it any more.
    pub fn unmount(&self) {
        run("umount", &[], &[&self.at]).unwrap();
    }

    /// Has it checked and mended, and mounts it again.
    pub fn mend(&self) {
        // 1 says that there was something to mend.
        let checked = Command::new("e2fsck").arg("-fy").arg(self.image()).output();
        let code = checked.unwrap().status.code();
        assert!(matches!(code, Some(0 | 1)), "e2fsck ends with {code:?}");
        self.mount_again().unwrap();
    }

    fn mount_again(&self) -> Result<(), String> {
        run(
            "mount",
            &["-o", "loop,errors=remount-ro"],
            &[&self.image(), &self.at],
        )
    }

    /// Flips one bit on the medium, in each copy of these bytes, so far from their beginning, and mounts it again. It has to be
    /// unmounted; says how many copies there were.
    ///
    /// # Panics
    /// When there is none.
    pub fn flip_bit_in(&self, text: &[u8], at: usize) -> usize {
        let bytes = fs::read(self.image()).unwrap();
        let medium = File::options().write(true).open(self.image()).unwrap();
        let copies = bytes.windows(text.len()).enumerate();
        let copies: Vec<usize> = copies
            .filter(|(_, window)| *window == text)
            .map(|(place, _)| place + at)
            .collect();
        assert!(!copies.is_empty(), "what is to be damaged is not there");
        for place in &copies {
            medium
                .write_all_at(&[bytes[*place] ^ 1], *place as u64)
                .unwrap();
        }
        medium.sync_all().unwrap();
        self.mount_again().unwrap();
        copies.len()
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // A test that failed may still use it, or have taken it away.
        let _ = run("umount", &["-l"], &[&self.at]);
    }
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    id.stdout == b"0\n"
}

fn run(program: &str, arguments: &[&str], paths: &[&Path]) -> Result<(), String> {
    let done = Command::new(program).args(arguments).args(paths).output();
    let done = done.map_err(|e| format!("{program}: {e}"))?;
    match done.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&done.stderr).into_owned()),
    }
}
