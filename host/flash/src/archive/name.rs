//! Names in archives: which may be unpacked, and where links may lead.

use super::limits::ArchiveLimits;

/// Longest path, and longest name in it; what Linux file systems take.
const MAX_PATH: usize = 4096;
const MAX_NAME: usize = 255;

/// A path of an archive as names below the directory it is unpacked into; none for that directory itself.
pub(super) fn path(raw: &[u8], limits: &ArchiveLimits) -> Result<Vec<String>, String> {
    let text = plain(raw)?;
    if text.starts_with('/') {
        return Err(format!("its entry {text:?} has an absolute name"));
    }
    let mut names = Vec::new();
    for name in text.split('/') {
        match name {
            "" | "." => {}
            ".." => return Err(format!("its entry {text:?} leads out of the directory")),
            name if name.len() > MAX_NAME => {
                return Err(format!("a name in its entry {text:?} is too long"));
            }
            name => names.push(name.to_owned()),
        }
    }
    if names.first().is_some_and(|name| is_drive(name)) {
        return Err(format!("its entry {text:?} names a drive"));
    }
    if names.len() > limits.depth as usize + 1 {
        return Err(format!(
            "its entry {text:?} lies deeper than the {} directories allowed",
            limits.depth
        ));
    }
    Ok(names)
}

/// The content of a symbolic link that lies below so many real directories.
///
/// It may climb at its beginning only, and not above the directory that is unpacked into: what a `..` behind another name means
/// depends on links, and so could lead out.
pub(super) fn link(raw: &[u8], directories: usize) -> Result<String, String> {
    let text = plain(raw)?;
    if text.is_empty() || text.starts_with('/') || is_drive(text.split('/').next().unwrap_or("")) {
        return Err(format!("its link to {text:?} leads out of the directory"));
    }
    let mut climbed = 0;
    let mut came_down = false;
    for name in text.split('/') {
        match name {
            "" | "." => {}
            ".." if came_down || climbed == directories => {
                return Err(format!(
                    "its link to {text:?} may lead out of the directory"
                ));
            }
            ".." => climbed += 1,
            name if name.len() > MAX_NAME => {
                return Err(format!("its link to {text:?} is too long"));
            }
            _ => came_down = true,
        }
    }
    Ok(text.to_owned())
}

fn plain(raw: &[u8]) -> Result<&str, String> {
    if raw.len() > MAX_PATH {
        return Err("a name in it is too long".into());
    }
    let text = std::str::from_utf8(raw).map_err(|_| {
        format!(
            "the name {:?} in it is not UTF-8",
            String::from_utf8_lossy(raw)
        )
    })?;
    if text.chars().any(char::is_control) {
        return Err(format!("the name {text:?} in it holds control characters"));
    }
    if text.contains('\\') {
        // Where some unpackers see one name others see a path.
        return Err(format!("the name {text:?} in it holds a backslash"));
    }
    Ok(text)
}

/// `C:` and the like.
fn is_drive(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic()) && chars.next() == Some(':')
}
