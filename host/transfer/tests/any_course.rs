//! Whatever happens to source and medium: the result is the content, or an error.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::sync::OnceLock;

use minisign::KeyPair;
use otahost_disk::Seam;
use otahost_transfer::{Checkpoint, Failure, Request, Trust};
use proptest::prelude::*;
use support::*;

fn pair() -> &'static KeyPair {
    static PAIR: OnceLock<KeyPair> = OnceLock::new();
    PAIR.get_or_init(keys)
}

/// What happens in and after one attempt.
#[derive(Debug, Clone)]
struct Turn {
    end: End,
    ranges: bool,
    announces: bool,
    piece: usize,
    /// The server has other content under another validator from here on.
    changes: bool,
    /// Bytes that rot, as parts of what is staged.
    rot: Vec<f64>,
    /// The medium loses its end, from this part on.
    shrinks: Option<f64>,
    /// A power cut: so many checkpoints are forgotten.
    forgets: usize,
}

fn turn(honest: bool) -> impl Strategy<Value = Turn> {
    let end = (0usize..9000).prop_flat_map(|at| {
        prop_oneof![
            Just(End::BreakAt(at)),
            Just(End::EofAt(at)),
            Just(End::Whole)
        ]
    });
    let turn = (
        end,
        proptest::bool::weighted(0.8),
        proptest::bool::ANY,
        1usize..700,
        proptest::bool::weighted(0.15),
        proptest::collection::vec(0.0..1.0f64, 0..3),
        proptest::option::weighted(0.2, 0.0..1.0f64),
        0usize..3,
    );
    turn.prop_map(
        move |(end, ranges, announces, piece, changes, rot, shrinks, forgets)| {
            let turn = Turn {
                end,
                ranges,
                announces,
                piece,
                changes,
                rot,
                shrinks,
                forgets,
            };
            if honest {
                Turn {
                    ranges: true,
                    changes: false,
                    rot: Vec::new(),
                    shrinks: None,
                    forgets: 0,
                    ..turn
                }
            } else {
                turn
            }
        },
    )
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Anchor {
    Digest,
    Signature,
    Sidecar,
    Validator,
}

/// Plays the turns and then one honest attempt with a clean retry. Every `Verified` on the way is checked.
async fn play(anchor: Anchor, len: usize, turns: &[Turn]) -> (u64, u64) {
    let bench = Bench::new(Seam::Inline);
    let files: Vec<Vec<u8>> = (1..=2)
        .map(|seed| {
            let payload = content(len, seed);
            if anchor == Anchor::Signature {
                signed(pair(), &payload, "1")
            } else {
                payload
            }
        })
        .collect();
    let sidecars: Vec<String> = files
        .iter()
        .filter(|_| anchor == Anchor::Sidecar)
        .map(|file| signature(pair(), file, &claims("1")))
        .collect();
    let start = if anchor == Anchor::Signature { 4096 } else { 0 };
    let (mut served, mut now) = (0, 0);
    let last = Turn {
        end: End::Whole,
        ranges: true,
        announces: true,
        piece: 500,
        changes: false,
        rot: Vec::new(),
        shrinks: None,
        forgets: 0,
    };
    let size = files[0].len() as u64;
    for (index, turn) in turns.iter().chain([&last, &last]).enumerate() {
        if turn.changes {
            now = 1 - now;
        }
        let request = Request {
            expected_size: Some(size).filter(|_| anchor != Anchor::Validator),
            // The plan wants the first file, whatever the server has; at the end it has it.
            digests: if anchor == Anchor::Digest {
                vec![md5(&files[0])]
            } else {
                Vec::new()
            },
            compatible: claims("1").compatible,
            min_rollback_index: 7,
            ..request(match anchor {
                Anchor::Signature | Anchor::Sidecar => trust(pair()),
                Anchor::Digest | Anchor::Validator => Trust::Unsigned,
            })
        };
        let serves = if index >= turns.len() { 0 } else { now };
        let opening = Opening {
            validator: Some(["v1", "v2"][serves]),
            ranges: turn.ranges,
            // Without size, digest and signature an early end could not be told from the end.
            announced: Some(size).filter(|_| turn.announces || anchor == Anchor::Validator),
            piece: turn.piece,
            ..Opening::of(&files[serves])
        };
        let mut source = Script::new([opening.end(turn.end)]);
        if anchor == Anchor::Sidecar {
            source = source.beside(&sidecars[serves]);
        }
        let outcome = bench.attempt(&source, &request).await;
        served += source.served();
        assert!(source.besides() <= 1, "asked for the sidecar twice");
        match outcome {
            Ok(done) => {
                // Never a mixture, and never what the plan did not ask for.
                let wanted = if anchor == Anchor::Digest {
                    &files[0]
                } else {
                    &files[serves]
                };
                let staged = bench.staged();
                let same = staged[..done.payload_len as usize] == wanted[start..];
                // All that was here may be the other file, where the plan does not say which one it wants.
                let resumed_other = anchor != Anchor::Digest
                    && done.fetched == 0
                    && staged[..done.payload_len as usize] == files[1 - serves][start..];
                assert!(
                    same || resumed_other,
                    "turn {index} verified something else"
                );
                assert_eq!(done.size, size);
            }
            Err(failure) => {
                assert!(
                    index < turns.len() + 1,
                    "the honest end failed twice: {failure:?}"
                );
                let content = matches!(
                    failure,
                    Failure::Digest { .. } | Failure::Signature { .. } | Failure::TooLong { .. }
                );
                assert!(!content || bench.memory.last() == Checkpoint::default());
            }
        }
        let mut staged = bench.medium.now.lock().unwrap();
        let part = |part: f64, len: usize| (part * len as f64) as usize;
        for rot in turn.rot.iter().filter(|_| index < turns.len()) {
            let len = staged.len();
            if len > 0 {
                staged[part(*rot, len)] ^= 4;
            }
        }
        if let Some(shrinks) = turn.shrinks.filter(|_| index < turns.len()) {
            let len = staged.len();
            staged.truncate(part(shrinks, len));
        }
        drop(staged);
        let mut checkpoints = bench.memory.checkpoints.lock().unwrap();
        // The journal may have lost the newest ones, never one that says that all is worth nothing.
        for _ in 0..turn.forgets {
            if checkpoints.last().is_some_and(|last| !last.is_empty()) {
                checkpoints.pop();
            }
        }
    }
    (served, size)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_course_ends_with_the_content_or_an_error(
        anchor in prop_oneof![
            Just(Anchor::Digest),
            Just(Anchor::Signature),
            Just(Anchor::Sidecar),
            Just(Anchor::Validator)
        ],
        len in 0usize..5000,
        turns in proptest::collection::vec(turn(false), 0..6),
    ) {
        run(play(anchor, len, &turns));
    }

    #[test]
    fn on_an_honest_server_nothing_is_fetched_twice(
        anchor in prop_oneof![Just(Anchor::Digest), Just(Anchor::Sidecar), Just(Anchor::Validator)],
        len in 0usize..5000,
        turns in proptest::collection::vec(turn(true), 0..6),
    ) {
        let (served, size) = run(play(anchor, len, &turns));
        prop_assert_eq!(served, size);
    }
}
