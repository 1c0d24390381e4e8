//! Salvage by processes, for builds in which a panic cannot be caught.
//!
//! In a build with `panic = "abort"` the agent starts its own executable once more: it reads the store from standard input and writes the
//! rows to standard output as it finds them. A process that ends early costs the rest of its walk, and the next process begins with the
//! walk after that.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};

use super::{Rows, WALKS, on_a_thread, walk};

/// In place of a key's length: what follows is the number of the walk that begins. [`WALKS`] of them is the end.
const WALK: u32 = u32::MAX;
/// Longest key or value that is believed; the store holds none that comes near it.
const MAX_PART: u32 = 64 << 20;

static PROGRAM: OnceLock<Vec<OsString>> = OnceLock::new();

/// Has damaged journals read by this program from now on: the agent's own executable, with the argument that makes it call
/// [`salvage_child`] with the one that follows. The first call counts.
pub fn salvage_in_children(program: Vec<OsString>) {
    let _ = PROGRAM.set(program);
}

pub(super) fn program() -> Option<&'static [OsString]> {
    PROGRAM.get().map(Vec::as_slice)
}

/// Does all walks by as many processes as it takes.
pub(super) fn walks(program: &[OsString], store: Vec<u8>, rows: &mut Rows) {
    let store = Arc::new(store);
    let mut next = 0;
    while next < WALKS && rows.has_room() {
        match process(program, &store, next, rows) {
            Ok(Some(reached)) if reached >= next => next = reached + 1,
            // It cannot be started, or is no child of ours; the file is kept.
            _ => break,
        }
    }
}

/// One process from a walk on: the last walk that it began.
fn process(
    program: &[OsString],
    store: &Arc<Vec<u8>>,
    from: usize,
    rows: &mut Rows,
) -> io::Result<Option<usize>> {
    let (executable, arguments) = program.split_first().ok_or(io::ErrorKind::NotFound)?;
    let child = Command::new(executable)
        .args(arguments)
        .arg(from.to_string())
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut child = Reaped(child);
    let (Some(mut stdin), Some(mut stdout)) = (child.0.stdin.take(), child.0.stdout.take()) else {
        return Err(io::Error::other("it has no standard streams"));
    };
    let store = Arc::clone(store);
    std::thread::Builder::new()
        .name("salvage-process".into())
        .spawn(move || {
            // One that does not read to the end has ended.
            let _ = stdin.write_all(&store);
        })?;
    Ok(read(&mut stdout, rows))
}

/// Killed when it is left before its end.
struct Reaped(Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Takes what it writes, up to its end or to what cannot be.
fn read(from: &mut dyn Read, rows: &mut Rows) -> Option<usize> {
    let mut walk = None;
    loop {
        let mut head = [0; 8];
        if from.read_exact(&mut head).is_err() {
            return walk;
        }
        let [key, value] = lengths(head);
        if key == WALK {
            walk = usize::try_from(value).ok();
            continue;
        }
        let (Some(key), Some(value)) = (part(from, key), part(from, value)) else {
            return walk;
        };
        if !rows.take(&key, &value) {
            return walk;
        }
    }
}

fn lengths([a, b, c, d, e, f, g, h]: [u8; 8]) -> [u32; 2] {
    [
        u32::from_le_bytes([a, b, c, d]),
        u32::from_le_bytes([e, f, g, h]),
    ]
}

fn part(from: &mut dyn Read, len: u32) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    if len > MAX_PART {
        return None;
    }
    let read = from.take(u64::from(len)).read_to_end(&mut bytes).ok()?;
    (read == len as usize).then_some(bytes)
}

