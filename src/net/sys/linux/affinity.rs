//! Which core a thread runs on.

use std::io;
use std::mem;

/// Keeps the calling thread on one core, counted from 0.
pub fn pin(core: usize) -> io::Result<()> {
    if core >= libc::CPU_SETSIZE as usize {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: numbers, for which zeros are valid.
    let mut cores: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: the number is below the size of the set.
    unsafe { libc::CPU_SET(core, &mut cores) };
    // SAFETY: the kernel reads the set, which has the size given; 0 is the calling thread.
    match unsafe { libc::sched_setaffinity(0, mem::size_of_val(&cores), &raw const cores) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
