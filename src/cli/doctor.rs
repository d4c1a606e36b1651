//! `hairpin doctor`: why does a STUN or TURN server work, or not?

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::Error;
use super::terminal::{Paint, runtime, spinner, spoken};
use crate::config::Lifetime;
use crate::probe::doctor::{Credentials, Doing, Options, Report, State, Step, Trust, Uri, examine};

/// Datagrams that one run may send through a relay.
const COUNT_MAX: u16 = 1000;

/// Find out why a STUN or TURN server works, or does not, and what to change.
///
/// Goes step by step: name, connection, certificate, address, allocation, permission, channel,
/// bytes through the relay and back, and from outside to its ports. Exits with 0 only where all of
/// it works. Every step has a deadline, which is shown.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  hairpin doctor stun:stun.example.org
  hairpin doctor turn:turn.example.org turns:turn.example.org --user alice --pass secret
  hairpin doctor 'turn:192.0.2.7:3478?transport=tcp' --secret 'the shared secret'
  hairpin doctor turns:localhost:3478 --ca cert.pem --user dev --pass dev --json")]
pub(super) struct Doctor {
    /// What to examine, as in iceServers: stun:…, stuns:…, turn:…?transport=udp|tcp, turns:…, which
    /// is DTLS with ?transport=udp
    #[arg(required = true, value_name = "URI")]
    uris: Vec<Uri>,
    /// The user of a TURN server.
    #[arg(long, value_name = "NAME", requires = "pass")]
    user: Option<String>,
    /// The user's password.
    #[arg(long, value_name = "PASSWORD", requires = "user")]
    pass: Option<String>,
    /// The shared secret to make time-limited credentials with, instead of user and password.
    #[arg(long, conflicts_with_all = ["user", "pass"])]
    secret: Option<String>,
    /// The realm the server should have.
    #[arg(long, value_name = "NAME")]
    realm: Option<String>,
    /// Trust the certificates of this PEM file instead of this machine's authorities.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Datagrams to send through each relay.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=i64::from(COUNT_MAX)))]
    count: u16,
    /// How long to wait for each answer.
    #[arg(long, default_value = "5s")]
    timeout: Lifetime,
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
}

impl Doctor {
    pub(super) fn run(self, out: &mut impl Write) -> Result<(), Error> {
        let options = self.options()?;
        let paint = Paint::for_stdout();
        let runtime = runtime()?;
        let progress = spinner();
        let mut reports = Vec::new();
        for uri in &self.uris {
            let show = |doing: Doing| progress.set_message(format!("{uri}: {}", words(&doing)));
            let report = runtime.block_on(examine(uri, &options, show));
            if !self.json {
                let text = as_text(&report, paint);
                progress.suspend(|| write!(out, "{text}").and_then(|()| out.flush()))?;
            }
            reports.push(report);
        }
        progress.finish_and_clear();
        // A look-up that hangs is not waited for.
        runtime.shutdown_background();
        if self.json {
            writeln!(out, "{:#}", as_json(&reports))?;
        }
        match reports.iter().filter(|report| !report.works()).count() {
            0 => Ok(()),
            broken => Err(Error::Refused(format!("{broken} of {} do not work", reports.len()))),
        }
    }

    fn options(&self) -> Result<Options, Error> {
        let credentials = match (&self.user, &self.pass, &self.secret) {
            (Some(user), Some(password), _) => {
                let (user, password) = (user.clone(), password.clone());
                Some(Credentials::Password { user, password })
            }
            (_, _, Some(secret)) => Some(Credentials::Secret(secret.clone())),
            _ => None,
        };
        let needs_trust = self.uris.iter().any(|uri| uri.transport.is_secure());
        let trust = match &self.ca {
            Some(file) => Some(Trust::in_file(file)),
            None => needs_trust.then(Trust::of_this_machine),
        };
        Ok(Options {
            limit: self.timeout.0,
            count: usize::from(self.count),
            credentials,
            realm: self.realm.clone(),
            trust: trust.transpose().map_err(Error::Refused)?,
        })
    }
}

fn words(doing: &Doing) -> String {
    let at = doing.address.map(|address| format!(" with {address}")).unwrap_or_default();
    format!("{}{at}, at most {}", doing.step, spoken(doing.limit))
}

fn as_text(report: &Report, paint: Paint) -> String {
    let mut text = format!("{}\n", paint.strong(&report.uri.to_string()));
    text.push_str(&line(&report.resolve, paint));
    for visit in &report.visits {
        text.push_str(&format!("  {}\n", visit.address));
        for step in &visit.steps {
            text.push_str(&line(step, paint));
        }
    }
    let verdict = match report.works() {
        true => paint.good("works"),
        false => paint.bad("does not work"),
    };
    text.push_str(&format!("  {verdict}\n\n"));
    text
}

/// A step, and below it what is wrong and what to change.
fn line(step: &Step, paint: Paint) -> String {
    let mark = match step.state {
        State::Fine => paint.good("ok  "),
        State::Warning => paint.warning("warn"),
        State::Failed => paint.bad("FAIL"),
        State::Skipped => paint.faint("skip"),
    };
    let time = format!("({} of {})", spoken(step.took), spoken(step.limit));
    let mut text = format!("    {mark} {:<15} {} {}\n", step.name, step.detail, paint.faint(&time));
    for (label, words) in [("cause", &step.cause), ("change", &step.change)] {
        if let Some(words) = words {
            let label = paint.strong(&format!("{label:<15}"));
            text.push_str(&format!("         {label} {words}\n"));
        }
    }
    text
}

fn as_json(reports: &[Report]) -> Value {
    json!({
        "works": reports.iter().all(Report::works),
        "reports": reports.iter().map(|report| json!({
            "uri": report.uri.to_string(),
            "works": report.works(),
            "resolve": step_json(&report.resolve),
            "addresses": report.visits.iter().map(|visit| json!({
                "address": visit.address,
                "steps": visit.steps.iter().map(step_json).collect::<Vec<_>>(),
            })).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
    })
}

fn step_json(step: &Step) -> Value {
    json!({
        "step": step.name,
        "state": match step.state {
            State::Fine => "ok",
            State::Warning => "warning",
            State::Failed => "failed",
            State::Skipped => "skipped",
        },
        "detail": step.detail,
        "cause": step.cause,
        "change": step.change,
        "took_ms": step.took.as_secs_f64() * 1000.0,
        "limit_ms": step.limit.as_secs_f64() * 1000.0,
    })
}
