//! Behind the kit's own server: the example of the agent's README, by the real nginx.

use otahost_e2e::kit::{Kit, NEW};
use otahost_lab::nginx::{Nginx, NginxOptions};
use serde_json::json;

use super::{MIB, strict};

/// The documented `location`, with the port of this kit's listener. Its limit of requests needs a line outside the server's block,
/// which the lab does not write.
fn documented(port: u16) -> String {
    let lines: Vec<&str> = include_str!("../../../../host/agent/README.md")
        .lines()
        .skip_while(|line| line.trim() != "```nginx")
        .skip(1)
        .take_while(|line| line.trim() != "```")
        .filter(|line| !line.trim().starts_with("limit_req"))
        .collect();
    let text = lines.join("\n");
    let here = text.replace("127.0.0.1:8112", &format!("127.0.0.1:{port}"));
    assert!(text != here, "the example names the port: {text}");
    here
}

#[test]
fn the_kits_own_server_passes_the_centres_calls_on() {
    let (server, mut spec) = strict();
    spec.base_path = "/api/v1".into();
    // As the section says.
    spec.listener_lines = "parallel = 32".into();
    let kit = Kit::on(&spec);
    let nginx = Nginx::start_with(NginxOptions {
        server_lines: documented(kit.centre.port),
        ..NginxOptions::default()
    })
    .unwrap();
    nginx.put("index.html", b"the kit's own page").unwrap();
    let release = kit.release(NEW, MIB / 4);
    server.put(&release.name, release.bytes.clone());

    let outside = kit.centre.through(nginx.port(), &spec.base_path);
    let refused = outside.with_password("wrong").update_device().unwrap();
    assert_eq!(refused.status, 401);
    assert!(refused.header("www-authenticate").is_some());
    // What is not under the path is the kit's own, and needs no password of ours.
    let own = kit.centre.through(nginx.port(), "");
    let page = own.call_with("", "GET", "/index.html", b"").unwrap();
    assert_eq!(page.body, b"the kit's own page");

    let answer = outside.update_device().unwrap();
    let envelope = answer.envelope().unwrap();
    assert_eq!(answer.status, 200, "{envelope}");
    assert_eq!(envelope["data"]["newVersion"], json!(NEW));
    kit.assert_runs(NEW, "b");
    assert_eq!(outside.version().as_deref(), Some(NEW));
    kit.assert_well();
}
