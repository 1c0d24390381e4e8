//! Signed native code: what is run, and what each refusal says.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::OnceLock;

use aws_lc_rs::digest::{SHA256, digest};
use minisign::KeyPair;

use super::*;
use crate::sandbox::{config, hex};
use crate::test_components::{contract, encode, rogue_component};
use crate::{Adapter, Limits};

struct Signer(KeyPair);

impl Signer {
    fn new() -> Signer {
        Signer(KeyPair::generate_unencrypted_keypair().unwrap())
    }

    fn key(&self) -> String {
        self.0.pk.to_base64()
    }

    fn sign(&self, file: &[u8]) -> String {
        let signed = minisign::sign(Some(&self.0.pk), &self.0.sk, file, Some("version=1"), None);
        signed.unwrap().into_string()
    }
}

fn sandbox() -> Sandbox {
    Sandbox::new(Limits::default()).unwrap()
}

/// The rogue for this processor.
fn file() -> &'static [u8] {
    static FILE: OnceLock<Vec<u8>> = OnceLock::new();
    FILE.get_or_init(|| precompile("rogue", rogue_component(), Target::host()).unwrap())
}

/// Loads what is signed by somebody who is trusted.
fn load(file: &[u8]) -> Result<Loaded, LoadError> {
    let signer = Signer::new();
    let signers = Signers::new(&[Signer::new().key(), signer.key()]);
    sandbox().load_signed("rogue", file, &signer.sign(file), &signers)
}

fn fault(result: Result<Loaded, LoadError>) -> CodeFault {
    match result {
        Err(LoadError::Precompiled { adapter, fault }) => {
            assert_eq!(adapter, "rogue");
            fault
        }
        Err(other) => panic!("{other}"),
        Ok(loaded) => panic!("{loaded:?}"),
    }
}

/// The file with another head, which is well made.
fn with(change: impl FnOnce(&mut Head)) -> Vec<u8> {
    let (mut head, code) = Head::split(file()).unwrap();
    change(&mut head);
    head.join(code)
}

fn works(adapter: &Adapter) {
    assert_eq!(adapter.describe().unwrap().version, "0.0.1");
    assert_eq!(
        adapter.digest(),
        format!(
            "sha256:{}",
            hex(digest(&SHA256, rogue_component()).as_ref())
        ),
        "the adapter is known by its component"
    );
}

#[test]
fn code_that_was_made_elsewhere_runs_when_a_trusted_key_signed_it() {
    let loaded = load(file()).unwrap();
    works(&loaded.adapter);
    assert!(matches!(loaded.how, How::Signed { target, .. } if target == Target::host()));
    assert!(is_precompiled(file()));
    assert_eq!(precompiled_from(file()).unwrap(), loaded.adapter.digest());
}

#[test]
#[cfg(feature = "interpreter")]
fn code_for_the_interpreter_does_the_same_as_native_code_with_the_same_fuel() {
    let interpreted = precompile("rogue", rogue_component(), Target::Pulley64).unwrap();
    let loaded = load(&interpreted).unwrap();
    works(&loaded.adapter);
    assert!(matches!(
        loaded.how,
        How::Signed {
            target: Target::Pulley64,
            ..
        }
    ));
    let native = load(file()).unwrap().adapter;
    let describe = |adapter: &Adapter| adapter.migrate(1, b"state").map_err(|e| e.fuel);
    assert_eq!(describe(&loaded.adapter), describe(&native));
}

#[test]
fn code_that_nobody_trusted_signed_is_never_run() {
    let (signer, other) = (Signer::new(), Signer::new());
    let load = |file: &[u8], signature: &str, keys: &[String]| {
        fault(sandbox().load_signed("rogue", file, signature, &Signers::new(keys)))
    };
    let signature = signer.sign(file());
    let nobody = load(file(), &signature, &[]);
    assert!(matches!(nobody, CodeFault::NoSigners(_)), "{nobody}");
    let stranger = load(file(), &signature, &[other.key()]);
    assert!(matches!(stranger, CodeFault::Stranger(_)), "{stranger}");
    let nonsense = load(file(), "untrusted comment: x\n\n", &[signer.key()]);
    assert_eq!(nonsense, CodeFault::NoSignature);
    // A word that is no key signs nothing.
    let no_key = load(file(), &signature, &["RWQ".into()]);
    assert!(matches!(no_key, CodeFault::NoSigners(_)), "{no_key}");
    for at in [0, 15, 18, 60, file().len() / 2, file().len() - 1] {
        let mut changed = file().to_vec();
        changed[at] ^= 1;
        let fault = load(&changed, &signature, &[signer.key()]);
        assert!(
            matches!(fault, CodeFault::Signature(_)),
            "byte {at}: {fault}"
        );
        let fault = load(&file()[..at], &signature, &[signer.key()]);
        assert!(
            matches!(fault, CodeFault::Signature(_)),
            "cut at {at}: {fault}"
        );
    }
}

