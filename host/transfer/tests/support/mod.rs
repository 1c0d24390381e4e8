//! A source that plays a script, a stage in memory, and somebody who remembers checkpoints.
#![allow(
    clippy::unwrap_used,
    clippy::field_reassign_with_default,
    dead_code,
    unreachable_pub,
    reason = "tests; not every file uses all of it"
)]

use std::io::Cursor;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use bytes::Bytes;
use minisign::KeyPair;
use otahost_disk::Seam;
use otahost_transfer::{
    Body, BoxFuture, Checkpoint, Checkpoints, Claims, Digest, Failure, Opened, Request, Source,
    SourceError, Stage, StageError, Trust, TrustKeys, Tuning, Validator, Verified, attempt, header,
};

/// Small sizes, so that small content has many blocks and chunks.
pub const TUNING: Tuning = Tuning {
    block: 64,
    chunk: 256,
    sync_every: 128,
    checkpoint_every: Duration::from_secs(1),
    checkpoint_bytes: 1,
    checkpoint_at_last: Duration::from_secs(10),
};

/// Bytes that repeat nowhere.
pub fn content(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

pub fn md5(bytes: &[u8]) -> Digest {
    use md5::Digest as _;
    Digest::Md5(md5::Md5::digest(bytes).into())
}

pub fn sha256(bytes: &[u8]) -> Digest {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    Digest::Sha256(digest.as_ref().try_into().unwrap())
}

pub fn hex(digest: Digest) -> String {
    digest.to_string().split_once(':').unwrap().1.to_owned()
}

pub fn keys() -> KeyPair {
    KeyPair::generate_unencrypted_keypair().unwrap()
}

pub fn trust(pair: &KeyPair) -> Trust {
    Trust::Minisign(TrustKeys::parse(&[pair.pk.to_base64()]).unwrap())
}

pub fn claims(version: &str) -> Claims {
    Claims {
        compatible: Some("evonest-dock".into()),
        version: Some(version.into()),
        rollback_index: Some(7),
    }
}

/// What minisign writes for some bytes.
pub fn signature(pair: &KeyPair, signed: &[u8], claims: &Claims) -> String {
    let comment = claims.to_trusted_comment().unwrap();
    let text = minisign::sign(
        Some(&pair.pk),
        &pair.sk,
        Cursor::new(signed),
        Some(&comment),
        Some("signature from minisign secret key"),
    );
    text.unwrap().into_string()
}

/// An artifact with a header.
pub fn signed_as(pair: &KeyPair, payload: &[u8], claims: &Claims) -> Vec<u8> {
    let header = header::assemble(&signature(pair, payload, claims)).unwrap();
    [&header[..], payload].concat()
}

/// A signed artifact.
pub fn signed(pair: &KeyPair, payload: &[u8], version: &str) -> Vec<u8> {
    signed_as(pair, payload, &claims(version))
}

pub fn request(trust: Trust) -> Request {
    Request {
        expected_size: None,
        digests: Vec::new(),
        trust,
        max_size: 1 << 30,
        version: None,
        compatible: None,
        min_rollback_index: 0,
        tuning: TUNING,
    }
}

/// How the body of one opening ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// All of the content, properly.
    Whole,
    /// Properly, when the file has so many bytes.
    EofAt(usize),
    /// Broken, when the file has so many bytes.
    BreakAt(usize),
    /// Nothing more comes when the file has so many bytes, and nobody says so.
    HangAt(usize),
}

/// What the source does when it is opened once.
#[derive(Debug, Clone)]
pub struct Opening {
    pub content: Arc<Vec<u8>>,
    pub validator: Option<&'static str>,
    /// False: it starts at 0 whatever is asked.
    pub ranges: bool,
    /// What it says about the size; `None` within: nothing.
    pub announced: Option<u64>,
    pub end: End,
    pub piece: usize,
    /// Virtual time before each piece.
    pub pause: Duration,
    pub status: Option<u16>,
}

impl Opening {
    pub fn of(content: &[u8]) -> Self {
        Opening {
            content: Arc::new(content.to_vec()),
            validator: Some("v1"),
            ranges: true,
            announced: Some(content.len() as u64),
            end: End::Whole,
            piece: 100,
            pause: Duration::ZERO,
            status: None,
        }
    }

    pub fn end(self, end: End) -> Self {
        Opening { end, ..self }
    }
}

/// Plays one opening after the other; the last one again and again.
#[derive(Debug)]
pub struct Script {
    pub openings: Vec<Opening>,
    pub asked: Mutex<Vec<(u64, Option<String>)>>,
    pub served: Arc<AtomicU64>,
    /// What lies beside the file.
    pub beside: Result<Option<String>, SourceError>,
    /// How often that was asked for.
    pub besides: AtomicUsize,
}

