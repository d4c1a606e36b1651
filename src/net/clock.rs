//! The one place that reads the time; everybody else is told it.

use std::time::{Instant, SystemTime};

use crate::turn::Now;

/// Reads both clocks.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the place the ban points to")]
pub fn now() -> Now {
    // A clock that was never set may stand before 1970; it reads as 1970.
    let unix_secs = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since_1970| since_1970.as_secs());
    Now { instant: Instant::now(), unix_secs }
}
