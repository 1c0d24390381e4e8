//! One pass over a payload: everything that has to happen to its bytes, once.

use std::sync::Arc;

use otahost_disk::Seam;
use tokio::sync::oneshot;

use crate::checkpoint::{Checkpoint, Checkpoints, Mark, thin_out};
use crate::digest::{Digest, hex};
use crate::failure::Failure;
use crate::header::Header;
use crate::lanes::{
    Gate, HashLane, HashOrder, Hasher as _, Md5, Pool, Sha256, WriteLane, WriteOrder, hash_lane,
    signature_lane, write_lane,
};
use crate::request::{Request, Tuning};
use crate::settled::Settled;
use crate::source::{BoxFuture, Validator};
use crate::stage::Stage;

/// A lane stopped without an answer; [`Pass::fate`] knows why.
pub(crate) struct Gone;

/// A checkpoint on its way: synced, marked, handed out. Gives the marks to go on with.
pub(crate) type Saving<'c> = BoxFuture<'c, Result<Spread, Gone>>;

/// The marks so far and their distance.
#[derive(Clone)]
pub(crate) struct Spread {
    marks: Vec<Mark>,
    chunk: u64,
}

impl Spread {
    fn push(&mut self, at: u64, digest: &[u8], payload_start: u64) {
        if self.marks.last().is_none_or(|last| last.at < at) {
            self.marks.push(Mark {
                at,
                sha256: mark_text(digest),
            });
            thin_out(&mut self.marks, payload_start, &mut self.chunk);
        }
    }
}

fn mark_text(digest: &[u8]) -> String {
    hex(&digest[..digest.len().min(16)])
}

type Awaited = (u64, oneshot::Receiver<Vec<u8>>);

/// What came out of a whole pass.
pub(crate) struct Finished {
    pub(crate) payload_sha256: Vec<u8>,
    pub(crate) whole_sha256: Option<Vec<u8>>,
    pub(crate) md5: Option<Vec<u8>>,
    /// `None` when nothing was to be verified.
    pub(crate) signature: Option<bool>,
    pub(crate) marks: Vec<Mark>,
}

/// A pass under way.
pub(crate) struct Pass<'k> {
    start: u64,
    tuning: Tuning,
    seam: Seam,
    stage: Arc<dyn Stage>,
    capacity: Option<u64>,
    pool: Arc<Pool>,
    payload: HashLane<'k>,
    whole: Option<HashLane<'k>>,
    md5: Option<HashLane<'k>>,
    signature: Option<HashLane<'k>>,
    writer: WriteLane,
    /// Payload bytes that are not yet a block.
    gather: Vec<u8>,
    /// Payload bytes the lanes have.
    sent: u64,
    spread: Spread,
    awaited: Vec<Awaited>,
    /// A checkpoint of this file without its progress.
    blank: Checkpoint,
    _gate: Gate,
}

impl<'k> Pass<'k> {
    pub(crate) fn start(
        settled: &'k Settled,
        request: &Request,
        stage: Arc<dyn Stage>,
        capacity: Option<u64>,
        seam: Seam,
    ) -> Result<Self, Failure> {
        let tuning = request.tuning;
        let head = settled.header.as_ref().map(Header::encode);
        let head: &[u8] = head.as_ref().map_or(&[], |head| head);
        let (mut md5, mut whole) = (None, None);
        for digest in settled.digests(request) {
            match digest {
                Digest::Md5(_) if md5.is_none() => {
                    let mut hasher = Md5::default();
                    hasher.update(head);
                    md5 = Some(hash_lane("ota-md5", seam, hasher)?);
                }
                // Without a header the payload is the whole file, and its digest is known anyway.
                Digest::Sha256(_) if whole.is_none() && !head.is_empty() => {
                    let mut hasher = Sha256::new();
                    hasher.update(head);
                    whole = Some(hash_lane("ota-sha256-file", seam, hasher)?);
                }
                Digest::Md5(_) | Digest::Sha256(_) => {}
            }
        }
        let signature = settled
            .verifying()
            .map(|verifying| signature_lane(seam, verifying))
            .transpose()?;
        let gate = Gate::new();
        let pool = Arc::new(Pool::default());
        Ok(Pass {
            start: settled.payload_start(),
            tuning,
            seam,
            capacity,
            payload: hash_lane("ota-sha256", seam, Sha256::new())?,
            whole,
            md5,
            signature,
            writer: write_lane(seam, &stage, &gate, tuning.sync_every)?,
            stage,
            gather: pool.take(tuning.block),
            pool,
            sent: 0,
            spread: Spread {
                marks: Vec::new(),
                chunk: tuning.chunk,
            },
            awaited: Vec::new(),
            blank: settled.checkpoint(),
            _gate: gate,
        })
    }

