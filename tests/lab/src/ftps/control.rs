//! One control connection: takes commands in the order real servers insist on, and does with each what the test ordered.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::record::{Command, Connection};
use super::script::Answer;
use super::tree::{Format, absolute};
use super::wire::{Wire, over};
use super::{Settings, Shared};

/// What may be said before a login.
const OPEN: [&str; 9] = [
    "AUTH", "PBSZ", "PROT", "USER", "PASS", "FEAT", "NOOP", "SYST", "OPTS",
];

/// One client.
pub(super) struct Control {
    pub(super) shared: Arc<Shared>,
    pub(super) settings: Arc<Settings>,
    pub(super) id: usize,
    pub(super) wire: Wire,
    /// Where the next data connection is expected.
    pub(super) passive: Option<TcpListener>,
    /// Data connections are to be secret.
    pub(super) private: bool,
    pub(super) binary: bool,
    /// What the test ordered for this command and has not happened yet.
    answer: Option<Answer>,
    hang_up: watch::Receiver<String>,
    secure: bool,
    buffer_size_said: bool,
    user: Option<Vec<u8>>,
    logged_in: bool,
    directory: Vec<u8>,
    rest: u64,
}

impl Control {
    pub(super) fn new(
        shared: Arc<Shared>,
        settings: Arc<Settings>,
        id: usize,
        stream: TcpStream,
    ) -> Self {
        let hang_up = shared.hang_up.subscribe();
        Self {
            shared,
            settings,
            id,
            wire: Wire::new(stream),
            passive: None,
            private: false,
            binary: false,
            answer: None,
            hang_up,
            secure: false,
            buffer_size_said: false,
            user: None,
            logged_in: false,
            directory: b"/".to_vec(),
            rest: 0,
        }
    }

    /// Serves until the client goes, the test ends it, or something fails.
    pub(super) async fn serve(mut self) -> io::Result<()> {
        if self.overruled("CONNECT").await? {
            return Err(over());
        }
        self.reply("220 The lab's FTPS server.").await?;
        loop {
            let line = tokio::select! {
                line = self.wire.line() => line?,
                _ = self.hang_up.changed() => {
                    let line = self.hang_up.borrow_and_update().clone();
                    return self.send(&line).await;
                }
            };
            let at = line.iter().position(|byte| *byte == b' ');
            let (verb, argument) = line.split_at(at.unwrap_or(line.len()));
            let argument = argument.get(1..).unwrap_or_default();
            let verb = String::from_utf8_lossy(verb).to_ascii_uppercase();
            self.note_command(&verb, argument);
            if self.overruled(&verb).await? {
                self.rest = 0;
            } else {
                self.obey(&verb, argument).await?;
            }
        }
    }

    /// Changes the record of this connection.
    pub(super) fn note<T>(&self, change: impl FnOnce(&mut Connection) -> T) -> T {
        let id = self.id;
        self.shared
            .change(|state| change(&mut state.connections[id]))
    }

    fn note_command(&self, verb: &str, argument: &[u8]) {
        let argument = match (verb, argument) {
            (_, []) => None,
            ("PASS", _) => Some("***".to_owned()),
            _ => Some(String::from_utf8_lossy(argument).into_owned()),
        };
        let secure = self.secure;
        self.note(|connection| {
            connection.user_before_tls |= verb == "USER" && !secure;
            connection.before_tls += usize::from(!secure);
            connection.commands.push(Command {
                verb: verb.to_owned(),
                argument,
                replies: Vec::new(),
            });
        });
    }

    /// Does what the test ordered instead of a command, if it did; what it ordered beside it happens with the reply.
    async fn overruled(&mut self, verb: &str) -> io::Result<bool> {
        self.answer = self
            .shared
            .change(|state| state.answers.take(verb.as_bytes()));
        match self.answer.take() {
            Some(Answer::Refuse(line)) => self.send(&line).await.map(|()| true),
            Some(Answer::Close(line)) => {
                if !line.is_empty() {
                    self.send(&line).await?;
                }
                Err(over())
            }
            other => {
                self.answer = other;
                Ok(false)
            }
        }
    }

    /// Sends a reply, in the way the test ordered.
    pub(super) async fn reply(&mut self, line: &str) -> io::Result<()> {
        match self.answer.take() {
            Some(Answer::Silence) => {
                self.silence().await?;
                self.send(line).await
            }
            Some(Answer::HalfThenSilence) => {
                let whole = format!("{line}\r\n");
                let (first, second) = whole.as_bytes().split_at(whole.len() / 2);
                self.wire.write(first).await?;
                self.silence().await?;
                self.note_reply(line);
                self.wire.write(second).await
            }
            Some(Answer::SilenceAfter) => {
                self.send(line).await?;
                self.silence().await
            }
            Some(Answer::Inject(more)) => self.send(&format!("{line}\r\n{more}")).await,
            _ => self.send(line).await,
        }
    }

