//! What only the inside of the cache can set up: files of other engines.

#![allow(clippy::unwrap_used, reason = "tests")]

use otahost_disk::sim::SimDisk;

use super::*;
use crate::Limits;
use crate::test_components::rogue_component;

/// Native code of the rogue, with this changed, in a file that is sound in itself.
fn disk_with(
    change: impl Fn(&mut Compiled),
    named_after: impl Fn(&Compiled) -> EngineId,
) -> SimDisk {
    let sandbox = Sandbox::new(Limits::default()).unwrap();
    let mut compiled = sandbox.compile("rogue", rogue_component()).unwrap();
    change(&mut compiled);
    let component = sha256(rogue_component());
    let header = Header::of(1, component, "47.1.2", &compiled);
    let mut file = header.to_bytes();
    file.extend(&compiled.code);
    let disk = SimDisk::new();
    let name = Key::new(component, named_after(&compiled)).file_name();
    disk.write_outside(&Place::data("native").join(name), &file);
    disk
}

fn why(disk: &SimDisk) -> Why {
    let sandbox = Sandbox::new(Limits::default()).unwrap();
    let open = || {
        Cache::open(
            Arc::new(disk.clone()),
            Place::data("native"),
            Bounds::default(),
        )
        .unwrap()
    };
    let loaded = open()
        .load(&sandbox, "rogue", rogue_component(), Compile::Here)
        .unwrap();
    let How::Compiled { why } = loaded.how else {
        panic!("it was used")
    };
    let again = open()
        .load(&sandbox, "rogue", rogue_component(), Compile::Here)
        .unwrap();
    assert_eq!(again.how, How::Cached, "it was replaced");
    why
}

fn ours() -> EngineId {
    Sandbox::new(Limits::default()).unwrap().shared.id
}

#[test]
fn code_of_another_engine_or_processor_is_never_used_whatever_its_name() {
    // The code itself is sound: only what the header says keeps it out.
    let beside = disk_with(
        |compiled| compiled.engine[0] ^= 1,
        |compiled| compiled.engine,
    );
    assert_eq!(why(&beside), Why::OtherEngine("47.1.2".into()));
    let files = beside.list(&Place::data("native")).unwrap();
    assert_eq!(
        files.len(),
        2,
        "the other engine may come back and finds its own: {files:?}"
    );

    let in_our_name = disk_with(|compiled| compiled.engine[0] ^= 1, |_| ours());
    assert_eq!(why(&in_our_name), Why::OtherEngine("47.1.2".into()));
    let same_start = disk_with(
        |compiled| compiled.engine[31] ^= 1,
        |compiled| compiled.engine,
    );
    assert_eq!(
        why(&same_start),
        Why::OtherEngine("47.1.2".into()),
        "the name has not the whole id"
    );
}

#[test]
fn code_that_the_engine_refuses_is_replaced() {
    let junk = disk_with(
        |compiled| compiled.code = b"\x7fELF and nothing more".to_vec(),
        |_| ours(),
    );
    assert!(matches!(why(&junk), Why::Refused(_)));
}

#[test]
fn code_of_another_engine_is_refused_when_it_is_loaded() {
    let sandbox = Sandbox::new(Limits::default()).unwrap();
    let mut compiled = sandbox.compile("rogue", rogue_component()).unwrap();
    compiled.engine[5] ^= 1;
    let error = sandbox.load_compiled("rogue", &compiled).unwrap_err();
    assert!(matches!(&error, LoadError::Code { .. }), "{error}");
    assert!(
        error.to_string().contains("compile the component again"),
        "{error}"
    );
}
