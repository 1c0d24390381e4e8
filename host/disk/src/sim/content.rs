//! The bytes of a simulated file.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// What the medium writes as a whole or not at all.
pub(super) const SECTOR: u64 = 512;

const PAGE: u64 = 4096;
const PAGE_BYTES: usize = PAGE as usize;

/// Bytes in pages that are shared between copies; a page of zeros is not kept, so that a large device or a preallocated file
/// costs what was written to it, and equal bytes have one form.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Content {
    len: u64,
    pages: BTreeMap<u64, Arc<[u8; PAGE_BYTES]>>,
}

impl Content {
    pub(super) fn zeros(len: u64) -> Self {
        Content {
            len,
            pages: BTreeMap::new(),
        }
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        let mut content = Content::default();
        content.write(bytes, 0);
        content
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut bytes =
            vec![0; usize::try_from(self.len).expect("a simulated file fits into memory")];
        self.copy_out(&mut bytes, 0);
        bytes
    }

    /// Fills `into` from `offset` on; false when the content ends before.
    pub(super) fn read(&self, into: &mut [u8], offset: u64) -> bool {
        if into.is_empty() {
            return true;
        }
        if offset
            .checked_add(into.len() as u64)
            .is_none_or(|end| end > self.len)
        {
            return false;
        }
        self.copy_out(into, offset);
        true
    }

    fn copy_out(&self, into: &mut [u8], offset: u64) {
        for (index, within, part) in pieces(offset, into.len()) {
            match self.pages.get(&index) {
                Some(page) => {
                    into[part.clone()].copy_from_slice(&page[within..within + part.len()])
                }
                None => into[part].fill(0),
            }
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) {
        for (index, within, part) in pieces(offset, bytes.len()) {
            let bytes = &bytes[part];
            let zeros = bytes.iter().all(|byte| *byte == 0);
            if !zeros || self.pages.contains_key(&index) {
                self.edit(index, zeros, |page| {
                    page[within..within + bytes.len()].copy_from_slice(bytes)
                });
            }
        }
        if !bytes.is_empty() {
            self.len = self.len.max(offset + bytes.len() as u64);
        }
    }

    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.pages.retain(|index, _| index * PAGE < len);
            let within = (len % PAGE) as usize;
            if within > 0 {
                // What grows again after a cut is zeros.
                self.edit(len / PAGE, true, |page| page[within..].fill(0));
            }
        }
        self.len = len;
    }

    /// Takes one sector over from another content, as far as both reach. Changes no length.
    pub(super) fn copy_sector(&mut self, from: &Content, sector: u64) {
        let start = sector * SECTOR;
        let end = (start + SECTOR).min(self.len).min(from.len);
        if start < end {
            let mut bytes = [0; SECTOR as usize];
            let bytes = &mut bytes[..(end - start) as usize];
            from.copy_out(bytes, start);
            self.write(bytes, start);
        }
    }

    /// Takes the pages over which these bytes of another content of the same length lie, and the length.
    pub(super) fn share(&mut self, from: &Content, offset: u64, len: usize) {
        for (index, _, _) in pieces(offset, len) {
            match from.pages.get(&index) {
                Some(page) => self.pages.insert(index, Arc::clone(page)),
                None => self.pages.remove(&index),
            };
        }
        self.len = from.len;
    }

    /// Changes a page, and drops it where only zeros are left; without new zeros that cannot be.
    fn edit(&mut self, index: u64, new_zeros: bool, change: impl FnOnce(&mut [u8; PAGE_BYTES])) {
        let page = self
            .pages
            .entry(index)
            .or_insert_with(|| Arc::new([0; PAGE_BYTES]));
        let bytes = Arc::make_mut(page);
        change(bytes);
        if new_zeros && bytes.iter().all(|byte| *byte == 0) {
            self.pages.remove(&index);
        }
    }
}

/// Cuts a range into (page, offset within the page, range of the bytes).
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = offset + done as u64;
        let within = (at % PAGE) as usize;
        let take = (PAGE_BYTES - within).min(len - done);
        let part = done..done + take;
        done += take;
        Some((at / PAGE, within, part))
    })
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} bytes, {} pages of them not zero",
            self.len,
            self.pages.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_cut_and_grown_again_holds_zeros() {
        let mut content = Content::from_bytes(&[7; 10_000]);
        content.set_len(5_000);
        content.set_len(10_000);
        let mut expected = vec![7; 5_000];
        expected.resize(10_000, 0);
        assert_eq!(content.to_vec(), expected);
    }

    #[test]
    fn equal_bytes_are_equal_however_they_came() {
        let mut written = Content::from_bytes(&[1; 9_000]);
        written.write(&[0; 9_000], 0);
        assert_eq!(written, Content::zeros(9_000));
    }

    #[test]
    fn a_sector_is_copied_only_where_both_reach() {
        let mut content = Content::from_bytes(&[1; 700]);
        content.copy_sector(&Content::from_bytes(&[2; 600]), 1);
        let expected: Vec<u8> = (0..700)
            .map(|i| if (512..600).contains(&i) { 2 } else { 1 })
            .collect();
        assert_eq!(content.to_vec(), expected);
    }
}
