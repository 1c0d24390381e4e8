//! One attempt to bring an artifact into the staging area.

use std::sync::Arc;

use otahost_disk::Seam;
use tokio::time::Instant;

use crate::checkpoint::{Checkpoint, Checkpoints};
use crate::digest::{Digest, hex};
use crate::failure::Failure;
use crate::header::{self, HEADER_LEN};
use crate::pass::{Gone, Pass, Saving, Spread};
use crate::request::{Request, Trust, Verified};
use crate::settled::{Settled, read_header};
use crate::signature::Signature;
use crate::source::{Opened, Source, SourceError, Validator};
use crate::stage::Stage;

/// Makes one attempt: fetches what `resume` does not already account for, writes the payload to the stage, and verifies all of it.
///
/// - What the stage holds is read back first and compared with the marks of `resume`; the transfer goes on at the first mark that is
///   not confirmed. When nothing is missing the source is not opened.
/// - With a digest in the plan a source whose validator changed is still resumed; without one the transfer starts anew. So it does
///   when the source starts at 0 or announces another size than before.
/// - A header, or the signature beside a file that has none, is judged before more than the first piece is taken: who signed it, and
///   for which kind of device, with which rollback index and version. On a resume it is judged again, from the checkpoint; a
///   checkpoint that would not be taken now is not gone on with.
/// - On a failure that may be followed by another attempt, everything received is synced and handed out as a checkpoint first. When
///   the content turned out wrong, an empty checkpoint is.
///
/// Dropping the future cancels the attempt; when the drop returns (it waits for one block at most) nothing is written any more.
/// With [`Seam::Threads`] up to six short-lived threads work beside the caller; it needs a tokio runtime with time enabled.
///
/// # Errors
///
/// See [`Failure`]; its `reason` and `is_final` say what to make of it.
pub async fn attempt(
    source: &dyn Source,
    stage: Arc<dyn Stage>,
    request: &Request,
    resume: Checkpoint,
    checkpoints: &dyn Checkpoints,
    seam: Seam,
) -> Result<Verified, Failure> {
    let mut request = request.clone();
    request.tuning.block = request.tuning.block.max(1);
    request.tuning.chunk = request.tuning.chunk.max(1);
    let result = Attempt {
        source,
        stage,
        request: &request,
        checkpoints,
        seam,
        capacity: None,
    }
    .run(resume)
    .await;
    if result.as_ref().is_err_and(Failure::spoils_the_stage) {
        checkpoints.checkpoint(Checkpoint::default()).await;
    }
    result
}

struct Attempt<'a> {
    source: &'a dyn Source,
    stage: Arc<dyn Stage>,
    request: &'a Request,
    checkpoints: &'a dyn Checkpoints,
    seam: Seam,
    capacity: Option<u64>,
}

/// What came of opening the source in the middle.
enum Reopened {
    /// It goes on where we are.
    Here(Opened),
    /// What we have is of no use; this begins at 0.
    Anew(Opened),
}

