//! Memory of buffers that are empty. At any moment few connections have something to keep, so what
//! one needs no longer serves the next: neither does an idle connection hold memory, nor does a
//! busy one ask the heap for some in every turn.

use std::cell::RefCell;
use std::mem;

/// Buffers kept by a thread.
const SPARES_MAX: usize = 16;
/// The largest that are kept: with [`SPARES_MAX`], 2 MiB for a shard.
const SPARE_BYTES_MAX: usize = 128 * 1024;

thread_local! {
    static SPARES: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Appends `bytes`. A buffer without memory gets some that is spare, if there is any.
pub(super) fn extend(buffer: &mut Vec<u8>, bytes: &[u8]) {
    if buffer.capacity() == 0 && !bytes.is_empty() {
        *buffer = SPARES.with_borrow_mut(Vec::pop).unwrap_or_default();
    }
    buffer.extend_from_slice(bytes);
}

/// Takes the memory of a buffer that is empty.
pub(super) fn take_back(buffer: &mut Vec<u8>) {
    if !buffer.is_empty() || buffer.capacity() == 0 {
        return;
    }
    let spare = mem::take(buffer);
    if spare.capacity() > SPARE_BYTES_MAX {
        return;
    }
    SPARES.with_borrow_mut(|spares| {
        if spares.len() < SPARES_MAX {
            spares.push(spare);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> usize {
        SPARES.with_borrow(Vec::len)
    }

    #[test]
    fn an_empty_buffer_leaves_its_memory_to_the_next() {
        let (mut one, mut other) = (Vec::new(), Vec::new());
        extend(&mut one, &[1; 1000]);
        let place = one.as_ptr();
        take_back(&mut one);
        assert_eq!((one.len(), kept()), (1000, 0), "it is not empty");
        one.clear();
        take_back(&mut one);
        assert_eq!((one.capacity(), kept()), (0, 1));
        extend(&mut other, &[]);
        assert_eq!(other.capacity(), 0);
        extend(&mut other, &[2; 10]);
        assert_eq!((other.as_ptr(), &other[..], kept()), (place, &[2; 10][..], 0));
    }

    #[test]
    fn no_more_is_kept_than_the_limits() {
        take_back(&mut Vec::with_capacity(SPARE_BYTES_MAX + 1));
        assert_eq!(kept(), 0);
        (0..2 * SPARES_MAX).for_each(|_| take_back(&mut Vec::with_capacity(10)));
        assert_eq!(kept(), SPARES_MAX);
    }
}
