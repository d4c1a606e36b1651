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

    pub fn ratio(&self, other: &Series) -> Option<Ratio> {
        let ours = self.series.first()?;
        let rounds = ours.rounds.iter().zip(&other.rounds);
        let mut rounds: Vec<f64> = rounds.map(|(ours, theirs)| ours.value / theirs.value).collect();
        rounds.sort_by(f64::total_cmp);
        let (ours, theirs) = (ours.median()?, other.median()?);
        let (median, bound) = (ours.value / theirs.value, Bound::of(ours, theirs));
        Some(Ratio { median, low: *rounds.first()?, high: *rounds.last()?, bound })
    }

    /// The worst that becomes of the line's goal beside any of the others.
    pub fn outcome(&self) -> Option<Outcome> {
        let goal = self.line.goal;
        // A line that is a ratio has its goal in itself.
        if self.line.unit == "×" {
            return Outcome::of(goal, self.series[0].median()?.value, Bound::Exact);
        }
        let ratios = self.series[1..].iter().filter_map(|other| self.ratio(other));
        let outcomes = ratios.filter_map(|ratio| Outcome::of(goal, ratio.median, ratio.bound));
        outcomes.max_by_key(|outcome| match outcome {
            Outcome::Met => 0,
            Outcome::Unknown => 1,
            Outcome::Missed => 2,
        })
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

/// What becomes of a goal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    Met,
    Missed,
    /// The generator was the limit, and the servers may be further apart, or closer.
    Unknown,
}

impl Outcome {
    /// What is only bounded meets or misses a goal where its bound does.
    fn of(goal: Goal, ratio: f64, bound: Bound) -> Option<Self> {
        let (is_met, proves_it) = match goal {
            Goal::AtMost(goal) => (ratio <= goal, Bound::AtMost),
            Goal::AtLeast(goal) => (ratio >= goal, Bound::AtLeast),
            Goal::None => return None,
        };
        let proven = if is_met { proves_it } else { proves_it.turned() };
        Some(match is_met {
            _ if bound != Bound::Exact && bound != proven => Self::Unknown,
            true => Self::Met,
            false => Self::Missed,
        })
    }
}

/// The goal, and what has become of it.
fn verdict(goal: Goal, ratio: f64, bound: Bound) -> String {
    let outcome = match Outcome::of(goal, ratio, bound) {
        None => return String::new(),
        Some(Outcome::Met) => "met",
        Some(Outcome::Missed) => "MISSED",
        Some(Outcome::Unknown) => "not known, the generator was the limit",
    };
    format!("goal {goal}: {outcome}")
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
