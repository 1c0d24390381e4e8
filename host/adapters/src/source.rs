//! The place a repository lies in.

use std::fmt;
use std::path::{Path, PathBuf};

#[cfg(feature = "https")]
use url::Url;

use crate::RepositoryError;

/// Where a repository is: the folder that holds `metadata/` and `targets/`.
#[derive(Clone)]
pub struct RepositorySource(pub(crate) Kind);

#[derive(Clone)]
pub(crate) enum Kind {
    Directory(PathBuf),
    #[cfg(feature = "https")]
    Https {
        base: Url,
        ca_pem: Option<Vec<u8>>,
    },
}

impl RepositorySource {
    /// A directory of this device: a mounted USB stick, a folder of the firmware. It is only read, and no link in it is followed out
    /// of it.
    ///
    /// # Errors
    /// [`RepositoryError::Transport`] for a path that is not absolute.
    pub fn directory(path: &Path) -> Result<Self, RepositoryError> {
        if !path.is_absolute() {
            return Err(RepositoryError::Transport(format!(
                "`{}` is no absolute path; write it from `/` on",
                path.display()
            )));
        }
        Ok(Self(Kind::Directory(path.to_owned())))
    }

    /// A directory behind https. `base` is the operator's word: its host may be in a private network. Redirects may lead elsewhere,
    /// but not into one: see `otahost_links::http`. No credentials are sent.
    ///
    /// `ca_pem`: certificates to trust (PEM); without them the platform's.
    ///
    /// # Errors
    /// [`RepositoryError::Transport`] for a URL that is not https, or has a query, a fragment, a user name or a password.
    #[cfg(feature = "https")]
    pub fn https(base: &str, ca_pem: Option<Vec<u8>>) -> Result<Self, RepositoryError> {
        let refuse = |why: &str| Err(RepositoryError::Transport(why.to_owned()));
        let Ok(mut base) = Url::parse(base) else {
            return refuse(
                "its address is no URL; write it as in `https://updates.example/adapters`",
            );
        };
        if base.scheme() != "https" || base.host_str().is_none_or(str::is_empty) {
            return refuse("its address must begin with `https://` and a host");
        }
        if !base.username().is_empty() || base.password().is_some() {
            return refuse("its address holds credentials; a repository is read without any");
        }
        if base.query().is_some() || base.fragment().is_some() {
            return refuse(
                "its address has a query or fragment; name the folder that holds metadata/ and targets/",
            );
        }
        if !base.path().ends_with('/') {
            let path = format!("{}/", base.path());
            base.set_path(&path);
        }
        Ok(Self(Kind::Https { base, ca_pem }))
    }
}

impl fmt::Display for RepositorySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Directory(path) => write!(f, "{}", path.display()),
            #[cfg(feature = "https")]
            Kind::Https { base, .. } => write!(f, "{base}"),
        }
    }
}

impl fmt::Debug for RepositorySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RepositorySource({self})")
    }
}

#[cfg(all(test, feature = "https"))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn only_plain_https_addresses_are_taken_and_a_refusal_shows_no_secret() {
        for bad in [
            "http://updates.example/a",
            "file:///etc",
            "https://user:secret@updates.example/",
            "https://updates.example/?token=secret",
            "secret",
        ] {
            let error = RepositorySource::https(bad, None).unwrap_err();
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        let source = RepositorySource::https("https://updates.example/adapters", None).unwrap();
        assert_eq!(source.to_string(), "https://updates.example/adapters/");
    }

    #[test]
    fn a_directory_is_named_from_the_root_on() {
        assert!(RepositorySource::directory(Path::new("media/stick")).is_err());
        assert!(RepositorySource::directory(Path::new("/media/stick")).is_ok());
    }
}
