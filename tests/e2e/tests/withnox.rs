//! The Withnox cloud and a camera by the real process: the agent as a child of a machine, the vendor's API and its object store. One
//! promise a test, named after the protocol's list (R01 to R17); each ends with a look for secrets in all that was said.
//!
//! R01 to R03 and R10 to R17 in all their variants are the adapter's own tests (`plugins/withnox/tests/protocol`), R04 to R07 and R11
//! to R13 also the link's (`host/links/tests/http_client_files.rs`). What waits for hours (R17: the poll after a roll-back) and every
//! moment of a power cut is in `sim_withnox.rs`, kills of the process are in `withnox_kills.rs`.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::{SystemTime, UNIX_EPOCH};

use otahost_e2e::camera::{Camera, ID, NEW, OLD, Tokens};
use otahost_e2e::device::PATIENCE;
use otahost_lab::files::Fault;
use otahost_lab::image::Image;
use otahost_lab::withnox::{Credential, Route, Scripted, Tag};
use serde_json::json;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// What was asked of the API, with what, and how it was answered.
fn asked(camera: &Camera) -> Vec<(Route, Credential, u16)> {
    let calls = camera.cloud.calls().into_iter();
    calls
        .map(|call| (call.route, call.credential, call.status))
        .collect()
}

#[test]
fn r04_r08_r11_r14_the_whole_way() {
    let camera = Camera::off(Tokens::None, "");
    let (name, file) = camera.offer(MIB);
    let half = file.len() as u64 / 2;
    // The token's time is over between the list and the file, and the line breaks at half.
    camera.cloud.script(Route::File, 1, &Scripted::Expire);
    camera.cloud.store().fault(&name, 1, Fault::CutAfter(half));
    camera.switch_on();
    camera.await_reported(ID);

    assert_eq!(
        asked(&camera),
        [
            (Route::SignIn, Credential::Good, 200),
            (Route::Latest, Credential::Good, 200),
            (Route::File, Credential::Expired, 401),
            (Route::Refresh, Credential::Good, 200),
            (Route::File, Credential::Good, 307),
            (Route::File, Credential::Good, 307),
            (Route::UpdateResult, Credential::Good, 200),
        ]
    );
    // The second address is another one, and the rest of the file was asked for there.
    let requests = camera.cloud.store().requests();
    let starts = camera.starts();
    assert!(
        starts.len() == 2 && starts[0] == 0 && (1..=half).contains(&starts[1]),
        "{starts:?}"
    );
    assert_ne!(requests[0].query, requests[1].query);
    assert!(requests.iter().all(|r| r.header("authorization").is_none()));
    let tag = requests[1].header("if-range").unwrap();
    assert!(tag.len() == 34 && tag.starts_with('"'), "{tag}");

    camera.assert_runs(NEW, "b");
    assert_eq!(camera.machine.boot_count(), 2);
    assert_eq!(camera.alerts(), Vec::<String>::new());
    let job = camera.await_end();
    assert_eq!(job["phase"], "succeeded", "{job:#}");
    camera.assert_well();
}

#[test]
fn r15_nothing_is_told_before_the_new_version_is_confirmed() {
    // The probe fails until a file is there.
    let allowed = tempfile::tempdir().unwrap();
    let file = allowed.path().join("well");
    let probe = json!([
        "/bin/sh",
        "-c",
        "test -e \"$0\" || grep -q 1.0.0 os-release",
        file
    ]);
    let camera = Camera::off(Tokens::Stored, &format!("probe = {probe}"));
    camera.offer(64 * KIB);
    camera.switch_on();
    camera.machine.await_boots(2, PATIENCE).unwrap();
    camera.await_phase("confirming");
    assert_eq!(camera.asked(Route::UpdateResult), 0);
    std::fs::write(&file, "").unwrap();
    camera.await_reported(ID);
    camera.assert_runs(NEW, "b");
    camera.assert_well();
}

