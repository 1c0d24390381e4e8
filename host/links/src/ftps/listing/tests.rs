#![allow(clippy::unwrap_used, reason = "tests")]
use super::*;

/// Name, whether it is a directory, size, time.
type Row = (String, bool, Option<u64>, Option<u64>);

fn listed(form: Form, text: &str) -> (Vec<Row>, usize) {
    let listing = read(form, text.as_bytes(), 10_000).unwrap();
    let entries = listing
        .entries
        .into_iter()
        .map(|e| (e.name, e.directory, e.size, e.modified))
        .collect();
    (entries, listing.dropped)
}

fn file(name: &str, size: u64) -> Row {
    (name.into(), false, Some(size), None)
}

fn dir(name: &str) -> Row {
    (name.into(), true, None, None)
}

#[test]
fn mlsd_gives_names_sizes_and_times() {
    let text = "type=cdir;modify=20250802101500; /fw\r\n\
        Type=pdir;Modify=20250802101500; ..\r\n\
        type=file;size=1234;modify=20250802101500;UNIX.mode=0644; B359_1029_B242_D25080802\r\n\
        Modify=20250802101500.5;Perm=adfrw;Size=5;Type=file;  two  spaces \r\n\
        type=dir;sizd=4096; sub\r\n\
        type=OS.unix=slink:/etc;size=9; link\r\n\
        size=7; no kind\r\n";
    let (entries, dropped) = listed(Form::Mlsd, text);
    assert_eq!(
        entries,
        [
            (
                "B359_1029_B242_D25080802".into(),
                false,
                Some(1234),
                Some(1_754_129_700_000)
            ),
            (
                " two  spaces ".into(),
                false,
                Some(5),
                Some(1_754_129_700_500)
            ),
            dir("sub"),
            ("link".into(), false, None, None),
            ("no kind".into(), false, None, None),
        ]
    );
    assert_eq!(dropped, 0);
}

#[test]
fn list_of_vsftpd_is_read() {
    let text = "drwxr-xr-x    2 ftp      ftp          4096 Aug 02 10:15 old\r\n\
        -rw-r--r--    1 0        0         1048576 Aug 02 10:15 app-1.2.3.bin\r\n\
        -rw-r--r--    1 1000     1000            0 Jan 31  2019 empty file.bin\r\n\
        lrwxrwxrwx    1 ftp      ftp            13 Aug 02 10:15 latest -> app-1.2.3.bin\r\n";
    assert_eq!(
        listed(Form::List, text),
        (
            vec![
                dir("old"),
                file("app-1.2.3.bin", 1_048_576),
                file("empty file.bin", 0),
                ("latest".into(), false, None, None)
            ],
            0
        )
    );
}

#[test]
fn list_of_proftpd_is_read() {
    let text = "total 8\r\n\
        drwxr-x--x   3 kit      (?)          4096 Aug  2 10:15 .\r\n\
        drwxr-x--x   3 kit      (?)          4096 Aug  2 10:15 ..\r\n\
        -rw-r--r--+  1 kit      kits     2147483648 Aug  2 10:15 B359_1029_B242_D25080802\r\n\
        -rw-r--r--   1 kit             17 Mar 14  2024 no group\r\n\
        -rw-r--r--   1 kit      kits          17 2024-03-14 10:15 iso time\r\n";
    assert_eq!(
        listed(Form::List, text),
        (
            vec![
                file("B359_1029_B242_D25080802", 2_147_483_648),
                file("no group", 17),
                file("iso time", 17)
            ],
            0
        )
    );
}

#[test]
fn list_of_iis_is_read() {
    let text = "08-02-25  10:15AM       <DIR>          old stuff\r\n\
        08-02-2025  10:15PM              1048576 app 1.2.bin\r\n\
        2025-08-02  22:15                     17 x\r\n";
    assert_eq!(
        listed(Form::List, text),
        (
            vec![
                dir("old stuff"),
                file("app 1.2.bin", 1_048_576),
                file("x", 17)
            ],
            0
        )
    );
}

#[test]
fn a_name_may_look_like_a_date() {
    let text = "-rw-r--r--    1 0        0               5 Aug 02 10:15 7 Jan 01 2025 x\r\n\
        -rw-r--r--    1 Jan      7               5 Aug 02 10:15  lead\r\n";
    assert_eq!(
        listed(Form::List, text).0,
        [file("7 Jan 01 2025 x", 5), file(" lead", 5)]
    );
}

