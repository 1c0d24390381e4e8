//! The 112 kit by the real process: the centre's call, explicit FTPS, the reboot, and what people hear of it. Tests bear the ids of
//! the protocol's list (K01 to K17); what an adapter alone or a link alone has to hold is tested there.
#![allow(clippy::unwrap_used, reason = "tests")]

mod alerts;
mod calls;
mod kills;
mod nginx;
mod secrets;
mod station;
mod transfers;
mod update;

use otahost_e2e::kit::KitSpec;
use otahost_lab::ftps::{Ftps, FtpsOptions};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
/// Credentials on the update server, made up.
const USER: &str = "kit-user-4711";
const PASSWORD: &str = "Ayran-ve-Simit-23";

/// The lab's strict server, and a kit whose updates are there.
fn strict() -> (Ftps, KitSpec) {
    strict_with(FtpsOptions::new(USER, PASSWORD))
}

/// The same with these options.
fn strict_with(options: FtpsOptions) -> (Ftps, KitSpec) {
    let server = Ftps::start_with(options);
    let spec = KitSpec::new(server.port(), USER, PASSWORD);
    (server, spec)
}