    /// Sends a line as it is.
    pub(super) async fn send(&mut self, line: &str) -> io::Result<()> {
        // Before the client can see it, so that a test that saw the effect finds the cause.
        self.note_reply(line);
        self.wire.write(format!("{line}\r\n").as_bytes()).await
    }

    fn note_reply(&self, line: &str) {
        let code = code(line);
        self.note(|connection| {
            if let Some(command) = connection.commands.last_mut() {
                command.replies.push(code);
            }
        });
    }

    /// Says nothing until the test lets it go on. An error when the client goes first.
    pub(super) async fn silence(&mut self) -> io::Result<()> {
        let mut released = self.shared.released.subscribe();
        self.note(|connection| connection.silent = true);
        let result = tokio::select! {
            _ = released.changed() => Ok(()),
            error = self.wire.gone() => Err(error),
        };
        self.note(|connection| connection.silent = false);
        result
    }

    async fn obey(&mut self, verb: &str, argument: &[u8]) -> io::Result<()> {
        // Any command between REST and RETR makes real servers forget the offset.
        let rest = std::mem::take(&mut self.rest);
        if verb == "QUIT" {
            self.reply("221 Goodbye.").await?;
            return Err(over());
        }
        if !self.logged_in && !OPEN.contains(&verb) {
            return self.reply("530 Log in first.").await;
        }
        match verb {
            "AUTH" => self.auth(argument).await,
            "PBSZ" | "PROT" => self.protect(verb, argument).await,
            "USER" | "PASS" => self.login(verb, argument).await,
            "FEAT" => self.features().await,
            "NOOP" => self.reply("200 Here.").await,
            "SYST" => self.reply("215 UNIX Type: L8").await,
            "OPTS" => self.reply("200 As you like.").await,
            "TYPE" => self.set_type(argument).await,
            "PWD" | "CWD" | "CDUP" => self.go(verb, argument).await,
            "SIZE" | "MDTM" => self.facts(verb, argument).await,
            "REST" => self.restart(argument).await,
            "PASV" | "EPSV" => self.listen(verb).await,
            "MLSD" => self.list(verb, argument, Format::Mlsd).await,
            "LIST" => self.list(verb, argument, Format::Long).await,
            "NLST" => self.list(verb, argument, Format::Names).await,
            "RETR" => self.retrieve(argument, rest).await,
            "PORT" | "EPRT" | "STOR" | "APPE" | "DELE" | "MKD" | "RMD" | "RNFR" | "RNTO"
            | "SITE" | "ABOR" | "CCC" => self.reply("502 Not here.").await,
            _ => self.reply("500 Unknown command.").await,
        }
    }

    async fn auth(&mut self, argument: &[u8]) -> io::Result<()> {
        if self.secure {
            return self.reply("503 It is secret already.").await;
        }
        if !argument.eq_ignore_ascii_case(b"TLS") {
            return self.reply("504 Only TLS.").await;
        }
        // Words sent in the clear must not count as said in secret.
        if self.wire.is_ahead() {
            return Err(over());
        }
        self.reply("234 Begin TLS.").await?;
        match self.wire.secure(&self.settings.login).await {
            Ok(session) => {
                self.secure = true;
                self.user = None;
                self.note(|connection| connection.tls = Some(session));
                Ok(())
            }
            Err(error) => {
                self.note(|connection| connection.tls_error = Some(error.to_string()));
                Err(error)
            }
        }
    }

    async fn protect(&mut self, verb: &str, argument: &[u8]) -> io::Result<()> {
        if !self.secure {
            return self.reply("503 AUTH TLS comes first.").await;
        }
        match (verb, argument) {
            ("PBSZ", b"0") => {
                self.buffer_size_said = true;
                self.reply("200 PBSZ=0").await
            }
            ("PBSZ", _) => self.reply("501 Only 0.").await,
            _ if !self.buffer_size_said => self.reply("503 PBSZ comes first.").await,
            (_, b"P") => {
                self.private = true;
                self.reply("200 Data connections are secret.").await
            }
            _ => self.reply("534 Only P.").await,
        }
    }

    async fn login(&mut self, verb: &str, argument: &[u8]) -> io::Result<()> {
        if !self.secure {
            return self.reply("530 Not in the clear.").await;
        }
        if verb == "USER" {
            self.user = Some(argument.to_owned());
            return self.reply("331 And the password?").await;
        }
        let Some(user) = self.user.take() else {
            return self.reply("503 USER comes first.").await;
        };
        let options = &self.settings.options;
        if user != options.user.as_bytes() || argument != options.password.as_bytes() {
            return self.reply("530 Login incorrect.").await;
        }
        self.logged_in = true;
        self.note(|connection| connection.logged_in = true);
        self.reply("230 Logged in.").await
    }

