//! What a directory holds, in whichever format the server speaks.

use otahost_core::model::DirectoryEntry;
use otahost_lab::ftps::{Answer, Fault, Ftps};
use otahost_links::ftps::FtpsError;
use otahost_links::{Link, LinkCommand, LinkEvent};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{LIMIT, PASSWORD, USER, content, lab, link};

/// A directory as a kit finds it.
fn serving() -> Ftps {
    let server = lab();
    server.put("kits/7/B359_1029_B242_D25080802", content(1_000));
    server.put("kits/7/B359_1030 with space", content(7));
    server.put("kits/7/old/x", content(1));
    server.date("kits/7/B359_1029_B242_D25080802", Some("20250802101500"));
    server
}

fn sorted(mut entries: Vec<DirectoryEntry>) -> Vec<(String, bool, Option<u64>)> {
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    let entries = entries.into_iter();
    entries.map(|e| (e.name, e.directory, e.size)).collect()
}

fn names(entries: Vec<DirectoryEntry>) -> Vec<String> {
    sorted(entries).into_iter().map(|(name, ..)| name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_gives_names_sizes_and_times() {
    let server = serving();
    let entries = link(server.port()).list("/kits/7").await.unwrap();
    let dated = entries.iter().find(|e| e.name.contains("1029")).unwrap();
    assert_eq!(dated.modified, Some(1_754_129_700_000));
    assert_eq!(
        sorted(entries),
        [
            ("B359_1029_B242_D25080802".into(), false, Some(1_000)),
            ("B359_1030 with space".into(), false, Some(7)),
            ("old".into(), true, None),
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_mlsd_is_asked_for_list_and_not_for_mlsd_again() {
    let server = serving();
    server.answer_always("MLSD", Answer::Refuse("500 Unknown command.".into()));
    let link = link(server.port());
    for _ in 0..2 {
        assert_eq!(
            sorted(link.list("kits/7").await.unwrap()),
            [
                ("B359_1029_B242_D25080802".into(), false, Some(1_000)),
                ("B359_1030 with space".into(), false, Some(7)),
                ("old".into(), true, None),
            ]
        );
    }
    let asked = |n: usize, verb| server.connections()[n].verbs().contains(&verb);
    assert!(asked(0, "MLSD") && asked(0, "LIST"));
    assert!(!asked(1, "MLSD") && asked(1, "LIST"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_names_only_gives_names() {
    let server = serving();
    for verb in ["MLSD", "LIST"] {
        server.answer_always(verb, Answer::Refuse("502 Not here.".into()));
    }
    let entries = link(server.port()).list("kits/7").await.unwrap();
    assert!(entries.iter().all(|e| !e.directory && e.size.is_none()));
    assert_eq!(
        names(entries),
        ["B359_1029_B242_D25080802", "B359_1030 with space", "old"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_lists_nothing_at_all_says_why() {
    let server = serving();
    for verb in ["MLSD", "LIST", "NLST"] {
        server.answer_always(verb, Answer::Refuse("502 Not here.".into()));
    }
    let error = link(server.port()).list("kits/7").await.unwrap_err();
    assert!(matches!(error, FtpsError::Broken(_)), "{error}");
    assert!(error.to_string().contains("502"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_are_not_listed() {
    for without in [&[][..], &["MLSD"], &["MLSD", "LIST"]] {
        let server = serving();
        for verb in without {
            server.answer_always(verb, Answer::Refuse("500 Unknown command.".into()));
        }
        for name in [
            &b"../../etc/passwd"[..],
            b"..\\x",
            b"/etc/passwd",
            b"a\0b",
            b"a\x1b[2Jb",
            b"\xff\xfe",
            &[b'x'; 256],
        ] {
            server.list_name("kits/7", name, 5);
        }
        assert_eq!(
            names(link(server.port()).list("kits/7").await.unwrap()),
            ["B359_1029_B242_D25080802", "B359_1030 with space", "old"],
            "{without:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_directory_and_a_missing_one_are_told_apart() {
    let server = serving();
    server.make_directory("none");
    let link = link(server.port());
    for refused in ["", "MLSD", "LIST"] {
        if !refused.is_empty() {
            server.answer_always(refused, Answer::Refuse("500 Unknown command.".into()));
        }
        assert_eq!(link.list("none").await, Ok(Vec::new()));
        let error = link.list("nowhere").await.unwrap_err();
        assert!(matches!(error, FtpsError::Missing(_)), "{error}");
    }
    server.heal("LIST");
    server.answer_always("LIST", Answer::Refuse("550 No files found.".into()));
    assert_eq!(link.list("none").await, Ok(Vec::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_without_end_is_refused() {
    let many: String = (0..10_001)
        .map(|n| format!("type=file;size=1; f{n}\r\n"))
        .collect();
    let large = vec![b'x'; 5 * 1024 * 1024];
    for (bytes, expected) in [(many.into_bytes(), "10000 entries"), (large, "bytes")] {
        let server = serving();
        server.list_raw("kits", bytes);
        let error = link(server.port()).list("kits").await.unwrap_err();
        assert!(matches!(error, FtpsError::Broken(_)), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_that_broke_off_is_no_listing() {
    for fault in [
        Fault::CutAfter(40),
        Fault::DropAfter(40),
        Fault::Final("451 Local error.".into()),
    ] {
        let server = serving();
        server.fault("kits/7", 1, fault.clone());
        let error = link(server.port()).list("kits/7").await.unwrap_err();
        assert!(matches!(error, FtpsError::Broken(_)), "{fault:?}: {error}");
        assert!(!error.is_final());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_link_answers_each_listing_in_order_and_says_nothing_else() {
    let server = serving();
    let (events, mut answers) = mpsc::channel(64);
    let commands = link(server.port()).start(events);
    let paths = ["kits/7", "nowhere", "../..", "kits"];
    for (id, path) in paths.iter().enumerate() {
        // What is not for this kind of link is passed over.
        commands
            .send(LinkCommand::Subscribe(Vec::new()))
            .await
            .unwrap();
        let (id, path) = (id as u64, (*path).to_owned());
        commands.send(LinkCommand::List { id, path }).await.unwrap();
    }
    for (expected, path) in paths.iter().enumerate() {
        let answer = timeout(LIMIT, answers.recv()).await.unwrap().unwrap();
        let LinkEvent::Listed { id, entries } = answer else {
            panic!("{answer:?}")
        };
        assert_eq!(id, expected as u64);
        match (*path, entries) {
            ("kits/7", Ok(entries)) => assert_eq!(entries.len(), 3),
            ("kits", Ok(entries)) => assert_eq!(names(entries), ["7"]),
            ("nowhere" | "../..", Err(text)) => {
                assert!(!text.contains(USER) && !text.contains(PASSWORD), "{text}");
            }
            (path, other) => panic!("{path}: {other:?}"),
        }
    }
    drop(commands);
    assert_eq!(
        timeout(LIMIT, answers.recv()).await.unwrap(),
        None,
        "the link ends"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_whose_agent_is_gone_ends_in_the_middle_of_a_listing() {
    let server = serving();
    server.answer_always("CWD", Answer::Silence);
    let (events, answers) = mpsc::channel(64);
    let commands = link(server.port()).start(events);
    let list = LinkCommand::List {
        id: 1,
        path: "kits".into(),
    };
    commands.send(list).await.unwrap();
    assert!(server.wait_for(LIMIT, |all| all.iter().any(|c| c.silent)));
    drop(answers);
    timeout(LIMIT, commands.closed())
        .await
        .expect("the link ends");
    assert!(server.wait_for(LIMIT, |all| all.iter().all(|c| c.closed)));
}
