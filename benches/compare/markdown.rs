//! The figures as a table for the README.

use std::fmt::Write;

use crate::lines::Figure;
use crate::table::{Outcome, Ratio, Row, Series};

/// A table in Markdown: a line each, with a pair of columns for each rival.
pub fn table(rows: &[Row]) -> String {
    let mut rivals: Vec<&str> = Vec::new();
    for series in rows.iter().flat_map(|row| &row.series[1..]) {
        if !rivals.contains(&series.contender.as_str()) {
            rivals.push(&series.contender);
        }
    }
    let mut text = "| | hairpin |".to_owned();
    rivals.iter().for_each(|rival| text += &format!(" {rival} | ratio |"));
    text += " goal |\n|---|---|";
    rivals.iter().for_each(|_| text += "---|---|");
    text += "---|\n";
    for row in rows {
        let ours = cell(row.series[0].median(), row.line.unit);
        let _ = write!(text, "| {} | {ours} |", row.line.title);
        for rival in &rivals {
            let theirs = row.series.iter().find(|series| series.contender == *rival);
            let _ = write!(text, " {} |", beside(row, theirs));
        }
        let _ = writeln!(text, " {} |", goal(row));
    }
    text
}

fn beside(row: &Row, theirs: Option<&Series>) -> String {
    let Some(theirs) = theirs else { return "– | –".to_owned() };
    let figure = cell(theirs.median(), row.line.unit);
    let ratio = row.ratio(theirs).map_or_else(
        || "–".to_owned(),
        |Ratio { median, low, high, bound }| {
            format!("{}{median:.2} ({low:.2}–{high:.2})", bound.mark())
        },
    );
    format!("{figure} | {ratio}")
}

fn goal(row: &Row) -> String {
    let goal = row.line.goal;
    match row.outcome() {
        None | Some(Outcome::Met) => goal.to_string(),
        Some(Outcome::Missed) => format!("{goal}, **missed**"),
        Some(Outcome::Unknown) => format!("{goal}, not known"),
    }
}

/// A figure with its unit.
fn cell(figure: Option<Figure>, unit: &str) -> String {
    let Some(Figure { value, at_least }) = figure else { return "–".to_owned() };
    let mark = if at_least { "≥ " } else { "" };
    match unit {
        "×" => format!("{mark}{value:.2}"),
        "/s" => format!("{mark}{}/s", grouped(value)),
        unit => format!("{mark}{} {unit}", grouped(value)),
    }
}

/// With commas between thousands.
fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
