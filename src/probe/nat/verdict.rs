//! What the replies mean: RFC 4787's terms, the classic name, and what follows for WebRTC.

use std::fmt::{self, Display};
use std::net::SocketAddr;

use super::discovery::{Facts, Reply, Trial};

/// Whether one local port is one and the same to everybody: RFC 4787 §4.1.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mapping {
    /// One mapped address for all destinations.
    EndpointIndependent,
    /// Another one for each destination address.
    AddressDependent,
    /// Another one for each destination address and port.
    AddressAndPortDependent,
}

/// Who may send to a mapped address: RFC 4787 §5.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Filtering {
    /// Everybody.
    EndpointIndependent,
    /// The addresses that were sent to.
    AddressDependent,
    /// The addresses and ports that were sent to.
    AddressAndPortDependent,
}

/// Why a behaviour could not be told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unknown {
    /// The server has no OTHER-ADDRESS.
    NoSecondAddress,
    /// The server's OTHER-ADDRESS is none that could serve.
    FalseSecondAddress(SocketAddr),
    /// The server's other address does not answer.
    SilentSecondAddress(SocketAddr),
    /// The server answers from the same address whatever it was asked for.
    IgnoresChange,
    /// The server refuses CHANGE-REQUEST with this code.
    RefusesChange(u16),
    /// The server's answers from elsewhere do not even come where they must be let in.
    LosesChange,
    /// The server did not answer.
    NoAnswer,
}

/// What becomes of datagrams to a mapped address behind the same NAT: RFC 4787 §6.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Hairpinning {
    /// They arrive, from the sender's mapped address, as they should.
    Works,
    /// They arrive, but from the sender's private address.
    WithInternalSource,
    /// They do not arrive.
    Fails,
    /// There is no NAT.
    NotNeeded,
}

/// Whether datagrams longer than a packet come through.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fragments {
    /// Both ways.
    BothWays,
    /// To the server; it pads no answers, so the other way is not known.
    Outward,
    /// Not both ways.
    Lost,
    /// Not tried.
    Unknown,
}

/// The classic names of RFC 3489 §5.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// No UDP to the server and back.
    Blocked,
    /// Neither NAT nor firewall.
    Open,
    /// No NAT, but a firewall that lets in only what was asked for.
    Firewall,
    /// No NAT; whether a firewall is not known.
    NotTranslated,
    /// Endpoint-independent mapping and filtering.
    FullCone,
    /// Endpoint-independent mapping, address-dependent filtering.
    RestrictedCone,
    /// Endpoint-independent mapping, address- and port-dependent filtering.
    PortRestrictedCone,
    /// Endpoint-independent mapping; the filtering is not known.
    Cone,
    /// Any other mapping.
    Symmetric,
    /// A NAT; more is not known.
    SomeNat,
}

/// All that is known of the way to a server.
#[derive(Clone, Debug)]
pub struct Report {
    /// The server.
    pub server: SocketAddr,
    /// The local address.
    pub local: SocketAddr,
    /// What it is to the server; none where nothing was answered.
    pub mapped: Option<SocketAddr>,
    /// The mapping.
    pub mapping: Result<Mapping, Unknown>,
    /// The filtering.
    pub filtering: Result<Filtering, Unknown>,
    /// Whether mapped ports are the local ones, on both sockets; none without a NAT.
    pub preserves_ports: Option<bool>,
    /// Hairpinning; none where it could not be tried.
    pub hairpinning: Option<Hairpinning>,
    /// Fragments.
    pub fragments: Fragments,
    /// The classic name.
    pub kind: Kind,
}

impl Report {
    /// The meaning of what has been seen.
    #[must_use]
    pub fn of(facts: &Facts) -> Self {
        let mapping = mapping(facts);
        let filtering = filtering(facts);
        Self {
            server: facts.server,
            local: facts.locals[0],
            mapped: facts.mapped(Trial::Connect),
            mapping,
            filtering,
            preserves_ports: preserves_ports(facts),
            hairpinning: hairpinning(facts),
            fragments: fragments(facts),
            kind: kind(facts, mapping, filtering),
        }
    }
}

impl Mapping {
    /// From what a port is to an address, to another address, and to another port there:
    /// RFC 5780 §4.3.
    #[must_use]
    pub fn of(first: SocketAddr, to_address: SocketAddr, to_both: Option<SocketAddr>) -> Self {
        match to_both {
            _ if to_address == first => Self::EndpointIndependent,
            Some(to_both) if to_both == to_address => Self::AddressDependent,
            _ => Self::AddressAndPortDependent,
        }
    }
}

fn mapping(facts: &Facts) -> Result<Mapping, Unknown> {
    let first = facts.mapped(Trial::Connect).ok_or(Unknown::NoAnswer)?;
    if facts.is_translated() == Some(false) {
        return Ok(Mapping::EndpointIndependent);
    }
    let other = second_address(facts)?;
    let to_address = facts.mapped(Trial::MapAddress).ok_or(Unknown::SilentSecondAddress(other))?;
    Ok(Mapping::of(first, to_address, facts.mapped(Trial::MapBoth)))
}

