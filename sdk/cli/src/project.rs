//! Finds out what is to be built, by asking cargo.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::error::Error;

/// The crate to build.
pub(crate) struct Project {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) dir: PathBuf,
    pub(crate) manifest: PathBuf,
    pub(crate) workspace_root: PathBuf,
    pub(crate) target_dir: PathBuf,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_root: PathBuf,
    target_directory: PathBuf,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    manifest_path: PathBuf,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
}

impl Package {
    /// By `kind`, not by `crate_types`: an example may be a `cdylib` too, and is nothing to install.
    fn is_cdylib(&self) -> bool {
        self.targets
            .iter()
            .any(|target| target.kind.iter().any(|kind| kind == "cdylib"))
    }
}

/// The program to call as cargo: the one that runs us, if one does.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Reads the crate in this folder.
pub(crate) fn find(dir: &Path) -> Result<Project, Error> {
    let manifest = dir.join("Cargo.toml");
    if !manifest.is_file() {
        return Err(Error::NoManifest(dir.to_owned()));
    }
    let manifest = manifest
        .canonicalize()
        .map_err(Error::machine(format!("find {}", manifest.display())))?;
    let output = cargo()
        .args([
            "metadata",
            "--no-deps",
            "--format-version",
            "1",
            "--manifest-path",
        ])
        .arg(&manifest)
        .output()
        .map_err(Error::machine(
            "start cargo; is Rust installed and in the PATH?",
        ))?;
    let bad = |said: String| Error::BadManifest {
        manifest: manifest.clone(),
        said,
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(bad(said.trim().trim_start_matches("error: ").to_owned()));
    }
    let metadata: Metadata = serde_json::from_slice(&output.stdout)
        .map_err(|e| bad(format!("its answer is not understood: {e}")))?;
    let Some(package) = metadata
        .packages
        .iter()
        .find(|p| p.manifest_path == manifest)
    else {
        let folder = |p: &Package| p.manifest_path.parent().map(|d| d.display().to_string());
        let adapters = metadata
            .packages
            .iter()
            .filter(|p| p.is_cdylib())
            .filter_map(folder)
            .collect();
        return Err(Error::Workspace { manifest, adapters });
    };
    if !package.is_cdylib() {
        return Err(Error::NotCdylib {
            name: package.name.clone(),
            manifest,
        });
    }
    Ok(Project {
        name: package.name.clone(),
        version: package.version.clone(),
        dir: manifest.parent().unwrap_or(Path::new(".")).to_owned(),
        workspace_root: metadata.workspace_root,
        target_dir: metadata.target_directory,
        manifest,
    })
}
