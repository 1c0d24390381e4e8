//! The places that calls run in: linear memory, tables and what belongs to them, made once and used again.
//!
//! Every event has an instance of its own. To map fresh memory for each, to take a page fault for every page it touches and to unmap
//! it all again costs more than what most adapters do with their event. So the engine keeps a few places; after a call the pages it
//! changed are put back to what the component begins with, and the next call of that component finds them in place. A guest sees no
//! difference: what it finds is what the component's file says.

use std::sync::{Condvar, Mutex, PoisonError};

use wasmtime::{Config, Enabled, PoolingAllocationConfig};

use crate::limits::Limits;

/// Calls that run at the same time; the others wait. A call is work for the processor, so that more at once would not be faster. Each
/// costs addresses, 4 GiB for a memory, and no memory until it is used.
const CALLS: u32 = 8;
/// Places that keep what their component begins with. Beyond, the one that was idle longest is taken for another component.
const WARM: u32 = 8;
/// Most bytes of linear memory that an idle place keeps.
const KEPT: usize = 256 * 1024;
/// Most bytes of a table that it keeps.
const KEPT_OF_TABLE: usize = 16 * 1024;
/// Most bytes the engine's own description of an instance may have. It grows with the file, whose size is bounded.
const INSTANCE_BYTES: usize = 64 * 1024 * 1024;

/// Sets an engine up to keep places for [`CALLS`] calls within these limits.
pub(crate) fn pooled(config: &mut Config, limits: &Limits) {
    // What breaks a limit has to fail by the limit, and not for want of a place.
    let least = Limits::default();
    let each = |set: usize, least: usize| u32::try_from(set.max(least)).unwrap_or(u32::MAX);
    let instances = each(limits.instances, least.instances);
    let memories = each(limits.memories, least.memories);
    let tables = each(limits.tables, least.tables);
    // Without this of the kernel (Linux 6.7) nobody knows which pages a call has changed, and all are given back.
    let scans = PoolingAllocationConfig::is_pagemap_scan_available();
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(CALLS.saturating_mul(instances))
        .total_core_instances(CALLS.saturating_mul(instances))
        .total_memories(CALLS.saturating_mul(memories))
        .total_tables(CALLS.saturating_mul(tables))
        .max_component_instance_size(INSTANCE_BYTES)
        .max_core_instance_size(INSTANCE_BYTES)
        .max_memories_per_module(memories)
        .max_tables_per_module(tables)
        .table_elements(limits.table_elements.max(least.table_elements))
        .max_unused_warm_slots(WARM)
        .pagemap_scan(if scans { Enabled::Yes } else { Enabled::No })
        .linear_memory_keep_resident(if scans { KEPT } else { 0 })
        .table_keep_resident(KEPT_OF_TABLE);
    config.allocation_strategy(pool);
}

/// Sees to it that no more calls run than there are places.
pub(crate) struct Places {
    free: Mutex<u32>,
    freed: Condvar,
}

impl Places {
    pub(crate) fn new() -> Self {
        Places {
            free: Mutex::new(CALLS),
            freed: Condvar::new(),
        }
    }

    /// Waits for a place; it is free again when the guard is dropped.
    pub(crate) fn take(&self) -> Place<'_> {
        // A number is valid at every moment: a panic elsewhere does not spoil it.
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self
            .freed
            .wait_while(free, |free| *free == 0)
            .unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Place(self)
    }
}

/// One place, in use.
pub(crate) struct Place<'a>(&'a Places);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let places = self.0;
        *places.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        places.freed.notify_one();
    }
}
