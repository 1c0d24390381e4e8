//! What a server answers, read without trust: codes, ports, sizes, times, and the many ways to say "resume the session".

/// Characters of a server's text that are shown.
const SHOWN: usize = 160;

/// One reply, however many lines it had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    /// Three digits; 0 when the server wrote something else.
    pub(super) code: u16,
    /// Its last line behind the code, harmless to show.
    pub(super) text: String,
}

impl Reply {
    /// Reads the bytes of a reply. `hidden` are values that must not be shown: a text that holds one of them is left out whole.
    pub(super) fn read(bytes: &[u8], hidden: &[&str]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let last = text.trim_end().lines().next_back().unwrap_or_default();
        let (code, rest) = last.split_at_checked(3).unwrap_or(("", last));
        let code = if code.bytes().all(|byte| byte.is_ascii_digit()) {
            code.parse().unwrap_or(0)
        } else {
            0
        };
        let shown = rest.strip_prefix([' ', '-']).unwrap_or(rest).trim();
        let secret = hidden
            .iter()
            .any(|value| !value.is_empty() && text.contains(value));
        let text = if secret {
            String::new()
        } else {
            shown
                .chars()
                .map(|c| if c.is_control() { ' ' } else { c })
                .take(SHOWN)
                .collect()
        };
        Self { code, text }
    }

    /// The code and, where there is one, the text.
    pub(super) fn shown(&self) -> String {
        if self.text.is_empty() {
            self.code.to_string()
        } else {
            format!("{} {}", self.code, self.text)
        }
    }

    /// The transfer is complete.
    pub(super) fn is_complete(&self) -> bool {
        matches!(self.code, 226 | 250)
    }

    /// The server does not know the command, or does not want it.
    pub(super) fn is_unknown_command(&self) -> bool {
        matches!(self.code, 500 | 501 | 502 | 504)
    }

    /// The file or directory is not there, or not for us.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self.code, 550 | 553)
    }

    /// The server wants the data connection to resume the control connection's TLS session.
    ///
    /// vsftpd says 522, FileZilla Server 425 with a text, others 425, 450 or something else with or without one (ProFTPD:
    /// "Operation not permitted"); so 425 counts whatever it says when the session in fact was not resumed. `resumed` is `None` when
    /// the handshake came to no end.
    pub(super) fn refuses_session(&self, resumed: Option<bool>) -> bool {
        // A missing file may be called anything.
        if !(400..600).contains(&self.code) || self.is_missing() {
            return false;
        }
        let text = self.text.to_ascii_lowercase();
        let named = ["tls", "ssl"].iter().any(|word| text.contains(word))
            && ["session", "resum", "reuse"]
                .iter()
                .any(|word| text.contains(word));
        self.code == 522 || named || (self.code == 425 && resumed == Some(false))
    }

    /// Port of a 227 reply. The address in it is not read: it may be a private one behind a NAT, or somebody else's.
    pub(super) fn passive_port(&self) -> Option<u16> {
        // RFC 1123, 4.1.2.6: what stands around the numbers is free.
        let numbers = self
            .text
            .split(|c: char| !c.is_ascii_digit() && c != ',')
            .find(|part| part.bytes().filter(|byte| *byte == b',').count() == 5)?;
        let bytes: Vec<u8> = numbers
            .split(',')
            .map(|number| number.parse().ok())
            .collect::<Option<_>>()?;
        let port = u16::from_be_bytes([*bytes.get(4)?, *bytes.get(5)?]);
        (port != 0).then_some(port)
    }

    /// Port of a 229 reply (RFC 2428): `(|||port|)` with any delimiter.
    pub(super) fn extended_port(&self) -> Option<u16> {
        let (_, inner) = self.text.split_once('(')?;
        let delimiter = inner.chars().next()?;
        let mut parts = inner.split(delimiter);
        let port = parts.nth(3)?.parse().ok()?;
        (port != 0 && parts.next()?.starts_with(')')).then_some(port)
    }

    /// The number of a 213 reply to SIZE.
    pub(super) fn size(&self) -> Option<u64> {
        let digits = self.text.trim();
        (self.code == 213 && digits.bytes().all(|byte| byte.is_ascii_digit()))
            .then(|| digits.parse().ok())
            .flatten()
    }

    /// The time of a 213 reply to MDTM, as the server wrote it: it is only compared.
    pub(super) fn modified(&self) -> Option<&str> {
        let text = self.text.trim();
        (self.code == 213 && milliseconds(text).is_some()).then_some(text)
    }
}

