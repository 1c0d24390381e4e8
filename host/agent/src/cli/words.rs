//! Sizes, times and outcomes in words.

use otahost_core::model::Phase;

use crate::api::JobView;
use crate::exit::Exit;

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

/// Bytes with a binary unit.
pub(super) fn bytes(n: u64) -> String {
    let mut unit = "B";
    let mut value = n as f64;
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    if unit == "B" {
        format!("{n} B")
    } else {
        format!("{value:.1} {unit}")
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

/// Why a job stands where it stands, and what comes next.
pub(super) fn outlook(job: &JobView) -> String {
    let until = job
        .until
        .map(|at| format!(" until {}", time(at)))
        .unwrap_or_default();
    let reason = job.reason.as_ref().map(|r| clean(&r.text));
    let because = reason
        .as_ref()
        .map(|r| format!(": {r}"))
        .unwrap_or_default();
    if job.paused && !job.phase.is_final() {
        return format!("paused{because}; goes on when it is told to");
    }
    match job.phase {
        Phase::Queued => format!("queued{because}; starts when its target is free"),
        Phase::Waiting => format!("waits{until}{because}; then it goes on by itself"),
        Phase::Downloading => format!("is being fetched{because}; verified next"),
        Phase::Verifying => "is being verified; installed next".into(),
        Phase::Prepared => {
            format!("is verified and ready{until}{because}; installed when it is told to")
        }
        Phase::Delivering => "is being handed to the device that installs it".into(),
        Phase::Delivered => "lies at the device that installs it".into(),
        Phase::Installing => "is being installed; the new version starts next".into(),
        Phase::Activating => "the new version is about to start; too late to cancel".into(),
        Phase::Confirming => {
            format!("the new version has to prove itself{until}, or the old one comes back")
        }
        Phase::Succeeded => "the new version runs and is confirmed".into(),
        Phase::Rejected => format!("refused{because}; nothing was changed"),
        Phase::Failed => format!("failed{because}; what ran before still runs"),
        Phase::RolledBack => {
            format!("the new version did not prove itself{because}; the old one runs again")
        }
        Phase::RollbackFailed => format!(
            "the way back to the old version failed{because}; a person has to look at the target"
        ),
        Phase::Cancelled => format!("cancelled{because}; what ran before still runs"),
        Phase::Partial => {
            format!("some targets were updated and some were not{because}; see each of them")
        }
    }
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
            [span(999), span(61_000), span(3_660_000), span(90_000_000)],
            ["0 s", "1 min 1 s", "1 h 1 min", "1 d 1 h"]
        );
    }

    #[test]
    fn what_others_say_cannot_move_the_cursor() {
        assert_eq!(clean("a\u{1b}[2Jb\r"), "a?[2Jb?");
    }
}
