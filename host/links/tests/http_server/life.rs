//! How a listener begins and ends.

use std::time::Duration;

use otahost_links::http_server::HttpServer;
use otahost_links::{Link, LinkEvent};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::support::{Caller, Listener, RIGHT, options, update, within};

#[tokio::test]
async fn a_taken_port_is_said_once_and_taken_when_it_is_free() {
    let holder = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut options = options();
    options.listen = holder.local_addr().unwrap();
    options.limits.backoff_first = Duration::from_millis(5);
    options.limits.backoff_max = Duration::from_millis(10);
    let address = options.listen;
    let server = HttpServer::new(options).unwrap();
    let (sender, mut events) = mpsc::channel(8);
    let _commands = server.start(sender);
    let Some(LinkEvent::Down { reason }) = within(events.recv()).await else {
        panic!("not down");
    };
    assert!(reason.contains(&address.to_string()), "{reason}");
    assert_eq!(*server.local_addr().borrow(), None);
    drop(holder);
    assert_eq!(
        within(events.recv()).await,
        Some(LinkEvent::Up {
            generation: 1,
            session_present: false
        })
    );
    assert_eq!(*server.local_addr().borrow(), Some(address));
    let mut caller = Caller(TcpStream::connect(address).await.unwrap());
    caller.ask(update("", "{}")).await.is_own(401);
}

#[tokio::test]
async fn when_the_agent_ends_the_link_callers_get_503_and_the_port_is_free() {
    let mut listener = Listener::start(|_| {}).await;
    let mut waiting = listener.call().await;
    let mut idle = listener.call().await;
    idle.ask(update("", "{}")).await.is_own(401);
    waiting.send(update(RIGHT, "{}")).await;
    listener.request().await;
    let mut address = listener.server.local_addr();
    drop(listener.commands);
    let answer = waiting.answer().await;
    answer.is_own(503);
    waiting.closed().await;
    idle.closed().await;
    within(address.wait_for(Option::is_none)).await.unwrap();
    assert_eq!(within(listener.events.recv()).await, None, "and no more");
    TcpListener::bind(listener.address).await.unwrap();
}

/// A new configuration starts a new listener on the old one's port.
#[tokio::test]
async fn a_listener_takes_over_from_one_that_ends() {
    let first = Listener::start(|_| {}).await;
    let address = first.address;
    let mut options = options();
    options.listen = address;
    options.limits.backoff_first = Duration::from_millis(5);
    options.limits.backoff_max = Duration::from_millis(10);
    let second = HttpServer::new(options).unwrap();
    let (sender, mut events) = mpsc::channel(8);
    let _commands = second.start(sender);
    assert!(matches!(
        within(events.recv()).await,
        Some(LinkEvent::Down { .. })
    ));
    drop(first.commands);
    assert!(matches!(
        within(events.recv()).await,
        Some(LinkEvent::Up { .. })
    ));
    let mut caller = Caller(TcpStream::connect(address).await.unwrap());
    // The second one serves nothing yet.
    caller.ask(update(RIGHT, "{}")).await.is_own(503);
}

#[tokio::test]
async fn a_listener_nobody_listens_to_ends() {
    let listener = Listener::start(|_| {}).await;
    let mut address = listener.server.local_addr();
    drop(listener.events);
    within(address.wait_for(Option::is_none)).await.unwrap();
    within(listener.commands.closed()).await;
}
