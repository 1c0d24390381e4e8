//! What one attempt promises, one promise a test.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use otahost_disk::Seam;
use otahost_transfer::{
    Checkpoint, Digest, Failure, Mark, Request, SourceError, Trust, Tuning, Validator, attempt,
};
use support::*;

#[test]
fn a_file_arrives_whole_and_every_digest_is_told() {
    let pair = keys();
    for len in [0, 1, 63, 64, 65, 256, 4095, 4096, 4097, 5000] {
        let payload = content(len, 1);
        let file = signed(&pair, &payload, "2.0");
        both(|bench| {
            let (file, payload, pair) = (&file, &payload, &pair);
            async move {
                let request = Request {
                    expected_size: Some(file.len() as u64),
                    digests: vec![md5(file), sha256(file)],
                    version: Some("2.0".into()),
                    ..request(trust(pair))
                };
                let done = bench
                    .attempt(&Script::new([Opening::of(file)]), &request)
                    .await
                    .unwrap();
                assert_eq!(bench.staged(), *payload);
                assert_eq!(done.payload_sha256, hex(sha256(payload)));
                assert_eq!(done.sha256, Some(hex(sha256(file))));
                assert_eq!(
                    (done.size, done.payload_len),
                    (file.len() as u64, len as u64)
                );
                assert_eq!((done.resumed_from, done.fetched), (0, file.len() as u64));
                assert_eq!(done.claims, Some(claims("2.0")));
                assert_eq!(bench.memory.last().sidecar, "");
            }
        });
        both(|bench| {
            let payload = &payload;
            async move {
                let request = Request {
                    digests: vec![md5(payload)],
                    ..request(Trust::Unsigned)
                };
                let source = Script::new([Opening {
                    announced: None,
                    ..Opening::of(payload)
                }]);
                let done = bench.attempt(&source, &request).await.unwrap();
                assert_eq!(bench.staged(), *payload);
                assert_eq!(done.sha256.as_deref(), Some(done.payload_sha256.as_str()));
                assert_eq!(done.payload_sha256, hex(sha256(payload)));
            }
        });
    }
}

#[test]
fn an_unsigned_target_gets_the_payload_of_a_signed_file_too() {
    let pair = keys();
    let payload = content(700, 1);
    let file = signed(&pair, &payload, "2.0");
    both(|bench| {
        let (file, payload) = (&file, &payload);
        async move {
            let source = Script::new([Opening::of(file)]);
            bench
                .attempt(&source, &request(Trust::Unsigned))
                .await
                .unwrap();
            assert_eq!(bench.staged(), *payload);
        }
    });
}

#[test]
fn d05_a_short_body_is_resumed_at_the_partial_size() {
    let file = content(3000, 1);
    for announced in [None, Some(3000)] {
        both(|bench| {
            let file = &file;
            async move {
                let request = Request {
                    expected_size: Some(3000),
                    digests: vec![md5(file)],
                    ..request(Trust::Unsigned)
                };
                let short = Opening {
                    announced,
                    ..Opening::of(file)
                }
                .end(End::EofAt(1234));
                let source = Script::new([short, Opening::of(file)]);
                let failure = bench.attempt(&source, &request).await.unwrap_err();
                assert_eq!(
                    failure,
                    Failure::TooShort {
                        received: 1234,
                        expected: 3000
                    }
                );
                assert!(!failure.is_final());
                assert_eq!(failure.reason().code, "too-short");
                let done = bench.attempt(&source, &request).await.unwrap();
                assert_eq!(source.asked(), [0, 1234]);
                assert_eq!((done.resumed_from, done.fetched), (1234, 3000 - 1234));
                assert_eq!(source.served(), 3000, "nothing is fetched twice");
                assert_eq!(bench.memory.fetched.load(Ordering::SeqCst), 3000);
                assert_eq!(bench.staged(), *file);
            }
        });
    }
}

