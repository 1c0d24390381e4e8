//! What an archive may hold.

/// Unpacked bytes below which no ratio is asked for: small archives of zeros are common and harmless.
pub(super) const RATIO_FREE: u64 = 16 * 1024 * 1024;

/// What an archive may hold. Whatever breaks one of these is refused as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchiveLimits {
    /// Most entries, the directories that had to be made for them included.
    pub entries: u32,
    /// Most bytes of all files together.
    pub unpacked: u64,
    /// So many times its own size an archive may unpack to, once that is more than 16 MiB.
    pub ratio: u32,
    /// Most directories above an entry.
    pub depth: u32,
}

impl Default for ArchiveLimits {
    /// 10,000 entries, 4 GiB, a ratio of 200, 32 directories deep.
    fn default() -> Self {
        ArchiveLimits {
            entries: 10_000,
            unpacked: 4 << 30,
            ratio: 200,
            depth: 32,
        }
    }
}

impl ArchiveLimits {
    /// Why an archive of `packed` bytes may not unpack to so many.
    pub(super) fn size_fault(&self, packed: u64, unpacked: u64) -> Option<String> {
        if unpacked > self.unpacked {
            return Some(format!(
                "it unpacks to more than the {} bytes allowed",
                self.unpacked
            ));
        }
        let most = packed.saturating_mul(u64::from(self.ratio));
        (unpacked > RATIO_FREE && unpacked > most)
            .then(|| format!("it unpacks to more than {} times its own size", self.ratio))
    }
}
