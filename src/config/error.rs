//! What is wrong with a configuration, in one line that names the file, the line and the key.

use std::fmt::{self, Display};
use std::path::{Path, PathBuf};

use serde_path_to_error::Segment;
use toml::de::{DeTable, DeValue};

/// Why the configuration is refused.
///
/// Never quotes a password or a secret, however wrong the file is.
#[derive(Debug)]
pub struct ConfigError {
    file: Option<PathBuf>,
    line: Option<usize>,
    key: Option<Key>,
    message: String,
}

/// Where a key is, from the top: `limits.max_lifetime`, `listen[1]`.
#[derive(Clone, Debug)]
pub(super) struct Key(Vec<Step>);

#[derive(Clone, Debug)]
enum Step {
    Name(String),
    Index(usize),
}

/// What is wrong with a value, before it is known what line it stands in.
#[derive(Debug)]
pub(super) struct Fault {
    /// What to name: the first of these that the file has, for the others are defaults.
    keys: Vec<Key>,
    message: String,
}

impl ConfigError {
    /// A file that cannot be read, or an environment variable.
    pub(super) fn of(source: impl Into<PathBuf>, message: impl Into<String>) -> Self {
        let file = Some(source.into());
        Self { file, line: None, key: None, message: message.into() }
    }

    /// Text that is no TOML.
    pub(super) fn syntax(file: &Path, text: &str, error: &toml::de::Error) -> Self {
        Self {
            file: Some(file.to_owned()),
            line: error.span().map(|span| line_at(text, span.start)),
            key: None,
            message: one_line(error.message()),
        }
    }

    /// TOML that does not fit the schema.
    pub(super) fn schema(
        file: &Path,
        text: &str,
        error: &serde_path_to_error::Error<toml::de::Error>,
    ) -> Self {
        let key = Key::of(error.path());
        let message = plain(error.inner().message());
        Self::at(file, text, Fault { keys: vec![key], message })
    }

    /// A value that does not make sense.
    pub(super) fn at(file: &Path, text: &str, fault: Fault) -> Self {
        let document = DeTable::parse(text).ok();
        let root = document.as_ref().map(toml::Spanned::get_ref);
        let found = fault.keys.iter().find_map(|key| Some((key, locate(root?, key)?)));
        let (key, line) = match found {
            Some((key, offset)) => (Some(key.clone()), Some(line_at(text, offset))),
            None => (fault.keys.into_iter().next(), None),
        };
        Self { file: Some(file.to_owned()), line, key, message: fault.message }
    }
}

impl std::error::Error for ConfigError {}

impl Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}:", file.display())?;
        }
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        if self.file.is_some() {
            f.write_str(" ")?;
        }
        if let Some(key) = &self.key {
            write!(f, "{key}: ")?;
        }
        f.write_str(&self.message)
    }
}

impl Fault {
    pub(super) fn new<const N: usize>(keys: [Key; N], message: impl Into<String>) -> Self {
        Self { keys: keys.into(), message: message.into() }
    }
}

impl Key {
    /// A key of a table, `"limits.max_lifetime"`, or of the top, `"realm"`.
    pub(super) fn new(dotted: &str) -> Self {
        Self(dotted.split('.').map(|name| Step::Name(name.to_owned())).collect())
    }

    /// An entry of this array.
    pub(super) fn index(mut self, index: usize) -> Self {
        self.0.push(Step::Index(index));
        self
    }

    /// An entry of this table.
    pub(super) fn entry(mut self, name: &str) -> Self {
        self.0.push(Step::Name(name.to_owned()));
        self
    }

    fn of(path: &serde_path_to_error::Path) -> Self {
        let step = |segment: &Segment| match segment {
            Segment::Seq { index } => Some(Step::Index(*index)),
            Segment::Map { key } | Segment::Enum { variant: key } => Some(Step::Name(key.clone())),
            Segment::Unknown => None,
        };
        Self(path.iter().filter_map(step).collect())
    }
}

impl Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bare = |name: &str| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
            !name.is_empty() && name.bytes().all(plain)
        };
        for (at, step) in self.0.iter().enumerate() {
            if at > 0 && matches!(step, Step::Name(_)) {
                f.write_str(".")?;
            }
            match step {
                Step::Name(name) if bare(name) => f.write_str(name)?,
                Step::Name(name) => write!(f, "{name:?}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// Finds where the key is written.
fn locate(root: &DeTable<'_>, key: &Key) -> Option<usize> {
    let Step::Name(name) = key.0.first()? else { return None };
    let (written, mut value) = root.iter().find(|(written, _)| written.get_ref() == name)?;
    let mut offset = written.span().start;
    for step in &key.0[1..] {
        (offset, value) = match (step, value.get_ref()) {
            (Step::Name(name), DeValue::Table(table)) => {
                let (written, value) = table.iter().find(|(key, _)| key.get_ref() == name)?;
                (written.span().start, value)
            }
            (Step::Index(index), DeValue::Array(array)) => {
                let value = array.get(*index)?;
                (value.span().start, value)
            }
            _ => return None,
        };
    }
    Some(offset)
}

fn line_at(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().get(..offset).unwrap_or(text.as_bytes());
    before.iter().filter(|&&byte| byte == b'\n').count() + 1
}

/// Rewords what serde says: for an operator, and without the value it found, which may be a
/// password in the wrong place.
fn plain(message: &str) -> String {
    let message = one_line(message);
    let quotes_the_value = ["invalid type", "invalid value", "unknown field", "unknown variant"]
        .iter()
        .any(|prefix| message.starts_with(prefix));
    let Some((found, expected)) = message.rsplit_once("expected ").filter(|_| quotes_the_value)
    else {
        return message;
    };
    let expected = expected.trim_start_matches("one of ");
    match found.starts_with("unknown field") {
        true => {
            let known = expected.replace('`', "").replace(" or ", ", ");
            format!("unknown key; known here: {known}")
        }
        false => format!("must be {}", reword(&expected.replace('`', "\""))),
    }
}

/// Rust's words for what TOML calls otherwise.
fn reword(expected: &str) -> &str {
    match expected {
        "a sequence" => "a list",
        "a boolean" => "true or false",
        "a map" => "a table",
        _ if expected.starts_with("struct ") => "a table",
        other => other,
    }
}

fn one_line(message: &str) -> String {
    message.lines().collect::<Vec<_>>().join(", ")
}
