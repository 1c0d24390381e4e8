//! Every row's value carries a sum of its own, so that what is read past the store's checks, from a damaged file, is never a wrong value.

/// Bytes of the sum.
const SUM: usize = 8;

/// FNV-1a over key and value: any change of one byte changes it for certain, because each step is one-to-one.
fn sum(key: &[u8], value: &[u8]) -> [u8; SUM] {
    let length = (key.len() as u64).to_le_bytes();
    let bytes = length.iter().chain(key).chain(value);
    bytes
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        })
        .to_le_bytes()
}

/// A value as it is stored.
pub(crate) fn seal(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(value.len() + SUM);
    sealed.extend_from_slice(value);
    sealed.extend(sum(key, value));
    sealed
}

/// The value of what is stored; `None` when it is not what was sealed under this key.
pub(crate) fn unseal<'a>(key: &[u8], sealed: &'a [u8]) -> Option<&'a [u8]> {
    let (value, found) = sealed.split_at_checked(sealed.len().checked_sub(SUM)?)?;
    (sum(key, value) == found).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_comes_back_and_any_changed_byte_of_key_or_value_is_found() {
        let sealed = seal(b"key", b"value");
        assert_eq!(unseal(b"key", &sealed), Some(&b"value"[..]));
        assert_eq!(unseal(b"kez", &sealed), None);
        for byte in 0..sealed.len() {
            for bit in 0..8 {
                let mut damaged = sealed.clone();
                damaged[byte] ^= 1 << bit;
                assert_eq!(unseal(b"key", &damaged), None, "bit {bit} of byte {byte}");
            }
        }
        assert_eq!(unseal(b"key", b"short"), None);
    }
}
