//! The one caller of the clocks; everything else is told the time.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::turn::Now;

/// Reads both clocks. A wall clock before 1970 counts as 1970.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the place that the ban points to")]
pub fn now() -> Now {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { instant: Instant::now(), unix_secs: since_1970.as_secs() }
}
