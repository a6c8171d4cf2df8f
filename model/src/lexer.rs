//! Words, quoted texts and signs: what selectors and conditions are made of. Each has a grammar and errors of its own.

use std::{iter::Peekable, str::Chars, vec::IntoIter};

/// A piece of a text. `S` is the grammar's signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Token<S> {
    /// Characters that need no quotes.
    Word(String),
    /// What stood in quotes, double or single, without them and without the backslashes that escape.
    Quoted(String),
    /// A sign of the grammar.
    Sign(S),
}

/// A token, and where it begins: in characters from 1.
pub(crate) type Placed<S> = (usize, Token<S>);

/// What the pieces of a text may be.
pub(crate) struct Alphabet<'a, S> {
    /// The signs as they are written; one that another begins with comes after it.
    pub(crate) signs: &'a [(&'a str, S)],
    /// Whether a character may stand in a word.
    pub(crate) is_bare: fn(char) -> bool,
}

/// Why a text can't be taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// The quote there is never closed.
    OpenQuote { at: usize },
    /// That character belongs to nothing.
    Stray { at: usize, found: char },
}

/// The tokens that are left of a text.
pub(crate) struct Tokens<S> {
    rest: Peekable<IntoIter<Placed<S>>>,
    /// The position behind the last character.
    end: usize,
}

impl<S: Copy + PartialEq> Tokens<S> {
    /// Takes a text apart.
    pub(crate) fn of(text: &str, alphabet: &Alphabet<'_, S>) -> Result<Self, Unreadable> {
        let mut cursor = Cursor {
            rest: text.chars(),
            at: 1,
        };
        let mut tokens = Vec::new();
        loop {
            cursor.take_while(char::is_whitespace);
            let at = cursor.at;
            let token = if let Some(sign) = cursor.sign(alphabet.signs) {
                Token::Sign(sign)
            } else if let Some(word) = cursor.take_while(alphabet.is_bare) {
                Token::Word(word)
            } else {
                match cursor.next() {
                    None => break,
                    Some(quote @ ('"' | '\'')) => {
                        Token::Quoted(cursor.quoted(quote).ok_or(Unreadable::OpenQuote { at })?)
                    }
                    Some(found) => return Err(Unreadable::Stray { at, found }),
                }
            };
            tokens.push((at, token));
        }
        Ok(Self {
            rest: tokens.into_iter().peekable(),
            end: cursor.at,
        })
    }

    /// Where the next token begins, or the text ends.
    pub(crate) fn place(&mut self) -> usize {
        let end = self.end;
        self.rest.peek().map_or(end, |(at, _)| *at)
    }

    /// Whether the next token is some sign.
    pub(crate) fn is_before_sign(&mut self) -> bool {
        matches!(self.rest.peek(), Some((_, Token::Sign(_))))
    }

    /// Passes over this word, if it is next; in any case.
    pub(crate) fn keyword(&mut self, keyword: &str) -> bool {
        let is =
            |(_, token): &Placed<S>| matches!(token, Token::Word(word) if word.eq_ignore_ascii_case(keyword));
        self.rest.next_if(is).is_some()
    }

    /// Passes over this sign, if it is next.
    pub(crate) fn sign(&mut self, sign: S) -> bool {
        let is = |(_, token): &Placed<S>| *token == Token::Sign(sign);
        self.rest.next_if(is).is_some()
    }
}

impl<S> Iterator for Tokens<S> {
    type Item = Placed<S>;

    fn next(&mut self) -> Option<Placed<S>> {
        self.rest.next()
    }
}

/// A text in double quotes, which reads back the same.
pub(crate) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

struct Cursor<'t> {
    rest: Chars<'t>,
    /// Where the rest begins.
    at: usize,
}

impl Cursor<'_> {
    fn next(&mut self) -> Option<char> {
        let next = self.rest.next()?;
        self.at += 1;
        Some(next)
    }

    fn sign<S: Copy>(&mut self, signs: &[(&str, S)]) -> Option<S> {
        let (written, sign) = signs
            .iter()
            .find(|(written, _)| self.rest.as_str().starts_with(written))?;
        for _ in written.chars() {
            self.next();
        }
        Some(*sign)
    }

    /// As many such characters as there are, if there is one.
    fn take_while(&mut self, is: impl Fn(char) -> bool) -> Option<String> {
        let taken: String = self.rest.clone().take_while(|c| is(*c)).collect();
        for _ in taken.chars() {
            self.next();
        }
        (!taken.is_empty()).then_some(taken)
    }

    /// Up to the closing quote; `None` if there is none.
    fn quoted(&mut self, quote: char) -> Option<String> {
        let mut text = String::new();
        loop {
            match self.next()? {
                end if end == quote => return Some(text),
                '\\' => text.push(self.next()?),
                c => text.push(c),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALPHABET: Alphabet<'_, u8> = Alphabet {
        signs: &[(">=", 1), (">", 2), ("!=", 3)],
        is_bare: char::is_alphanumeric,
    };

    fn read(text: &str) -> Result<Vec<Placed<u8>>, Unreadable> {
        Tokens::of(text, &ALPHABET).map(Iterator::collect)
    }

    #[test]
    fn places_are_in_characters_and_the_longer_sign_goes_first() {
        let word = |text: &str| Token::Word(text.to_owned());
        assert_eq!(
            read("é>= ø>'a\\'b'"),
            Ok(vec![
                (1, word("é")),
                (2, Token::Sign(1)),
                (5, word("ø")),
                (6, Token::Sign(2)),
                (7, Token::Quoted("a'b".to_owned())),
            ])
        );
        assert_eq!(read(" \t"), Ok(Vec::new()));
        assert_eq!(read("a 'b"), Err(Unreadable::OpenQuote { at: 3 }));
        assert_eq!(read("'b\\"), Err(Unreadable::OpenQuote { at: 1 }));
        assert_eq!(read("ab !x"), Err(Unreadable::Stray { at: 4, found: '!' }));
    }

    #[test]
    fn the_end_is_behind_the_last_character() {
        let mut tokens = Tokens::of("é ", &ALPHABET).unwrap();
        assert_eq!(tokens.place(), 1);
        assert!(tokens.keyword("é"));
        assert_eq!(tokens.place(), 3);
        assert_eq!(tokens.next(), None);
    }

    proptest! {
        #[test]
        fn what_is_quoted_reads_back(text in ".*") {
            prop_assert_eq!(read(&quoted(&text)), Ok(vec![(1, Token::Quoted(text))]));
        }
    }
}
