//! Where this codec and the oracles differ on purpose: the whole list.
//!
//! A difference that no rule of its kind explains fails a test; so does a rule whose example
//! shows no difference, and a message that a refusing rule applies to and that is accepted.

use crate::view::{FINGERPRINT, MI, MI2, Oracle, Verdict, View, ours, theirs};
use crate::wire::{Scan, Wire};

/// What the oracles of a rule do otherwise.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Effect {
    /// They accept a message that we refuse.
    Refused,
    /// They come to another verdict on the integrity.
    Integrity,
    /// They do not see the fingerprint that we check.
    Fingerprint,
    /// They show an attribute under another type.
    Type,
}

#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) name: &'static str,
    pub(crate) reason: &'static str,
    pub(crate) oracles: &'static [Oracle],
    pub(crate) effect: Effect,
    pub(crate) applies: fn(&Scan<'_>) -> bool,
    pub(crate) example: fn() -> Wire,
}

const BOTH: &[Oracle] = &[Oracle::Stun, Oracle::StunTypes];
const STUN: &[Oracle] = &[Oracle::Stun];
const STUN_TYPES: &[Oracle] = &[Oracle::StunTypes];

pub(crate) const RULES: [Rule; 11] = [
    Rule {
        name: "exact length",
        reason: "a datagram is one message (RFC 8489 §5): stray bytes are forged or lost framing",
        oracles: BOTH,
        effect: Effect::Refused,
        applies: |scan| scan.bytes.len() > 20 + scan.announced,
        example: || {
            let mut wire = Wire::new(1);
            wire.0.extend([0x80, 0x22, 0, 0]);
            wire
        },
    },
    Rule {
        name: "length in fours",
        reason: "RFC 8489 §5; stun-types stops reading before the remainder shows",
        oracles: STUN_TYPES,
        effect: Effect::Refused,
        applies: |scan| !scan.announced.is_multiple_of(4),
        example: || {
            let mut wire = Wire::new(1).integrity().with(0x8022, b"");
            wire.0.extend([0, 0]);
            let body = wire.0.len() - 20;
            wire.announce(body)
        },
    },
    Rule {
        name: "top bits",
        reason: "RFC 8489 §5: they tell STUN from ChannelData and RTP (RFC 7983)",
        oracles: STUN,
        effect: Effect::Refused,
        applies: |scan| scan.bytes[0] >= 0x40,
        example: || Wire::new(0xC001),
    },
    Rule {
        name: "attributes walked to the end",
        reason: "stun-types stops behind the integrity; a message with an overrun is damaged",
        oracles: STUN_TYPES,
        effect: Effect::Refused,
        applies: |scan| scan.overrun,
        example: || {
            let mut wire = Wire::new(1).integrity().with(0x8022, b"").with(0x8022, b"four");
            let at = wire.0.len() - 5;
            wire.0[at] = 5;
            wire
        },
    },
    Rule {
        name: "fingerprint checked",
        reason: "RFC 8489 §7.3; stun leaves it to the caller, stun-types stops before this one",
        oracles: BOTH,
        effect: Effect::Refused,
        applies: |scan| {
            scan.position(FINGERPRINT).is_some_and(|index| {
                let (at, _, value) = scan.attributes[index];
                let covered = Wire(scan.bytes[..at].to_vec()).announce(at + 8 - 20).0;
                value != (crc32fast::hash(&covered) ^ 0x5354_554E).to_be_bytes()
            })
        },
        example: || Wire::new(1).integrity().with(0x8022, b"").with(FINGERPRINT, b"nope"),
    },
    Rule {
        name: "fingerprint last",
        reason: "RFC 8489 §14.7: it must be the last attribute",
        oracles: BOTH,
        effect: Effect::Refused,
        applies: |scan| {
            let last = scan.attributes.len().saturating_sub(1);
            scan.position(FINGERPRINT).is_some_and(|index| index < last)
        },
        example: || Wire::new(1).fingerprint().with(0x8022, b"late"),
    },
    Rule {
        name: "no truncated HMAC",
        reason: "RFC 8489 §14.6 leaves truncation to the usage, and TURN does not allow it",
        oracles: STUN_TYPES,
        effect: Effect::Integrity,
        applies: |scan| {
            scan.position(MI2).is_some_and(|index| scan.attributes[index].2.len() != 32)
        },
        example: || Wire::new(1).integrity_sha256(16),
    },
    Rule {
        name: "MI2 anywhere behind MI decides",
        reason: "RFC 8489 §14.5 ignores what follows MI except MI2; stun-types wants it adjacent",
        oracles: STUN_TYPES,
        effect: Effect::Integrity,
        applies: |scan| match (scan.position(MI), scan.position(MI2)) {
            (Some(mi), Some(mi2)) => mi2 > mi + 1,
            _ => false,
        },
        example: || Wire::new(1).integrity().with(0x8022, b"").integrity_sha256(32),
    },
    Rule {
        name: "MI2 known",
        reason: "stun 0.17 is of RFC 5389 and looks at MI only",
        oracles: STUN,
        effect: Effect::Integrity,
        applies: |scan| scan.position(MI2).is_some(),
        example: || Wire::new(1).integrity_sha256(32),
    },
    Rule {
        name: "fingerprint behind unseen attributes counts",
        reason: "it covers them as well; stun-types stops at the first attribute behind MI",
        oracles: STUN_TYPES,
        effect: Effect::Fingerprint,
        applies: |scan| {
            let tail = scan.tail();
            tail.last() == Some(&FINGERPRINT)
                && ![&[MI][..], &[MI2], &[MI, MI2], &[]].contains(&&tail[..tail.len() - 1])
        },
        example: || Wire::new(1).integrity().with(0x8022, b"").fingerprint(),
    },
    Rule {
        name: "0x8020 is not XOR-MAPPED-ADDRESS",
        reason: "a draft's number that stun still translates for MS-TURN; IANA has it reserved",
        oracles: STUN,
        effect: Effect::Type,
        applies: |scan| scan.position(0x8020).is_some(),
        example: || Wire::new(1).with(0x8020, b""),
    },
];

