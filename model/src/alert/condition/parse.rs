//! Reading a condition.

use super::{Comparison, Condition, InvalidCondition, Literal, MAX_COMPARISONS, Operator, Subject};
use crate::{
    alert::span::Span,
    lexer::{self, Alphabet, Tokens, Unreadable},
    telemetry::is_metric_name,
};

/// The longest text that a value may be compared with, in bytes.
const MAX_TEXT: usize = 256;

/// Words with a meaning of their own, in any case.
const KEYWORDS: [&str; 9] = [
    "no",
    "telemetry",
    "offline",
    "settings",
    "pending",
    "and",
    "for",
    "clear",
    "true",
];

pub(super) fn is_keyword(word: &str) -> bool {
    word.eq_ignore_ascii_case("false") || KEYWORDS.iter().any(|keyword| keyword.eq_ignore_ascii_case(word))
}

const ALPHABET: Alphabet<'_, Operator> = Alphabet {
    signs: &[
        (">=", Operator::AtLeast),
        (">", Operator::Above),
        ("<=", Operator::AtMost),
        ("<", Operator::Below),
        ("!=", Operator::Unequal),
        ("==", Operator::Equal),
        ("=", Operator::Equal),
    ],
    is_bare,
};

type Token = lexer::Token<Operator>;

type Placed = lexer::Placed<Operator>;

pub(super) fn parse(text: &str) -> Result<Condition, InvalidCondition> {
    let mut reader = Reader(Tokens::of(text, &ALPHABET)?);
    let subject = reader.subject()?;
    let hold = reader.hold(&subject)?;
    Ok(Condition { subject, hold })
}

fn is_bare(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '+')
}

impl From<Unreadable> for InvalidCondition {
    fn from(unreadable: Unreadable) -> Self {
        match unreadable {
            Unreadable::OpenQuote { at } => Self::OpenQuote { at },
            Unreadable::Stray { at, found } => Self::Unexpected {
                at,
                expected: "a metric, a value or an operator",
                found: format!("`{found}`"),
            },
        }
    }
}

struct Reader(Tokens<Operator>);

impl Reader {
    fn subject(&mut self) -> Result<Subject, InvalidCondition> {
        const EXPECTED: &str = "a metric, `no`, `offline` or `settings pending`";
        let (at, first) = self.next(EXPECTED)?;
        // Before an operator every word is a metric.
        let compared = self.0.is_before_sign();
        match first {
            Token::Word(word) if !compared && word.eq_ignore_ascii_case("offline") => Ok(Subject::Offline),
            Token::Word(word) if !compared && word.eq_ignore_ascii_case("settings") => {
                match self.next("`pending`")? {
                    (_, Token::Word(word)) if word.eq_ignore_ascii_case("pending") => {
                        Ok(Subject::SettingsPending)
                    }
                    other => Err(unexpected(other, "`pending`")),
                }
            }
            Token::Word(word) if !compared && word.eq_ignore_ascii_case("no") => {
                match self.next("`telemetry` or a metric")? {
                    (_, Token::Word(word)) if word.eq_ignore_ascii_case("telemetry") => {
                        Ok(Subject::Silence(None))
                    }
                    (at, Token::Word(name) | Token::Quoted(name)) => {
                        Ok(Subject::Silence(Some(metric(name, at)?)))
                    }
                    other => Err(unexpected(other, "`telemetry` or a metric")),
                }
            }
            Token::Word(name) | Token::Quoted(name) => self.comparisons(metric(name, at)?),
            token @ Token::Sign(_) => Err(unexpected((at, token), EXPECTED)),
        }
    }

    /// The comparisons, the first of which is of `metric`.
    fn comparisons(&mut self, first: String) -> Result<Subject, InvalidCondition> {
        let mut all = vec![self.comparison(first)?];
        while self.0.keyword("and") {
            if all.len() == MAX_COMPARISONS {
                return Err(InvalidCondition::TooMany);
            }
            let name = match self.next("a metric")? {
                (at, Token::Word(name) | Token::Quoted(name)) => metric(name, at)?,
                other => return Err(unexpected(other, "a metric")),
            };
            all.push(self.comparison(name)?);
        }
        Ok(Subject::Metrics(all))
    }

