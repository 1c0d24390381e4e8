//! Native code that was made before, kept over restarts.
//!
//! Compiling an adapter takes a second on a fast machine and a minute on a slow one; a device that starts must not wait for it. What is
//! read back is run as it is, so a file counts only when it says of itself that this very engine made it from this very component, and
//! its digest says that nothing of it has changed since. Anything else is compiled again and replaced. The digest is no signature: it shows
//! decay, mistakes and other versions. Who may write into the agent's own directory could as well replace the agent's state.

mod header;
mod inspect;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use otahost_disk::{Disk, Open, Place};

use self::header::{HEADER, Header, sha256};
use crate::child::ChildLimits;
use crate::compiled::{Compiled, EngineId, engine_version};
use crate::failure::LoadError;
use crate::how::{How, Loaded, Why};
use crate::sandbox::{Sandbox, hex};

/// Ending of our files.
const ENDING: &str = ".cwasm";
/// Ending of what a replacement leaves behind when the power goes.
const LEFTOVER: &str = ".cwasm.new";

/// What the cache may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Most files.
    pub files: usize,
    /// Most bytes of all files together.
    pub bytes: u64,
}

impl Default for Bounds {
    /// Several adapters with their predecessors, for the engines of two firmware slots.
    fn default() -> Self {
        Bounds {
            files: 32,
            bytes: 64 * 1024 * 1024,
        }
    }
}

/// Where native code is made when it has to be.
#[derive(Debug, Clone, Copy)]
pub enum Compile<'a> {
    /// In this process, without limits.
    Here,
    /// In a process of its own: see [`Sandbox::compile_in_child`].
    InChild {
        /// The agent's executable, with the argument that makes it the compiler.
        program: &'a [OsString],
        /// What it may use.
        limits: &'a ChildLimits,
    },
}

impl Compile<'_> {
    fn make(self, sandbox: &Sandbox, name: &str, component: &[u8]) -> Result<Compiled, LoadError> {
        match self {
            Compile::Here => sandbox.compile(name, component),
            Compile::InChild { program, limits } => {
                sandbox.compile_in_child(name, program, component, limits)
            }
        }
    }
}

impl Sandbox {
    /// Audits, compiles and type-checks a component where this says, without a cache. `name` is only used in messages.
    ///
    /// # Errors
    /// As for [`Cache::load`].
    pub fn load_by(
        &self,
        name: &str,
        component: &[u8],
        compile: Compile<'_>,
    ) -> Result<Loaded, LoadError> {
        let compiled = compile.make(self, name, component)?;
        Ok(Loaded {
            adapter: self.load_compiled(name, &compiled)?,
            how: How::Compiled { why: Why::NoCache },
            not_kept: None,
        })
    }
}

/// Files of native code in one directory, which belongs to the cache alone. It never fails an adapter: what it cannot keep or read is
/// compiled.
#[derive(Debug)]
pub struct Cache {
    disk: Arc<dyn Disk>,
    place: Place,
    bounds: Bounds,
    version: String,
    files: Mutex<Files>,
}

#[derive(Debug, Default)]
struct Files {
    by_name: BTreeMap<String, File>,
    /// Counts up.
    made: u64,
    uses: u64,
}

/// What is known of a file. Kept small: the code stays on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
struct File {
    bytes: u64,
    /// 0 when its header cannot be read.
    made: u64,
    /// When it was last of use in this run; 0 when it was not.
    used: u64,
    /// The release of the engine that made it.
    version: String,
}

impl Cache {
    /// Opens the directory, making it where it does not exist, and clears away what a power cut left half written.
    ///
    /// # Errors
    /// When the directory cannot be made or listed.
    pub fn open(disk: Arc<dyn Disk>, place: Place, bounds: Bounds) -> io::Result<Cache> {
        disk.create_dir(&place)?;
        let mut files = Files::default();
        for name in disk.list(&place)? {
            let at = place.join(&name);
            if name.ends_with(LEFTOVER) {
                // A next time will do too.
                let _ = disk.remove(&at);
            } else if name.ends_with(ENDING) {
                let file = look(&*disk, &at);
                files.made = files.made.max(file.made);
                files.by_name.insert(name, file);
            }
        }
        Ok(Cache {
            disk,
            place,
            bounds,
            version: engine_version(),
            files: Mutex::new(files),
        })
    }

    /// Loads an adapter: from its native code in the cache, else by compiling it, and then keeps the code. The component is audited
    /// and type-checked in both cases. `name` is only used in messages.
    ///
    /// # Errors
    /// What [`Sandbox::load`] gives for the component, and [`LoadError::Compiler`] for the compiler's process. Never because of the cache.
    pub fn load(
        &self,
        sandbox: &Sandbox,
        name: &str,
        component: &[u8],
        compile: Compile<'_>,
    ) -> Result<Loaded, LoadError> {
        let digest = sandbox.audit(name, component)?;
        let key = Key::new(sha256(component), sandbox.shared.id);
        let why = match self.find(&key, &digest) {
            Ok(compiled) => match sandbox.load_compiled(name, &compiled) {
                Ok(adapter) => {
                    return Ok(Loaded {
                        adapter,
                        how: How::Cached,
                        not_kept: None,
                    });
                }
                Err(LoadError::Code { reason, .. }) => Why::Refused(reason),
                Err(other) => return Err(other),
            },
            Err(why) => why,
        };
        let compiled = compile.make(sandbox, name, component)?;
        // A component that does not fit the contract is not worth its place.
        let adapter = sandbox.load_compiled(name, &compiled)?;
        let not_kept = self.keep(&key, &compiled).err();
        Ok(Loaded {
            adapter,
            how: How::Compiled { why },
            not_kept,
        })
    }