/// Milliseconds since the Unix epoch of `YYYYMMDDHHMMSS` or `YYYYMMDDHHMMSS.sss` in UTC (RFC 3659, 2.3).
pub(super) fn milliseconds(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if whole.len() != 14 || fraction.is_empty() || fraction.len() > 9 {
        return None;
    }
    if !whole
        .bytes()
        .chain(fraction.bytes())
        .all(|byte| byte.is_ascii_digit())
    {
        return None;
    }
    let number = |from: usize, to: usize| whole.get(from..to)?.parse::<u64>().ok();
    let (year, month, day) = (number(0, 4)?, number(4, 6)?, number(6, 8)?);
    let (hour, minute, second) = (number(8, 10)?, number(10, 12)?, number(12, 14)?);
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = match month {
        4 | 6 | 9 | 11 => 30,
        2 => 28 + u64::from(leap),
        1..=12 => 31,
        _ => return None,
    };
    // 60 is a leap second.
    if year < 1970 || day == 0 || day > days || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Days since the epoch; a year begins in March, so that the leap day is its last (Howard Hinnant, "chrono-compatible low-level
    // date algorithms").
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let day_of_era =
        year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    let seconds = (day_of_era - 719_468) * 86_400 + hour * 3_600 + minute * 60 + second;
    let millis: u64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    Some(seconds * 1_000 + millis)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn reply(text: &str) -> Reply {
        Reply::read(text.as_bytes(), &[])
    }

    #[test]
    fn the_last_line_of_a_reply_counts() {
        for (bytes, code, text) in [
            ("226 done\r\n", 226, "done"),
            ("226-first\r\n226 last\r\n", 226, "last"),
            ("230-a\r\n b\r\n230 c\r\n", 230, "c"),
            ("522 SSL\u{1b}[2J\r\n", 522, "SSL [2J"),
            ("226\r\n", 226, ""),
            ("", 0, ""),
            ("ab", 0, "ab"),
            ("+12 x", 0, "x"),
            ("äöü", 0, "äöü"),
        ] {
            assert_eq!(
                Reply::read(bytes.as_bytes(), &[]),
                Reply {
                    code,
                    text: text.into()
                },
                "{bytes:?}"
            );
        }
        assert_eq!(
            reply(&format!("550 {}", "x".repeat(10_000))).text.len(),
            SHOWN
        );
    }

    #[test]
    fn a_text_with_a_secret_in_it_is_not_shown() {
        let shown = Reply::read(b"530 User kit-7 cannot log in\r\n", &["kit-7", "pw"]);
        assert_eq!(shown.shown(), "530");
        let shown = Reply::read(b"530-kit-7\r\n530 no\r\n", &["kit-7", ""]);
        assert_eq!(shown.shown(), "530");
        assert_eq!(reply("530 no\r\n").shown(), "530 no");
    }

    #[test]
    fn a_refusal_to_take_another_session_is_told_from_other_refusals() {
        for (text, resumed, expected) in [
            // vsftpd, FileZilla Server, ProFTPD, and what others write.
            (
                "522 SSL connection failed; session reuse required: see require_ssl_reuse option",
                None,
                true,
            ),
            (
                "425 Unable to build data connection: TLS session of data connection not resumed.",
                Some(true),
                true,
            ),
            (
                "425 Unable to build data connection: Operation not permitted",
                Some(false),
                true,
            ),
            (
                "450 TLS session of data connection has not resumed or the session does not match",
                None,
                true,
            ),
            ("534 SSL session resumption is required", Some(false), true),
            ("425 Can't open data connection.", Some(true), false),
            ("425 Can't open data connection.", None, false),
            (
                "426 Connection closed; transfer aborted.",
                Some(false),
                false,
            ),
            ("450 file busy", Some(false), false),
            ("550 TLSession.bin: no such file", Some(false), false),
            ("550 app.bin: no such file", Some(false), false),
            ("226 TLS session reused", Some(false), false),
        ] {
            assert_eq!(reply(text).refuses_session(resumed), expected, "{text}");
        }
    }

    #[test]
    fn ports_of_passive_replies_are_read_and_addresses_are_not() {
        for (text, port) in [
            ("227 Entering Passive Mode (10,0,0,5,200,1).", Some(51_201)),
            ("227 Entering Passive Mode 127,0,0,1,4,1", Some(1_025)),
            ("227 =127,0,0,1,0,21", Some(21)),
            ("227 Entering Passive Mode (1,2,3,4,256,1)", None),
            ("227 Entering Passive Mode (1,2,3,4,5)", None),
            ("227 Entering Passive Mode (1,2,3,4,5,6,7)", None),
            ("227 Entering Passive Mode (1,2,3,4,0,0)", None),
            ("227 Entering Passive Mode", None),
        ] {
            assert_eq!(reply(text).passive_port(), port, "{text}");
        }
        for (text, port) in [
            ("229 Entering Extended Passive Mode (|||6446|)", Some(6446)),
            ("229 ok (!!!6446!)", Some(6446)),
            ("229 Entering Extended Passive Mode (|||65536|)", None),
            ("229 Entering Extended Passive Mode (|||0|)", None),
            ("229 Entering Extended Passive Mode (|||6446", None),
            ("229 Entering Extended Passive Mode (", None),
            ("229 Entering Extended Passive Mode", None),
        ] {
            assert_eq!(reply(text).extended_port(), port, "{text}");
        }
    }

    #[test]
    fn sizes_and_times_are_numbers_or_nothing() {
        assert_eq!(reply("213 1234").size(), Some(1234));
        assert_eq!(reply("213 18446744073709551615").size(), Some(u64::MAX));
        for text in [
            "213 +5",
            "213 -1",
            "213 1 2",
            "213 18446744073709551616",
            "213 ",
            "550 12",
        ] {
            assert_eq!(reply(text).size(), None, "{text}");
        }
        assert_eq!(
            reply("213 20250802101500").modified(),
            Some("20250802101500")
        );
        assert_eq!(
            reply("213 20250802101500.25").modified(),
            Some("20250802101500.25")
        );
        for text in [
            "213 yesterday",
            "550 20250802101500",
            "213 20251302101500",
            "213 ",
        ] {
            assert_eq!(reply(text).modified(), None, "{text}");
        }
    }

    #[test]
    fn times_are_milliseconds_of_utc() {
        for (text, expected) in [
            ("19700101000000", Some(0)),
            ("19700101000001.5", Some(1_500)),
            ("20000229120000", Some(951_825_600_000)),
            ("20250802101500.123456", Some(1_754_129_700_123)),
            ("20240101000000", Some(1_704_067_200_000)),
            ("20241231235960", Some(1_735_689_600_000)),
            ("19691231235959", None),
            ("20250229000000", None),
            ("19000229000000", None),
            ("20250100000000", None),
            ("20250101240000", None),
            ("2025010100000", None),
            ("202501010000000", None),
            ("20250101000000.", None),
            ("2025010100000x", None),
            ("+2250101000000", None),
        ] {
            assert_eq!(milliseconds(text), expected, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_reply(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let reply = Reply::read(&bytes, &["secret"]);
            let _ = (reply.passive_port(), reply.extended_port(), reply.size(), reply.modified(), reply.refuses_session(None));
            proptest::prop_assert!(!reply.shown().chars().any(char::is_control));
        }
    }
}