    /// Bytes of the file that were taken, the header included.
    pub(crate) fn received(&self) -> u64 {
        self.start + self.sent + self.gather.len() as u64
    }

    async fn hashes(&mut self, order: impl Fn() -> HashOrder) -> Result<(), Failure> {
        self.payload.send(order()).await?;
        for lane in [&mut self.whole, &mut self.md5, &mut self.signature]
            .into_iter()
            .flatten()
        {
            lane.send(order()).await?;
        }
        Ok(())
    }

    /// Digests what the stage holds, as far as it is what the checkpoint says. Afterwards the pass stands at the first mark that
    /// is not confirmed.
    pub(crate) async fn resume(&mut self, checkpoint: &Checkpoint) -> Result<(), Failure> {
        for mark in &checkpoint.marks {
            let Some(until) = mark
                .at
                .checked_sub(self.start)
                .filter(|until| *until > self.sent && mark.at <= checkpoint.received)
            else {
                continue;
            };
            let mut at = self.sent;
            let mut readable = true;
            while readable && at < until {
                let len = usize::try_from(until - at)
                    .unwrap_or(usize::MAX)
                    .min(self.tuning.block);
                let mut buffer = self.pool.take(len);
                let stage = Arc::clone(&self.stage);
                let read = move || {
                    buffer.resize(len, 0);
                    stage.read_exact_at(&mut buffer, at).map(|()| buffer)
                };
                match self.seam.run(read).await {
                    Ok(bytes) => {
                        let block = self.pool.seal(bytes);
                        self.hashes(|| HashOrder::Data(Arc::clone(&block))).await?;
                        at += len as u64;
                    }
                    Err(error) => {
                        tracing::debug!(%error, offset = at, "the staged bytes cannot be read back; they are fetched again");
                        readable = false;
                    }
                }
            }
            let as_marked = readable && mark_text(&self.payload_mark().await?) == mark.sha256;
            if !as_marked {
                return self.hashes(|| HashOrder::Rewind).await;
            }
            self.hashes(|| HashOrder::Save).await?;
            self.sent = until;
            self.spread.marks.push(mark.clone());
        }
        thin_out(&mut self.spread.marks, self.start, &mut self.spread.chunk);
        Ok(())
    }

    async fn payload_mark(&mut self) -> Result<Vec<u8>, Failure> {
        let (answer, mark) = oneshot::channel();
        self.payload.send(HashOrder::Mark(answer)).await?;
        match mark.await {
            Ok(mark) => Ok(mark),
            Err(_) => Err(self.payload.fate().await),
        }
    }

