//! Literals and comments of C99 that say what they are given, and end where they should.

use std::fmt::Write;

/// The longest comment, in characters.
const MAX_COMMENT: usize = 500;

/// A string literal, in ASCII: everything else in octal escapes, which end after three digits whatever follows. A
/// question mark is escaped too, so that no trigraph (section 5.2.1.1) comes about.
pub(super) fn string(text: &str) -> String {
    let mut literal = String::from("\"");
    for byte in text.bytes() {
        match byte {
            b'"' => literal.push_str("\\\""),
            b'\\' => literal.push_str("\\\\"),
            b'?' => literal.push_str("\\?"),
            b' '..=b'~' => literal.push(char::from(byte)),
            _ => {
                // Writing to a text can't fail.
                let _ = write!(literal, "\\{byte:03o}");
            }
        }
    }
    literal.push('"');
    literal
}

/// A text for inside a comment: on one line, without what begins or ends a comment, and without what shows it in
/// another order than it stands in.
pub(super) fn comment(text: &str) -> String {
    let mut safe = String::new();
    let mut previous = ' ';
    for c in text.chars().take(MAX_COMMENT) {
        let c = if unprintable(c) { ' ' } else { c };
        let joins = matches!((previous, c), ('*', '/') | ('/', '*') | ('?', '?'));
        if joins {
            safe.push(' ');
        }
        if !(c == ' ' && previous == ' ') {
            safe.push(c);
        }
        previous = c;
    }
    safe.trim().to_owned()
}

/// Control and format characters, and line ends of Unicode.
fn unprintable(c: char) -> bool {
    let invisible = matches!(
        c,
        '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff0}'..='\u{ffff}'
            | '\u{e0000}'..='\u{10ffff}'
    );
    c.is_control() || invisible
}

/// A whole number as it stands in C for `int` and shorter types; the smallest has no literal of its own.
pub(super) fn int(value: i128) -> String {
    match value {
        i128::MIN..=-2_147_483_648 => format!("({} - 1)", value.saturating_add(1)),
        -2_147_483_647..0 => format!("({value})"),
        _ => value.to_string(),
    }
}

/// A whole number of a type of `stdint.h`: `INT64_C(5)`.
pub(super) fn sized(macro_name: &str, value: i128) -> String {
    if value == i128::from(i64::MIN) {
        return format!("(-{macro_name}({}) - 1)", i64::MAX);
    }
    if value < 0 {
        format!("(-{macro_name}({}))", value.unsigned_abs())
    } else {
        format!("{macro_name}({value})")
    }
}

/// A number of the type `double`.
pub(super) fn double(value: f64) -> String {
    let literal = format!("{value:?}");
    if value.is_sign_negative() {
        format!("({literal})")
    } else {
        literal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_ascii_and_end_where_they_should() {
        for (text, literal) in [
            ("home", r#""home""#),
            ("a\"b\\c", r#""a\"b\\c""#),
            ("??/", r#""\?\?/""#),
            ("°C1", r#""\302\260C1""#),
            ("\n\t", r#""\012\011""#),
        ] {
            assert_eq!(string(text), literal, "{text}");
        }
    }

    #[test]
    fn comments_stay_on_their_line_and_inside() {
        for (text, safe) in [
            ("a */ b /* c", "a * / b / * c"),
            ("**//**", "** // **"),
            ("*/*/", "* / * /"),
            ("one\ntwo\r\nthree\u{2028}four", "one two three four"),
            ("??/ ???", "? ?/ ? ? ?"),
            ("\u{202e}abc", "abc"),
            ("Température °C", "Température °C"),
        ] {
            assert_eq!(comment(text), safe, "{text}");
        }
        assert_eq!(comment("**//**").matches("*/").count(), 0);
        assert_eq!(comment(&"x".repeat(600)).len(), MAX_COMMENT);
    }

    #[test]
    fn numbers_at_the_edge_of_their_type() {
        assert_eq!(int(-5), "(-5)");
        assert_eq!(int(i128::from(i32::MIN)), "(-2147483647 - 1)");
        assert_eq!(
            sized("INT64_C", i128::from(i64::MIN)),
            "(-INT64_C(9223372036854775807) - 1)"
        );
        assert_eq!(sized("INT64_C", -5), "(-INT64_C(5))");
        assert_eq!(sized("UINT32_C", 4_294_967_295), "UINT32_C(4294967295)");
        assert_eq!(
            (double(-0.5), double(10.0), double(1e300)),
            ("(-0.5)".into(), "10.0".into(), "1e300".into())
        );
    }
}
