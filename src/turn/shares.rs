//! What each source holds of something that there is only so much of.

use std::collections::HashMap;
use std::net::IpAddr;

use ahash::RandomState;

use super::limits::source_prefix;

/// What a source may hold at most, as a part of what is free: the more is taken the less one may have
/// of it, and some is left for others where a few take what they can.
const SOURCE_PART: usize = 8;
/// The same for a site.
const SITE_PART: usize = 4;

/// How much there is, and who may hold how much of it.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// In all.
    pub all: usize,
    /// One subscriber: an IPv4 address, or one /64 of IPv6.
    pub per_source: usize,
    /// One site: a /48 of IPv6, which has 65,536 subscribers' prefixes and may be one person's.
    pub per_site: usize,
}

/// Which bound leaves no room for one more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Full {
    /// Nothing is left.
    All,
    /// The source, or its site, has its part.
    Source,
}

/// The counts. Both tables have an entry for each that holds something, and so no more than
/// [`Bounds::all`].
#[derive(Debug)]
pub struct Shares {
    bounds: Bounds,
    taken: usize,
    by_source: HashMap<u64, usize, RandomState>,
    by_site: HashMap<u64, usize, RandomState>,
}

impl Shares {
    /// Nobody holds anything. Clients choose the keys, hence a keyed hash.
    #[must_use]
    pub fn new(bounds: Bounds, hasher: RandomState) -> Self {
        let by_site = HashMap::with_hasher(hasher.clone());
        Self { bounds, taken: 0, by_source: HashMap::with_hasher(hasher), by_site }
    }

    /// Gives a source one more.
    ///
    /// # Errors
    /// When it has its part, or nothing is left.
    pub fn take(&mut self, source: IpAddr) -> Result<(), Full> {
        let free = self.bounds.all.saturating_sub(self.taken);
        if free == 0 {
            return Err(Full::All);
        }
        let (own, site) = (source_prefix(source), site_prefix(source));
        let has_part = |held: Option<&usize>, max: usize, part: usize| {
            held.is_some_and(|&held| held >= max.min(free / part))
        };
        let site_has_part = site
            .is_some_and(|site| has_part(self.by_site.get(&site), self.bounds.per_site, SITE_PART));
        if site_has_part || has_part(self.by_source.get(&own), self.bounds.per_source, SOURCE_PART)
        {
            return Err(Full::Source);
        }
        self.taken += 1;
        *self.by_source.entry(own).or_default() += 1;
        if let Some(site) = site {
            *self.by_site.entry(site).or_default() += 1;
        }
        Ok(())
    }

    /// Takes back one that this source was given.
    pub fn give_back(&mut self, source: IpAddr) {
        self.taken = self.taken.saturating_sub(1);
        take_back(&mut self.by_source, source_prefix(source));
        if let Some(site) = site_prefix(source) {
            take_back(&mut self.by_site, site);
        }
    }

    /// Whether nobody holds anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.taken == 0 && self.by_source.is_empty() && self.by_site.is_empty()
    }
}

fn take_back(held: &mut HashMap<u64, usize, RandomState>, key: u64) {
    let Some(count) = held.get_mut(&key) else { return };
    *count -= 1;
    if *count == 0 {
        held.remove(&key);
    }
}

/// The /48 that an IPv6 address lies in. IPv4 has nothing like it that is one person's.
fn site_prefix(source: IpAddr) -> Option<u64> {
    match source {
        IpAddr::V4(_) => None,
        IpAddr::V6(ip) => Some((ip.to_bits() >> 80) as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { all: 1024, per_source: 64, per_site: 256 };

    fn shares() -> Shares {
        Shares::new(BOUNDS, RandomState::with_seeds(1, 2, 3, 4))
    }

    fn v4(last: usize) -> IpAddr {
        IpAddr::from((0xC633_6400 + last as u32).to_be_bytes())
    }

    /// As much as the source gets.
    fn fill(shares: &mut Shares, source: IpAddr) -> usize {
        std::iter::from_fn(|| shares.take(source).ok()).take(BOUNDS.all).count()
    }

    #[test]
    fn a_source_gets_so_many_and_others_are_not_touched() {
        let mut shares = shares();
        assert_eq!(fill(&mut shares, v4(1)), 64);
        assert_eq!(shares.take(v4(1)), Err(Full::Source));
        assert_eq!(shares.take(v4(2)), Ok(()));
        shares.give_back(v4(1));
        assert_eq!(shares.take(v4(1)), Ok(()));
    }

    #[test]
    fn three_times_as_many_sources_as_could_have_all_do_not() {
        let mut shares = shares();
        for greedy in 0..48 {
            fill(&mut shares, v4(greedy));
            assert_eq!(shares.take(v4(1000 + greedy)), Ok(()), "beside {greedy}");
            shares.give_back(v4(1000 + greedy));
        }
    }

    #[test]
    fn one_more_than_there_is_is_refused_and_all_of_it_can_be_had() {
        let mut shares = shares();
        for source in 0..BOUNDS.all {
            assert_eq!(shares.take(v4(source)), Ok(()));
        }
        assert_eq!(shares.take(v4(5000)), Err(Full::All));
        (0..BOUNDS.all).for_each(|source| shares.give_back(v4(source)));
        assert!(shares.is_empty());
        assert_eq!(shares.take(v4(5000)), Ok(()));
    }

    #[test]
    fn prefixes_of_one_ipv6_site_share_its_part() {
        let mut shares = shares();
        let at =
            |site, subscriber, host| IpAddr::from([0x2600, 0, site, subscriber, 0, 0, 0, host]);
        assert_eq!((0..100).filter(|&host| shares.take(at(1, 1, host)).is_ok()).count(), 64);
        let rest: usize = (2..=256).map(|subscriber| fill(&mut shares, at(1, subscriber, 1))).sum();
        // Where it has a quarter of what it leaves free, before it has 256.
        assert_eq!(rest, 205 - 64);
        assert_eq!(shares.take(at(1, 300, 1)), Err(Full::Source));
        assert_eq!(shares.take(at(2, 1, 1)), Ok(()));
    }
}
