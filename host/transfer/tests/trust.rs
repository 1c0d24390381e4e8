//! Whose artifacts are taken, and which of theirs: by header and by sidecar, from the start and on a resume.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::sync::OnceLock;
use std::sync::atomic::Ordering;

use minisign::KeyPair;
use otahost_disk::Seam;
use otahost_transfer::{
    Checkpoint, Claims, Failure, Request, SIDECAR_MAX, SourceError, Trust, TrustKeys,
};
use proptest::prelude::*;
use support::*;

/// One piece of what these sources give.
const PIECE: usize = 512;

fn pair() -> &'static KeyPair {
    static PAIR: OnceLock<KeyPair> = OnceLock::new();
    PAIR.get_or_init(keys)
}

/// Where the signature is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Header,
    Sidecar,
}

const FORMS: [Form; 2] = [Form::Header, Form::Sidecar];

impl Form {
    /// The file, and what lies beside it.
    fn sign(self, by: &KeyPair, payload: &[u8], claims: &Claims) -> (Vec<u8>, Option<String>) {
        match self {
            Form::Header => (signed_as(by, payload, claims), None),
            Form::Sidecar => (payload.to_vec(), Some(signature(by, payload, claims))),
        }
    }

    /// Bytes that may be fetched before a refusal.
    fn bound(self) -> u64 {
        match self {
            Form::Header => 4096,
            Form::Sidecar => PIECE as u64,
        }
    }
}

fn opening(file: &[u8]) -> Opening {
    Opening {
        piece: PIECE,
        ..Opening::of(file)
    }
}

fn script(openings: impl Into<Vec<Opening>>, beside: Option<String>) -> Script {
    Script {
        beside: Ok(beside),
        ..Script::new(openings)
    }
}

fn says(compatible: Option<&str>, index: Option<u64>) -> Claims {
    Claims {
        compatible: compatible.map(str::to_owned),
        version: Some("2.0".into()),
        rollback_index: index,
    }
}

fn wants(compatible: Option<&str>, min: u64) -> Request {
    Request {
        compatible: compatible.map(str::to_owned),
        min_rollback_index: min,
        ..request(trust(pair()))
    }
}

#[test]
fn another_devices_and_older_files_are_refused_before_the_payload_comes() {
    const DOCK: Option<&str> = Some("evonest-dock");
    let payload = content(50_000, 1);
    for (compatible, index, wanted, min, outcome) in [
        (None, None, None, 0, Ok(())),
        (DOCK, Some(7), None, 0, Ok(())),
        (DOCK, None, DOCK, 0, Ok(())),
        (DOCK, Some(0), DOCK, 0, Ok(())),
        (DOCK, Some(7), DOCK, 7, Ok(())),
        (DOCK, Some(8), DOCK, 7, Ok(())),
        (DOCK, Some(u64::MAX), DOCK, u64::MAX, Ok(())),
        (None, Some(7), DOCK, 0, Err("compatible")),
        (Some("evonest-dock2"), Some(7), DOCK, 0, Err("compatible")),
        (Some("evonest"), Some(7), DOCK, 0, Err("compatible")),
        (Some("Evonest-Dock"), Some(7), DOCK, 0, Err("compatible")),
        (Some("evonest-dock "), Some(7), DOCK, 0, Err("compatible")),
        (DOCK, Some(6), DOCK, 7, Err("rollback-index")),
        (DOCK, Some(0), None, 1, Err("rollback-index")),
        (DOCK, None, DOCK, 1, Err("rollback-index")),
        (DOCK, None, None, u64::MAX, Err("rollback-index")),
        // Both: which device it is for comes first.
        (None, None, DOCK, 7, Err("compatible")),
    ] {
        for form in FORMS {
            let claims = says(compatible, index);
            let (file, beside) = form.sign(pair(), &payload, &claims);
            both(|bench| {
                let (file, claims, payload) = (&file, &claims, &payload);
                let source = script([opening(file)], beside.clone());
                async move {
                    let done = bench.attempt(&source, &wants(wanted, min)).await;
                    let failure = match (done, outcome) {
                        (Ok(done), Ok(())) => {
                            assert_eq!(done.claims.as_ref(), Some(claims));
                            assert_eq!(bench.staged(), *payload);
                            return;
                        }
                        (Err(failure), Err(code)) => {
                            assert_eq!(failure.reason().code, code, "{failure}");
                            failure
                        }
                        (done, _) => panic!("{form:?} {claims:?} {wanted:?} {min}: {done:?}"),
                    };
                    assert_eq!(failure.reason().stage, "verify");
                    assert!(failure.is_final() && !failure.wants_clean_retry());
                    assert!(
                        source.served() <= form.bound(),
                        "{} bytes were fetched",
                        source.served()
                    );
                    assert_eq!(bench.medium.writes.load(Ordering::SeqCst), 0);
                    assert_eq!(bench.memory.last(), Checkpoint::default());
                }
            });
        }
    }
}

