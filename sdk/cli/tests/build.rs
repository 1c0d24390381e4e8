//! The whole way, on a real adapter and on wrong projects. Needs a toolchain for WebAssembly: without one the first test fails
//! with the words that say what to install.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};

use otahost_adapter_cli::{Error, Request, build};

fn guest() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/guest")
}

fn crate_in(dir: &Path, manifest: &str, source: &str) {
    std::fs::create_dir_all(dir.join("src")).unwrap();
    std::fs::write(dir.join("Cargo.toml"), manifest).unwrap();
    std::fs::write(dir.join("src/lib.rs"), source).unwrap();
}

#[test]
fn an_adapter_becomes_a_component_that_imports_the_contract_alone_and_a_second_build_gives_the_same_bytes()
 {
    let out = tempfile::tempdir().unwrap();
    let mut lines = Vec::new();
    let mut request = Request {
        quiet: true,
        ..Request::new(guest())
    };
    let first =
        build(&request, &mut |line| lines.push(line.to_owned())).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(first.adapter, "rogue");
    assert!(!first.imports.is_empty());
    assert!(
        first
            .imports
            .iter()
            .all(|name| name.starts_with("otahost:adapter/")),
        "{:?}",
        first.imports
    );
    assert_eq!(first.exports, ["otahost:adapter/adapter@0.1.0"]);
    assert!(
        first.component.ends_with("adapters/rogue.wasm"),
        "{:?}",
        first.component
    );
    assert!(
        lines
            .iter()
            .any(|line| line == &format!("toolchain: {}", first.toolchain)),
        "{lines:?}"
    );
    let bytes = std::fs::read(&first.component).unwrap();
    assert_eq!(bytes.len() as u64, first.size);
    // A component says so in its header; a host refuses a bare module.
    assert_eq!(&bytes[..8], b"\0asm\x0d\0\x01\0");

    request.out = Some(out.path().join("again.wasm"));
    let second = build(&request, &mut |_| {}).unwrap();
    assert_eq!(second.component, out.path().join("again.wasm"));
    assert_eq!(second.digest, first.digest);
}

#[test]
fn a_component_holds_no_folder_of_the_machine_that_built_it() {
    let built = build(
        &Request {
            quiet: true,
            ..Request::new(guest())
        },
        &mut |_| {},
    )
    .unwrap_or_else(|e| panic!("{e}"));
    let bytes = std::fs::read(&built.component).unwrap();
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .unwrap();
    let home = std::env::var("HOME").unwrap();
    for folder in [workspace.to_str().unwrap(), &format!("{home}/.cargo")] {
        assert!(
            !bytes
                .windows(folder.len())
                .any(|window| window == folder.as_bytes()),
            "{folder} is in the component"
        );
    }
}

#[test]
fn a_folder_without_a_manifest_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let error = build(&Request::new(dir.path()), &mut |_| {}).unwrap_err();
    assert!(matches!(error, Error::NoManifest(_)), "{error}");
    assert_eq!(error.exit_code(), 3);
}

#[test]
fn a_broken_manifest_is_told_in_cargos_words() {
    let dir = tempfile::tempdir().unwrap();
    crate_in(dir.path(), "[package]\nname = \n", "");
    let error = build(&Request::new(dir.path()), &mut |_| {}).unwrap_err();
    assert!(matches!(error, Error::BadManifest { .. }), "{error}");
}

#[test]
fn a_crate_that_is_no_cdylib_is_told_what_to_add() {
    let dir = tempfile::tempdir().unwrap();
    crate_in(
        dir.path(),
        "[package]\nname = \"plain\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n",
        "",
    );
    let error = build(&Request::new(dir.path()), &mut |_| {}).unwrap_err();
    assert!(
        matches!(&error, Error::NotCdylib { name, .. } if name == "plain"),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains("crate-type = [\"rlib\", \"cdylib\"]"),
        "{error}"
    );
}

#[test]
fn a_workspace_is_told_its_adapters() {
    let error = build(&Request::new(guest().join("../..")), &mut |_| {}).unwrap_err();
    let Error::Workspace { adapters, .. } = &error else {
        panic!("{error}")
    };
    assert!(
        adapters
            .iter()
            .any(|folder| folder.ends_with("tests/guest")),
        "{adapters:?}"
    );
    assert!(
        !adapters
            .iter()
            .any(|folder| folder.ends_with("sdk/adapter")),
        "{adapters:?}"
    );
}
