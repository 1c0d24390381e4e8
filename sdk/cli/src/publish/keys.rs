//! The keys of a repository: one for each of its four roles, so that the one that has to lie on a server cannot install anything.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::Ed25519KeyPair;
use serde::Serialize;
use tough::key_source::{KeySource, LocalKeySource};
use tough::schema::key::Key;
use tough::sign::Sign as _;

use super::PublishError;

/// The roles, and what their keys can do, for people.
pub(super) const ROLES: [(&str, &str); 4] = [
    (
        "root",
        "names the other keys; keep it off line, it is needed to begin and to rotate",
    ),
    (
        "targets",
        "says which components are ours; needed to publish one",
    ),
    ("snapshot", "says which files belong together"),
    (
        "timestamp",
        "says what is newest; may lie on a server that renews it",
    ),
];

/// Ending of a key's file. Its content is PKCS #8, DER.
pub(super) const EXTENSION: &str = "key";

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Generated {
    /// The folder.
    pub folder: PathBuf,
    /// The keys.
    pub keys: Vec<GeneratedKey>,
}

/// One key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GeneratedKey {
    /// `root`, `targets`, `snapshot` or `timestamp`.
    pub role: &'static str,
    /// Its file, readable for its owner only.
    pub file: PathBuf,
    /// Its public name in the metadata: 64 hexadecimal digits.
    pub id: String,
    /// What it is for, in words.
    pub purpose: &'static str,
}

/// Makes the four keys (Ed25519) of a repository in a folder, which is made (mode 0700) where it does not exist. Files have mode 0600.
///
/// # Errors
/// [`PublishError::KeysExist`] where one of the files is there already, before anything is written; [`PublishError::Machine`].
pub fn keygen(folder: &Path) -> Result<Generated, PublishError> {
    let file = |role: &str| folder.join(role).with_extension(EXTENSION);
    if let Some((role, _)) = ROLES.iter().find(|(role, _)| file(role).exists()) {
        return Err(PublishError::KeysExist(file(role)));
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(PublishError::machine(format!("make {}", folder.display())))?;
    let mut keys = Vec::new();
    for (role, purpose) in ROLES {
        let sign = |why: &str| PublishError::Sign {
            role: role.to_owned(),
            why: why.to_owned(),
        };
        let private = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .map_err(|_| sign("no key could be made"))?;
        let id = Ed25519KeyPair::from_pkcs8(private.as_ref())
            .ok()
            .and_then(|pair| pair.tuf_key().key_id().ok())
            .ok_or_else(|| sign("the new key cannot be read"))?;
        let file = file(role);
        fs::File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&file)
            .and_then(|mut open| {
                open.write_all(private.as_ref())?;
                open.sync_all()
            })
            .map_err(PublishError::machine(format!("write {}", file.display())))?;
        keys.push(GeneratedKey {
            role,
            file,
            id: id.iter().map(|byte| format!("{byte:02x}")).collect(),
            purpose,
        });
    }
    Ok(Generated {
        folder: folder.to_owned(),
        keys,
    })
}

/// The keys in a folder.
#[derive(Debug)]
pub(super) struct KeyFolder {
    pub(super) path: PathBuf,
    pub(super) sources: Vec<Box<dyn KeySource>>,
    public: Vec<Key>,
}

impl KeyFolder {
    pub(super) async fn open(path: &Path) -> Result<Self, PublishError> {
        let failed = || PublishError::machine(format!("read the keys in {}", path.display()));
        let mut files = Vec::new();
        for entry in fs::read_dir(path).map_err(failed())? {
            let file = entry.map_err(failed())?.path();
            if file.extension().is_some_and(|found| found == EXTENSION) {
                files.push(file);
            }
        }
        files.sort();
        let mut folder = Self {
            path: path.to_owned(),
            sources: Vec::new(),
            public: Vec::new(),
        };
        for file in files {
            folder.public.push(public(&file).await?);
            folder.sources.push(Box::new(LocalKeySource { path: file }));
        }
        Ok(folder)
    }

    /// The public key for a role, by the name of its file.
    pub(super) async fn role(&self, role: &str) -> Result<Key, PublishError> {
        let file = self.path.join(role).with_extension(EXTENSION);
        if file.is_file() {
            public(&file).await
        } else {
            Err(PublishError::NoKey { file })
        }
    }

    /// Whether one of these keys is in the folder.
    pub(super) fn has_one_of<'k>(&self, mut keys: impl Iterator<Item = &'k Key>) -> bool {
        keys.any(|key| self.public.contains(key))
    }
}

async fn public(file: &Path) -> Result<Key, PublishError> {
    let source = LocalKeySource {
        path: file.to_owned(),
    };
    let key = source.as_sign().await.map_err(|e| PublishError::Sign {
        role: file
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        why: format!("{} is no key (PKCS #8): {e}", file.display()),
    })?;
    Ok(key.tuf_key())
}