#[test]
fn r15_an_image_that_does_not_boot_is_never_told() {
    let camera = Camera::off(Tokens::Stored, "");
    let dead = camera.signed(&Image::new(NEW, 64 * KIB).that_does_not_boot(), NEW);
    camera.cloud.offer(ID, NEW, &dead, &Tag::Md5);
    camera.switch_on();
    let job = camera.await_end();
    assert_eq!(job["phase"], "rolled-back", "{job:#}");
    camera.await_alert(&format!("not-again-{ID}"));
    camera.assert_runs(OLD, "a");
    assert_eq!(camera.asked(Route::UpdateResult), 0);
    camera.assert_well();
}

#[test]
fn what_the_operator_installed_from_a_file_is_told_too() {
    // The window is never open for what comes by itself; a person skips it.
    let window = closed_window();
    let camera = Camera::off(
        Tokens::Stored,
        &format!("policy = {{ window = [{window:?}] }}"),
    );
    camera.offer(64 * KIB);
    camera.switch_on();
    camera.await_answers(Route::Latest, 1);
    let medium = camera.medium(NEW);
    // Ends with the reboot: the command line loses its agent.
    let _ = camera
        .machine
        .cli(&["install", &medium, "--target", "cam"])
        .unwrap();
    camera.await_reported(ID);
    assert_eq!(camera.asked(Route::File), 0);
    camera.assert_runs(NEW, "b");
    let jobs = camera.json(&["jobs"]);
    assert_eq!(jobs[0]["owner"], "operator", "{jobs:#}");
    camera.assert_well();
}

/// A window of a minute, half a day from now.
fn closed_window() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let minute = (since.as_secs() / 60 + 12 * 60) % (24 * 60);
    let at = |minute: u64| format!("{:02}:{:02}", minute / 60, minute % 60);
    format!("{}-{}", at(minute), at((minute + 1) % (24 * 60)))
}

#[test]
fn r05_every_kind_of_redirect_leads_to_the_file_and_the_token_stays_behind() {
    let camera = Camera::off(Tokens::Stored, "");
    let (name, file) = camera.offer(512 * KIB);
    let part = file.len() as u64 / 5;
    camera.cloud.redirect_with(&[301, 302, 303, 307, 308]);
    camera.cloud.store().fault(&name, 4, Fault::CutAfter(part));
    camera.switch_on();
    camera.await_reported(ID);
    let statuses: Vec<_> = camera
        .cloud
        .calls_of(Route::File)
        .iter()
        .map(|c| c.status)
        .collect();
    assert_eq!(statuses, [301, 302, 303, 307, 308]);
    let starts = camera.starts();
    assert!(starts.is_sorted() && starts[4] > 0, "{starts:?}");
    camera.assert_runs(NEW, "b");
    camera.assert_well();
}

#[test]
fn r06_a_redirect_in_a_circle_fails_and_changes_nothing() {
    let camera = Camera::off(Tokens::Stored, "");
    camera.offer(64 * KIB);
    let itself = format!(
        "{}/api/v1/addnox/firmware/file/4/{ID}/9",
        camera.cloud.url()
    );
    camera
        .cloud
        .script(Route::File, 100, &Scripted::redirect(307, &itself));
    camera.switch_on();
    let job = camera.await_end();
    assert_eq!(job["phase"], "failed", "{job:#}");
    let why = job["reason"]["text"].as_str().unwrap();
    assert!(why.contains("redirects more than 5 times"), "{why}");
    assert_eq!(camera.asked(Route::File), 6, "one try, five hops");
    camera.assert_unchanged();
    camera.assert_well();
}

#[test]
fn a_redirect_into_the_device_or_a_private_network_is_not_followed() {
    let camera = Camera::off(Tokens::Stored, "");
    camera.offer(64 * KIB);
    let inside = Scripted::redirect(302, "http://127.0.0.2:9/?X-Amz-Signature=inside");
    camera.cloud.script(Route::File, 100, &inside);
    camera.switch_on();
    let job = camera.await_end();
    assert_eq!(job["phase"], "failed", "{job:#}");
    assert!(!job.to_string().contains("X-Amz"), "{job:#}");
    camera.assert_unchanged();
    camera.assert_well();
}

