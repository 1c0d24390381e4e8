//! `ca` and `pin`: why a link trusts its server.

use otahost_links::tls::ServerTrust;

use super::super::reader::Section;

/// Largest file of authorities, in bytes.
const MAX_CA: u64 = 1024 * 1024;

/// `None` when a key is faulty.
pub(in crate::config) fn read(section: &Section<'_>) -> Option<ServerTrust> {
    match (section.get("ca"), section.get("pin")) {
        (None, None) => Some(ServerTrust::System),
        (Some(_), Some(pin)) => {
            pin.fault(
                "stands beside `ca`, and nobody can say which of them counts",
                "remove one of them",
            );
            None
        }
        (Some(ca), None) => ca.file_content("the file", MAX_CA).map(ServerTrust::Ca),
        (None, Some(pin)) => {
            let text = pin.string()?;
            let digest = text.strip_prefix("sha256:").and_then(hex);
            if digest.is_none() {
                pin.fault(
                    "is no SHA-256 of a certificate",
                    "write `sha256:` and 64 hexadecimal digits; `openssl x509 -noout -fingerprint -sha256` shows them",
                );
            }
            Some(ServerTrust::Pin(digest?))
        }
    }
}

/// 64 hexadecimal digits, with colons between the bytes or without.
fn hex(text: &str) -> Option<[u8; 32]> {
    let digits: String = text.chars().filter(|c| *c != ':').collect();
    if digits.len() != 64 || !digits.is_ascii() {
        return None;
    }
    let mut digest = [0; 32];
    for (byte, at) in digest.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(digits.get(at..at + 2)?, 16).ok()?;
    }
    Some(digest)
}
