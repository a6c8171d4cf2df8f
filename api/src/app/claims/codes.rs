//! User codes: what a device shows and its owner enters (RFC 8628 section 6.1).

/// Letters of a user code: RFC 8628 section 6.1 proposes these twenty, of which none is taken for another and no
/// word can be made.
const ALPHABET: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";
/// Letters in a user code: 34.5 bits, with few attempts allowed.
const CODE_LENGTH: usize = 8;

/// A new user code, each letter as likely as any other.
pub(super) fn user_code() -> Result<String, getrandom::Error> {
    let mut code = String::with_capacity(CODE_LENGTH);
    while code.len() < CODE_LENGTH {
        let mut bytes = [0_u8; 16];
        getrandom::fill(&mut bytes)?;
        // 240 is the largest multiple of 20 that a byte holds.
        let letters = bytes
            .iter()
            .filter(|byte| **byte < 240)
            .filter_map(|byte| ALPHABET.get(usize::from(byte % 20)));
        for letter in letters {
            if code.len() < CODE_LENGTH {
                code.push(char::from(*letter));
            }
        }
    }
    Ok(code)
}

/// A code as it is shown: in two halves.
pub(super) fn shown(code: &str) -> String {
    match code.split_at_checked(CODE_LENGTH / 2) {
        Some((first, second)) => format!("{first}-{second}"),
        None => code.to_owned(),
    }
}

/// A code as it was entered, without what people add (RFC 8628 section 6.1); `None` for what can't be one.
pub(super) fn entered(text: &str) -> Option<String> {
    if text.len() > 64 {
        return None;
    }
    let code: String = text
        .chars()
        .filter(|c| c.is_ascii_alphanumeric())
        .map(|c| c.to_ascii_uppercase())
        .collect();
    let well = code.len() == CODE_LENGTH && code.bytes().all(|b| ALPHABET.contains(&b));
    well.then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_of_the_alphabet_and_differ() {
        let codes: std::collections::BTreeSet<String> = (0..1_000).map(|_| user_code().unwrap()).collect();
        assert!(codes.len() >= 999, "34.5 bits of entropy: {}", codes.len());
        for code in &codes {
            assert_eq!(entered(code).as_deref(), Some(code.as_str()));
            assert_eq!(entered(&shown(code)).as_ref(), Some(code));
        }
        let letters: std::collections::BTreeSet<char> = codes.iter().flat_map(|code| code.chars()).collect();
        assert_eq!(letters.len(), ALPHABET.len(), "every letter comes up");
    }

    #[test]
    fn a_code_is_taken_as_people_write_it() {
        assert_eq!(shown("BDWPHQPK"), "BDWP-HQPK");
        for text in ["BDWP-HQPK", "bdwphqpk", " bdwp hqpk ", "B-D-W-P-H-Q-P-K"] {
            assert_eq!(entered(text).as_deref(), Some("BDWPHQPK"), "{text}");
        }
        for text in [
            "",
            "BDWP",
            "BDWP-HQPKX",
            "ADWP-HQPK",
            "BDWP-HQP1",
            &"-".repeat(100),
        ] {
            assert_eq!(entered(text), None, "{text}");
        }
    }
}
