//! The values an operator writes as text: each type can hold nothing invalid, and says how it
//! would like to be written.

use std::fmt::{self, Display};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

use crate::turn::auth::Password;

/// Durations are added to clocks and travel in 32-bit LIFETIME attributes: a year is safe in both.
const MAX_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);
/// Ports below it belong to services of the system.
const MIN_RELAY_PORT: u16 = 1024;

/// How long something lives: from a second to a year.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Lifetime(pub(crate) Duration);

/// How long to wait: up to a year, or not at all.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Wait(pub(crate) Duration);

/// Bytes per second; 0 is no limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Bandwidth(pub(crate) u64);

/// The ports of relay sockets.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Ports(pub(super) RangeInclusive<u16>);

/// Where to listen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Listen(pub(super) SocketAddr);

/// A local address that peers can be reached from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Host(pub(super) IpAddr);

/// A range of peers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Network(pub(super) IpNet);

/// A whole number that is not negative.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Count(pub(super) u32);

/// Names of files: one, or a list of them, or none, which is written as "".
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct FileNames(pub(super) Vec<String>);

impl FromStr for Lifetime {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(secs) = seconds(text) else {
            return Err(format!("{text:?} is not a duration; write it like \"10m\" or \"1h30m\""));
        };
        let duration = Duration::from_secs(secs);
        if duration.is_zero() || duration > MAX_LIFETIME {
            return Err(format!("{text:?} is out of bounds: from \"1s\" to \"8760h\""));
        }
        Ok(Self(duration))
    }
}

impl FromStr for Wait {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match seconds(text) {
            Some(0) => Ok(Self(Duration::ZERO)),
            _ => text.parse().map(|Lifetime(duration)| Self(duration)),
        }
    }
}

/// Reads hours, minutes and seconds, each at most once and in this order.
fn seconds(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total = 0u64;
    for (unit, factor) in [('h', 3600), ('m', 60), ('s', 1)] {
        let Some((number, after)) = rest.split_once(unit) else { continue };
        total = total.checked_add(digits(number)?.checked_mul(factor)?)?;
        rest = after;
    }
    (rest.is_empty() && !text.is_empty()).then_some(total)
}

/// `parse` alone would take a sign.
fn digits(text: &str) -> Option<u64> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

impl Display for Lifetime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secs = self.0.as_secs();
        for (value, unit) in [(secs / 3600, 'h'), (secs / 60 % 60, 'm'), (secs % 60, 's')] {
            if value > 0 {
                write!(f, "{value}{unit}")?;
            }
        }
        Ok(())
    }
}

impl Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.is_zero() {
            true => f.write_str("0s"),
            false => Lifetime(self.0).fmt(f),
        }
    }
}

impl FromStr for Bandwidth {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(bits) = bits_per_second(text) else {
            return Err(format!(
                "{text:?} is not a bandwidth; write it like \"5Mbit/s\" or \"800kbit/s\", \
                 or \"0\" for no limit"
            ));
        };
        // A few bits per second would round to 0, which means no limit at all.
        if (1..8).contains(&bits) {
            return Err(format!("{text:?} is less than one byte per second"));
        }
        Ok(Self(bits / 8))
    }
}

fn bits_per_second(text: &str) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    let amount = text.strip_suffix("bit/s")?;
    let (number, factor) = match amount.as_bytes().last()? {
        b'k' => (&amount[..amount.len() - 1], 1_000),
        b'M' => (&amount[..amount.len() - 1], 1_000_000),
        b'G' => (&amount[..amount.len() - 1], 1_000_000_000),
        _ => (amount, 1),
    };
    digits(number)?.checked_mul(factor)
}

