//! `[repositories.<name>]`: where new versions of adapters are looked for.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::links::lift;
use super::reader::{Section, UrlKind};
use super::{Location, schema};

/// Largest root or file of authorities, in bytes.
const MAX_FILE: u64 = 1024 * 1024;
/// Pause between two looks at a directory: a medium that is plugged in is seen while somebody waits for it.
const EVERY_OF_DIRECTORY: Duration = Duration::from_secs(10);

/// A TUF repository that adapters are updated from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryConfig {
    /// Where it stands in the file.
    pub at: Location,
    /// Where the repository is.
    pub place: RepositoryPlace,
    /// The root of its keys that the operator trusts: the content of an `N.root.json`.
    pub root: Vec<u8>,
    /// Pause between two looks.
    pub every: Duration,
}

/// Where a repository is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RepositoryPlace {
    /// A directory of this device, which may be missing while no medium is plugged in. Absolute.
    Directory(PathBuf),
    /// The same behind https.
    Https {
        /// The folder that holds `metadata/` and `targets/`.
        url: Url,
        /// Certificates to trust instead of the system's, PEM.
        ca: Option<Vec<u8>>,
    },
}

pub(super) fn read(root: &Section<'_>) -> BTreeMap<String, RepositoryConfig> {
    let mut repositories = BTreeMap::new();
    for (name, item) in root
        .get("repositories")
        .map(|r| r.named("[repositories.vendor]"))
        .unwrap_or_default()
    {
        if let Some(section) = item.section(&schema::REPOSITORY)
            && let Some(repository) = repository(&section)
        {
            repositories.insert(name.to_owned(), repository);
        }
    }
    repositories
}

fn repository(section: &Section<'_>) -> Option<RepositoryConfig> {
    let place = place(section);
    let root = section
        .require(
            "root",
            "what is offered is believed for its signatures alone",
        )
        .and_then(|item| {
            let bytes = item.file_content("the root", MAX_FILE)?;
            match otahost_adapters::check_root(&bytes) {
                Ok(()) => Some(bytes),
                Err(error) => {
                    item.fault(
                        error.to_string(),
                        "copy the `N.root.json` that the publisher gave you by hand, not out of the repository",
                    );
                    None
                }
            }
        });
    let directory = matches!(place, Some(RepositoryPlace::Directory(_)));
    let every = if directory && section.get("every").is_none() {
        EVERY_OF_DIRECTORY
    } else {
        section.duration(
            "every",
            Duration::from_secs(1)..=Duration::from_secs(30 * 86_400),
        )
    };
    Some(RepositoryConfig {
        at: section.location(),
        place: place?,
        root: root?,
        every,
    })
}

fn place(section: &Section<'_>) -> Option<RepositoryPlace> {
    let ca = section
        .get("ca")
        .map(|item| item.file_content("the file", MAX_FILE));
    match (section.get("url"), section.get("directory")) {
        (Some(item), None) => {
            const FORM: &str =
                "write `https://host/folder`, the folder that holds metadata/ and targets/";
            let url = item.url(&UrlKind {
                form: FORM,
                schemes: &["https"],
                otherwise: "not the scheme of a repository",
                credentials: (
                    "a repository is read without any",
                    "remove the part before `@`",
                ),
            })?;
            if url.query().is_some() || url.fragment().is_some() {
                item.secret_fault("has a query or a fragment", FORM);
                return None;
            }
            Some(RepositoryPlace::Https { url, ca: lift(ca)? })
        }
        (None, Some(item)) => {
            if let Some(ca) = section.get("ca") {
                ca.fault(
                    "has no effect on a directory",
                    "remove this line; the signatures are what counts",
                );
            }
            item.absolute_path().map(RepositoryPlace::Directory)
        }
        _ => {
            section.fault(
                "must say in one way where it is",
                "write `url = \"https://…\"` or `directory = \"/media/usb/adapters\"`",
            );
            None
        }
    }
}