impl Script {
    pub fn new(openings: impl Into<Vec<Opening>>) -> Self {
        Script {
            openings: openings.into(),
            asked: Mutex::default(),
            served: Arc::default(),
            beside: Ok(None),
            besides: AtomicUsize::default(),
        }
    }

    /// With a signature beside the file.
    pub fn beside(self, text: impl Into<String>) -> Self {
        Script {
            beside: Ok(Some(text.into())),
            ..self
        }
    }

    pub fn besides(&self) -> usize {
        self.besides.load(Ordering::SeqCst)
    }

    pub fn asked(&self) -> Vec<u64> {
        self.asked
            .lock()
            .unwrap()
            .iter()
            .map(|(from, _)| *from)
            .collect()
    }

    pub fn served(&self) -> u64 {
        self.served.load(Ordering::SeqCst)
    }
}

impl Source for Script {
    fn open<'a>(
        &'a self,
        from: u64,
        validator: Option<&'a Validator>,
    ) -> BoxFuture<'a, Result<Opened, SourceError>> {
        let mut asked = self.asked.lock().unwrap();
        let opening = self.openings[asked.len().min(self.openings.len() - 1)].clone();
        asked.push((from, validator.map(|v| v.0.clone())));
        drop(asked);
        let served = Arc::clone(&self.served);
        Box::pin(async move {
            if let Some(status) = opening.status {
                return Err(SourceError::Status {
                    status,
                    headers: vec![("x".into(), "y".into())],
                    body: b"why".to_vec(),
                    text: format!("HTTP {status}"),
                });
            }
            let offset = if opening.ranges { from } else { 0 };
            let size = opening.content.len() as u64;
            if offset > size {
                return Err(SourceError::Status {
                    status: 416,
                    headers: Vec::new(),
                    body: Vec::new(),
                    text: "HTTP 416".into(),
                });
            }
            Ok(Opened {
                offset,
                total: opening.announced,
                published: Vec::new(),
                guessed: false,
                validator: opening.validator.map(|v| Validator(v.into())),
                body: Box::new(ScriptBody {
                    opening,
                    at: offset as usize,
                    served,
                    ended: false,
                }),
            })
        })
    }

    fn sidecar(&self) -> BoxFuture<'_, Result<Option<String>, SourceError>> {
        self.besides.fetch_add(1, Ordering::SeqCst);
        Box::pin(std::future::ready(self.beside.clone()))
    }
}

#[derive(Debug)]
struct ScriptBody {
    opening: Opening,
    at: usize,
    served: Arc<AtomicU64>,
    ended: bool,
}

impl Body for ScriptBody {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, SourceError>> {
        Box::pin(async move {
            assert!(!self.ended, "asked for more behind the end");
            if !self.opening.pause.is_zero() {
                tokio::time::sleep(self.opening.pause).await;
            }
            let content = &self.opening.content;
            let end = match self.opening.end {
                End::Whole => content.len(),
                End::EofAt(at) | End::BreakAt(at) | End::HangAt(at) => at.min(content.len()),
            };
            if self.at >= end {
                self.ended = true;
                return match self.opening.end {
                    End::Whole | End::EofAt(_) => Ok(None),
                    End::BreakAt(_) => Err(SourceError::Broken("the connection broke".into())),
                    End::HangAt(_) => std::future::pending().await,
                };
            }
            let to = (self.at + self.opening.piece).min(end);
            let piece = Bytes::copy_from_slice(&content[self.at..to]);
            self.at = to;
            self.served.fetch_add(piece.len() as u64, Ordering::SeqCst);
            Ok(Some(piece))
        })
    }
}

/// What is on the medium, and what of it would be there after a power cut.
#[derive(Debug, Default)]
pub struct Medium {
    pub now: Mutex<Vec<u8>>,
    pub durable: Mutex<Vec<u8>>,
    pub writes: AtomicUsize,
}

#[derive(Debug, Default)]
pub struct MemoryStage {
    pub medium: Arc<Medium>,
    pub capacity: Option<u64>,
    pub fail_write_at: Option<u64>,
    pub fail_sync: bool,
    /// Told of every write that begins; the write waits for an answer, but not for long.
    pub on_write: Option<Mutex<(mpsc::Sender<()>, mpsc::Receiver<()>)>>,
    /// Told when the stage is dropped, that is when nobody can write any more.
    pub on_drop: Option<mpsc::Sender<()>>,
}

