//! Who calls the device over HTTP: each at his time, for as long as he has patience, and again where he insists.

use std::sync::Arc;
use std::time::Duration;

use otahost_links::{Inbound, Kind, Link, LinkCommand, LinkEvent};
use tokio::sync::mpsc;

use super::outer::{Shared, VirtualTime};

/// Virtual milliseconds a caller waits for his answer, where he does not say otherwise.
const PATIENCE: u64 = 15_000;

/// Characters of an answer that somebody reads: the world is noted at every operation of the disk.
const READS: usize = 16_000;

/// Somebody who calls.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Caller {
    /// When, in virtual time.
    pub at: u64,
    /// Method.
    pub method: String,
    /// Path.
    pub path: String,
    /// Body.
    pub body: Arc<str>,
    /// Virtual milliseconds he waits for the answer.
    pub patience: u64,
    /// After so many virtual milliseconds he calls again, until one of these is in what he has heard: status and body, divided by a
    /// space.
    pub insists: Option<(u64, Vec<String>)>,
}

impl Caller {
    /// One who calls once.
    pub fn new(at: u64, method: &str, path: &str, body: &str) -> Self {
        Caller {
            at,
            method: method.to_owned(),
            path: path.to_owned(),
            body: body.into(),
            patience: PATIENCE,
            insists: None,
        }
    }

    /// He calls again so much later, until one of these is in what he hears.
    #[must_use]
    pub fn until(mut self, every: u64, heard: &[&str]) -> Self {
        let heard = heard.iter().map(|text| (*text).to_owned()).collect();
        self.insists = Some((every, heard));
        self
    }
}

/// What a caller heard.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Heard {
    /// What he had asked for.
    pub path: String,
    /// The answer's status; 0: the connection broke.
    pub status: u16,
    /// The answer's body, as far as anybody reads it.
    pub body: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Calling {
    number: u64,
    until: u64,
    caller: Caller,
}

/// All who call.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Web {
    /// Who will call.
    pub callers: Vec<Caller>,
    /// What they heard, oldest first.
    pub heard: Vec<Heard>,
    /// Answers to nobody.
    pub unheard: u32,
    calling: Vec<Calling>,
    numbers: u64,
}

impl Web {
    /// Nobody calls and nobody will.
    pub fn is_quiet(&self) -> bool {
        self.callers.is_empty() && self.calling.is_empty()
    }

    /// What was heard with this status, oldest first.
    pub fn bodies(&self, status: u16) -> Vec<&str> {
        let heard = self.heard.iter().filter(|heard| heard.status == status);
        heard.map(|heard| heard.body.as_str()).collect()
    }

    fn hear(&mut self, now: u64, call: Calling, status: u16, body: String) {
        let caller = call.caller;
        let text = format!("{status} {body}");
        if let Some((every, until)) = &caller.insists
            && !until.iter().any(|wanted| text.contains(wanted))
        {
            self.callers.push(Caller {
                at: now + every,
                ..caller.clone()
            });
        }
        self.heard.push(Heard {
            path: caller.path,
            status,
            body: body.chars().take(READS).collect(),
        });
    }

    /// The device is another process now: all connections are gone.
    fn broke(&mut self, now: u64) {
        for call in std::mem::take(&mut self.calling) {
            self.hear(now, call, 0, String::new());
        }
    }

    /// Those who call now, with their numbers.
    fn due(&mut self, now: u64) -> Vec<(u64, Caller)> {
        let (due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.callers)
            .into_iter()
            .partition(|caller| caller.at <= now);
        self.callers = later;
        due.into_iter()
            .map(|caller| {
                self.numbers += 1;
                self.calling.push(Calling {
                    number: self.numbers,
                    until: now + caller.patience,
                    caller: caller.clone(),
                });
                (self.numbers, caller)
            })
            .collect()
    }

    /// The numbers of those who have waited too long. The link itself tells them so.
    fn overdue(&mut self, now: u64) -> Vec<u64> {
        let (overdue, calling): (Vec<_>, Vec<_>) = std::mem::take(&mut self.calling)
            .into_iter()
            .partition(|call| call.until <= now);
        self.calling = calling;
        let numbers = overdue.iter().map(|call| call.number).collect();
        for call in overdue {
            self.hear(now, call, 504, String::new());
        }
        numbers
    }

    fn answer(&mut self, now: u64, number: u64, status: u16, body: String) {
        match self.calling.iter().position(|call| call.number == number) {
            Some(at) => {
                let call = self.calling.remove(at);
                self.hear(now, call, status, body);
            }
            None => self.unheard += 1,
        }
    }

    fn next(&self) -> Option<u64> {
        let callers = self.callers.iter().map(|caller| caller.at);
        callers
            .chain(self.calling.iter().map(|call| call.until))
            .min()
    }
}

/// The link that is called.
#[derive(Debug)]
pub(super) struct SimWeb {
    pub world: Shared,
    pub time: VirtualTime,
}

impl Link for SimWeb {
    fn start(&self, events: mpsc::Sender<LinkEvent>) -> mpsc::Sender<LinkCommand> {
        let (commands, mut queue) = mpsc::channel(64);
        let (world, time) = (self.world.clone(), self.time);
        tokio::spawn(async move {
            let Some(LinkCommand::Serve(_)) = queue.recv().await else {
                return;
            };
            world.lock().unwrap().web.broke(time.now());
            let up = LinkEvent::Up {
                generation: 1,
                session_present: false,
            };
            if events.send(up).await.is_err() {
                return;
            }
            loop {
                let said = {
                    let web = &mut world.lock().unwrap().web;
                    let gone = web.overdue(time.now()).into_iter();
                    let gone = gone.map(LinkEvent::Withdrawn);
                    let asked = web.due(time.now()).into_iter();
                    let asked = asked.map(|(number, caller)| request(number, &caller));
                    gone.chain(asked).collect::<Vec<_>>()
                };
                for event in said {
                    if events.send(event).await.is_err() {
                        return;
                    }
                }
                let next = world.lock().unwrap().web.next();
                let command = tokio::select! {
                    biased;
                    command = queue.recv() => command,
                    () = time.sleep_until(next) => continue,
                };
                match command {
                    None => return,
                    Some(LinkCommand::Respond { id, response }) => {
                        let body = String::from_utf8_lossy(&response.body).into_owned();
                        let web = &mut world.lock().unwrap().web;
                        web.answer(time.now(), id, response.status, body);
                    }
                    Some(_) => {}
                }
            }
        });
        commands
    }

    fn kind(&self) -> Kind {
        Kind::HttpServer
    }
}

fn request(number: u64, caller: &Caller) -> LinkEvent {
    let request = Inbound {
        method: caller.method.clone(),
        path: caller.path.clone(),
        query: Vec::new(),
        headers: Vec::new(),
        body: caller.body.as_bytes().to_vec(),
        principal: "caller".into(),
        answer_within: Duration::from_millis(caller.patience),
    };
    LinkEvent::Request {
        id: number,
        request: Box::new(request),
    }
}
