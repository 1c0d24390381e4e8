//! MQTT topic filters: what a filter matches, and which filters cover another one.

/// Why this text is no topic filter, or `None` when it is one.
pub fn filter_fault(filter: &str) -> Option<&'static str> {
    if filter.is_empty() {
        return Some("a topic filter is not empty");
    }
    if filter.len() > 65_535 || filter.contains('\0') {
        return Some("a topic filter has at most 65,535 bytes and no NUL");
    }
    let levels: Vec<&str> = filter.split('/').collect();
    for (i, level) in levels.iter().enumerate() {
        if level.contains('#') && (*level != "#" || i + 1 != levels.len()) {
            return Some("`#` stands alone in the last level");
        }
        if level.contains('+') && *level != "+" {
            return Some("`+` stands alone in its level");
        }
    }
    None
}

/// Why this text is no topic to publish to, or `None` when it is one.
pub fn topic_fault(topic: &str) -> Option<&'static str> {
    if topic.contains(['+', '#']) {
        return Some("a topic to publish to has no wildcard");
    }
    filter_fault(topic)
}

/// True when a message on `topic` belongs to `filter` (MQTT 3.1.1 §4.7). Wildcards do not match topics that begin with `$`.
pub fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    covers(filter, topic)
}

/// True when everything that `inner` can match is matched by `outer` too.
pub fn covers(outer: &str, inner: &str) -> bool {
    let mut outer = outer.split('/').peekable();
    let mut inner = inner.split('/');
    loop {
        match (outer.next(), inner.next()) {
            (Some("#"), _) => return true,
            (None, None) => return true,
            // `a/#` also stands for `a` itself.
            (Some("+"), Some(level)) if level != "#" => {}
            (Some(o), Some(i)) if o == i => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_matches_as_the_mqtt_standard_says() {
        for (filter, topic, expected) in [
            ("a/b", "a/b", true),
            ("a/b", "a/c", false),
            ("a/+", "a/b", true),
            ("a/+", "a/b/c", false),
            ("a/+", "a/", true),
            ("a/#", "a/b/c", true),
            ("a/#", "a", true),
            ("#", "a/b", true),
            ("#", "$SYS/x", false),
            ("+/x", "$SYS/x", false),
            ("$SYS/#", "$SYS/x", true),
            ("a", "a/b", false),
        ] {
            assert_eq!(matches(filter, topic), expected, "{filter} {topic}");
        }
    }

    #[test]
    fn a_grant_covers_only_what_it_can_match_whole() {
        for (outer, inner, expected) in [
            ("a/#", "a/+", true),
            ("a/+", "a/#", false),
            ("a/+", "a/+", true),
            ("+/b", "a/b", true),
            ("a/b", "+/b", false),
            ("#", "#", true),
            ("a/b/#", "a/#", false),
        ] {
            assert_eq!(covers(outer, inner), expected, "{outer} {inner}");
        }
    }

    #[test]
    fn wildcards_stand_alone() {
        for bad in ["", "a/b+", "a/#/b", "a#", "++"] {
            assert!(filter_fault(bad).is_some(), "{bad}");
        }
        for good in ["a", "a/+/b", "#", "a/#", "/"] {
            assert!(filter_fault(good).is_none(), "{good}");
        }
        assert!(topic_fault("a/+").is_some() && topic_fault("a/b").is_none());
    }
}
