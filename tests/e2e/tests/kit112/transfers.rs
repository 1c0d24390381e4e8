//! What the lab's strict server does to a download, and what the kit makes of it: the bytes, and what is said meanwhile.

use std::net::Ipv4Addr;

use otahost_e2e::kit::{Kit, NEW, OLD, PATIENCE, Release};
use otahost_lab::ftps::{
    Answer, Fault, Ftps, FtpsOptions, REFUSAL_425, REFUSAL_522, Retrieval, Reuse,
};
use otahost_lab::image::Image;
use otahost_lab::webhook::Webhook;
use serde_json::{Value, json};

use super::{KIB, MIB, PASSWORD, USER, strict, strict_with};

/// A server with these options, a kit, and its update.
fn with(options: FtpsOptions) -> (Ftps, Kit, Release) {
    let (server, spec) = strict_with(options);
    let kit = Kit::on(&spec);
    let release = kit.release(NEW, MIB);
    server.put(&release.name, release.bytes.clone());
    (server, kit, release)
}

fn plain() -> (Ftps, Kit, Release) {
    with(FtpsOptions::new(USER, PASSWORD))
}

/// The transfers of the firmware itself.
fn retrievals(server: &Ftps, release: &Release) -> Vec<Retrieval> {
    let path = format!("/{}", release.name);
    let all = server.retrievals().into_iter();
    all.filter(|retrieval| retrieval.path == path).collect()
}

/// Where each of them began.
fn offsets(server: &Ftps, release: &Release) -> Vec<u64> {
    let all = retrievals(server, release).into_iter();
    all.map(|retrieval| retrieval.offset).collect()
}

fn assert_updated(kit: &Kit, release: &Release) {
    kit.assert_runs(NEW, "b");
    kit.assert_holds("b", release);
    assert_eq!(kit.machine.boot_count(), 2);
    kit.assert_well();
}

/// K07 too: the order on the wire of the transfer that was resumed.
#[test]
fn k10_a_download_that_is_cut_at_37_percent_goes_on_at_exactly_that_byte() {
    let (server, kit, release) = with(FtpsOptions {
        reuse: Reuse::Required(REFUSAL_522),
        ..FtpsOptions::new(USER, PASSWORD)
    });
    let cut = release.file.size * 37 / 100;
    server.fault(&release.name, 1, Fault::CutAfter(cut));
    kit.update();
    assert_updated(&kit, &release);
    assert_eq!(offsets(&server, &release), [0, cut]);
    let sent: u64 = retrievals(&server, &release).iter().map(|r| r.sent).sum();
    assert_eq!(sent, release.file.size, "no byte came twice");
    let connections = server.connections();
    let last = connections
        .iter()
        .rfind(|c| c.retrievals.iter().any(|r| r.offset == cut))
        .unwrap();
    let lines = last.sequence();
    let wanted = [
        "AUTH TLS".to_owned(),
        "(TLS)".into(),
        "PBSZ 0".into(),
        "PROT P".into(),
        format!("USER {USER}"),
        "PASS ***".into(),
        "TYPE I".into(),
    ];
    assert_eq!(lines[..wanted.len()], wanted, "{lines:?}");
    let retr = lines.iter().position(|l| l.starts_with("RETR")).unwrap();
    assert_eq!(lines[retr - 1], format!("REST {cut}"), "{lines:?}");
    assert_eq!(lines[retr - 2], "PASV", "{lines:?}");
}

#[test]
fn k10_a_download_goes_on_where_it_was_after_the_agent_was_killed() {
    let (server, kit, release) = plain();
    let cut = release.file.size * 37 / 100;
    server.fault(&release.name, 1, Fault::StallAfter(cut));
    kit.update();
    assert!(server.wait_for(PATIENCE, |all| {
        all.iter()
            .flat_map(|c| &c.retrievals)
            .any(|r| r.sent == cut)
    }));
    kit.crash();
    assert_updated(&kit, &release);
    // What was written and not yet noted as written is fetched again, and nothing beyond what had come is left out.
    let offsets = offsets(&server, &release);
    assert!(
        offsets.len() == 2 && offsets[0] == 0 && offsets[1] <= cut,
        "{offsets:?}"
    );
}

