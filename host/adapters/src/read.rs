//! Reads one file of a repository, wherever that is, and never more of it than was allowed.

use std::io;
use std::sync::Arc;

use otahost_disk::{Disk, Place, Seam};

use crate::RepositoryError;
use crate::source::{Kind, RepositorySource};

/// Why a file was not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("{0}")]
    Missing(String),
    #[error("more than {0} bytes")]
    TooLarge(u64),
    #[error("too many files were asked for")]
    TooMany,
    #[error("{0}")]
    Failed(String),
}

impl ReadError {
    /// The same with the file's name, for the caller of this crate.
    pub(crate) fn of(self, what: &str) -> RepositoryError {
        let what = what.to_owned();
        match self {
            ReadError::Missing(why) => RepositoryError::Missing { what, why },
            ReadError::TooLarge(limit) => RepositoryError::Oversize { what, limit },
            ReadError::TooMany => RepositoryError::TooMany {
                what: "files of metadata",
                count: crate::transport::MAX_FILES + 1,
                limit: crate::transport::MAX_FILES,
            },
            ReadError::Failed(why) => RepositoryError::Transport(format!("{what}: {why}")),
        }
    }
}

/// An opened source.
#[derive(Debug, Clone)]
pub(crate) enum Reader {
    Directory {
        directory: Arc<dyn Disk>,
        seam: Seam,
    },
    #[cfg(feature = "https")]
    Https(https::Server),
}

impl Reader {
    pub(crate) async fn open(
        source: &RepositorySource,
        disk: &Arc<dyn Disk>,
        seam: Seam,
    ) -> Result<Self, RepositoryError> {
        match &source.0 {
            Kind::Directory(path) => {
                let (disk, place) = (Arc::clone(disk), Place::operator(path));
                let directory = seam.run(move || disk.confined(&place)).await.map_err(|e| {
                    RepositoryError::Transport(format!("{e}; is the medium there and mounted?"))
                })?;
                Ok(Self::Directory { directory, seam })
            }
            #[cfg(feature = "https")]
            Kind::Https { base, ca_pem } => Ok(Self::Https(https::Server::new(base, ca_pem))),
        }
    }

    /// Reads the file with this path, which has no way out in it.
    pub(crate) async fn read(&self, path: &str, limit: u64) -> Result<Vec<u8>, ReadError> {
        match self {
            Reader::Directory { directory, seam } => {
                let (directory, place) = (Arc::clone(directory), Place::data(path));
                seam.run(move || directory.read(&place, limit))
                    .await
                    .map_err(|e| match e.kind() {
                        io::ErrorKind::NotFound => ReadError::Missing(e.to_string()),
                        io::ErrorKind::FileTooLarge => ReadError::TooLarge(limit),
                        _ => ReadError::Failed(e.to_string()),
                    })
            }
            #[cfg(feature = "https")]
            Reader::Https(server) => server.read(path, limit).await,
        }
    }
}

#[cfg(feature = "https")]
mod https {
    //! Over the links' client: its grants, its address rules, its time-outs.

    use std::fmt;
    use std::sync::Arc;

    use otahost_links::http::{Allow, HttpError, HttpOptions, HttpSource, Reach};
    use url::Url;

    use super::ReadError;

    #[derive(Clone)]
    pub(crate) struct Server {
        base: Url,
        ca_pem: Option<Vec<u8>>,
        allow: Allow,
    }

    impl fmt::Debug for Server {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "Server({})", self.base)
        }
    }

    impl Server {
        pub(super) fn new(base: &Url, ca_pem: &Option<Vec<u8>>) -> Self {
            let named = base.origin();
            Self {
                base: base.clone(),
                ca_pem: ca_pem.clone(),
                // What comes is believed for its signatures only, so a redirect to a store on the internet does no harm.
                allow: Arc::new(move |url: &Url| match url.origin() == named {
                    true => Ok(Reach::Named),
                    false if url.scheme() == "https" => Ok(Reach::PublicOnly),
                    false => Err("a repository is read over https only".to_owned()),
                }),
            }
        }

        pub(super) async fn read(&self, path: &str, limit: u64) -> Result<Vec<u8>, ReadError> {
            let url = self
                .base
                .join(path)
                .map_err(|e| ReadError::Failed(format!("no URL can be made of it: {e}")))?;
            let mut options = HttpOptions::new(url, Arc::clone(&self.allow));
            options.ca_pem.clone_from(&self.ca_pem);
            let mut opened = HttpSource::new(options)
                .map_err(failed)?
                .open(0, None)
                .await
                .map_err(failed)?;
            if opened.total.is_some_and(|total| total > limit) {
                return Err(ReadError::TooLarge(limit));
            }
            let mut bytes = Vec::new();
            while let Some(piece) = opened.body.next().await.map_err(failed)? {
                if (bytes.len() + piece.len()) as u64 > limit {
                    return Err(ReadError::TooLarge(limit));
                }
                bytes.extend_from_slice(&piece);
            }
            Ok(bytes)
        }
    }

    /// Object stores answer 403 for what is not there to those who may not list.
    fn failed(error: HttpError) -> ReadError {
        match error {
            HttpError::Status {
                status: 403 | 404 | 410,
                text,
                ..
            } => ReadError::Missing(text),
            other => ReadError::Failed(other.to_string()),
        }
    }
}
