//! The parallel part of a pass: each digest, and the writer, takes its orders in a lane of its own.
//!
//! In production a lane is a thread behind a short queue, so that MD5, SHA-256, BLAKE2b and the medium overlap, and the slowest of
//! them holds back the source. In simulation a lane is a plain call, so that every run takes the same course. Threads of our own
//! rather than tokio's blocking pool: a lane lives as long as the transfer, and must not wait for a free place there.

use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest;
use md5::Digest as _;
use otahost_disk::Seam;
use tokio::sync::{mpsc, oneshot};

use crate::failure::Failure;
use crate::stage::{Stage, StageError};

/// Orders that wait in a lane at most; with blocks of 1 MiB this bounds memory.
const QUEUE: usize = 4;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Buffers that are used again: fresh ones would cost a page fault for every 4 KiB.
#[derive(Debug, Default)]
pub(crate) struct Pool(Mutex<Vec<Vec<u8>>>);

impl Pool {
    pub(crate) fn take(&self, capacity: usize) -> Vec<u8> {
        let mut buffer = lock(&self.0).pop().unwrap_or_default();
        buffer.clear();
        buffer.reserve(capacity);
        buffer
    }

    pub(crate) fn seal(self: &Arc<Self>, bytes: Vec<u8>) -> Arc<Block> {
        Arc::new(Block {
            bytes,
            pool: Arc::clone(self),
        })
    }
}

/// Payload bytes on their way to all lanes; the buffer returns to its pool when the last lane is done with it.
pub(crate) struct Block {
    bytes: Vec<u8>,
    pool: Arc<Pool>,
}

impl Deref for Block {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let mut free = lock(&self.pool.0);
        // More than this was never in use at once, but for a hasher that lagged.
        if free.len() <= QUEUE + 2 {
            free.push(std::mem::take(&mut self.bytes));
        }
    }
}

/// What a lane does.
pub(crate) trait Work {
    /// One order.
    type Order;
    /// What comes out in the end.
    type Output;
    /// Carries out an order; after an error nothing more is taken.
    fn take(&mut self, order: Self::Order) -> Result<(), Failure>;
    /// Ends the work.
    fn end(self: Box<Self>) -> Result<Self::Output, Failure>;
}

/// A lane: orders go in, are carried out in order, and one result comes out.
pub(crate) enum Lane<'k, O, T> {
    Thread {
        orders: Option<mpsc::Sender<O>>,
        result: oneshot::Receiver<Result<T, Failure>>,
    },
    Inline(Box<dyn Work<Order = O, Output = T> + Send + 'k>),
}

impl<O, T> fmt::Debug for Lane<'_, O, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Lane::Thread { .. } => "Lane::Thread",
            Lane::Inline(_) => "Lane::Inline",
        })
    }
}

