//! What is settled about a file before its payload comes: whether it is signed, by whom, and whether it may be taken at all.

use std::sync::Arc;

use crate::checkpoint::Checkpoint;
use crate::claims::Claims;
use crate::digest::Digest;
use crate::failure::Failure;
use crate::header::{self, HEADER_LEN, Header, HeaderError};
use crate::lanes::Verifying;
use crate::request::{Request, Trust};
use crate::signature::Signature;

/// What the first bytes of a file, and the signature beside it, settled.
pub(crate) struct Settled {
    pub(crate) header: Option<Header>,
    /// Only where there is no header.
    sidecar: Option<Signature>,
    verifying: Option<Arc<Verifying>>,
    /// Digests that the server publishes.
    published: Vec<Digest>,
}

/// Looks at the first `HEADER_LEN` bytes, or at the whole file where it is shorter.
pub(crate) fn read_header(head: &[u8]) -> Result<Option<Header>, Failure> {
    match head.first_chunk() {
        Some(head) => Ok(Header::parse(head)?),
        // Padded with zeros a cut header would look whole.
        None if !head.is_empty() && header::may_begin(head) => {
            Err(HeaderError::Shape("it ends early").into())
        }
        None => Ok(None),
    }
}

impl Settled {
    /// Judges what the file says of itself. The sidecar counts only where there is no header.
    pub(crate) fn new(
        header: Option<Header>,
        sidecar: Option<Signature>,
        published: Vec<Digest>,
        request: &Request,
    ) -> Result<Self, Failure> {
        let mut settled = Settled {
            sidecar: sidecar.filter(|_| header.is_none()),
            header,
            verifying: None,
            published,
        };
        if let Trust::Minisign(keys) = &request.trust {
            let signature = settled.signature().ok_or(Failure::Unsigned)?;
            let key = keys.signer(signature)?.clone();
            // After the signature, so that nobody else's words end up in a report.
            permit(signature.claims(), request)?;
            let signature = signature.minisign();
            settled.verifying = Some(Arc::new(Verifying { key, signature }));
        }
        let found = settled
            .signature()
            .and_then(|signature| signature.claims().version.as_ref());
        if let (Some(expected), Some(found)) = (&request.version, found)
            && expected != found
        {
            return Err(Failure::Version {
                expected: expected.clone(),
                found: found.clone(),
            });
        }
        Ok(settled)
    }

    /// The same from a checkpoint; `None` where it does not fit the request any more.
    pub(crate) fn from_checkpoint(checkpoint: &Checkpoint, request: &Request) -> Option<Self> {
        let mut head = [0; HEADER_LEN];
        head.get_mut(..checkpoint.header.len())?
            .copy_from_slice(&checkpoint.header);
        let header = read_header(&head).ok()?;
        // Without a header the first bytes are part of the payload, and the marks speak of them.
        let consistent = header.is_some() != checkpoint.header.is_empty();
        let sidecar = if checkpoint.sidecar.is_empty() || request.trust.is_unsigned() {
            None
        } else {
            Some(Signature::from_our_form(&checkpoint.sidecar).ok()?)
        };
        let published: Result<_, _> = checkpoint
            .published
            .iter()
            .map(|d| Digest::parse(d))
            .collect();
        let settled = Settled::new(header, sidecar, published.ok()?, request).ok()?;
        (consistent && checkpoint.received >= settled.payload_start()).then_some(settled)
    }

    /// A checkpoint that says nothing but this.
    pub(crate) fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            header: self
                .header
                .as_ref()
                .map(Header::content)
                .unwrap_or_default(),
            sidecar: self
                .sidecar
                .as_ref()
                .map(|signature| signature.text().to_owned())
                .unwrap_or_default(),
            published: self.published.iter().map(Digest::to_string).collect(),
            ..Checkpoint::default()
        }
    }

    /// Every digest the file must have: those of the plan, and those that came with it.
    pub(crate) fn digests<'a>(&'a self, request: &'a Request) -> impl Iterator<Item = &'a Digest> {
        request.digests.iter().chain(&self.published)
    }

    /// True when a server that says this about its file speaks of the same one. One that says nothing contradicts nobody.
    pub(crate) fn agrees(&self, published: &[Digest]) -> bool {
        published.is_empty() || self.published.is_empty() || published == self.published
    }

    /// The signature of the payload, from wherever it came.
    pub(crate) fn signature(&self) -> Option<&Signature> {
        self.header
            .as_ref()
            .map(Header::signature)
            .or(self.sidecar.as_ref())
    }

    /// What the payload is to be verified with; `None` where nobody's signature is asked for.
    pub(crate) fn verifying(&self) -> Option<&Arc<Verifying>> {
        self.verifying.as_ref()
    }

    /// Bytes of the file before the payload.
    pub(crate) fn payload_start(&self) -> u64 {
        if self.header.is_some() {
            HEADER_LEN as u64
        } else {
            0
        }
    }
}

/// May a file that was signed with these claims be installed on this target?
fn permit(claims: &Claims, request: &Request) -> Result<(), Failure> {
    if let Some(expected) = &request.compatible
        && claims.compatible.as_ref() != Some(expected)
    {
        return Err(Failure::Compatible {
            expected: expected.clone(),
            found: claims.compatible.clone(),
        });
    }
    let min = request.min_rollback_index;
    if claims.rollback_index.unwrap_or(0) < min {
        return Err(Failure::RollbackIndex {
            min,
            found: claims.rollback_index,
        });
    }
    Ok(())
}
