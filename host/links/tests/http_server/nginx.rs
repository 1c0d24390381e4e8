//! Behind a real nginx, with the configuration that the module's documentation shows.

use std::time::Duration;

use otahost_lab::nginx::{Nginx, NginxOptions};
use otahost_links::LinkEvent;
use tokio::net::TcpStream;

use crate::support::{Caller, Listener, RIGHT, update, within};

/// The documented `location`, with the port of this listener. Its limit of requests needs a line outside the server's block, which
/// the lab does not write.
fn documented(port: u16) -> String {
    let lines: Vec<&str> = include_str!("../../src/http_server.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("//!"))
        .skip_while(|line| line.trim() != "```nginx")
        .skip(1)
        .take_while(|line| line.trim() != "```")
        .skip_while(|line| !line.trim().starts_with("location"))
        .filter(|line| !line.trim().starts_with("limit_req "))
        .collect();
    let text = lines.join("\n");
    let proxied = text.replace("127.0.0.1:8112", &format!("127.0.0.1:{port}"));
    assert_ne!(text, proxied, "the example names the port");
    proxied
}

fn before(listener: &Listener) -> Nginx {
    Nginx::start_with(NginxOptions {
        server_lines: documented(listener.address.port()),
        ..NginxOptions::default()
    })
    .unwrap()
}

async fn call(nginx: &Nginx) -> Caller<TcpStream> {
    let address = ("127.0.0.1", nginx.port());
    Caller(within(TcpStream::connect(address)).await.unwrap())
}

#[tokio::test]
async fn the_documented_nginx_passes_requests_on_as_they_are() {
    let mut listener = Listener::start(|_| {}).await;
    let nginx = before(&listener);
    let mut caller = call(&nginx).await;
    let refused = caller.ask(update("", "{}")).await;
    refused.is_own(401);
    assert!(refused.header("www-authenticate").is_some());
    let plain = update(RIGHT, "{\"kitId\":\"k\"}");
    caller
        .send(plain.replace("updateDevice", "update%44evice?a=1"))
        .await;
    let (id, request) = listener.request().await;
    assert_eq!(request.principal, "centre");
    assert_eq!(request.path, "/api/updateDevice");
    assert_eq!(request.query[0].value, "1");
    assert_eq!(request.body, b"{\"kitId\":\"k\"}");
    listener.respond(id, 200, &[], "done").await;
    assert_eq!(caller.answer().await.body, "done");

    // The path is not tidied up on the way, and what is refused keeps its reason.
    let odd = plain.replace("/api/updateDevice", "/api//updateDevice");
    caller.ask(odd).await.is_own(404);

    // Who leaves nginx leaves us.
    caller.send(&plain).await;
    let (id, _) = listener.request().await;
    drop(caller);
    assert_eq!(listener.event().await, LinkEvent::Withdrawn(id));
}

#[tokio::test]
async fn behind_nginx_the_504_is_the_hosts() {
    let mut listener =
        Listener::start(|options| options.answer_within = Duration::from_millis(50)).await;
    let nginx = before(&listener);
    let mut caller = call(&nginx).await;
    caller.send(update(RIGHT, "{}")).await;
    let (id, _) = listener.request().await;
    caller.answer().await.is_own(504);
    assert_eq!(listener.event().await, LinkEvent::Withdrawn(id));
}
