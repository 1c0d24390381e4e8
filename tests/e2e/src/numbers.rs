//! A device whose one adapter numbers what it is told, and everybody around it: to prove that nothing is lost and nothing is handled
//! twice, whatever happens to the adapter, the agent, the line and the broker meanwhile.
//!
//! Message `N` is answered with `N`, the version that handled it and the count in the adapter's state: one publication, committed with
//! the step. So every message was handled by one committed step of one version when each has one answer, and its count is its number.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use otahost_lab::image::{Described, Image};
use otahost_lab::machine::{Machine, MachineSpec, built_adapter};
use otahost_lab::peer::Peer;
use otahost_lab::proxy::Proxy;
use otahost_lab::signing::Publisher;
use serde_json::Value;
use tempfile::TempDir;

use crate::device::{Cli, PATIENCE, Said, eventually};

/// What the factory installed.
pub const FIRST: &str = "0.1.0";
/// The next release, whose state has another layout: the migration to it adds a thousand to the count.
pub const NEXT: &str = "0.2.0";
/// The release after it, which returns to the first layout.
pub const BACK: &str = "0.3.0";
/// Messages that may wait for their answers: enough that there is always one to handle, and far below what the agent keeps.
const BACKLOG: u64 = 50;

/// The device. Ends with its value; says what the agent logged when a test fails.
#[derive(Debug)]
pub struct Numbers {
    /// The machine the agent runs in.
    pub machine: Machine,
    /// Between the agent and the broker; the one who tells is connected directly.
    pub proxy: Proxy,
    /// Who tells and listens.
    pub peer: Peer,
    said: AtomicU64,
    book: Mutex<Book>,
    dir: TempDir,
}

/// The answer to one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The version that handled it.
    pub version: String,
    /// The count after it.
    pub count: u64,
}

#[derive(Debug, Default)]
struct Book {
    read: usize,
    answers: BTreeMap<u64, Answer>,
    faults: Vec<String>,
}

impl Book {
    /// Reads what was heard since the last time. A publication may come twice, but not two different ones.
    fn read(&mut self, heard: &[(String, Vec<u8>)]) {
        for (_, payload) in &heard[self.read..] {
            let text = String::from_utf8_lossy(payload);
            let words: Vec<&str> = text.split(' ').collect();
            let ["number", number, version, count] = words[..] else {
                continue;
            };
            let answer = Answer {
                version: version.to_owned(),
                count: count.parse().unwrap(),
            };
            let number = number.parse().unwrap();
            let first = self.answers.entry(number).or_insert_with(|| answer.clone());
            if *first != answer {
                self.faults.push(format!(
                    "message {number} was handled twice: {first:?} and {answer:?}"
                ));
            }
        }
        self.read = heard.len();
    }
}

