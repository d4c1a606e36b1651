//! Sending: runs of datagrams as messages of one `sendmmsg`, gathered from where they lie.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::mem;
use std::os::fd::RawFd;

use libc::{iovec, mmsghdr, socklen_t};

use super::cmsg::Control;
use super::name::Name;
use crate::net::sys::outgoing::{Outgoing, Run, Segment};

/// How runs become messages.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Form {
    /// A message for each run, which the kernel segments.
    Runs,
    /// A message for each datagram.
    Datagrams,
}

/// The kernel's structures, kept so that sending allocates nothing.
#[derive(Default)]
pub(in crate::net) struct SendScratch {
    headers: Vec<mmsghdr>,
    names: Vec<(Name, socklen_t)>,
    controls: Vec<(Control, usize)>,
    pieces: Vec<iovec>,
    /// Datagrams in each message.
    datagrams: Vec<usize>,
}

// SAFETY: the pointers are followed only through `Messages`, while what they lead to is borrowed.
unsafe impl Send for SendScratch {}

impl fmt::Debug for SendScratch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SendScratch").finish_non_exhaustive()
    }
}

/// Loaded messages: while they live, so do the bytes they point to.
pub(super) struct Messages<'a> {
    scratch: &'a mut SendScratch,
    bytes: PhantomData<&'a [u8]>,
}

impl SendScratch {
    /// Puts `runs` in the kernel's terms.
    pub(super) fn load<'a, K>(
        &'a mut self,
        outgoing: &Outgoing<'a, K>,
        runs: &[Run<K>],
        form: Form,
    ) -> Messages<'a> {
        self.headers.clear();
        self.names.clear();
        self.controls.clear();
        self.pieces.clear();
        self.datagrams.clear();
        for run in runs {
            let segments = outgoing.segments(run);
            if form == Form::Runs {
                self.message(outgoing, run, segments);
                continue;
            }
            for segment in segments {
                self.message(outgoing, run, Some(segment).into_iter());
            }
        }
        self.connect();
        Messages { scratch: self, bytes: PhantomData }
    }

    /// Adds one message, its header still without pointers: the vectors may move as they grow.
    fn message<'a, K>(
        &mut self,
        outgoing: &Outgoing<'a, K>,
        run: &Run<K>,
        segments: impl Iterator<Item = &'a Segment>,
    ) {
        let before = self.pieces.len();
        let mut datagrams = 0;
        for segment in segments {
            datagrams += 1;
            for piece in outgoing.pieces(segment).into_iter().filter(|piece| !piece.is_empty()) {
                let start = piece.as_ptr().cast_mut().cast();
                self.pieces.push(iovec { iov_base: start, iov_len: piece.len() });
            }
        }
        let segmented = (datagrams > 1).then_some(run.size as u16);
        self.names.push(Name::of(run.route.to));
        self.controls.push(Control::of(&run.route, segmented));
        self.datagrams.push(datagrams);
        // SAFETY: numbers and pointers, for which zeros are valid.
        let mut header: mmsghdr = unsafe { mem::zeroed() };
        header.msg_hdr.msg_iovlen = (self.pieces.len() - before) as _;
        self.headers.push(header);
    }

    /// Points the headers at their parts.
    fn connect(&mut self) {
        let mut next = self.pieces.as_mut_ptr();
        let parts = self.names.iter_mut().zip(&mut self.controls);
        for (header, ((name, name_len), (control, control_len))) in
            self.headers.iter_mut().zip(parts)
        {
            let header = &mut header.msg_hdr;
            header.msg_name = (&raw mut *name).cast();
            header.msg_namelen = *name_len;
            if *control_len > 0 {
                header.msg_control = (&raw mut *control).cast();
                header.msg_controllen = *control_len as _;
            }
            header.msg_iov = next;
            // SAFETY: the counts of all headers add up to the length of `pieces`.
            next = unsafe { next.add(header.msg_iovlen as _) };
        }
    }
}

impl Messages<'_> {
    pub(super) fn len(&self) -> usize {
        self.scratch.headers.len()
    }

    /// How many datagrams message number `at` is.
    pub(super) fn datagrams(&self, at: usize) -> usize {
        self.scratch.datagrams[at]
    }

    /// Sends from message number `at` on, until one fails. Tells how many went out; the error is
    /// that of the very first.
    pub(super) fn send(&mut self, fd: RawFd, at: usize) -> io::Result<usize> {
        let headers = &mut self.scratch.headers[at..];
        // SAFETY: each header points to a name, pieces and control messages of the lengths it
        // gives. The scratch owns them, exclusively borrowed and not grown since `connect`; the
        // bytes of the pieces are borrowed for as long as `self`, and only read.
        let sent = unsafe { libc::sendmmsg(fd, headers.as_mut_ptr(), headers.len() as _, 0) };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(sent as usize)
    }
}