#[test]
fn d05_a_file_that_stays_short_is_not_fetched_again_and_again() {
    let file = content(1000, 1);
    both(|bench| {
        let file = &file;
        async move {
            let request = Request {
                expected_size: Some(3000),
                digests: vec![md5(file)],
                ..request(Trust::Unsigned)
            };
            let refused = Opening {
                status: Some(416),
                ..Opening::of(file)
            };
            let source = Script::new([Opening::of(file), refused]);
            for _ in 0..3 {
                let failure = bench.attempt(&source, &request).await.unwrap_err();
                assert_eq!(
                    failure,
                    Failure::TooShort {
                        received: 1000,
                        expected: 3000
                    }
                );
            }
            assert_eq!(source.asked(), [0, 1000, 1000]);
            assert_eq!(source.served(), 1000);
        }
    });
}

#[test]
fn a_broken_connection_is_resumed_at_the_byte() {
    let pair = keys();
    let payload = content(3000, 1);
    let file = signed(&pair, &payload, "2.0");
    both(|bench| {
        let (file, payload, pair) = (&file, &payload, &pair);
        async move {
            let request = request(trust(pair));
            // The first one breaks inside the header, and there is nothing to keep.
            let cuts = [100, 4096, 4097, 5000, 5001, 7000];
            let mut openings: Vec<_> = cuts
                .iter()
                .map(|at| Opening::of(file).end(End::BreakAt(*at)))
                .collect();
            openings.push(Opening::of(file));
            let source = Script::new(openings);
            for _ in cuts {
                let failure = bench.attempt(&source, &request).await.unwrap_err();
                assert_eq!(
                    failure,
                    Failure::Source(SourceError::Broken("the connection broke".into()))
                );
                assert!(!failure.is_final());
                assert_eq!(failure.reason().code, "source-lost");
            }
            let done = bench.attempt(&source, &request).await.unwrap();
            // With nothing but a header there is no payload to resume either, but the header need not come twice.
            assert_eq!(source.asked(), [0, 0, 4096, 4097, 5000, 5001, 7000]);
            assert_eq!(source.served(), file.len() as u64 + 100);
            assert_eq!(bench.staged(), *payload);
            assert_eq!(done.payload_sha256, hex(sha256(payload)));
        }
    });
}

#[test]
fn d06_a_long_body_is_left_one_byte_behind_its_end() {
    let file = content(3001, 1);
    both(|bench| {
        let file = &file;
        async move {
            let request = Request {
                expected_size: Some(3000),
                digests: vec![md5(&file[..3000])],
                ..request(Trust::Unsigned)
            };
            let long = content(100_000, 1);
            assert_eq!(long[..3001], file[..]);
            let source = Script::new([Opening {
                announced: None,
                piece: 1,
                ..Opening::of(&long)
            }]);
            let failure = bench.attempt(&source, &request).await.unwrap_err();
            assert_eq!(failure, Failure::TooLong { allowed: 3000 });
            assert!(failure.is_final());
            assert_eq!(source.served(), 3001);
            assert_eq!(bench.memory.last(), Checkpoint::default());
        }
    });
}

#[test]
fn a_size_that_cannot_be_right_is_refused_before_the_first_byte() {
    let file = content(3000, 1);
    run(async {
        for (expected, announced, max) in [
            (Some(2999), Some(3000), 9000),
            (None, Some(3000), 2999),
            (Some(3000), None, 2999),
        ] {
            let bench = Bench::new(Seam::Inline);
            let request = Request {
                expected_size: expected,
                max_size: max,
                digests: vec![md5(&file)],
                ..request(Trust::Unsigned)
            };
            let source = Script::new([Opening {
                announced,
                ..Opening::of(&file)
            }]);
            let failure = bench.attempt(&source, &request).await.unwrap_err();
            assert!(matches!(failure, Failure::Size(_)), "{failure:?}");
            assert!(failure.is_final());
            assert_eq!(source.served(), 0);
        }
        // Where nobody announced anything, the cap holds while the bytes come.
        let bench = Bench::new(Seam::Inline);
        let request = Request {
            max_size: 2000,
            digests: vec![md5(&file)],
            ..request(Trust::Unsigned)
        };
        let source = Script::new([Opening {
            announced: None,
            ..Opening::of(&file)
        }]);
        let failure = bench.attempt(&source, &request).await.unwrap_err();
        assert_eq!(failure, Failure::TooLong { allowed: 2000 });
        assert!(source.served() <= 2100);
    });
}

