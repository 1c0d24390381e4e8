//! Ids from the step's seed, so that a replay of the step gives the same ones.

use crate::View;

/// A UUID of version 4 (RFC 9562 §5.4) in its usual lower-case form, drawn from [`View::random`].
pub fn uuid(view: &dyn View) -> String {
    let mut bytes = [0u8; 16];
    for (to, from) in bytes.iter_mut().zip(view.random(16)) {
        *to = from;
    }
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        for nibble in [byte >> 4, byte & 0x0f] {
            text.push(char::from(b"0123456789abcdef"[usize::from(nibble)]));
        }
    }
    text
}