#[test]
fn a_refusal_says_what_was_found_and_what_is_wanted() {
    let payload = content(5000, 1);
    for (claims, wants, words) in [
        (
            says(Some("axis"), None),
            wants(Some("dock"), 0),
            ["\"axis\"", "\"dock\""],
        ),
        (
            says(None, None),
            wants(Some("dock"), 0),
            ["without `compatible`", "\"dock\""],
        ),
        (
            says(None, Some(6)),
            wants(None, 7),
            ["rollback index 6", "below 7"],
        ),
        (
            says(None, None),
            wants(None, 7),
            ["without `rollback-index`", "below 7"],
        ),
    ] {
        let (file, beside) = Form::Sidecar.sign(pair(), &payload, &claims);
        run(async {
            let source = script([opening(&file)], beside);
            let failure = Bench::new(Seam::Inline)
                .attempt(&source, &wants)
                .await
                .unwrap_err();
            let text = failure.reason().text;
            assert!(words.iter().all(|word| text.contains(word)), "{text}");
        });
    }
}

#[test]
fn a_target_that_trusts_anybody_looks_at_no_claim_and_no_sidecar() {
    let payload = content(3000, 1);
    for form in FORMS {
        let (file, beside) = form.sign(&keys(), &payload, &says(Some("axis"), Some(1)));
        both(|bench| {
            let source = script([opening(&file)], beside.clone());
            let payload = &payload;
            async move {
                let request = Request {
                    trust: Trust::Unsigned,
                    ..wants(Some("dock"), 7)
                };
                let done = bench.attempt(&source, &request).await.unwrap();
                assert_eq!(bench.staged(), *payload);
                assert_eq!(done.claims.is_some(), form == Form::Header);
                assert_eq!(source.besides(), 0);
            }
        });
    }
}

#[test]
fn a_target_that_came_to_trust_anybody_goes_on_and_claims_nothing_from_a_sidecar() {
    let payload = content(3000, 1);
    let (file, beside) = Form::Sidecar.sign(pair(), &payload, &says(Some("axis"), Some(1)));
    both(|bench| {
        let openings = [opening(&file).end(End::BreakAt(2000)), opening(&file)];
        let source = script(openings, beside.clone());
        let payload = &payload;
        async move {
            bench.attempt(&source, &wants(None, 0)).await.unwrap_err();
            let now = Request {
                trust: Trust::Unsigned,
                version: Some("2.1".into()),
                ..wants(Some("dock"), 7)
            };
            let done = bench.attempt(&source, &now).await.unwrap();
            assert_eq!((done.resumed_from, done.claims), (2000, None));
            assert_eq!(bench.staged(), *payload);
        }
    });
}

#[test]
fn a_resume_is_judged_by_what_the_target_wants_now() {
    let payload = content(50_000, 1);
    let claims = says(Some("dock"), Some(6));
    // Broken off half way, and with everything here.
    for (form, end) in [
        (Form::Header, End::BreakAt(30_000)),
        (Form::Header, End::Whole),
        (Form::Sidecar, End::BreakAt(30_000)),
        (Form::Sidecar, End::Whole),
    ] {
        let (file, beside) = form.sign(pair(), &payload, &claims);
        for (now, code) in [
            (wants(Some("axis"), 6), "compatible"),
            (wants(Some("dock"), 7), "rollback-index"),
            (
                Request {
                    version: Some("2.1".into()),
                    ..wants(None, 0)
                },
                "version-mismatch",
            ),
        ] {
            both(|bench| {
                let source = script([opening(&file).end(end), opening(&file)], beside.clone());
                let now = &now;
                async move {
                    let first = bench.attempt(&source, &wants(Some("dock"), 6)).await;
                    assert_eq!(first.is_ok(), end == End::Whole);
                    assert!(bench.memory.last().received >= 30_000);
                    let (served, writes) =
                        (source.served(), bench.medium.writes.load(Ordering::SeqCst));
                    let failure = bench.attempt(&source, now).await.unwrap_err();
                    assert_eq!(failure.reason().code, code, "{failure}");
                    assert!(failure.is_final());
                    assert!(source.served() - served <= form.bound());
                    assert_eq!(bench.medium.writes.load(Ordering::SeqCst), writes);
                }
            });
        }
    }
}