#[test]
fn an_end_nobody_can_check_is_not_taken_for_the_end() {
    run(async {
        let file = content(3000, 1);
        let bench = Bench::new(Seam::Inline);
        let source = Script::new([Opening {
            announced: None,
            ..Opening::of(&file)
        }]);
        let failure = bench
            .attempt(&source, &request(Trust::Unsigned))
            .await
            .unwrap_err();
        assert!(matches!(failure, Failure::Size(_)), "{failure:?}");
        assert_eq!(source.served(), 0);
    });
}

#[test]
fn a_payload_that_does_not_fit_is_refused_before_the_first_byte() {
    let pair = keys();
    let payload = content(3000, 1);
    let file = signed(&pair, &payload, "2.0");
    both(|mut bench| {
        let (file, pair) = (&file, &pair);
        async move {
            bench.capacity = Some(2999);
            let source = Script::new([Opening::of(file)]);
            let known = Request {
                expected_size: Some(file.len() as u64),
                ..request(trust(pair))
            };
            let failure = bench.attempt(&source, &known).await.unwrap_err();
            assert!(matches!(failure, Failure::NoSpace(_)), "{failure:?}");
            assert!(failure.is_final());
            assert_eq!(source.asked(), [] as [u64; 0], "not even opened");
            // Known from the source only: the header is looked at, nothing is written.
            let failure = bench
                .attempt(&source, &request(trust(pair)))
                .await
                .unwrap_err();
            assert!(matches!(failure, Failure::NoSpace(_)), "{failure:?}");
            assert_eq!(bench.medium.writes.load(Ordering::SeqCst), 0);
            // Known from nobody: the stage is not asked for more than it has.
            let source = Script::new([Opening {
                announced: None,
                ..Opening::of(file)
            }]);
            let failure = bench
                .attempt(&source, &request(trust(pair)))
                .await
                .unwrap_err();
            assert!(matches!(failure, Failure::NoSpace(_)), "{failure:?}");
            // The header needs no space in the slot.
            bench.capacity = Some(3000);
            bench
                .attempt_from(&source, &known, Checkpoint::default())
                .await
                .unwrap();
        }
    });
}

#[test]
fn d03_wrong_content_is_refused_and_what_is_staged_forgotten() {
    let file = content(3000, 1);
    both(|bench| {
        let file = &file;
        async move {
            for wrong in [md5(&file[1..]), sha256(&file[1..])] {
                let request = Request {
                    digests: vec![wrong],
                    ..request(Trust::Unsigned)
                };
                let source = Script::new([Opening::of(file)]);
                let failure = bench.attempt(&source, &request).await.unwrap_err();
                let Failure::Digest {
                    resumed: false,
                    algorithm,
                    ..
                } = failure
                else {
                    panic!("{failure:?}")
                };
                assert_eq!(algorithm, wrong.algorithm());
                assert!(failure.is_final() && !failure.wants_clean_retry());
                assert_eq!(failure.reason().code, "digest");
                assert_eq!(bench.memory.last(), Checkpoint::default());
            }
        }
    });
}

#[test]
fn wrong_content_after_a_resume_wants_one_clean_retry() {
    let (old, new) = (content(3000, 1), content(3000, 2));
    both(|bench| {
        let (old, new) = (&old, &new);
        async move {
            let request = Request {
                digests: vec![md5(new)],
                ..request(Trust::Unsigned)
            };
            let source = Script::new([Opening::of(old).end(End::BreakAt(1500)), Opening::of(new)]);
            bench.attempt(&source, &request).await.unwrap_err();
            let failure = bench.attempt(&source, &request).await.unwrap_err();
            assert!(
                failure.wants_clean_retry() && !failure.is_final(),
                "{failure:?}"
            );
            bench.attempt(&source, &request).await.unwrap();
            assert_eq!(source.asked(), [0, 1500, 0]);
            assert_eq!(bench.staged(), *new);
        }
    });
}

