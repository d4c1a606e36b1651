//! Which core a thread runs on, and how precisely it is woken.

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

/// Lets the calling thread sleep no longer than it asks to. Linux adds 50 µs to gather wake-ups,
/// as much as a busy shard sleeps at all.
pub fn sleep_precisely() {
    // SAFETY: a number; nothing is read or written. Cannot fail, says the manual, and if it did,
    // sleeps would only be longer.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong) };
}
