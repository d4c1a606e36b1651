//! hairpin beside coturn: `cargo bench --bench compare`.
//!
//! One server at a time works, on a core of its own with one relay thread; the generator is on
//! another core. Rounds alternate between the servers, and the first round is thrown away. What
//! counts is the ratio of the medians.
//!
//! `-- LINE…` runs only those lines, `-- --list` names them, `-- --quick` is a smoke test.
//! `-- --scale` adds the lines that hold many allocations at once, up to 100,000, which takes more than
//! half an hour: wall and CPU time to open them, memory, CPU per packet beside them, and what it costs
//! that they expire at once. Clients come from eight loopback addresses, and hairpin and coturn relay
//! from as many. Each allocation is a socket of the server and one of the generator; where the hard
//! limit of open files is below that, as many are held as there is room for, and the line says so.
//!
//! A highest rate at which the generator was at its end is shown as a lower bound (≥). Debian's
//! coturn is taken when it is there (`apt install coturn`); another one by `COTURN_BINARY`, pion's
//! `turn-server/simple` by `PION_BINARY`.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, missing_debug_implementations)]

mod lines;
mod markdown;
mod measure;
mod plot;
mod scale;
mod server;
mod table;

use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;
use hairpin::net::sys;
use lines::{Figure, Line, Scene};
use serde_json::{Value, json};
use server::Contender;
use table::{Row, Series};

#[derive(Debug, Parser)]
struct Options {
    /// Lines to run; all but those of --scale if none is named.
    lines: Vec<String>,
    /// Run the lines with many allocations too: they take many sockets, and long.
    #[arg(long)]
    scale: bool,
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
    /// Where compare.json, compare.md and compare.svg go.
    #[arg(long, default_value = env!("CARGO_TARGET_TMPDIR"))]
    out: PathBuf,
    /// Measure nothing: make table and plot of the compare.json of an earlier run.
    #[arg(long, value_name = "FILE")]
    render: Option<PathBuf>,
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
    if let Some(file) = &options.render {
        return render(&options, file);
    }
    let &[generator_core, server_core] = &options.cores[..] else {
        panic!("--cores takes two numbers");
    };
    // The servers inherit it. What cannot be raised leaves room for fewer allocations.
    let _ = sys::raise_descriptor_limit();
    let descriptors = sys::descriptor_limit();
    let scene = Scene { generator_core, server_core, quick: options.quick, descriptors };
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
    let all = options.lines.is_empty();
    lines.retain(|line| {
        let by_name = options.lines.iter().any(|name| name == line.name);
        by_name || (all && (!line.scale || options.scale || options.list))
    });
    lines
}

/// All contenders in turn, round by round. A line that is a ratio in itself takes one contender
/// after the other: each needs more sockets than a process may have for all of them. So does one with
/// very many.
fn run(line: Line, scene: &Scene, contenders: &[Contender], rounds: usize) -> Row {
    let at_once = if line.unit == "×" || line.scale { 1 } else { contenders.len() };
    let series = contenders
        .chunks(at_once)
        .flat_map(|contenders| alternate(&line, scene, contenders, rounds))
        .collect();
    let held = scene.room_for(line.what.allocations);
    let limit = scene.descriptors.filter(|_| held < line.what.allocations && !scene.quick);
    let note = limit.map(|limit| {
        format!("with {held} allocations: this machine lets a process open {limit} files")
    });
    Row { line, series, held, note }
}

fn alternate(line: &Line, scene: &Scene, contenders: &[Contender], rounds: usize) -> Vec<Series> {
    let mut probes: Vec<_> =
        contenders.iter().map(|contender| (line.prepare)(line, scene, contender)).collect();
    let mut series: Vec<_> = contenders
        .iter()
        .map(|contender| Series { contender: contender.name().to_owned(), rounds: Vec::new() })
        .collect();
    // Where each round has a server of its own there is nothing to warm up.
    let warm_up = usize::from(!line.scale || line.unit == "×");
    for round in 1 - warm_up..=rounds {
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
        "descriptors": scene.descriptors,
        "lines": rows.iter().map(Row::json).collect::<Vec<_>>(),
    });
    fs::create_dir_all(&options.out).unwrap();
    fs::write(options.out.join("compare.json"), format!("{results:#}\n")).unwrap();
    draw(options, rows);
}

fn render(options: &Options, file: &Path) {
    let results: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    let rows: Option<Vec<_>> =
        results["lines"].as_array().unwrap().iter().map(Row::of_json).collect();
    draw(options, &rows.expect("a compare.json of this version"));
}

fn draw(options: &Options, rows: &[Row]) {
    fs::write(options.out.join("compare.md"), markdown::table(rows)).unwrap();
    fs::write(options.out.join("compare.svg"), plot::svg(rows)).unwrap();
}

/// A smoke test proves that every line still measures something.
fn assert_whole(rows: &[Row]) {
    for row in rows {
        for series in &row.series {
            let is_whole = |figure: &Figure| figure.value.is_finite() && figure.value >= 0.0;
            let whole = series.rounds.iter().all(is_whole);
            assert!(whole, "{}: {} {:?}", row.line.name, series.contender, series.rounds);
        }
        assert!(!row.series[0].rounds.is_empty(), "{}: nothing measured", row.line.name);
    }
}
