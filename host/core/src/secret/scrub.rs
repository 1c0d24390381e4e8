//! Known secrets are replaced in everything that comes back: a server may echo what it was sent, in whatever writing it likes.
//!
//! Instead of writing each secret in all the ways there are, the text is read in all the ways there are (as it is, as JSON, as XML,
//! percent-encoded, as a form, and one in another), and what reads as a secret is replaced where it stands.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use crate::model::Field;

use super::Secret;

/// Shorter secrets are not looked for, in bytes: they would tear holes into every text.
pub const MIN_SCRUBBED: usize = 6;

/// What stands where a secret stood.
pub const HIDDEN: &str = "***";

/// Rounds until nothing is found any more. What is left of a text may read as another secret; each round makes it shorter.
const ROUNDS: usize = 8;

/// Replaces known secrets. `Debug` shows none.
#[derive(Clone, Default)]
pub struct Scrubber {
    needles: Vec<Secret>,
}

impl std::fmt::Debug for Scrubber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Scrubber({} values)", self.needles.len())
    }
}

impl Scrubber {
    /// Looks for these values, and for each in base64. Those under [`MIN_SCRUBBED`] are left out.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        let mut scrubber = Scrubber::default();
        for secret in secrets {
            let value = secret.reveal();
            scrubber.add(secret.clone());
            if value.len() >= MIN_SCRUBBED {
                scrubber.add_base64(value);
            }
        }
        scrubber
    }

    /// Looks also for what HTTP Basic sends of this pair.
    #[must_use]
    pub fn with_basic(mut self, username: &Secret, password: &Secret) -> Self {
        let pair = Secret::new(format!("{}:{}", username.reveal(), password.reveal()));
        self.add_base64(pair.reveal());
        self.add(pair);
        self
    }

    /// Without padding, which may or may not follow.
    fn add_base64(&mut self, value: &str) {
        self.add(Secret::new(STANDARD_NO_PAD.encode(value)));
        self.add(Secret::new(URL_SAFE_NO_PAD.encode(value)));
    }

    fn add(&mut self, needle: Secret) {
        if needle.reveal().len() >= MIN_SCRUBBED && !self.needles.contains(&needle) {
            self.needles.push(needle);
        }
    }

    /// The text with [`HIDDEN`] where it held a secret: as it is, escaped as in JSON or XML, percent-encoded, form-encoded, or in
    /// base64.
    #[must_use]
    pub fn bytes(&self, text: &[u8]) -> Vec<u8> {
        let mut text = text.to_vec();
        for _ in 0..ROUNDS {
            let found = self.find(&text);
            if found.is_empty() {
                return text;
            }
            text = replace(&text, found);
        }
        // Somebody plays with the replacement.
        HIDDEN.into()
    }

    /// The same for text.
    #[must_use]
    pub fn text(&self, text: &str) -> String {
        String::from_utf8_lossy(&self.bytes(text.as_bytes())).into_owned()
    }

    /// The same for the values of headers.
    pub fn fields(&self, fields: &mut [Field]) {
        for field in fields {
            field.value = self.text(&field.value);
        }
    }

    /// Where secrets stand.
    fn find(&self, text: &[u8]) -> Vec<(usize, usize)> {
        let mut found = Vec::new();
        if self.needles.is_empty() {
            return found;
        }
        let plain = Reading::plain(text);
        let json = plain.json();
        let nested = json.as_ref().and_then(Reading::json);
        let xml = plain.xml();
        for reading in [Some(plain), json, nested, xml].into_iter().flatten() {
            let percent = reading.percent(false);
            let twice = percent.as_ref().and_then(|once| once.percent(false));
            let form = reading.percent(true);
            for reading in [Some(reading), percent, twice, form].into_iter().flatten() {
                for needle in &self.needles {
                    reading.find(needle.reveal().as_bytes(), &mut found);
                }
            }
        }
        found
    }
}

/// Spans that overlap or touch become one.
fn replace(text: &[u8], mut spans: Vec<(usize, usize)>) -> Vec<u8> {
    spans.sort_unstable();
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    let mut spans = spans.into_iter().peekable();
    while let Some((start, mut end)) = spans.next() {
        while let Some((_, next)) = spans.next_if(|(next, _)| *next <= end) {
            end = end.max(next);
        }
        out.extend_from_slice(&text[at..start]);
        out.extend_from_slice(HIDDEN.as_bytes());
        at = end;
    }
    out.extend_from_slice(&text[at..]);
    out
}

/// One way to read a text: bytes, and where each of them stands in the text.
struct Reading {
    bytes: Vec<u8>,
    /// 32 bits, because there may be seven readings of one text at a time.
    spans: Vec<(u32, u32)>,
}