impl<O: Send + 'static, T: Send + 'static> Lane<'_, O, T> {
    /// Starts a thread that runs `body` over the orders.
    fn thread(
        name: &str,
        body: impl FnOnce(mpsc::Receiver<O>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<Self, Failure> {
        let (orders, taken) = mpsc::channel(QUEUE);
        let (done, result) = oneshot::channel();
        spawn(name, move || {
            // Nobody listens any more when the attempt was cancelled.
            let _ = done.send(body(taken));
        })?;
        Ok(Lane::Thread {
            orders: Some(orders),
            result,
        })
    }

    /// Gives an order; waits while the lane is full. The error is the one the lane stopped with.
    pub(crate) async fn send(&mut self, order: O) -> Result<(), Failure> {
        match self {
            Lane::Inline(work) => work.take(order),
            Lane::Thread { orders, .. } => {
                let sent = match orders {
                    Some(orders) => orders.send(order).await.is_ok(),
                    None => false,
                };
                if sent { Ok(()) } else { Err(self.fate().await) }
            }
        }
    }

    /// Why a lane stopped that did not answer an order.
    pub(crate) async fn fate(&mut self) -> Failure {
        let ended = match self {
            Lane::Inline(_) => None,
            Lane::Thread { orders, result } => {
                // It may still wait for orders: what failed is perhaps only its helper.
                *orders = None;
                result.await.ok().and_then(Result::err)
            }
        };
        ended.unwrap_or_else(|| {
            Failure::Stage("a thread of the transfer ended without a result".to_owned())
        })
    }

    /// Lets the lane carry out what it has and gives its result.
    pub(crate) async fn end(self) -> Result<T, Failure> {
        match self {
            Lane::Inline(work) => work.end(),
            Lane::Thread { orders, result } => {
                drop(orders);
                let lost = || {
                    Err(Failure::Stage(
                        "a thread of the transfer ended without a result".to_owned(),
                    ))
                };
                result.await.unwrap_or_else(|_| lost())
            }
        }
    }
}

fn spawn<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<std::thread::JoinHandle<T>, Failure> {
    let refused = |error| {
        Failure::Stage(format!(
            "cannot start the transfer's thread {name}: {error}"
        ))
    };
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map_err(refused)
}

fn drive<W: Work>(mut work: W, mut orders: mpsc::Receiver<W::Order>) -> Result<W::Output, Failure> {
    while let Some(order) = orders.blocking_recv() {
        work.take(order)?;
    }
    Box::new(work).end()
}

/// An order for a digest.
pub(crate) enum HashOrder {
    /// The next bytes.
    Data(Arc<Block>),
    /// Tell the digest of all so far.
    Mark(oneshot::Sender<Vec<u8>>),
    /// Remember this point.
    Save,
    /// Forget all since the remembered point.
    Rewind,
}

/// A lane that digests; its result is the digest, or `None` for a signature that is wrong.
pub(crate) type HashLane<'k> = Lane<'k, HashOrder, Option<Vec<u8>>>;

/// Something that digests and can be copied half way.
pub(crate) trait Hasher: Clone {
    fn update(&mut self, bytes: &[u8]);
    fn finish(self) -> Option<Vec<u8>>;
}

#[derive(Clone)]
pub(crate) struct Sha256(digest::Context);

impl Sha256 {
    pub(crate) fn new() -> Self {
        Sha256(digest::Context::new(&digest::SHA256))
    }
}

impl Hasher for Sha256 {
    fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
    fn finish(self) -> Option<Vec<u8>> {
        Some(self.0.finish().as_ref().to_vec())
    }
}

#[derive(Clone, Default)]
pub(crate) struct Md5(md5::Md5);

impl Hasher for Md5 {
    fn update(&mut self, bytes: &[u8]) {
        md5::Digest::update(&mut self.0, bytes);
    }
    fn finish(self) -> Option<Vec<u8>> {
        Some(self.0.finalize().to_vec())
    }
}

/// The key and the signature a payload is verified with.
pub(crate) struct Verifying {
    pub(crate) key: minisign_verify::PublicKey,
    pub(crate) signature: minisign_verify::Signature,
}

impl Verifying {
    fn verifier(&self) -> Result<PayloadSignature<'_>, Failure> {
        let refused = |error| {
            Failure::Stage(format!(
                "the signature cannot be verified while streaming: {error}"
            ))
        };
        self.key
            .verify_stream(&self.signature)
            .map(PayloadSignature)
            .map_err(refused)
    }
}

#[derive(Clone)]
struct PayloadSignature<'k>(minisign_verify::StreamVerifier<'k>);

impl Hasher for PayloadSignature<'_> {
    fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
    fn finish(mut self) -> Option<Vec<u8>> {
        self.0.finalize().ok().map(|()| Vec::new())
    }
}

struct HashWork<H> {
    now: H,
    saved: H,
}

impl<H: Hasher> HashWork<H> {
    fn new(hasher: H) -> Self {
        HashWork {
            saved: hasher.clone(),
            now: hasher,
        }
    }
}

impl<H: Hasher> Work for HashWork<H> {
    type Order = HashOrder;
    type Output = Option<Vec<u8>>;

    fn take(&mut self, order: HashOrder) -> Result<(), Failure> {
        match order {
            HashOrder::Data(block) => self.now.update(&block),
            HashOrder::Mark(answer) => {
                // Nobody listens any more when the attempt was cancelled.
                let _ = answer.send(self.now.clone().finish().unwrap_or_default());
            }
            HashOrder::Save => self.saved = self.now.clone(),
            HashOrder::Rewind => self.now = self.saved.clone(),
        }
        Ok(())
    }

    fn end(self: Box<Self>) -> Result<Option<Vec<u8>>, Failure> {
        Ok(self.now.finish())
    }
}

/// A lane for a digest that has perhaps seen something already.
pub(crate) fn hash_lane<H: Hasher + Send + 'static>(
    name: &str,
    seam: Seam,
    hasher: H,
) -> Result<HashLane<'static>, Failure> {
    let work = HashWork::new(hasher);
    match seam {
        Seam::Inline | Seam::After(_) => Ok(Lane::Inline(Box::new(work))),
        Seam::Threads => Lane::thread(name, move |orders| drive(work, orders)),
    }
}

/// A lane for the payload's signature.
pub(crate) fn signature_lane(
    seam: Seam,
    verifying: &Arc<Verifying>,
) -> Result<HashLane<'_>, Failure> {
    match seam {
        Seam::Inline | Seam::After(_) => {
            Ok(Lane::Inline(Box::new(HashWork::new(verifying.verifier()?))))
        }
        Seam::Threads => {
            let verifying = Arc::clone(verifying);
            Lane::thread("ota-signature", move |orders| {
                drive(HashWork::new(verifying.verifier()?), orders)
            })
        }
    }
}

