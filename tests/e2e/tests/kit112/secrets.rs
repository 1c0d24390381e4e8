//! No password, user name or pair appears anywhere but on its own wire.

use std::fs;
use std::path::Path;

use otahost_e2e::kit::{Kit, NEW, OLD, quoted};
use otahost_lab::centre::Centre;
use otahost_lab::ftps::{Answer, Fault, FtpsOptions, REFUSAL_522, Reuse};
use otahost_lab::image::Image;
use otahost_lab::webhook::Webhook;

use super::{MIB, PASSWORD, USER, station, strict_with};

const TOKEN: &str = "Lokum-78-Hook";
const HOOK_KEY: &str = "Gizli-Adres-5";
const WRONG: &str = "Zil-Calar-9999";

/// The bytes of every file in a directory and those below it.
fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let kind = fs::symlink_metadata(&path).unwrap();
        if kind.is_dir() {
            found.extend(files(&path));
        } else if kind.is_file() {
            found.push((path.display().to_string(), fs::read(&path).unwrap()));
        }
    }
    found
}

fn find(bytes: &[u8], text: &str) -> Option<usize> {
    bytes
        .windows(text.len())
        .position(|window| window == text.as_bytes())
}

#[test]
fn a_whole_run_with_its_failures_leaves_no_secret_in_log_journal_results_or_answers() {
    let (server, mut spec) = strict_with(FtpsOptions {
        reuse: Reuse::RequiredAndNeverOnTls13(REFUSAL_522),
        ..FtpsOptions::new(USER, PASSWORD)
    });
    let (dir, hook) = (tempfile::tempdir().unwrap(), Webhook::start());
    let medium = dir.path().join("medium");
    fs::create_dir(&medium).unwrap();
    fs::write(dir.path().join("token"), TOKEN).unwrap();
    spec.log = "info,otahost=trace,otahost_links=trace,otahost_transfer=trace,suppaftp=trace,rustls=trace,hyper=trace,hyper_util=trace"
        .into();
    spec.tables = format!(
        "[alerts.ops]\nwebhook = \"{}\"\ntoken = {{ file = {} }}\n[offline]\npath = {}\nevery = \"1s\"\n",
        hook.url(&format!("/{HOOK_KEY}?key={HOOK_KEY}")),
        quoted(&dir.path().join("token")),
        quoted(&medium),
    );
    hook.answer(503);
    let kit = Kit::on(&spec);
    let dead = kit.release_image(&Image::new(NEW, MIB / 4).that_does_not_boot(), NEW);
    server.put(&dead.name, dead.bytes.clone());

    // Callers with a wrong password, and with the right one in a wrong place.
    let wrong = kit.centre.with_password(WRONG);
    assert_eq!(wrong.update_device().unwrap().status, 401);
    let password = &spec.call_password;
    let field = format!("X-Other: {password}\r\nAuthorization: Bearer {password}\r\n");
    let answer = kit.centre.call_with(&field, "POST", "/updateDevice", b"{}");
    assert_eq!(answer.unwrap().status, 401);
    let body = format!("{{\"kitId\": \"{password}\"}}");
    let answer = kit.centre.call("POST", "/updateDevice", body.as_bytes());
    assert_eq!(answer.unwrap().status, 404);

    // A server that says back what it was told, and closes the door.
    let echo = format!("530 {USER} with {PASSWORD} is not welcome.");
    server.answer("PASS", 1, Answer::Refuse(echo));
    kit.refused(503);
    kit.crash();
    kit.await_version(OLD);
    let echo = format!("421 Too many sessions of {USER} ({PASSWORD}).");
    server.answer("TYPE", 1, Answer::Close(echo));
    kit.refused(503);

    // The whole way with a cut, a server that echoes, an image that does not come up, a sink that fails, and the next image.
    let echo = format!("502 No MDTM for {USER}:{PASSWORD}.");
    server.answer_always("MDTM", Answer::Refuse(echo));
    server.fault(&dead.name, 1, Fault::CutAfter(MIB / 8));
    kit.update();
    kit.await_last_update("rolled-back");
    kit.await_log("did not take an alert", 1);
    hook.answer(204);
    let good = kit.release("0.0.23", MIB / 4);
    server.put(&good.name, good.bytes.clone());
    let echo = format!("426 {USER} {PASSWORD} broke off.");
    server.fault(&good.name, 1, Fault::Final(echo));
    kit.await_idle();
    kit.update();
    kit.assert_runs("0.0.23", "b");
    let stick = kit.release("0.0.24", MIB / 4);
    fs::write(medium.join("update.img"), &stick.bytes).unwrap();
    kit.assert_runs("0.0.24", "a");
    // Left on the medium a moment after the version runs.
    station::result(&medium, "update.img");

    let mut said: Vec<(String, Vec<u8>)> = [
        &["status"][..],
        &["status", "--json"],
        &["jobs"],
        &["jobs", "--json"],
        &["jobs", "kit112/update/kit-0.0.23.img", "--json"],
        &["adapter", "inspect", "kit112", "--json"],
        &["adapter", "logs", "kit112", "--last", "1000", "--json"],
        &["adapter", "replay", "kit112", "--json"],
        &["check"],
    ]
    .iter()
    .map(|arguments| {
        let output = kit.cli(arguments);
        let bytes = [output.stdout, output.stderr].concat();
        (format!("{arguments:?}"), bytes)
    })
    .collect();
    said.extend(files(&medium));
    let machine = kit.machine.layout().config();
    said.extend(files(machine.parent().unwrap()));
    kit.machine.lose_power();
    said.extend(files(&kit.machine.layout().data()));

    // What is looked for is looked for in the right places.
    let log = kit.log();
    for word in ["PBSZ", "TRACE", "DEBUG", "did not take an alert"] {
        assert!(
            find(log.as_bytes(), word).is_some(),
            "the log has no {word}"
        );
    }
    let journal = said.iter().find(|(name, _)| name.ends_with("journal.redb"));
    assert!(journal.is_some_and(|(_, bytes)| find(bytes, "kit-0.0.23.img").is_some()));
    assert!(said.iter().any(|(name, _)| name.ends_with(".result.json")));

    let bearer = format!("Bearer {TOKEN}");
    let centre = kit.centre.authorization();
    let crossed = Centre::new(0, "", USER, PASSWORD).authorization();
    let mistaken = wrong.authorization();
    let pair = |authorization: &str| authorization.trim_start_matches("Basic ").to_owned();
    let secrets = [
        USER.to_owned(),
        PASSWORD.into(),
        password.clone(),
        WRONG.into(),
        TOKEN.into(),
        bearer,
        pair(&centre),
        pair(&crossed),
        pair(&mistaken),
    ];
    // The webhook's address stands in the configuration, which is the operator's own.
    let configuration = machine.display().to_string();
    for (place, bytes) in &said {
        let mut looked_for = secrets.to_vec();
        if *place != configuration {
            looked_for.push(HOOK_KEY.into());
        }
        for secret in looked_for {
            if let Some(at) = find(bytes, &secret) {
                let around = &bytes[at.saturating_sub(200)..bytes.len().min(at + 200)];
                panic!(
                    "{secret:?} is in {place}: {}",
                    String::from_utf8_lossy(around)
                );
            }
        }
    }
}