fn filtering(facts: &Facts) -> Result<Filtering, Unknown> {
    if facts.mapped(Trial::Connect).is_none() {
        return Err(Unknown::NoAnswer);
    }
    let other = second_address(facts)?;
    if changed(facts, Trial::FilterBoth, |from| from.ip() == other.ip())? {
        return Ok(Filtering::EndpointIndependent);
    }
    if changed(facts, Trial::FilterPort, |from| from.port() == other.port())? {
        return Ok(Filtering::AddressDependent);
    }
    match facts.reply(Trial::Control) {
        Some(Reply::Silence) => Err(Unknown::LosesChange),
        _ => Ok(Filtering::AddressAndPortDependent),
    }
}

/// Whether an answer came in from where it was asked for.
fn changed(
    facts: &Facts,
    trial: Trial,
    is_other: impl Fn(SocketAddr) -> bool,
) -> Result<bool, Unknown> {
    match facts.reply(trial) {
        Some(Reply::Answer { from, .. }) if is_other(from) => Ok(true),
        Some(Reply::Answer { .. }) => Err(Unknown::IgnoresChange),
        Some(Reply::Refused(code)) => Err(Unknown::RefusesChange(code)),
        Some(Reply::Silence) | None => Ok(false),
    }
}

fn second_address(facts: &Facts) -> Result<SocketAddr, Unknown> {
    let claimed = facts.claimed_other().ok_or(Unknown::NoSecondAddress)?;
    facts.other().ok_or(Unknown::FalseSecondAddress(claimed))
}

fn preserves_ports(facts: &Facts) -> Option<bool> {
    if !facts.is_translated()? {
        return None;
    }
    let same = |mapped: SocketAddr, local: SocketAddr| mapped.port() == local.port();
    let first = same(facts.mapped(Trial::Connect)?, facts.locals[0]);
    Some(first && facts.mapped(Trial::Second).is_none_or(|it| same(it, facts.locals[1])))
}

fn hairpinning(facts: &Facts) -> Option<Hairpinning> {
    if !facts.is_translated()? {
        return Some(Hairpinning::NotNeeded);
    }
    match facts.reply(Trial::Hairpin)? {
        Reply::Answer { from, .. } if facts.locals.contains(&from) => {
            Some(Hairpinning::WithInternalSource)
        }
        Reply::Answer { .. } => Some(Hairpinning::Works),
        Reply::Refused(_) | Reply::Silence => Some(Hairpinning::Fails),
    }
}

fn fragments(facts: &Facts) -> Fragments {
    match facts.reply(Trial::Fragments) {
        Some(Reply::Answer { padded: true, .. }) => Fragments::BothWays,
        // Whoever complains about PADDING has received it.
        Some(Reply::Answer { .. } | Reply::Refused(_)) => Fragments::Outward,
        Some(Reply::Silence) => Fragments::Lost,
        None => Fragments::Unknown,
    }
}

fn kind(
    facts: &Facts,
    mapping: Result<Mapping, Unknown>,
    filtering: Result<Filtering, Unknown>,
) -> Kind {
    let Some(translated) = facts.is_translated() else { return Kind::Blocked };
    match (translated, mapping, filtering) {
        (false, _, Ok(Filtering::EndpointIndependent)) => Kind::Open,
        (false, _, Ok(_)) => Kind::Firewall,
        (false, _, Err(_)) => Kind::NotTranslated,
        (true, Err(_), _) => Kind::SomeNat,
        (true, Ok(Mapping::EndpointIndependent), filtering) => match filtering {
            Ok(Filtering::EndpointIndependent) => Kind::FullCone,
            Ok(Filtering::AddressDependent) => Kind::RestrictedCone,
            Ok(Filtering::AddressAndPortDependent) => Kind::PortRestrictedCone,
            Err(_) => Kind::Cone,
        },
        (true, Ok(Mapping::AddressDependent | Mapping::AddressAndPortDependent), _) => {
            Kind::Symmetric
        }
    }
}