#[test]
fn a_file_is_trusted_for_the_signature_beside_it() {
    for len in [0, 1, 64, 4095, 4096, 4097, 5000] {
        let payload = content(len, 1);
        let text = signature(pair(), &payload, &claims("2.0"));
        both(|bench| {
            let (payload, text) = (&payload, &text);
            async move {
                for announced in [Some(len as u64), None] {
                    let source = Script::new([Opening {
                        announced,
                        ..opening(payload)
                    }])
                    .beside(text);
                    let request = Request {
                        digests: vec![md5(payload), sha256(payload)],
                        version: Some("2.0".into()),
                        ..wants(Some("evonest-dock"), 7)
                    };
                    let done = bench
                        .attempt_from(&source, &request, Checkpoint::default())
                        .await
                        .unwrap();
                    assert_eq!(bench.staged(), *payload);
                    assert_eq!(done.claims, Some(claims("2.0")));
                    assert_eq!(done.payload_sha256, hex(sha256(payload)));
                    assert_eq!(done.sha256.as_ref(), Some(&done.payload_sha256));
                    assert_eq!((done.size, done.payload_len), (len as u64, len as u64));
                    assert_eq!(source.besides(), 1);
                }
            }
        });
    }
}

#[test]
fn a_header_counts_more_than_what_lies_beside_the_file() {
    let payload = content(3000, 1);
    let file = signed(pair(), &payload, "2.0");
    both(|bench| {
        let source = Script::new([opening(&file)]).beside("junk");
        async move {
            bench.attempt(&source, &wants(None, 0)).await.unwrap();
            assert_eq!(source.besides(), 0);
        }
    });
    // A damaged header is not saved by a signature beside it.
    let mut garbled = file.clone();
    garbled[4000] = 1;
    let text = signature(pair(), &garbled, &claims("2.0"));
    run(async {
        let source = Script::new([opening(&garbled)]).beside(text);
        let failure = Bench::new(Seam::Inline)
            .attempt(&source, &wants(None, 0))
            .await
            .unwrap_err();
        assert!(matches!(failure, Failure::Header(_)), "{failure:?}");
    });
}

#[test]
fn a_sidecar_that_proves_nothing_is_refused_before_the_payload_comes() {
    let payload = content(50_000, 1);
    let good = signature(pair(), &payload, &claims("2.0"));
    let status = |status| {
        Err(SourceError::Status {
            status,
            headers: Vec::new(),
            body: Vec::new(),
            text: "no".into(),
        })
    };
    let lost = || Err(SourceError::Broken("no".into()));
    let theirs = signature(&keys(), &payload, &claims("2.0"));
    let forged = good.replace("version=2.0", "version=2.1");
    let large = good.replacen("signature from", &"x".repeat(SIDECAR_MAX), 1);
    for (beside, code, last) in [
        (Ok(None), "unsigned", true),
        (Ok(Some(theirs)), "signature", true),
        (Ok(Some(forged)), "signature", true),
        (Ok(Some(large)), "signature", true),
        (Ok(Some(String::new())), "signature", true),
        (Ok(Some("<html></html>\n".into())), "signature", true),
        (Ok(Some(good.replace("\nRU", "\nRW"))), "signature", true),
        (
            Ok(Some(good[..good.len() - 9].to_owned())),
            "signature",
            true,
        ),
        (lost(), "source-lost", false),
        (status(503), "source-refused", false),
        (status(401), "source-refused", true),
    ] {
        both(|bench| {
            let source = Script {
                beside: beside.clone(),
                ..Script::new([opening(&payload)])
            };
            async move {
                let request = Request {
                    version: Some("2.0".into()),
                    ..wants(Some("evonest-dock"), 7)
                };
                let failure = bench.attempt(&source, &request).await.unwrap_err();
                assert_eq!(failure.reason().code, code, "{failure:?}");
                assert_eq!(failure.is_final(), last, "{failure:?}");
                assert!(source.served() <= PIECE as u64);
                assert_eq!(source.besides(), 1);
                assert_eq!(bench.medium.writes.load(Ordering::SeqCst), 0);
            }
        });
    }
}

