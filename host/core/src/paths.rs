//! Paths on links: which routes and requests a pattern covers, which files lie within a directory.
//!
//! Both sides of a comparison may come from somebody who would like it to go wrong, so what two programs could read differently
//! (`..`, doubled slashes, escapes of separators, control characters) is within nothing and matches nothing.

/// The path of a request without its query.
pub fn without_query(path: &str) -> &str {
    path.split_once('?').map_or(path, |(path, _)| path)
}

/// True when `path` means the same to everybody: absolute or relative, no empty, `.` or `..` segment but the first and the last, no
/// backslash, no control character, and no escape that hides one of these.
pub fn is_plain(path: &str) -> bool {
    if path.chars().any(|c| c.is_control() || c == '\\') {
        return false;
    }
    let lower = path.to_ascii_lowercase();
    if ["%2e", "%2f", "%5c", "%00", "%25"]
        .iter()
        .any(|e| lower.contains(e))
    {
        return false;
    }
    let inner = path.strip_prefix('/').unwrap_or(path);
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    // Some servers take what follows `;` off a segment before they resolve it.
    let named = |s: &str| s.split(';').next().unwrap_or_default().to_owned();
    inner.is_empty()
        || inner
            .split('/')
            .all(|s| !matches!(named(s).as_str(), "" | "." | ".."))
}

/// True when a file or directory lies in `directory`, or is it. Counted by whole segments; a query of `path` does not count. A path
/// that does not begin with `/` counts from the link's own directory, as one that does.
pub fn within(directory: &str, path: &str) -> bool {
    let path = without_query(path);
    if !is_plain(directory) || !is_plain(path) {
        return false;
    }
    let directory = directory.trim_matches('/');
    let path = path.trim_matches('/');
    directory.is_empty()
        || path == directory
        || path
            .strip_prefix(directory)
            .is_some_and(|rest| rest.starts_with('/'))
}

/// True when `pattern` (`*` stands for one segment) matches this path. A placeholder of a secret counts as a segment like any other.
pub fn pattern_matches(pattern: &str, path: &str) -> bool {
    is_plain(path) && segments_cover(pattern, path, false)
}

/// True when everything `inner` matches is matched by `outer`.
pub fn pattern_covers(outer: &str, inner: &str) -> bool {
    is_plain(inner) && segments_cover(outer, inner, true)
}

fn segments_cover(pattern: &str, path: &str, inner_is_pattern: bool) -> bool {
    let (mut pattern, mut path) = (pattern.split('/'), path.split('/'));
    loop {
        match (pattern.next(), path.next()) {
            (None, None) => return true,
            (Some("*"), Some(segment)) if !segment.is_empty() => {}
            (Some(_), Some("*")) if inner_is_pattern => return false,
            (Some(wanted), Some(segment)) if wanted == segment => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_within_a_directory_by_whole_segments() {
        for (directory, path, expected) in [
            ("/", "/a/b.bin", true),
            ("/", "b.bin", true),
            ("/model-a", "/model-a/b.bin", true),
            ("/model-a/", "model-a/b.bin?x=/../y", true),
            ("/model-a", "/model-a", true),
            ("/model-a", "/model-abc/b.bin", false),
            ("/model-a", "/model-b/b.bin", false),
            ("/model-a", "/model-a/../model-b/b.bin", false),
            ("/model-a", "/model-a/%2e%2E/model-b", false),
            ("/model-a", "/model-a//b", false),
            ("/model-a", "/model-a/..\\b", false),
            ("/model-a", "/model-a/b\r\nDELE x", false),
            ("/", "/a%2fb", false),
        ] {
            assert_eq!(within(directory, path), expected, "{directory} {path}");
        }
    }

    #[test]
    fn a_star_stands_for_one_segment() {
        for (pattern, path, expected) in [
            ("/device/*/file", "/device/7/file", true),
            ("/device/*/file", "/device/7/8/file", false),
            ("/device/*/file", "/device//file", false),
            ("/device/*", "/device/..", false),
            ("/device/*/x", "/device/..;/x", false),
            ("/device/*", "/device/%252e%252e", false),
            ("/device/*", "/device/7;v=1", true),
            ("/device/*", "/device/7/", false),
            ("/updateDevice", "/updateDevice", true),
            ("/updateDevice", "/updatedevice", false),
        ] {
            assert_eq!(pattern_matches(pattern, path), expected, "{pattern} {path}");
        }
        assert!(pattern_covers("/a/*", "/a/*"));
        assert!(pattern_covers("/a/*", "/a/b"));
        assert!(!pattern_covers("/a/b", "/a/*"));
    }
}
