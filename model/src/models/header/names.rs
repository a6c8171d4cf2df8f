//! Identifiers: letters, digits and underscores that neither C nor C++ nor another name here has taken.

use std::collections::BTreeSet;

/// The longest part that an identifier takes over from a text, in bytes.
const MAX_PART: usize = 64;

/// Words that a field can't be called: those of C99, C11, C23 and C++, and macros that compilers and the usual headers
/// define in lower case.
#[rustfmt::skip]
const WORDS: &[&str] = &[
    "alignas", "alignof", "and", "and_eq", "asm", "assert", "auto", "bitand", "bitor", "bool", "break",
    "case", "catch", "char", "char16_t", "char32_t", "char8_t", "class", "co_await", "co_return", "co_yield",
    "compl", "complex", "concept", "const", "const_cast", "consteval", "constexpr", "constinit", "continue",
    "decltype", "default", "delete", "do", "double", "dynamic_cast", "else", "enum", "environ", "errno",
    "explicit", "export", "extern", "false", "far", "final", "float", "for", "fortran", "friend", "goto",
    "i386", "if", "imaginary", "import", "inline", "int", "interrupt", "linux", "long", "max", "min",
    "module", "mutable", "namespace", "near", "new", "noexcept", "noreturn", "not", "not_eq", "nullptr",
    "operator", "or", "or_eq", "override", "private", "protected", "public", "register", "reinterpret_cast",
    "requires", "restrict", "return", "short", "signed", "sizeof", "static", "static_assert", "static_cast",
    "stderr", "stdin", "stdout", "struct", "switch", "template", "this", "thread_local", "throw", "true",
    "try", "typedef", "typeid", "typename", "typeof", "typeof_unqual", "union", "unix", "unsigned", "using",
    "virtual", "void", "volatile", "wchar_t", "while", "xor", "xor_eq",
];

/// Names that are taken.
#[derive(Debug, Default)]
pub(super) struct Names(BTreeSet<String>);

impl Names {
    /// The wanted name, or the first free one after it: `a`, `a_2`, `a_3`.
    pub(super) fn claim(&mut self, wanted: String) -> String {
        let name = self.free(wanted);
        self.0.insert(name.clone());
        name
    }

    /// The same for a name that stands alone, and so must be no reserved word.
    pub(super) fn claim_word(&mut self, wanted: String) -> String {
        let name = self.preview(wanted);
        self.0.insert(name.clone());
        name
    }

    /// What [`Self::claim_word`] would give.
    pub(super) fn preview(&self, wanted: String) -> String {
        let reserved = WORDS.contains(&wanted.as_str());
        self.free(if reserved { format!("{wanted}_") } else { wanted })
    }

    fn free(&self, wanted: String) -> String {
        if !self.0.contains(&wanted) {
            return wanted;
        }
        let numbered = (2..usize::MAX).map(|n| format!("{wanted}_{n}"));
        let mut free = numbered.filter(|name| !self.0.contains(name));
        free.next().unwrap_or(wanted)
    }
}

/// `reportInterval` as `REPORT_INTERVAL`.
pub(super) fn upper(text: &str) -> String {
    words(text).to_ascii_uppercase()
}

/// `reportInterval` as `report_interval`.
pub(super) fn lower(text: &str) -> String {
    words(text).to_ascii_lowercase()
}

/// The words of a text with underscores between; `X` for a text without a letter or digit of ASCII.
fn words(text: &str) -> String {
    let mut words = String::new();
    let mut characters = text.chars().peekable();
    let mut previous: Option<char> = None;
    while let Some(c) = characters.next() {
        if !c.is_ascii_alphanumeric() {
            previous = None;
            continue;
        }
        let begins = match previous {
            None => !words.is_empty(),
            Some(before) if c.is_ascii_uppercase() => {
                // HTTPPort is HTTP and Port.
                let next_is_lower = characters.peek().is_some_and(char::is_ascii_lowercase);
                !before.is_ascii_uppercase() || next_is_lower
            }
            Some(_) => false,
        };
        if begins {
            words.push('_');
        }
        words.push(c);
        if words.len() >= MAX_PART {
            break;
        }
        previous = Some(c);
    }
    if words.is_empty() { "X".to_owned() } else { words }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_become_words() {
        for (text, name) in [
            ("reportInterval", "report_interval"),
            ("HTTPPort", "http_port"),
            ("a.b-c_d", "a_b_c_d"),
            ("ip4Address", "ip4_address"),
            ("ABC", "abc"),
            ("°C", "c"),
            ("ü", "x"),
            ("", "x"),
            ("--a--", "a"),
        ] {
            assert_eq!(lower(text), name, "{text}");
            assert_eq!(upper(text), name.to_uppercase(), "{text}");
        }
        assert_eq!(lower(&"a".repeat(300)).len(), MAX_PART);
    }

    #[test]
    fn no_name_is_given_twice_and_none_is_reserved() {
        let mut names = Names::default();
        assert_eq!(names.claim("a".into()), "a");
        assert_eq!(names.claim("a".into()), "a_2");
        assert_eq!(names.claim("a_2".into()), "a_2_2");
        assert_eq!(names.claim_word("default".into()), "default_");
        assert_eq!(names.claim_word("default".into()), "default__2");
    }
}