    fn comparison(&mut self, metric: String) -> Result<Comparison, InvalidCondition> {
        const OPERATORS: &str = "`>`, `>=`, `<`, `<=`, `==` or `!=`";
        let operator = match self.next(OPERATORS)? {
            (_, Token::Sign(operator)) => operator,
            other => return Err(unexpected(other, OPERATORS)),
        };
        let expected = if operator.is_ordered() {
            "a number"
        } else {
            "a number, `true`, `false` or a text in quotes"
        };
        let literal = match self.next(expected)? {
            (at, Token::Quoted(text)) if !operator.is_ordered() => {
                if text.len() > MAX_TEXT || text.contains('\0') {
                    return Err(unexpected(
                        (at, Token::Quoted(text)),
                        "a text that a device can send",
                    ));
                }
                Literal::Text(text)
            }
            (_, Token::Word(word)) if !operator.is_ordered() && word.eq_ignore_ascii_case("true") => {
                Literal::Flag(true)
            }
            (_, Token::Word(word)) if !operator.is_ordered() && word.eq_ignore_ascii_case("false") => {
                Literal::Flag(false)
            }
            token => Literal::Number(number(token, expected)?),
        };
        let clear = match &literal {
            Literal::Number(bound) if operator.is_ordered() => self.clear(operator, *bound)?,
            _ => None,
        };
        Ok(Comparison {
            metric,
            operator,
            literal,
            clear,
        })
    }

    fn clear(&mut self, operator: Operator, bound: f64) -> Result<Option<f64>, InvalidCondition> {
        if !self.0.keyword("clear") {
            return Ok(None);
        }
        let token = self.next("a number")?;
        let at = token.0;
        let clear = number(token, "a number")?;
        let (well, side) = match operator {
            Operator::Above | Operator::AtLeast => (clear <= bound, "at most"),
            _ => (clear >= bound, "at least"),
        };
        if well {
            Ok(Some(clear))
        } else {
            let bound = Literal::Number(bound).to_string();
            Err(InvalidCondition::Clear { at, side, bound })
        }
    }

    fn hold(&mut self, subject: &Subject) -> Result<Span, InvalidCondition> {
        let needed = matches!(subject, Subject::Silence(_));
        let expected = match subject {
            Subject::Metrics(all)
                if all
                    .last()
                    .is_some_and(|last| last.operator.is_ordered() && last.clear.is_none()) =>
            {
                "`and`, `clear`, `for` or the end"
            }
            Subject::Metrics(_) => "`and`, `for` or the end",
            Subject::Silence(_) => "`for` and a time",
            Subject::Offline | Subject::SettingsPending => "`for` or the end",
        };
        let at = self.0.place();
        match self.0.next() {
            None if needed => Err(InvalidCondition::Unexpected {
                at,
                expected,
                found: "the end".to_owned(),
            }),
            None => Ok(Span::ZERO),
            Some((_, Token::Word(word))) if word.eq_ignore_ascii_case("for") => self.span(needed),
            Some(token) => Err(unexpected(token, expected)),
        }
    }

    /// The rest of the text, which is a time.
    fn span(&mut self, needed: bool) -> Result<Span, InvalidCondition> {
        let mut words = Vec::new();
        let at = self.0.place();
        for (_, token) in self.0.by_ref() {
            match token {
                Token::Word(word) => words.push(word),
                Token::Quoted(_) | Token::Sign(_) => return Err(InvalidCondition::Time { at }),
            }
        }
        match words.join(" ").parse::<Span>() {
            Ok(span) if span > Span::ZERO || !needed => Ok(span),
            _ => Err(InvalidCondition::Time { at }),
        }
    }

    fn next(&mut self, expected: &'static str) -> Result<Placed, InvalidCondition> {
        let at = self.0.place();
        self.0.next().ok_or_else(|| InvalidCondition::Unexpected {
            at,
            expected,
            found: "the end".to_owned(),
        })
    }
}

fn metric(name: String, at: usize) -> Result<String, InvalidCondition> {
    if is_metric_name(&name) {
        Ok(name)
    } else {
        Err(InvalidCondition::Metric { at })
    }
}

fn number((at, token): Placed, expected: &'static str) -> Result<f64, InvalidCondition> {
    let Token::Word(word) = token else {
        return Err(unexpected((at, token), expected));
    };
    // Rust also reads `inf` and `nan`, which no device can send.
    let plain = word
        .bytes()
        .all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'+' | b'e' | b'E'));
    match word.parse::<f64>() {
        Ok(number) if plain && number.is_finite() => Ok(if number == 0.0 { 0.0 } else { number }),
        _ => Err(unexpected((at, Token::Word(word)), expected)),
    }
}

fn unexpected((at, token): Placed, expected: &'static str) -> InvalidCondition {
    let found = match token {
        Token::Word(word) | Token::Quoted(word) => format!("`{}`", word.chars().take(40).collect::<String>()),
        Token::Sign(operator) => format!("`{}`", operator.as_str()),
    };
    InvalidCondition::Unexpected { at, expected, found }
}