#[test]
fn when_everything_is_here_the_source_is_left_alone() {
    let pair = keys();
    let payload = content(3000, 1);
    let file = signed(&pair, &payload, "2.0");
    both(|bench| {
        let (file, pair) = (&file, &pair);
        async move {
            let request = request(trust(pair));
            let source = Script::new([Opening::of(file)]);
            let first = bench.attempt(&source, &request).await.unwrap();
            let again = bench.attempt(&source, &request).await.unwrap();
            assert_eq!(source.asked(), [0]);
            assert_eq!((again.resumed_from, again.fetched), (file.len() as u64, 0));
            assert_eq!(again.payload_sha256, first.payload_sha256);
            // But it is read: a rotten byte is found and fetched again, and nothing before it.
            bench.corrupt(2999);
            let mended = bench.attempt(&source, &request).await.unwrap();
            assert_eq!(source.asked(), [0, 4096 + 2816]);
            assert_eq!(mended.payload_sha256, first.payload_sha256);
        }
    });
}

#[test]
fn a_resume_starts_at_the_first_chunk_that_is_not_what_was_written() {
    let file = content(3000, 1);
    both(|bench| {
        let file = &file;
        async move {
            let request = Request {
                digests: vec![sha256(file)],
                ..request(Trust::Unsigned)
            };
            let source =
                Script::new([Opening::of(file).end(End::BreakAt(2000)), Opening::of(file)]);
            bench.attempt(&source, &request).await.unwrap_err();
            bench.corrupt(600);
            bench.corrupt(1900);
            let done = bench.attempt(&source, &request).await.unwrap();
            assert_eq!(source.asked(), [0, 512]);
            assert_eq!(done.resumed_from, 512);
            assert_eq!(bench.staged(), *file);
        }
    });
}

#[test]
fn a_stage_that_lost_its_end_is_resumed_where_it_ends() {
    let file = content(3000, 1);
    both(|bench| {
        let file = &file;
        async move {
            let request = Request {
                digests: vec![sha256(file)],
                ..request(Trust::Unsigned)
            };
            let source =
                Script::new([Opening::of(file).end(End::BreakAt(2000)), Opening::of(file)]);
            bench.attempt(&source, &request).await.unwrap_err();
            bench.medium.now.lock().unwrap().truncate(1100);
            bench.attempt(&source, &request).await.unwrap();
            assert_eq!(source.asked(), [0, 1024]);
            assert_eq!(bench.staged(), *file);
        }
    });
}

#[test]
fn with_a_digest_a_changed_validator_costs_nothing() {
    let file = content(3000, 1);
    run(async {
        let bench = Bench::new(Seam::Inline);
        let request = Request {
            digests: vec![md5(&file)],
            ..request(Trust::Unsigned)
        };
        let other_node = Opening {
            validator: Some("v2"),
            ..Opening::of(&file)
        };
        let source = Script::new([Opening::of(&file).end(End::BreakAt(2000)), other_node]);
        bench.attempt(&source, &request).await.unwrap_err();
        bench.attempt(&source, &request).await.unwrap();
        assert_eq!(*source.asked.lock().unwrap(), [(0, None), (2000, None)]);
        assert_eq!(source.served(), 3000);
        assert_eq!(bench.memory.last().validator, Some(Validator("v2".into())));
    });
}

#[test]
fn without_a_digest_changed_content_is_fetched_anew() {
    let pair = keys();
    let (old, new) = (content(3000, 1), content(3000, 2));
    let signed_pair = (signed(&pair, &old, "2.0"), signed(&pair, &new, "2.0"));
    for (trust, (old, new), payload) in [
        (Trust::Unsigned, (old, new.clone()), new.clone()),
        (trust(&pair), signed_pair, new),
    ] {
        run(async {
            let bench = Bench::new(Seam::Inline);
            let request = request(trust);
            let changed = Opening {
                validator: Some("v2"),
                ..Opening::of(&new)
            };
            let source = Script::new([Opening::of(&old).end(End::BreakAt(5500)), changed]);
            let source = match request.trust {
                Trust::Unsigned => Script::new([
                    Opening::of(&old).end(End::BreakAt(1500)),
                    Opening {
                        validator: Some("v2"),
                        ..Opening::of(&new)
                    },
                ]),
                Trust::Minisign(_) => source,
            };
            bench.attempt(&source, &request).await.unwrap_err();
            let done = bench.attempt(&source, &request).await.unwrap();
            assert_eq!(done.resumed_from, 0);
            assert_eq!(bench.staged(), payload);
            let asked = source.asked.lock().unwrap().clone();
            assert_eq!(
                asked[1].1.as_deref(),
                Some("v1"),
                "the source is asked for the same content"
            );
            assert_eq!(asked[2], (0, None));
        });
    }
}