/// All of the process that walks, from this walk on: the store comes in by one stream and the rows go out by the other.
///
/// # Errors
/// One of the streams fails.
pub fn salvage_child(
    from: usize,
    mut input: impl Read,
    output: impl Write + Send + 'static,
) -> io::Result<()> {
    let mut store = Vec::new();
    input.read_to_end(&mut store)?;
    let store = Arc::new(store);
    let walked = on_a_thread(move || {
        let mut output = output;
        for number in from..WALKS {
            write(&mut output, [WALK, number as u32], &[])?;
            let mut written = Ok(());
            // What cannot be read is what the walk is short of.
            let _ = walk(&store, number, &mut |key, value| {
                written = match (u32::try_from(key.len()), u32::try_from(value.len())) {
                    (Ok(k), Ok(v)) => write(&mut output, [k, v], &[key, value]),
                    _ => Ok(()),
                };
                written.is_ok()
            });
            written?;
        }
        write(&mut output, [WALK, WALKS as u32], &[])
    });
    walked.unwrap_or_else(|| Err(io::Error::other("no thread to walk on")))
}

/// At once: the process may end with the next row.
fn write(to: &mut impl Write, [a, b]: [u32; 2], parts: &[&[u8]]) -> io::Result<()> {
    let mut bytes = [a.to_le_bytes(), b.to_le_bytes()].concat();
    for part in parts {
        bytes.extend_from_slice(part);
    }
    to.write_all(&bytes)?;
    to.flush()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::sync::{Mutex, PoisonError};

    use super::*;
    use crate::salvage::salvage;
    use crate::{Change, Journal, Key};
    use otahost_disk::{Disk, Place, RealDisk};

    #[derive(Clone, Default)]
    struct Pipe(Arc<Mutex<Vec<u8>>>);

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn said(from: usize, store: &[u8]) -> Vec<u8> {
        let pipe = Pipe::default();
        salvage_child(from, store, pipe.clone()).unwrap();
        pipe.0.lock().unwrap().clone()
    }

    /// The store of a journal with rows of two kinds.
    fn store() -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(dir.path()).unwrap());
        let place = Place::data("journal");
        let journal = Journal::open(Arc::clone(&disk), place.clone()).unwrap();
        let change = |n: u32| Change::Put(Key::Meta(format!("row-{n}")), vec![n as u8; 300]);
        let rows: Vec<Change> = (0..200).map(change).collect();
        journal.commit(&rows).unwrap();
        drop(journal);
        crate::restore::load_store(disk.as_ref(), &place)
            .unwrap()
            .anyhow
    }

    #[test]
    fn a_process_tells_every_row_and_its_last_walk() {
        let store = store();
        let mut rows = Rows::default();
        let reached = read(&mut said(0, &store).as_slice(), &mut rows);
        assert_eq!(reached, Some(WALKS));
        assert_eq!(rows.found, salvage(store));
        assert!(rows.found.len() >= 200);
    }

    #[test]
    fn rows_that_a_process_told_before_it_ended_are_kept() {
        let store = store();
        let whole = said(0, &store);
        let mut rows = Rows::default();
        let reached = read(&mut &whole[..whole.len() / 4], &mut rows);
        assert!(reached.is_some_and(|walk| walk < WALKS), "{reached:?}");
        assert!(!rows.found.is_empty() && rows.found.len() < 200);
    }

    #[test]
    fn after_a_process_that_ended_early_the_next_one_begins_behind_its_walk() {
        // Each tells its one walk and ends; the file has one line for each process.
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let script = r#"cat > /dev/null; echo "$1" >> "$0"; printf "\377\377\377\377\\$(printf %03o "$1")\0\0\0""#;
        let program: Vec<OsString> = ["/bin/sh", "-c", script, log.to_str().unwrap()]
            .map(OsString::from)
            .into();
        walks(&program, vec![0; 100_000], &mut Rows::default());
        let told = std::fs::read_to_string(log).unwrap();
        let expected: String = (0..WALKS).map(|n| format!("{n}\n")).collect();
        assert_eq!(told, expected);
    }

    #[test]
    fn a_process_that_tells_nothing_is_not_started_again() {
        let program = ["/bin/sh", "-c", "exit 3"].map(OsString::from);
        let mut rows = Rows::default();
        walks(&program, Vec::new(), &mut rows);
        assert!(rows.found.is_empty());
    }
}