#[test]
fn r09_a_refused_refresh_signs_in_once_and_a_refused_account_stops_without_a_loop() {
    for detail in [
        "Token is expired",
        "Could not validate credentials",
        "Refresh token is not valid",
    ] {
        let camera = Camera::off(Tokens::Stored, "");
        camera.offer(64 * KIB);
        camera.cloud.expire_access();
        camera.cloud.change_password();
        camera
            .cloud
            .script(Route::Refresh, 1, &Scripted::error(401, detail));
        camera.switch_on();
        let alert = camera.await_alert("sign-in-refused");
        assert!(alert.contains("Incorrect password"), "{alert}");
        let asked = [Route::Latest, Route::Refresh, Route::SignIn].map(|route| camera.asked(route));
        assert_eq!(asked, [1, 1, 1], "{detail}");
        camera.assert_unchanged();
        camera.assert_well();
    }
}

#[test]
fn r09_a_refused_refresh_is_mended_by_one_sign_in() {
    let camera = Camera::off(Tokens::Stored, "");
    camera.offer(64 * KIB);
    camera.cloud.expire_access();
    let refused = Scripted::error(401, "Refresh token is not valid");
    camera.cloud.script(Route::Refresh, 1, &refused);
    camera.switch_on();
    camera.await_reported(ID);
    let asked = [Route::Refresh, Route::SignIn].map(|route| camera.asked(route));
    assert_eq!(asked, [1, 1]);
    camera.assert_runs(NEW, "b");
    camera.assert_well();
}

#[test]
fn r08_a_poll_that_finds_its_token_expired_refreshes_once_and_asks_once_more() {
    let camera = Camera::off(Tokens::Stored, "");
    camera.offer(64 * KIB);
    camera.cloud.expire_access();
    camera.switch_on();
    camera.await_reported(ID);
    assert_eq!(
        asked(&camera),
        [
            (Route::Latest, Credential::Expired, 401),
            (Route::Refresh, Credential::Good, 200),
            (Route::Latest, Credential::Good, 200),
            (Route::File, Credential::Good, 307),
            (Route::UpdateResult, Credential::Good, 200),
        ]
    );
    camera.assert_well();
}

#[test]
fn r08_a_token_that_ends_before_the_report_costs_one_refresh() {
    let camera = Camera::off(Tokens::Stored, "");
    camera.offer(64 * KIB);
    camera
        .cloud
        .script(Route::UpdateResult, 1, &Scripted::Expire);
    camera.switch_on();
    camera.await_reported(ID);
    let told: Vec<_> = camera
        .cloud
        .calls_of(Route::UpdateResult)
        .iter()
        .map(|c| c.status)
        .collect();
    assert_eq!(told, [401, 200]);
    assert_eq!(
        [Route::Refresh, Route::SignIn].map(|r| camera.asked(r)),
        [1, 0]
    );
    camera.assert_well();
}

#[test]
fn r10_a_refusal_ends_the_job_with_the_clouds_own_words_and_no_second_try() {
    for (status, detail) in [
        (403, "Permission denied"),
        (404, "Device not found"),
        (404, "Firmware file not found"),
        (400, "Invalid firmware"),
    ] {
        let camera = Camera::off(Tokens::Stored, "");
        camera.offer(64 * KIB);
        camera
            .cloud
            .script(Route::File, 100, &Scripted::error(status, detail));
        camera.switch_on();
        let job = camera.await_end();
        assert_eq!(job["phase"], "failed", "{job:#}");
        let why = job["reason"]["text"].as_str().unwrap();
        let words = if status == 400 { "not newer" } else { detail };
        assert!(why.contains(words), "{detail}: {why}");
        assert_eq!(
            [Route::File, Route::Refresh].map(|r| camera.asked(r)),
            [1, 0],
            "{detail}"
        );
        camera.assert_unchanged();
        camera.assert_well();
    }
}

#[test]
fn r10_a_device_that_the_cloud_does_not_know_is_one_alert_and_no_loop() {
    let camera = Camera::off(Tokens::Stored, "");
    let unknown = Scripted::error(404, "Device not found");
    camera.cloud.script(Route::Latest, 100, &unknown);
    camera.switch_on();
    let alert = camera.await_alert("configuration");
    assert!(alert.contains("Device not found"), "{alert}");
    assert_eq!(camera.cloud.calls().len(), 1);
    camera.assert_unchanged();
    camera.assert_well();
}

