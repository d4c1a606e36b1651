//! `hairpin bench`: loads a server and says what became of it.

mod options;
mod table;

use std::io::Write;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::Error;
use crate::load::{
    self, Fleet, Found, Order, Pattern, Progress, Report, Search, Target, Trial, Usage,
};
use crate::net::{clock, sys};

pub(super) use options::Bench;
use options::Settings;

/// A trial of a search.
const TRIAL: Duration = Duration::from_secs(1);

/// What was seen of one URI.
struct Outcome {
    target: Target,
    opened: Opened,
    found: Option<Found>,
    order: Order,
    report: Report,
}

/// What it took to open the clients.
struct Opened {
    seconds: f64,
    allocations: u32,
    /// The server's CPU time and memory for each allocation.
    server: Option<(Duration, u64)>,
}

impl Bench {
    pub(super) fn run(self, out: &mut impl Write) -> Result<(), Error> {
        let settings = self.settings()?;
        // Each client is a socket, and what cannot be raised is told when one cannot be opened.
        let _ = sys::raise_descriptor_limit();
        let mut outcomes = Vec::new();
        for uri in &settings.uris {
            let outcome = uri.resolve(settings.public).and_then(|target| settings.load(target));
            outcomes.push(outcome.map_err(|error| match settings.uris.len() {
                1 => Error::Refused(error.to_string()),
                _ => Error::Refused(format!("{uri}: {error}")),
            })?);
        }
        if settings.json {
            let results: Vec<_> = outcomes.iter().map(|outcome| outcome.json(&settings)).collect();
            let version = env!("CARGO_PKG_VERSION");
            writeln!(out, "{:#}", json!({ "hairpin": version, "results": results }))?;
            return Ok(());
        }
        for outcome in &outcomes {
            writeln!(out, "{}", table::of(outcome, &settings))?;
        }
        Ok(())
    }
}

impl Settings {
    /// Opens the clients, finds the rate if asked to, warms up, measures.
    fn load(&self, target: Target) -> Result<Outcome, load::Error> {
        let bar = progress_bar();
        let (mut fleet, opened) = self.open(&target, &bar)?;
        let mut order = self.order;
        let found = if self.search { Some(self.search(&mut fleet, &bar)?) } else { None };
        if let Some(found) = found {
            order.rate = found.rate.max(1);
        }
        if !self.warm_up.is_zero() {
            let warm_up = Order { duration: self.warm_up, ..order };
            drive(&mut fleet, warm_up, None, &bar, "warming up")?;
        }
        let report = drive(&mut fleet, order, self.pid, &bar, "measuring")?;
        bar.finish_and_clear();
        Ok(Outcome { target, opened, found, order, report })
    }

    fn open(&self, target: &Target, bar: &ProgressBar) -> Result<(Fleet, Opened), load::Error> {
        let clients = self.shape.clients;
        let allocations = match self.shape.pattern {
            Pattern::ToPeer | Pattern::ToClient | Pattern::Echo => clients,
            Pattern::RelayToRelay => clients * 2,
            Pattern::Allocate | Pattern::Binding => 0,
        };
        let before = self.pid.map(Usage::of).transpose()?;
        let begin = clock::now().instant;
        bar.set_length(u64::from(allocations.max(clients)));
        bar.set_message("opening clients");
        let shape = self.shape.clone();
        let fleet = Fleet::open(target, self.trust.as_ref(), shape, |progress| {
            if let Progress::Opening(opened) = progress {
                bar.set_position(opened);
            }
        })?;
        let seconds = (clock::now().instant - begin).as_secs_f64();
        let after = self.pid.map(Usage::of).transpose()?;
        let server = before.zip(after).filter(|_| allocations > 0).map(|(before, after)| {
            let resident = after.resident.saturating_sub(before.resident);
            let cpu = after.cpu.saturating_sub(before.cpu);
            (cpu / allocations, resident / u64::from(allocations))
        });
        Ok((fleet, Opened { seconds, allocations, server }))
    }

    fn search(&self, fleet: &mut Fleet, bar: &ProgressBar) -> Result<Found, load::Error> {
        let search = Search { from: self.order.rate, to: load::RATE_MAX };
        search.run(|rate| {
            let trial = Order { rate, duration: TRIAL.min(self.order.duration), ..self.order };
            let message = format!("trying {}/s", table::grouped(rate));
            let report = drive(fleet, trial, None, bar, &message)?;
            Ok(if report.generator.too_slow || report.unsent > 0 {
                Trial::TooSlow
            } else if report.loss_percent() > self.loss_percent {
                Trial::Lossy
            } else {
                Trial::Lossless
            })
        })
    }
}

fn drive(
    fleet: &mut Fleet,
    order: Order,
    pid: Option<u32>,
    bar: &ProgressBar,
    message: &str,
) -> Result<Report, load::Error> {
    bar.set_length(order.duration.as_millis() as u64);
    bar.set_position(0);
    bar.set_message(message.to_owned());
    fleet.drive(order, pid, |progress| {
        if let Progress::Driving(elapsed) = progress {
            bar.set_position(elapsed.min(order.duration).as_millis() as u64);
        }
    })
}

/// On the terminal's error output; nothing where that is no terminal.
fn progress_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {percent:>3} % {msg}")
        .expect("the template is a constant, and good");
    ProgressBar::new(1).with_style(style)
}

impl Outcome {
    fn json(&self, settings: &Settings) -> Value {
        let Opened { seconds, allocations, server } = &self.opened;
        json!({
            "uri": self.target.to_string(),
            "address": self.target.address,
            "transport": self.target.transport.name(),
            "pattern": options::name(settings.pattern),
            "mode": options::name(settings.mode),
            "clients": settings.shape.clients,
            "size": self.order.size,
            "burst": self.order.burst,
            "rate": self.order.rate,
            "together": self.order.together,
            "one_by_one": self.order.one_by_one,
            "opened": {
                "allocations": allocations,
                "seconds": seconds,
                "server_cpu_ns_per_allocation": server.map(|(cpu, _)| cpu.as_nanos() as u64),
                "server_bytes_per_allocation": server.map(|(_, bytes)| bytes),
            },
            "search": self.found.map(|found| json!({
                "highest_rate": found.rate,
                "limited_by_generator": found.limited_by_generator,
                "trials": found.trials,
            })),
            "report": self.report,
        })
    }
}
