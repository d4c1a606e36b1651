//! Figures of rounds, their medians and ratios, as text and as JSON.

use serde_json::{Value, json};

use crate::lines::{self, Figure, Goal, Line};

/// What one contender did in one line.
pub struct Series {
    pub contender: String,
    /// One figure for each round that counts; empty where it cannot do it.
    pub rounds: Vec<Figure>,
}

impl Series {
    /// The middle figure, and whether it is a lower bound: it is if any of them is, for those may all
    /// be higher.
    pub fn median(&self) -> Option<Figure> {
        let at_least = self.rounds.iter().any(|figure| figure.at_least);
        Some(Figure { value: median(&self.values())?, at_least })
    }

    fn values(&self) -> Vec<f64> {
        self.rounds.iter().map(|figure| figure.value).collect()
    }
}

/// One line with all contenders, ours first.
pub struct Row {
    pub line: Line,
    pub series: Vec<Series>,
    /// Allocations that were held, where the line says how many should be.
    pub held: u32,
    /// Why they are fewer.
    pub note: Option<String>,
}

impl Row {
    /// What [`Row::json`] was made of.
    pub fn of_json(value: &Value) -> Option<Self> {
        let name = value["name"].as_str()?;
        let line = lines::all().into_iter().find(|line| line.name == name)?;
        let series = |series: &Value| {
            let bounds = series["limited_by_generator"].as_array()?;
            let figures =
                series["rounds"].as_array()?.iter().zip(bounds).map(|(value, at_least)| {
                    Some(Figure { value: value.as_f64()?, at_least: at_least.as_bool()? })
                });
            let contender = series["contender"].as_str()?.to_owned();
            Some(Series { contender, rounds: figures.collect::<Option<_>>()? })
        };
        Some(Self {
            line,
            series: value["series"].as_array()?.iter().map(series).collect::<Option<_>>()?,
            held: value["allocations"].as_u64().and_then(|held| held.try_into().ok()).unwrap_or(0),
            note: value["note"].as_str().map(str::to_owned),
        })
    }
}

/// What a ratio of figures says about that of the servers, of which some may do more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Bound {
    Exact,
    AtLeast,
    AtMost,
    Unknown,
}

impl Bound {
    fn of(ours: Figure, theirs: Figure) -> Self {
        match (ours.at_least, theirs.at_least) {
            (false, false) => Self::Exact,
            (true, false) => Self::AtLeast,
            (false, true) => Self::AtMost,
            (true, true) => Self::Unknown,
        }
    }

    /// That of the inverse.
    pub fn turned(self) -> Self {
        match self {
            Self::AtLeast => Self::AtMost,
            Self::AtMost => Self::AtLeast,
            other => other,
        }
    }

    /// What to write in front of the ratio.
    pub fn mark(self) -> &'static str {
        match self {
            Self::Exact => "",
            Self::AtLeast => "≥ ",
            Self::AtMost => "≤ ",
            Self::Unknown => "? ",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::AtLeast => "at least",
            Self::AtMost => "at most",
            Self::Unknown => "unknown",
        }
    }
}

/// Ours to that of another.
#[derive(Clone, Copy, Debug)]
pub struct Ratio {
    /// Of the medians.
    pub median: f64,
    /// The lowest and the highest of a round.
    pub low: f64,
    pub high: f64,
    pub bound: Bound,
}

impl Row {
    pub fn ratio(&self, other: &Series) -> Option<Ratio> {
        let ours = self.series.first()?;
        let rounds = ours.rounds.iter().zip(&other.rounds);
        let mut rounds: Vec<f64> = rounds.map(|(ours, theirs)| ours.value / theirs.value).collect();
        rounds.sort_by(f64::total_cmp);
        let (ours, theirs) = (ours.median()?, other.median()?);
        let (median, bound) = (ours.value / theirs.value, Bound::of(ours, theirs));
        Some(Ratio { median, low: *rounds.first()?, high: *rounds.last()?, bound })
    }

