//! Links of every kind, their grants and the sinks of alerts: what is sound is read whole, what is not is told at its place, and no
//! secret is ever shown.
#![allow(clippy::unwrap_used, reason = "tests")]

use otahost::config::{AlertWay, AuthConfig, CallersConfig, Config, Faults, LinkConfig, Secret};
use otahost_core::model::{Capture, Fetch, Field, Level, LinkPath, Repeat};
use otahost_core::secret::Place;
use otahost_links::tls::ServerTrust;

const SOUND: &str = r#"[device]
id = "kit-7"
data_dir = "DIR/data"
reboot = ["true"]

[links.kit]
kind = "http_server"
listen = "127.0.0.1:8080"
tls = { certificate = "cert.pem", key = { file = "key.pem" } }
users = { centre = { file = "password" }, "bakım ekibi" = { file = "password" } }
answer_within = "20s"

[links.centre]
kind = "ftps"
host = "updates.example"
username = "kit"
password = { file = "password" }
directory = "/kits/model-a"
pin = "sha256:PIN"

[links.api]
kind = "http_client"
url = "https://api.example/v1"
auth = { bearer = "access_token" }
secrets = { account = { file = "password" } }
redirects = ["https://store.example/"]

[alerts.sms]
command = ["true", "-q"]
level = "error"

[alerts.ops]
webhook = "https://ops.example/hook?key=hunter3"
token = { file = "password" }

[adapters.kit]
component = "kit.wasm"
[adapters.kit.grants]
links.kit.serve = ["POST /updateDevice", "GET /device/*"]
links.centre.files = ["/"]
links.api.files = ["/firmware"]
links.api.call = [
  { method = "GET", path = "/firmware/latest/*" },
  { method = "POST", path = "/auth", secrets = { account = "body" }, capture = { access_token = "/access_token" } },
]
"#;

const PIN: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

fn read(text: &str) -> Result<Config, Faults> {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in [
        ("password", "hunter2\n"),
        ("two-lines", "hunter2\nhunter3\n"),
        ("cert.pem", "certificate"),
        ("key.pem", "hunter2\nhunter3\n"),
        ("kit.wasm", "component"),
    ] {
        std::fs::write(dir.path().join(name), content).unwrap();
    }
    let text = text
        .replace("DIR", &dir.path().display().to_string())
        .replace("PIN", PIN);
    Config::from_text(&dir.path().join("otahost.toml"), &text)
}

