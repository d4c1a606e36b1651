//! Figures of rounds, their medians and ratios, as text and as JSON.

use serde_json::{Value, json};

use crate::lines::{Goal, Line};

/// What one contender did in one line.
pub struct Series {
    pub contender: String,
    /// One figure for each round that counts; empty where it cannot do it.
    pub rounds: Vec<f64>,
}

/// One line with all contenders, ours first.
pub struct Row {
    pub line: Line,
    pub series: Vec<Series>,
}

/// Ours to that of another.
#[derive(Clone, Copy, Debug)]
pub struct Ratio {
    /// Of the medians.
    pub median: f64,
    /// The lowest and the highest of a round.
    pub low: f64,
    pub high: f64,
}

impl Row {
    pub fn ratio(&self, other: &Series) -> Option<Ratio> {
        let ours = self.series.first()?;
        let rounds = ours.rounds.iter().zip(&other.rounds).map(|(ours, theirs)| ours / theirs);
        let mut rounds: Vec<f64> = rounds.collect();
        rounds.sort_by(f64::total_cmp);
        let median = median(&ours.rounds)? / median(&other.rounds)?;
        Some(Ratio { median, low: *rounds.first()?, high: *rounds.last()? })
    }

    pub fn print(&self) {
        let Some(ours) = self.series.first() else { return };
        let unit = self.line.unit;
        println!("{:18} {}", self.line.name, self.line.title);
        println!("    {:16} {}", ours.contender, figure(median(&ours.rounds), unit));
        // A line that is a ratio already has its goal in itself.
        if unit == "×" {
            println!("    {:16} {}", "", verdict(self.line.goal, median(&ours.rounds)));
        }
        for other in &self.series[1..] {
            let theirs = figure(median(&other.rounds), unit);
            let Some(Ratio { median, low, high }) = self.ratio(other) else {
                println!("    {:16} {theirs}", other.contender);
                continue;
            };
            let verdict =
                if unit == "×" { String::new() } else { verdict(self.line.goal, Some(median)) };
            println!(
                "    {:16} {theirs}   ratio {median:.2} ({low:.2} to {high:.2}) {verdict}",
                other.contender
            );
        }
    }

    pub fn json(&self) -> Value {
        let series: Vec<_> = self
            .series
            .iter()
            .map(|series| {
                let ratio = self.ratio(series);
                json!({
                    "contender": series.contender,
                    "rounds": series.rounds,
                    "median": median(&series.rounds),
                    "ratio": ratio.map(|ratio| ratio.median),
                    "ratio_low": ratio.map(|ratio| ratio.low),
                    "ratio_high": ratio.map(|ratio| ratio.high),
                })
            })
            .collect();
        let (bound, goal) = match self.line.goal {
            Goal::AtMost(goal) => (Some("at most"), Some(goal)),
            Goal::AtLeast(goal) => (Some("at least"), Some(goal)),
            Goal::None => (None, None),
        };
        json!({
            "name": self.line.name,
            "title": self.line.title,
            "unit": self.line.unit,
            "bound": bound,
            "goal": goal,
            "series": series,
        })
    }
}

fn verdict(goal: Goal, ratio: Option<f64>) -> String {
    let Some(ratio) = ratio else { return String::new() };
    match goal {
        Goal::AtMost(goal) if ratio <= goal => format!("goal ≤ {goal}: met"),
        Goal::AtMost(goal) => format!("goal ≤ {goal}: MISSED"),
        Goal::AtLeast(goal) if ratio >= goal => format!("goal ≥ {goal}: met"),
        Goal::AtLeast(goal) => format!("goal ≥ {goal}: MISSED"),
        Goal::None => String::new(),
    }
}

fn figure(figure: Option<f64>, unit: &str) -> String {
    match figure {
        None => format!("{:>12}", "–"),
        Some(figure) if unit == "×" => format!("{figure:>10.2} {unit}"),
        Some(figure) => format!("{figure:>10.0} {unit}"),
    }
}

/// The middle figure; none of none, or where a round has failed.
pub fn median(figures: &[f64]) -> Option<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = *sorted.get(sorted.len() / 2)?;
    sorted.iter().all(|figure| figure.is_finite()).then_some(middle)
}
