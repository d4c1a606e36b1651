//! Receiving: one `recvmmsg` into a batch.

use std::io;
use std::mem;
use std::os::fd::RawFd;
use std::ptr;

use libc::{iovec, mmsghdr, socklen_t};

use super::cmsg::{Control, Received};
use super::error;
use super::name::Name;
use crate::net::sys::batch::{RecvBatch, SLOT_BYTES, SLOT_STRIDE, SLOTS, Train};

/// The kernel's view of a batch. It points into its own vectors and into the batch's buffer, which
/// therefore never change their size.
pub(in crate::net::sys) struct ReceiveHeaders {
    headers: Vec<mmsghdr>,
    names: Vec<Name>,
    /// Only pointed to, as are the slots.
    _controls: Vec<Control>,
    _slots: Vec<iovec>,
}

// SAFETY: the pointers lead into memory that this value and its batch own, and only `receive`,
// which has both exclusively, follows them.
unsafe impl Send for ReceiveHeaders {}

impl ReceiveHeaders {
    /// Headers for the slots of `buffer`, which must live and stay as long as they do.
    pub(in crate::net::sys) fn new(buffer: &mut Vec<u8>) -> Self {
        assert_eq!(buffer.len(), SLOTS * SLOT_STRIDE);
        let mut names = vec![Name::EMPTY; SLOTS];
        let mut controls = vec![Control::EMPTY; SLOTS];
        let (name, control) = (names.as_mut_ptr(), controls.as_mut_ptr());
        let mut slots: Vec<iovec> = (0..SLOTS)
            .map(|slot| {
                // SAFETY: the slot lies inside the buffer, as asserted.
                let start = unsafe { buffer.as_mut_ptr().add(slot * SLOT_STRIDE) };
                iovec { iov_base: start.cast(), iov_len: SLOT_BYTES }
            })
            .collect();
        let first = slots.as_mut_ptr();
        let headers = (0..SLOTS)
            .map(|slot| {
                // SAFETY: numbers and pointers, for which zeros are valid.
                let mut header: mmsghdr = unsafe { mem::zeroed() };
                // SAFETY: each of the three vectors has SLOTS elements.
                unsafe {
                    header.msg_hdr.msg_name = name.add(slot).cast();
                    header.msg_hdr.msg_control = control.add(slot).cast();
                    header.msg_hdr.msg_iov = first.add(slot);
                }
                header.msg_hdr.msg_iovlen = 1;
                offer(&mut header);
                header
            })
            .collect();
        Self { headers, names, _controls: controls, _slots: slots }
    }
}

/// Says how much room there is for name and control messages; the kernel overwrites both with what
/// it used.
fn offer(header: &mut mmsghdr) {
    header.msg_hdr.msg_namelen = mem::size_of::<Name>() as socklen_t;
    header.msg_hdr.msg_controllen = Control::CAPACITY as _;
}

/// Fills the rest of the batch, and tells how many slots that took; 0 if nothing had arrived.
pub(super) fn receive(fd: RawFd, batch: &mut RecvBatch) -> io::Result<usize> {
    let mut attempts = error::ATTEMPTS;
    let filled = loop {
        match receive_once(fd, batch) {
            Ok(filled) => break filled,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            Err(error) if error::ends_receiving(&error) => return Err(error),
            Err(_) if attempts > 1 => attempts -= 1,
            Err(error) => return Err(error),
        }
    };
    for _ in 0..filled {
        accept(batch);
    }
    Ok(filled)
}

fn receive_once(fd: RawFd, batch: &mut RecvBatch) -> io::Result<usize> {
    let free = batch.next_slot();
    let headers = &mut batch.headers.headers[free..];
    // SAFETY: each of the headers points to a name, an iovec and a control buffer of the lengths it
    // gives, all owned by the batch, which is borrowed exclusively; no timeout.
    match unsafe {
        libc::recvmmsg(fd, headers.as_mut_ptr(), headers.len() as _, 0, ptr::null_mut())
    } {
        -1 => Err(io::Error::last_os_error()),
        filled => Ok(filled as usize),
    }
}

/// Adds what the kernel put into the next slot, and makes the slot ready for a later call.
fn accept(batch: &mut RecvBatch) {
    let slot = batch.next_slot();
    let header = batch.headers.headers[slot];
    offer(&mut batch.headers.headers[slot]);
    batch.accept(read(&header, &batch.headers.names[slot]));
}

/// What a filled slot holds. What was cut, or lost the size to split it by, must not pass for what
/// was sent.
fn read(header: &mmsghdr, name: &Name) -> Option<Train> {
    if header.msg_hdr.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 {
        return None;
    }
    let from = name.address()?;
    let total = header.msg_len as usize;
    // SAFETY: recvmmsg filled this header, and its control buffer, which the batch owns.
    let Received { to, stride, traffic_class, .. } = unsafe { Received::read(&header.msg_hdr) };
    Some(Train { from, to, traffic_class, total, stride: stride.unwrap_or(total) })
}