    /// Removes the code of a component (`"sha256:<hex>"`), whichever engine made it. What is not there is no error.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn forget(&self, component: &str) -> io::Result<()> {
        let Some(component) = component.strip_prefix("sha256:") else {
            return Ok(());
        };
        let mut files = self.files();
        let of: Vec<String> = files.of(component).map(|(name, _)| name.clone()).collect();
        if of.is_empty() {
            return Ok(());
        }
        for name in of {
            self.disk.remove(&self.place.join(&name))?;
            files.by_name.remove(&name);
        }
        self.disk.sync_dir(&self.place)
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        // Only what is known of the files; at worst one is not counted until the next start.
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The code of a component, if there is a sound file of it.
    fn find(&self, key: &Key, digest: &str) -> Result<Compiled, Why> {
        let name = key.file_name();
        {
            let mut files = self.files();
            files.uses += 1;
            let now = files.uses;
            match files.by_name.get_mut(&name) {
                Some(file) => file.used = now,
                None => {
                    let other = files.of(&hex(&key.component)).next();
                    return Err(match other {
                        Some((_, file)) => Why::OtherEngine(file.version.clone()),
                        None => Why::Absent,
                    });
                }
            }
        }
        let most = self.bounds.bytes.saturating_add(HEADER as u64);
        let mut file = match self.disk.read(&self.place.join(&name), most) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(Why::Absent),
            Err(e) => return Err(Why::Unreadable(e.to_string())),
        };
        let header = Header::read(&file).map_err(Why::Damaged)?;
        if header.component != key.component {
            return Err(Why::Damaged("it was made from another component".into()));
        }
        if header.engine != key.engine {
            return Err(Why::OtherEngine(header.version));
        }
        let code = file.split_off(HEADER);
        header.check(&code).map_err(Why::Damaged)?;
        Ok(Compiled {
            component: digest.into(),
            engine: header.engine,
            code,
        })
    }

    /// Keeps code for the next start, and makes room for it.
    fn keep(&self, key: &Key, compiled: &Compiled) -> Result<(), String> {
        let bytes = (HEADER + compiled.code.len()) as u64;
        if bytes > self.bounds.bytes || self.bounds.files == 0 {
            return Err(format!(
                "its native code has {bytes} bytes, more than the cache may hold ({})",
                self.bounds.bytes
            ));
        }
        let name = key.file_name();
        // Held while writing: two writers of one name would share its temporary file.
        let mut files = self.files();
        files.made += 1;
        let header = Header::of(files.made, key.component, &self.version, compiled);
        let mut whole = header.to_bytes();
        whole.extend(&compiled.code);
        let place = self.place.join(&name);
        if let Err(error) = self.disk.replace(&place, &whole) {
            // What has the name may be of any age now; the next start looks again.
            let _ = self.disk.remove(&place.with_suffix(".new"));
            return Err(format!("its native code cannot be kept: {error}"));
        }
        files.uses += 1;
        let file = File {
            bytes,
            made: header.made,
            used: files.uses,
            version: header.version,
        };
        files.by_name.insert(name.clone(), file);
        self.make_room(&mut files, &name)
            .map_err(|error| format!("the cache is over its bounds: {error}"))
    }

    /// Removes what was not of use in this run, oldest first, then what was of use longest ago, until the bounds hold.
    fn make_room(&self, files: &mut Files, newest: &str) -> io::Result<()> {
        let mut removed = false;
        while files.by_name.len() > self.bounds.files || files.bytes() > self.bounds.bytes {
            let others = files.by_name.iter().filter(|(name, _)| *name != newest);
            let oldest = others.min_by_key(|(_, file)| (file.used, file.made));
            let Some(name) = oldest.map(|(name, _)| name.clone()) else {
                break;
            };
            self.disk.remove(&self.place.join(&name))?;
            files.by_name.remove(&name);
            removed = true;
        }
        if removed {
            self.disk.sync_dir(&self.place)?;
        }
        Ok(())
    }
}

impl Files {
    fn bytes(&self) -> u64 {
        self.by_name.values().map(|file| file.bytes).sum()
    }

    /// The files of a component, by the hex of its digest.
    fn of(&self, component: &str) -> impl Iterator<Item = (&String, &File)> {
        let of = move |(name, _): &(&String, &File)| name.starts_with(component);
        self.by_name.iter().filter(of)
    }
}

/// What a file is known by.
struct Key {
    component: [u8; 32],
    engine: EngineId,
}

impl Key {
    fn new(component: [u8; 32], engine: EngineId) -> Self {
        Key { component, engine }
    }

    /// Engines share the directory, so that a firmware that rolls back finds its own code. The header has the whole id.
    fn file_name(&self) -> String {
        format!(
            "{}-{}{ENDING}",
            hex(&self.component),
            hex(&self.engine[..8])
        )
    }
}

/// What can be told of a file by its length and header.
fn look(disk: &dyn Disk, at: &Place) -> File {
    let mut bytes = 0;
    let mut head = || -> io::Result<Vec<u8>> {
        let file = disk.open(at, Open::Read)?;
        bytes = file.len()?;
        let mut head = vec![0; HEADER];
        file.read_exact_at(&mut head, 0)?;
        Ok(head)
    };
    let header = head().ok().and_then(|head| Header::read(&head).ok());
    File {
        bytes,
        made: header.as_ref().map_or(0, |header| header.made),
        used: 0,
        version: header.map_or_else(|| "of unknown release".into(), |header| header.version),
    }
}

#[cfg(test)]
mod tests;
