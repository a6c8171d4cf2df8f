//! Reading a selector.

use super::{Expression, InvalidSelector, MAX_DEPTH, TagLiteral, scalar};
use crate::{
    device::{MAX_TAG_TEXT, is_tag_name},
    lexer::{self, Alphabet, Placed, Tokens, Unreadable},
};

/// Words with a meaning of their own, in any case.
const KEYWORDS: [&str; 4] = ["and", "or", "not", "in"];

pub(super) fn is_keyword(word: &str) -> bool {
    KEYWORDS.iter().any(|keyword| keyword.eq_ignore_ascii_case(word))
}

/// Whether a character may stand in a tag or value without quotes.
pub(super) fn is_bare(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '+' | ':' | '/' | '@')
}

/// A sign is what it is written as.
const SIGNS: [&str; 6] = ["(", ")", ",", "*", "=", "!="];

type Token = lexer::Token<&'static str>;

pub(super) fn parse(text: &str) -> Result<Expression, InvalidSelector> {
    let alphabet = Alphabet {
        signs: &SIGNS.map(|sign| (sign, sign)),
        is_bare,
    };
    let mut reader = Reader {
        tokens: Tokens::of(text, &alphabet)?,
        depth: 0,
    };
    let expression = reader.any_of()?;
    match reader.tokens.next() {
        None => Ok(expression),
        Some(token) => Err(unexpected(token, "`and`, `or` or the end")),
    }
}

impl From<Unreadable> for InvalidSelector {
    fn from(unreadable: Unreadable) -> Self {
        match unreadable {
            Unreadable::OpenQuote { at } => Self::OpenQuote { at },
            Unreadable::Stray { at, found } => Self::Unexpected {
                at,
                expected: "a tag, a value or a sign",
                found: format!("`{found}`"),
            },
        }
    }
}

fn unexpected((at, token): Placed<&'static str>, expected: &'static str) -> InvalidSelector {
    let found = match token {
        Token::Word(word) | Token::Quoted(word) => format!("`{word}`"),
        Token::Sign(sign) => format!("`{sign}`"),
    };
    InvalidSelector::Unexpected { at, expected, found }
}

struct Reader {
    tokens: Tokens<&'static str>,
    depth: usize,
}

impl Reader {
    fn any_of(&mut self) -> Result<Expression, InvalidSelector> {
        let mut parts = Vec::new();
        loop {
            match self.all_of()? {
                Expression::Or(inner) => parts.extend(inner),
                part => parts.push(part),
            }
            if !self.tokens.keyword("or") {
                return Ok(single_or(parts, Expression::Or));
            }
        }
    }

    fn all_of(&mut self) -> Result<Expression, InvalidSelector> {
        let mut parts = Vec::new();
        loop {
            match self.negated()? {
                Expression::And(inner) => parts.extend(inner),
                part => parts.push(part),
            }
            if !self.tokens.keyword("and") {
                return Ok(single_or(parts, Expression::And));
            }
        }
    }

    fn negated(&mut self) -> Result<Expression, InvalidSelector> {
        if self.tokens.keyword("not") {
            let inner = self.deeper(Self::negated)?;
            return Ok(Expression::Not(Box::new(inner)));
        }
        if self.tokens.sign("(") {
            let inner = self.deeper(Self::any_of)?;
            self.expect(")", "`)`")?;
            return Ok(inner);
        }
        if self.tokens.sign("*") {
            return Ok(Expression::Any);
        }
        self.term()
    }

    fn term(&mut self) -> Result<Expression, InvalidSelector> {
        let tag = self.tag()?;
        if self.tokens.sign("=") {
            return Ok(Expression::Is(tag, vec![self.value()?]));
        }
        if self.tokens.sign("!=") {
            let is = Expression::Is(tag, vec![self.value()?]);
            return Ok(Expression::Not(Box::new(is)));
        }
        let not = self.tokens.keyword("not");
        if !self.tokens.keyword("in") {
            return if not {
                Err(self.next_unexpected("`in`"))
            } else {
                Ok(Expression::Has(tag))
            };
        }
        self.expect("(", "`(`")?;
        let mut values = vec![self.value()?];
        while self.tokens.sign(",") {
            values.push(self.value()?);
        }
        self.expect(")", "`,` or `)`")?;
        let is = Expression::Is(tag, values);
        Ok(if not { Expression::Not(Box::new(is)) } else { is })
    }

    fn tag(&mut self) -> Result<String, InvalidSelector> {
        const EXPECTED: &str = "a tag, `not`, `(` or `*`";
        match self.tokens.next() {
            Some((at, Token::Word(word))) if is_keyword(&word) => {
                Err(unexpected((at, Token::Word(word)), EXPECTED))
            }
            Some((_, Token::Word(tag) | Token::Quoted(tag))) if is_tag_name(&tag) => Ok(tag),
            Some((at, Token::Word(_) | Token::Quoted(_))) => Err(InvalidSelector::Tag { at }),
            Some(token) => Err(unexpected(token, EXPECTED)),
            None => Err(self.next_unexpected(EXPECTED)),
        }
    }

    fn value(&mut self) -> Result<TagLiteral, InvalidSelector> {
        let (at, value) = match self.tokens.next() {
            Some((at, Token::Word(word))) if is_keyword(&word) => {
                return Err(unexpected((at, Token::Word(word)), "a value"));
            }
            Some((at, Token::Word(word))) if scalar(&word).is_some() => (at, TagLiteral::Word(word)),
            Some((at, Token::Word(text) | Token::Quoted(text))) => (at, TagLiteral::Text(text)),
            Some(token) => return Err(unexpected(token, "a value")),
            None => return Err(self.next_unexpected("a value")),
        };
        let (TagLiteral::Text(text) | TagLiteral::Word(text)) = &value;
        if text.chars().count() > MAX_TAG_TEXT || text.contains('\0') {
            return Err(InvalidSelector::Value { at });
        }
        Ok(value)
    }

    fn deeper(
        &mut self,
        read: fn(&mut Self) -> Result<Expression, InvalidSelector>,
    ) -> Result<Expression, InvalidSelector> {
        if self.depth >= MAX_DEPTH {
            let at = self.tokens.place();
            return Err(InvalidSelector::TooDeep { at });
        }
        self.depth += 1;
        let expression = read(self);
        self.depth -= 1;
        expression
    }

    fn expect(&mut self, sign: &'static str, expected: &'static str) -> Result<(), InvalidSelector> {
        if self.tokens.sign(sign) {
            Ok(())
        } else {
            Err(self.next_unexpected(expected))
        }
    }

    fn next_unexpected(&mut self, expected: &'static str) -> InvalidSelector {
        let at = self.tokens.place();
        match self.tokens.next() {
            Some(token) => unexpected(token, expected),
            None => InvalidSelector::Unexpected {
                at,
                expected,
                found: "the end".to_owned(),
            },
        }
    }
}

fn single_or(mut parts: Vec<Expression>, many: fn(Vec<Expression>) -> Expression) -> Expression {
    match (parts.len(), parts.pop()) {
        (1, Some(only)) => only,
        (_, last) => {
            parts.extend(last);
            many(parts)
        }
    }
}
