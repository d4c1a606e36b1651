//! What realms, user names and passwords may be made of: OpaqueString (RFC 8265 §4.2), which
//! RFC 8489 §9.2.2 prepares all three with.
//!
//! A client prepares what a person types, and makes its keys of the outcome. A value that would
//! change on the way, or never arrive, is one that nobody could log in with, so it is refused here.

use icu_normalizer::ComposingNormalizerBorrowed;
use icu_properties::props::{DefaultIgnorableCodePoint, GeneralCategory, GeneralCategoryGroup};
use icu_properties::{CodePointMapData, CodePointSetData};

/// What text is made of, in the FreeformClass (RFC 8264 §4.3.1): letters, digits, marks, symbols,
/// punctuation; and spaces, which are looked at apart.
const TEXT: GeneralCategoryGroup = GeneralCategoryGroup::Letter
    .union(GeneralCategoryGroup::Number)
    .union(GeneralCategoryGroup::Mark)
    .union(GeneralCategoryGroup::Symbol)
    .union(GeneralCategoryGroup::Punctuation);

/// Whether OpaqueString leaves `text` as it is. Rules about neighbours are not asked about: the few
/// characters that have some (RFC 8264 §9.6, §9.7) pass.
pub(super) fn check(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("must not be empty".to_owned());
    }
    if text.chars().any(char::is_control) {
        return Err("must not contain control characters".to_owned());
    }
    for char in text.chars().filter(|char| !char.is_ascii()) {
        let category = CodePointMapData::<GeneralCategory>::new().get(char);
        if category == GeneralCategory::SpaceSeparator {
            return Err(format!("{} is a space that clients make U+0020 of", name(char)));
        }
        if !TEXT.contains(category) && !is_join_control(char) || is_disallowed(char) {
            return Err(format!("{} is not allowed in it (RFC 8265)", name(char)));
        }
    }
    if !ComposingNormalizerBorrowed::new_nfc().is_normalized(text) {
        return Err("must be in Unicode's composed form, NFC, as clients send it".to_owned());
    }
    Ok(())
}

/// Without what it looks like, as it may look like nothing.
fn name(char: char) -> String {
    format!("U+{:04X}", u32::from(char))
}

/// Zero width joiner and non-joiner, which some scripts need.
fn is_join_control(char: char) -> bool {
    matches!(char, '\u{200C}' | '\u{200D}')
}

/// Invisible, or a part of a Hangul syllable that has a character of its own (RFC 8264 §9.9, §9.13).
fn is_disallowed(char: char) -> bool {
    let is_ignorable = CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(char);
    let old_hangul =
        matches!(char, '\u{1100}'..='\u{11FF}' | '\u{A960}'..='\u{A97C}' | '\u{D7B0}'..='\u{D7FB}');
    is_ignorable && !is_join_control(char) || old_hangul
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_any_script_passes() {
        for text in [
            "a",
            "correct horse battery staple",
            "π",
            "Richard 🎩",
            "マトリックス",
            "TheMatrIX",
            "Ⅸ ª",
            "été",
            "क्\u{200D}ष",
            "::<>\"'\\",
        ] {
            assert_eq!(check(text), Ok(()), "{text:?}");
        }
    }

    #[test]
    fn what_clients_would_change_is_refused() {
        for (text, problem) in [
            ("", "must not be empty"),
            ("a\tb", "must not contain control characters"),
            ("a\u{85}b", "must not contain control characters"),
            ("foo\u{1680}bar", "U+1680 is a space that clients make U+0020 of"),
            ("a\u{A0}b", "U+00A0 is a space that clients make U+0020 of"),
            ("a\u{3000}b", "U+3000 is a space that clients make U+0020 of"),
            ("e\u{301}", "must be in Unicode's composed form, NFC, as clients send it"),
            ("\u{212B}", "must be in Unicode's composed form, NFC, as clients send it"),
        ] {
            assert_eq!(check(text), Err(problem.to_owned()), "{text:?}");
        }
    }

    #[test]
    fn what_clients_may_not_send_is_refused() {
        // A soft hyphen, a byte order mark, a line separator, a private, an unassigned and no
        // character, a variation selector, a filler, and jamo.
        for char in [
            '\u{AD}', '\u{FEFF}', '\u{2028}', '\u{E000}', '\u{378}', '\u{FFFF}', '\u{FE0F}',
            '\u{3164}', '\u{1100}', '\u{202E}',
        ] {
            let problem = format!("{} is not allowed in it (RFC 8265)", name(char));
            assert_eq!(check(&format!("a{char}")), Err(problem));
        }
    }
}