impl Display for Bandwidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self.0.saturating_mul(8);
        let scale = [(1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")]
            .into_iter()
            .find(|(factor, _)| bits >= *factor && bits.is_multiple_of(*factor));
        let (factor, prefix) = scale.unwrap_or((1, ""));
        write!(f, "{}{prefix}bit/s", bits / factor)
    }
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers =
            text.split_once('-').and_then(|(low, high)| Some((digits(low)?, digits(high)?)));
        let Some((low, high)) = numbers else {
            return Err(format!("{text:?} is not a port range; write it like \"49152-65535\""));
        };
        let (Ok(low), Ok(high)) = (u16::try_from(low), u16::try_from(high)) else {
            return Err(format!("{text:?} goes beyond the last port, 65535"));
        };
        if low > high {
            return Err(format!("{text:?} runs backwards; write the lower port first"));
        }
        if low < MIN_RELAY_PORT {
            return Err(format!("{text:?} starts below port {MIN_RELAY_PORT}"));
        }
        Ok(Self(low..=high))
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            not_mapped(text, address.ip())?;
            return Ok(Self(address));
        }
        let port = text.rsplit_once(':').and_then(|(_, port)| digits(port));
        if port.is_some_and(|port| port > u64::from(u16::MAX)) {
            return Err(format!("{text:?} has a port beyond the last one, 65535"));
        }
        Err(format!(
            "{text:?} is not an address with a port; write it like \"0.0.0.0:3478\" or \"[::]:3478\""
        ))
    }
}

impl FromStr for Host {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Ok(address) = text.parse::<IpAddr>() else {
            return Err(format!(
                "{text:?} is not an IP address; write it like \"192.0.2.7\" or \"2001:db8::7\""
            ));
        };
        if address.is_unspecified() || address.is_multicast() {
            return Err(format!("{text:?} is not the address of one interface"));
        }
        not_mapped(text, address)?;
        Ok(Self(address))
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Ok(network) = text.parse::<IpNet>() else {
            return Err(format!(
                "{text:?} is not a CIDR; write it like \"10.0.0.0/8\" or \"fd00::/8\""
            ));
        };
        if network != network.trunc() {
            return Err(format!(
                "{text:?} has bits set behind its prefix; write {:?}",
                network.trunc().to_string()
            ));
        }
        not_mapped(text, network.addr())?;
        Ok(Self(network))
    }
}

/// Everything here is compared by family, and with addresses in their shortest form: IPv4 written
/// as IPv6 would never match.
fn not_mapped(text: &str, address: IpAddr) -> Result<(), String> {
    if address.to_canonical() != address {
        return Err(format!("{text:?} is IPv4 written as IPv6; write it as IPv4"));
    }
    Ok(())
}

/// Reads a value from text, with its own words for what is wrong.
macro_rules! from_text {
    ($($name:ty),+) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    )+};
}
from_text!(
    Lifetime,
    Wait,
    Bandwidth,
    Ports,
    Listen,
    Host,
    Network,
    super::alternates::Other,
    super::external::External,
    crate::logging::Filter
);

impl<'de> Deserialize<'de> for Password {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Takes the parser's string over, or makes the only copy.
        String::deserialize(deserializer).map(Self::from)
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WholeNumber;

        impl Visitor<'_> for WholeNumber {
            type Value = Count;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number from 0 on")
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Count, E> {
                let count = u32::try_from(value);
                count.map(Count).map_err(|_| {
                    E::custom(format!("{value} is not a whole number from 0 to {}", u32::MAX))
                })
            }
        }

        deserializer.deserialize_i64(WholeNumber)
    }
}

impl<'de> Deserialize<'de> for FileNames {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;

