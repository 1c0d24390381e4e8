//! Archives into a directory: what is unpacked, what is refused, and how far a failed delivery gets.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/archives.rs"]
mod archives;
#[path = "support/bench.rs"]
mod bench;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use archives::*;
use bench::Bench;
use otahost_flash::{Activation, ArchiveLimits, FlashError, Flasher, Standing, Work};
use tar::EntryType;

fn fixture(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    std::fs::read(path.join(name)).unwrap()
}

#[test]
fn what_the_usual_tools_make_is_unpacked_whole() {
    let firmware: Vec<u8> = (0..40).flat_map(|_| 0..=255u8).collect();
    for name in [
        "python.zip",
        "python-streamed-zip64.zip",
        "info-zip.zip",
        "gnu.tar",
        "pax.tar.gz",
        "ustar.tar.zst",
    ] {
        let bench = Bench::new();
        bench.deliver(&fixture(name)).unwrap();
        let current = bench.path("stage/current");
        let read = |path: &str| std::fs::read(current.join(path)).unwrap();
        assert_eq!(read("emu/version.txt"), b"2.0.1\n", "{name}");
        assert_eq!(read("emu/now"), b"2.0.1\n", "{name}");
        assert_eq!(read("emu/data/固件.bin"), firmware, "{name}");
        let mode = |path: &str| {
            let found = std::fs::metadata(current.join(path)).unwrap();
            found.permissions().mode() & 0o100
        };
        assert_eq!(
            (mode("emu/run.sh"), mode("emu/version.txt")),
            (0o100, 0),
            "{name}"
        );
    }
}