#[test]
fn signed_code_for_another_engine_or_processor_is_refused_with_what_to_do() {
    let other = fault(load(&with(|head| head.engine = "47.0.1".into())));
    let text = other.to_string();
    assert!(
        text.contains("wasmtime 47.0.1, and this otahost has wasmtime"),
        "{text}"
    );
    let other = fault(load(&with(|head| head.settings += 1)));
    assert_eq!(other, CodeFault::OtherSettings);
    let elsewhere = if Target::host() == Target::X86_64 {
        "aarch64"
    } else {
        "x86_64"
    };
    let other = fault(load(&with(|head| head.target = elsewhere.into())));
    let text = other.to_string();
    assert!(text.contains(&format!("made for {elsewhere}")), "{text}");
    assert!(
        text.contains(&format!("--for {}", Target::host())),
        "{text}"
    );
    // A head that lies about what follows: the engine itself looks once more.
    let other = fault(load(&with(|head| head.target = "pulley64".into())));
    let by_engine = matches!(other, CodeFault::Refused(_)) == cfg!(feature = "interpreter");
    assert!(by_engine, "{other}");
}

#[test]
fn what_is_signed_and_no_code_is_refused() {
    let component = rogue_component();
    assert_eq!(fault(load(component)), CodeFault::NotCode);
    let mut later = file().to_vec();
    later[15] += 1;
    let text = fault(load(&later)).to_string();
    assert!(
        text.contains("a form that this release does not know"),
        "{text}"
    );
    for length in 0..400 {
        let fault = fault(load(&file()[..length]));
        assert!(
            matches!(fault, CodeFault::NotCode | CodeFault::Form(_)),
            "{length}: {fault}"
        );
    }
    let digest = fault(load(&with(|head| head.component = "sha256:x".into())));
    assert!(matches!(digest, CodeFault::Form(_)), "{digest}");
    // Whole, and no code of the engine's.
    let (head, _) = Head::split(file()).unwrap();
    let target = Target::host().word().into();
    let junk = b"\x7fELF and nothing more";
    let head = Head::of(head.component, head.engine, SETTINGS, target, junk);
    let fault = fault(load(&head.join(junk)));
    assert!(matches!(fault, CodeFault::Refused(_)), "{fault}");
}

#[test]
fn what_is_no_adapter_is_refused_before_anything_is_made_of_it() {
    let alien = "package a:b; interface c { f: func(); } world w { import c; }";
    let component = encode(r#"(module (import "a:b/c" "f" (func)))"#, &[alien], "w");
    let error = precompile("alien", &component, Target::host()).unwrap_err();
    assert!(matches!(error, LoadError::AlienImport { .. }), "{error}");
    assert!(contract().contains("update-adapter"));
}

#[test]
#[cfg(not(feature = "cross"))]
fn a_processor_that_this_build_makes_no_code_for_is_named() {
    let other = match Target::host() {
        Target::X86_64 => Target::Aarch64,
        _ => Target::X86_64,
    };
    let error = precompile("rogue", rogue_component(), other).unwrap_err();
    assert!(error.to_string().contains("--features cross"), "{error}");
}

#[test]
#[cfg(feature = "cross")]
fn code_is_made_for_every_target() {
    for target in Target::ALL {
        let file = precompile("rogue", rogue_component(), target).unwrap();
        assert_eq!(Head::split(&file).unwrap().0.target, target.word());
    }
}

#[test]
fn a_target_is_named_by_its_word_or_a_triple() {
    for target in Target::ALL {
        assert_eq!(Target::parse(target.word()), Some(target));
        assert_eq!(Target::parse(target.triple()), Some(target));
    }
    assert_eq!(
        Target::parse("aarch64-unknown-linux-musl"),
        Some(Target::Aarch64)
    );
    assert_eq!(Target::parse("riscv64"), None);
    assert_eq!(Target::parse(""), None);
}

/// Whoever changes what the engine makes of a component raises [`SETTINGS`], and then writes the new digest here.
#[test]
#[cfg(target_arch = "x86_64")]
fn other_settings_have_another_number() {
    let mut config = config(&Limits::default());
    config.target("x86_64-unknown-linux-gnu").unwrap();
    let text = format!("{config:?}");
    let found = (
        SETTINGS,
        hex(&digest(&SHA256, text.as_bytes()).as_ref()[..8]),
    );
    assert_eq!(found, (1, "de4e23f5dd20f56f".into()), "{text}");
}