#[test]
fn content_that_the_sidecar_does_not_sign_is_refused_in_the_end() {
    let payload = content(5000, 1);
    let text = signature(pair(), &content(5000, 2), &claims("2.0"));
    both(|bench| {
        let source = Script::new([opening(&payload)]).beside(&text);
        async move {
            let failure = bench.attempt(&source, &wants(None, 0)).await.unwrap_err();
            let Failure::Signature { resumed, key } = &failure else {
                panic!("{failure:?}")
            };
            assert!(!resumed && failure.is_final());
            assert!(
                TrustKeys::parse(&[pair().pk.to_base64()])
                    .unwrap()
                    .ids()
                    .contains(key)
            );
            assert_eq!(bench.memory.last(), Checkpoint::default());
        }
    });
}

#[test]
fn a_resume_does_not_need_the_sidecar_again() {
    let payload = content(5000, 1);
    let text = signature(pair(), &payload, &claims("2.0"));
    both(|bench| {
        let cuts = [1, 700, 4096, 4999];
        let mut openings: Vec<_> = cuts
            .iter()
            .map(|at| opening(&payload).end(End::BreakAt(*at)))
            .collect();
        openings.push(opening(&payload));
        let mut source = Script::new(openings).beside(&text);
        let payload = &payload;
        async move {
            for _ in cuts {
                let failure = bench
                    .attempt(&source, &wants(Some("evonest-dock"), 7))
                    .await
                    .unwrap_err();
                assert_eq!(failure.reason().code, "source-lost", "{failure:?}");
                // It is gone from the server in the meantime.
                source.beside = Ok(None);
            }
            let done = bench
                .attempt(&source, &wants(Some("evonest-dock"), 7))
                .await
                .unwrap();
            assert_eq!(source.besides(), 1);
            assert_eq!(source.asked(), [0, 1, 700, 4096, 4999]);
            assert_eq!(source.served(), 5000, "nothing is fetched twice");
            assert_eq!(done.claims, Some(claims("2.0")));
            assert_eq!(bench.staged(), *payload);
            // Nor when everything is here, nor by an agent that was restarted.
            let kept = serde_json::to_string(&bench.memory.last()).unwrap();
            let kept = serde_json::from_str(&kept).unwrap();
            let again = bench
                .attempt_from(&source, &wants(Some("evonest-dock"), 7), kept)
                .await
                .unwrap();
            assert_eq!((again.fetched, source.besides()), (0, 1));
            assert_eq!(again.claims, Some(claims("2.0")));
        }
    });
}

#[test]
fn a_file_that_was_replaced_with_its_sidecar_wants_one_clean_retry() {
    let (old, new) = (content(5000, 1), content(5000, 2));
    both(|bench| {
        let same = |file: &[u8]| Opening {
            validator: None,
            ..opening(file)
        };
        let mut source = Script::new([same(&old).end(End::BreakAt(2000)), same(&new)])
            .beside(signature(pair(), &old, &claims("2.0")));
        let new = &new;
        async move {
            let request = wants(None, 0);
            bench.attempt(&source, &request).await.unwrap_err();
            source.beside = Ok(Some(signature(pair(), new, &claims("2.1"))));
            let failure = bench.attempt(&source, &request).await.unwrap_err();
            assert!(failure.wants_clean_retry(), "{failure:?}");
            assert_eq!(bench.memory.last(), Checkpoint::default());
            let done = bench.attempt(&source, &request).await.unwrap();
            assert_eq!(source.asked(), [0, 2000, 0]);
            assert_eq!(done.claims, Some(claims("2.1")));
            assert_eq!(bench.staged(), *new);
        }
    });
}

#[test]
fn no_bit_of_a_file_or_its_sidecar_can_change_unnoticed() {
    let payload = content(2000, 1);
    let text = signature(pair(), &payload, &claims("2.0"));
    let signed_from = text.find('\n').unwrap();
    run(async {
        for at in 0..payload.len() {
            let mut file = payload.clone();
            file[at] ^= 1 << (at % 8);
            let source = Script::new([Opening {
                piece: 4096,
                ..Opening::of(&file)
            }])
            .beside(&text);
            let outcome = Bench::new(Seam::Inline)
                .attempt(&source, &wants(None, 0))
                .await;
            assert!(outcome.is_err(), "byte {at} of the file");
        }
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut changed = text.clone().into_bytes();
                changed[at] ^= 1 << bit;
                let source =
                    Script::new([opening(&payload)]).beside(String::from_utf8_lossy(&changed));
                let bench = Bench::new(Seam::Inline);
                match bench.attempt(&source, &wants(None, 0)).await {
                    Err(_) => {}
                    // Nobody signs the first line, and the last line may end as it likes.
                    Ok(done) => {
                        assert!(at < signed_from, "bit {bit} of byte {at}");
                        assert_eq!(done.claims, Some(claims("2.0")));
                        assert_eq!(bench.staged(), payload);
                    }
                }
            }
        }
    });
}

