//! `hairpin nat`: what do the NATs around this machine do?

use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::Error;
use super::terminal::{Paint, as_bar, runtime, spinner, spoken};
use crate::config::Lifetime;
use crate::probe::nat::{
    self, Kind, Lifetime as BindingLifetime, Method, Options, Outcome, Progress, Trial,
};
use crate::probe::resolve::Host;

const DEFAULT_PORT: u16 = 3478;

/// Find out what the NATs between this machine and a server do, and what it means for WebRTC.
///
/// Asks any RFC 5780 server for mapping and filtering behaviour, hairpinning, kept ports and
/// fragments, over UDP and TCP, IPv4 and IPv6. With a server of one address, less can be known,
/// and the output says what. Exits with 0 where the server answered, and with 1 where it did not.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  hairpin nat
  hairpin nat --server stun.example.org
  hairpin nat --server 192.0.2.7:3479 --lifetime 10m
  hairpin nat --server stun.example.org --json | jq '.results[].type'")]
pub(super) struct Nat {
    /// The server; for all answers one with two addresses, such as hairpin with
    /// `stun.nat_discovery`.
    #[arg(long, value_name = "HOST[:PORT]", default_value = "stun.voip.blackberry.com:3478")]
    server: Host,
    /// Look, too, for how long the NAT remembers an unused port, up to this time (5m unless
    /// given), which is how long the search takes.
    #[arg(long, value_name = "LONGEST", num_args = 0..=1, default_missing_value = "5m")]
    lifetime: Option<Lifetime>,
    /// How long to wait for each answer.
    #[arg(long, default_value = "3s")]
    timeout: Lifetime,
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
}

impl Nat {
    pub(super) fn run(self, out: &mut impl Write) -> Result<(), Error> {
        let runtime = runtime()?;
        let examined = runtime.block_on(self.examine());
        // A look-up that hangs is not waited for.
        runtime.shutdown_background();
        let examined = examined.map_err(Error::Refused)?;
        match self.json {
            true => writeln!(out, "{:#}", self.as_json(&examined))?,
            false => write!(out, "{}", self.as_text(&examined, Paint::for_stdout()))?,
        }
        match examined.iter().any(|(_, outcome)| outcome.as_ref().is_ok_and(has_answered)) {
            true => Ok(()),
            false => Err(Error::Refused(format!("{}: {}", self.server, why_nothing(&examined)))),
        }
    }

    /// One outcome for each family of addresses.
    async fn examine(&self) -> Result<Vec<Examined>, String> {
        let progress = spinner();
        let limit = self.timeout.0;
        progress.set_message(format!("looking up {}, at most {}", self.server, spoken(limit)));
        let addresses = self.server.resolve(DEFAULT_PORT, limit).await?;
        let mut examined = Vec::new();
        for is_ipv6 in [false, true] {
            let of_family = |address: &&SocketAddr| address.is_ipv6() == is_ipv6;
            let Some(server) = addresses.iter().find(of_family) else { continue };
            let options = Options { timeout: limit, lifetime: self.lifetime.map(|it| it.0) };
            let outcome = nat::examine(*server, options, |step| show(&progress, step)).await;
            let outcome = outcome.map_err(|error| match error.kind() {
                ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable => {
                    format!("this machine has no route to {}", server.ip())
                }
                _ => format!("cannot send to {server}: {error}"),
            });
            examined.push((*server, outcome));
        }
        progress.finish_and_clear();
        Ok(examined)
    }

    fn as_text(&self, examined: &[Examined], paint: Paint) -> String {
        let mut text = format!(
            "server       {} (each step waits for {} at most)\n",
            self.server,
            spoken(self.timeout.0)
        );
        for (server, outcome) in examined {
            text.push_str(&format!("\n{}\n", paint.strong(&format!("towards {server}"))));
            match outcome {
                Err(error) => text.push_str(&format!("  {}\n", paint.bad(error))),
                Ok(outcome) => text.push_str(&self.table(outcome, paint)),
            }
        }
        text
    }

    fn table(&self, outcome: &Outcome, paint: Paint) -> String {
        let report = &outcome.report;
        let mut text = String::new();
        let mut row = |name: &str, value: String| {
            text.push_str(&format!("  {name:<12} {value}\n"));
        };
        row("you", addresses(outcome));
        if report.mapped.is_some() {
            row("mapping", said(&report.mapping, paint));
            row("filtering", said(&report.filtering, paint));
            if let Some(hairpinning) = report.hairpinning {
                row("hairpinning", hairpinning.to_string());
            }
            row("fragments", report.fragments.to_string());
            row("lifetime", self.lifetime_text(outcome));
        }
        row("over TCP", tcp_text(outcome, paint));
        if is_about_the_network(outcome) {
            row("type", paint.strong(report.kind.name()));
            row("for WebRTC", report.kind.meaning().to_owned());
        }
        text
    }

    fn lifetime_text(&self, outcome: &Outcome) -> String {
        match outcome.lifetime {
            None if self.lifetime.is_none() => "not looked for (--lifetime)".to_owned(),
            None => "nothing to forget without a NAT".to_owned(),
            Some(lifetime) => lifetime_words(lifetime),
        }
    }

    fn as_json(&self, examined: &[Examined]) -> Value {
        json!({
            "server": self.server.to_string(),
            "timeout_seconds": self.timeout.0.as_secs(),
            "results": examined.iter().map(|(server, outcome)| match outcome {
                Err(error) => json!({ "address": server, "error": error }),
                Ok(outcome) => outcome_json(outcome),
            }).collect::<Vec<_>>(),
        })
    }
}

type Examined = (SocketAddr, Result<Outcome, String>);