#[test]
fn k11_a_file_that_was_replaced_under_its_name_starts_at_byte_0() {
    let (server, kit, release) = plain();
    let cut = release.file.size * 37 / 100;
    server.fault(&release.name, 1, Fault::StallAfter(cut));
    kit.update();
    assert!(server.wait_for(PATIENCE, |all| {
        all.iter()
            .flat_map(|c| &c.retrievals)
            .any(|r| r.sent == cut)
    }));
    // As long as the first, with another date.
    let other = kit.release_image(&Image::new(NEW, MIB).with_seed(7), NEW);
    assert_eq!(other.file.size, release.file.size);
    server.put(&other.name, other.bytes.clone());
    server.cut();
    assert_updated(&kit, &other);
    assert_eq!(offsets(&server, &other), [0, 0]);
}

#[test]
fn k11_a_file_of_another_size_under_its_name_is_not_put_together_with_the_first() {
    let (server, kit, release) = plain();
    let cut = release.file.size * 37 / 100;
    server.fault(&release.name, 1, Fault::StallAfter(cut));
    kit.update();
    assert!(server.wait_for(PATIENCE, |all| {
        all.iter()
            .flat_map(|c| &c.retrievals)
            .any(|r| r.sent == cut)
    }));
    let other = kit.release_image(&Image::new(NEW, MIB + 4 * KIB).with_seed(7), NEW);
    server.put(&other.name, other.bytes.clone());
    server.cut();
    // The centre was told a size by the folder; the file is another now. The next call looks anew.
    kit.await_job("failed");
    kit.update();
    assert_updated(&kit, &other);
    assert_eq!(offsets(&server, &other).last(), Some(&0));
}

#[test]
fn k12_a_server_that_refuses_rest_sends_the_file_from_byte_0() {
    let (server, kit, release) = plain();
    server.answer_always(
        "REST",
        Answer::Refuse("502 Command not implemented.".into()),
    );
    server.fault(&release.name, 1, Fault::CutAfter(400 * KIB));
    kit.update();
    assert_updated(&kit, &release);
    assert_eq!(offsets(&server, &release), [0, 0]);
}

#[test]
fn k13_a_226_with_bytes_missing_is_not_believed() {
    let (server, kit, release) = plain();
    server.fault(&release.name, 1, Fault::ShortAfter(400 * KIB));
    kit.update();
    assert_updated(&kit, &release);
    assert_eq!(offsets(&server, &release), [0, 400 * KIB]);
}

#[test]
fn k14_all_bytes_with_226_are_accepted_without_close_notify() {
    let (server, kit, release) = plain();
    server.fault_always(&release.name, Fault::NoCloseNotify);
    kit.update();
    assert_updated(&kit, &release);
    assert_eq!(offsets(&server, &release), [0]);
}

#[test]
fn k14_all_bytes_with_426_are_an_interruption_and_are_not_fetched_again() {
    let (server, kit, release) = plain();
    server.fault(
        &release.name,
        1,
        Fault::Final("426 Failure writing network stream.".into()),
    );
    kit.update();
    assert_updated(&kit, &release);
    assert_eq!(offsets(&server, &release), [0]);
}

#[test]
fn k15_the_address_that_pasv_names_is_not_used() {
    let (_server, kit, release) = with(FtpsOptions {
        pasv_address: Some(Ipv4Addr::new(10, 0, 0, 5)),
        ..FtpsOptions::new(USER, PASSWORD)
    });
    kit.update();
    assert_updated(&kit, &release);
}

