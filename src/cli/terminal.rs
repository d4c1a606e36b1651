//! Colour for those who look at a terminal, and progress on standard error.

use std::env;
use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::runtime::{Builder, Runtime};

use super::Error;

/// Puts colour around words, or does not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paint {
    is_on: bool,
}

impl Paint {
    /// On where standard output is a terminal that shows colour and nobody objects by `NO_COLOR`.
    pub(super) fn for_stdout() -> Self {
        let objects = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let is_dumb = env::var_os("TERM").is_none_or(|term| term == "dumb");
        Self { is_on: io::stdout().is_terminal() && !objects && !is_dumb }
    }

    pub(super) fn good(self, text: &str) -> String {
        self.painted("32", text)
    }

    pub(super) fn warning(self, text: &str) -> String {
        self.painted("33", text)
    }

    pub(super) fn bad(self, text: &str) -> String {
        self.painted("31", text)
    }

    pub(super) fn strong(self, text: &str) -> String {
        self.painted("1", text)
    }

    pub(super) fn faint(self, text: &str) -> String {
        self.painted("2", text)
    }

    fn painted(self, code: &str, text: &str) -> String {
        match self.is_on {
            true => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
            false => text.to_owned(),
        }
    }
}

/// A line that moves while something goes on; nothing where standard error is no terminal.
pub(super) fn spinner() -> ProgressBar {
    let spinner = ProgressBar::new_spinner();
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner
}

/// Turns a spinner into a bar of so many milliseconds. How long it may take is for the message to
/// tell: what a bar knows of that is a guess from its speed so far.
pub(super) fn as_bar(progress: &ProgressBar, total: Duration) {
    if let Ok(style) = ProgressStyle::with_template("{msg} [{bar:30}]") {
        progress.set_style(style);
    }
    progress.set_length(u64::try_from(total.as_millis()).unwrap_or(u64::MAX));
}

/// What drives a client's sockets.
pub(super) fn runtime() -> Result<Runtime, Error> {
    let built = Builder::new_current_thread().enable_all().build();
    built.map_err(|error| Error::Refused(format!("cannot start: {error}")))
}

/// A duration as people say it: `350 ms`, `3 s`, `1 m 20 s`.
pub(super) fn spoken(duration: Duration) -> String {
    let secs = duration.as_secs();
    match (secs / 60, secs % 60) {
        _ if duration < Duration::from_secs(1) => format!("{} ms", duration.as_millis()),
        (0, _) if duration.subsec_millis() != 0 && secs < 10 => {
            format!("{:.1} s", duration.as_secs_f64())
        }
        (0, secs) => format!("{secs} s"),
        (minutes, 0) => format!("{minutes} m"),
        (minutes, secs) => format!("{minutes} m {secs} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_spoken() {
        for (millis, text) in [
            (0, "0 ms"),
            (350, "350 ms"),
            (1_500, "1.5 s"),
            (3_000, "3 s"),
            (59_999, "59 s"),
            (80_000, "1 m 20 s"),
            (300_000, "5 m"),
        ] {
            assert_eq!(spoken(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn colour_is_around_words_or_not_there() {
        assert_eq!(Paint { is_on: true }.bad("no"), "\u{1b}[31mno\u{1b}[0m");
        assert_eq!(Paint { is_on: false }.bad("no"), "no");
    }
}
