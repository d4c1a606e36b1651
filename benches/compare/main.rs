//! hairpin beside coturn: `cargo bench --bench compare`.
//!
//! One server at a time works, on a core of its own with one relay thread; the generator is on
//! another core. Rounds alternate between the servers, and the first round is thrown away. What
//! counts is the ratio of the medians.
//!
//! `-- LINE…` runs only those lines, `-- --list` names them, `-- --quick` is a smoke test. Debian's
//! coturn is taken when it is there (`apt install coturn`); another one by `COTURN_BINARY`, pion's
//! `turn-server/simple` by `PION_BINARY`.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, missing_debug_implementations)]

mod lines;
mod plot;
mod server;
mod table;

use std::fs;
use std::path::PathBuf;

use clap::Parser;
use lines::{Line, Scene};
use serde_json::json;
use server::Contender;
use table::{Row, Series};

#[derive(Debug, Parser)]
struct Options {
    /// Lines to run; all if none is named.
    lines: Vec<String>,
    /// Name the lines.
    #[arg(long)]
    list: bool,
    /// Run everything once and briefly: a smoke test, whose figures mean nothing.
    #[arg(long)]
    quick: bool,
    /// Rounds that count, instead of what suits each line.
    #[arg(long)]
    rounds: Option<usize>,
    /// The generator's core, then the server's.
    #[arg(long, value_delimiter = ',', default_value = "0,1", num_args = 1)]
    cores: Vec<usize>,
    /// Where compare.json and compare.svg go.
    #[arg(long, default_value = env!("CARGO_TARGET_TMPDIR"))]
    out: PathBuf,
    /// What cargo adds.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let options = Options::parse();
    let lines = chosen(&options);
    if options.list {
        lines.iter().for_each(|line| println!("{:18} {}", line.name, line.title));
        return;
    }
    let &[generator_core, server_core] = &options.cores[..] else {
        panic!("--cores takes two numbers");
    };
    let scene = Scene { generator_core, server_core, quick: options.quick };
    let contenders = Contender::all();
    if contenders.len() == 1 {
        println!("no other server on this machine: hairpin alone (apt install coturn)");
    }
    if options.quick {
        println!("quick: the figures mean nothing");
    }
    let mut rows = Vec::new();
    for line in lines {
        let rounds = if options.quick { 1 } else { options.rounds.unwrap_or(line.rounds) };
        let row = run(line, &scene, &contenders, rounds);
        row.print();
        rows.push(row);
        // After each line: a run that is broken off has left what it had.
        write(&options, &scene, &rows);
    }
    if options.quick {
        assert_whole(&rows);
    }
}

fn chosen(options: &Options) -> Vec<Line> {
    let mut lines = lines::all();
    for name in &options.lines {
        assert!(lines.iter().any(|line| line.name == name), "no line {name}; --list names them");
    }
    lines.retain(|line| options.lines.is_empty() || options.lines.iter().any(|it| it == line.name));
    lines
}

/// All contenders in turn, round by round. A line that is a ratio in itself takes one contender
/// after the other: each needs more sockets than a process may have for all of them.
fn run(line: Line, scene: &Scene, contenders: &[Contender], rounds: usize) -> Row {
    let at_once = if line.unit == "×" { 1 } else { contenders.len() };
    let series = contenders
        .chunks(at_once)
        .flat_map(|contenders| alternate(&line, scene, contenders, rounds))
        .collect();
    Row { line, series }
}

fn alternate(line: &Line, scene: &Scene, contenders: &[Contender], rounds: usize) -> Vec<Series> {
    let mut probes: Vec<_> =
        contenders.iter().map(|contender| (line.prepare)(line, scene, contender)).collect();
    let mut series: Vec<_> = contenders
        .iter()
        .map(|contender| Series { contender: contender.name().to_owned(), rounds: Vec::new() })
        .collect();
    for round in 0..=rounds {
        for (probe, series) in probes.iter_mut().zip(&mut series) {
            let Some(probe) = probe else { continue };
            let figure = probe();
            if round > 0 {
                series.rounds.push(figure);
            }
        }
    }
    series
}

fn write(options: &Options, scene: &Scene, rows: &[Row]) {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let results = json!({
        "hairpin": env!("CARGO_PKG_VERSION"),
        "kernel": kernel.trim(),
        "cpu": cpu.map(|(_, model)| model),
        "cores": std::thread::available_parallelism().map(usize::from).ok(),
        "generator_core": scene.generator_core,
        "server_core": scene.server_core,
        "quick": scene.quick,
        "lines": rows.iter().map(Row::json).collect::<Vec<_>>(),
    });
    fs::create_dir_all(&options.out).unwrap();
    fs::write(options.out.join("compare.json"), format!("{results:#}\n")).unwrap();
    fs::write(options.out.join("compare.svg"), plot::svg(rows)).unwrap();
}

/// A smoke test proves that every line still measures something.
fn assert_whole(rows: &[Row]) {
    for row in rows {
        for series in &row.series {
            let whole = series.rounds.iter().all(|figure| figure.is_finite() && *figure >= 0.0);
            assert!(whole, "{}: {} {:?}", row.line.name, series.contender, series.rounds);
        }
        assert!(!row.series[0].rounds.is_empty(), "{}: nothing measured", row.line.name);
    }
}
