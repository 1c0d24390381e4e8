//! Work on what may make a library panic, in processes of their own where a panic cannot be caught.
//!
//! A panic in a decoder is the archive's fault, and one on a damaged journal costs a row. A build with `panic = "abort"` (`slim`) would end
//! with either, and again after every start.

use std::io::{Write, stdin, stdout};

use crate::exit::Exit;

/// The hidden commands.
pub(super) const UNPACK_CHILD: &str = "unpack-child";
pub(super) const SALVAGE_CHILD: &str = "salvage-child";

/// Has such work done by processes, in a build that needs it.
pub(super) fn begin() {
    if cfg!(panic = "abort") {
        const SELF: &str = "/proc/self/exe";
        otahost_flash::archive::unpack_in_child([SELF, UNPACK_CHILD].map(str::to_owned).into());
        otahost_journal::salvage_in_children([SELF, SALVAGE_CHILD].map(Into::into).into());
    }
}

/// All of the process that unpacks.
pub(super) fn unpack(arguments: &[String]) -> Exit {
    let say = |line: &str| {
        // An agent that does not listen is gone, and this process with it.
        let _ = writeln!(stdout(), "{line}");
    };
    exit(otahost_flash::archive::child_main(arguments, &say))
}

/// All of the process that reads a damaged journal.
pub(super) fn salvage(from: usize) -> Exit {
    exit(otahost_journal::salvage_child(from, stdin().lock(), stdout()).is_ok())
}

fn exit(done: bool) -> Exit {
    if done { Exit::Ok } else { Exit::Failure }
}
