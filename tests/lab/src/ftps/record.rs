//! What the server saw, for a test to judge.

/// One control connection, from its first byte to its last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Connection {
    /// The commands, in order.
    pub commands: Vec<Command>,
    /// The TLS session of the control connection, once there is one.
    pub tls: Option<Session>,
    /// How many commands came before the TLS session.
    pub before_tls: usize,
    /// Why the TLS handshake of the control connection failed: for one, the alert with which the client refuses the certificate.
    pub tls_error: Option<String>,
    /// A user name came in the clear.
    pub user_before_tls: bool,
    /// User and password were right.
    pub logged_in: bool,
    /// The data connections, in order.
    pub data: Vec<Data>,
    /// The `RETR`s that were answered with 150, in order.
    pub retrievals: Vec<Retrieval>,
    /// The server is silent just now, by order.
    pub silent: bool,
    /// The connection is over.
    pub closed: bool,
}

/// A TLS session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// `TLSv1_2` or `TLSv1_3`.
    pub version: String,
    /// It goes on with keys of an earlier session.
    pub resumed: bool,
}

/// One command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// In upper case.
    pub verb: String,
    /// The rest of the line, if there is any; of `PASS`: `***`. What is not UTF-8 is replaced.
    pub argument: Option<String>,
    /// The codes of its replies, in order.
    pub replies: Vec<u16>,
}

/// One data connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Data {
    /// The command it served.
    pub verb: String,
    /// Its TLS session; none when the handshake failed.
    pub tls: Option<Session>,
    /// The server refused it because its session was not resumed.
    pub refused: bool,
}

/// One transfer of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retrieval {
    /// The absolute path of the file.
    pub path: String,
    /// The offset `REST` asked for.
    pub offset: u64,
    /// Bytes sent so far.
    pub sent: u64,
    /// The code of the last reply; 0 before there is one after the 150.
    pub reply: u16,
}

impl Connection {
    /// The commands as lines, with the line `(TLS)` where the control connection became secret:
    /// `AUTH TLS`, `(TLS)`, `PBSZ 0`, `PROT P`, `USER kit`, `PASS ***` …
    #[must_use]
    pub fn sequence(&self) -> Vec<String> {
        let mut lines: Vec<String> = self
            .commands
            .iter()
            .map(|command| match &command.argument {
                Some(argument) => format!("{} {argument}", command.verb),
                None => command.verb.clone(),
            })
            .collect();
        if self.tls.is_some() {
            lines.insert(self.before_tls, "(TLS)".to_owned());
        }
        lines
    }

    /// The commands without their arguments.
    #[must_use]
    pub fn verbs(&self) -> Vec<&str> {
        self.commands
            .iter()
            .map(|command| command.verb.as_str())
            .collect()
    }
}