    async fn features(&mut self) -> io::Result<()> {
        let features = [
            ("AUTH", " AUTH TLS"),
            ("EPSV", " EPSV"),
            ("MDTM", " MDTM"),
            ("MLSD", " MLST type*;size*;modify*;"),
            ("PBSZ", " PBSZ"),
            ("PROT", " PROT"),
            ("REST", " REST STREAM"),
            ("SIZE", " SIZE"),
        ];
        // What the test has refused is not praised either.
        let known = self.shared.change(|state| {
            features
                .iter()
                .filter(|(verb, _)| {
                    !matches!(state.answers.next(verb.as_bytes()), Some(Answer::Refuse(_)))
                })
                .map(|(_, line)| format!("{line}\r\n"))
                .collect::<String>()
        });
        self.reply(&format!("211-Features:\r\n{known}211 End"))
            .await
    }

    async fn set_type(&mut self, argument: &[u8]) -> io::Result<()> {
        self.binary = match argument.to_ascii_uppercase().as_slice() {
            b"I" | b"L 8" => true,
            b"A" | b"A N" => false,
            _ => return self.reply("504 Only A and I.").await,
        };
        self.reply("200 Type set.").await
    }

    async fn go(&mut self, verb: &str, argument: &[u8]) -> io::Result<()> {
        if verb == "PWD" {
            let path = String::from_utf8_lossy(&self.directory).replace('"', "\"\"");
            return self
                .reply(&format!("257 \"{path}\" is where you are."))
                .await;
        }
        let argument = if verb == "CDUP" {
            b"..".as_slice()
        } else {
            argument
        };
        let path = absolute(&self.directory, argument);
        if !self.shared.change(|state| state.tree.is_directory(&path)) {
            return self.reply("550 No such directory.").await;
        }
        self.directory = path;
        self.reply("250 There you are.").await
    }

    async fn facts(&mut self, verb: &str, argument: &[u8]) -> io::Result<()> {
        if verb == "SIZE" && !self.binary {
            return self.reply("550 SIZE not allowed in ASCII mode.").await;
        }
        let path = absolute(&self.directory, argument);
        let fact = self.shared.change(|state| {
            let file = state.tree.file(&path)?;
            if verb == "SIZE" {
                Some(file.size().to_string())
            } else {
                file.modified.clone()
            }
        });
        match fact {
            Some(fact) => self.reply(&format!("213 {fact}")).await,
            None => self.reply("550 No such file, or not known.").await,
        }
    }

    async fn restart(&mut self, argument: &[u8]) -> io::Result<()> {
        if !self.binary {
            return self.reply("501 REST not allowed in ASCII mode.").await;
        }
        let offset = std::str::from_utf8(argument)
            .ok()
            .and_then(|text| text.parse().ok());
        let Some(offset) = offset else {
            return self.reply("501 A number.").await;
        };
        self.rest = offset;
        self.reply("350 RETR comes next.").await
    }

    async fn listen(&mut self, verb: &str) -> io::Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        self.passive = Some(listener);
        if verb == "EPSV" {
            return self
                .reply(&format!("229 Entering Extended Passive Mode (|||{port}|)"))
                .await;
        }
        let address = self.settings.options.pasv_address;
        let [a, b, c, d] = address.unwrap_or(Ipv4Addr::LOCALHOST).octets();
        let (high, low) = (port / 256, port % 256);
        self.reply(&format!(
            "227 Entering Passive Mode ({a},{b},{c},{d},{high},{low})."
        ))
        .await
    }

    async fn list(&mut self, verb: &str, argument: &[u8], format: Format) -> io::Result<()> {
        // `LIST -a` and its like ask for a manner, not for a path.
        let argument = if argument.starts_with(b"-") {
            b"".as_slice()
        } else {
            argument
        };
        let path = absolute(&self.directory, argument);
        let listing = self.shared.change(|state| {
            let known = state.tree.is_directory(&path)
                || (format != Format::Mlsd && state.tree.file(&path).is_some());
            known.then(|| state.tree.listing(&path, format))
        });
        match listing {
            Some(listing) => self.transfer(verb, &path, listing.into(), 0).await,
            None => self.reply("550 No such directory.").await,
        }
    }

    async fn retrieve(&mut self, argument: &[u8], rest: u64) -> io::Result<()> {
        let path = absolute(&self.directory, argument);
        let file = self.shared.change(|state| state.tree.file(&path).cloned());
        match file {
            None => self.reply("550 No such file.").await,
            Some(file) if rest > file.bytes.len() as u64 => {
                self.reply("554 The file is not so long.").await
            }
            Some(file) => self.transfer("RETR", &path, file.bytes, rest).await,
        }
    }
}

/// The code of a reply, 0 when it has none.
pub(super) fn code(line: &str) -> u16 {
    line.get(..3)
        .and_then(|code| code.parse().ok())
        .unwrap_or(0)
}
