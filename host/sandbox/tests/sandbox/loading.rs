//! Loading: what is refused, by what name, and before what.

use std::sync::OnceLock;

use otahost_sandbox::{Limits, LoadError, Sandbox};

use crate::components::{ROGUE, contract, encode, rogue_component};
use crate::step;

fn refused(component: &[u8]) -> LoadError {
    static SANDBOX: OnceLock<Sandbox> = OnceLock::new();
    SANDBOX
        .get_or_init(|| Sandbox::new(Limits::default()).unwrap())
        .load("rogue", component)
        .unwrap_err()
}

/// A core module that parses and does not validate: compiling it fails.
fn invalid(wat: &str) -> String {
    wat.replace(";;FUNCTIONS", "(func $broken (result i32) (i64.const 0))")
}

fn alien_component(wat: &str) -> Vec<u8> {
    let alien = "package test:alien; interface clock { tick: func() -> u64; } \
                 world rogue { include otahost:adapter/update-adapter@0.1.0; import clock; }";
    let wat = wat.replace(
        ";;IMPORTS",
        r#"(import "test:alien/clock" "tick" (func $tick (result i64)))"#,
    );
    encode(&wat, &[&contract(), alien], "rogue")
}

#[test]
fn an_alien_import_is_refused_by_name() {
    let error = refused(&alien_component(ROGUE));
    assert_eq!(
        error,
        LoadError::AlienImport {
            adapter: "rogue".into(),
            import: "test:alien/clock".into()
        }
    );
    assert!(error.to_string().contains("`test:alien/clock`"), "{error}");
}

#[test]
fn imports_are_audited_before_anything_is_compiled() {
    let broken = encode(&invalid(ROGUE), &[&contract()], "update-adapter");
    assert!(
        matches!(refused(&broken), LoadError::Invalid { .. }),
        "the compiler refuses this one"
    );
    let both = alien_component(&invalid(ROGUE));
    assert!(
        matches!(refused(&both), LoadError::AlienImport { .. }),
        "and never sees this one"
    );
}

#[test]
fn a_core_module_is_refused_with_a_hint() {
    let error = refused(&wat::parse_str(ROGUE).unwrap());
    assert!(matches!(error, LoadError::CoreModule { .. }), "{error}");
    assert!(error.to_string().contains("adapter build"), "{error}");
}

#[test]
fn a_file_cut_off_anywhere_is_refused() {
    let whole = rogue_component();
    for length in (0..whole.len()).step_by(whole.len() / 97) {
        let error = refused(&whole[..length]);
        assert!(
            matches!(
                error,
                LoadError::Invalid { .. } | LoadError::Contract { .. }
            ),
            "{length} of {}: {error}",
            whole.len()
        );
    }
    assert!(matches!(refused(b"#!/bin/sh"), LoadError::Invalid { .. }));
}

#[test]
fn a_component_over_the_size_limit_is_not_even_parsed() {
    let limits = Limits {
        component_bytes: 1_000,
        ..Limits::default()
    };
    let error = Sandbox::new(limits)
        .unwrap()
        .load("rogue", rogue_component())
        .unwrap_err();
    assert!(
        matches!(error, LoadError::TooLarge { limit: 1_000, .. }),
        "{error}"
    );
}

#[test]
fn a_component_without_the_adapter_interface_does_not_fit() {
    let wat = r#"(module (import "otahost:adapter/host@0.1.0" "now" (func (result i64))))"#;
    let world = "package test:none; world none { import otahost:adapter/host@0.1.0; }";
    let error = refused(&encode(wat, &[&contract(), world], "none"));
    assert!(
        matches!(&error, LoadError::Contract { reason, .. } if reason.contains("otahost:adapter/adapter")),
        "{error}"
    );
}

#[test]
fn a_later_patch_of_the_contract_runs_unless_it_uses_what_is_new() {
    let later = contract()
        .replace("@0.1.0", "@0.1.7")
        .replace("now: func()", "moon: func() -> u64; now: func()");
    let wat = ROGUE.replace("@0.1.0", "@0.1.7");
    let fits = encode(&wat, &[&later], "update-adapter");
    let adapter = Sandbox::new(Limits::default())
        .unwrap()
        .load("rogue", &fits)
        .unwrap();
    assert_eq!(step(&adapter, "count").state, [1]);

    let uses = wat.replace(
        ";;IMPORTS",
        r#"(import "otahost:adapter/host@0.1.7" "moon" (func (result i64)))"#,
    );
    let error = refused(&encode(&uses, &[&later], "update-adapter"));
    assert_eq!(
        error,
        LoadError::LaterContract {
            adapter: "rogue".into(),
            interface: "otahost:adapter/host@0.1.7".into(),
            item: "moon".into()
        }
    );
}