#[test]
fn a_sound_configuration_is_read_whole() {
    let config = read(SOUND).unwrap();
    let LinkConfig::HttpServer(kit) = &config.links["kit"] else {
        panic!("another kind");
    };
    assert_eq!(kit.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(
        (kit.answer_within.as_secs(), kit.per_minute, kit.parallel),
        (20, 120, 16)
    );
    assert_eq!(kit.tls.as_ref().unwrap().key.reveal(), "hunter2\nhunter3\n");
    let secret = |text: &str| Secret::new(text);
    let users = vec![
        ("centre".to_owned(), secret("hunter2")),
        ("bakım ekibi".to_owned(), secret("hunter2")),
    ];
    assert_eq!(kit.callers, CallersConfig::Basic(users));

    let LinkConfig::Ftps(centre) = &config.links["centre"] else {
        panic!("another kind");
    };
    assert_eq!((centre.host.as_str(), centre.port), ("updates.example", 21));
    assert_eq!(centre.directory, "/kits/model-a");
    let ServerTrust::Pin(pin) = &centre.trust else {
        panic!("{:?}", centre.trust);
    };
    assert_eq!((pin[0], pin[31]), (0x9f, 0x08));

    let LinkConfig::HttpClient(api) = &config.links["api"] else {
        panic!("another kind");
    };
    assert_eq!(api.auth, AuthConfig::Bearer("access_token".into()));
    assert_eq!(api.secrets, [("account".to_owned(), secret("hunter2"))]);
    assert_eq!(api.redirects, ["https://store.example/"]);

    assert_eq!(config.alerts["sms"].level, Level::Error);
    assert_eq!(config.alerts["ops"].level, Level::Warn);
    let AlertWay::Webhook { client, path } = &config.alerts["ops"].way else {
        panic!("another way");
    };
    assert_eq!(
        (client.url.as_str(), path.as_str()),
        ("https://ops.example/", "/hook?key=hunter3")
    );

    let grants = &config.adapters["kit"].grants;
    assert_eq!(grants.links["kit"].serve[1].path, "/device/*");
    assert_eq!(grants.links["api"].call[1].secrets["account"], Place::Body);
}

#[test]
fn no_secret_is_shown_by_what_is_read() {
    let config = read(SOUND).unwrap();
    let shown = format!("{:?}", config.links);
    assert!(shown.contains("127.0.0.1:8080"), "{shown}");
    assert!(!shown.contains("hunter"), "{shown}");
}

fn fetch(method: &str, path: &str, body: &str, captures: &[(&str, &str)]) -> Fetch {
    Fetch {
        tag: "t".into(),
        link: "api".into(),
        method: method.into(),
        path: path.into(),
        headers: vec![Field {
            name: "x".into(),
            value: "y".into(),
        }],
        body: body.into(),
        captures: captures
            .iter()
            .map(|(pointer, secret)| Capture {
                pointer: (*pointer).into(),
                secret: (*secret).into(),
            })
            .collect(),
        repeat: Repeat::Once,
        timeout: 1_000,
        redirects: 0,
    }
}

#[test]
fn a_request_is_granted_by_method_path_and_the_place_of_each_secret() {
    let grants = read(SOUND).unwrap().adapters["kit"].grants.clone();
    let token = [("/access_token", "access_token")];
    for (fetch, missing) in [
        (fetch("GET", "/firmware/latest/7?x=1", "", &[]), None),
        (fetch("POST", "/auth", "{secret:account}", &token), None),
        (
            fetch("GET", "/firmware/latest/7/8", "", &[]),
            Some("\"/firmware/latest/7/8\" } to grants.links.api.call"),
        ),
        (
            fetch("PUT", "/firmware/latest/7", "", &[]),
            Some("method = \"PUT\""),
        ),
        (
            fetch("GET", "/firmware/latest/{secret:account}", "", &[]),
            Some("secrets = { account = \"path\" }"),
        ),
        (
            fetch("POST", "/auth?x={secret:account}", "", &[]),
            Some("secrets = { account = \"query\" }"),
        ),
        (
            fetch("POST", "/auth", "{secret:other}", &[]),
            Some("secrets = { other = \"body\" }"),
        ),
        (
            fetch("POST", "/auth", "", &[("/refresh_token", "access_token")]),
            Some("capture = { access_token = \"/refresh_token\" }"),
        ),
        (
            fetch("POST", "/auth", "", &[("/access_token", "account")]),
            Some("capture = { account = \"/access_token\" }"),
        ),
    ] {
        let denial = grants.allows_call(&fetch).err();
        match (denial, missing) {
            (None, None) => {}
            (Some(denial), Some(missing)) if denial.missing.contains(missing) => {}
            (denial, _) => panic!("{} {}: {denial:?}", fetch.method, fetch.path),
        }
    }
    let file = |link: &str, path: &str| {
        grants.allows_file(&LinkPath {
            link: link.into(),
            path: path.into(),
        })
    };
    assert!(file("centre", "/a.bin") && file("api", "/firmware/7/file"));
    assert!(!file("api", "/other/7") && !file("kit", "/a") && !file("centre", "/../a"));
}

struct Case {
    from: &'static str,
    to: &'static str,
    key: &'static str,
    what: &'static str,
    advice: &'static str,
}

const fn case(
    from: &'static str,
    to: &'static str,
    key: &'static str,
    what: &'static str,
    advice: &'static str,
) -> Case {
    Case {
        from,
        to,
        key,
        what,
        advice,
    }
}

#[rustfmt::skip]
const CASES: &[Case] = &[
    case("kind = \"ftps\"", "kind = \"ftp\"", "links.centre.kind", "not known", "`ftps`"),
    case("listen = \"127.0.0.1:8080\"", "listen = \"8080\"", "links.kit.listen", "no address with a port", "0.0.0.0:8080"),
    case("answer_within = \"20s\"", "answer_within = \"1h\"", "links.kit.answer_within", "out of range", "from 1s to 10m"),
    case("answer_within = \"20s\"", "anonymous = true", "links.kit.users", "stands beside `anonymous = true`", "remove one"),
    case("answer_within = \"20s\"", "realm = 'a\"b'", "links.kit.realm", "a quote", "without"),
    case("\"bakım ekibi\"", "\"a:b\"", "links.kit.users.a:b", "a colon", "choose another"),
    case("{ file = \"key.pem\" }", "\"hunter2\"", "links.kit.tls.key", "a private key does not belong in this file", "key = { file ="),
    case("users = { centre = { file = \"password\" }, \"bakım ekibi\" = { file = \"password\" } }\n", "", "links.kit", "does not say who may call", "users ="),
    case("host = \"updates.example\"", "host = \"ftp://updates.example\"", "links.centre.host", "no host name", "the name alone"),
    case("host = \"updates.example\"", "host = \"updates.example\"\nport = 0", "links.centre.port", "out of range", "from 1 to 65535"),
    case("username = \"kit\"\n", "", "links.centre.username", "is missing", "username ="),
    case("directory = \"/kits/model-a\"", "directory = \"/kits/../model-a\"", "links.centre.directory", "no plain directory", "without `..`"),
    case("sha256:PIN", "sha256:1234", "links.centre.pin", "no SHA-256", "64 hexadecimal digits"),
    case("directory = \"/kits/model-a\"", "ca = \"cert.pem\"", "links.centre.pin", "stands beside `ca`", "remove one"),
    case("https://api.example/v1", "https://me:hunter3@api.example/v1", "links.api.url", "holds a user or password", "`auth` and `secrets`"),
    case("https://api.example/v1", "https://api.example/v1?token=hunter3", "links.api.url", "has a query", "https://host"),
    case("auth = { bearer = \"access_token\" }", "auth = { }", "links.api.auth", "must name one scheme", "bearer"),
    case("account = { file = \"password\" } }", "account = \"hunter3\" }", "links.api.secrets.account", "a secret does not belong in this file", "account = { file ="),
    case("account = { file = \"password\" } }", "account = { file = \"two-lines\" } }", "links.api.secrets.account.file", "more than one line", "only line"),
    case("account = { file = \"password\" } }", "account = { env = \"OTAHOST_TEST_NO_SUCH\" } }", "links.api.secrets.account.env", "no readable OTAHOST_TEST_NO_SUCH", "set it"),
    case("account = { file = \"password\" } }", "account = { credential = \"../x\" } }", "links.api.secrets.account.credential", "no name of a credential", "LoadCredential"),
    case("account = { file = \"password\" } }", "account = { file = \"password\", env = \"X\" } }", "links.api.secrets.account", "in one way", "`{ env ="),
    case("https://store.example/", "https://store.example/?x=hunter3", "links.api.redirects[0]", "has a query", "remove what begins"),
    case("level = \"error\"", "level = \"loud\"", "alerts.sms.level", "is no level", "`warn`"),
    case("level = \"error\"", "webhook = \"https://ops.example/\"", "alerts.sms", "in one way", "webhook"),
    case("https://ops.example/hook", "ftp://ops.example/hook", "alerts.ops.webhook", "no `http` or `https` URL", "https://host/path"),
    case("\"POST /updateDevice\"", "\"/updateDevice\"", "adapters.kit.grants.links.kit.serve[0]", "is no route", "POST /updateDevice"),
    case("\"GET /device/*\"", "\"GET /device/../x\"", "adapters.kit.grants.links.kit.serve[1]", "is no route", "POST /updateDevice"),
    case("links.centre.files = [\"/\"]", "links.centre.files = [\"..\"]", "adapters.kit.grants.links.centre.files[0]", "no plain directory", "`/`"),
    case("account = \"body\"", "account = \"cookie\"", "adapters.kit.grants.links.api.call[1].secrets.account", "no place in a request", "`header`"),
    case("\"/access_token\"", "\"access_token\"", "adapters.kit.grants.links.api.call[1].capture.access_token", "no JSON pointer", "/access_token"),
    case("path = \"/auth\"", "path = \"/auth?x=1\"", "adapters.kit.grants.links.api.call[1].path", "no plain path", "without query"),
    case("method = \"GET\"", "method = \"get\"", "adapters.kit.grants.links.api.call[0].method", "no HTTP method", "upper case"),
];

#[test]
fn every_kind_of_fault_is_found_with_what_to_do_and_shows_no_secret() {
    let mut wrong = Vec::new();
    for case in CASES {
        assert_eq!(
            SOUND.matches(case.from).count(),
            1,
            "{} stands once",
            case.from
        );
        let faults = match read(&SOUND.replace(case.from, case.to)) {
            Ok(_) => panic!("{} was accepted", case.to),
            Err(faults) => faults,
        };
        let shown = format!("{faults}{}", faults.to_json());
        let found = &faults.findings[0];
        if faults.findings.len() != 1
            || shown.contains("hunter")
            || found.key != case.key
            || !found.what.contains(case.what)
            || !found.advice.contains(case.advice)
        {
            let Case {
                to,
                key,
                what,
                advice,
                ..
            } = case;
            wrong.push(format!("{to}\nexpected {key}: {what}; {advice}\n{faults}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn two_listeners_on_one_port_are_found() {
    let text = format!(
        "{SOUND}\n[links.second]\nkind = \"http_server\"\nlisten = \"127.0.0.1:8080\"\nanonymous = true\n"
    );
    let faults = read(&text).unwrap_err();
    assert!(
        faults.findings[0]
            .what
            .contains("listens where `links.kit` does"),
        "{faults}"
    );
}

#[test]
fn a_secret_comes_from_the_environment_too() {
    // Cargo sets it for every test.
    let text = SOUND.replace(
        "account = { file = \"password\" }",
        "account = { env = \"CARGO_PKG_NAME\" }",
    );
    let config = read(&text).unwrap();
    let LinkConfig::HttpClient(api) = &config.links["api"] else {
        panic!("another kind");
    };
    assert_eq!(api.secrets[0].1.reveal(), "otahost");
}