impl Stage for MemoryStage {
    fn capacity(&self) -> Option<u64> {
        self.capacity
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), StageError> {
        if let Some(on_write) = &self.on_write {
            let (begun, go) = &*on_write.lock().unwrap();
            let _ = begun.send(());
            // Bounded: whoever cancels waits for the write that is under way.
            let _ = go.recv_timeout(Duration::from_secs(1));
        }
        if self.fail_write_at.is_some_and(|at| offset >= at) {
            return Err(StageError::Failed("the medium is worn out".into()));
        }
        let mut now = self.medium.now.lock().unwrap();
        let (from, to) = (offset as usize, offset as usize + bytes.len());
        if now.len() < to {
            now.resize(to, 0);
        }
        now[from..to].copy_from_slice(bytes);
        self.medium.writes.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn read_exact_at(&self, into: &mut [u8], offset: u64) -> Result<(), StageError> {
        let now = self.medium.now.lock().unwrap();
        let from = now.get(offset as usize..).unwrap_or_default();
        let part = from
            .get(..into.len())
            .ok_or_else(|| StageError::Failed("there is nothing".into()))?;
        into.copy_from_slice(part);
        Ok(())
    }

    fn sync(&self) -> Result<(), StageError> {
        if self.fail_sync {
            return Err(StageError::Failed("the medium does not sync".into()));
        }
        *self.medium.durable.lock().unwrap() = self.medium.now.lock().unwrap().clone();
        Ok(())
    }
}

impl Drop for MemoryStage {
    fn drop(&mut self) {
        if let Some(told) = &self.on_drop {
            let _ = told.send(());
        }
    }
}

/// Remembers what it is told, and that everything a checkpoint speaks of was durable.
#[derive(Debug, Default)]
pub struct Memory {
    pub medium: Arc<Medium>,
    pub checkpoints: Mutex<Vec<Checkpoint>>,
    pub times: Mutex<Vec<tokio::time::Instant>>,
    pub progress: Mutex<Vec<(u64, Option<u64>)>>,
    pub fetched: AtomicU64,
}

impl Memory {
    pub fn last(&self) -> Checkpoint {
        self.checkpoints
            .lock()
            .unwrap()
            .last()
            .cloned()
            .unwrap_or_default()
    }
}

impl Checkpoints for Memory {
    fn progress(&self, received: u64, total: Option<u64>) {
        self.progress.lock().unwrap().push((received, total));
    }

    fn fetched(&self, bytes: u64) {
        self.fetched.fetch_add(bytes, Ordering::SeqCst);
    }

    fn checkpoint(&self, checkpoint: Checkpoint) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let start = if checkpoint.header.is_empty() {
                0
            } else {
                header::HEADER_LEN
            };
            let payload = (checkpoint.received as usize).saturating_sub(start);
            let (now, durable) = (
                self.medium.now.lock().unwrap(),
                self.medium.durable.lock().unwrap(),
            );
            assert!(
                durable.len() >= payload && durable[..payload] == now[..payload],
                "a checkpoint of {payload} payload bytes, {} of {} durable",
                durable.len(),
                now.len()
            );
            drop((now, durable));
            self.times.lock().unwrap().push(tokio::time::Instant::now());
            self.checkpoints.lock().unwrap().push(checkpoint);
        })
    }
}

/// A target over several attempts.
#[derive(Debug, Default)]
pub struct Bench {
    pub medium: Arc<Medium>,
    pub memory: Memory,
    pub seam: Option<Seam>,
    pub capacity: Option<u64>,
}

impl Bench {
    pub fn new(seam: Seam) -> Self {
        let medium = Arc::<Medium>::default();
        let memory = Memory {
            medium: Arc::clone(&medium),
            ..Memory::default()
        };
        Bench {
            medium,
            memory,
            seam: Some(seam),
            capacity: None,
        }
    }

    pub fn stage(&self) -> MemoryStage {
        let mut stage = MemoryStage::default();
        stage.medium = Arc::clone(&self.medium);
        stage.capacity = self.capacity;
        stage
    }

    /// An attempt from where the last one ended.
    pub async fn attempt(&self, source: &Script, request: &Request) -> Result<Verified, Failure> {
        self.attempt_from(source, request, self.memory.last()).await
    }

    pub async fn attempt_from(
        &self,
        source: &Script,
        request: &Request,
        resume: Checkpoint,
    ) -> Result<Verified, Failure> {
        attempt(
            source,
            Arc::new(self.stage()),
            request,
            resume,
            &self.memory,
            self.seam.unwrap(),
        )
        .await
    }

    pub fn staged(&self) -> Vec<u8> {
        self.medium.now.lock().unwrap().clone()
    }

    pub fn corrupt(&self, at: usize) {
        self.medium.now.lock().unwrap()[at] ^= 0x10;
    }
}

/// Runs a test in virtual time.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime.unwrap().block_on(test)
}

/// Runs a test in real time, for threads.
pub fn run_threads<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build();
    runtime.unwrap().block_on(test)
}

/// Runs a test both ways.
pub fn both<F: Future<Output = ()>>(test: impl Fn(Bench) -> F) {
    run(test(Bench::new(Seam::Inline)));
    run_threads(test(Bench::new(Seam::Threads)));
}
