//! Paths and names: what an adapter may ask for, and what a server may call a file.
//!
//! A path of an adapter is data of somebody else, and so is a name in a listing. Neither may leave the link's directory, carry a
//! second command over a line's end, or mean one thing to the grants and another to the server.

use otahost_core::paths::is_plain;

/// Longest path sent, in bytes. Servers with less say so.
const MAX_PATH: usize = 1024;

/// Longest name of a file, in bytes: that of the usual file systems.
const MAX_NAME: usize = 255;

/// The absolute path of a directory below `directory`. A leading `/` means the same as none; the empty path is `directory` itself.
pub(super) fn directory(directory: &str, path: &str) -> Result<String, String> {
    // A grant stops reading at a question mark, where a URL's query would begin.
    if !is_plain(path) || path.contains('?') {
        return Err(format!(
            "{path:?} is no plain path: it may hold no `..`, empty segment, backslash, question mark, control character or escape \
             of one of these"
        ));
    }
    let (base, path) = (directory.trim_end_matches('/'), path.trim_matches('/'));
    let whole = match (base, path) {
        ("", "") => "/".to_owned(),
        (base, "") => base.to_owned(),
        (base, path) => format!("{base}/{path}"),
    };
    if whole.len() > MAX_PATH {
        return Err(format!(
            "a path of {} bytes is too long; the limit is {MAX_PATH} bytes",
            whole.len()
        ));
    }
    Ok(whole)
}

/// The absolute path of a file below `directory`.
pub(super) fn file(directory: &str, path: &str) -> Result<String, String> {
    let whole = self::directory(directory, path)?;
    if path.trim_matches('/').is_empty() || path.ends_with('/') {
        return Err(format!("{path:?} names a directory, not a file"));
    }
    Ok(whole)
}

/// Whether a link may be confined to this directory.
pub(super) fn is_base(directory: &str) -> bool {
    directory.starts_with('/')
        && directory.len() <= MAX_PATH
        && is_plain(directory)
        && !directory.contains('?')
}

/// Whether a server's name for a file is one name in one directory, and nothing else.
pub(super) fn is_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..")
        && name.len() <= MAX_NAME
        && !name
            .chars()
            .any(|c| c.is_control() || matches!(c, '/' | '\\'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_path_counts_from_the_links_directory() {
        for (base, path, expected) in [
            ("/", "", "/"),
            ("/", "/", "/"),
            ("/", "fw/app.bin", "/fw/app.bin"),
            ("/kits/7", "", "/kits/7"),
            ("/kits/7/", "fw", "/kits/7/fw"),
            ("/kits/7", "/fw/a b.bin", "/kits/7/fw/a b.bin"),
            ("/kits/7", "/etc/passwd", "/kits/7/etc/passwd"),
            ("/kits/7", "-la", "/kits/7/-la"),
            ("/kits/7", "ş...x", "/kits/7/ş...x"),
        ] {
            assert_eq!(directory(base, path).as_deref(), Ok(expected), "{path}");
        }
    }

    #[test]
    fn a_path_that_leaves_the_directory_or_hides_something_is_refused() {
        for path in [
            "..",
            "../x",
            "fw/../../x",
            "fw/..",
            "/..",
            "./x",
            "fw//x",
            "//x",
            "..\\x",
            "fw\\..\\x",
            "x\r\nDELE y",
            "x\nDELE y",
            "x\0y",
            "x\ty",
            "x\u{7f}",
            "x\u{85}y",
            "%2e%2e/x",
            "a%2Fb",
            "a%5cb",
            "a%00",
            "fw?x/y",
            "fw/?/../../x",
        ] {
            assert!(directory("/kits", path).is_err(), "{path:?}");
            assert!(file("/kits", path).is_err(), "{path:?}");
        }
        assert!(directory("/", &"x".repeat(MAX_PATH)).is_err());
    }

    #[test]
    fn a_file_needs_a_name() {
        for path in ["", "/", "fw/"] {
            assert!(file("/kits", path).is_err(), "{path:?}");
        }
        assert_eq!(file("/kits", "/fw").as_deref(), Ok("/kits/fw"));
    }

    #[test]
    fn a_link_is_confined_to_an_absolute_plain_directory() {
        for good in ["/", "/kits", "/kits/7/"] {
            assert!(is_base(good), "{good}");
        }
        for bad in ["", "kits", "/kits/..", "/a//b", "/a\r\nb", "\\kits", "/a?b"] {
            assert!(!is_base(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_name_is_one_segment_without_tricks() {
        for good in [
            "a",
            "B359_1029_B242_D25080802",
            "a b",
            "...",
            "ü.bin",
            ".minisig",
            "-rf",
        ] {
            assert!(is_name(good), "{good}");
        }
        assert!(is_name(&"x".repeat(255)));
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "/a",
            "a\\b",
            "a\0",
            "a\rb",
            "a\nb",
            "a\u{1b}[2J",
            "a\u{9b}b",
        ] {
            assert!(!is_name(bad), "{bad:?}");
        }
        assert!(!is_name(&"x".repeat(256)));
    }

    proptest::proptest! {
        #[test]
        fn no_path_leaves_the_directory(path in "(\\.\\.|\\.|/|\\\\|a|%2e|%2F|\\?|\r|\n|\0|b c|\\PC){0,12}") {
            if let Ok(whole) = directory("/kits/7", &path) {
                proptest::prop_assert!(whole == "/kits/7" || whole.starts_with("/kits/7/"));
                proptest::prop_assert!(!whole.chars().any(char::is_control));
                proptest::prop_assert!(whole[1..].split('/').all(is_name), "{}", whole);
                // The grants see the same path the server does.
                proptest::prop_assert!(otahost_core::paths::within("kits/7", &whole));
            }
        }
    }
}