    pub fn print(&self) {
        let Some(ours) = self.series.first() else { return };
        let unit = self.line.unit;
        println!("{:18} {}", self.line.name, self.line.title);
        if let Some(note) = &self.note {
            println!("    {note}");
        }
        println!("    {:16} {}", ours.contender, figure(ours.median(), unit));
        // A line that is a ratio already has its goal in itself.
        if let (Some(median), "×") = (ours.median(), unit) {
            println!("    {:16} {}", "", verdict(self.line.goal, median.value, Bound::Exact));
        }
        for other in &self.series[1..] {
            let theirs = figure(other.median(), unit);
            let Some(Ratio { median, low, high, bound }) = self.ratio(other) else {
                println!("    {:16} {theirs}", other.contender);
                continue;
            };
            let verdict =
                if unit == "×" { String::new() } else { verdict(self.line.goal, median, bound) };
            println!(
                "    {:16} {theirs}   ratio {}{median:.2} ({low:.2} to {high:.2}) {verdict}",
                other.contender,
                bound.mark()
            );
        }
    }

    pub fn json(&self) -> Value {
        let series: Vec<_> = self
            .series
            .iter()
            .map(|series| {
                let (median, ratio) = (series.median(), self.ratio(series));
                json!({
                    "contender": series.contender,
                    "rounds": series.values(),
                    "limited_by_generator":
                        series.rounds.iter().map(|figure| figure.at_least).collect::<Vec<_>>(),
                    "median": median.map(|figure| figure.value),
                    "median_is_at_least": median.is_some_and(|figure| figure.at_least),
                    "ratio": ratio.map(|ratio| ratio.median),
                    "ratio_bound": ratio.map(|ratio| ratio.bound.name()),
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
            "allocations": (self.held > 0).then_some(self.held),
            "note": self.note,
            "series": series,
        })
    }
}

/// Whether a rival comes closer than the line's goal, as far as is known.
pub fn is_missed(row: &Row) -> bool {
    let misses = |ratio: f64| match row.line.goal {
        Goal::AtMost(goal) => ratio > goal,
        Goal::AtLeast(goal) => ratio < goal,
        Goal::None => false,
    };
    if row.line.unit == "×" {
        return row.series[0].median().is_some_and(|figure| misses(figure.value));
    }
    row.series[1..].iter().filter_map(|other| row.ratio(other)).any(|ratio| misses(ratio.median))
}

/// What is only bounded meets or misses a goal where its bound does.
fn verdict(goal: Goal, ratio: f64, bound: Bound) -> String {
    let (goal, is_met, proves_it) = match goal {
        Goal::AtMost(goal) => (format!("goal ≤ {goal}"), ratio <= goal, Bound::AtMost),
        Goal::AtLeast(goal) => (format!("goal ≥ {goal}"), ratio >= goal, Bound::AtLeast),
        Goal::None => return String::new(),
    };
    let proven = if is_met { proves_it } else { proves_it.turned() };
    match is_met {
        _ if bound != Bound::Exact && bound != proven => {
            format!("{goal}: not known, the generator was the limit")
        }
        true => format!("{goal}: met"),
        false => format!("{goal}: MISSED"),
    }
}

fn figure(figure: Option<Figure>, unit: &str) -> String {
    let Some(Figure { value, at_least }) = figure else { return format!("{:>12}", "–") };
    let mark = if at_least { "≥ " } else { "" };
    let value =
        if unit == "×" { format!("{mark}{value:.2}") } else { format!("{mark}{value:.0}") };
    format!("{value:>10} {unit}")
}

/// The middle figure; none of none, or where a round has failed.
pub fn median(figures: &[f64]) -> Option<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = *sorted.get(sorted.len() / 2)?;
    sorted.iter().all(|figure| figure.is_finite()).then_some(middle)
}
