//! Text from a guest is shown to people and written to logs: it must fit on its line and carry no control sequence.

/// The text with every control character spelt out and at most `most` bytes long, cut between characters.
pub(crate) fn plain(text: &str, most: usize) -> String {
    let mut shown = String::with_capacity(text.len().min(most));
    for c in text.chars() {
        let start = shown.len();
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
        if shown.len() > most {
            shown.truncate(start);
            break;
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::plain;

    #[test]
    fn control_characters_are_spelt_out() {
        assert_eq!(plain("a\nb\u{1b}[31m", 100), "a\\nb\\u{1b}[31m");
    }

    #[test]
    fn a_cut_never_splits_a_character() {
        assert_eq!(plain("aé", 2), "a");
        assert_eq!(plain("aé", 3), "aé");
        assert_eq!(plain("ab\n", 3), "ab");
    }
}
