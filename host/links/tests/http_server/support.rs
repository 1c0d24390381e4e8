//! A listener with its agent's end in the test's hands, and a caller that writes bytes as it likes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use otahost_core::model::{Field, HttpResponse, RouteNeed};
use otahost_core::secret::Secret;
use otahost_links::http_server::{Callers, HttpServer, HttpServerOptions};
use otahost_links::{Inbound, Link, LinkCommand, LinkEvent};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// No step of a test takes this long unless something is wrong.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// `centre:open sesame`, as a header line.
pub(crate) const RIGHT: &str = "Authorization: Basic Y2VudHJlOm9wZW4gc2VzYW1l\r\n";

/// Room for events, enough for every test that does not ask for less.
const EVENTS: usize = 64;

pub(crate) async fn within<T>(what: impl Future<Output = T>) -> T {
    timeout(LIMIT, what).await.expect("in time")
}

pub(crate) fn options() -> HttpServerOptions {
    HttpServerOptions {
        realm: "kit".into(),
        // Ends no test by itself: those that wait for it set their own.
        answer_within: Duration::from_secs(120),
        per_minute: 0,
        ..HttpServerOptions::new(
            SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            Callers::Basic(vec![("centre".into(), Secret::new("open sesame"))]),
        )
    }
}

pub(crate) fn route(method: &str, path: &str, max_body: u32) -> RouteNeed {
    RouteNeed {
        link: "kit".into(),
        method: method.into(),
        path: path.into(),
        max_body,
    }
}

/// What the tests serve unless they say otherwise.
pub(crate) fn routes() -> Vec<RouteNeed> {
    vec![
        route("POST", "/api/updateDevice", 1_000),
        route("PUT", "/api/updateDevice", 1_000),
        route("GET", "/api/getDeviceInfo", 0),
        route("POST", "/api/large", 256 * 1024),
    ]
}

/// A started listener.
pub(crate) struct Listener {
    pub(crate) server: HttpServer,
    pub(crate) commands: mpsc::Sender<LinkCommand>,
    pub(crate) events: mpsc::Receiver<LinkEvent>,
    pub(crate) address: SocketAddr,
}

impl Listener {
    /// Serves `routes()`.
    pub(crate) async fn start(change: impl FnOnce(&mut HttpServerOptions)) -> Self {
        Self::start_with_room(EVENTS, change).await
    }

    pub(crate) async fn start_with_room(
        events: usize,
        change: impl FnOnce(&mut HttpServerOptions),
    ) -> Self {
        let listener = Self::start_silent(events, change).await;
        listener.say(LinkCommand::Serve(routes())).await;
        listener
    }

    /// Serves nothing yet.
    pub(crate) async fn start_silent(
        room: usize,
        change: impl FnOnce(&mut HttpServerOptions),
    ) -> Self {
        let mut options = options();
        change(&mut options);
        let server = HttpServer::new(options).unwrap();
        let (sender, events) = mpsc::channel(room);
        let commands = server.start(sender);
        let address = within(server.local_addr().wait_for(Option::is_some))
            .await
            .unwrap()
            .unwrap();
        let mut listener = Self {
            server,
            commands,
            events,
            address,
        };
        assert_eq!(
            listener.event().await,
            LinkEvent::Up {
                generation: 1,
                session_present: false
            }
        );
        listener
    }

