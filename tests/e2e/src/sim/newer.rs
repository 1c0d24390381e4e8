//! What a newer agent would leave in the journal of a device.

use std::sync::Arc;

use otahost_disk::Place;
use otahost_disk::sim::{Loss, SimDisk};
use otahost_journal::{Change, Journal, Key};
use serde_json::{Value, json};

use super::read::rows;

/// Rows that are its own.
pub(super) const ROWS: usize = 3;
/// A number that no job of the story has.
const JOB: u64 = 1 << 40;

fn own() -> [(Key, Vec<u8>); ROWS] {
    let job = json!({ "id": JOB, "phase": "levitating", "tomorrow": { "altitude": 3 } });
    [
        (
            Key::Meta("tomorrow".into()),
            b"\xfe\xffnot even JSON".to_vec(),
        ),
        (
            Key::Checkpoint {
                job: JOB,
                install: 7,
            },
            b"a row of a kind that is not in use".to_vec(),
        ),
        (Key::Job(JOB), job.to_string().into_bytes()),
    ]
}

/// Puts its rows there, and fields of its own into the rows of jobs, targets and adapters, unless they are there.
pub(super) fn leaves_its_rows(disk: &SimDisk) {
    let known = rows(disk.image(Loss::AllKept));
    if known.is_empty() || left(&known).len() == ROWS {
        return;
    }
    let mut changes: Vec<Change> = own()
        .into_iter()
        .map(|(key, value)| Change::Put(key, value))
        .collect();
    for (key, value) in known {
        let is_meant = matches!(key, Key::Job(_) | Key::Target(_) | Key::Adapter(_));
        if is_meant && let Ok(Value::Object(mut row)) = serde_json::from_slice(&value) {
            row.insert("tomorrow".into(), json!(["something", { "else": true }]));
            let row = Value::Object(row).to_string().into_bytes();
            changes.push(Change::Put(key, row));
        }
    }
    let disk = Arc::new(disk.clone());
    let journal = Journal::open(disk, Place::data("journal.redb")).unwrap();
    journal.commit(&changes).unwrap();
}

/// Those of its rows that are there as it wrote them.
pub(super) fn left(rows: &[(Key, Vec<u8>)]) -> Vec<Key> {
    let own = own().into_iter().filter(|row| rows.contains(row));
    own.map(|(key, _)| key).collect()
}
