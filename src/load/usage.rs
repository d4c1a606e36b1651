//! What a process of this machine uses, as Linux tells in `/proc`.

use std::fs;
use std::io;
use std::time::Duration;

use super::Error;

/// A reading of one process.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Time on a core so far, of all its threads that still run.
    pub cpu: Duration,
    /// Resident memory in bytes.
    pub resident: u64,
}

impl Usage {
    /// Reads the counters of process `pid`.
    ///
    /// # Errors
    /// Where there is no such process, or no `/proc`.
    pub fn of(pid: u32) -> Result<Self, Error> {
        let read = || Ok(Self { cpu: cpu(pid)?, resident: resident(pid)? });
        read().map_err(|error| Error::Process { pid, error })
    }

    /// Reads those of this process.
    ///
    /// # Errors
    /// Where there is no `/proc`.
    pub fn own() -> Result<Self, Error> {
        Self::of(std::process::id())
    }
}

/// The scheduler's own clock, which is exact; `stat` only counts ticks.
fn cpu(pid: u32) -> io::Result<Duration> {
    let mut nanos = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end meanwhile.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
        let on_core = text.split(' ').next().and_then(|field| field.parse::<u64>().ok());
        nanos += on_core.ok_or(io::ErrorKind::InvalidData)?;
    }
    Ok(Duration::from_nanos(nanos))
}

fn resident(pid: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kib.ok_or(io::ErrorKind::InvalidData)? * 1024)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn work_and_memory_are_seen() {
        let before = Usage::own().unwrap();
        let memory = vec![7_u8; 32 << 20];
        let sum: u64 = (0..20_u64)
            .map(|round| memory.iter().map(|&b| u64::from(b) ^ round).sum::<u64>())
            .sum();
        let after = Usage::own().unwrap();
        assert!(after.cpu > before.cpu, "{sum}");
        assert!(after.resident > before.resident + (16 << 20), "{before:?} {after:?}");
    }

    #[test]
    fn nobody_is_not_there() {
        assert!(matches!(Usage::of(u32::MAX), Err(Error::Process { .. })));
    }
}
