//! The Withnox cloud by its page: the API with tokens that expire and refresh tokens good for one use, and the object store behind
//! its redirects, on another origin. It behaves until told otherwise, and remembers every request without its secrets.
//!
//! What a real cloud forgives or hides is counted here: a refresh token that was used up logs the device out, as the vendor's does,
//! and the store answers 400 to a signed address that comes with an `Authorization` header, as S3 does and MinIO does not. What the
//! device did wrong is in [`violations`](Withnox::violations); a test ends by looking there.
//!
//! The store is a [`Files`], with all its faults, and a door that only a signed address opens.

mod api;
mod book;
mod door;
mod script;
mod wire;

use std::fmt;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use md5::{Digest, Md5};

use crate::files::Files;
use crate::ids::hex;
use book::Book;
pub use script::Scripted;

/// The device's id in the cloud.
pub const DEVICE: u64 = 4;
/// The account that owns it: `real_user_id`.
pub const USER: u64 = 9;
/// Its hardware's id.
pub const HARDWARE: u64 = 3;

/// What is asked of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Route {
    /// `POST …/auth/email/signin`.
    SignIn,
    /// `POST …/auth/refresh-token`.
    Refresh,
    /// `GET …/firmware/latest/…`.
    Latest,
    /// `GET …/firmware/file/…`.
    File,
    /// `PATCH …/firmware/update-result/…`.
    UpdateResult,
    /// Anything else.
    Unknown,
}

/// What a request came with: its bearer token, the refresh token in it, or the account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credential {
    /// Nothing.
    None,
    /// The one that is good now.
    Good,
    /// An access token whose time is over.
    Expired,
    /// A refresh token that was good once.
    UsedUp,
    /// Something else.
    Unknown,
}

/// One request to the API. Nothing of it is secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// What was asked.
    pub route: Route,
    /// The path.
    pub path: String,
    /// What it came with.
    pub credential: Credential,
    /// The status of the answer; 0 where none is given.
    pub status: u16,
    /// The sentence of an error, or where a redirect leads, without its query.
    pub said: String,
    /// The answer has gone to the network.
    pub answered: bool,
}

/// The tokens of a session.
#[derive(Clone, PartialEq, Eq)]
pub struct Session {
    /// Goes with every request.
    pub access: String,
    /// Good for one refresh.
    pub refresh: String,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session")
    }
}

/// What the store says of a file in its ETag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tag {
    /// Uploaded in one part: the file's MD5.
    Md5,
    /// Uploaded in several: the MD5 of MD5s, `-` and their number, which says nothing of the file.
    Multipart,
    /// This.
    Other(String),
}

/// The cloud. Ends with its value.
pub struct Withnox {
    port: u16,
    store: Files,
    shared: Arc<Shared>,
}

impl fmt::Debug for Withnox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Withnox")
            .field("port", &self.port)
            .field("calls", &self.calls())
            .finish_non_exhaustive()
    }
}

type Callback = Box<dyn FnMut(&Call) + Send>;

#[derive(Default)]
struct Shared {
    book: Mutex<Book>,
    changed: Condvar,
    callback: Mutex<Option<Callback>>,
}

impl Shared {
    fn book(&self) -> MutexGuard<'_, Book> {
        lock(&self.book)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Book) -> T) -> T {
        let result = change(&mut self.book());
        self.changed.notify_all();
        result
    }
}

