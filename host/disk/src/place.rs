//! Where a file is.

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};
use std::{fmt, io};

/// Where a file is: in the agent's own data directory, or at a path the operator configured.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// Relative to the data directory. It cannot leave it: absolute paths, `..` and links out are refused by the disk.
    Data(PathBuf),
    /// An absolute path the operator wrote into the configuration: a slot, a boot selector.
    Operator(PathBuf),
}

impl Place {
    /// A place in the data directory.
    pub fn data(path: impl Into<PathBuf>) -> Self {
        Place::Data(path.into())
    }

    /// A place the operator configured.
    pub fn operator(path: impl Into<PathBuf>) -> Self {
        Place::Operator(path.into())
    }

    /// The path, relative or absolute as the case is.
    pub fn path(&self) -> &Path {
        match self {
            Place::Data(p) | Place::Operator(p) => p,
        }
    }

    /// The directory that holds it; of the data directory itself, the data directory.
    pub fn parent(&self) -> Place {
        let up = |p: &Path| p.parent().map(Path::to_path_buf).unwrap_or_default();
        match self {
            Place::Data(p) => Place::Data(up(p)),
            Place::Operator(p) => Place::Operator(up(p)),
        }
    }

    /// The names on the way from the data directory or from `/`; none for these two themselves.
    ///
    /// # Errors
    /// `InvalidInput` for an absolute path in the data directory, a relative one elsewhere, and for `..` in either: what a `..`
    /// means depends on links, so nobody could say which place is meant.
    pub(crate) fn names(&self) -> io::Result<Vec<&OsStr>> {
        let refuse = |why: &str| {
            Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{self} is no usable place: {why}"),
            ))
        };
        match self {
            Place::Data(path) if path.has_root() => {
                return refuse("a path in the data directory must be relative");
            }
            Place::Operator(path) if !path.has_root() => {
                return refuse("a path outside the data directory must be absolute");
            }
            Place::Data(_) | Place::Operator(_) => {}
        }
        let mut names = Vec::new();
        for component in self.path().components() {
            match component {
                Component::Normal(name) => names.push(name),
                Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
                Component::ParentDir => return refuse("it has `..` in it"),
            }
        }
        Ok(names)
    }

    /// Refuses what has no name that could be changed or go: the data directory and `/`.
    ///
    /// # Errors
    /// `InvalidInput`, also for a place that is not usable at all.
    pub(crate) fn check_has_name(&self) -> io::Result<()> {
        if self.names()?.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{self} cannot be renamed or removed"),
            ));
        }
        Ok(())
    }

    /// A place below it.
    pub fn join(&self, path: impl AsRef<Path>) -> Place {
        match self {
            Place::Data(above) => Place::Data(above.join(path)),
            Place::Operator(above) => Place::Operator(above.join(path)),
        }
    }

    /// A place beside it whose name has this ending added.
    pub fn with_suffix(&self, suffix: &str) -> Place {
        let add = |p: &Path| {
            let mut name = p.file_name().unwrap_or_default().to_os_string();
            name.push(suffix);
            p.with_file_name(name)
        };
        match self {
            Place::Data(p) => Place::Data(add(p)),
            Place::Operator(p) => Place::Operator(add(p)),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Data(p) => write!(f, "{{data}}/{}", p.display()),
            Place::Operator(p) => write!(f, "{}", p.display()),
        }
    }
}