        impl<'de> Visitor<'de> for OneOrMany {
            type Value = FileNames;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a file, or a list of names")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<FileNames, E> {
                Ok(FileNames(if name.is_empty() { Vec::new() } else { vec![name.to_owned()] }))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<FileNames, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = list.next_element::<String>()? {
                    if name.is_empty() {
                        return Err(A::Error::custom("a name in a list must not be empty"));
                    }
                    names.push(name);
                }
                Ok(FileNames(names))
            }
        }

        deserializer.deserialize_any(OneOrMany)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_shown_alike() {
        for (text, secs) in
            [("30s", 30), ("10m", 600), ("1h", 3600), ("1h30m", 5400), ("1h1s", 3601)]
        {
            let lifetime: Lifetime = text.parse().unwrap();
            assert_eq!(lifetime.0.as_secs(), secs);
            assert_eq!(lifetime.to_string(), text);
        }
    }

    #[test]
    fn bandwidth_is_bits_outside_and_bytes_inside() {
        for (text, bytes) in
            [("5Mbit/s", 625_000), ("800kbit/s", 100_000), ("1Gbit/s", 125_000_000), ("64bit/s", 8)]
        {
            let bandwidth: Bandwidth = text.parse().unwrap();
            assert_eq!(bandwidth.0, bytes);
            assert_eq!(bandwidth.to_string(), text);
        }
        assert_eq!("0".parse(), Ok(Bandwidth(0)));
    }

    #[test]
    fn a_wait_may_be_none() {
        for text in ["0s", "10m", "1h30m"] {
            assert_eq!(text.parse::<Wait>().unwrap().to_string(), text);
        }
        for text in ["", "0", "8761h", "-1s"] {
            assert!(is_refused::<Wait>(text), "{text:?}");
        }
    }

    fn is_refused<T: FromStr>(text: &str) -> bool {
        text.parse::<T>().is_err()
    }

    #[test]
    fn durations_that_are_none_are_refused() {
        for text in [
            "",
            "0",
            "0s",
            "10",
            "m",
            "10 m",
            "10M",
            "-1s",
            "+1s",
            "1m1h",
            "1s1s",
            "1.5h",
            "8761h",
            "18446744073709551615h",
            "18446744073709551616s",
            "10 parsecs",
            "１m",
        ] {
            assert!(is_refused::<Lifetime>(text), "{text:?}");
        }
    }

    #[test]
    fn bandwidths_that_are_none_are_refused() {
        for text in [
            "",
            "5",
            "5M",
            "5MB/s",
            "bit/s",
            "Mbit/s",
            "-1bit/s",
            "7bit/s",
            "1.5Mbit/s",
            "18446744073709551615Gbit/s",
            "é",
            "ébit/s",
        ] {
            assert!(is_refused::<Bandwidth>(text), "{text:?}");
        }
        assert!(is_refused::<Bandwidth>("0bit/s ") && !is_refused::<Bandwidth>("0bit/s"));
    }

    #[test]
    fn port_ranges_that_are_none_are_refused() {
        for text in [
            "",
            "-",
            "-5000",
            "5000",
            "5000-",
            "5000-6000-7000",
            "+5000-6000",
            "6000-5000",
            "1023-5000",
            "0-65535",
            "49152-65536",
            "a-b",
        ] {
            assert!(is_refused::<Ports>(text), "{text:?}");
        }
        assert_eq!("1024-65535".parse(), Ok(Ports(1024..=65535)));
        assert_eq!("5000-5000".parse(), Ok(Ports(5000..=5000)));
    }

    #[test]
    fn addresses_are_of_the_family_they_seem_to_be_of() {
        assert!(is_refused::<Listen>("[::ffff:192.0.2.1]:3478"));
        assert!(is_refused::<Host>("::ffff:192.0.2.1"));
        assert!(!is_refused::<Listen>("[2001:db8::1]:3478"));
        assert!(!is_refused::<Host>("2001:db8::1"));
    }

    #[test]
    fn networks_that_would_never_match_are_refused() {
        for text in ["10.0.0.1/8", "10.0.0.0", "10.0.0.0/33", "::ffff:10.0.0.0/104", "fd00::1/8"] {
            assert!(is_refused::<Network>(text), "{text:?}");
        }
        for text in ["10.0.0.0/8", "0.0.0.0/0", "::/0", "fd00::/8", "127.0.0.1/32"] {
            assert!(!is_refused::<Network>(text), "{text:?}");
        }
    }
}