impl Withnox {
    /// Starts API and store on free ports of 127.0.0.1, with an account, no session and no firmware.
    ///
    /// # Panics
    /// When no loopback port can be had.
    #[must_use]
    pub fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback port");
        let port = listener.local_addr().expect("a bound port").port();
        let store = Files::start();
        let shared = Arc::new(Shared::default());
        shared.book().store = store.url("");
        let door = Arc::clone(&shared);
        store.guard(move |request| door.change(|book| door::look(book, request)));
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.book().stopped {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let shared = Arc::clone(&accepting);
                // A client that goes away in the middle is what some tests are about.
                thread::spawn(move || api::serve(&shared, stream));
            }
        });
        Self {
            port,
            store,
            shared,
        }
    }

    /// The API's base: `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The object store: its requests, its faults and its speed.
    #[must_use]
    pub fn store(&self) -> &Files {
        &self.store
    }

    /// User name and password of the device's account.
    #[must_use]
    pub fn account(&self) -> (String, String) {
        let book = self.shared.book();
        (book.username.clone(), book.password.clone())
    }

    /// From now on the account has another password.
    pub fn change_password(&self) {
        self.shared.change(Book::change_password);
    }

    /// A session as a factory leaves it on a device: one that was signed in before.
    #[must_use]
    pub fn session(&self) -> Session {
        self.shared.change(Book::new_session)
    }

    /// Offers a version under this firmware id, and puts its file into the store. A firmware that is there already gets the new file.
    /// Gives the file's name in the store.
    pub fn offer(&self, id: u64, version: &str, file: &[u8], tag: &Tag) -> String {
        let name = format!("firmwares/ADDNOX/Addnox_MP_{:08x}.bin", 0x5978_0000 + id);
        let md5 = hex(Md5::digest(file).as_slice());
        let tag = match tag {
            Tag::Md5 => md5,
            Tag::Multipart => format!("{}-2", hex(Md5::digest(md5.as_bytes()).as_slice())),
            Tag::Other(tag) => tag.clone(),
        };
        self.store.put_tagged(&name, file, &tag);
        self.shared
            .change(|book| book.offer(id, version, name.clone()));
        name
    }

    /// Offers it no more; the file goes too.
    pub fn withdraw(&self, id: u64) {
        if let Some(name) = self.shared.change(|book| book.withdraw(id)) {
            self.store.remove(&name);
        }
    }

    /// The time of every access token given so far is over.
    pub fn expire_access(&self) {
        self.shared.change(Book::expire_access);
    }

    /// The time of every signed address given so far is over.
    pub fn expire_addresses(&self) {
        self.shared.change(|book| {
            for signed in book.signed.values_mut() {
                signed.expired = true;
            }
        });
    }

    /// The statuses of the next redirects to the store; the last one stays. 307 until told otherwise.
    pub fn redirect_with(&self, statuses: &[u16]) {
        self.shared
            .change(|book| book.redirects = statuses.iter().copied().collect());
    }

    /// Plans what happens with the next `times` requests of a route, after what was planned before.
    pub fn script(&self, route: Route, times: u32, what: &Scripted) {
        self.shared.change(|book| {
            let planned = book.script.entry(route).or_default();
            planned.extend((0..times).map(|_| what.clone()));
        });
    }

    /// Lets answers go that [`Scripted::Hold`] keeps.
    pub fn release(&self) {
        self.shared.change(|book| book.releases += 1);
    }

    /// Calls this for every request when its answer is known, before it is sent, on the server's own threads; it must not block.
    pub fn on_call(&self, callback: impl FnMut(&Call) + Send + 'static) {
        *lock(&self.shared.callback) = Some(Box::new(callback));
    }

    /// All requests so far, in order.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.shared.book().calls.clone()
    }

    /// The requests of one route.
    #[must_use]
    pub fn calls_of(&self, route: Route) -> Vec<Call> {
        let calls = self.calls().into_iter();
        calls.filter(|call| call.route == route).collect()
    }

    /// Waits until a condition on the requests holds. Says whether it did within the limit.
    #[must_use]
    pub fn wait_for(&self, limit: Duration, condition: impl Fn(&[Call]) -> bool) -> bool {
        let book = self.shared.book();
        let (book, _) = self
            .shared
            .changed
            .wait_timeout_while(book, limit, |book| !condition(&book.calls))
            .unwrap_or_else(PoisonError::into_inner);
        condition(&book.calls)
    }

    /// What the cloud believes to be installed: what was last reported and accepted.
    #[must_use]
    pub fn now_firmware(&self) -> Option<u64> {
        self.shared.book().now_firmware
    }

    /// The session is gone: the device has to sign in.
    #[must_use]
    pub fn logged_out(&self) -> bool {
        self.shared.book().refresh.is_none()
    }

    /// What the device did that a device must not do, a sentence each.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.shared.book().violations.clone()
    }

    /// All that nobody but the device and the cloud may know: every token given so far, and the account.
    #[must_use]
    pub fn secrets(&self) -> Vec<String> {
        self.shared.book().secrets()
    }

    /// What is secret in the signed addresses given so far: their signatures, and the store's own credentials in them.
    #[must_use]
    pub fn signatures(&self) -> Vec<String> {
        self.shared.book().signatures()
    }
}

impl Drop for Withnox {
    fn drop(&mut self) {
        self.shared.change(|book| book.stopped = true);
        // Wakes the accepting thread, so that it sees the end.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
