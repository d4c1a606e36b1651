//! The highest rate without loss: doubles until packets are lost, then halves the gap.

/// Trials in all.
const TRIALS_MAX: u32 = 40;
/// The gap at which the search ends: 5 %.
const GAP: f64 = 1.05;
/// A rate counts as too high when this many trials in a row have lost: one alone may be a hiccup
/// of the machine.
const LOSING_TRIALS: u32 = 2;

/// What a trial at one rate has shown.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Trial {
    /// Everything arrived.
    Lossless,
    /// Packets were lost.
    Lossy,
    /// The generator could not send at this rate: it says nothing about the server.
    TooSlow,
}

/// What was found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Found {
    /// The highest rate that was lossless; 0 if none was.
    pub rate: u64,
    /// It ended there because the generator could not do more.
    pub limited_by_generator: bool,
    /// How many trials it took.
    pub trials: u32,
}

/// Where to search.
#[derive(Clone, Copy, Debug)]
pub struct Search {
    /// The first rate.
    pub from: u64,
    /// The highest rate.
    pub to: u64,
}

impl Search {
    /// Searches, with `trial` to try a rate.
    ///
    /// # Errors
    /// Those of `trial`.
    pub fn run<E>(self, mut trial: impl FnMut(u64) -> Result<Trial, E>) -> Result<Found, E> {
        let mut found = Found { rate: 0, limited_by_generator: false, trials: 0 };
        let mut too_high = None;
        let mut rate = self.from.clamp(1, self.to);
        while found.trials < TRIALS_MAX {
            match settle(rate, &mut found.trials, &mut trial)? {
                Trial::Lossless => found.rate = rate,
                failed => {
                    too_high = Some(rate);
                    found.limited_by_generator = failed == Trial::TooSlow;
                }
            }
            let Some(next) = next(found.rate, too_high, self.to) else { break };
            rate = next;
        }
        Ok(found)
    }
}

/// Tries a rate until it is clear.
fn settle<E>(
    rate: u64,
    trials: &mut u32,
    trial: &mut impl FnMut(u64) -> Result<Trial, E>,
) -> Result<Trial, E> {
    let mut outcome = Trial::Lossless;
    for _ in 0..LOSING_TRIALS {
        *trials += 1;
        outcome = trial(rate)?;
        if outcome == Trial::Lossless {
            break;
        }
    }
    Ok(outcome)
}

/// The rate to try next; none when it is found.
fn next(lossless: u64, too_high: Option<u64>, max: u64) -> Option<u64> {
    match too_high {
        None if lossless >= max => None,
        None => Some(lossless.saturating_mul(2).min(max)),
        Some(high) if lossless == 0 => (high > 1).then_some(high / 2),
        Some(high) if high as f64 <= lossless as f64 * GAP => None,
        Some(high) => Some(lossless + (high - lossless) / 2).filter(|&rate| rate > lossless),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(from: u64, trial: impl Fn(u64) -> Trial) -> Found {
        Search { from, to: 1_000_000 }.run(|rate| Ok::<_, ()>(trial(rate))).unwrap()
    }

    fn limited_at(limit: u64) -> impl Fn(u64) -> Trial {
        move |rate| if rate <= limit { Trial::Lossless } else { Trial::Lossy }
    }

    #[test]
    fn a_limit_is_found_to_five_percent_from_above_and_below() {
        for limit in [1, 7, 1000, 123_456, 999_999] {
            for from in [1, 1000, 1_000_000] {
                let found = search(from, limited_at(limit));
                assert!(found.rate <= limit, "{limit} from {from}: {found:?}");
                assert!(
                    found.rate as f64 * GAP + 1.0 >= limit as f64,
                    "{limit} from {from}: {found:?}"
                );
                assert!(!found.limited_by_generator);
            }
        }
    }

    #[test]
    fn one_hiccup_does_not_end_the_search() {
        let mut trials = 0;
        let found = Search { from: 1000, to: 64_000 }.run(|rate| {
            trials += 1;
            let hiccup = trials % 2 == 1;
            Ok::<_, ()>(if hiccup || rate > 50_000 { Trial::Lossy } else { Trial::Lossless })
        });
        assert!(found.unwrap().rate > 47_000, "{found:?}");
    }

    #[test]
    fn a_slow_generator_is_not_taken_for_a_slow_server() {
        let found =
            search(1000, |rate| if rate < 90_000 { Trial::Lossless } else { Trial::TooSlow });
        assert!(found.limited_by_generator && (85_000..90_000).contains(&found.rate), "{found:?}");
    }

    #[test]
    fn the_bounds_are_kept() {
        assert_eq!(search(1000, limited_at(u64::MAX)).rate, 1_000_000);
        let nothing = search(1000, limited_at(0));
        assert_eq!((nothing.rate, nothing.trials <= TRIALS_MAX), (0, true));
    }
}