impl Kind {
    /// The name by which people know it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Blocked => "UDP blocked",
            Self::Open => "open, no NAT",
            Self::Firewall => "symmetric UDP firewall, no NAT",
            Self::NotTranslated => "no NAT; whether there is a firewall is not known",
            Self::FullCone => "full cone NAT",
            Self::RestrictedCone => "restricted cone NAT",
            Self::PortRestrictedCone => "port-restricted cone NAT",
            Self::Cone => "cone NAT; how restricted is not known",
            Self::Symmetric => "symmetric NAT",
            Self::SomeNat => "a NAT; which kind is not known",
        }
    }

    /// The same for programs.
    #[must_use]
    pub fn id(self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::Open => "open",
            Self::Firewall => "firewall",
            Self::NotTranslated => "not-translated",
            Self::FullCone => "full-cone",
            Self::RestrictedCone => "restricted-cone",
            Self::PortRestrictedCone => "port-restricted-cone",
            Self::Cone => "cone",
            Self::Symmetric => "symmetric",
            Self::SomeNat => "unknown",
        }
    }

    /// What follows for WebRTC, in a sentence.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Blocked => {
                "WebRTC works only through a TURN server that is reached over TCP or TLS."
            }
            Self::Open => {
                "Every peer that has UDP reaches this machine directly, without STUN or TURN."
            }
            Self::Firewall | Self::PortRestrictedCone => {
                "Most peers connect directly with STUN; those behind symmetric NATs will need the relay."
            }
            Self::NotTranslated => {
                "Most peers connect directly; behind a firewall, those with symmetric NATs will need \
                 the relay."
            }
            Self::FullCone => "Every peer that has UDP connects directly, with STUN alone.",
            Self::RestrictedCone => {
                "Nearly every peer that has UDP connects directly, with STUN alone."
            }
            Self::Cone => {
                "Most peers connect directly with STUN; some of those behind symmetric NATs will need \
                 the relay."
            }
            Self::Symmetric => {
                "Peers behind symmetric or port-restricted NATs will need the relay."
            }
            Self::SomeNat => {
                "Some peers may need the relay; a server with two addresses could tell."
            }
        }
    }
}

impl Display for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EndpointIndependent => "endpoint-independent",
            Self::AddressDependent => "address-dependent",
            Self::AddressAndPortDependent => "address- and port-dependent",
        })
    }
}

impl Display for Filtering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EndpointIndependent => "endpoint-independent",
            Self::AddressDependent => "address-dependent",
            Self::AddressAndPortDependent => "address- and port-dependent",
        })
    }
}

impl Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSecondAddress => {
                f.write_str("the server has no second address (no OTHER-ADDRESS, RFC 5780)")
            }
            Self::FalseSecondAddress(other) => {
                write!(f, "the server's second address is no other public one: {other}")
            }
            Self::SilentSecondAddress(other) => {
                write!(f, "no answer from the server's second address, {}", other.ip())
            }
            Self::IgnoresChange => f.write_str("the server ignores CHANGE-REQUEST"),
            Self::RefusesChange(code) => write!(f, "the server refuses CHANGE-REQUEST: {code}"),
            Self::LosesChange => {
                f.write_str("the server's answers from its second address never come")
            }
            Self::NoAnswer => f.write_str("no answer"),
        }
    }
}

impl Display for Hairpinning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Works => "works",
            Self::WithInternalSource => "arrives, but from the private address",
            Self::Fails => "does not work",
            Self::NotNeeded => "not needed without a NAT",
        })
    }
}

impl Display for Fragments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BothWays => "come through both ways",
            Self::Outward => "reach the server; it sends none",
            Self::Lost => "are lost",
            Self::Unknown => "not tried",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each with its name, what programs call it, and who will need the relay.
    const KINDS: [(Kind, &str, &str, &str); 10] = [
        (Kind::Blocked, "UDP blocked", "blocked", "only through a TURN server"),
        (Kind::Open, "open, no NAT", "open", "Every peer that has UDP reaches this machine"),
        (
            Kind::Firewall,
            "symmetric UDP firewall, no NAT",
            "firewall",
            "those behind symmetric NATs will need the relay",
        ),
        (
            Kind::NotTranslated,
            "no NAT; whether there is a firewall is not known",
            "not-translated",
            "behind a firewall, those with symmetric NATs will need the relay",
        ),
        (Kind::FullCone, "full cone NAT", "full-cone", "Every peer that has UDP connects directly"),
        (
            Kind::RestrictedCone,
            "restricted cone NAT",
            "restricted-cone",
            "Nearly every peer that has UDP connects directly",
        ),
        (
            Kind::PortRestrictedCone,
            "port-restricted cone NAT",
            "port-restricted-cone",
            "those behind symmetric NATs will need the relay",
        ),
        (
            Kind::Cone,
            "cone NAT; how restricted is not known",
            "cone",
            "some of those behind symmetric NATs will need the relay",
        ),
        (
            Kind::Symmetric,
            "symmetric NAT",
            "symmetric",
            "Peers behind symmetric or port-restricted NATs will need the relay",
        ),
        (
            Kind::SomeNat,
            "a NAT; which kind is not known",
            "unknown",
            "Some peers may need the relay",
        ),
    ];

    #[test]
    fn each_kind_has_its_classic_name_and_a_meaning() {
        for (kind, name, id, meaning) in KINDS {
            assert_eq!((kind.name(), kind.id()), (name, id));
            let said = kind.meaning();
            assert!(said.contains(meaning), "{kind:?}: {said}");
            let dots = said.matches('.').count();
            assert!(said.ends_with('.') && dots == 1, "{kind:?}: one sentence: {said}");
        }
    }
}