#[test]
fn without_digest_signature_or_validator_nothing_is_resumed() {
    let (old, new) = (content(3000, 1), content(3000, 2));
    run(async {
        let bench = Bench::new(Seam::Inline);
        let first = Opening {
            validator: None,
            ..Opening::of(&old)
        }
        .end(End::BreakAt(1500));
        let source = Script::new([
            first,
            Opening {
                validator: None,
                ..Opening::of(&new)
            },
        ]);
        bench
            .attempt(&source, &request(Trust::Unsigned))
            .await
            .unwrap_err();
        bench
            .attempt(&source, &request(Trust::Unsigned))
            .await
            .unwrap();
        assert_eq!(bench.staged(), new);
    });
}

#[test]
fn another_size_than_before_is_another_file() {
    let (old, new) = (content(3000, 1), content(3100, 1));
    run(async {
        let bench = Bench::new(Seam::Inline);
        let request = Request {
            digests: vec![md5(&new)],
            ..request(Trust::Unsigned)
        };
        let source = Script::new([Opening::of(&old).end(End::BreakAt(1500)), Opening::of(&new)]);
        bench.attempt(&source, &request).await.unwrap_err();
        bench.attempt(&source, &request).await.unwrap();
        assert_eq!(source.asked(), [0, 1500, 0]);
        assert_eq!(bench.staged(), new);
    });
}

#[test]
fn a_source_that_cannot_resume_is_taken_from_its_start() {
    let pair = keys();
    let payload = content(3000, 1);
    let file = signed(&pair, &payload, "2.0");
    both(|bench| {
        let (file, payload, pair) = (&file, &payload, &pair);
        async move {
            let request = Request {
                digests: vec![md5(file)],
                ..request(trust(pair))
            };
            let no_ranges = Opening {
                ranges: false,
                ..Opening::of(file)
            };
            let source = Script::new([Opening::of(file).end(End::BreakAt(5500)), no_ranges]);
            bench.attempt(&source, &request).await.unwrap_err();
            let done = bench.attempt(&source, &request).await.unwrap();
            assert_eq!(source.asked(), [0, 5500], "it is not opened a third time");
            assert_eq!((done.resumed_from, done.fetched), (0, file.len() as u64));
            assert_eq!(bench.staged(), *payload);
        }
    });
}

#[test]
fn strangers_and_tampered_headers_are_refused_with_the_header() {
    let (pair, stranger) = (keys(), keys());
    let payload = content(50_000, 1);
    let mut tampered = signed(&pair, &payload, "2.0");
    let at = tampered.windows(3).position(|w| w == b"2.0").unwrap();
    tampered[at] = b'3';
    let mut garbled = signed(&pair, &payload, "2.0");
    garbled[4000] = 1;
    let cases = [
        (signed(&stranger, &payload, "2.0"), "signature"),
        (tampered, "signature"),
        (garbled, "signature"),
        (payload.clone(), "unsigned"),
        (payload[..100].to_vec(), "unsigned"),
        (signed(&pair, &payload, "2.1"), "version-mismatch"),
    ];
    for (file, code) in cases {
        both(|bench| {
            let (file, pair) = (&file, &pair);
            async move {
                let request = Request {
                    version: Some("2.0".into()),
                    ..request(trust(pair))
                };
                let source = Script::new([Opening {
                    piece: 512,
                    ..Opening::of(file)
                }]);
                let failure = bench.attempt(&source, &request).await.unwrap_err();
                assert_eq!(failure.reason().code, code, "{failure:?}");
                assert_eq!(failure.reason().stage, "verify");
                assert!(failure.is_final());
                assert!(
                    source.served() <= 4096,
                    "{} bytes were fetched",
                    source.served()
                );
                assert_eq!(bench.medium.writes.load(Ordering::SeqCst), 0);
            }
        });
    }
}

