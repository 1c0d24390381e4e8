//! Why an attempt failed.

use otahost_core::model::Reason;

use crate::header::HeaderError;
use crate::keys::KeyError;
use crate::signature::SignatureError;
use crate::source::SourceError;
use crate::stage::StageError;

/// Why an attempt failed. The texts are for people; they hold no query and no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The source gave no (more) bytes.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The body went on behind its end.
    #[error("the file is longer than the {allowed} bytes it may have")]
    TooLong {
        /// Bytes that were expected or allowed.
        allowed: u64,
    },
    /// The body ended properly, but early.
    #[error("the file ended after {received} of {expected} bytes")]
    TooShort {
        /// Bytes that came.
        received: u64,
        /// Bytes that were expected.
        expected: u64,
    },
    /// What the source says about the size makes it pointless to fetch.
    #[error("{0}")]
    Size(String),
    /// The bytes are others than the plan says.
    #[error("the file's {algorithm} is {found}, but {expected} was expected")]
    Digest {
        /// `md5` or `sha256`.
        algorithm: &'static str,
        /// Hex digest of the plan.
        expected: String,
        /// Hex digest of what came.
        found: String,
        /// Part of the content came from an earlier attempt, so a clean start may mend it.
        resumed: bool,
    },
    /// Trust asks for a signature and the artifact has none, neither in it nor beside it.
    #[error("the file is not signed, but the target trusts only signed ones (see `otahost sign`)")]
    Unsigned,
    /// The header cannot be read.
    #[error("the file's signed header is damaged: {0}")]
    Header(#[from] HeaderError),
    /// The signature beside the file cannot be read.
    #[error("the signature beside the file (.minisig) is damaged: {0}")]
    Sidecar(#[source] SignatureError),
    /// Signed by nobody who is trusted, or the signature was tampered with.
    #[error("the file's signature is refused: {0}")]
    Key(#[from] KeyError),
    /// The payload is not what was signed.
    #[error("the file is not what was signed with the trusted key {key}")]
    Signature {
        /// Identifier of the key, as minisign shows it.
        key: String,
        /// Part of the content came from an earlier attempt, so a clean start may mend it.
        resumed: bool,
    },
    /// The file is for another kind of device, or does not say for which.
    #[error(
        "the file is signed {}, but the target takes only files for {expected:?}",
        match found { Some(found) => format!("for {found:?}"), None => "without `compatible`".to_owned() }
    )]
    Compatible {
        /// What the target is.
        expected: String,
        /// What the signature names.
        found: Option<String>,
    },
    /// The file is older than what may be installed, or does not say how old it is.
    #[error(
        "the file is signed {}, but the target takes none below {min}",
        match found { Some(found) => format!("with rollback index {found}"), None => "without `rollback-index`".to_owned() }
    )]
    RollbackIndex {
        /// The lowest that is taken.
        min: u64,
        /// What the signature names.
        found: Option<u64>,
    },
    /// The signature speaks of another version than the plan.
    #[error("the file is signed as version {found:?}, but version {expected:?} was asked for")]
    Version {
        /// The plan's.
        expected: String,
        /// The signature's.
        found: String,
    },
    /// The payload does not fit.
    #[error("{0}")]
    NoSpace(String),
    /// The staging area cannot be read or written.
    #[error("{0}")]
    Stage(String),
}

/// Names in lower case, and values.
pub type Headers<'a> = &'a [(String, String)];

impl From<StageError> for Failure {
    fn from(error: StageError) -> Self {
        match error {
            StageError::NoSpace(text) => Failure::NoSpace(text),
            StageError::Failed(text) => Failure::Stage(text),
        }
    }
}

impl Failure {
    /// The reason a report gives.
    pub fn reason(&self) -> Reason {
        let (code, stage) = match self {
            Failure::Source(SourceError::Status { .. } | SourceError::Forbidden(_)) => {
                ("source-refused", "download")
            }
            Failure::Source(SourceError::Broken(_) | SourceError::Stalled(_)) => {
                ("source-lost", "download")
            }
            Failure::TooLong { .. } => ("too-long", "download"),
            Failure::TooShort { .. } => ("too-short", "download"),
            Failure::Size(_) => ("size", "download"),
            Failure::Digest { .. } => ("digest", "verify"),
            Failure::Unsigned => ("unsigned", "verify"),
            Failure::Header(_)
            | Failure::Sidecar(_)
            | Failure::Key(_)
            | Failure::Signature { .. } => ("signature", "verify"),
            Failure::Compatible { .. } => ("compatible", "verify"),
            Failure::RollbackIndex { .. } => ("rollback-index", "verify"),
            Failure::Version { .. } => ("version-mismatch", "verify"),
            Failure::NoSpace(_) => ("no-space", "download"),
            Failure::Stage(_) => ("flash", "download"),
        };
        Reason::new(code, stage, self.to_string())
    }

    /// True when the same request once more is of no use. For a [`Failure::Source`] this is what holds when no adapter is there
    /// to name another source: every 4xx except 408 and 429.
    pub fn is_final(&self) -> bool {
        match self {
            Failure::Source(SourceError::Status { status, .. }) => {
                (400..500).contains(status) && !matches!(status, 408 | 429)
            }
            Failure::Source(SourceError::Forbidden(_)) => true,
            Failure::Source(SourceError::Broken(_) | SourceError::Stalled(_))
            | Failure::TooShort { .. }
            | Failure::Stage(_) => false,
            Failure::Digest { resumed, .. } | Failure::Signature { resumed, .. } => !resumed,
            Failure::TooLong { .. }
            | Failure::Size(_)
            | Failure::Unsigned
            | Failure::Header(_)
            | Failure::Sidecar(_)
            | Failure::Key(_)
            | Failure::Compatible { .. }
            | Failure::RollbackIndex { .. }
            | Failure::Version { .. }
            | Failure::NoSpace(_) => true,
        }
    }

    /// True when one start from nothing may mend it: the content is wrong, and part of it came from an earlier attempt. The
    /// engine has already handed out an empty checkpoint.
    pub fn wants_clean_retry(&self) -> bool {
        matches!(
            self,
            Failure::Digest { resumed: true, .. } | Failure::Signature { resumed: true, .. }
        )
    }

    /// What the server answered, for the adapter's `attempt` event: status, headers, and the first 4 KiB of the body.
    pub fn answer(&self) -> Option<(u16, Headers<'_>, &[u8])> {
        match self {
            Failure::Source(SourceError::Status {
                status,
                headers,
                body,
                ..
            }) => Some((*status, headers, body)),
            _ => None,
        }
    }

    /// What is staged cannot become the file that was asked for.
    pub(crate) fn spoils_the_stage(&self) -> bool {
        matches!(
            self,
            Failure::Digest { .. } | Failure::Signature { .. } | Failure::TooLong { .. }
        )
    }
}
