//! Power cuts at every disk operation of a delivery: what is current is whole, old or new, and the next attempt gets to the end.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/archives.rs"]
mod archives;

use std::collections::BTreeMap;
use std::sync::Arc;

use archives::*;
use otahost_disk::Place;
use otahost_disk::sim::{Controls, Image, Loss, SimDisk};
use otahost_flash::archive::ArchiveSetup;
use otahost_flash::{Archive, ArchiveLimits, Flasher, Staged, Standing, Work};

const STAGE: &str = "/device/emu";

type Content = BTreeMap<String, Vec<u8>>;

fn old() -> Vec<Item> {
    vec![
        file("version", "1"),
        file("only/old", "x"),
        file("both", &"o".repeat(2000)),
    ]
}

fn new() -> Vec<Item> {
    vec![
        file("version", "2"),
        file("d/e/f", "deep"),
        file("both", &"n".repeat(3000)),
        link("d/l", "e/f"),
    ]
}

/// Files, and links by where they lead.
fn content(items: &[Item]) -> Content {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let pairs = items.iter().map(|item| match item {
        Item::File(name, content) => (text(name), content.clone()),
        Item::Link(name, target) => (text(name), target.clone()),
        _ => unreachable!(),
    });
    pairs.collect()
}

fn archive(disk: &Arc<SimDisk>) -> Archive {
    Archive::new(
        disk.clone(),
        ArchiveSetup {
            directory: Place::operator(STAGE),
            deliver: None,
            limits: ArchiveLimits::default(),
        },
    )
}

fn staged(bytes: &[u8]) -> Staged {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    Staged {
        place: "artifact".into(),
        len: bytes.len() as u64,
        sha256: digest.as_ref().iter().map(|b| format!("{b:02x}")).collect(),
    }
}

/// What a job does from the first byte to the confirmation.
fn update(disk: &Arc<SimDisk>, bytes: &[u8]) {
    let flasher = archive(disk);
    let staged = staged(bytes);
    let stage = flasher.begin(true).unwrap();
    stage.write_at(bytes, 0).unwrap();
    stage.sync().unwrap();
    assert_eq!(
        flasher.finish(bytes.len() as u64, &staged.sha256).unwrap(),
        staged
    );
    flasher.verify(&staged).unwrap();
    flasher.deliver(&staged, &Work::quiet()).unwrap();
    flasher.activate(&staged, &Work::quiet()).unwrap();
    flasher.confirm(&staged).unwrap();
}

/// What is current: nothing before the first delivery.
fn current(image: &Image) -> Option<Content> {
    let link = image.read_link(&Place::operator(STAGE).join("current"))?;
    let tree = Place::operator(STAGE).join(link);
    let files = image.files().filter_map(|place| {
        let name = place.path().strip_prefix(tree.path()).ok()?;
        Some((
            name.to_str().unwrap().to_owned(),
            image.read(place).unwrap(),
        ))
    });
    let mut found: Content = files.collect();
    let link = tree.join("d/l");
    if let Some(target) = image.read_link(&link) {
        found.insert("d/l".into(), target.to_str().unwrap().into());
    }
    Some(found)
}

fn device() -> Image {
    let mut image = Image::new();
    image.create_dir(&Place::operator("/device"));
    image
}

fn losses() -> impl Iterator<Item = Loss> {
    [Loss::AllDropped, Loss::AllKept]
        .into_iter()
        .chain((0..4).map(Loss::Seeded))
}

/// Cuts everywhere in an update from one content to another; gives how many disks were looked at and what was broken.
fn cut_everywhere(
    start: Image,
    before: Option<&Content>,
    controls: Controls,
) -> (usize, Vec<String>) {
    let bytes = gz(&tar(&new()));
    let after = content(&new());
    let disk = Arc::new(SimDisk::from_image(start));
    disk.set_controls(controls);
    update(&disk, &bytes);
    let record = disk.record();
    let (mut looked_at, mut broken) = (0, Vec::new());
    for cut in 0..=record.ops.len() {
        for loss in losses() {
            looked_at += 1;
            let image = record.image_after(cut, loss);
            let now = current(&image);
            if now.as_ref() != before && now.as_ref() != Some(&after) {
                broken.push(format!("cut {cut}, {loss:?}: current is {now:?}"));
                continue;
            }
            // What is said to be delivered is current.
            let disk = Arc::new(SimDisk::from_image(image));
            let standing = archive(&disk).standing(&staged(&bytes)).unwrap();
            if matches!(standing, Standing::New { .. }) && now.as_ref() != Some(&after) {
                broken.push(format!("cut {cut}, {loss:?}: delivered, and not current"));
            }
            update(&disk, &bytes);
            let image = disk.image(Loss::AllDropped);
            let trees = image
                .files()
                .filter(|place| place.path().ends_with("version"));
            if current(&image).as_ref() != Some(&after) || trees.count() != 1 {
                broken.push(format!(
                    "cut {cut}, {loss:?}: the next attempt does not end well"
                ));
            }
        }
    }
    (looked_at, broken)
}

#[test]
fn after_any_cut_what_is_current_is_whole_and_the_next_attempt_ends_well() {
    let first = cut_everywhere(device(), None, Controls::default());
    assert_eq!(
        first.1,
        [] as [String; 0],
        "{} of {}",
        first.1.len(),
        first.0
    );
    let disk = Arc::new(SimDisk::from_image(device()));
    update(&disk, &tar(&old()));
    let old = content(&old());
    let second = cut_everywhere(
        disk.image(Loss::AllDropped),
        Some(&old),
        Controls::default(),
    );
    assert_eq!(
        second.1,
        [] as [String; 0],
        "{} of {}",
        second.1.len(),
        second.0
    );
    assert!(second.0 > 150, "{}", second.0);
}

#[test]
fn without_syncs_of_files_or_of_directories_it_would_not() {
    for (skip_file_sync, skip_dir_sync) in [(true, false), (false, true)] {
        let controls = Controls {
            skip_file_sync,
            skip_dir_sync,
            ..Controls::default()
        };
        let disk = Arc::new(SimDisk::from_image(device()));
        update(&disk, &tar(&old()));
        let old = content(&old());
        let (_, broken) = cut_everywhere(disk.image(Loss::AllDropped), Some(&old), controls);
        assert!(
            !broken.is_empty(),
            "the test cannot see what it is there for"
        );
    }
}