#[test]
fn a_key_that_is_not_trusted_any_more_ends_a_resume_too() {
    let (pair, other) = (keys(), keys());
    let file = signed(&pair, &content(3000, 1), "2.0");
    run(async {
        let bench = Bench::new(Seam::Inline);
        let source = Script::new([
            Opening::of(&file).end(End::BreakAt(5500)),
            Opening::of(&file),
        ]);
        bench
            .attempt(&source, &request(trust(&pair)))
            .await
            .unwrap_err();
        let failure = bench
            .attempt(&source, &request(trust(&other)))
            .await
            .unwrap_err();
        assert!(matches!(failure, Failure::Key(_)), "{failure:?}");
    });
}

#[test]
fn no_bit_of_a_signed_file_can_change_unnoticed() {
    let pair = keys();
    let file = signed(&pair, &content(2000, 1), "2.0");
    let request = request(trust(&pair));
    let text = file.iter().position(|b| *b == 0).unwrap();
    run(async {
        for at in 0..file.len() {
            // Every bit of the text; of the padding and the payload one in a few bytes.
            for bit in 0..8 {
                if at >= text && (at + bit) % 13 != 0 {
                    continue;
                }
                let mut file = file.clone();
                file[at] ^= 1 << bit;
                let bench = Bench::new(Seam::Inline);
                let source = Script::new([Opening {
                    piece: 4096,
                    ..Opening::of(&file)
                }]);
                let outcome = bench.attempt(&source, &request).await;
                assert!(outcome.is_err(), "bit {bit} of byte {at}");
            }
        }
    });
}

#[test]
fn a_changed_payload_is_refused_in_the_end() {
    let pair = keys();
    let mut file = signed(&pair, &content(3000, 1), "2.0");
    file[6000] ^= 1;
    both(|bench| {
        let (file, pair) = (&file, &pair);
        async move {
            let source = Script::new([Opening::of(file)]);
            let failure = bench
                .attempt(&source, &request(trust(pair)))
                .await
                .unwrap_err();
            assert!(
                matches!(failure, Failure::Signature { resumed: false, .. }),
                "{failure:?}"
            );
            assert!(failure.is_final());
            assert_eq!(bench.memory.last(), Checkpoint::default());
        }
    });
}

#[test]
fn a_server_that_says_no_is_passed_on() {
    run(async {
        for (status, last) in [
            (403, true),
            (404, true),
            (408, false),
            (429, false),
            (500, false),
        ] {
            let bench = Bench::new(Seam::Inline);
            let file = content(300, 1);
            let source = Script::new([Opening {
                status: Some(status),
                ..Opening::of(&file)
            }]);
            let failure = bench
                .attempt(&source, &request(Trust::Unsigned))
                .await
                .unwrap_err();
            assert_eq!(failure.is_final(), last, "{status}");
            assert_eq!(failure.reason().code, "source-refused");
            let (told, headers, body) = failure.answer().unwrap();
            assert_eq!((told, headers.len(), body), (status, 1, &b"why"[..]));
        }
    });
}

#[test]
fn checkpoints_come_once_a_second_and_speak_of_synced_bytes() {
    let file = content(5000, 1);
    run(async {
        let bench = Bench::new(Seam::Inline);
        let request = Request {
            digests: vec![md5(&file)],
            ..request(Trust::Unsigned)
        };
        let slow = Opening {
            pause: Duration::from_millis(130),
            ..Opening::of(&file)
        };
        bench.attempt(&Script::new([slow]), &request).await.unwrap();
        // 50 pieces in 6.5 s. That the bytes are durable is asserted where the checkpoints are taken.
        let times = bench.memory.times.lock().unwrap();
        assert_eq!(times.len(), 7);
        let (last, regular) = times.split_last().unwrap();
        assert!(
            regular
                .windows(2)
                .all(|w| w[1] - w[0] >= Duration::from_secs(1))
        );
        assert!(
            regular
                .windows(2)
                .all(|w| w[1] - w[0] < Duration::from_millis(1200))
        );
        assert!(last > regular.last().unwrap());
        for checkpoint in bench.memory.checkpoints.lock().unwrap().iter() {
            let [.., Mark { at, .. }] = &checkpoint.marks[..] else {
                panic!("no mark")
            };
            assert_eq!(*at, checkpoint.received);
            assert_eq!(checkpoint.total, Some(5000));
        }
    });
}

