//! Group commit: order, batches, and the end after a failure.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io;
use std::sync::{Arc, Mutex, mpsc};

use otahost_disk::sim::{Op, SimDisk};
use otahost_disk::{Place, Seam};
use otahost_journal::{Change, Committer, Journal, JournalError, Key};

fn open(disk: &SimDisk) -> Arc<Journal> {
    Arc::new(Journal::open(Arc::new(disk.clone()), Place::data("journal")).unwrap())
}

fn put(key: u64, value: u64) -> Change {
    Change::Put(Key::Job(key), value.to_be_bytes().to_vec())
}

fn syncs(disk: &SimDisk) -> usize {
    disk.log()
        .iter()
        .filter(|op| matches!(op, Op::SyncFile { .. }))
        .count()
}

/// How many syncs one transaction costs, which is the unit for counting them.
fn syncs_of_one() -> usize {
    let disk = SimDisk::new();
    let journal = open(&disk);
    let before = syncs(&disk);
    journal.commit(&[put(1, 1)]).unwrap();
    syncs(&disk) - before
}

#[tokio::test(start_paused = true)]
async fn the_last_submission_wins_whoever_is_polled_first() {
    let disk = SimDisk::new();
    let journal = open(&disk);
    let committer = Committer::start(Arc::clone(&journal), Seam::Inline);
    let mut submitted: Vec<_> = (0..200)
        .map(|n| committer.commit(vec![put(n % 7, n)]))
        .collect();
    submitted.reverse();
    for outcome in submitted {
        outcome.await.unwrap();
    }
    let rows = journal.load().unwrap();
    let expected: Vec<_> = (196..200)
        .chain(193..196)
        .map(|n: u64| (Key::Job(n % 7), n.to_be_bytes().to_vec()))
        .collect();
    assert_eq!(rows, expected);
}

#[tokio::test(start_paused = true)]
async fn what_waits_shares_transactions_of_64_submissions() {
    let disk = SimDisk::new();
    let committer = Committer::start(open(&disk), Seam::Inline);
    let before = syncs(&disk);
    let submitted: Vec<_> = (0..200)
        .map(|n| committer.commit(vec![put(n, n)]))
        .collect();
    for outcome in submitted {
        outcome.await.unwrap();
    }
    assert_eq!(syncs(&disk) - before, 4 * syncs_of_one());
}

#[tokio::test(start_paused = true)]
async fn a_batch_ends_at_a_mebibyte_and_keeps_the_order() {
    let disk = SimDisk::new();
    let journal = open(&disk);
    let committer = Committer::start(Arc::clone(&journal), Seam::Inline);
    let big = |fill: u8| vec![Change::Put(Key::State("a".into()), vec![fill; 400 << 10])];
    // Two fit together, the third does not; one alone may be larger than the bound.
    let first = [
        committer.commit(big(1)),
        committer.commit(big(2)),
        committer.commit(big(3)),
    ];
    let huge = committer.commit(vec![Change::Put(Key::State("b".into()), vec![4; 3 << 20])]);
    for outcome in first {
        outcome.await.unwrap();
    }
    huge.await.unwrap();
    assert_eq!(journal.get(&Key::State("a".into())).unwrap().unwrap()[0], 3);
    assert_eq!(
        journal.get(&Key::State("b".into())).unwrap().unwrap().len(),
        3 << 20
    );
}