/// K16: also nothing to the people who get alerts, because the device is as well as before.
#[test]
fn k16_a_download_that_fails_for_good_changes_nothing_and_the_next_call_goes_on_from_what_is_here()
{
    let (server, mut spec) = strict();
    let hook = Webhook::start();
    spec.tables = format!(
        "[alerts.all]\nwebhook = \"{}\"\nlevel = \"info\"",
        hook.url("/")
    );
    let kit = Kit::on(&spec);
    let release = kit.release(NEW, MIB);
    server.put(&release.name, release.bytes.clone());
    server.fault(&release.name, 1, Fault::CutAfter(400 * KIB));
    server.fault_always(&release.name, Fault::CutAfter(0));
    kit.update();
    kit.await_job("failed");
    let health = kit.await_idle();
    assert_eq!(
        (&health["version"], &health["lastUpdate"]),
        (&json!(OLD), &Value::Null)
    );
    kit.assert_unchanged();
    assert_eq!(kit.log().matches("alert:").count(), 0);
    assert_eq!(hook.deliveries(), []);

    server.heal(&release.name);
    kit.update();
    assert_updated(&kit, &release);
    assert_eq!(offsets(&server, &release).last(), Some(&(400 * KIB)));
}

#[test]
fn a_server_that_resumes_no_session_of_tls_1_3_is_spoken_to_with_tls_1_2() {
    for refusal in [REFUSAL_522, REFUSAL_425] {
        let (server, kit, release) = with(FtpsOptions {
            reuse: Reuse::RequiredAndNeverOnTls13(refusal),
            ..FtpsOptions::new(USER, PASSWORD)
        });
        kit.update();
        assert_updated(&kit, &release);
        assert_eq!(offsets(&server, &release), [0]);
        let versions: Vec<String> = server
            .connections()
            .iter()
            .filter_map(|c| Some(c.tls.as_ref()?.version.clone()))
            .collect();
        // Once for the listing; from then on it is remembered.
        assert_eq!(versions[0], "TLSv1_3");
        assert!(versions[1..].iter().all(|v| v == "TLSv1_2"), "{versions:?}");
    }
}

#[test]
fn names_that_lead_elsewhere_are_never_used() {
    let (server, kit, release) = plain();
    for name in [
        &b"../kit-9.9.9.img"[..],
        b"/kit-9.9.9.img",
        b"x/kit-9.9.9.img",
        b"x\\kit-9.9.9.img",
        b"..",
        b"kit-9.9.9.img\x01",
        b"\xff-9.9.9.img",
        b"kit-9.9.9.img;RETR=1\x1b[2J",
    ] {
        server.list_name("/", name, 5_000);
    }
    server.list_raw("/", b"this is no line of a listing\r\n\r\n\0\0".to_vec());
    server.make_directory("kit-9.9.9.img.d");
    let data = kit.update();
    assert_eq!(data["newVersion"], NEW);
    assert_updated(&kit, &release);
    let asked: Vec<String> = server
        .connections()
        .iter()
        .flat_map(otahost_lab::ftps::Connection::sequence)
        .filter(|line| line.contains("9.9.9"))
        .collect();
    assert_eq!(asked, Vec::<String>::new());
}

/// A digest that lies beside the file has to be right.
#[test]
fn a_digest_beside_the_file_decides() {
    let (server, kit, release) = plain();
    let beside = format!("{}.sha256", release.name);
    let mut wrong = release.file.sha256.clone();
    let last = if wrong.ends_with('0') { "1" } else { "0" };
    wrong.replace_range(wrong.len() - 1.., last);
    server.put(&beside, format!("{wrong}  {}\n", release.name));
    kit.update();
    kit.await_job("failed");
    kit.assert_unchanged();
    server.put(
        &beside,
        format!("{}  {}\n", release.file.sha256, release.name),
    );
    kit.await_idle();
    kit.update();
    assert_updated(&kit, &release);
}