/// Whether both oracles read `bytes` as we do, or a rule says why not.
pub(crate) fn agree(bytes: &[u8]) -> Result<(), String> {
    let ours = ours(bytes);
    let refusing = RULES
        .iter()
        .filter(|rule| rule.effect == Effect::Refused)
        .find(|rule| Scan::of(bytes).is_some_and(|scan| (rule.applies)(&scan)));
    if let (Some(_), Some(rule)) = (&ours, refusing) {
        return Err(format!("accepted against the rule \"{}\"", rule.name));
    }
    for oracle in BOTH {
        let theirs = theirs(*oracle, bytes);
        let differences = match (&ours, &theirs) {
            (Some(ours), Some(theirs)) => differences(ours, theirs)?,
            (Some(_), None) => return Err(format!("{oracle:?} refuses what we accept")),
            (None, Some(_)) => vec![Effect::Refused],
            (None, None) => vec![],
        };
        for effect in differences {
            if !explained(*oracle, effect, bytes) {
                return Err(format!("{effect:?}\nours: {ours:?}\n{oracle:?}: {theirs:?}"));
            }
        }
    }
    Ok(())
}

fn explained(oracle: Oracle, effect: Effect, bytes: &[u8]) -> bool {
    let mut rules = RULES.iter().filter(|rule| rule.effect == effect);
    Scan::of(bytes).is_some_and(|scan| {
        rules.any(|rule| rule.oracles.contains(&oracle) && (rule.applies)(&scan))
    })
}

/// What needs a rule. Type, id and values of attributes never may differ.
fn differences(ours: &View, theirs: &View) -> Result<Vec<Effect>, String> {
    let head = |view: &View| (view.method, view.class, view.id);
    let values = |view: &View| view.attributes.iter().map(|one| one.1.clone()).collect::<Vec<_>>();
    let kinds = |view: &View| view.attributes.iter().map(|one| one.0).collect::<Vec<_>>();
    if head(ours) != head(theirs) || values(ours) != values(theirs) {
        return Err(format!("ours: {ours:?}\ntheirs: {theirs:?}"));
    }
    let mut found = vec![];
    if kinds(ours) != kinds(theirs) {
        let translated =
            kinds(ours).into_iter().map(|kind| if kind == 0x8020 { 0x20 } else { kind });
        if translated.collect::<Vec<_>>() != kinds(theirs) {
            return Err(format!("ours: {ours:?}\ntheirs: {theirs:?}"));
        }
        found.push(Effect::Type);
    }
    if ours.integrity != theirs.integrity {
        found.push(Effect::Integrity);
    }
    if ours.fingerprint != theirs.fingerprint {
        found.push(Effect::Fingerprint);
    }
    Ok(found)
}

#[test]
fn every_rule_has_an_example_that_shows_the_difference() {
    for rule in &RULES {
        let bytes = (rule.example)().0;
        assert!((rule.applies)(&Scan::of(&bytes).unwrap()), "{}", rule.name);
        assert!(!rule.reason.is_empty(), "{}", rule.name);
        let ours = ours(&bytes);
        assert_eq!(ours.is_none(), rule.effect == Effect::Refused, "{}", rule.name);
        for &oracle in rule.oracles {
            let theirs = theirs(oracle, &bytes).expect(rule.name);
            let found = ours
                .as_ref()
                .map_or(vec![Effect::Refused], |ours| differences(ours, &theirs).expect(rule.name));
            assert!(found.contains(&rule.effect), "{} {oracle:?}: {found:?}", rule.name);
        }
        agree(&bytes).expect(rule.name);
    }
}

#[test]
fn truncated_hmac_is_wrong_for_us_and_right_for_stun_types() {
    for length in [16, 20, 24, 28] {
        let bytes = Wire::new(1).integrity_sha256(length).0;
        assert_eq!(ours(&bytes).unwrap().integrity, Verdict::Wrong, "{length} bytes");
        let theirs = theirs(Oracle::StunTypes, &bytes).unwrap().integrity;
        assert!(matches!(theirs, Verdict::Right(_)), "{length} bytes");
    }
}