impl Attempt<'_> {
    async fn run(mut self, resume: Checkpoint) -> Result<Verified, Failure> {
        let stage = Arc::clone(&self.stage);
        self.capacity = self.seam.run(move || stage.capacity()).await;
        if let Some(expected) = self.request.expected_size {
            self.check_size(expected, "the plan")?;
            // There may be no header to take off, but a file that does not fit without one never fits.
            self.check_space(expected.saturating_sub(HEADER_LEN as u64))?;
        }

        let usable = resume
            .total
            .zip(self.request.expected_size)
            .is_none_or(|(then, now)| then == now);
        let settled = Some(&resume).filter(|resume| usable && !resume.is_empty());
        let opened = match settled.and_then(|resume| Settled::from_checkpoint(resume, self.request))
        {
            None => self.open(0, None).await?,
            Some(settled) => {
                let mut pass = self.begin(&settled)?;
                pass.resume(&resume).await?;
                let from = pass.received();
                let total = self.request.expected_size.or(resume.total);
                self.checkpoints.progress(from, total);
                if total == Some(from) {
                    let course = Course {
                        resumed_from: from,
                        fetched: 0,
                        total,
                        validator: resume.validator,
                    };
                    return self.finish(pass, course, &settled).await;
                }
                match self.reopen(from, &resume, &settled).await? {
                    Reopened::Here(opened) => {
                        return self.transfer(pass, &settled, opened, from, 0, false).await;
                    }
                    Reopened::Anew(opened) => opened,
                }
            }
        };
        self.start_anew(opened).await
    }

    async fn start_anew(&self, mut opened: Opened) -> Result<Verified, Failure> {
        if opened.offset != 0 {
            return Err(SourceError::Broken(format!(
                "the source was opened at 0 and answered from byte {}",
                opened.offset
            ))
            .into());
        }
        let total = self.total(&opened);
        self.checkpoints.progress(0, total);
        let mut head = Vec::new();
        let mut ended = false;
        // Read on only as long as it looks like a header: whatever else it is, it shall not be held back.
        while !ended
            && head.len() < HEADER_LEN
            && header::may_begin(&head)
            && opened.total.is_none_or(|total| total > head.len() as u64)
        {
            match opened.body.next().await? {
                Some(piece) => {
                    self.check_length(head.len(), piece.len(), total)?;
                    self.checkpoints.fetched(piece.len() as u64);
                    head.extend_from_slice(&piece);
                }
                None => ended = true,
            }
        }
        if let Some(expected) = total.filter(|total| ended && *total > head.len() as u64) {
            return Err(Failure::TooShort {
                received: head.len() as u64,
                expected,
            });
        }
        let header = read_header(&head[..head.len().min(HEADER_LEN)])?;
        let sidecar = if header.is_none() && !self.request.trust.is_unsigned() {
            self.sidecar().await?
        } else {
            None
        };
        let mut published = std::mem::take(&mut opened.published);
        // What only looks like a digest (an ETag) must not stand against a signature or a digest that is one.
        if opened.guessed && (!self.request.digests.is_empty() || !self.request.trust.is_unsigned())
        {
            published.clear();
        }
        let settled = Settled::new(header, sidecar, published, self.request)?;
        if let Some(total) = total {
            self.check_space(total.saturating_sub(settled.payload_start()))?;
        }
        let mut pass = self.begin(&settled)?;
        // A header is only found in a file that has all of it.
        pass.take(
            head.get(settled.payload_start() as usize..)
                .unwrap_or_default(),
        )
        .await?;
        self.transfer(pass, &settled, opened, 0, head.len() as u64, ended)
            .await
    }

    /// The signature beside the file.
    async fn sidecar(&self) -> Result<Option<Signature>, Failure> {
        let text = self.source.sidecar().await?;
        text.map(|text| Signature::parse(&text).map_err(Failure::Sidecar))
            .transpose()
    }

    fn begin<'k>(&self, settled: &'k Settled) -> Result<Pass<'k>, Failure> {
        Pass::start(
            settled,
            self.request,
            Arc::clone(&self.stage),
            self.capacity,
            self.seam,
        )
    }

    /// Opens the source and judges what it says about the size.
    async fn open(&self, from: u64, validator: Option<&Validator>) -> Result<Opened, Failure> {
        let opened = self.source.open(from, validator).await?;
        match (opened.total, self.request.expected_size) {
            // A shorter one may be a file that is still being written; it ends as too short, and can be resumed.
            (Some(announced), Some(expected)) if announced > expected => {
                return Err(Failure::Size(format!(
                    "the source announces {announced} bytes, but the plan says {expected}"
                )));
            }
            (Some(announced), _) => self.check_size(announced, "the source")?,
            (None, None) if self.request.digests.is_empty() && self.request.trust.is_unsigned() => {
                return Err(Failure::Size(
                    "neither the plan nor the source says how long the file is, and there is no digest or signature to tell its \
                     end from a broken connection"
                        .to_owned(),
                ));
            }
            (None, _) => {}
        }
        Ok(opened)
    }

    async fn reopen(
        &self,
        from: u64,
        resume: &Checkpoint,
        settled: &Settled,
    ) -> Result<Reopened, Failure> {
        if from == 0 {
            return self.open(0, None).await.map(Reopened::Anew);
        }
        let anchored = !self.request.digests.is_empty();
        // Servers behind one name may give one content different validators: with a digest that must not cost a restart.
        let validator = resume.validator.as_ref().filter(|_| !anchored);
        let opened = match self.open(from, validator).await {
            // It has no such offset, so it is not, or not yet, the whole file.
            Err(Failure::Source(SourceError::Status { status: 416, .. })) => {
                match self.request.expected_size {
                    Some(expected) => {
                        return Err(Failure::TooShort {
                            received: from,
                            expected,
                        });
                    }
                    None => return self.open(0, None).await.map(Reopened::Anew),
                }
            }
            opened => opened?,
        };
        let same_size = resume
            .total
            .zip(opened.total)
            .is_none_or(|(then, now)| then == now);
        let same_content = match (&resume.validator, &opened.validator) {
            (Some(then), Some(now)) => then == now,
            // Nobody can say. A signature finds a mixture of two files in the end; nothing else would.
            _ => !self.request.trust.is_unsigned(),
        };
        let agrees = settled.agrees(&opened.published);
        if opened.offset == from && same_size && agrees && (anchored || same_content) {
            return Ok(Reopened::Here(opened));
        }
        tracing::info!(
            offset = from,
            answered = opened.offset,
            "the source does not go on with the same content; starting anew"
        );
        if opened.offset == 0 {
            return Ok(Reopened::Anew(opened));
        }
        drop(opened);
        self.open(0, None).await.map(Reopened::Anew)
    }

    fn total(&self, opened: &Opened) -> Option<u64> {
        self.request.expected_size.or(opened.total)
    }

    fn check_size(&self, size: u64, who: &str) -> Result<(), Failure> {
        let max = self.request.max_size;
        if size > max {
            Err(Failure::Size(format!(
                "{who} speaks of {size} bytes; at most {max} are allowed"
            )))
        } else {
            Ok(())
        }
    }

    fn check_space(&self, payload: u64) -> Result<(), Failure> {
        match self.capacity {
            Some(capacity) if payload > capacity => Err(Failure::NoSpace(format!(
                "the payload has {payload} bytes, but the staging area can take {capacity}; it needs {} MiB more: free space or enlarge it",
                (payload - capacity).div_ceil(1 << 20)
            ))),
            _ => Ok(()),
        }
    }

    fn check_length(
        &self,
        received: usize,
        piece: usize,
        total: Option<u64>,
    ) -> Result<(), Failure> {
        self.check_end(received as u64 + piece as u64, total)
    }

    fn check_end(&self, end: u64, total: Option<u64>) -> Result<(), Failure> {
        let allowed = total.unwrap_or(u64::MAX).min(self.request.max_size);
        if end > allowed {
            Err(Failure::TooLong { allowed })
        } else {
            Ok(())
        }
    }

    /// The long part: pieces in, blocks out, a checkpoint now and then.
    async fn transfer(
        &self,
        mut pass: Pass<'_>,
        settled: &Settled,
        mut opened: Opened,
        resumed_from: u64,
        fetched: u64,
        mut ended: bool,
    ) -> Result<Verified, Failure> {
        let mut course = Course {
            resumed_from,
            fetched,
            total: self.total(&opened),
            validator: opened.validator.take(),
        };
        let mut saved = resumed_from;
        let tuning = self.request.tuning;
        let mut last = Instant::now();
        let mut saving: Option<Saving<'_>> = None;
        let mut lost = None;
        self.checkpoints.progress(pass.received(), course.total);

        // What the source announced has come: there is nothing to wait for. Otherwise the end has to be seen.
        while !ended && opened.total != Some(pass.received()) {
            let piece = {
                let mut next = opened.body.next();
                loop {
                    // Every checkpoint wears the journal's medium: few bytes can wait.
                    let due = last
                        + if pass.received() - saved >= tuning.checkpoint_bytes {
                            tuning.checkpoint_every
                        } else {
                            tuning.checkpoint_every.max(tuning.checkpoint_at_last)
                        };
                    if saving.is_none() && pass.received() > saved && Instant::now() >= due {
                        saved = pass.received();
                        saving = Some(
                            pass.save(course.validator.clone(), course.total, self.checkpoints)
                                .await?,
                        );
                        last = Instant::now();
                        continue;
                    }
                    tokio::select! {
                        // In order, so that a simulated run always takes the same course.
                        biased;
                        outcome = arrival(&mut saving), if saving.is_some() => {
                            saving = None;
                            note(&mut pass, outcome).await?;
                        }
                        piece = &mut next => break piece,
                        () = tokio::time::sleep_until(due), if saving.is_none() && pass.received() > saved => {}
                    }
                }
            };
            match piece {
                Ok(Some(piece)) => {
                    course.fetched += piece.len() as u64;
                    self.checkpoints.fetched(piece.len() as u64);
                    if let Err(failure) =
                        self.check_end(pass.received() + piece.len() as u64, course.total)
                    {
                        lost = Some(failure);
                        break;
                    }
                    pass.take(&piece).await?;
                    self.checkpoints.progress(pass.received(), course.total);
                }
                Ok(None) => ended = true,
                // A connection that breaks behind the last byte of a file whose length we know takes nothing away.
                Err(_) if self.request.expected_size == Some(pass.received()) => ended = true,
                Err(error) => {
                    lost = Some(Failure::Source(error));
                    break;
                }
            }
        }
        drop(opened);
        if saving.is_some() {
            let outcome = arrival(&mut saving).await;
            note(&mut pass, outcome).await?;
        }
        if let Some(expected) = course
            .total
            .filter(|total| lost.is_none() && *total > pass.received())
        {
            lost = Some(Failure::TooShort {
                received: pass.received(),
                expected,
            });
        }
        let Some(failure) = lost else {
            return self.finish(pass, course, settled).await;
        };
        if pass.received() > saved && !failure.spoils_the_stage() {
            let outcome = pass
                .save(course.validator.clone(), course.total, self.checkpoints)
                .await?
                .await;
            note(&mut pass, outcome).await?;
        }
        Err(failure)
    }

    /// Everything is here: is it what it should be?
    async fn finish(
        &self,
        pass: Pass<'_>,
        course: Course,
        settled: &Settled,
    ) -> Result<Verified, Failure> {
        let size = pass.received();
        let done = pass.finish().await?;
        let resumed = course.resumed_from > 0;
        let sha256 = done
            .whole_sha256
            .or_else(|| (settled.payload_start() == 0).then(|| done.payload_sha256.clone()));
        for digest in settled.digests(self.request) {
            let found = match digest {
                Digest::Md5(_) => done.md5.as_deref(),
                Digest::Sha256(_) => sha256.as_deref(),
            };
            let found = found.unwrap_or_default();
            if found != digest.as_bytes() {
                let expected = hex(digest.as_bytes());
                return Err(Failure::Digest {
                    algorithm: digest.algorithm(),
                    expected,
                    found: hex(found),
                    resumed,
                });
            }
        }
        match (&self.request.trust, done.signature) {
            (Trust::Unsigned, _) | (Trust::Minisign(_), Some(true)) => {}
            (Trust::Minisign(_), Some(false) | None) => {
                let key = settled.signature().map(Signature::key).unwrap_or_default();
                return Err(Failure::Signature { key, resumed });
            }
        }
        let checkpoint = Checkpoint {
            validator: course.validator,
            total: Some(size),
            received: size,
            marks: done.marks,
            ..settled.checkpoint()
        };
        self.checkpoints.checkpoint(checkpoint).await;
        Ok(Verified {
            payload_sha256: hex(&done.payload_sha256),
            sha256: sha256.as_deref().map(hex),
            size,
            payload_len: size - settled.payload_start(),
            claims: settled
                .signature()
                .map(|signature| signature.claims().clone()),
            resumed_from: course.resumed_from,
            fetched: course.fetched,
        })
    }
}

/// What is known of a transfer under way.
struct Course {
    resumed_from: u64,
    fetched: u64,
    total: Option<u64>,
    validator: Option<Validator>,
}

/// Waits for the checkpoint under way; for ever when there is none.
async fn arrival(saving: &mut Option<Saving<'_>>) -> Result<Spread, Gone> {
    match saving {
        Some(saving) => saving.await,
        None => std::future::pending().await,
    }
}

async fn note(pass: &mut Pass<'_>, outcome: Result<Spread, Gone>) -> Result<(), Failure> {
    match outcome {
        Ok(spread) => pass.saved(spread),
        Err(Gone) => return Err(pass.fate().await),
    }
    Ok(())
}
