//! How many files and sockets this process may have open.

use std::io;

/// The hard limit, which is what [`raise_descriptor_limit`] makes of the soft one; `None` where there
/// is none.
pub fn descriptor_limit() -> Option<u64> {
    let limit = get().ok()?.rlim_max;
    (limit != libc::RLIM_INFINITY).then_some(limit)
}

/// Raises the soft limit to the hard one. Distributions leave the soft one at 1024 for programs that
/// call `select`, which nothing here does.
pub fn raise_descriptor_limit() -> io::Result<()> {
    let mut limit = get()?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the kernel reads the structure.
    match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn get() -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes the structure.
    match unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } {
        0 => Ok(limit),
        _ => Err(io::Error::last_os_error()),
    }
}