#[tokio::test(start_paused = true)]
async fn in_simulation_the_same_submissions_are_the_same_operations() {
    async fn run() -> Vec<Op> {
        let disk = SimDisk::new();
        let committer = Committer::start(open(&disk), Seam::Inline);
        let tasks: Vec<_> = (0..10)
            .map(|n| {
                let committer = committer.clone();
                tokio::spawn(async move {
                    for m in 0..5 {
                        committer.commit(vec![put(n, m)]).await.unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        committer.close().await;
        disk.log()
    }
    assert_eq!(run().await, run().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_comes_during_a_sync_shares_the_next_transaction() {
    let disk = SimDisk::new();
    let committer = Committer::start(open(&disk), Seam::Threads);
    let before = syncs(&disk);
    // The first transaction stands at its first operation until the others are in the queue.
    let (arrived, at_disk) = tokio::sync::oneshot::channel();
    let (go, gate) = mpsc::channel::<()>();
    let stop = Mutex::new(Some((arrived, gate)));
    disk.on_operation(Box::new(move |_| {
        let first = stop.lock().unwrap().take();
        if let Some((arrived, gate)) = first {
            arrived.send(()).unwrap();
            gate.recv().unwrap();
        }
    }));
    let first = tokio::spawn(committer.commit(vec![put(0, 0)]));
    at_disk.await.unwrap();
    let others: Vec<_> = (1..=40)
        .map(|n| committer.commit(vec![put(n, n)]))
        .collect();
    go.send(()).unwrap();
    first.await.unwrap().unwrap();
    for outcome in others {
        outcome.await.unwrap();
    }
    assert_eq!(syncs(&disk) - before, 2 * syncs_of_one());
}

#[tokio::test(start_paused = true)]
async fn an_acknowledged_commit_is_durable() {
    let disk = SimDisk::new();
    let committer = Committer::start(open(&disk), Seam::Inline);
    committer.commit(vec![put(1, 1)]).await.unwrap();
    let image = disk.image(otahost_disk::sim::Loss::AllDropped);
    assert_eq!(open(&SimDisk::from_image(image)).load().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failed_batch_fails_all_in_it_and_all_after_it_until_a_new_start() {
    let disk = SimDisk::new();
    let journal = open(&disk);
    let committer = Committer::start(Arc::clone(&journal), Seam::Inline);
    committer.commit(vec![put(1, 1)]).await.unwrap();
    disk.fail_after(1, io::ErrorKind::StorageFull);
    let batch: Vec<_> = (0..64).map(|n| committer.commit(vec![put(2, n)])).collect();
    let behind: Vec<_> = (0..10).map(|n| committer.commit(vec![put(3, n)])).collect();
    for outcome in batch {
        let e = outcome.await.unwrap_err();
        assert!(matches!(e, JournalError::Commit { .. }), "{e}");
    }
    assert_eq!(
        Arc::strong_count(&journal),
        1,
        "whoever knows of the failure can open the journal again"
    );
    for outcome in behind {
        let e = outcome.await.unwrap_err();
        assert!(matches!(e, JournalError::Refused { .. }), "{e}");
    }
    let late = committer.commit(vec![put(4, 4)]).await.unwrap_err();
    assert!(late.to_string().contains("made to fail"), "{late}");
    drop(journal);
    let journal = open(&disk);
    let keys: Vec<Key> = journal
        .load()
        .unwrap()
        .into_iter()
        .map(|(key, _)| key)
        .collect();
    assert!(
        keys == [Key::Job(1)] || keys == [Key::Job(1), Key::Job(2)],
        "{keys:?}"
    );
    Committer::start(journal, Seam::Inline)
        .commit(vec![put(5, 5)])
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn closing_waits_for_what_was_submitted_and_lets_the_journal_go() {
    let disk = SimDisk::new();
    let journal = open(&disk);
    let committer = Committer::start(Arc::clone(&journal), Seam::Inline);
    let submitted: Vec<_> = (0..100)
        .map(|n| committer.commit(vec![put(n, n)]))
        .collect();
    committer.close().await;
    assert_eq!(Arc::strong_count(&journal), 1);
    assert_eq!(journal.load().unwrap().len(), 100);
    for outcome in submitted {
        outcome.await.unwrap();
    }
    assert!(matches!(
        committer.commit(vec![put(1, 1)]).await,
        Err(JournalError::Stopped)
    ));
}

#[tokio::test(start_paused = true)]
async fn changes_are_committed_though_nobody_waits_for_them() {
    let disk = SimDisk::new();
    let journal = open(&disk);
    let committer = Committer::start(Arc::clone(&journal), Seam::Inline);
    drop(committer.commit(vec![put(1, 1)]));
    committer.close().await;
    assert_eq!(journal.load().unwrap().len(), 1);
}
