//! The heap, where the system's allocator does not give back memory by itself.

/// Gives unused memory back to the system. glibc keeps what lies between allocations that are
/// still in use, which after a crowd of sessions is nearly all of it.
pub(in crate::net) fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it takes the allocator's own locks, and touches nothing that is allocated.
    unsafe {
        libc::malloc_trim(0);
    }
}
