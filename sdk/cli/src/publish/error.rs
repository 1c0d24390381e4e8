//! Why nothing was published, or no keys were made.

use std::path::PathBuf;

use otahost_adapters::RepositoryError;

/// Why nothing was published, or no keys were made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// A file of this machine refused.
    #[error("cannot {what}")]
    Machine {
        /// What was tried.
        what: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// One name for several components.
    #[error("--name names one adapter, and {0} components were given; publish them one by one")]
    OneName(
        /// How many there are.
        usize,
    ),
    /// A component that no device would take.
    #[error("{} cannot be published: {why}", file.display())]
    Component {
        /// The file.
        file: PathBuf,
        /// Why.
        why: String,
    },
    /// The version is there already, and is something else.
    #[error(
        "{target} is published already with other content ({published}, now {given}); a published version is never changed: raise the \
         adapter's version, build it and publish that"
    )]
    OtherContent {
        /// The target.
        target: String,
        /// Digest of what is published.
        published: String,
        /// Digest of what was to be published.
        given: String,
    },
    /// The repository is full.
    #[error("the repository would have {count} targets, and devices take {limit}; begin a new one")]
    Full {
        /// How many there would be.
        count: usize,
        /// How many devices take.
        limit: usize,
    },
    /// There are keys in the folder already.
    #[error("{} exists; keys are never overwritten. Choose another folder", .0.display())]
    KeysExist(
        /// The first one found.
        PathBuf,
    ),
    /// A key is not there.
    #[error("there is no {}; `adapter keygen {}` makes keys, or bring the file from where it is kept", file.display(), file.parent().unwrap_or(file).display())]
    NoKey {
        /// The file.
        file: PathBuf,
    },
    /// The keys are others than those the root names.
    #[error("no key in {} may sign the {role} metadata of this repository; bring the right keys, or let new ones take over with --root-rotate", keys.display())]
    WrongKeys {
        /// The folder of the keys.
        keys: PathBuf,
        /// Which metadata.
        role: String,
    },
    /// A key file that cannot be used, or a signature that failed.
    #[error("the {role} metadata cannot be signed: {why}")]
    Sign {
        /// Which metadata.
        role: String,
        /// Why.
        why: String,
    },
    /// The repository is not what a former publishing left.
    #[error("{} cannot be extended: {why}", file.display())]
    Repository {
        /// The file or folder.
        file: PathBuf,
        /// Why.
        why: String,
    },
    /// There is nothing to rotate.
    #[error("{} has no root yet, so no keys can take over; publish without --root-rotate", .0.display())]
    NothingToRotate(
        /// The repository.
        PathBuf,
    ),
    /// Somebody else is at it.
    #[error("{} is being published to by another `adapter publish`; wait for it to end", .0.display())]
    Busy(
        /// The repository.
        PathBuf,
    ),
    /// What was made is not what a device takes.
    #[error("the repository was written, and a device would not take it")]
    NotTaken(
        /// What the device says.
        #[source]
        RepositoryError,
    ),
}

impl PublishError {
    /// The exit code of the `adapter` tool: 1 machine, 2 command line, 7 component, 8 keys, 9 repository.
    pub fn exit_code(&self) -> u8 {
        match self {
            PublishError::Machine { .. } => 1,
            PublishError::OneName(_) => 2,
            PublishError::Component { .. } => 7,
            PublishError::KeysExist(_)
            | PublishError::NoKey { .. }
            | PublishError::WrongKeys { .. }
            | PublishError::Sign { .. } => 8,
            PublishError::OtherContent { .. }
            | PublishError::Full { .. }
            | PublishError::Repository { .. }
            | PublishError::NothingToRotate(_)
            | PublishError::Busy(_)
            | PublishError::NotTaken(_) => 9,
        }
    }

    /// An error of the machine.
    pub(super) fn machine(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> PublishError {
        let what = what.into();
        move |source| PublishError::Machine { what, source }
    }
}
