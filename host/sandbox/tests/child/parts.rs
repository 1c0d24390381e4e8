//! The parts that a child can play.

use std::io::{self, Read, Write};
use std::time::Duration;

use otahost_sandbox::child_main;
use rustix::process::{Resource, Signal, getrlimit};

/// Bytes of the request before the component.
const REQUEST: usize = 16 + 3 * 8;

/// Plays the part and gives the exit code; `None` when there is no such part.
pub(crate) fn play(part: &str) -> Option<i32> {
    match part {
        "compile" => return Some(child_main(io::stdin(), io::stdout()).into()),
        "hang" => {
            read_all();
            hang();
        }
        "hang-unread" => hang(),
        "flood" => while io::stdout().write_all(&[0; 4096]).is_ok() {},
        "complain" => {
            io::stderr().write_all(&vec![b'x'; 1024 * 1024]).unwrap();
            return Some(child_main(io::stdin(), io::stdout()).into());
        }
        "panic" => {
            read_all();
            panic!("on purpose");
        }
        "abort" => std::process::abort(),
        "killed" => {
            rustix::process::kill_process(rustix::process::getpid(), Signal::KILL).unwrap();
            hang();
        }
        "nonsense" => {
            read_all();
            println!("hello");
        }
        "silence" => read_all(),
        "cut-off" => {
            let mut answer = Vec::new();
            child_main(io::stdin(), &mut answer);
            io::stdout().write_all(&answer[..answer.len() - 1]).unwrap();
        }
        "other-build" => {
            let mut answer = Vec::new();
            child_main(io::stdin(), &mut answer);
            // The engine's id stands after the mark and the word.
            answer[17] ^= 1;
            io::stdout().write_all(&answer).unwrap();
        }
        "show-limits" => return Some(child_main(Watched::default(), io::stdout()).into()),
        _ => return None,
    }
    Some(0)
}

fn read_all() {
    io::copy(&mut io::stdin(), &mut io::sink()).unwrap();
}

fn hang() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(3_600));
    }
}

/// Standard input that shows the limits as soon as it is asked for the component's first byte.
#[derive(Default)]
struct Watched {
    read: usize,
}

impl Read for Watched {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.read >= REQUEST {
            let both = |resource| {
                let limit = getrlimit(resource);
                (
                    limit.current.unwrap_or(u64::MAX),
                    limit.maximum.unwrap_or(u64::MAX),
                )
            };
            let one = |resource| match both(resource) {
                (soft, hard) if soft == hard => soft,
                other => panic!("{resource:?}: {other:?}"),
            };
            let (soft, hard) = both(Resource::Cpu);
            panic!(
                "as {} cpu {soft}-{hard} core {} fsize {} nofile {} env {}",
                one(Resource::As),
                one(Resource::Core),
                one(Resource::Fsize),
                one(Resource::Nofile),
                std::env::vars_os().count(),
            );
        }
        let read = io::stdin().read(into)?;
        self.read += read;
        Ok(read)
    }
}
