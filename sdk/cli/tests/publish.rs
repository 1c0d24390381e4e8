//! Real components, asked what they are and published. Needs a toolchain for WebAssembly, as `build.rs` does.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};

use otahost_adapter_cli::publish::{Publish, PublishError, keygen, publish};
use otahost_adapter_cli::{Request, build};

fn guest(dir: &Path) -> PathBuf {
    let out = dir.join("rogue.wasm");
    let request = Request {
        quiet: true,
        out: Some(out.clone()),
        ..Request::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/guest"))
    };
    build(&request, &mut |_| {}).unwrap_or_else(|e| panic!("{e}"));
    out
}

#[test]
fn a_component_is_published_under_its_files_name_or_another_with_what_it_says_of_itself() {
    let dir = tempfile::tempdir().unwrap();
    let component = guest(dir.path());
    keygen(&dir.path().join("keys")).unwrap();
    let mut request = Publish {
        components: vec![component.clone()],
        ..Publish::new(dir.path().join("repo"), dir.path().join("keys"))
    };
    let done = publish(&request, &mut |_| {}).unwrap_or_else(|e| panic!("{e}"));
    let added = &done.added[0];
    assert_eq!(
        (added.adapter.as_str(), added.version.as_str()),
        ("rogue", "0.1.0")
    );
    assert_eq!(added.protocol, "rogue");
    assert_eq!(added.contract, "otahost:adapter/update-adapter@0.1.0");
    assert_eq!(added.size, std::fs::metadata(&component).unwrap().len());

    request.name = Some("other".into());
    let done = publish(&request, &mut |_| {}).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((done.added[0].adapter.as_str(), done.offered), ("other", 2));

    // The same adapter with another byte in it: a custom section, which changes nothing but the content.
    let mut bytes = std::fs::read(&component).unwrap();
    bytes.extend_from_slice(&[0, 2, 1, b'x']);
    std::fs::write(&component, bytes).unwrap();
    request.name = None;
    let error = publish(&request, &mut |_| {}).unwrap_err();
    assert!(
        matches!(error, PublishError::OtherContent { .. }),
        "{error}"
    );
}

#[test]
fn what_no_device_would_run_is_not_published() {
    let dir = tempfile::tempdir().unwrap();
    keygen(&dir.path().join("keys")).unwrap();
    let file = dir.path().join("dji.wasm");
    let mut request = Publish {
        components: vec![file.clone()],
        ..Publish::new(dir.path().join("repo"), dir.path().join("keys"))
    };
    // An empty component, a bare module, and no WebAssembly at all.
    for bytes in [b"\0asm\x0d\0\x01\0".as_slice(), b"\0asm\x01\0\0\0", b"MZ"] {
        std::fs::write(&file, bytes).unwrap();
        let error = publish(&request, &mut |_| {}).unwrap_err();
        assert!(matches!(error, PublishError::Component { .. }), "{error}");
        assert_eq!(error.exit_code(), 7);
    }
    std::fs::remove_file(&file).unwrap();
    let error = publish(&request, &mut |_| {}).unwrap_err();
    assert!(matches!(error, PublishError::Machine { .. }), "{error}");
    request.components = vec![file.clone(), file];
    request.name = Some("dji".into());
    let error = publish(&request, &mut |_| {}).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(!dir.path().join("repo").exists());
}

#[test]
fn a_name_that_is_no_adapters_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let component = guest(dir.path());
    keygen(&dir.path().join("keys")).unwrap();
    for name in ["../evil", "a b", "", ".hidden"] {
        let request = Publish {
            components: vec![component.clone()],
            name: Some(name.into()),
            ..Publish::new(dir.path().join("repo"), dir.path().join("keys"))
        };
        let error = publish(&request, &mut |_| {}).unwrap_err();
        assert!(
            matches!(error, PublishError::Component { .. }),
            "{name}: {error}"
        );
    }
}
