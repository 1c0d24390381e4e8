//! The list of stories that `cargo xtask crash` searches: each is true undisturbed and takes the same course every time, and what is
//! left out on purpose is found (DESIGN §10, last row).
#![allow(clippy::unwrap_used, reason = "tests")]

use otahost_disk::sim::{Controls, Loss, Op};
use otahost_e2e::sim::scenarios::{self, controls, named};
use otahost_e2e::sim::{Scenario, Search};

#[test]
fn every_story_is_true_undisturbed_and_takes_the_same_course_every_time() {
    for entry in &scenarios::ALL {
        let scenario = (entry.make)();
        assert_eq!(scenario.name, entry.name);
        let [first, second] = [0, 1].map(|_| {
            let (run, _) = scenario.record(Controls::default());
            if let Err(error) = run.verdict {
                panic!("{}: {error}", entry.name);
            }
            run.disk.log()
        });
        let differs = first.iter().zip(&second).position(|(a, b)| a != b);
        assert_eq!(differs, None, "{}: the operation differs", entry.name);
        assert_eq!(first.len(), second.len(), "{}", entry.name);
    }
}

#[test]
fn an_ordering_a_sync_and_a_check_that_are_left_out_are_found() {
    let left_out = [
        "a message is acknowledged after its commit",
        "a caller is answered after the commit",
        "a request is sent after its commit",
        "fsync of the data directory",
        "what is staged is read back before the switch",
    ];
    for what in left_out {
        let control = controls::ALL.iter().find(|c| c.what == what).unwrap();
        let scenario = Scenario {
            broken: control.broken,
            ..(control.story)()
        };
        let how = Search {
            until_found: true,
            ..Search::default()
        };
        let found = scenario.search(how, |operations| {
            let cuts = 0..=operations;
            cuts.flat_map(|cut| [(cut, Loss::AllDropped), (cut, Loss::AllKept)])
                .collect()
        });
        assert!(
            !found.failures.is_empty(),
            "{what}: nothing was found in {} runs",
            found.runs
        );
    }
}

#[test]
fn the_journal_of_its_story_outgrows_what_it_keeps_for_itself_and_gives_it_back() {
    const KEPT: u64 = 8 << 20;
    let (run, _) = named("journal grows and shrinks").record(Controls::default());
    run.verdict.unwrap();
    let lengths: Vec<u64> = run
        .disk
        .log()
        .iter()
        .filter_map(|op| match op {
            Op::SetLen { len, .. } => Some(*len),
            _ => None,
        })
        .collect();
    assert!(lengths.iter().any(|len| *len > KEPT), "{lengths:?}");
    assert_eq!(lengths.last(), Some(&KEPT), "{lengths:?}");
}
