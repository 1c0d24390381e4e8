//! What MQTT 3.1.1 (4.7) allows as a topic and as a topic filter. A broker answers a bad one by cutting the connection, so none
//! may leave.

/// Says what is wrong with a topic to publish to.
pub(super) fn check_topic(topic: &str) -> Result<(), &'static str> {
    check_length(topic)?;
    if topic.contains(['+', '#']) {
        return Err("a topic to publish to has no wildcards");
    }
    Ok(())
}

/// Says what is wrong with a topic filter.
pub(super) fn check_filter(filter: &str) -> Result<(), &'static str> {
    check_length(filter)?;
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        if level.contains('#') && (level != "#" || levels.peek().is_some()) {
            return Err("\"#\" stands alone in the last level");
        }
        if level.contains('+') && level != "+" {
            return Err("\"+\" stands alone in its level");
        }
    }
    Ok(())
}

fn check_length(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("it is empty");
    }
    if name.len() > 65_535 {
        return Err("it is longer than 65,535 bytes");
    }
    if name.contains('\0') {
        return Err("it contains NUL");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_and_filters_follow_the_standard() {
        for topic in [
            "a",
            "/",
            "thing/product/NM1/services",
            "täg/ß",
            "a//b",
            "$SYS/x",
        ] {
            assert!(check_topic(topic).is_ok(), "{topic}");
            assert!(check_filter(topic).is_ok(), "{topic}");
        }
        for topic in ["", "a/+", "#", "a\0b", &"x".repeat(65_536)] {
            assert!(check_topic(topic).is_err(), "{topic:.20}");
        }
        for filter in ["#", "+", "a/#", "+/b/+", "/+/#"] {
            assert!(check_filter(filter).is_ok(), "{filter}");
        }
        for filter in ["", "a/#/b", "a#", "a+/b", "#/a", "a\0", "a/b+"] {
            assert!(check_filter(filter).is_err(), "{filter}");
        }
    }
}