#[test]
fn r12_a_store_that_ignores_ranges_starts_over_and_the_file_is_right() {
    let camera = Camera::off(Tokens::Stored, "");
    let (name, file) = camera.offer(512 * KIB);
    let store = camera.cloud.store();
    store.fault(&name, 1, Fault::CutAfter(file.len() as u64 / 2));
    store.fault(&name, 1, Fault::IgnoreRange);
    camera.switch_on();
    camera.await_reported(ID);
    let statuses: Vec<_> = store
        .requests()
        .iter()
        .map(|r| (r.range().is_some(), r.status))
        .collect();
    assert_eq!(statuses, [(false, 200), (true, 200)]);
    camera.assert_runs(NEW, "b");
    camera.assert_well();
}

#[test]
fn r12_a_store_that_lies_about_a_range_is_not_believed() {
    for lie in [
        Fault::WrongOffset(0),
        Fault::ContentRange("bytes 0-1/2".into()),
        Fault::ContentRange("nonsense".into()),
    ] {
        let camera = Camera::off(Tokens::Stored, "");
        let (name, file) = camera.offer(256 * KIB);
        let store = camera.cloud.store();
        store.fault(&name, 1, Fault::CutAfter(file.len() as u64 / 2));
        store.fault(&name, 1, lie.clone());
        camera.switch_on();
        camera.await_reported(ID);
        camera.assert_runs(NEW, "b");
        camera.assert_well();
        assert!(camera.asked(Route::File) >= 2, "{lie:?}");
    }
}

#[test]
fn r13_a_file_that_was_replaced_between_two_tries_is_fetched_from_its_beginning() {
    let camera = Camera::off(Tokens::Stored, "");
    let (name, file) = camera.offer(256 * KIB);
    let store = camera.cloud.store();
    store.fault(&name, 1, Fault::StallAfter(file.len() as u64 / 2));
    camera.switch_on();
    assert!(store.wait_for(PATIENCE, |requests| requests.iter().any(|r| r.sent > 0)));
    // Another build under the same name; the line breaks.
    let other = camera.signed(&Image::new(NEW, 256 * KIB).with_seed(99), NEW);
    camera.cloud.offer(ID, NEW, &other, &Tag::Md5);
    store.cut();
    camera.await_reported(ID);
    let statuses: Vec<_> = store.requests().iter().map(|r| r.status).collect();
    assert_eq!(
        statuses,
        [200, 200],
        "the range was not honoured for another file"
    );
    camera.assert_runs(NEW, "b");
    let slot = std::fs::read(camera.machine.layout().slot("b")).unwrap();
    assert!(slot.starts_with(&other[4096..]), "it is the new build");
    camera.assert_well();
}

#[test]
fn an_address_that_expired_is_asked_for_anew_and_the_file_goes_on() {
    let camera = Camera::off(Tokens::Stored, "");
    let (name, file) = camera.offer(256 * KIB);
    let store = camera.cloud.store();
    let half = file.len() as u64 / 2;
    store.fault(&name, 1, Fault::CutAfter(half));
    // The second address is dead on arrival: the store's answer to it is S3's.
    let dead = format!("{}?X-Amz-Signature=00&X-Amz-Expires=3600", store.url(&name));
    camera.cloud.script(Route::File, 1, &Scripted::Pass);
    camera
        .cloud
        .script(Route::File, 1, &Scripted::redirect(307, &dead));
    camera.switch_on();
    camera.await_reported(ID);
    let statuses: Vec<_> = store.requests().iter().map(|r| r.status).collect();
    assert_eq!(statuses, [200, 403, 206]);
    camera.assert_runs(NEW, "b");
    camera.assert_well();
}

#[test]
fn an_etag_of_several_parts_is_no_digest_and_one_of_one_part_is() {
    let camera = Camera::off(Tokens::Stored, "");
    let file = camera.signed(&Image::new(NEW, 64 * KIB), NEW);
    camera.cloud.offer(ID, NEW, &file, &Tag::Multipart);
    camera.switch_on();
    camera.await_reported(ID);
    camera.assert_runs(NEW, "b");
    camera.assert_well();

    let camera = Camera::off(Tokens::Stored, "");
    camera
        .cloud
        .offer(ID, NEW, &file, &Tag::Other("0".repeat(32)));
    camera.switch_on();
    let job = camera.await_end();
    assert_eq!(job["phase"], "failed", "{job:#}");
    camera.assert_unchanged();
    camera.assert_well();
}

