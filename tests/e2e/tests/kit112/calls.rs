//! Calls that come to nothing, before anything was asked of the update server or changed.

use otahost_e2e::kit::{KIT_ID, Kit, NEW, OLD, PATIENCE};
use otahost_lab::ftps::{Answer, Fault, Ftps, FtpsOptions};
use otahost_lab::tls::Certificate;
use serde_json::{Value, json};

use super::{KIB, MIB, PASSWORD, USER, strict, strict_with};

/// A kit with an update in its folder.
fn kit() -> (Ftps, Kit) {
    let (server, spec) = strict();
    let kit = Kit::on(&spec);
    let release = kit.release(NEW, 256 * KIB);
    server.put(&release.name, release.bytes);
    (server, kit)
}

/// Nothing came of what was called: no connection, no job, and the right call still works.
fn assert_nothing_happened(server: &Ftps, kit: &Kit) {
    assert!(
        server.connections().is_empty(),
        "{:?}",
        server.connections()
    );
    assert_eq!(kit.json(&["jobs"]), json!([]));
    kit.update();
    kit.assert_runs(NEW, "b");
    kit.assert_well();
}

#[test]
fn k02_wrong_credentials_or_none_are_401_with_a_challenge_and_no_connection_is_made() {
    let (server, kit) = kit();
    let body = json!({ "kitId": KIT_ID }).to_string();
    let wrong = kit.centre.with_password("Zil-Calar-0816");
    let none = kit
        .centre
        .call_with("", "POST", "/updateDevice", body.as_bytes());
    for answer in [
        wrong.update_device(),
        none,
        wrong.call("GET", "/healthCheck", b""),
    ] {
        let answer = answer.unwrap();
        assert_eq!(answer.status, 401);
        let challenge = answer.header("www-authenticate").unwrap();
        assert!(challenge.starts_with("Basic realm="), "{challenge}");
        let said = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(!said.contains(KIT_ID) && !said.contains(OLD), "{said}");
    }
    assert_nothing_happened(&server, &kit);
}

#[test]
fn k03_a_kit_id_that_differs_in_one_character_is_404_and_no_connection_is_made() {
    let (server, kit) = kit();
    let mut last = KIT_ID.to_owned();
    last.replace_range(KIT_ID.len() - 1.., "7");
    for id in [
        last,
        KIT_ID.to_uppercase(),
        format!("{KIT_ID} "),
        String::new(),
    ] {
        let body = json!({ "kitId": id }).to_string();
        let answer = kit
            .centre
            .call("POST", "/updateDevice", body.as_bytes())
            .unwrap();
        let envelope = answer.envelope().unwrap();
        assert_eq!(answer.status, 404, "{envelope}");
        assert!(!envelope.to_string().contains(KIT_ID), "{envelope}");
    }
    assert_nothing_happened(&server, &kit);
}

#[test]
fn k05_a_second_call_while_an_update_runs_is_409_and_the_first_goes_on() {
    let (server, spec) = strict();
    let kit = Kit::on(&spec);
    let release = kit.release(NEW, MIB);
    server.put(&release.name, release.bytes.clone());
    server.fault(&release.name, 1, Fault::StallAfter(300 * KIB));
    let first = kit.update();
    let stalled = |connections: &[otahost_lab::ftps::Connection]| {
        let all = connections.iter().flat_map(|c| &c.retrievals);
        all.map(|r| r.sent).sum::<u64>() >= 300 * KIB
    };
    assert!(server.wait_for(PATIENCE, stalled));
    let connections = server.connections().len();
    kit.refused(409);
    kit.refused(409);
    assert_eq!(server.connections().len(), connections);
    assert_eq!(kit.health()["updating"], json!(true));
    server.release();
    assert_eq!(first["newVersion"], NEW);
    kit.assert_runs(NEW, "b");
    assert_eq!(kit.machine.boot_count(), 2);
    kit.assert_well();
}

