//! The act of the Withnox cloud: a device that polls, with tokens that expire and addresses good for a while.

use std::fs;
use std::time::{Duration, Instant};

use otahost_lab::files::Fault;
use otahost_lab::image::Image;
use otahost_lab::machine::{Machine, MachineSpec, SlotState, target_dir};
use otahost_lab::signing::{Claims, Publisher};
use otahost_lab::withnox::{Call, Credential, DEVICE, HARDWARE, Route, Tag, USER, Withnox};

use crate::acts::check;
use crate::show::{self, bytes};
use crate::world::{Failure, SMALL, World};

/// What the camera leaves the factory with.
const OLD: &str = "1.9.0";
/// Higher than 1.9.0 as a version, lower as a text.
const NEW: &str = "1.10.0";
/// Its id in the cloud.
const FIRMWARE: u64 = 7;
const SIZE: u64 = 16 * 1024 * 1024;
/// The line of this act.
const LINE_SPEED: u64 = 8 * 1024 * 1024;
/// How long all of it may take.
const UPDATE: Duration = Duration::from_secs(60);

pub(crate) fn act(world: &World) -> Result<(), Failure> {
    show::heading("8. Withnox: a camera polls, and its tokens and addresses expire on the way");
    let dir = world.path("withnox");
    let home = dir.join("machine");
    fs::create_dir_all(&home)?;
    let cloud = Withnox::start();
    let publisher = Publisher::generate()?;
    let (raw, signed) = (dir.join("image"), dir.join("signed"));
    Image::new(NEW, SIZE).write(&raw)?;
    let claims = Claims {
        compatible: "addnox-mp".to_owned(),
        version: NEW.to_owned(),
        rollback_index: 1,
    };
    let size = publisher.sign(&raw, &signed, &claims)?.size;
    let name = cloud.offer(FIRMWARE, NEW, &fs::read(&signed)?, &Tag::Md5);
    let ((user, password), session) = (cloud.account(), cloud.session());
    for (secret, value) in [
        ("user", user),
        ("password", password),
        ("access", session.access),
        ("refresh", session.refresh),
    ] {
        fs::write(dir.join(secret), format!("{value}\n"))?;
    }
    let spec = MachineSpec {
        trust: vec![publisher.public_key()],
        compatible: "addnox-mp".to_owned(),
        ..MachineSpec::bare("LAB0001", "cam", &configuration(&cloud, &dir))
    };
    let machine = Machine::create(&home, spec, &Image::new(OLD, SMALL))?;

    cloud.expire_access();
    cloud.store().throttle(Some(LINE_SPEED));
    cloud.store().fault(&name, 1, Fault::CutAfter(size / 2));
    let mut files = 0;
    cloud.on_call(move |call| {
        files += usize::from(call.route == Route::File);
        show::line(&words(call, files));
    });
    let start = Instant::now();
    machine.power_on()?;
    let is_told =
        |call: &Call| call.route == Route::UpdateResult && call.status == 200 && call.answered;
    if !cloud.wait_for(UPDATE, |calls| calls.iter().any(is_told)) {
        return Err(format!("the cloud heard of no update within {UPDATE:?}").into());
    }
    let seconds = start.elapsed().as_secs_f64();

    let asked: Vec<_> = cloud
        .calls()
        .iter()
        .map(|call| (call.route, call.credential, call.status))
        .collect();
    let expected = vec![
        (Route::Latest, Credential::Expired, 401),
        (Route::Refresh, Credential::Good, 200),
        (Route::Latest, Credential::Good, 200),
        (Route::File, Credential::Good, 307),
        (Route::File, Credential::Good, 307),
        (Route::UpdateResult, Credential::Good, 200),
    ];
    check("what was asked of the cloud", asked, expected)?;
    check(
        "what the cloud believes to run",
        cloud.now_firmware(),
        Some(FIRMWARE),
    )?;
    check(
        "the version that runs",
        machine.version().as_deref(),
        Some(NEW),
    )?;
    check("the slot that runs", machine.slot().as_deref(), Some("b"))?;
    check("the boots", machine.boot_count(), 2)?;
    let state = machine.selector()?.slots.get("b").map(|slot| slot.state);
    check("the new slot's state", state, Some(SlotState::Good))?;
    check(
        "what the cloud resents",
        cloud.violations(),
        Vec::<String>::new(),
    )?;
    check("the agent's crashes", machine.crashes().len(), 0)?;
    let requests = cloud.store().requests();
    check("the requests to the store", requests.len(), 2)?;
    check(
        "that both had one address",
        requests[0].query == requests[1].query,
        false,
    )?;
    let resumed = requests[1].offset;
    if resumed == 0 || resumed > size / 2 {
        return Err(format!("the file went on at byte {resumed}: no resume").into());
    }
    let log = fs::read_to_string(machine.layout().log())?;
    let secrets = [cloud.secrets(), cloud.signatures()].concat();
    let said = secrets
        .iter()
        .filter(|secret| log.contains(*secret))
        .count();
    check("the secrets in the agent's log", said, 0)?;

    show::held(&format!(
        "{NEW} runs, and the cloud knows; no token went to the store, and none of {} secrets is in the log",
        secrets.len()
    ));
    show::table(&[
        ("version", format!("{OLD} → {NEW}")),
        ("artifact", format!("{}, signed", bytes(size))),
        (
            "resumed at",
            format!("{}, under a new address", bytes(resumed)),
        ),
        (
            "requests",
            format!(
                "{} to the API, {} to the store",
                cloud.calls().len(),
                requests.len()
            ),
        ),
        ("time", format!("{seconds:.1} s")),
    ]);
    Ok(())
}

