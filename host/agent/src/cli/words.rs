//! Sizes, times and outcomes in words.

use otahost_core::model::Phase;

use crate::exit::Exit;

/// The binary units.
const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];

/// Without control characters: what servers and adapters say must not move the cursor of a terminal.
pub(super) fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() && c != '\n' { '?' } else { c })
        .collect()
}

/// `1 fault`, `2 faults`.
pub(super) fn count(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// As it is typed into a shell: in quotes where a shell would take it apart.
pub(super) fn argument(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "._-+:/@%,=".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    let line = clean(text).replace('\n', "?");
    format!("'{}'", line.replace('\'', r"'\''"))
}

/// Bytes with a binary unit.
pub(super) fn bytes(n: u64) -> String {
    let unit = unit(n);
    format!("{} {}", scaled(n, unit), UNITS[unit])
}

/// So many bytes of so many, in one unit.
pub(super) fn part(n: u64, of: u64) -> String {
    format!("{} of {}", scaled(n, unit(of)), bytes(of))
}

/// Index of the largest unit that fits.
fn unit(n: u64) -> usize {
    let mut unit = 0;
    while unit + 1 < UNITS.len() && n >> (10 * (unit + 1)) > 0 {
        unit += 1;
    }
    unit
}

fn scaled(n: u64, unit: usize) -> String {
    if unit == 0 {
        n.to_string()
    } else {
        format!("{:.1}", n as f64 / (1_u64 << (10 * unit)) as f64)
    }
}

/// A span, in the two largest units that matter.
pub(super) fn span(ms: u64) -> String {
    let seconds = ms / 1000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, m) => format!("{m} min {} s", seconds % 60),
        (0, h, m) => format!("{h} h {m} min"),
        (d, h, _) => format!("{d} d {h} h"),
    }
}

/// Milliseconds since the Unix epoch as date and time, UTC.
pub(super) fn time(ms: u64) -> String {
    let seconds = ms / 1000;
    let (day, second) = (seconds / 86_400, seconds % 86_400);
    // Days to a date in the Gregorian calendar, by eras of 400 years that begin on the first of March.
    let shifted = day + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let date = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{date:02} {:02}:{:02}:{:02} UTC",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

/// The exit code for a job's end.
pub(super) fn exit_of(phase: Phase) -> Exit {
    match phase {
        Phase::Succeeded => Exit::Ok,
        Phase::Rejected => Exit::Refused,
        Phase::RolledBack => Exit::RolledBack,
        Phase::RollbackFailed => Exit::RollbackFailed,
        Phase::Cancelled => Exit::Cancelled,
        _ => Exit::UpdateFailed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_the_date_it_is() {
        for (seconds, expected) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_709_251_199, "2024-02-29 23:59:59 UTC"),
            (1_735_689_599, "2024-12-31 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(time(seconds * 1000), expected);
        }
    }

    #[test]
    fn sizes_and_spans_are_short() {
        assert_eq!(
            [bytes(0), bytes(1023), bytes(1536), bytes(64 << 20)],
            ["0 B", "1023 B", "1.5 KiB", "64.0 MiB"]
        );
        assert_eq!(
            [part(0, 5), part(512, 2048), part(12_897_485, 64 << 20)],
            ["0 of 5 B", "0.5 of 2.0 KiB", "12.3 of 64.0 MiB"]
        );
        assert_eq!(bytes(u64::MAX), "16777216.0 TiB");
        assert_eq!(
            [span(999), span(61_000), span(3_660_000), span(90_000_000)],
            ["0 s", "1 min 1 s", "1 h 1 min", "1 d 1 h"]
        );
    }

    #[test]
    fn what_is_to_be_typed_stays_one_argument() {
        for (text, expected) in [
            ("k-1:2.0", "k-1:2.0"),
            ("", "''"),
            ("a b", "'a b'"),
            ("it's; rm -r /", r"'it'\''s; rm -r /'"),
            ("$(x)\u{1b}\n", "'$(x)??'"),
        ] {
            assert_eq!(argument(text), expected);
        }
    }

    #[test]
    fn what_others_say_cannot_move_the_cursor() {
        assert_eq!(clean("a\u{1b}[2Jb\r"), "a?[2Jb?");
    }
}