/// What is written by an escape, and how many bytes that takes.
struct Escape {
    bytes: [u8; 4],
    length: usize,
    taken: usize,
}

impl Escape {
    fn byte(byte: u8, taken: usize) -> Self {
        Escape {
            bytes: [byte, 0, 0, 0],
            length: 1,
            taken,
        }
    }

    fn of(one: char, taken: usize) -> Self {
        let mut bytes = [0; 4];
        let length = one.encode_utf8(&mut bytes).len();
        Escape {
            bytes,
            length,
            taken,
        }
    }
}

impl Reading {
    fn plain(text: &[u8]) -> Self {
        assert!(text.len() < u32::MAX as usize, "an answer, not a file");
        Reading {
            bytes: text.to_vec(),
            spans: (0..text.len() as u32).map(|at| (at, at + 1)).collect(),
        }
    }

    fn find(&self, needle: &[u8], found: &mut Vec<(usize, usize)>) {
        let Some(first) = needle.first() else { return };
        let Some(last_start) = self.bytes.len().checked_sub(needle.len()) else {
            return;
        };
        for at in 0..=last_start {
            if self.bytes[at] == *first && &self.bytes[at..at + needle.len()] == needle {
                let (start, end) = (self.spans[at].0, self.spans[at + needle.len() - 1].1);
                found.push((start as usize, end as usize));
            }
        }
    }

    /// Reads on with what is escaped at the start of a rest. `None` when nothing is.
    fn decoded(&self, escape: impl Fn(&[u8]) -> Option<Escape>) -> Option<Self> {
        let mut out = Reading {
            bytes: Vec::with_capacity(self.bytes.len()),
            spans: Vec::with_capacity(self.bytes.len()),
        };
        let (mut at, mut any) = (0, false);
        while at < self.bytes.len() {
            let escape = escape(&self.bytes[at..]);
            any |= escape.is_some();
            let escape = escape.unwrap_or_else(|| Escape::byte(self.bytes[at], 1));
            let span = (self.spans[at].0, self.spans[at + escape.taken - 1].1);
            for byte in &escape.bytes[..escape.length] {
                out.bytes.push(*byte);
                out.spans.push(span);
            }
            at += escape.taken;
        }
        any.then_some(out)
    }

    fn json(&self) -> Option<Self> {
        self.decoded(json_escape)
    }

    fn xml(&self) -> Option<Self> {
        self.decoded(xml_escape)
    }

    fn percent(&self, form: bool) -> Option<Self> {
        self.decoded(|rest| match rest {
            [b'%', high, low, ..] => {
                let digits = [*high, *low];
                let text = std::str::from_utf8(&digits).ok()?;
                hex(text).map(|byte| Escape::byte(byte.try_into().expect("two digits"), 3))
            }
            [b'+', ..] if form => Some(Escape::byte(b' ', 1)),
            _ => None,
        })
    }
}

/// Hexadecimal digits only: `from_str_radix` alone would take a sign.
fn hex(digits: &str) -> Option<u32> {
    digits
        .bytes()
        .all(|digit| digit.is_ascii_hexdigit())
        .then(|| u32::from_str_radix(digits, 16).ok())
        .flatten()
}

fn json_escape(rest: &[u8]) -> Option<Escape> {
    let [b'\\', kind, ..] = rest else { return None };
    let plain = |byte: u8| Some(Escape::byte(byte, 2));
    match kind {
        b'"' | b'\\' | b'/' => plain(*kind),
        b'b' => plain(8),
        b'f' => plain(12),
        b'n' => plain(b'\n'),
        b'r' => plain(b'\r'),
        b't' => plain(b'\t'),
        b'u' => {
            let unit = |at: usize| {
                let digits = rest.get(at..at + 6)?.strip_prefix(b"\\u")?;
                hex(std::str::from_utf8(digits).ok()?)
            };
            let first = unit(0)?;
            if let Some(one) = char::from_u32(first) {
                return Some(Escape::of(one, 6));
            }
            let second = unit(6).filter(|second| (0xdc00..0xe000).contains(second))?;
            let pair = 0x1_0000 + (first.checked_sub(0xd800)? << 10) + (second - 0xdc00);
            char::from_u32(pair).map(|both| Escape::of(both, 12))
        }
        _ => None,
    }
}

fn xml_escape(rest: &[u8]) -> Option<Escape> {
    let [b'&', ..] = rest else { return None };
    let end = rest.iter().take(12).position(|byte| *byte == b';')?;
    let name = std::str::from_utf8(&rest[1..end]).ok()?;
    let one = match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        _ => {
            let number = name.strip_prefix('#')?;
            char::from_u32(match number.strip_prefix(['x', 'X']) {
                Some(digits) => hex(digits)?,
                None => number.parse().ok()?,
            })?
        }
    };
    Some(Escape::of(one, end + 1))
}
