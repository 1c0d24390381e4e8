//! The act of the 112 kit: the centre calls it, and its update comes by explicit FTPS from a server that insists on all it may.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use otahost_lab::broker::free_port;
use otahost_lab::centre::Centre;
use otahost_lab::ftps::{Connection, Fault, Ftps, FtpsOptions, REFUSAL_522, Reuse};
use otahost_lab::image::Image;
use otahost_lab::machine::{Machine, MachineSpec, SlotState, target_dir};
use otahost_lab::signing::{Claims, Publisher};
use otahost_lab::tls::CA_PEM;
use serde_json::Value;

use crate::acts::check;
use crate::show::{self, bytes};
use crate::world::{Failure, SMALL, World};

/// The versions of the vendor's page.
const OLD: &str = "0.0.21";
const NEW: &str = "0.0.22";
const FILE: &str = "kit-0.0.22.img";
/// The kit id of the page, which is no UUID.
const KIT_ID: &str = "d8110f9d-d5ce-4451-ab12-d5881d-dfe4d6";
const COMPATIBLE: &str = "kit-model-1";
/// Made up.
const USER: &str = "kit-user-4711";
const PASSWORD: &str = "Ayran-ve-Simit-23";
const CALL_PASSWORD: &str = "Zil-Calar-0815";
const SIZE: u64 = 16 * 1024 * 1024;
/// The line of this act.
const LINE_SPEED: u64 = 12 * 1024 * 1024;
/// How long all of it may take.
const UPDATE: Duration = Duration::from_secs(60);

pub(crate) fn act(world: &World) -> Result<(), Failure> {
    show::heading(
        "6. 112: the centre calls the kit, and the update comes by FTPS over a line that breaks",
    );
    let dir = world.path("kit112");
    let home = dir.join("machine");
    fs::create_dir_all(&home)?;
    let server = Ftps::start_with(FtpsOptions {
        reuse: Reuse::Required(REFUSAL_522),
        ..FtpsOptions::new(USER, PASSWORD)
    });
    let publisher = Publisher::generate()?;
    let (raw, signed) = (dir.join("image"), dir.join("signed"));
    Image::new(NEW, SIZE).write(&raw)?;
    let claims = Claims {
        compatible: COMPATIBLE.to_owned(),
        version: NEW.to_owned(),
        rollback_index: 1,
    };
    let size = publisher.sign(&raw, &signed, &claims)?.size;
    server.put(FILE, fs::read(&signed)?);
    let port = free_port();
    let spec = MachineSpec {
        trust: vec![publisher.public_key()],
        compatible: COMPATIBLE.to_owned(),
        ..MachineSpec::bare("kit-7", "kit", &configuration(&dir, port, server.port())?)
    };
    let machine = Machine::create(&home, spec, &Image::new(OLD, SMALL))?;
    machine.power_on()?;
    let centre = Centre::new(port, KIT_ID, "centre", CALL_PASSWORD);
    centre.await_version(OLD, UPDATE)?;

    let stranger = centre.with_password("guessed").update_device()?;
    check("the answer to a wrong password", stranger.status, 401)?;
    show::line(
        "POST updateDevice  401  with a wrong password; the update server is not even asked",
    );
    check("the connections", server.connections().len(), 0)?;

    server.throttle(Some(LINE_SPEED));
    let cut = size * 37 / 100;
    server.fault(FILE, 1, Fault::CutAfter(cut));
    let start = Instant::now();
    let answer = centre.update_device()?;
    let envelope = answer.envelope()?;
    check("the answer", answer.status, 200)?;
    let data = &envelope["data"];
    check(
        "the versions",
        (&data["oldVersion"], &data["newVersion"]),
        (&Value::from(OLD), &Value::from(NEW)),
    )?;
    show::line(&format!(
        "POST updateDevice  200  {}: {OLD} → {NEW}, about {} s",
        envelope["message"].as_str().unwrap_or_default(),
        data["estimatedTime"]
    ));
    show::line(
        "it listed its folder by FTPS for that: AUTH TLS before any name, every data session resumed",
    );
    let again = centre.update_device()?;
    check("the answer to a second call", again.status, 409)?;
    show::line("POST updateDevice  409  the first one runs");

    let resumes = |all: &[Connection]| all.iter().flat_map(|c| &c.retrievals).any(|r| r.offset > 0);
    if !server.wait_for(UPDATE, resumes) {
        return Err(format!("the download was not resumed within {UPDATE:?}").into());
    }
    show::line(&format!(
        "the line broke at 37 %; REST {cut}: the rest comes from that byte on"
    ));
    machine.await_boots(2, UPDATE)?;
    show::line("the device rebooted");
    centre.await_version(NEW, UPDATE)?;
    let seconds = start.elapsed().as_secs_f64();
    show::line(&format!(
        "GET  getDeviceInfo 200  {NEW}, now that it is confirmed"
    ));
    holds(&server, &machine, size, cut)?;

    show::held(&format!(
        "{NEW} runs, and the centre hears so when it asks; neither password is in the log"
    ));
    show::table(&[
        ("version", format!("{OLD} → {NEW}")),
        ("artifact", format!("{}, signed", bytes(size))),
        ("cut at", bytes(cut)),
        ("resumed at", bytes(cut)),
        ("fetched again", bytes(0)),
        ("reboots", (machine.boot_count() - 1).to_string()),
        ("time", format!("{seconds:.1} s")),
    ]);
    Ok(())
}

