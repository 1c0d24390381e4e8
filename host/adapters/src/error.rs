//! Why a repository, or what it offers, is refused: a name for each, so that an operator knows whether to renew a file or to look
//! for an attacker.

use std::fmt;

/// The part of a repository's metadata something is wrong with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The keys of all parts.
    Root,
    /// Which state is the newest.
    Timestamp,
    /// Which files belong to that state.
    Snapshot,
    /// The components, with size and digest.
    Targets,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Root => "root",
            Role::Timestamp => "timestamp",
            Role::Snapshot => "snapshot",
            Role::Targets => "targets",
        })
    }
}

/// Why there is no list of adapters, or no component. Nothing of the device changes with one of these; what runs goes on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RepositoryError {
    /// The clock cannot tell an old state of the repository from a new one.
    #[error(
        "the repository is not opened: the clock was never set, so nobody can tell whether what it offers has expired; set the clock \
         (NTP, an RTC), then it is opened"
    )]
    ClockUnset,
    /// The root the operator trusts cannot be used.
    #[error("the trusted root cannot be used: {0}; configure the publisher's N.root.json")]
    TrustedRoot(String),
    /// The medium, the server or the configuration of the source.
    #[error("cannot reach the repository: {0}")]
    Transport(String),
    /// It took longer than was allowed.
    #[error(
        "{what} took longer than {seconds} s and was given up; it is tried again with the next look"
    )]
    TimedOut {
        /// What was under way.
        what: String,
        /// The limit.
        seconds: u64,
    },
    /// A file is not there.
    #[error(
        "the repository has no {what}: {why}; is it complete? A copy needs all of metadata/ and targets/"
    )]
    Missing {
        /// The file below the repository.
        what: String,
        /// What the medium or server said.
        why: String,
    },
    /// A file is no metadata, or contradicts itself.
    #[error(
        "the {role} metadata cannot be read: {why}; a damaged copy, or a newer format than this agent knows"
    )]
    Malformed {
        /// Which part.
        role: Role,
        /// Why.
        why: String,
    },
    /// Root, snapshot or targets are too old.
    #[error(
        "the {role} metadata expired on {expires}; the publisher has to sign it again (`adapter publish`)"
    )]
    Expired {
        /// Which part.
        role: Role,
        /// When, RFC 3339.
        expires: String,
    },
    /// The timestamp is too old: nobody has said for a while which state is the newest, or somebody withholds it.
    #[error(
        "the repository stands still: its timestamp expired on {expires}. Either it was not renewed (`adapter publish`), the medium holds \
         an old copy, or somebody withholds newer states"
    )]
    Frozen {
        /// When, RFC 3339.
        expires: String,
    },
    /// An older state than the device has seen.
    #[error(
        "the repository was rolled back: its {role} metadata has version {offered}, and version {seen} was seen before; an old copy or an \
         attack. Get a current copy"
    )]
    RolledBack {
        /// Which part.
        role: Role,
        /// The version seen before.
        seen: u64,
        /// The version found now.
        offered: u64,
    },
    /// None of the keys that may sign has signed.
    #[error(
        "the {role} metadata is not signed by a key the trusted root names for it; it is not the publisher's, or its keys were changed \
         without a rotation of the root"
    )]
    WrongSignature {
        /// Which part.
        role: Role,
    },
    /// Some, but not enough, have signed.
    #[error(
        "the {role} metadata has {valid} of the {needed} signatures it needs; the publisher's other keys have to sign it too"
    )]
    Threshold {
        /// Which part.
        role: Role,
        /// Valid signatures.
        valid: u64,
        /// Signatures needed.
        needed: u64,
    },
    /// Parts of different states.
    #[error(
        "the repository mixes states: {0}; it was copied while it changed, or somebody put it together. Copy it again whole"
    )]
    Mixed(String),
    /// More bytes than are taken.
    #[error("{what} has more than the {limit} bytes that are taken of it")]
    Oversize {
        /// Which file.
        what: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// More entries than are taken.
    #[error(
        "the repository has {count} {what}, more than the {limit} that are taken; remove old ones"
    )]
    TooMany {
        /// What of.
        what: &'static str,
        /// How many there are, or were counted before counting ended.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// A target's name could lead to another file.
    #[error(
        "the repository is refused whole: its target {0}; no publisher's tool makes such a name"
    )]
    NameEscape(String),
    /// The repository offers no such version.
    #[error("the repository offers no version {version} of adapter {adapter}; it offers {offered}")]
    NotOffered {
        /// The adapter asked for.
        adapter: String,
        /// The version asked for.
        version: String,
        /// Its versions, in words.
        offered: String,
    },
    /// The component is not what was signed.
    #[error(
        "the file of {target} is not the one that was signed: {why}; a damaged copy, or somebody changed it"
    )]
    Content {
        /// The target.
        target: String,
        /// How it differs.
        why: String,
    },
    /// What was seen before cannot be read or written, so that a rollback could not be noticed.
    #[error("the memory of this repository cannot be {doing}: {why}; {advice}")]
    Memory {
        /// `read` or `written`.
        doing: &'static str,
        /// What the disk said.
        why: String,
        /// What to do.
        advice: String,
    },
}