#[test]
fn the_new_directory_takes_the_place_of_the_old_one_with_nothing_left_of_it() {
    let bench = Bench::new();
    bench
        .deliver(&tar(&[file("old", "1"), file("both", "1")]))
        .unwrap();
    let staged = bench
        .deliver(&zip(&[
            file("both", "2"),
            dir("d/"),
            Item::Program(b"d/e/run".to_vec(), b"x".to_vec()),
            link("d/e/l", "../../both"),
        ]))
        .unwrap();
    let expected = [
        ("both", "2"),
        ("d/", ""),
        ("d/e/", ""),
        ("d/e/l", "-> ../../both"),
        ("d/e/run", "x"),
    ];
    let expected: BTreeMap<_, _> = expected
        .iter()
        .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
        .collect();
    assert_eq!(bench.current(), expected);
    let flasher = bench.flasher();
    assert_eq!(
        flasher.activate(&staged, &Work::quiet()),
        Ok(Activation::Now)
    );
    assert_eq!(
        flasher.standing(&staged),
        Ok(Standing::New { confirmed: false })
    );
    flasher.confirm(&staged).unwrap();
    assert_eq!(
        flasher.standing(&staged),
        Ok(Standing::New { confirmed: true })
    );
    let mut left: Vec<_> = std::fs::read_dir(bench.path("stage"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["b", "current", "delivered"]);
}

#[test]
fn nothing_leads_back_from_what_was_delivered_and_that_is_said() {
    let bench = Bench::new();
    let flasher = bench.flasher();
    let never = bench.stage(&tar(&[file("f", "1")]));
    assert_eq!(
        flasher.roll_back(&never, &Work::quiet()),
        Ok(Activation::Now),
        "nothing was delivered"
    );
    assert!(flasher.activate(&never, &Work::quiet()).is_err());
    assert_eq!(flasher.standing(&never), Ok(Standing::NotActivated));
    let staged = bench.deliver(&tar(&[file("f", "1")])).unwrap();
    assert!(matches!(
        flasher.roll_back(&staged, &Work::quiet()),
        Err(FlashError::NoWayBack(_))
    ));
}

/// What no archive may hold, with a word of the reason, as tar and as zip where both can.
fn hostile() -> Vec<(&'static str, &'static str, Vec<Vec<u8>>)> {
    let both = |items: &[Item]| vec![tar(items), gz(&tar(items)), zst(&tar(items)), zip(items)];
    let named = |name: &str| both(&[file("fine", "x"), file(name, "x")]);
    let bytes = |name: &[u8]| Item::File(name.to_vec(), b"x".to_vec());
    let other = |kind| vec![tar(&[Item::Other(kind, b"e".to_vec(), b"fine".to_vec())])];
    let long = "d/".repeat(2100) + "f";
    let spoilt = |spoil| vec![spoilt_zip(&[file("f", "content")], spoil)];
    let spoil = Spoil::default();
    let cut = |bytes: Vec<u8>| bytes[..bytes.len() * 2 / 3].to_vec();
    let noise: String = (0..4_000u32)
        .map(|n| char::from(b'a' + (n.wrapping_mul(2_654_435_761) >> 27) as u8 % 26))
        .collect();
    vec![
        ("climbs", "leads out", named("../precious")),
        (
            "climbs in the middle",
            "leads out",
            named("a/../../precious"),
        ),
        ("climbs and stays", "leads out", named("a/../b")),
        ("absolute", "absolute", named("/tmp/otahost-hostile")),
        ("two separators", "absolute", named("//tmp/otahost-hostile")),
        ("backslash", "backslash", named("..\\precious")),
        ("drive", "drive", named("C:/precious")),
        ("drive alone", "drive", named("c:precious")),
        ("line feed", "control", named("a\nb")),
        ("NUL", "control", vec![zip(&[file("a\0b", "x")])]),
        ("not UTF-8", "UTF-8", both(&[bytes(b"\xff\xfe")])),
        (
            "too long a name",
            "too long",
            vec![zip(&[bytes(&[b'n'; 300])]), tar(&[bytes(&[b'n'; 300])])],
        ),
        (
            "too long a path",
            "too long",
            vec![zip(&[file(&long, "x")]), tar(&[file(&long, "x")])],
        ),
        (
            "too deep",
            "deeper",
            both(&[file(&("d/".repeat(33) + "f"), "x")]),
        ),
        ("twice", "named", both(&[file("f", "1"), file("./f", "2")])),
        (
            "file and directory",
            "something else",
            both(&[file("f", "1"), file("f/g", "2")]),
        ),
        (
            "directory and file",
            "named",
            both(&[file("f/g", "1"), file("f", "2")]),
        ),
        ("link out", "lead out", both(&[link("l", "../precious")])),
        (
            "link out of a directory",
            "lead out",
            both(&[link("d/l", "../../precious")]),
        ),
        (
            "absolute link",
            "leads out",
            both(&[link("l", "/etc/passwd")]),
        ),
        (
            "link that climbs behind a name",
            "lead out",
            both(&[link("l", "d/../../precious")]),
        ),
        (
            "link with a backslash",
            "backslash",
            both(&[link("l", "..\\x")]),
        ),
        ("empty link", "leads out", both(&[link("l", "")])),
        (
            "through a link",
            "something else",
            both(&[link("l", "d"), file("l/f", "x")]),
        ),
        (
            "through a link to itself",
            "something else",
            both(&[link("l", "."), dir("l/d")]),
        ),
        (
            "over a link",
            "named",
            both(&[link("l", "fine"), file("l", "x")]),
        ),
        ("hard link", "hard link", other(EntryType::Link)),
        ("fifo", "device or a pipe", other(EntryType::Fifo)),
        (
            "character device",
            "device or a pipe",
            other(EntryType::Char),
        ),
        ("block device", "device or a pipe", other(EntryType::Block)),
        (
            "sparse",
            "kind that is not known",
            other(EntryType::GNUSparse),
        ),
        (
            "unknown kind",
            "kind that is not known",
            other(EntryType::new(b'Z')),
        ),
        (
            "fifo in a zip",
            "device or a pipe",
            spoilt(Spoil {
                mode: Some(0o010_644),
                ..spoil
            }),
        ),
        (
            "device in a zip",
            "device or a pipe",
            spoilt(Spoil {
                mode: Some(0o060_644),
                ..spoil
            }),
        ),
        (
            "encrypted",
            "encrypted",
            spoilt(Spoil {
                encrypted: true,
                ..spoil
            }),
        ),
        (
            "unknown method",
            "method 14",
            spoilt(Spoil {
                method: Some(14),
                ..spoil
            }),
        ),
        (
            "cloaked",
            "another one",
            spoilt(Spoil {
                cloaked: true,
                ..spoil
            }),
        ),
        (
            "wrong check sum",
            "check sum",
            spoilt(Spoil { crc: true, ..spoil }),
        ),
        (
            "longer than it says",
            "longer than it says",
            spoilt(Spoil {
                size: true,
                ..spoil
            }),
        ),
        (
            "more entries than there are",
            "directory is broken",
            spoilt(Spoil {
                entries: Some(2),
                ..spoil
            }),
        ),
        (
            "too many entries",
            "allowed",
            both(
                &(0..60)
                    .map(|n| file(&format!("f{n}"), "x"))
                    .collect::<Vec<_>>(),
            ),
        ),
        (
            "directories that are entries",
            "allowed",
            both(&[
                file("1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17/18/19/20/f", "x"),
                file(
                    "a/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17/18/19/20/21/22/23/24/25/26/27/28/29/30/f",
                    "x",
                ),
            ]),
        ),
        (
            "too large",
            "bytes allowed",
            both(&[Item::Zeros(b"z".to_vec(), 30 << 20)]),
        ),
        (
            "too large together",
            "bytes allowed",
            both(&[
                Item::Zeros(b"y".to_vec(), 13 << 20),
                Item::Zeros(b"z".to_vec(), 13 << 20),
            ]),
        ),
        (
            "too high a ratio",
            "times its own size",
            vec![
                gz(&tar(&[Item::Zeros(b"z".to_vec(), 20 << 20)])),
                zip(&[Item::Zeros(b"z".to_vec(), 20 << 20)]),
            ],
        ),
        (
            "empty",
            "nothing",
            vec![zip(&[]), gz(&tar(&[])), zst(&tar(&[]))],
        ),
        ("only itself", "nothing", both(&[dir("./")])),
        ("itself as a file", "itself", both(&[file(".", "")])),
        (
            "no archive",
            "neither",
            vec![
                b"MZ nothing of that kind".to_vec(),
                Vec::new(),
                vec![0; 4096],
            ],
        ),
        (
            "no tar in it",
            "read",
            vec![gz(b"just text"), zst(b"just text")],
        ),
        (
            "cut",
            "",
            vec![
                cut(tar(&[file("f", &noise)])),
                cut(gz(&tar(&[file("f", &noise)]))),
                cut(zst(&tar(&[file("f", &noise)]))),
                cut(zip(&[file("f", &noise)])),
            ],
        ),
        (
            "goes on after its end",
            "after its end",
            vec![[tar(&[file("f", "x")]), vec![7; 2 << 20]].concat()],
        ),
        (
            "long extension",
            "extension",
            vec![gz(&tar_with_extension(
                EntryType::GNULongName,
                &vec![b'n'; 70_000],
            ))],
        ),
        (
            "extension of nothing",
            "extension",
            vec![
                tar_with_extension(EntryType::XHeader, &pax_record("path", b"p"))[..1024]
                    .iter()
                    .copied()
                    .chain([0; 1024])
                    .collect(),
            ],
        ),
        (
            "two sizes",
            "two sizes",
            vec![tar_with_extension(
                EntryType::XHeader,
                &pax_record("size", b"99999"),
            )],
        ),
        (
            "pax leads out",
            "leads out",
            vec![tar_with_extension(
                EntryType::XHeader,
                &pax_record("path", b"../precious"),
            )],
        ),
        (
            "pax is not UTF-8",
            "UTF-8",
            vec![tar_with_extension(
                EntryType::XHeader,
                &pax_record("path", b"\xff"),
            )],
        ),
        (
            "pax sparse",
            "sparse",
            vec![tar_with_extension(
                EntryType::XHeader,
                &pax_record("GNU.sparse.major", b"1"),
            )],
        ),
    ]
}

#[test]
fn a_hostile_archive_is_refused_at_unpacking_and_touches_nothing_outside_and_not_what_is_current() {
    let mut bench = Bench::new();
    bench.limits = ArchiveLimits {
        entries: 50,
        unpacked: 25 << 20,
        ratio: 100,
        depth: 32,
    };
    bench.deliver(&tar(&[file("good", "1")])).unwrap();
    let (current, beside) = (bench.current(), bench.beside());
    for (name, why, forms) in hostile() {
        for (form, archive) in forms.iter().enumerate() {
            let error = bench
                .deliver(archive)
                .expect_err(&format!("{name}, form {form}"));
            assert_eq!(
                error.stage(),
                Some("unpack"),
                "{name}, form {form}: {error}"
            );
            let text = error.to_string();
            assert!(text.contains(why), "{name}, form {form}: {text}");
            assert!(!text.contains('\n'), "{name}: {text}");
            assert!(
                matches!(error.cause(), FlashError::Refused(_)),
                "{name}: {error:?}"
            );
            assert_eq!(bench.current(), current, "{name}, form {form}");
            assert_eq!(bench.beside(), beside, "{name}, form {form}");
        }
    }
    assert!(!Path::new("/tmp/otahost-hostile").exists());
    // What the last of them left is cleared by the next.
    bench.deliver(&tar(&[file("good", "2")])).unwrap();
    assert_eq!(bench.current()["good"], "2");
    assert_eq!(bench.current().len(), 1);
}

#[test]
fn a_garbled_archive_of_any_kind_is_never_a_panic_and_never_half_current() {
    let items = [
        file("a/one", &"text ".repeat(300)),
        link("a/l", "one"),
        Item::Program(b"run".to_vec(), vec![7; 3000]),
    ];
    let bench = Bench::new();
    bench.deliver(&tar(&[file("good", "1")])).unwrap();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for whole in [
        zip(&items),
        tar(&items),
        gz(&tar(&items)),
        zst(&tar(&items)),
    ] {
        for _ in 0..60 {
            let mut garbled = whole.clone();
            for _ in 0..=random() % 4 {
                let at = (random() % garbled.len() as u64) as usize;
                garbled[at] = random() as u8;
            }
            if bench.deliver(&garbled).is_err() {
                let left = bench.current();
                assert!(
                    left.contains_key("good") || left.contains_key("run"),
                    "{left:?}"
                );
            }
        }
    }
}

#[test]
fn numbers_that_count_over_the_end_of_a_zip_are_refused() {
    let whole = zip(&[file("f", "content")]);
    let end = whole.len() - 22;
    for at in (0..22).chain([26, 27, 28, 29]) {
        for value in [0x00, 0x7f, 0xff] {
            let mut spoilt = whole.clone();
            let index = if at < 22 { end + at } else { at };
            spoilt[index] = value;
            // Some of these bytes mean nothing; what is refused is refused in order.
            if let Err(error) = Bench::new().deliver(&spoilt) {
                assert_eq!(error.stage(), Some("unpack"), "{at}: {error}");
            }
        }
    }
    for field in [10..12, 12..16, 16..20] {
        let mut spoilt = whole.clone();
        spoilt[end..][field.clone()].fill(0xff);
        let error = Bench::new().deliver(&spoilt).unwrap_err();
        assert_eq!(error.stage(), Some("unpack"), "{field:?}: {error}");
    }
}

#[test]
fn something_else_in_the_place_of_the_link_is_told_at_start_and_at_clearing() {
    let bench = Bench::new();
    bench.deliver(&tar(&[file("f", "1")])).unwrap();
    std::fs::remove_file(bench.path("stage/current")).unwrap();
    std::fs::create_dir(bench.path("stage/current")).unwrap();
    let error = bench.flasher().inspect().unwrap_err();
    assert!(error.to_string().contains("current"), "{error}");
    let error = bench.deliver(&tar(&[file("f", "2")])).unwrap_err();
    assert_eq!(error.stage(), Some("clear"), "{error}");
}

#[test]
fn what_cannot_be_cleared_is_a_failure_of_clearing() {
    let bench = Bench::new();
    let staged = bench.stage(&tar(&[file("f", "1")]));
    // A file in the place of a directory is cleared; a directory in the place of the link that is to be made is not.
    std::fs::create_dir(bench.path("stage/current.new")).unwrap();
    let error = bench
        .flasher()
        .deliver(&staged, &Work::quiet())
        .unwrap_err();
    assert_eq!(error.stage(), Some("clear"), "{error}");
}
