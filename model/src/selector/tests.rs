use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn tags(value: Value) -> Tags {
    Tags::parse(value).unwrap()
}

fn selects(selector: &str, value: Value) -> bool {
    Selector::parse(selector).unwrap().matches(&tags(value))
}

#[test]
fn each_form_selects_what_it_says() {
    for (selector, value, expected) in [
        ("*", json!({}), true),
        ("not *", json!({}), false),
        ("site=oslo", json!({"site": "oslo"}), true),
        ("site=oslo", json!({"site": "Oslo"}), false),
        ("site=oslo", json!({}), false),
        ("site!=oslo", json!({"site": "bergen"}), true),
        ("site!=oslo", json!({}), true),
        ("site", json!({"site": "bergen"}), true),
        ("site", json!({"floor": 1}), false),
        ("not site", json!({"floor": 1}), true),
        ("floor in (1,2)", json!({"floor": 2}), true),
        ("floor in (1,2)", json!({"floor": "2"}), true),
        ("floor in (1,2)", json!({"floor": 2.0}), true),
        ("floor in (1,2)", json!({"floor": 3}), false),
        ("floor not in (1,2)", json!({"floor": 3}), true),
        ("floor not in (1,2)", json!({}), true),
        ("floor=\"2\"", json!({"floor": 2}), false),
        ("floor=\"2\"", json!({"floor": "2"}), true),
        ("floor=2.5", json!({"floor": 2.5}), true),
        (
            "id=9007199254740993",
            json!({"id": 9_007_199_254_740_992.0}),
            false,
        ),
        ("outdoor=true", json!({"outdoor": true}), true),
        ("outdoor=true", json!({"outdoor": "true"}), true),
        ("outdoor='true'", json!({"outdoor": true}), false),
        (r"place='St. Olav\'s'", json!({"place": "St. Olav's"}), true),
        ("\"in\"=\"or\"", json!({"in": "or"}), true),
        ("site=malmö", json!({"site": "malmö"}), true),
        ("a=1 or a=2 and b=3", json!({"a": 1}), true),
        ("(a=1 or a=2) and b=3", json!({"a": 1}), false),
        ("not a=1 and b=3", json!({"a": 2, "b": 3}), true),
        ("not (a=1 and b=3)", json!({"a": 1, "b": 3}), false),
        ("A=1 OR NOT B In (2)", json!({"B": 2}), false),
    ] {
        assert_eq!(selects(selector, value.clone()), expected, "{selector} {value}");
    }
}

#[test]
fn the_canonical_form_is_short_and_plain() {
    for (written, canonical) in [
        ("site=oslo and floor in (1,2)", "site=oslo and floor in (1,2)"),
        (
            "  site = 'oslo' AND (floor IN ( 1 , 2 ))",
            "site=oslo and floor in (1,2)",
        ),
        ("floor in (1)", "floor=1"),
        ("not (floor = 1)", "floor!=1"),
        ("not floor in (1,2)", "floor not in (1,2)"),
        ("not not floor", "not not floor"),
        ("a and (b and c) or (d or e)", "a and b and c or d or e"),
        ("a and (b or c)", "a and (b or c)"),
        ("not (b or c)", "not (b or c)"),
        ("floor=\"1\"", "floor=\"1\""),
        ("\"not\"=\"and\"", "\"not\"=\"and\""),
        ("a='x \"y\" \\\\'", r#"a="x \"y\" \\""#),
        ("*", "*"),
    ] {
        assert_eq!(Selector::parse(written).unwrap().to_string(), canonical);
    }
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    for (text, message) in [
        (
            "",
            "expected a tag, `not`, `(` or `*` at character 1, found the end",
        ),
        ("site=", "expected a value at character 6, found the end"),
        ("site=and", "expected a value at character 6, found `and`"),
        ("site==oslo", "expected a value at character 6, found `=`"),
        (
            "site oslo",
            "expected `and`, `or` or the end at character 6, found `oslo`",
        ),
        (
            "site=oslo and",
            "expected a tag, `not`, `(` or `*` at character 14, found the end",
        ),
        (
            "or site",
            "expected a tag, `not`, `(` or `*` at character 1, found `or`",
        ),
        ("(site", "expected `)` at character 6, found the end"),
        ("floor in 1", "expected `(` at character 10, found `1`"),
        ("floor in (1 2)", "expected `,` or `)` at character 13, found `2`"),
        ("floor in ()", "expected a value at character 11, found `)`"),
        ("floor not 1", "expected `in` at character 11, found `1`"),
        (
            "floor > 1",
            "expected a tag, a value or a sign at character 7, found `>`",
        ),
        (
            "a ! b",
            "expected a tag, a value or a sign at character 3, found `!`",
        ),
        (
            "place='St. Olav''s'",
            "expected `and`, `or` or the end at character 17, found `s`",
        ),
        ("site='oslo", "the quote at character 6 is never closed"),
        (
            "sité=oslo",
            "at character 1: a tag's name is 1 to 64 of A-Z a-z 0-9 . _ -",
        ),
        (
            "a=1 and ''=2",
            "at character 9: a tag's name is 1 to 64 of A-Z a-z 0-9 . _ -",
        ),
        (
            "a='\0'",
            "at character 3: a tag's value is at most 200 characters, without U+0000",
        ),
    ] {
        assert_eq!(Selector::parse(text).unwrap_err().to_string(), message, "{text}");
    }
    let long = format!("a={}", "x".repeat(201));
    assert_eq!(Selector::parse(&long), Err(InvalidSelector::Value { at: 3 }));
}

#[test]
fn length_and_depth_are_bounded() {
    let deep = |levels: usize| format!("{}a{}", "(".repeat(levels), ")".repeat(levels));
    assert!(Selector::parse(&deep(MAX_DEPTH)).is_ok());
    let error = Selector::parse(&deep(MAX_DEPTH + 1)).unwrap_err();
    assert_eq!(error, InvalidSelector::TooDeep { at: MAX_DEPTH + 2 });
    assert!(Selector::parse(&"not ".repeat(400)).is_err());
    let many = |n: usize| vec!["a"; n].join(" or ");
    assert!(Selector::parse(&many(MAX_LENGTH / 5)).is_ok());
    assert_eq!(
        Selector::parse(&many(MAX_LENGTH / 5 + 2)),
        Err(InvalidSelector::TooLong)
    );
    // Within the limit as written, but not as it would be kept.
    let quotes = format!("a in('{}')", vec!["\"".repeat(195); 10].join("','"));
    assert!(quotes.len() <= MAX_LENGTH);
    assert_eq!(Selector::parse(&quotes), Err(InvalidSelector::TooLong));
}

fn literal() -> impl Strategy<Value = TagLiteral> {
    prop_oneof![
        "[a-c]|true|1|2|and|IN|ø|[ \"'\\\\]{0,3}|é x".prop_map(TagLiteral::Text),
        "true|false|1|2|2\\.0|-1|1e3".prop_map(TagLiteral::Word),
    ]
}

/// Any expression that a parser could make.
fn expression() -> impl Strategy<Value = Expression> {
    let tag = "[a-d]|not|In|1";
    let leaf = prop_oneof![
        1 => Just(Expression::Any),
        3 => tag.prop_map(Expression::Has),
        6 => (tag, prop::collection::vec(literal(), 1..4)).prop_map(|(tag, values)| Expression::Is(tag, values)),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|inner| Expression::Not(Box::new(inner))),
            prop::collection::vec(inner.clone(), 2..4).prop_map(|parts| {
                Expression::And(flat(parts, |part| match part {
                    Expression::And(inner) => Ok(inner),
                    part => Err(part),
                }))
            }),
            prop::collection::vec(inner, 2..4).prop_map(|parts| {
                Expression::Or(flat(parts, |part| match part {
                    Expression::Or(inner) => Ok(inner),
                    part => Err(part),
                }))
            }),
        ]
    })
}