    /// Sends a command and waits until it is carried out: in a test's single thread that is when it is taken.
    pub(crate) async fn say(&self, command: LinkCommand) {
        self.commands.send(command).await.unwrap();
        within(async {
            while self.commands.capacity() < self.commands.max_capacity() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    pub(crate) async fn event(&mut self) -> LinkEvent {
        within(self.events.recv()).await.expect("the link runs")
    }

    pub(crate) async fn request(&mut self) -> (u64, Inbound) {
        match self.event().await {
            LinkEvent::Request { id, request } => (id, *request),
            other => panic!("no request: {other:?}"),
        }
    }

    /// Nothing was said that was not taken.
    pub(crate) fn nothing_said(&mut self) {
        assert_eq!(self.events.try_recv(), Err(TryRecvError::Empty));
    }

    pub(crate) async fn respond(&self, id: u64, status: u16, headers: &[(&str, &str)], body: &str) {
        self.say(LinkCommand::Respond {
            id,
            response: response(status, headers, body),
        })
        .await;
    }

    pub(crate) async fn call(&self) -> Caller<TcpStream> {
        Caller(within(TcpStream::connect(self.address)).await.unwrap())
    }

    /// A caller from another address of this machine: all of 127/8 is.
    pub(crate) async fn call_from(&self, from: [u8; 4]) -> Caller<TcpStream> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((IpAddr::from(from), 0).into()).unwrap();
        Caller(within(socket.connect(self.address)).await.unwrap())
    }

    /// Answers everything from now on with status 200 and the request's body, or `answer` where it is not empty.
    pub(crate) fn answer_all(self, answer: &'static str) -> Answering {
        let (commands, mut events) = (self.commands, self.events);
        let task = tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                let LinkEvent::Request { id, request } = event else {
                    continue;
                };
                let body = if answer.is_empty() {
                    request.body
                } else {
                    answer.into()
                };
                let response = HttpResponse {
                    status: 200,
                    headers: Vec::new(),
                    body,
                };
                let answer = LinkCommand::Respond { id, response };
                if commands.send(answer).await.is_err() {
                    return;
                }
            }
        });
        Answering {
            address: self.address,
            task,
        }
    }
}

/// A listener whose agent answers by itself.
pub(crate) struct Answering {
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Answering {
    pub(crate) async fn call(&self) -> Caller<TcpStream> {
        Caller(within(TcpStream::connect(self.address)).await.unwrap())
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) fn response(status: u16, headers: &[(&str, &str)], body: &str) -> HttpResponse {
    HttpResponse {
        status,
        headers: headers
            .iter()
            .map(|(name, value)| Field {
                name: (*name).into(),
                value: (*value).into(),
            })
            .collect(),
        body: body.into(),
    }
}

/// A POST to `/api/updateDevice` with these header lines.
pub(crate) fn update(headers: &str, body: &str) -> String {
    format!(
        "POST /api/updateDevice HTTP/1.1\r\nHost: kit\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Writes and reads bytes as a client would, or would not.
pub(crate) struct Caller<S>(pub(crate) S);

impl<S: AsyncRead + AsyncWrite + Unpin> Caller<S> {
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within(self.0.write_all(bytes.as_ref())).await.unwrap();
    }

    pub(crate) async fn ask(&mut self, bytes: impl AsRef<[u8]>) -> Answer {
        self.send(bytes).await;
        self.answer().await
    }

    /// The next whole answer.
    pub(crate) async fn answer(&mut self) -> Answer {
        within(async {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                assert!(head.len() < 64 * 1024, "no head ends");
                head.push(self.0.read_u8().await.expect("an answer"));
            }
            let head = String::from_utf8(head).unwrap();
            let mut lines = head.trim_end().split("\r\n");
            let status = lines.next().unwrap();
            let mut answer = Answer {
                status: status.split(' ').nth(1).unwrap().parse().unwrap(),
                headers: lines
                    .map(|line| {
                        let (name, value) = line.split_once(':').unwrap();
                        (name.to_ascii_lowercase(), value.trim().to_owned())
                    })
                    .collect(),
                body: String::new(),
            };
            let length = answer
                .header("content-length")
                .map_or(0, |n| n.parse().unwrap());
            let mut body = vec![0; length];
            self.0.read_exact(&mut body).await.unwrap();
            answer.body = String::from_utf8(body).unwrap();
            answer
        })
        .await
    }

    /// Waits until the other side closes; what it said before is passed over.
    pub(crate) async fn closed(&mut self) {
        within(async {
            let mut sink = [0; 4_096];
            while self.0.read(&mut sink).await.unwrap_or(0) > 0 {}
        })
        .await;
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(n, _)| n == name);
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} stands twice");
        value
    }

    /// The host's own answer: JSON with the status and a message.
    pub(crate) fn is_own(&self, status: u16) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/json"));
        let body: serde_json::Value = serde_json::from_str(&self.body).unwrap();
        assert_eq!(body["status"], status);
        assert!(!body["message"].as_str().unwrap().is_empty());
        assert_eq!(body.as_object().unwrap().len(), 2);
    }
}
