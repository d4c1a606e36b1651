//! How many files and sockets this process may have open.

use std::io;

/// The limit that is in force; `None` where there is none, or the kernel does not tell.
pub fn descriptor_limit() -> Option<u64> {
    let limit = get().ok()?.rlim_cur;
    (limit != libc::RLIM_INFINITY).then_some(limit)
}

fn get() -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes the structure.
    match unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } {
        0 => Ok(limit),
        _ => Err(io::Error::last_os_error()),
    }
}