impl Numbers {
    /// A device that is switched off, on this broker.
    pub fn off(broker: u16) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let proxy = Proxy::to_port(broker);
        let home = dir.path().join("machine");
        fs::create_dir(&home).unwrap();
        let factory = dir.path().join("rogue.wasm");
        fs::copy(built_adapter("rogue"), &factory).unwrap();
        let more = format!(
            r#"
[links.cloud]
kind = "mqtt"
url = "mqtt://127.0.0.1:{}"
backoff_first = "100ms"
backoff_max = "1s"

[adapters.rogue]
component = {}
config = {{ link = "cloud", prefix = "rogue" }}

[adapters.rogue.grants]
links.cloud.subscribe = ["rogue/do"]
links.cloud.publish = ["rogue/out"]
"#,
            proxy.port(),
            Value::from(factory.display().to_string()),
        );
        let spec = MachineSpec {
            trust: vec![Publisher::generate().unwrap().public_key()],
            ..MachineSpec::bare("NUMBERS", "dock", &more)
        };
        let machine = Machine::create(&home, spec, &Image::new("1.0.0", 4 * 1024)).unwrap();
        Numbers {
            machine,
            proxy,
            peer: Peer::connect(broker, "rogue/out").unwrap(),
            said: AtomicU64::new(0),
            book: Mutex::default(),
            dir,
        }
    }

    /// Switches it on and waits until it listens: from then on the broker keeps for it what is said.
    pub fn switch_on(&self) {
        self.machine.power_on().unwrap();
        eventually("the adapter on its link", || {
            assert!(self.machine.agent_runs(), "the agent has ended");
            self.status()["links"][0]["up"] == true
        });
    }

    /// A release of the adapter, in a build of its own that no cache knows: the same but for a section nobody reads. Signed native code
    /// is in no cache, and stays as it was signed.
    pub fn release(&self, name: &str, build: u64) -> PathBuf {
        let built = built_adapter(name);
        let mut bytes = fs::read(&built).unwrap();
        if built.extension().is_some_and(|ending| ending == "wasm") {
            let text = build.to_be_bytes();
            // A custom section: id, size, length of its name, name, content.
            bytes.extend([0, 6 + 8, 5]);
            bytes.extend(b"build");
            bytes.extend(text);
        }
        let path = self.dir.path().join(format!("{name}-{build}.wasm"));
        fs::write(&path, bytes).unwrap();
        path
    }

    /// Puts another component into the configuration.
    pub fn configure_component(&self, component: &Path) {
        let path = self.machine.layout().config();
        let text = fs::read_to_string(&path).unwrap();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let line = lines.iter_mut().find(|l| l.starts_with("component = "));
        *line.unwrap() = format!(
            "component = {}",
            Value::from(component.display().to_string())
        );
        fs::write(path, lines.join("\n")).unwrap();
    }

    /// What `otahost check` says, on the machine that has booted before.
    pub fn check(&self) -> Said {
        Cli::on(&self.machine, &["check"]).end()
    }

    /// Starts `otahost adapter install` of a component.
    pub fn install(&self, component: &Path) -> Cli {
        let path = component.display().to_string();
        Cli::on(&self.machine, &["adapter", "install", "rogue", &path])
    }

    /// The agent's status; null while none answers.
    pub fn status(&self) -> Value {
        let said = self.machine.cli(&["status", "--json"]).unwrap();
        serde_json::from_slice(&said.stdout).unwrap_or_default()
    }

    /// Says the next number.
    pub fn say(&self) -> u64 {
        let number = self.said.fetch_add(1, Ordering::SeqCst) + 1;
        self.peer
            .say("rogue/do", format!("number {number}"))
            .unwrap();
        number
    }

    /// Numbers said so far.
    pub fn said(&self) -> u64 {
        self.said.load(Ordering::SeqCst)
    }

    /// Numbers that are answered.
    pub fn answered(&self) -> u64 {
        self.await_answers(0);
        self.book(|book| book.answers.len() as u64)
    }

    /// Waits until so many numbers are answered.
    pub fn await_answers(&self, count: u64) {
        let there = self.peer.wait_for(PATIENCE, |heard| {
            self.book(|book| {
                book.read(heard);
                book.answers.len() as u64 >= count
            })
        });
        assert!(
            there,
            "{count} answers: there are {} to {} messages",
            self.book(|book| book.answers.len()),
            self.said()
        );
    }

    /// Waits for so many more answers than there are now.
    pub fn await_more(&self, count: u64) {
        self.await_answers(self.answered() + count);
    }

    /// Waits for the answer to something that is said from now on, by somebody else.
    pub fn await_new(&self) {
        self.await_answers(self.said() + 1);
    }

    /// The version that gave the newest answer.
    pub fn version(&self) -> String {
        self.await_answers(1);
        self.book(|book| book.answers.values().next_back().unwrap().version.clone())
    }

    /// The versions in the order in which they answered.
    pub fn versions(&self) -> Vec<String> {
        let mut versions: Vec<String> = Vec::new();
        self.book(|book| {
            for answer in book.answers.values() {
                if versions.last() != Some(&answer.version) {
                    versions.push(answer.version.clone());
                }
            }
        });
        versions
    }

    /// Does something while numbers are said without a pause, each as soon as there is room for one that waits.
    pub fn while_told<T>(&self, deed: impl FnOnce() -> T) -> T {
        /// The teller ends with the deed, also with one that fails.
        struct End<'a>(&'a AtomicBool);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    let said = self.say();
                    while self.answered() + BACKLOG < said && !over.load(Ordering::SeqCst) {
                        // A short wait, so that the end is seen.
                        let enough = said - BACKLOG;
                        let _ = self
                            .peer
                            .wait_for(std::time::Duration::from_millis(50), |heard| {
                                self.book(|book| {
                                    book.read(heard);
                                    book.answers.len() as u64 >= enough
                                })
                            });
                    }
                }
            });
            let _end = End(&over);
            deed()
        })
    }

    /// Every number said is answered, each by one step of one version: a step that happened twice, was lost, or ran on a state that
    /// was not that of the step before would show in the count.
    pub fn assert_each_handled_once(&self) {
        let said = self.said();
        self.await_answers(said);
        self.book(|book| {
            assert_eq!(book.faults, Vec::<String>::new());
            for (number, answer) in &book.answers {
                let before = if answer.version == NEXT { 1_000 } else { 0 };
                assert_eq!(
                    answer.count,
                    number + before,
                    "message {number} by version {}",
                    answer.version
                );
            }
            assert_eq!(book.answers.keys().next_back(), Some(&said));
        });
        let adapter = &self.status()["adapters"][0];
        assert_eq!(
            (&adapter["health"], &adapter["dead_letters"]),
            (&Value::from("running"), &Value::from(0)),
            "{adapter}"
        );
    }

    /// Every component the agent keeps is whole: it has the digest that its name says. Native code in the place of a component goes by the
    /// component's digest, and is whole when it is what was built.
    pub fn assert_store_is_whole(&self) {
        let store = self.machine.layout().data().join("adapters");
        let built = built_adapter("rogue");
        let built = built.parent().unwrap();
        for entry in fs::read_dir(store).into_iter().flatten().flatten() {
            let name = entry.file_name().into_string().unwrap();
            let Some(digest) = name.strip_suffix(".wasm") else {
                continue;
            };
            let kept = fs::read(entry.path()).unwrap();
            if kept.starts_with(b"\0asm") {
                assert_eq!(Described::of(&entry.path()).unwrap().sha256, digest);
                continue;
            }
            let mut files = fs::read_dir(built).unwrap().flatten();
            let is_built = files.any(|file| {
                let is_file = file.file_type().unwrap().is_file();
                is_file && fs::read(file.path()).unwrap() == kept
            });
            assert!(is_built, "{name} is nothing that was built");
        }
    }

    fn book<T>(&self, look: impl FnOnce(&mut Book) -> T) -> T {
        look(&mut self.book.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Numbers {
    fn drop(&mut self) {
        if thread::panicking() {
            let text = fs::read_to_string(self.machine.layout().log()).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let last = &lines[lines.len().saturating_sub(60)..];
            eprintln!("the agent's log:\n{}", last.join("\n"));
        }
    }
}
