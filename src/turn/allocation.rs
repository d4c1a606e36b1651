//! Allocations.

use super::stats::labelled;

labelled! {
    /// How the client reaches the server.
    Transport {
        /// Datagrams.
        Udp = "udp",
    }
}
