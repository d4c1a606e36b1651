//! What the doctor says.

use std::net::SocketAddr;
use std::time::Duration;

use super::uri::Uri;

/// How a step ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    /// As it should.
    Fine,
    /// It works, but somebody should know.
    Warning,
    /// It does not work.
    Failed,
    /// It could not be tried; the detail says why.
    Skipped,
}

/// One step.
#[derive(Clone, Debug)]
pub struct Step {
    /// What was tried, in a word.
    pub name: &'static str,
    /// How it ended.
    pub state: State,
    /// What was seen.
    pub detail: String,
    /// The cause in words, where something is wrong.
    pub cause: Option<String>,
    /// What to change, where something is wrong.
    pub change: Option<String>,
    /// How long it took.
    pub took: Duration,
    /// How long it could have taken.
    pub limit: Duration,
}

/// What is wrong, and what to change.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Fault {
    /// What was seen.
    pub(super) detail: String,
    /// Why.
    pub(super) cause: String,
    /// What to do about it.
    pub(super) change: String,
}

impl Fault {
    pub(super) fn new(
        detail: impl Into<String>,
        cause: impl Into<String>,
        change: impl Into<String>,
    ) -> Self {
        Self { detail: detail.into(), cause: cause.into(), change: change.into() }
    }
}

/// One address of a server.
#[derive(Clone, Debug)]
pub struct Visit {
    /// The address.
    pub address: SocketAddr,
    /// The steps, in their order.
    pub steps: Vec<Step>,
}

/// One URI.
#[derive(Clone, Debug)]
pub struct Report {
    /// The URI.
    pub uri: Uri,
    /// The name's addresses.
    pub resolve: Step,
    /// What each of them did.
    pub visits: Vec<Visit>,
}

impl Report {
    /// Whether all of it works.
    #[must_use]
    pub fn works(&self) -> bool {
        let steps = || self.visits.iter().flat_map(|visit| &visit.steps);
        let failed = |step: &Step| step.state == State::Failed;
        // A name may have addresses of a family that this machine does not have; not only such.
        let tried = steps().any(|step| step.state == State::Fine);
        tried && !failed(&self.resolve) && !steps().any(failed)
    }
}