fn flat(
    parts: Vec<Expression>,
    open: impl Fn(Expression) -> Result<Vec<Expression>, Expression>,
) -> Vec<Expression> {
    let opened = |part| open(part).unwrap_or_else(|part| vec![part]);
    parts.into_iter().flat_map(opened).collect()
}

fn arbitrary_tags() -> impl Strategy<Value = Value> {
    let value = prop_oneof![
        "[a-c]|true|1|2|and".prop_map(Value::from),
        (-1_i64..3).prop_map(Value::from),
        prop_oneof![Just(2.0), Just(2.5), Just(1000.0)].prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
    ];
    prop::collection::btree_map("[a-d]|not|In|1", value, 0..5)
        .prop_map(|map| Value::Object(map.into_iter().collect()))
}

/// The meaning, once more and slowly: a word means its text, or whatever JSON value is written so.
fn brute_force(expression: &Expression, tags: &Value) -> bool {
    match expression {
        Expression::Any => true,
        Expression::Has(tag) => tags.as_object().unwrap().contains_key(tag),
        Expression::Is(tag, literals) => {
            let mut found = false;
            for literal in literals {
                let tag = &tags[tag.as_str()];
                found |= match literal {
                    TagLiteral::Text(text) => tag.as_str() == Some(text),
                    TagLiteral::Word(word) => {
                        let read: Value = serde_json::from_str(word).unwrap();
                        tag.as_str() == Some(word)
                            || (tag.is_boolean() && *tag == read)
                            || (tag.is_number() && tag.as_f64() == read.as_f64())
                    }
                };
            }
            found
        }
        Expression::Not(inner) => !brute_force(inner, tags),
        Expression::And(all) => all
            .iter()
            .fold(true, |so_far, one| so_far & brute_force(one, tags)),
        Expression::Or(any) => any
            .iter()
            .fold(false, |so_far, one| so_far | brute_force(one, tags)),
    }
}

proptest! {
    #[test]
    fn the_canonical_form_reads_back_as_the_same_selector(expression in expression()) {
        let selector = Selector(expression);
        let written = selector.to_string();
        prop_assert_eq!(Selector::parse(&written), Ok(selector), "{}", written);
    }

    #[test]
    fn matching_agrees_with_brute_force(expression in expression(), value in arbitrary_tags()) {
        let expected = brute_force(&expression, &value);
        prop_assert_eq!(Selector(expression).matches(&tags(value)), expected);
    }

    #[test]
    fn no_text_is_a_fault_of_the_reader(text in "[ab=!()*,'\"\\\\ é1]{0,40}|( |and|or|not|in|\\(|\\)|a|=|,|1){0,30}") {
        if let Ok(selector) = Selector::parse(&text) {
            prop_assert_eq!(Selector::parse(&selector.to_string()), Ok(selector));
        }
    }
}