/// Stops the writer for good when the attempt is dropped: after that no write happens any more, so that whoever comes next has the
/// stage for himself.
#[derive(Debug)]
pub(crate) struct Gate(Arc<Door>);

#[derive(Debug, Default)]
struct Door {
    shut: AtomicBool,
    /// Held during a write.
    write: Mutex<()>,
}

impl Gate {
    pub(crate) fn new() -> Self {
        Gate(Arc::default())
    }
}

impl Drop for Gate {
    /// Waits for the one write that may be under way: a block at most.
    fn drop(&mut self) {
        // First, so that the writer cannot slip through with the next block.
        self.0.shut.store(true, Ordering::SeqCst);
        drop(lock(&self.0.write));
    }
}

/// An order for the writer.
pub(crate) enum WriteOrder {
    /// Bytes for this offset of the payload.
    Write(Arc<Block>, u64),
    /// Make all so far durable, then say so.
    Sync(oneshot::Sender<()>),
}

/// A lane that writes.
pub(crate) type WriteLane = Lane<'static, WriteOrder, ()>;

type SyncOrder = Option<oneshot::Sender<()>>;

struct Writer {
    stage: Arc<dyn Stage>,
    door: Arc<Door>,
    sync_every: u64,
    unsynced: u64,
    syncer: Option<Syncer>,
}

/// Syncs on a thread of its own while the writer goes on. Nothing queues: the writer waits until the sync before is done, so that
/// never more than twice `sync_every` is dirty.
struct Syncer {
    orders: std::sync::mpsc::SyncSender<SyncOrder>,
    thread: std::thread::JoinHandle<Result<(), StageError>>,
}

impl Syncer {
    fn start(stage: Arc<dyn Stage>) -> Result<Self, Failure> {
        let (orders, taken) = std::sync::mpsc::sync_channel::<SyncOrder>(0);
        let thread = spawn("ota-sync", move || {
            for answer in taken {
                stage.sync()?;
                // Nobody listens any more when the attempt was cancelled.
                let _ = answer.map(|answer| answer.send(()));
            }
            Ok(())
        })?;
        Ok(Syncer { orders, thread })
    }

    fn end(self) -> Result<(), Failure> {
        drop(self.orders);
        match self.thread.join() {
            Ok(result) => Ok(result?),
            Err(_) => Err(Failure::Stage(
                "syncing the staging area panicked".to_owned(),
            )),
        }
    }
}

impl Writer {
    fn sync(&mut self, answer: SyncOrder) -> Result<(), Failure> {
        self.unsynced = 0;
        match self.syncer.take() {
            None => {
                self.stage.sync()?;
                // Nobody listens any more when the attempt was cancelled.
                let _ = answer.map(|answer| answer.send(()));
            }
            Some(syncer) => match syncer.orders.send(answer) {
                Ok(()) => self.syncer = Some(syncer),
                Err(_) => return syncer.end(),
            },
        }
        Ok(())
    }
}

impl Work for Writer {
    type Order = WriteOrder;
    type Output = ();

    fn take(&mut self, order: WriteOrder) -> Result<(), Failure> {
        match order {
            WriteOrder::Write(block, offset) => {
                {
                    let _write = lock(&self.door.write);
                    if self.door.shut.load(Ordering::SeqCst) {
                        return Err(Failure::Stage("the transfer was cancelled".to_owned()));
                    }
                    self.stage.write_at(&block, offset)?;
                }
                self.unsynced += block.len() as u64;
                if self.unsynced >= self.sync_every {
                    self.sync(None)
                } else {
                    Ok(())
                }
            }
            WriteOrder::Sync(answer) => self.sync(Some(answer)),
        }
    }

    fn end(mut self: Box<Self>) -> Result<(), Failure> {
        if self.unsynced > 0 {
            self.sync(None)?;
        }
        self.syncer.map_or(Ok(()), Syncer::end)
    }
}

/// The lane that writes to the stage.
pub(crate) fn write_lane(
    seam: Seam,
    stage: &Arc<dyn Stage>,
    gate: &Gate,
    sync_every: u64,
) -> Result<WriteLane, Failure> {
    let syncer = match seam {
        Seam::Inline | Seam::After(_) => None,
        Seam::Threads => Some(Syncer::start(Arc::clone(stage))?),
    };
    let writer = Writer {
        stage: Arc::clone(stage),
        door: Arc::clone(&gate.0),
        sync_every,
        unsynced: 0,
        syncer,
    };
    match seam {
        Seam::Inline | Seam::After(_) => Ok(Lane::Inline(Box::new(writer))),
        Seam::Threads => Lane::thread("ota-write", move |orders| drive(writer, orders)),
    }
}
