//! What the process says about itself: the tracing subscriber, and how untrusted text gets into it.
//!
//! Logs go to stderr: stdout belongs to what a command prints.

use std::fmt::{self, Display};
use std::io::{self, IsTerminal};
use std::str::FromStr;

use serde::Deserialize;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// What is logged, and how it looks.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which events are logged.
    pub level: Filter,
    /// How they are written.
    pub format: Format,
}

/// How an event is written.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A line for people; coloured on a terminal.
    Text,
    /// An object in a line, for machines.
    Json,
}

impl Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// A level such as `info`, or levels by module such as `info,hairpin::net=debug`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Filter(String);

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // The parser takes a lone word that is no level for the name of a module, so that
        // "verbose" would silence the server, and nothing at all for "error".
        let is_directive = |part: &str| {
            part.contains('=') || (!part.is_empty() && LevelFilter::from_str(part).is_ok())
        };
        let valid = text.split(',').all(is_directive) && EnvFilter::try_new(text).is_ok();
        if !valid {
            return Err(format!(
                "{text:?} is not a log level; write error, warn, info, debug or trace, \
                 or a filter like \"info,hairpin::net=debug\""
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Lines that may wait for whoever reads the log; more are lost.
const WAITING_LINES: usize = 16_384;

/// Sends the events of the whole process to stderr from now on. What waits is written when the
/// guard is dropped, at the latest.
///
/// A thread of its own writes: the reader of a log may stall, and relaying must not stall with it.
///
/// # Errors
/// Where the process has a subscriber already.
pub fn init(config: &Config) -> Result<WorkerGuard, TryInitError> {
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(WAITING_LINES)
        .thread_name("log")
        .finish(io::stderr());
    let registry = tracing_subscriber::registry().with(filter(&config.level));
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    match config.format {
        Format::Text => registry.with(layer.with_ansi(io::stderr().is_terminal())).try_init()?,
        Format::Json => registry.with(layer.json().flatten_event(true)).try_init()?,
    }
    Ok(guard)
}

/// What is let through. The WebSocket codec would log whole messages at trace, and what peers say
/// to each other is theirs.
fn filter(level: &Filter) -> EnvFilter {
    EnvFilter::new(format!("{},tungstenite=off", level.0))
}

/// Shows untrusted text on one line, whole and harmless.
///
/// Quotes, backslashes, control characters and everything that has no width or changes the
/// direction of writing come out as Rust escapes, so that no user name can forge a log line,
/// repaint a terminal or look like another one.
pub fn escaped(text: &str) -> impl Display {
    text.escape_debug()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn untrusted_text_is_escaped() {
        for (text, expected) in [
            ("alice", "alice"),
            ("Łódź 東京", "Łódź 東京"),
            ("a\r\nlevel=ERROR", r"a\r\nlevel=ERROR"),
            ("\u{1b}[31mred", r"\u{1b}[31mred"),
            ("a\0b", r"a\0b"),
            ("a\u{9b}b", r"a\u{9b}b"),
            ("\u{202e}ecila", r"\u{202e}ecila"),
            ("%n%s", "%n%s"),
            ("a\" user=\"b", r#"a\" user=\"b"#),
            (r"a\nb", r"a\\nb"),
        ] {
            assert_eq!(escaped(text).to_string(), expected);
        }
    }

    #[test]
    fn every_character_that_changes_direction_is_escaped() {
        let marks = ['\u{200e}', '\u{200f}'].into_iter();
        for mark in marks.chain('\u{202a}'..='\u{202e}').chain('\u{2066}'..='\u{2069}') {
            let shown = escaped(&mark.to_string()).to_string();
            assert_eq!(shown, format!("\\u{{{:x}}}", u32::from(mark)));
        }
    }

    #[test]
    fn levels_and_filters_are_accepted() {
        for text in ["error", "warn", "info", "debug", "trace", "INFO", "info,hairpin::net=debug"] {
            assert!(Filter::from_str(text).is_ok(), "{text:?}");
        }
    }

    #[test]
    fn what_would_silence_the_server_by_mistake_is_refused() {
        for text in ["", "verbose", "info,", "hairpin", "hairpin=loud", "info debug"] {
            assert!(Filter::from_str(text).is_err(), "{text:?}");
        }
    }
}
