//! The lab's Withnox cloud is as strict as the vendor's: what a device may not do is refused here too, so that a test against it can
//! fail.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use otahost_lab::files::Fault;
use otahost_lab::withnox::{Credential, DEVICE, Route, Scripted, Tag, USER, Withnox};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(20);

/// An answer: status, headers as they came, body.
#[derive(Debug)]
struct Got {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Got {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// One request, by hand. `None` when the connection ends without an answer.
fn ask(method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> Option<Got> {
    let rest = url.strip_prefix("http://").unwrap();
    let (place, target) = rest.split_at(rest.find('/').unwrap());
    let mut stream = TcpStream::connect(place).unwrap();
    let mut text = format!(
        "{method} {target} HTTP/1.1\r\nHost: {place}\r\nContent-Length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    text += &format!("\r\n{body}");
    stream.write_all(text.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Got {
        status,
        head,
        body: bytes[end + 4..].to_vec(),
    })
}

/// A request to the API, with this token if there is one.
fn api(cloud: &Withnox, method: &str, path: &str, token: Option<&str>, body: &str) -> Got {
    let bearer = token.map(|token| format!("Bearer {token}"));
    let headers: Vec<(&str, &str)> = bearer
        .iter()
        .map(|b| ("Authorization", b.as_str()))
        .collect();
    let url = format!("{}/api/v1/addnox/{path}", cloud.url());
    ask(method, &url, &headers, body).unwrap()
}

fn latest() -> String {
    format!("firmware/latest/{DEVICE}/{USER}")
}

fn file(firmware: u64) -> String {
    format!("firmware/file/{DEVICE}/{firmware}/{USER}")
}

fn result(firmware: u64) -> String {
    format!("firmware/update-result/{DEVICE}/{firmware}/{USER}")
}

fn refresh(cloud: &Withnox, token: &str) -> Got {
    let body = json!({ "refresh_token": token }).to_string();
    api(cloud, "POST", "auth/refresh-token", None, &body)
}

fn detail(got: &Got) -> (u16, String) {
    let said = got.json()["detail"].as_str().unwrap_or_default().to_owned();
    (got.status, said)
}

/// Percent-encodes all but letters and digits.
fn escaped(text: &str) -> String {
    let one = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(one).collect()
}

#[test]
fn an_account_becomes_tokens_and_a_wrong_password_does_not() {
    let cloud = Withnox::start();
    let (username, password) = cloud.account();
    let form = |password: &str| format!("username={}&password={password}", escaped(&username));
    let sign_in = |body: &str| api(&cloud, "POST", "auth/email/signin", None, body);

    assert_eq!(
        detail(&sign_in(&form("wrong"))),
        (400, "Incorrect password".into())
    );
    // Not escaped it is another one.
    assert_eq!(sign_in(&form(&password)).status, 400);
    assert_eq!(sign_in("username=x").status, 422);
    assert!(cloud.logged_out());
    let tokens = sign_in(&form(&escaped(&password))).json();
    assert!(!cloud.logged_out());
    assert_eq!(tokens["expires_in"], 900);
    let access = tokens["access_token"].as_str().unwrap();
    assert_eq!(
        api(&cloud, "GET", &latest(), Some(access), "").json(),
        json!([])
    );
    for token in [access, tokens["refresh_token"].as_str().unwrap()] {
        assert!(cloud.secrets().contains(&token.to_owned()));
    }
    cloud.change_password();
    assert_eq!(sign_in(&form(&escaped(&password))).status, 400);
}

#[test]
fn a_token_whose_time_is_over_is_said_to_be_and_a_stranger_is_another_sentence() {
    let cloud = Withnox::start();
    let session = cloud.session();
    let ask = |token| detail(&api(&cloud, "GET", &latest(), token, ""));
    assert_eq!(ask(None), (401, "Not authenticated".into()));
    assert_eq!(
        ask(Some("at.x")),
        (401, "Could not validate credentials".into())
    );
    cloud.expire_access();
    assert_eq!(ask(Some(&session.access)), (401, "Token is expired".into()));
    let seen: Vec<_> = cloud.calls().iter().map(|call| call.credential).collect();
    assert_eq!(
        seen,
        [Credential::None, Credential::Unknown, Credential::Expired]
    );
    assert!(!format!("{cloud:?}").contains(&session.access));
}

#[test]
fn a_refresh_token_is_good_once_and_then_logs_the_device_out() {
    let cloud = Withnox::start();
    let first = cloud.session();
    cloud.expire_access();
    let second = refresh(&cloud, &first.refresh).json();
    let access = second["access_token"].as_str().unwrap();
    assert_eq!(api(&cloud, "GET", &latest(), Some(access), "").status, 200);
    assert_eq!(cloud.violations(), Vec::<String>::new());

    let refused = (401, "Refresh token is not valid".to_owned());
    assert_eq!(detail(&refresh(&cloud, &first.refresh)), refused);
    assert!(cloud.logged_out());
    assert_eq!(cloud.violations().len(), 1);
    // The newest is gone with it.
    let newest = second["refresh_token"].as_str().unwrap();
    assert_eq!(detail(&refresh(&cloud, newest)), refused);
}

#[test]
fn a_file_is_behind_a_signed_address_on_another_origin() {
    let cloud = Withnox::start();
    let session = cloud.session();
    let bytes = b"firmware".repeat(100);
    let name = cloud.offer(7, "1.2.0", &bytes, &Tag::Md5);
    let list = api(&cloud, "GET", &latest(), Some(&session.access), "").json();
    assert_eq!(list[0]["firmware_id"], 7);
    assert!(list[0]["id"] != 7 && list[0]["firmware"]["id"] != 7);

    cloud.redirect_with(&[302, 303, 308]);
    let mut places = Vec::new();
    for status in [302, 303, 308, 308] {
        let got = api(&cloud, "GET", &file(7), Some(&session.access), "");
        assert_eq!(got.status, status);
        places.push(got.header("location").unwrap().to_owned());
    }
    assert!(places[0] != places[1] && places[0].starts_with(&cloud.store().origin()));
    let signed = places[0].as_str();
    let got = ask("GET", signed, &[], "").unwrap();
    assert_eq!((got.status, &got.body), (200, &bytes));
    assert_eq!(got.header("etag").unwrap().len(), 34);
    let part = ask("GET", signed, &[("Range", "bytes=4-")], "").unwrap();
    assert_eq!((part.status, part.body.len()), (206, bytes.len() - 4));

    // Two authentications, none, another method, another file.
    let both = ask("GET", signed, &[("Authorization", "Bearer x")], "").unwrap();
    assert_eq!(both.status, 400);
    assert!(
        both.text().contains("Only one auth mechanism allowed"),
        "{both:?}"
    );
    assert_eq!(cloud.violations().len(), 1);
    let bare = signed.split('?').next().unwrap();
    assert_eq!(ask("GET", bare, &[], "").unwrap().status, 403);
    assert_eq!(ask("HEAD", signed, &[], "").unwrap().status, 403);
    cloud.offer(8, "1.3.0", b"other", &Tag::Multipart);
    let other = signed.replace(&name, &name.replace("07.bin", "08.bin"));
    assert_ne!(other, signed);
    let got = ask("GET", &other, &[], "").unwrap();
    assert!(got.status == 403 && got.text().contains("SignatureDoesNotMatch"));

    cloud.expire_addresses();
    let late = ask("GET", signed, &[], "").unwrap();
    assert!(late.status == 403 && late.text().contains("Request has expired"));
    let fresh = api(&cloud, "GET", &file(8), Some(&session.access), "");
    let got = ask("GET", fresh.header("location").unwrap(), &[], "").unwrap();
    assert!(got.header("etag").unwrap().ends_with("-2\""), "{got:?}");
    // What is secret in an address is known, and is in no record of the requests.
    let query = signed.split("X-Amz-Signature=").nth(1).unwrap();
    assert!(cloud.signatures().contains(&query.to_owned()));
    assert!(!format!("{cloud:?}").contains("X-Amz"));
}

#[test]
fn a_report_is_accepted_for_firmware_of_the_device_and_refused_for_other() {
    let cloud = Withnox::start();
    let session = cloud.session();
    let token = Some(session.access.as_str());
    let wrong = api(&cloud, "PATCH", &result(7), token, "");
    assert_eq!(
        detail(&wrong),
        (400, "Firmware not matched with device".into())
    );
    cloud.offer(7, "1.2.0", b"x", &Tag::Md5);
    let right = api(&cloud, "PATCH", &result(7), token, "");
    assert_eq!(right.json()["now_firmware_id"], 7);
    assert_eq!(cloud.now_firmware(), Some(7));
    let again = api(&cloud, "GET", &file(7), token, "");
    assert_eq!(detail(&again), (400, "Invalid firmware".into()));
    let gone = api(&cloud, "GET", &file(8), token, "");
    assert_eq!(detail(&gone), (404, "Firmware file not found".into()));
    for (path, status) in [
        (format!("firmware/latest/5/{USER}"), 404),
        (format!("firmware/latest/{DEVICE}/1"), 403),
        (format!("firmware/latest/x/{USER}"), 422),
        ("elsewhere".to_owned(), 404),
    ] {
        assert_eq!(
            api(&cloud, "GET", &path, token, "").status,
            status,
            "{path}"
        );
    }
    cloud.withdraw(7);
    assert_eq!(api(&cloud, "GET", &latest(), token, "").json(), json!([]));
}

#[test]
fn scripted_answers_come_in_order_and_then_the_cloud_is_itself_again() {
    let cloud = Withnox::start();
    let session = cloud.session();
    let token = Some(session.access.as_str());
    cloud.script(Route::Latest, 1, &Scripted::html_502());
    cloud.script(Route::Latest, 1, &Scripted::validation_422());
    cloud.script(Route::Latest, 1, &Scripted::too_many(7));
    cloud.script(Route::Latest, 1, &Scripted::xml_at_200());
    cloud.script(Route::Latest, 1, &Scripted::malformed_json());
    cloud.script(Route::Latest, 1, &Scripted::Expire);
    let mut statuses = Vec::new();
    for _ in 0..6 {
        let got = api(&cloud, "GET", &latest(), token, "");
        if got.status == 429 {
            assert_eq!(got.header("retry-after"), Some("7"));
        }
        statuses.push(got.status);
    }
    assert_eq!(statuses, [502, 422, 429, 200, 200, 401]);
    let fresh = cloud.session();
    let got = api(&cloud, "GET", &latest(), Some(&fresh.access), "");
    assert_eq!(got.json(), json!([]));
}

#[test]
fn an_answer_can_be_lost_or_held_after_it_was_done() {
    let cloud = Withnox::start();
    let first = cloud.session();
    let url = format!("{}/api/v1/addnox/auth/refresh-token", cloud.url());
    let body = json!({ "refresh_token": first.refresh }).to_string();
    cloud.script(Route::Refresh, 1, &Scripted::Lost);
    assert!(ask("POST", &url, &[], &body).is_none());
    assert_eq!(
        refresh(&cloud, &first.refresh).status,
        401,
        "it was used up"
    );

    let second = cloud.session();
    cloud.script(Route::Refresh, 1, &Scripted::Hold);
    std::thread::scope(|scope| {
        let held = scope.spawn(|| refresh(&cloud, &second.refresh));
        assert!(cloud.wait_for(SOON, |calls| calls.len() == 3));
        assert!(!cloud.calls()[2].answered);
        cloud.release();
        assert_eq!(held.join().unwrap().status, 200);
    });
    assert!(cloud.wait_for(SOON, |calls| calls[2].answered));
    let statuses: Vec<_> = cloud.calls().iter().map(|call| call.status).collect();
    assert_eq!(statuses, [0, 401, 200]);
}

#[test]
fn the_store_has_the_faults_of_a_file_server() {
    let cloud = Withnox::start();
    let session = cloud.session();
    let name = cloud.offer(7, "1.2.0", &[1; 1000], &Tag::Other("x".into()));
    let fetch = |range: &str| {
        let place = api(&cloud, "GET", &file(7), Some(&session.access), "");
        let place = place.header("location").unwrap().to_owned();
        ask("GET", &place, &[("Range", range)], "").unwrap()
    };
    cloud.store().fault(&name, 1, Fault::CutAfter(100));
    cloud.store().fault(&name, 1, Fault::IgnoreRange);
    cloud.store().fault(&name, 1, Fault::WrongOffset(5));
    assert_eq!(fetch("bytes=0-").body.len(), 100);
    assert_eq!(fetch("bytes=500-").status, 200);
    let got = fetch("bytes=500-");
    assert_eq!(got.header("content-range"), Some("bytes 5-999/1000"));
    assert_eq!(fetch("bytes=500-").body.len(), 500);
}