#[test]
fn what_is_no_firmware_under_200_fails_clearly_and_the_old_version_stays() {
    for (what, answer) in [
        ("an error of the store", Scripted::xml_at_200()),
        ("a page", html_at_200()),
    ] {
        let camera = Camera::off(Tokens::Stored, "");
        camera.offer(64 * KIB);
        camera.cloud.script(Route::File, 100, &answer);
        camera.switch_on();
        let job = camera.await_end();
        assert_eq!(job["phase"], "failed", "{what}: {job:#}");
        let why = job["reason"]["text"].as_str().unwrap();
        assert!(why.contains("error document"), "{what}: {why}");
        camera.assert_unchanged();
        camera.assert_well();
    }
}

fn html_at_200() -> Scripted {
    match Scripted::html_502() {
        Scripted::Answer { headers, body, .. } => Scripted::Answer {
            status: 200,
            headers,
            body,
        },
        other => other,
    }
}

#[test]
fn a_body_that_is_longer_or_shorter_than_said_is_not_installed_as_it_came() {
    // Longer than its length says: what is over is not read. Chunked, and so without a length: the signature decides.
    for (fault, updates) in [
        (Fault::Overrun(1000), true),
        (Fault::Longer(1000), false),
        (Fault::Shorter(1000), false),
    ] {
        let camera = Camera::off(Tokens::Stored, "");
        let (name, _) = camera.offer(64 * KIB);
        camera.cloud.store().fault_always(&name, fault.clone());
        camera.switch_on();
        let job = camera.await_end();
        assert_eq!(job["phase"] == "succeeded", updates, "{fault:?}: {job:#}");
        if !updates {
            camera.assert_unchanged();
        }
        camera.assert_well();
    }
}

#[test]
fn r16_a_gateways_page_for_the_file_is_tried_again() {
    let camera = Camera::off(Tokens::Stored, "");
    camera.offer(64 * KIB);
    camera.cloud.script(Route::File, 2, &Scripted::html_502());
    camera.cloud.script(Route::File, 1, &Scripted::too_many(1));
    camera.switch_on();
    camera.await_reported(ID);
    let files: Vec<_> = camera
        .cloud
        .calls_of(Route::File)
        .iter()
        .map(|c| c.status)
        .collect();
    assert_eq!(files, [502, 502, 429, 307]);
    camera.assert_runs(NEW, "b");
    camera.assert_well();
}

#[test]
fn tokens_are_in_the_vault_and_nowhere_else_and_addresses_are_nowhere() {
    let camera = Camera::off(Tokens::None, "");
    let (name, file) = camera.offer(256 * KIB);
    camera.cloud.script(Route::File, 1, &Scripted::Expire);
    camera
        .cloud
        .store()
        .fault(&name, 1, Fault::CutAfter(file.len() as u64 / 2));
    // The store shows the whole address in its error, as S3 does for one it did not sign.
    let odd = format!(
        "{}?X-Amz-Signature=beef&X-Amz-Expires=1",
        camera.cloud.store().url(&name)
    );
    camera.cloud.script(Route::File, 1, &Scripted::Pass);
    camera
        .cloud
        .script(Route::File, 1, &Scripted::redirect(307, &odd));
    camera.switch_on();
    camera.await_reported(ID);
    camera.await_end();
    camera.assert_well();
    let check = camera.machine.cli(&["check"]).unwrap();
    let check = String::from_utf8_lossy(&[check.stdout, check.stderr].concat()).into_owned();
    for secret in camera.cloud.secrets() {
        assert!(!check.contains(&secret), "{check}");
    }

    let vault = camera.tokens_in_the_journal();
    let names: Vec<&str> = vault.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["access_token", "refresh_token"]);
    let newest = camera.cloud.secrets();
    assert!(vault.iter().all(|(_, token)| newest.contains(token)));
}
