//! The rules of the house that a compiler does not know, kept by a test.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::path::{Path, PathBuf};

/// Lines of code in a file, tests, comments and blank lines not counted.
const FILE_LINES_MAX: usize = 400;
/// Lines from a function's `fn` to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;

/// Which of our modules each module may name. Arrows go one way:
/// main → cli → server → {net, http} → turn → stun, http → signal, and beside them
/// cli → load → {net, stun} and cli → probe.
const ARROWS: [(&str, &[&str]); 10] = [
    ("src/stun/", &[]),
    ("src/turn/", &["stun"]),
    ("src/net/", &["turn", "stun", "logging"]),
    ("src/signal/", &[]),
    ("src/http/", &["signal", "turn", "stun"]),
    ("src/config/", &["signal", "turn", "net", "http", "logging"]),
    ("src/server", &["config", "net", "http", "turn", "logging"]),
    ("src/load/", &["net", "stun"]),
    ("src/probe/", &["net"]),
    (
        "src/cli/",
        &["config", "load", "probe", "server", "logging", "net", "http", "signal", "turn"],
    ),
];
const MODULES: [&str; 11] = [
    "cli", "config", "http", "load", "logging", "net", "probe", "server", "signal", "stun", "turn",
];

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

/// What nobody leaves in a finished text. In pieces, so that this file has none of them.
const UNFINISHED: [&str; 7] = [
    "todo!(",
    "unimplemented!(",
    "dbg!(",
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("@", "@"),
];

struct Source {
    path: String,
    text: String,
}

impl Source {
    /// Numbered lines outside of the test module and of comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines: Vec<_> = self.text.lines().collect();
        let opens = |at: usize| {
            let item = lines[at..].iter().find(|line| !line.trim_start().starts_with('#'));
            item.is_some_and(|line| line.ends_with('{'))
        };
        let end = (0..lines.len()).find(|&at| is_for_tests(lines[at]) && opens(at));
        self.text
            .lines()
            .enumerate()
            .take(end.unwrap_or(usize::MAX))
            .filter(|(_, line)| !line.trim().is_empty() && !line.trim_start().starts_with("//"))
            .map(|(index, line)| (index + 1, line))
    }

    /// The modules that the code names, each with its line: by `crate::a`, or by the braces of
    /// `crate::{a, b::C}`.
    fn modules(&self) -> Vec<(usize, String)> {
        let mut starts = Vec::new();
        let mut code = String::new();
        for (number, line) in self.code() {
            starts.push((code.len(), number));
            code.push_str(line);
            code.push('\n');
        }
        let line_of = |at| starts[starts.partition_point(|&(start, _)| start <= at) - 1].1;
        code.match_indices("crate::")
            .flat_map(|(at, found)| {
                first_segments(&code[at + found.len()..])
                    .into_iter()
                    .map(move |segment| (at, segment))
            })
            .map(|(at, segment)| (line_of(at), segment))
            .collect()
    }
}

fn is_for_tests(line: &str) -> bool {
    ["#[cfg(test)]", "#[cfg(all(test,"].iter().any(|mark| line.trim_start().starts_with(mark))
}

/// The first segment of a path, or of each path in braces.
fn first_segments(path: &str) -> Vec<String> {
    let identifier = |text: &str| -> String {
        text.trim_start()
            .chars()
            .take_while(|char| char.is_alphanumeric() || *char == '_')
            .collect()
    };
    let Some(inner) = path.strip_prefix('{') else { return vec![identifier(path)] };
    let mut segments = vec![identifier(inner)];
    let mut depth = 1;
    for (at, char) in inner.char_indices() {
        match char {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => segments.push(identifier(&inner[at + 1..])),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    segments
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
    collect_all(folder, files);
    files.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
}

fn collect_all(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        // What npm installs is nobody's here.
        if path.ends_with("node_modules") {
            continue;
        }
        if path.is_dir() {
            collect_all(&path, files);
        } else {
            files.push(path);
        }
    }
}

/// Every text of the project, of whatever kind, but this one, which has to say what it looks for.
fn texts() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name == ".git" || name.starts_with("target") {
            continue;
        }
        if path.is_dir() {
            collect_all(&path, &mut files);
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
        .into_iter()
        .filter(|file| *file != root.join("tests/tidy.rs"))
        .filter_map(|file| {
            let path = file.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
            // What is no text has nothing to say here.
            Some(Source { path, text: fs::read_to_string(&file).ok()? })
        })
        .collect()
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
        let own = own.trim_start_matches("src/").trim_end_matches('/').trim_end_matches(".rs");
        for (number, module) in source.modules() {
            let module = module.as_str();
            if MODULES.contains(&module) && module != own && !allowed.contains(&module) {
                faults.push(format!("{}:{number}: may not know {module}", source.path));
            }
        }
    }
    assert_none(&faults);
}

/// A verdict must not be the server agreeing with itself.
#[test]
fn probe_knows_nothing_of_the_server_but_its_clock() {
    let mut faults = Vec::new();
    for source in sources("src/probe") {
        for (number, line) in source.code() {
            if line.contains("crate::net") && !line.contains("crate::net::clock") {
                faults.push(format!("{}:{number}: the server's own code", source.path));
            }
        }
    }
    assert_none(&faults);
}

#[test]
fn core_has_no_io_no_clock_and_no_locks() {
    let mut faults = Vec::new();
    for source in ["src/stun", "src/turn", "src/signal"].into_iter().flat_map(sources) {
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
        .filter(|source| {
            let sections = ["RFC 8656 §", "RFC 8489 §", "RFC 6062 §"];
            !sections.iter().any(|section| source.text.contains(section))
        })
        .map(|source| format!("{}: cites no section", source.path))
        .collect();
    assert_none(&faults);
}

#[test]
fn nothing_is_left_unfinished() {
    let mut faults = Vec::new();
    for source in texts() {
        for (index, line) in source.text.lines().enumerate() {
            if UNFINISHED.iter().any(|mark| line.contains(mark)) {
                faults.push(format!("{}:{}: {}", source.path, index + 1, line.trim()));
            }
        }
    }
    assert_none(&faults);
}

/// The rules above are only as good as what they see.
#[test]
fn modules_are_seen_in_braces_and_over_lines() {
    let text = "use crate::{http, logging::{a, b}, net};\nuse crate::{\n    config::Config,\n    \
                turn,\n};\n// crate::cli\nfn f() -> crate::server::X {}\n#[cfg(test)]\nmod tests;\n\
                use crate::stun;\n#[cfg(test)]\nmod tests {\n    use crate::cli;\n}\n";
    let source = Source { path: String::new(), text: text.to_owned() };
    let modules = source.modules();
    let seen: Vec<_> = modules
        .iter()
        .filter(|(_, name)| !name.is_empty())
        .map(|(line, name)| (*line, name.as_str()))
        .collect();
    let wanted = [
        (1, "http"),
        (1, "logging"),
        (1, "net"),
        (2, "config"),
        (2, "turn"),
        (7, "server"),
        (10, "stun"),
    ];
    assert_eq!(seen, wanted);
}