#[test]
fn k05_by_configuration_a_second_call_gets_the_first_answer_again() {
    let (server, mut spec) = strict();
    spec.config_lines = "repeat = \"answer\"".into();
    let kit = Kit::on(&spec);
    let release = kit.release(NEW, MIB);
    server.put(&release.name, release.bytes.clone());
    server.fault_always(&release.name, Fault::StallAfter(300 * KIB));
    let stalls = |times: usize| {
        assert!(server.wait_for(PATIENCE, |all| {
            let sent = all.iter().flat_map(|c| &c.retrievals).map(|r| r.sent);
            sent.filter(|sent| *sent == 300 * KIB).count() == times
        }));
    };
    let first = kit.centre.update_device().unwrap();
    assert_eq!(first.status, 200);
    stalls(1);
    let second = kit.centre.update_device().unwrap();
    // Also after a crash, which the centre may take for a time-out.
    kit.crash();
    kit.await_version(OLD);
    let third = kit.centre.update_device().unwrap();
    for again in [second, third] {
        assert_eq!((first.status, &first.body), (again.status, &again.body));
    }
    stalls(2);
    server.heal(&release.name);
    server.release();
    kit.assert_runs(NEW, "b");
    assert_eq!(kit.machine.boot_count(), 2);
    kit.assert_well();
}

#[test]
fn k06_a_body_that_is_not_the_pages_is_400() {
    let (server, kit) = kit();
    for body in [
        "",
        "kitId=1",
        "[]",
        "null",
        &format!("[\"{KIT_ID}\"]"),
        "{\"kitId\": 7}",
        "{\"kitId\": null}",
        "{}",
        &format!("{{\"kitId\": \"{KIT_ID}\""),
    ] {
        let answer = kit
            .centre
            .call("POST", "/updateDevice", body.as_bytes())
            .unwrap();
        let envelope: Value = answer.envelope().unwrap();
        assert_eq!(answer.status, 400, "{body}: {envelope}");
    }
    // What is larger than the adapter may be given does not get so far: the host says 413, before the body came.
    let head = format!(
        "POST /updateDevice HTTP/1.1\r\nHost: kit\r\nConnection: close\r\nAuthorization: {}\r\nContent-Length: 1000000\r\n\r\n",
        kit.centre.authorization()
    );
    let answer = kit.centre.send(head.as_bytes()).unwrap();
    assert_eq!(answer.status, 413);
    assert_nothing_happened(&server, &kit);
}

#[test]
fn k08_a_server_without_tls_is_503_and_hears_no_user_name() {
    let (server, kit) = kit();
    server.answer_always("AUTH", Answer::Refuse("500 Unknown command.".into()));
    kit.refused(503);
    let connections = server.connections();
    assert_eq!(connections.len(), 1, "{connections:?}");
    let verbs = connections[0].verbs();
    assert!(
        !connections[0].user_before_tls && !verbs.contains(&"USER") && !verbs.contains(&"PASS"),
        "{verbs:?}"
    );
    // With TLS again, the next call works.
    server.heal("AUTH");
    kit.update();
    kit.assert_runs(NEW, "b");
    kit.assert_well();
}

#[test]
fn k09_a_certificate_that_is_not_configured_is_503_and_hears_no_user_name() {
    let (server, spec) = strict_with(FtpsOptions {
        certificate: Certificate::SelfSigned,
        ..FtpsOptions::new(USER, PASSWORD)
    });
    let kit = Kit::on(&spec);
    kit.refused(503);
    let connections = server.connections();
    assert!(!connections.is_empty());
    for connection in &connections {
        assert!(!connection.verbs().contains(&"USER"), "{connection:?}");
    }
    kit.assert_unchanged();
    kit.assert_well();
}

#[test]
fn an_update_server_that_is_not_there_is_503_and_one_that_is_silent_too_within_the_budget() {
    let (server, mut spec) = strict();
    spec.config_lines = "budget_seconds = 1".into();
    let kit = Kit::on(&spec);
    let release = kit.release(NEW, 256 * KIB);
    server.put(&release.name, release.bytes);
    server.answer("CONNECT", 1, Answer::Silence);
    kit.refused(503);
    server.release();
    // What the server says too late has started nothing.
    kit.settle();
    assert_eq!(kit.json(&["jobs"]), json!([]));
    drop(server);
    kit.refused(503);
    kit.assert_unchanged();
    kit.assert_well();
}
