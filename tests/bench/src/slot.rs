//! Row 1: a signed artifact from loopback HTTP into a slot, verified and synced.

use std::error::Error;
use std::fs;
use std::process::Command;

use otahost_lab::files::Files;
use otahost_lab::image::{Described, Image};
use otahost_lab::signing::{Claims, Publisher};

use crate::floor;
use crate::ours::Ours;
use crate::ratio::Row;

const MIB: u64 = 1024 * 1024;
/// Of §10 of the design.
const BUDGET: f64 = 1.10;
const NAME: &str = "artifact";

/// Measures it.
///
/// # Errors
/// When a contestant fails: then there is no ratio.
pub(crate) fn measure(quick: bool) -> Result<Row, Box<dyn Error>> {
    let (size, pairs) = if quick { (64 * MIB, 3) } else { (512 * MIB, 7) };
    let dir = tempfile::Builder::new()
        .prefix("otahost-bench-")
        .tempdir()?;
    let publisher = Publisher::generate()?;
    let artifact = dir.path().join("artifact.signed");
    let file = publish(&publisher, dir.path(), &artifact, size)?;
    let files = Files::start();
    files.put_file(NAME, &artifact)?;
    let url = files.url(NAME);

    let ours = Ours::new(dir.path(), publisher.public_key())?;
    let slot = dir.path().join("floor-slot");
    fs::write(&slot, [])?;
    let mut row = Row {
        name: format!(
            "{} MiB from loopback HTTP into a slot, verified and synced",
            size / MIB
        ),
        floor: floor::NAME.to_owned(),
        bytes: file.size,
        pairs: Vec::new(),
        budget: BUDGET,
        beside: Vec::new(),
    };
    let mut read_back = Vec::new();
    // The first pair fills caches and slots, so that all others write over what is there; it does not count.
    for pair in 0..=pairs {
        settle();
        // Who goes first alternates too: what one leaves to the system is paid for by the other every second time.
        let (took, floor) = if pair % 2 == 0 {
            let took = ours.run(&url, &file)?;
            settle();
            (took, floor::run(dir.path(), &url, &slot, &file)?)
        } else {
            let floor = floor::run(dir.path(), &url, &slot, &file)?;
            settle();
            (ours.run(&url, &file)?, floor)
        };
        if pair > 0 {
            eprintln!(
                "pair {pair} of {pairs}: ours {:.3} s, floor {:.3} s",
                took.verified.as_secs_f64(),
                floor.as_secs_f64()
            );
            row.pairs.push((took.verified, floor));
            read_back.push(took.read_back);
        }
    }
    row.beside.push((
        "reading the slot back before activation".to_owned(),
        read_back,
    ));
    Ok(row)
}

/// A signed artifact of this size.
fn publish(
    publisher: &Publisher,
    dir: &std::path::Path,
    artifact: &std::path::Path,
    size: u64,
) -> std::io::Result<Described> {
    let raw = dir.join("image");
    Image::new("1.0", size).write(&raw)?;
    let claims = Claims {
        compatible: "bench".to_owned(),
        version: "1.0".to_owned(),
        rollback_index: 1,
    };
    let file = publisher.sign(&raw, artifact, &claims)?;
    fs::remove_file(&raw)?;
    Ok(file)
}

/// Lets nobody pay for what another left to be written.
fn settle() {
    // Without it the runs are only noisier.
    let _ = Command::new("sync").status();
}