fn has_answered(outcome: &Outcome) -> bool {
    outcome.report.mapped.is_some() || outcome.tcp.is_ok()
}

/// A server that is not there says nothing about the network.
fn is_about_the_network(outcome: &Outcome) -> bool {
    has_answered(outcome) && !outcome.refused
}

/// The line for standard error where nobody answered.
fn why_nothing(examined: &[Examined]) -> String {
    let reasons = examined.iter().map(|(server, outcome)| match outcome {
        Err(error) => error.clone(),
        Ok(outcome) if outcome.refused => format!("nothing listens on UDP port {}", server.port()),
        Ok(_) => format!("no answer from {server}, neither over UDP nor over TCP"),
    });
    reasons.collect::<Vec<_>>().join("; ")
}

fn show(progress: &ProgressBar, step: Progress) {
    match step {
        Progress::Trial(trial, limit) => {
            progress.set_message(format!("{}, at most {}", words(trial), spoken(limit)));
        }
        Progress::Tcp(limit) => progress.set_message(format!("TCP, at most {}", spoken(limit))),
        Progress::Lifetime(elapsed, total) => {
            let message = format!("waiting until the NAT forgets, at most {}", spoken(total));
            progress.set_message(message);
            as_bar(progress, total);
            progress.set_position(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
        }
    }
}

fn words(trial: Trial) -> &'static str {
    match trial {
        Trial::Connect => "is there UDP",
        Trial::Second => "a second port",
        Trial::FilterBoth | Trial::FilterPort | Trial::Control => "who may send to us",
        Trial::MapAddress | Trial::MapBoth => "who are we to others",
        Trial::Hairpin => "hairpinning",
        Trial::Fragments => "fragments",
    }
}

fn said<T: ToString, E: ToString>(behaviour: &Result<T, E>, paint: Paint) -> String {
    match behaviour {
        Ok(behaviour) => behaviour.to_string(),
        Err(unknown) => paint.warning(&format!("not known: {}", unknown.to_string())),
    }
}

fn addresses(outcome: &Outcome) -> String {
    let report = &outcome.report;
    let ports = match report.preserves_ports {
        None => "",
        Some(true) => ", ports are kept",
        Some(false) => ", ports are changed",
    };
    match report.mapped {
        None if outcome.refused => {
            format!("{}; the server's host says that nobody listens there", report.local)
        }
        None => format!("{}; no answer over UDP", report.local),
        Some(mapped) if mapped == report.local => format!("{mapped}, not translated"),
        Some(mapped) => format!("{} seen as {mapped}{ports}", report.local),
    }
}

fn tcp_text(outcome: &Outcome, paint: Paint) -> String {
    match &outcome.tcp {
        Err(error) => paint.warning(&format!("not known: {error}")),
        Ok(tcp) if tcp.local == tcp.mapped => "not translated".to_owned(),
        Ok(tcp) => format!("seen as {}; mapping {}", tcp.mapped, said(&tcp.mapping, paint)),
    }
}

fn lifetime_words(lifetime: BindingLifetime) -> String {
    match lifetime {
        BindingLifetime::Between(least, None, _) => {
            format!("an unused port is remembered for {} at least", spoken(least))
        }
        BindingLifetime::Between(Duration::ZERO, Some(below), _) => {
            format!("an unused port is forgotten within {}", spoken(below))
        }
        BindingLifetime::Between(least, Some(below), _) => {
            format!("an unused port is forgotten between {} and {}", spoken(least), spoken(below))
        }
        BindingLifetime::NotMeasurable => {
            "not known: the server has no RESPONSE-PORT, and the NAT keeps port numbers".to_owned()
        }
        BindingLifetime::NoAnswer => "not known: the server stopped answering".to_owned(),
    }
}

fn outcome_json(outcome: &Outcome) -> Value {
    let report = &outcome.report;
    let kind = is_about_the_network(outcome).then_some(report.kind);
    json!({
        "address": report.server,
        "local": report.local,
        "mapped": report.mapped,
        "type": kind.map(Kind::id),
        "name": kind.map(Kind::name),
        "meaning": kind.map(Kind::meaning),
        "refused": outcome.refused,
        "mapping": known(&report.mapping),
        "mapping_unknown": unknown(&report.mapping),
        "filtering": known(&report.filtering),
        "filtering_unknown": unknown(&report.filtering),
        "preserves_ports": report.preserves_ports,
        "hairpinning": report.hairpinning.map(|it| it.to_string()),
        "fragments": report.fragments.to_string(),
        "lifetime": outcome.lifetime.map(lifetime_json),
        "tcp": match &outcome.tcp {
            Err(error) => json!({ "error": error }),
            Ok(tcp) => json!({
                "local": tcp.local,
                "mapped": tcp.mapped,
                "mapping": known(&tcp.mapping),
                "mapping_unknown": unknown(&tcp.mapping),
            }),
        },
    })
}

fn lifetime_json(lifetime: BindingLifetime) -> Value {
    match lifetime {
        BindingLifetime::Between(least, below, method) => json!({
            "at_least_seconds": least.as_secs_f64(),
            "below_seconds": below.map(|below| below.as_secs_f64()),
            "method": match method {
                Method::ResponsePort => "response-port",
                Method::Remapped => "remapped",
            },
        }),
        BindingLifetime::NotMeasurable | BindingLifetime::NoAnswer => {
            json!({ "error": lifetime_words(lifetime) })
        }
    }
}

fn known<T: ToString, E>(behaviour: &Result<T, E>) -> Option<String> {
    behaviour.as_ref().ok().map(T::to_string)
}

fn unknown<T, E: ToString>(behaviour: &Result<T, E>) -> Option<String> {
    behaviour.as_ref().err().map(E::to_string)
}