#[test]
fn keys_are_changed_by_configuration_alone() {
    let (old, new) = (keys(), keys());
    let payload = content(3000, 1);
    for (name, trusted, old_is_taken, new_is_taken) in [
        ("old", vec![&old], true, false),
        ("old and new", vec![&old, &new], true, true),
        ("new and old", vec![&new, &old], true, true),
        ("new", vec![&new], false, true),
    ] {
        let trusted: Vec<String> = trusted.iter().map(|pair| pair.pk.to_base64()).collect();
        let request = request(Trust::Minisign(TrustKeys::parse(&trusted).unwrap()));
        for form in FORMS {
            for (by, taken) in [(&old, old_is_taken), (&new, new_is_taken)] {
                let (file, beside) = form.sign(by, &payload, &claims("2.0"));
                run(async {
                    let source = script([opening(&file)], beside);
                    let bench = Bench::new(Seam::Inline);
                    match bench.attempt(&source, &request).await {
                        Ok(_) => assert!(taken, "{name} {form:?}"),
                        Err(failure) => {
                            assert!(!taken, "{name} {form:?}: {failure}");
                            assert!(matches!(failure, Failure::Key(_)), "{failure:?}");
                            assert!(source.served() <= form.bound());
                        }
                    }
                });
            }
        }
    }
}

#[test]
fn a_resume_survives_a_change_of_keys_where_the_signer_is_still_trusted() {
    let (old, new) = (keys(), keys());
    let payload = content(5000, 1);
    let keys = |pairs: &[&KeyPair]| {
        let keys: Vec<String> = pairs.iter().map(|pair| pair.pk.to_base64()).collect();
        request(Trust::Minisign(TrustKeys::parse(&keys).unwrap()))
    };
    for form in FORMS {
        let (file, beside) = form.sign(&old, &payload, &claims("2.0"));
        let begun = file.len() - 2000;
        for (now, outcome) in [(keys(&[&new, &old]), true), (keys(&[&new]), false)] {
            both(|bench| {
                let source = script(
                    [opening(&file).end(End::BreakAt(begun)), opening(&file)],
                    beside.clone(),
                );
                let (before, now) = (keys(&[&old]), &now);
                async move {
                    bench.attempt(&source, &before).await.unwrap_err();
                    let done = bench.attempt(&source, now).await;
                    assert_eq!(done.is_ok(), outcome, "{form:?}: {done:?}");
                    if let Ok(done) = done {
                        assert_eq!(done.resumed_from, begun as u64);
                    }
                }
            });
        }
    }
}

fn name() -> impl Strategy<Value = Option<&'static str>> {
    prop_oneof![
        Just(None),
        Just(Some("dock")),
        Just(Some("axis")),
        Just(Some("dock2"))
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_taken_names_the_device_and_is_not_too_old(
        form in prop_oneof![Just(Form::Header), Just(Form::Sidecar)],
        compatible in name(),
        wanted in name(),
        index in proptest::option::of(0..5u64),
        min in 0..5u64,
        // Broken off at first, with nothing demanded yet.
        cut in proptest::option::of(0..7000usize),
        len in 0..3000usize,
    ) {
        let payload = content(len, 1);
        let (file, beside) = form.sign(pair(), &payload, &says(compatible, index));
        let bench = Bench::new(Seam::Inline);
        let mut openings = vec![opening(&file)];
        if let Some(cut) = cut {
            openings.insert(0, opening(&file).end(End::BreakAt(cut)));
        }
        let source = script(openings, beside);
        let outcome = run(async {
            if cut.is_some() {
                let _ = bench.attempt(&source, &wants(None, 0)).await;
            }
            bench.attempt(&source, &wants(wanted, min)).await
        });
        let right_device = wanted.is_none() || compatible == wanted;
        let new_enough = min == 0 || index.is_some_and(|index| index >= min);
        prop_assert_eq!(outcome.is_ok(), right_device && new_enough, "{:?}", outcome);
        if outcome.is_ok() {
            prop_assert_eq!(&bench.staged()[..], &payload[..]);
        }
    }
}
