//! The rules of the house that a compiler does not know, kept by a test.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::path::{Path, PathBuf};

/// Lines of code in a file, tests, comments and blank lines not counted.
const FILE_LINES_MAX: usize = 400;
/// Lines from a function's `fn` to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;

/// Which of our modules each module may name. Arrows go one way:
/// main → cli → server → {net, http} → turn → stun.
const ARROWS: [(&str, &[&str]); 7] = [
    ("src/stun/", &[]),
    ("src/turn/", &["stun"]),
    ("src/net/", &["turn", "stun", "logging"]),
    ("src/http/", &["turn", "stun"]),
    ("src/config/", &["turn", "net", "http", "logging"]),
    ("src/server.rs", &["config", "net", "http", "turn", "logging"]),
    ("src/cli/", &["config", "server", "logging", "net", "turn"]),
];
const MODULES: [&str; 9] =
    ["cli", "config", "http", "logging", "net", "server", "signal", "stun", "turn"];

/// What a core that is a function of state, bytes, time and randomness has no use for.
const BANNED_IN_CORE: [&str; 12] = [
    "async ",
    "tokio",
    "Mutex",
    "RwLock",
    "Atomic",
    "Instant::now",
    "SystemTime::now",
    "unsafe",
    "println!",
    "eprintln!",
    "thread::",
    "tracing",
];

struct Source {
    path: String,
    text: String,
}

impl Source {
    /// Numbered lines outside of the test module and of comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .enumerate()
            .take_while(|(_, line)| !line.trim_start().starts_with("#[cfg(test)]"))
            .filter(|(_, line)| !line.trim().is_empty() && !line.trim_start().starts_with("//"))
            .map(|(index, line)| (index + 1, line))
    }
}

/// All Rust files below `folder`, without those that hold only tests.
fn sources(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    collect(&root.join(folder), &mut files);
    assert!(!files.is_empty(), "{folder} has sources");
    files.sort();
    files
        .into_iter()
        .map(|file| Source {
            path: file.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/"),
            text: fs::read_to_string(&file).unwrap(),
        })
        .filter(|source| !source.path.contains("/tests"))
        .collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn assert_none(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn arrows_go_one_way() {
    let mut faults = Vec::new();
    for source in sources("src") {
        let Some((own, allowed)) = ARROWS.iter().find(|(own, _)| source.path.starts_with(own))
        else {
            continue;
        };
        let own = own.trim_start_matches("src/").trim_end_matches(['/', '.', 'r', 's']);
        for (number, line) in source.code() {
            for module in MODULES.iter().filter(|module| line.contains(&format!("crate::{module}")))
            {
                if *module != own && !allowed.contains(module) {
                    faults.push(format!("{}:{number}: may not know {module}", source.path));
                }
            }
        }
    }
    assert_none(&faults);
}

#[test]
fn core_has_no_io_no_clock_and_no_locks() {
    let mut faults = Vec::new();
    for source in ["src/stun", "src/turn"].into_iter().flat_map(sources) {
        for (number, line) in source.code() {
            for banned in BANNED_IN_CORE.iter().filter(|banned| line.contains(**banned)) {
                faults.push(format!("{}:{number}: {banned} in the core", source.path));
            }
        }
    }
    assert_none(&faults);
}

#[test]
fn unsafe_stays_in_net_sys() {
    let mut faults = Vec::new();
    for source in sources("src") {
        if source.path.starts_with("src/net/sys/") {
            continue;
        }
        for (number, _) in source.code().filter(|(_, line)| line.contains("unsafe ")) {
            faults.push(format!("{}:{number}: unsafe outside of net/sys", source.path));
        }
    }
    assert_none(&faults);
}

#[test]
fn clocks_are_read_in_one_place() {
    let mut faults = Vec::new();
    for source in sources("src").iter().filter(|source| source.path != "src/net/clock.rs") {
        for (number, line) in source.code() {
            if line.contains("Instant::now") || line.contains("SystemTime::now") {
                faults.push(format!("{}:{number}: reads a clock", source.path));
            }
        }
    }
    assert_none(&faults);
}

#[test]
fn files_are_short() {
    let faults: Vec<_> = sources("src")
        .iter()
        .map(|source| (source.path.clone(), source.code().count()))
        .filter(|(_, lines)| *lines > FILE_LINES_MAX)
        .map(|(path, lines)| format!("{path}: {lines} lines of code, split it by meaning"))
        .collect();
    assert_none(&faults);
}

#[test]
fn functions_are_short() {
    let mut faults = Vec::new();
    for source in sources("src") {
        let mut open: Option<(usize, String)> = None;
        for (number, line) in source.code() {
            let indent = &line[..line.len() - line.trim_start().len()];
            let is_fn = line.contains("fn ") && !line.trim_end().ends_with(';');
            match &open {
                None if is_fn && !line.trim_end().ends_with('}') => {
                    open = Some((number, format!("{indent}}}")));
                }
                Some((start, end)) if line == end => {
                    if number - start + 1 > FUNCTION_LINES_MAX {
                        let lines = number - start + 1;
                        faults
                            .push(format!("{}:{start}: a function of {lines} lines", source.path));
                    }
                    open = None;
                }
                _ => {}
            }
        }
    }
    assert_none(&faults);
}

#[test]
fn every_request_names_its_rfc_section() {
    let faults: Vec<_> = sources("src/turn/request")
        .iter()
        .filter(|source| !source.text.contains("RFC 8656 §") && !source.text.contains("RFC 8489 §"))
        .map(|source| format!("{}: cites no section", source.path))
        .collect();
    assert_none(&faults);
}

#[test]
fn nothing_is_left_unfinished() {
    let marks = ["todo!(", "unimplemented!(", "dbg!(", concat!("FIX", "ME"), concat!("XX", "X")];
    let mut faults = Vec::new();
    for source in ["src", "tests"].into_iter().flat_map(sources) {
        for (index, line) in source.text.lines().enumerate() {
            if marks.iter().any(|mark| line.contains(mark)) && source.path != "tests/tidy.rs" {
                faults.push(format!("{}:{}: {}", source.path, index + 1, line.trim()));
            }
        }
    }
    assert_none(&faults);
}
