//! The line of the configuration that a finding is about, with the place marked, and without what may be a secret.

use super::finding::Show;

/// The line as it may be shown, and the line of carets below it. `column` counts characters from 1.
pub(super) fn mark(line: &str, column: u32, width: u32, show: Show) -> (String, String) {
    let characters: Vec<char> = line
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let start = (column.saturating_sub(1) as usize).min(characters.len());
    let end = start
        .saturating_add(width.max(1) as usize)
        .min(characters.len());
    let before = masked(&characters[..start]);
    let marked: String = characters[start..end].iter().collect();
    let indent = before.chars().count();
    let (shown, carets) = match show {
        // Without a width nobody said how far the mark goes: what stands there is masked like the rest.
        Show::Marked if width == 0 => (before + &masked(&characters[start..]), 1),
        Show::Marked => (before + &marked + &masked(&characters[end..]), end - start),
        Show::UpToMark => (
            before + &marked + if end < characters.len() { " …" } else { "" },
            end - start,
        ),
        Show::BeforeMark => (before + "…", 1),
    };
    (shown, " ".repeat(indent) + &"^".repeat(carets.max(1)))
}

/// Strings become `"…"`, but for those that say `file = "…"`: a path is no secret.
fn masked(characters: &[char]) -> String {
    let mut shown = String::new();
    let mut rest = characters.iter().peekable();
    while let Some(&c) = rest.next() {
        shown.push(c);
        if c != '"' && c != '\'' {
            continue;
        }
        let is_path = shown[..shown.len() - 1]
            .trim_end()
            .trim_end_matches('=')
            .trim_end()
            .ends_with("file");
        let mut escaped = false;
        let mut closed = false;
        for &inner in rest.by_ref() {
            if inner == c && !escaped {
                closed = true;
                break;
            }
            escaped = c == '"' && inner == '\\' && !escaped;
            if is_path {
                shown.push(inner);
            }
        }
        if !is_path {
            shown.push('…');
        }
        if closed {
            shown.push(c);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_shows_the_marked_part_and_no_other_string() {
        let line = "a = { url = \"x\", password = \"hunter2\", file = \"/p\" }";
        let (shown, marks) = mark(line, 13, 3, Show::Marked);
        assert_eq!(
            shown,
            "a = { url = \"x\", password = \"…\", file = \"/p\" }"
        );
        assert_eq!(marks, "            ^^^");
        for (column, width, show) in [
            (29, 9, Show::BeforeMark),
            (18, 8, Show::UpToMark),
            (1, 0, Show::Marked),
        ] {
            assert!(!mark(line, column, width, show).0.contains("hunter2"));
        }
    }

    #[test]
    fn a_string_that_never_ends_is_masked_to_the_end() {
        assert_eq!(
            mark("password = \"hunt\\\"er2", 1, 0, Show::Marked).0,
            "password = \"…"
        );
    }

    #[test]
    fn a_column_beyond_the_line_is_no_panic() {
        assert_eq!(mark("é", 99, 7, Show::Marked), ("é".into(), " ^".into()));
        assert_eq!(mark("", 0, 0, Show::BeforeMark), ("…".into(), "^".into()));
    }
}
