//! Memory that is given back.
//!
//! glibc raises its own threshold as soon as the first large block is freed, and from then on keeps blocks of megabytes in the heap of
//! whichever thread asked for them: what loading four adapters used once stayed with the agent for years (5 of 33 MB, measured). With
//! a threshold that is set, it is never raised, and a large block goes back when it is freed.

/// From this many bytes a block of memory is mapped by itself; glibc's own first value.
#[cfg(target_env = "gnu")]
const MAPPED_FROM: std::ffi::c_int = 128 * 1024;

/// For the whole process; before the first thread is started.
#[cfg(target_env = "gnu")]
#[allow(
    unsafe_code,
    reason = "a function of the C library, and no crate wraps it"
)]
pub(super) fn begin() {
    // SAFETY: it takes two numbers by value and is called before there is a second thread.
    let is_set = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM) };
    debug_assert_eq!(is_set, 1, "glibc has had this parameter for decades");
}

/// Other C libraries do not move their threshold.
#[cfg(not(target_env = "gnu"))]
pub(super) fn begin() {}