#[test]
fn bare_names_are_files() {
    let text = "a\r\n./b\r\n.\r\n..\r\n/etc/passwd\r\nsub/c\r\n";
    assert_eq!(
        listed(Form::Nlst, text),
        (
            vec![
                ("a".into(), false, None, None),
                ("b".into(), false, None, None)
            ],
            2
        )
    );
}

#[test]
fn hostile_names_are_left_out_and_counted() {
    let names: [&[u8]; 9] = [
        b"../x",
        b"a/b",
        b"..\\x",
        b"..",
        b"a\0b",
        b"a\x1b[2J",
        b"\xff\xfe",
        b"a\rb",
        b"",
    ];
    for name in names {
        let line = [b"type=file;size=1; ", name, b"\r\n"].concat();
        let listing = read(Form::Mlsd, &line, 10).unwrap();
        assert_eq!((listing.entries.len(), listing.dropped), (0, 1), "{name:?}");
    }
    for name in names.iter().filter(|name| **name != b"..") {
        let line = [b"-rw-r--r-- 1 0 0 5 Aug 02 10:15 ", *name, b"\r\n"].concat();
        let listing = read(Form::List, &line, 10).unwrap();
        assert_eq!((listing.entries.len(), listing.dropped), (0, 1), "{name:?}");
    }
    let long = format!(
        "type=file; {}\r\ntype=file; {}\r\n",
        "x".repeat(256),
        "x".repeat(255)
    );
    assert_eq!(listed(Form::Mlsd, &long).1, 1);
}

#[test]
fn lines_that_are_none_are_left_out_and_counted() {
    for text in [
        "prw-r--r-- 1 0 0 0 Aug 02 10:15 pipe",
        "-rw-r--r-- 1 0 0 x Aug 02 10:15 name",
        "-rw-r--r-- 1 0 0 5 Aug 42 10:15 name",
        "-rw-r--r-- 1 0 0 5 Aug 02 10:15",
        "-rw-r--r-- 1 0 0 5 Aug",
        "-",
        "d",
        "hello",
        "08-02-25 10:15AM <DIR>",
        "08-02-25 10:15AM x y",
        "08-02-25 noon 5 x",
        "ls: cannot open directory",
    ] {
        assert_eq!(listed(Form::List, text), (vec![], 1), "{text}");
    }
    for text in ["nothing", "type; x", "type=file;size=1"] {
        assert_eq!(listed(Form::Mlsd, text), (vec![], 1), "{text}");
    }
}

#[test]
fn a_listing_of_too_many_entries_is_refused_whole() {
    let text = "a\r\n".repeat(10);
    assert!(read(Form::Nlst, text.as_bytes(), 9).is_err());
    assert_eq!(
        read(Form::Nlst, text.as_bytes(), 10).unwrap().entries.len(),
        10
    );
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_a_listing_of_plain_names(
        bytes in proptest::collection::vec(proptest::sample::select(b"-drwxl 0159JanAug:/\\.;=typesizefldmo<DIR>\r\n\0\xc3\xbc".to_vec()), 0..400)
    ) {
        for form in Form::ALL {
            if let Ok(listing) = read(form, &bytes, 10) {
                proptest::prop_assert!(listing.entries.iter().all(|entry| is_name(&entry.name)));
            }
        }
    }

    #[test]
    fn a_files_line_gives_its_name_and_size(
        name in "[a-zA-Z0-9_. -]{0,20}[a-zA-Z0-9]", size in 0u64..=u64::MAX, owner in "[a-z(?)0-9]{1,8}", day in 1u8..=31
    ) {
        let unix = format!("-rw-r--r--   1 {owner}   {owner} {size:>12} Aug {day:>2} 10:15 {name}\r\n");
        proptest::prop_assert_eq!(listed(Form::List, &unix), (vec![file(&name, size)], 0));
        let mlsd = format!("size={size};type=file; {name}\r\n");
        proptest::prop_assert_eq!(listed(Form::Mlsd, &mlsd), (vec![file(&name, size)], 0));
    }
}