/// What has to be true of server, machine and log afterwards.
fn holds(server: &Ftps, machine: &Machine, size: u64, cut: u64) -> Result<(), Failure> {
    let retrievals: Vec<(u64, u64)> = server
        .retrievals()
        .iter()
        .map(|retrieval| (retrieval.offset, retrieval.sent))
        .collect();
    check(
        "the transfers, from where and how much",
        retrievals,
        vec![(0, cut), (cut, size - cut)],
    )?;
    let connections = server.connections();
    let in_the_clear = connections.iter().any(|c| c.user_before_tls);
    check("a name in the clear", in_the_clear, false)?;
    let refused = connections.iter().flat_map(|c| &c.data).any(|d| d.refused);
    check("a data session that was not resumed", refused, false)?;
    check(
        "the version that runs",
        machine.version().as_deref(),
        Some(NEW),
    )?;
    check("the slot that runs", machine.slot().as_deref(), Some("b"))?;
    check("the boots", machine.boot_count(), 2)?;
    let state = machine.selector()?.slots.get("b").map(|slot| slot.state);
    check("the new slot's state", state, Some(SlotState::Good))?;
    check("the agent's crashes", machine.crashes().len(), 0)?;
    let log = fs::read_to_string(machine.layout().log())?;
    let said = [USER, PASSWORD, CALL_PASSWORD].map(|secret| log.contains(secret));
    check("the secrets in the agent's log", said, [false; 3])?;
    Ok(())
}

fn configuration(dir: &Path, port: u16, server: u16) -> Result<String, Failure> {
    for (name, content) in [
        ("kit-call", CALL_PASSWORD),
        ("ftps-user", USER),
        ("ftps-password", PASSWORD),
        ("ca.pem", CA_PEM),
    ] {
        fs::write(dir.join(name), format!("{content}\n"))?;
    }
    let path = |name: &str| Value::from(dir.join(name).display().to_string());
    let component = target_dir().join("adapters/kit112.wasm");
    Ok(format!(
        r#"
[links.kit]
kind = "http_server"
listen = "127.0.0.1:{port}"
users = {{ centre = {{ file = {call} }} }}
per_minute = 10000

[links.centre]
kind = "ftps"
host = "127.0.0.1"
port = {server}
username = {{ file = {user} }}
password = {{ file = {password} }}
ca = {ca}

[adapters.kit112]
component = {component}
config = {{ kit_id = "{KIT_ID}", vehicle = "34 XX 000" }}

[adapters.kit112.grants]
links.kit.serve = [
    "POST /updateDevice",
    "GET /getDeviceInfo", "POST /getDeviceInfo",
    "GET /healthCheck", "POST /healthCheck",
]
links.centre.files = ["/"]
targets = ["kit"]
"#,
        call = path("kit-call"),
        user = path("ftps-user"),
        password = path("ftps-password"),
        ca = path("ca.pem"),
        component = Value::from(component.display().to_string()),
    ))
}