#[test]
fn a_checkpoint_waits_for_enough_bytes_or_enough_time() {
    let file = content(20_000, 1);
    // Milliseconds between two pieces of 100 bytes, bytes worth a checkpoint: checkpoints on the way, seconds between them.
    for (pause, bytes, count, least, most) in [
        // 2 s of 10,000 bytes each, of which 5,000 have to come: the second rules.
        (10, 5000, 1, 1.0, 1.1),
        // 15 s between two thresholds: the ten seconds rule.
        (300, 5000, 5, 10.0, 10.4),
        // 3 s between two thresholds: the bytes rule.
        (60, 5000, 3, 3.0, 3.1),
        (60, 1 << 20, 1, 10.0, 10.1),
        (10, 1 << 20, 0, 0.0, 0.0),
    ] {
        run(async {
            let bench = Bench::new(Seam::Inline);
            let request = Request {
                tuning: Tuning {
                    checkpoint_bytes: bytes,
                    ..TUNING
                },
                ..request(Trust::Unsigned)
            };
            let slow = Opening {
                pause: Duration::from_millis(pause),
                ..Opening::of(&file)
            };
            let start = tokio::time::Instant::now();
            bench.attempt(&Script::new([slow]), &request).await.unwrap();
            let times = bench.memory.times.lock().unwrap();
            let (_, regular) = times.split_last().unwrap();
            assert_eq!(regular.len(), count, "{pause} ms, {bytes} bytes: {times:?}");
            let mut before = start;
            for time in regular {
                let apart = (*time - before).as_secs_f64();
                assert!(
                    (least..most).contains(&apart),
                    "{pause} ms, {bytes} bytes: {apart} s"
                );
                before = *time;
            }
        });
    }
}

#[test]
fn a_source_that_hangs_does_not_keep_its_bytes_from_a_checkpoint() {
    let file = content(5000, 1);
    run(async {
        let bench = Bench::new(Seam::Inline);
        let source = Script::new([Opening::of(&file).end(End::HangAt(1111))]);
        let request = request(Trust::Unsigned);
        let hung = bench.attempt(&source, &request);
        tokio::time::timeout(Duration::from_secs(60), hung)
            .await
            .unwrap_err();
        assert_eq!(bench.memory.last().received, 1111);
        assert_eq!(
            bench.memory.checkpoints.lock().unwrap().len(),
            1,
            "nothing new, nothing said"
        );
    });
}

#[test]
fn progress_never_goes_back_and_ends_at_the_total() {
    let file = content(5000, 1);
    both(|bench| {
        let file = &file;
        async move {
            bench
                .attempt(&Script::new([Opening::of(file)]), &request(Trust::Unsigned))
                .await
                .unwrap();
            let progress = bench.memory.progress.lock().unwrap();
            assert!(progress.windows(2).all(|w| w[0].0 <= w[1].0));
            assert_eq!(progress.last(), Some(&(5000, Some(5000))));
        }
    });
}

#[test]
fn a_medium_that_fails_ends_the_attempt_with_its_words() {
    let file = content(50_000, 1);
    for (write, sync, words) in [
        (Some(1000), false, "the medium is worn out"),
        (None, true, "the medium does not sync"),
    ] {
        both(|bench| {
            let file = &file;
            async move {
                let mut stage = bench.stage();
                (stage.fail_write_at, stage.fail_sync) = (write, sync);
                let source = Script::new([Opening::of(file)]);
                let request = request(Trust::Unsigned);
                let failure = attempt(
                    &source,
                    Arc::new(stage),
                    &request,
                    Checkpoint::default(),
                    &bench.memory,
                    bench.seam.unwrap(),
                )
                .await
                .unwrap_err();
                assert_eq!(failure, Failure::Stage(words.into()));
                assert_eq!(failure.reason().code, "flash");
                assert_eq!(bench.memory.last(), Checkpoint::default());
            }
        });
    }
}