#[test]
fn another_contract_version_is_refused_as_such() {
    let other = contract().replace("@0.1.0", "@0.2.0");
    let error = refused(&encode(
        &ROGUE.replace("@0.1.0", "@0.2.0"),
        &[&other],
        "update-adapter",
    ));
    assert!(
        matches!(&error, LoadError::OtherContract { interface, .. } if interface.contains("@0.2.0")),
        "{error}"
    );
}

/// A component of this contract text that calls one more function.
fn calls(contract: &str, version: &str, interface: &str, function: &str) -> Vec<u8> {
    let import = format!(
        r#"(import "otahost:adapter/{interface}@{version}" "{function}" (func (result i64)))"#
    );
    let wat = ROGUE
        .replace("@0.1.0", &format!("@{version}"))
        .replace(";;IMPORTS", &import);
    encode(&wat, &[contract], "update-adapter")
}

#[test]
fn a_later_contract_is_refused_with_the_function_it_has_and_we_have_not() {
    let later = contract()
        .replace("@0.1.0", "@0.2.0")
        .replace("now: func()", "moon: func() -> u64; now: func()");
    let error = refused(&calls(&later, "0.2.0", "host", "moon"));
    let LoadError::OtherContract {
        interface, missing, ..
    } = &error
    else {
        panic!("{error}")
    };
    assert_eq!(interface, "otahost:adapter/host@0.2.0");
    assert_eq!(missing, &["moon"], "`now` and the others are there");
    assert!(error.to_string().contains("`moon`"), "{error}");
}

#[test]
fn an_interface_of_a_later_release_is_named_with_what_is_called_there() {
    let later = contract().replace("@0.1.0", "@0.1.7").replace(
        "world update-adapter {",
        "interface weather { rain: func() -> u64; }\nworld update-adapter { import weather;",
    );
    let error = refused(&calls(&later, "0.1.7", "weather", "rain"));
    assert_eq!(
        error,
        LoadError::LaterInterface {
            adapter: "rogue".into(),
            interface: "otahost:adapter/weather@0.1.7".into(),
            functions: vec!["rain".into()],
        }
    );
    assert!(error.to_string().contains("(`rain`)"), "{error}");
}

#[test]
fn a_function_that_is_missing_is_named_before_anything_is_compiled() {
    let later = contract()
        .replace("@0.1.0", "@0.1.7")
        .replace("now: func()", "moon: func() -> u64; now: func()");
    let wat = invalid(ROGUE).replace("@0.1.0", "@0.1.7").replace(
        ";;IMPORTS",
        r#"(import "otahost:adapter/host@0.1.7" "moon" (func (result i64)))"#,
    );
    let error = refused(&encode(&wat, &[&later], "update-adapter"));
    assert!(
        matches!(&error, LoadError::LaterContract { item, .. } if item == "moon"),
        "the compiler would refuse it for its broken function: {error}"
    );
}

#[test]
fn of_several_faults_the_alien_import_is_named() {
    let alien = "package test:alien; interface clock { tick: func() -> u64; } \
                 world rogue { include otahost:adapter/update-adapter@0.2.0; import clock; }";
    let wat = ROGUE.replace("@0.1.0", "@0.2.0").replace(
        ";;IMPORTS",
        r#"(import "test:alien/clock" "tick" (func $tick (result i64)))"#,
    );
    let later = contract().replace("@0.1.0", "@0.2.0");
    let error = refused(&encode(&wat, &[&later, alien], "rogue"));
    assert!(
        matches!(&error, LoadError::AlienImport { import, .. } if import == "test:alien/clock"),
        "{error}"
    );
}

#[test]
fn a_function_of_another_type_does_not_fit() {
    let other = contract().replace("now: func() -> instant", "now: func() -> u32");
    let wat = ROGUE
        .replace(
            r#""now" (func $now (result i64))"#,
            r#""now" (func $now_32 (result i32))"#,
        )
        .replace(
            ";;FUNCTIONS",
            "(func $now (result i64) (i64.extend_i32_u (call $now_32)))",
        );
    let error = refused(&encode(&wat, &[&other], "update-adapter"));
    assert!(
        matches!(&error, LoadError::Contract { reason, .. } if reason.contains("now")),
        "{error}"
    );
}
