//! Spans of time and sizes as people write them: `"30s"`, `"10m"`, `"4GiB"`.

use std::time::Duration;

/// A whole number with one unit: `ms`, `s`, `m`, `h`, `d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    const FORM: &str = "write a whole number with a unit: `500ms`, `30s`, `10m`, `2h` or `1d`";
    let (number, unit) = split(text).ok_or(FORM)?;
    let per_unit = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(FORM.into()),
    };
    number
        .checked_mul(per_unit)
        .map(Duration::from_millis)
        .ok_or_else(|| FORM.into())
}

/// A whole number of bytes with or without a binary unit: `KiB`, `MiB`, `GiB`, `TiB`.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    const FORM: &str =
        "write a number of bytes, or a whole number with a unit: `512KiB`, `64MiB` or `4GiB`";
    let (number, unit) = split(text).ok_or(FORM)?;
    let shift = match unit {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return Err(FORM.into()),
    };
    number.checked_mul(1 << shift).ok_or_else(|| FORM.into())
}

/// Milliseconds in the largest unit that keeps them whole.
pub(crate) fn duration_text(duration: Duration) -> String {
    let ms = duration.as_millis();
    for (unit, per_unit) in [
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1_000),
    ] {
        if ms >= per_unit && ms.is_multiple_of(per_unit) {
            return format!("{}{unit}", ms / per_unit);
        }
    }
    format!("{ms}ms")
}

fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_a_number_and_a_unit() {
        for (text, ms) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("10m", 600_000),
            ("2 h", 7_200_000),
            ("1d", 86_400_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for bad in [
            "",
            "10",
            "s",
            "1.5s",
            "-1s",
            "10 minutes",
            "99999999999999999999s",
            "18446744073709551615d",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_size_is_bytes_or_a_binary_unit() {
        for (text, bytes) in [
            ("0", 0),
            ("17", 17),
            ("1KiB", 1024),
            ("64 MiB", 64 << 20),
            ("4GiB", 4 << 30),
            ("1TiB", 1 << 40),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "4GB", "KiB", "1.5GiB", "99999999TiB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_span_reads_back_as_it_was_written() {
        for text in ["500ms", "30s", "10m", "90s", "2h", "1d"] {
            assert_eq!(duration(text).map(duration_text), Ok(text.to_owned()));
        }
    }
}
