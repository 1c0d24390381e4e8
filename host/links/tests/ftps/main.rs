//! The FTPS link against the lab's strict server, which does what servers and networks do to a download, and against the real vsftpd.

#![allow(clippy::unwrap_used, reason = "tests")]

mod listings;
mod secrets;
mod sessions;
mod silence;
mod transfers;
mod vsftpd;

use std::time::Duration;

use otahost_core::secret::Secret;
use otahost_lab::ftps::Ftps;
use otahost_lab::tls::CA_PEM;
use otahost_links::ftps::{FtpsBody, FtpsError, FtpsLink, FtpsOpened, FtpsOptions};
use otahost_links::tls::ServerTrust;
use tokio::time::timeout;

/// No step of a test takes this long unless something is wrong.
const LIMIT: Duration = Duration::from_secs(30);

const USER: &str = "made-up-kit-user";

const PASSWORD: &str = "made-up-kit-password";

fn lab() -> Ftps {
    Ftps::start(USER, PASSWORD)
}

fn options(port: u16) -> FtpsOptions {
    FtpsOptions {
        port,
        trust: ServerTrust::Ca(CA_PEM.as_bytes().to_vec()),
        ..FtpsOptions::new("127.0.0.1", Secret::new(USER), Secret::new(PASSWORD))
    }
}

fn link(port: u16) -> FtpsLink {
    FtpsLink::new(options(port)).unwrap()
}

/// Bytes that repeat nowhere near.
fn content(size: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    })
    .take(size)
    .collect()
}

async fn open(
    link: &FtpsLink,
    path: &str,
    from: u64,
    validator: Option<&str>,
) -> Result<FtpsOpened, FtpsError> {
    timeout(LIMIT, link.open(path, from, validator))
        .await
        .expect("an opening ends")
}

/// All that comes, and how it ended.
async fn read(body: &mut FtpsBody) -> (Vec<u8>, Result<(), FtpsError>) {
    let mut bytes = Vec::new();
    loop {
        match timeout(LIMIT, body.next()).await.expect("a body ends") {
            Ok(Some(piece)) => {
                assert!((1..=256 * 1024).contains(&piece.len()));
                bytes.extend_from_slice(&piece);
            }
            Ok(None) => return (bytes, Ok(())),
            Err(error) => return (bytes, Err(error)),
        }
    }
}

/// The whole rest of a file that can be read to its end.
async fn whole(mut opened: FtpsOpened) -> Vec<u8> {
    let (bytes, end) = read(&mut opened.body).await;
    assert_eq!(end, Ok(()));
    bytes
}
