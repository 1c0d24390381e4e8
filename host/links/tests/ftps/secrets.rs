//! User name and password are nowhere but on the wire: the client crate writes both to the log when it is asked to say everything.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use otahost_core::secret::Secret;
use otahost_lab::ftps::Ftps;
use otahost_links::ftps::{FtpsLink, FtpsOptions};
use tracing_subscriber::fmt::MakeWriter;

use super::{content, open, options, whole};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        log.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Log;

    fn make_writer(&'a self) -> Log {
        self.clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_everything_holds_no_credentials() {
    const USER: &str = "user-for-the-log-test";
    const PASSWORD: &str = "password-for-the-log-test";
    const WRONG: &str = "wrong-password-for-the-log-test";
    let log = Log::default();
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(log.clone())
        .try_init()
        .unwrap();
    let server = Ftps::start(USER, PASSWORD);
    server.put("a", content(1_000));
    for password in [PASSWORD, WRONG] {
        let link = FtpsLink::new(FtpsOptions {
            username: Secret::new(USER),
            password: Secret::new(password),
            ..options(server.port())
        })
        .unwrap();
        let _ = link.list("").await;
        if let Ok(opened) = open(&link, "a", 0, None).await {
            whole(opened).await;
        }
    }
    assert_eq!(
        server.connections().len(),
        3,
        "two were let in, one was not"
    );
    let text = log.text();
    assert!(
        text.contains("PBSZ"),
        "the client crate's words are in the log"
    );
    for secret in [USER, PASSWORD, WRONG] {
        assert!(!text.contains(secret), "{secret} is in the log");
    }
}