    /// Takes the next bytes of the payload.
    pub(crate) async fn take(&mut self, mut bytes: &[u8]) -> Result<(), Failure> {
        while !bytes.is_empty() {
            // Blocks end where the medium's blocks and the marks are, also after a checkpoint cut one short.
            let block = self.tuning.block as u64;
            let whole = (block - self.sent % block)
                .min(self.spread.chunk - self.sent % self.spread.chunk)
                as usize;
            let (now, later) = bytes.split_at(bytes.len().min(whole - self.gather.len()));
            self.gather.extend_from_slice(now);
            bytes = later;
            if self.gather.len() == whole {
                self.flush().await?;
            }
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Failure> {
        if self.gather.is_empty() {
            return Ok(());
        }
        let end = self.sent + self.gather.len() as u64;
        if let Some(capacity) = self.capacity.filter(|capacity| end > *capacity) {
            return Err(Failure::NoSpace(format!(
                "the payload has more than the {capacity} bytes the staging area can take"
            )));
        }
        let bytes = std::mem::replace(&mut self.gather, self.pool.take(self.tuning.block));
        let block = self.pool.seal(bytes);
        self.writer
            .send(WriteOrder::Write(Arc::clone(&block), self.sent))
            .await?;
        self.hashes(|| HashOrder::Data(Arc::clone(&block))).await?;
        self.sent = end;
        if self.sent.is_multiple_of(self.spread.chunk) {
            self.mark().await?;
        }
        Ok(())
    }

    /// Asks for a mark at this point.
    async fn mark(&mut self) -> Result<(), Failure> {
        let (answer, mark) = oneshot::channel();
        self.payload.send(HashOrder::Mark(answer)).await?;
        self.awaited.push((self.start + self.sent, mark));
        Ok(())
    }

    /// Begins a checkpoint at this point; the pass may go on while it is on its way.
    pub(crate) async fn save<'c>(
        &mut self,
        validator: Option<Validator>,
        total: Option<u64>,
        to: &'c dyn Checkpoints,
    ) -> Result<Saving<'c>, Failure> {
        self.flush().await?;
        let chunk_marks = std::mem::take(&mut self.awaited);
        self.mark().await?;
        let tip = std::mem::take(&mut self.awaited);
        let (answer, synced) = oneshot::channel();
        self.writer.send(WriteOrder::Sync(answer)).await?;
        let (mut spread, start, received) = (self.spread.clone(), self.start, self.received());
        let blank = self.blank.clone();
        Ok(Box::pin(async move {
            for (at, mark) in chunk_marks {
                spread.push(at, &mark.await.map_err(|_| Gone)?, start);
            }
            let mut marks = spread.clone();
            for (at, mark) in tip {
                // Where the tip is no multiple of the distance, the next checkpoint has another in its place.
                let mark = mark.await.map_err(|_| Gone)?;
                if marks.marks.last().is_none_or(|last| last.at < at) {
                    marks.marks.push(Mark {
                        at,
                        sha256: mark_text(&mark),
                    });
                }
            }
            synced.await.map_err(|_| Gone)?;
            to.checkpoint(Checkpoint {
                validator,
                total,
                received,
                marks: marks.marks,
                ..blank
            })
            .await;
            Ok(spread)
        }))
    }

    /// Goes on with the marks of a checkpoint that arrived.
    pub(crate) fn saved(&mut self, spread: Spread) {
        self.spread = spread;
    }

    /// Why a lane stopped.
    pub(crate) async fn fate(&mut self) -> Failure {
        self.writer.fate().await
    }

    /// Ends the pass: everything is digested, written and synced.
    pub(crate) async fn finish(mut self) -> Result<Finished, Failure> {
        self.flush().await?;
        let received = self.received();
        self.writer.end().await?;
        let payload = self.payload.end().await?;
        let mut spread = self.spread;
        for (at, mark) in self.awaited {
            if let Ok(mark) = mark.await {
                spread.push(at, &mark, self.start);
            }
        }
        let payload_sha256 = payload.unwrap_or_default();
        if spread.marks.last().is_none_or(|last| last.at < received) {
            spread.marks.push(Mark {
                at: received,
                sha256: mark_text(&payload_sha256),
            });
        }
        let signature = match self.signature {
            Some(lane) => Some(lane.end().await?.is_some()),
            None => None,
        };
        Ok(Finished {
            payload_sha256,
            whole_sha256: ended(self.whole).await?,
            md5: ended(self.md5).await?,
            signature,
            marks: spread.marks,
        })
    }
}

async fn ended(lane: Option<HashLane<'_>>) -> Result<Option<Vec<u8>>, Failure> {
    match lane {
        Some(lane) => lane.end().await,
        None => Ok(None),
    }
}
