//! What one call may use. The defaults are for adapters of the size the SDK builds, on a device with little memory.

use std::time::Duration;

/// Bounds on a component and on each of its calls.
///
/// What an adapter may hand over (state, payloads, effects) is no setting: the contract fixes it, see the `MAX_*` of
/// `otahost_core::model`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Largest component file, in bytes.
    pub component_bytes: usize,
    /// Most linear memory of a call, in bytes, all memories of the component together.
    pub memory_bytes: usize,
    /// Most table elements of a call, all tables together. One element costs the host a pointer.
    pub table_elements: usize,
    /// Most core instances a component may consist of. Encoding alone adds two to the adapter's own.
    pub instances: usize,
    /// Most linear memories.
    pub memories: usize,
    /// Most tables.
    pub tables: usize,
    /// Most live component-model handles. The contract has no resources, so that none is needed.
    pub handles: usize,
    /// Fuel of one `handle`: roughly the number of WebAssembly instructions.
    pub handle_fuel: u64,
    /// Fuel of one `describe`, `requirements` or `migrate`.
    pub other_fuel: u64,
    /// Wall-clock backstop of a call. Only for what fuel does not see; a sound adapter never meets it.
    pub backstop: Duration,
    /// Most calls from the guest to the host in one call of the guest.
    pub host_calls: u32,
    /// Most bytes that leave the guest at once: as an answer, or as the arguments of one host call. Counts the host's
    /// own size of each record, so it is larger than what the contract lets an adapter answer.
    pub passed_bytes: usize,
    /// Most bytes that leave the guest as arguments of all host calls of one call together.
    pub host_call_bytes: usize,
    /// Most bytes of log kept from one call; the rest is cut, and a line says so.
    pub log_bytes: usize,
    /// Native stack a guest may use, in bytes. The calling thread must have this much and some to spare.
    pub stack_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            component_bytes: 8 * 1024 * 1024,
            memory_bytes: 16 * 1024 * 1024,
            table_elements: 20_000,
            instances: 16,
            memories: 4,
            tables: 8,
            handles: 64,
            handle_fuel: 200_000_000,
            other_fuel: 200_000_000,
            backstop: Duration::from_secs(10),
            host_calls: 10_000,
            passed_bytes: 3 * 1024 * 1024,
            host_call_bytes: 16 * 1024 * 1024,
            log_bytes: 64 * 1024,
            stack_bytes: 512 * 1024,
        }
    }
}
