//! What errors of sockets mean here.

use std::io;

use crate::turn::stats::DropReason;

#[cfg(unix)]
use libc::{EBADF, EFAULT, EINVAL, EMSGSIZE, ENOBUFS, ENOTSOCK};
#[cfg(windows)]
use winsock::{EBADF, EFAULT, EINVAL, EMSGSIZE, ENOBUFS, ENOTSOCK};

/// The numbers `raw_os_error` gives for sockets; those of the `libc` crate are the C runtime's.
#[cfg(windows)]
mod winsock {
    pub(super) const EBADF: i32 = 10_009;
    pub(super) const EFAULT: i32 = 10_014;
    pub(super) const EINVAL: i32 = 10_022;
    pub(super) const ENOTSOCK: i32 = 10_038;
    pub(super) const EMSGSIZE: i32 = 10_040;
    pub(super) const ENOBUFS: i32 = 10_055;
}

/// Attempts in one call before an error is taken as the answer. A socket holds one pending ICMP
/// error, so the second attempt nearly always goes through.
pub(super) const ATTEMPTS: usize = 4;

/// Whether receiving can never succeed again. Everything else concerns one datagram, or is the
/// echo of one that was sent (ICMP), or passes (memory).
pub(super) fn ends_receiving(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(EBADF | EFAULT | EINVAL | ENOTSOCK))
}

/// Whether the error is about an earlier datagram, or a signal: this one was not even tried.
pub(super) fn is_about_another(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, ConnectionReset, Interrupted};

    matches!(error.kind(), ConnectionRefused | ConnectionReset | Interrupted)
}

/// Why a datagram was not sent.
pub(super) fn drop_reason(error: &io::Error) -> DropReason {
    match error.raw_os_error() {
        Some(EMSGSIZE) => DropReason::TooLarge,
        Some(ENOBUFS) => DropReason::SendBufferFull,
        _ if error.kind() == io::ErrorKind::WouldBlock => DropReason::SendBufferFull,
        _ => DropReason::SendFailed,
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn every_failed_send_has_a_reason() {
        let reasons = [
            (EMSGSIZE, DropReason::TooLarge),
            (ENOBUFS, DropReason::SendBufferFull),
            (libc::EAGAIN, DropReason::SendBufferFull),
            (libc::EWOULDBLOCK, DropReason::SendBufferFull),
            (libc::EACCES, DropReason::SendFailed),
            (libc::EPERM, DropReason::SendFailed),
            (EINVAL, DropReason::SendFailed),
            (libc::ENOMEM, DropReason::SendFailed),
            (libc::ENETUNREACH, DropReason::SendFailed),
            (libc::EHOSTUNREACH, DropReason::SendFailed),
            (libc::ENETDOWN, DropReason::SendFailed),
            (libc::EADDRNOTAVAIL, DropReason::SendFailed),
            (libc::EAFNOSUPPORT, DropReason::SendFailed),
            (libc::ECONNREFUSED, DropReason::SendFailed),
            (EBADF, DropReason::SendFailed),
        ];
        for (errno, reason) in reasons {
            let error = io::Error::from_raw_os_error(errno);
            assert_eq!(drop_reason(&error), reason, "{error}");
        }
        // Without a number: what tokio makes up, and what nobody does.
        assert_eq!(drop_reason(&io::ErrorKind::WouldBlock.into()), DropReason::SendBufferFull);
        assert_eq!(drop_reason(&io::ErrorKind::Other.into()), DropReason::SendFailed);
    }

    #[test]
    fn only_a_lost_socket_ends_receiving() {
        for errno in [EBADF, EFAULT, EINVAL, ENOTSOCK] {
            assert!(ends_receiving(&io::Error::from_raw_os_error(errno)));
        }
        for errno in
            [libc::ECONNREFUSED, libc::EHOSTUNREACH, libc::ENOMEM, ENOBUFS, libc::EINTR, EMSGSIZE]
        {
            assert!(!ends_receiving(&io::Error::from_raw_os_error(errno)));
        }
        assert!(!ends_receiving(&io::ErrorKind::WouldBlock.into()));
    }

    #[test]
    fn echoes_of_earlier_datagrams_and_signals_are_tried_again() {
        for errno in [libc::ECONNREFUSED, libc::ECONNRESET, libc::EINTR] {
            assert!(is_about_another(&io::Error::from_raw_os_error(errno)));
        }
        for errno in [libc::EACCES, libc::EPERM, libc::EHOSTUNREACH, EMSGSIZE, ENOBUFS] {
            assert!(!is_about_another(&io::Error::from_raw_os_error(errno)));
        }
    }
}
