//! Components made for the tests.
#![allow(
    clippy::unwrap_used,
    dead_code,
    reason = "tests; not every one needs all"
)]

use std::path::Path;
use std::sync::OnceLock;

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// The guest that misbehaves on command.
pub(crate) const ROGUE: &str = include_str!("rogue.wat");

pub(crate) fn contract() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit/update-adapter.wit");
    std::fs::read_to_string(path).unwrap()
}

/// Encodes a core module as a component of a world of this WIT text.
pub(crate) fn encode(wat: &str, packages: &[&str], world: &str) -> Vec<u8> {
    let mut module = wat::parse_str(wat).unwrap();
    let mut resolve = Resolve::default();
    let mut last = None;
    for (i, package) in packages.iter().enumerate() {
        last = Some(resolve.push_str(format!("{i}.wit"), package).unwrap());
    }
    let world = resolve.select_world(&[last.unwrap()], Some(world)).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    // Not validated: some of these are broken on purpose, and telling so is the sandbox's task.
    ComponentEncoder::default()
        .module(&module)
        .unwrap()
        .validate(false)
        .encode()
        .unwrap()
}

pub(crate) fn rogue_component() -> &'static [u8] {
    static COMPONENT: OnceLock<Vec<u8>> = OnceLock::new();
    COMPONENT.get_or_init(|| encode(ROGUE, &[&contract()], "update-adapter"))
}

/// Another build of the rogue: the same but for this text.
pub(crate) fn rogue_but(from: &str, to: &str) -> Vec<u8> {
    assert!(ROGUE.contains(from), "{from}");
    encode(&ROGUE.replace(from, to), &[&contract()], "update-adapter")
}

/// A rogue with so many more functions of so many additions each.
pub(crate) fn bloated(functions: usize, additions: usize) -> Vec<u8> {
    let work = "(i32.add (i32.const 7))".repeat(additions);
    let work = work.replace(
        "(i32.add (i32.const 7))",
        "i32.const 7 i32.add local.get 0 i32.xor ",
    );
    let function = format!("(func (param i32) (result i32) local.get 0 {work})\n");
    rogue_but(";;FUNCTIONS", &function.repeat(functions))
}
