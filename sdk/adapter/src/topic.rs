//! MQTT topic names and filters (MQTT 3.1.1 §4.7).

/// True when the filter (with `+` and `#`) covers the topic name.
pub(crate) fn matches(filter: &str, topic: &str) -> bool {
    // §4.7.2: a wildcard at the beginning does not reach the server's own topics.
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut levels = topic.split('/');
    let mut parts = filter.split('/');
    loop {
        match (parts.next(), levels.next()) {
            (Some("#"), _) => return true,
            (Some("+"), Some(_)) => {}
            (Some(part), Some(level)) if part == level => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

/// True for a topic that may be published to: not empty, no wildcard, no null, at most 65,535 bytes.
pub(crate) fn is_name(topic: &str) -> bool {
    !topic.is_empty() && topic.len() <= 65_535 && !topic.contains(['+', '#', '\0'])
}

/// True for a well-formed filter: wildcards stand for whole levels, `#` is the last one.
pub(crate) fn is_filter(filter: &str) -> bool {
    if filter.is_empty() || filter.len() > 65_535 || filter.contains('\0') {
        return false;
    }
    let last = filter.split('/').count() - 1;
    filter
        .split('/')
        .enumerate()
        .all(|(at, level)| match level {
            "+" => true,
            "#" => at == last,
            other => !other.contains(['+', '#']),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_covers_what_the_standard_says() {
        for (filter, topic, covers) in [
            ("a/b", "a/b", true),
            ("a/b", "a/b/c", false),
            ("a/b/c", "a/b", false),
            ("a/+/c", "a/x/c", true),
            ("a/+", "a/x/c", false),
            ("a/+", "a", false),
            ("+", "a", true),
            ("+/+", "/a", true),
            ("a/#", "a", true),
            ("a/#", "a/b/c", true),
            ("#", "a/b", true),
            ("#", "$SYS/x", false),
            ("+/x", "$SYS/x", false),
            ("$SYS/#", "$SYS/x", true),
            ("A", "a", false),
        ] {
            assert_eq!(matches(filter, topic), covers, "{filter} on {topic}");
        }
    }

    #[test]
    fn malformed_names_and_filters_are_told_apart_from_good_ones() {
        assert!(is_name("a/b") && !is_name("a/+") && !is_name("") && !is_name("a\0"));
        assert!(
            is_filter("a/+/#")
                && !is_filter("a/#/b")
                && !is_filter("a/b#")
                && !is_filter("a/b+/c")
                && !is_filter("")
        );
    }
}