/// A request in words; `files` counts those for the file.
fn words(call: &Call, files: usize) -> String {
    let (what, note) = match (call.route, call.status) {
        (Route::Refresh, 200) => (
            "POST  refresh-token",
            "new tokens; the old refresh token is used up",
        ),
        (Route::Latest, 200) => ("GET   firmware/latest", "a newer version"),
        (Route::Latest, _) => ("GET   firmware/latest", call.said.as_str()),
        (Route::File, 307) if files < 2 => (
            "GET   firmware/file",
            "on to the store, by a signed address",
        ),
        (Route::File, 307) => (
            "GET   firmware/file",
            "the line broke at half; a new address for the rest",
        ),
        (Route::UpdateResult, 200) => ("PATCH update-result", "rebooted, confirmed, accepted"),
        _ => ("", call.said.as_str()),
    };
    let what = if what.is_empty() {
        call.path.as_str()
    } else {
        what
    };
    format!("{what:22} {}  {note}", call.status)
}

fn configuration(cloud: &Withnox, dir: &std::path::Path) -> String {
    let file = |name: &str| format!("{{ file = {:?} }}", dir.join(name).display().to_string());
    let component = target_dir().join("adapters/withnox.wasm");
    let tokens =
        r#"capture = { access_token = "/access_token", refresh_token = "/refresh_token" }"#;
    format!(
        r#"
[links.withnox]
kind = "http_client"
url = "{url}"
auth = {{ bearer = "access_token" }}
secrets = {{ account_user = {user}, account_password = {password}, access_token = {access}, refresh_token = {refresh} }}
redirects = ["{store}/"]

[adapters.withnox]
component = {component:?}
config = {{ target = "cam", device_id = {DEVICE}, user_id = {USER}, hardware_id = {HARDWARE} }}

[adapters.withnox.grants]
targets = ["cam"]
links.withnox.files = ["/api/v1/addnox/firmware/file/"]
links.withnox.call = [
  {{ method = "GET", path = "/api/v1/addnox/firmware/latest/*/*" }},
  {{ method = "PATCH", path = "/api/v1/addnox/firmware/update-result/*/*/*" }},
  {{ method = "POST", path = "/api/v1/addnox/auth/refresh-token", secrets = {{ refresh_token = "body" }}, {tokens} }},
  {{ method = "POST", path = "/api/v1/addnox/auth/email/signin", secrets = {{ account_user = "body", account_password = "body" }}, {tokens} }},
]
"#,
        url = cloud.url(),
        user = file("user"),
        access = file("access"),
        refresh = file("refresh"),
        password = file("password"),
        store = cloud.store().origin(),
        component = component.display().to_string(),
    )
}