#[test]
fn a_cancelled_attempt_writes_nothing_any_more() {
    let file = content(50_000, 1);
    run_threads(async {
        let bench = Bench::new(Seam::Threads);
        let (begun, writes) = mpsc::channel();
        let (go, allowed) = mpsc::channel();
        let (dropped, gone) = mpsc::channel();
        let mut stage = bench.stage();
        stage.on_write = Some(Mutex::new((begun, allowed)));
        stage.on_drop = Some(dropped);
        let source = Script::new([Opening::of(&file)]);
        let request = request(Trust::Unsigned);
        let seam = Seam::Threads;
        let attempt = attempt(
            &source,
            Arc::new(stage),
            &request,
            Checkpoint::default(),
            &bench.memory,
            seam,
        );
        // Runs until every queue is full: the writer hangs in its first write, with more waiting.
        let mut attempt = Box::pin(attempt);
        let writing = tokio::task::spawn_blocking(move || writes.recv().map(|()| writes));
        tokio::select! {
            _ = &mut attempt => panic!("it cannot end"),
            begun = writing => drop(begun.unwrap().unwrap()),
        }
        go.send(()).unwrap();
        drop(attempt);
        let written = bench.medium.writes.load(Ordering::SeqCst);
        // From here on all that waited could be written at once. But it is not: the threads end.
        drop(go);
        gone.recv_timeout(Duration::from_secs(60)).unwrap();
        assert_eq!(bench.medium.writes.load(Ordering::SeqCst), written);
    });
}

#[test]
fn a_checkpoint_that_makes_no_sense_means_a_start_from_nothing() {
    let pair = keys();
    let file = signed(&pair, &content(3000, 1), "2.0");
    let mark = |at| Mark {
        at,
        sha256: "00".into(),
    };
    let odd = [
        Checkpoint {
            received: 100,
            ..Checkpoint::default()
        },
        Checkpoint {
            received: 5000,
            header: vec![1; 5000],
            ..Checkpoint::default()
        },
        Checkpoint {
            received: 5000,
            header: b"junk".to_vec(),
            ..Checkpoint::default()
        },
        Checkpoint {
            received: 5000,
            sidecar: "junk".into(),
            ..Checkpoint::default()
        },
        Checkpoint {
            received: 5000,
            header: file[..4000].to_vec(),
            total: Some(1),
            ..Checkpoint::default()
        },
        Checkpoint {
            received: u64::MAX,
            header: file[..500].to_vec(),
            marks: vec![mark(u64::MAX)],
            ..Checkpoint::default()
        },
        Checkpoint {
            received: 5000,
            header: file[..500].to_vec(),
            marks: vec![mark(0), mark(7), mark(5000), mark(4999)],
            ..Checkpoint::default()
        },
    ];
    for resume in odd {
        both(|bench| {
            let (file, pair, resume) = (&file, &pair, resume.clone());
            async move {
                let request = Request {
                    expected_size: Some(file.len() as u64),
                    ..request(trust(pair))
                };
                let source = Script::new([Opening::of(file)]);
                let done = bench.attempt_from(&source, &request, resume).await.unwrap();
                assert!(done.resumed_from <= 4096);
                assert_eq!(bench.staged(), file[4096..]);
            }
        });
    }
}

#[test]
fn the_default_sizes_are_the_ones_the_budgets_speak_of() {
    // 8 MiB dirty, six blocks in memory: see DESIGN.
    let tuning = Tuning::default();
    assert!(2 * tuning.sync_every <= 8 << 20);
    assert!(6 * tuning.block <= 8 << 20);
    assert_eq!(tuning.chunk % tuning.block as u64, 0);
    // What a download may cost the journal's medium.
    assert_eq!(tuning.checkpoint_every, Duration::from_secs(1));
    assert_eq!(tuning.checkpoint_bytes, 1 << 20);
    assert_eq!(tuning.checkpoint_at_last, Duration::from_secs(10));
    let big = content(9 << 20, 3);
    both(|bench| {
        let big = &big;
        async move {
            let request = Request {
                tuning,
                digests: vec![sha256(big)],
                ..request(Trust::Unsigned)
            };
            let opening = Opening {
                piece: 200_000,
                ..Opening::of(big)
            };
            let source = Script::new([opening.clone().end(End::BreakAt(5_000_001)), opening]);
            bench.attempt(&source, &request).await.unwrap_err();
            let done = bench.attempt(&source, &request).await.unwrap();
            assert_eq!(done.resumed_from, 5_000_001);
            assert!(bench.staged() == *big);
        }
    });
    assert!(matches!(sha256(&big), Digest::Sha256(_)));
}
