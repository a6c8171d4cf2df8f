//! Conditions: what is read, what is refused and where, and what holds.

use proptest::prelude::*;

use crate::{
    alert::{Comparison, Condition, InvalidCondition, Literal, Operator, Span, Subject},
    telemetry::{Value, is_metric_name},
};

fn parse(text: &str) -> Result<Condition, InvalidCondition> {
    text.parse()
}

#[test]
fn conditions_have_a_canonical_form() {
    for (text, canonical) in [
        ("temperature > 30 for 5m", "temperature > 30 for 5m"),
        ("temperature>30.50 FOR 300s", "temperature > 30.5 for 5m"),
        (
            "a >= 1 and b<=-2e-3 and c != 'x y'",
            "a >= 1 and b <= -0.002 and c != \"x y\"",
        ),
        ("door == true", "door == true"),
        ("door = False for 1h 30m", "door == false for 1h 30m"),
        (
            "temperature > 30 clear 28 for 5m",
            "temperature > 30 clear 28 for 5m",
        ),
        ("t < 5 clear 7 and u > 1", "t < 5 clear 7 and u > 1"),
        ("No Telemetry for 15 minutes", "no telemetry for 15m"),
        ("no temperature for 1d", "no temperature for 1d"),
        ("no \"telemetry\" for 1m", "no \"telemetry\" for 1m"),
        ("offline for 10m", "offline for 10m"),
        ("OFFLINE", "offline"),
        ("settings pending for 10m", "settings pending for 10m"),
        ("offline > 3", "\"offline\" > 3"),
        ("no < 3 and settings == 1", "\"no\" < 3 and \"settings\" == 1"),
        ("a == \"say \\\"hi\\\"\"", "a == \"say \\\"hi\\\"\""),
        ("a == 1e300", "a == 1e300"),
        ("a > -0", "a > 0"),
        ("a > 30 for 0s", "a > 30"),
    ] {
        let condition = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(condition.to_string(), canonical, "{text}");
        assert_eq!(parse(canonical), Ok(condition), "{canonical}");
    }
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    for (text, message) in [
        (
            "",
            "expected a metric, `no`, `offline` or `settings pending` at character 1, found the end",
        ),
        (
            "temperature",
            "expected `>`, `>=`, `<`, `<=`, `==` or `!=` at character 12, found the end",
        ),
        (
            "temperature > ",
            "expected a number at character 15, found the end",
        ),
        (
            "temperature > warm",
            "expected a number at character 15, found `warm`",
        ),
        (
            "temperature > true",
            "expected a number at character 15, found `true`",
        ),
        (
            "temperature > nan",
            "expected a number at character 15, found `nan`",
        ),
        (
            "temperature > 1e999",
            "expected a number at character 15, found `1e999`",
        ),
        (
            "mode == heat",
            "expected a number, `true`, `false` or a text in quotes at character 9, found `heat`",
        ),
        ("mode == \"heat", "the quote at character 9 is never closed"),
        (
            "temperature > 30 or b > 1",
            "expected `and`, `clear`, `for` or the end at character 18, found `or`",
        ),
        (
            "mode == 1 clear 0",
            "expected `and`, `for` or the end at character 11, found `clear`",
        ),
        (
            "temperature > 30 for",
            "at character 21: a time of whole s, m, h or d, up to 7d, such as `5m`",
        ),
        (
            "temperature > 30 for 5",
            "at character 22: a time of whole s, m, h or d, up to 7d, such as `5m`",
        ),
        (
            "temperature > 30 for 8d",
            "at character 22: a time of whole s, m, h or d, up to 7d, such as `5m`",
        ),
        (
            "temperature > 30 for 5m and b > 1",
            "at character 22: a time of whole s, m, h or d, up to 7d, such as `5m`",
        ),
        (
            "temperature > 30 clear 31",
            "at character 24: `clear` must be at most 30, or the alert would never end",
        ),
        (
            "temperature < 5 clear 4",
            "at character 23: `clear` must be at least 5, or the alert would never end",
        ),
        (
            "no telemetry",
            "expected `for` and a time at character 13, found the end",
        ),
        (
            "no telemetry for 0s",
            "at character 18: a time of whole s, m, h or d, up to 7d, such as `5m`",
        ),
        (
            "no",
            "expected `telemetry` or a metric at character 3, found the end",
        ),
        (
            "settings for 5m",
            "expected `pending` at character 10, found `for`",
        ),
        (
            "offline since 5m",
            "expected `for` or the end at character 9, found `since`",
        ),
        (
            "at > 3",
            "at character 1: a metric is 1 to 64 of A-Z a-z 0-9 . _ -, beginning with a letter or digit, and not `at`",
        ),
        (
            "\"a b\" > 3",
            "at character 1: a metric is 1 to 64 of A-Z a-z 0-9 . _ -, beginning with a letter or digit, and not `at`",
        ),
        (
            "> 3",
            "expected a metric, `no`, `offline` or `settings pending` at character 1, found `>`",
        ),
        (
            "a > 3 & b > 1",
            "expected a metric, a value or an operator at character 7, found `&`",
        ),
        (
            "a ! 3",
            "expected a metric, a value or an operator at character 3, found `!`",
        ),
    ] {
        let error = parse(text).expect_err(text);
        assert_eq!(error.to_string(), message, "{text}");
    }
    let nine = ["a > 1"; 9].join(" and ");
    assert_eq!(parse(&nine), Err(InvalidCondition::TooMany));
    assert_eq!(
        parse(&format!("a == \"{}\"", "x".repeat(1_000))),
        Err(InvalidCondition::TooLong)
    );
}

#[test]
fn a_value_of_another_type_fulfils_nothing() {
    let holds = |text: &str, value: &Value<'_>, firing| {
        parse(text)
            .unwrap()
            .subject
            .holds(|metric| (metric == "a").then_some(value), firing)
    };
    let number = Value::Number(29.0);
    let text = Value::Text("on".into());
    assert!(holds("a > 28", &number, false));
    assert!(!holds("a > 29", &number, false));
    assert!(holds("a >= 29", &number, false));
    assert!(holds("a < 29.1 and a != 3", &number, false));
    assert!(!holds("a > 28 and b > 1", &number, false), "never sent");
    assert!(holds("a == \"on\"", &text, false));
    assert!(!holds("a != \"on\"", &text, false));
    for (condition, value) in [("a != 1", &text), ("a != \"x\"", &number), ("a != true", &number)] {
        assert!(!holds(condition, value, false), "{condition}");
    }
    assert!(holds("a != false", &Value::Flag(true), false));
    assert!(!holds("a > 30 clear 28", &number, false));
    assert!(holds("a > 30 clear 28", &number, true), "hysteresis");
    assert!(!holds("a > 30 clear 29", &number, true));
}

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        (-1_000_i32..1_000).prop_map(f64::from),
        any::<f64>().prop_filter("finite", |number| number.is_finite()),
    ]
    .prop_map(|number| if number == 0.0 { 0.0 } else { number })
}

fn metric() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z][a-z0-9._-]{0,8}",
        prop::sample::select(vec![
            "no",
            "telemetry",
            "offline",
            "for",
            "and",
            "true",
            "30",
            "clear"
        ])
        .prop_map(str::to_owned),
    ]
    .prop_filter("a metric", |name| is_metric_name(name))
}

fn comparison() -> impl Strategy<Value = Comparison> {
    let ordered = prop::sample::select(vec![
        Operator::Above,
        Operator::AtLeast,
        Operator::Below,
        Operator::AtMost,
    ]);
    let equal = prop::sample::select(vec![Operator::Equal, Operator::Unequal]);
    let literal = prop_oneof![
        number().prop_map(Literal::Number),
        any::<bool>().prop_map(Literal::Flag),
        "[ -~é]{0,12}".prop_map(Literal::Text),
    ];
    prop_oneof![
        (metric(), ordered, number(), prop::option::of(number())).prop_map(
            |(metric, operator, bound, clear)| {
                let well = |clear: &f64| match operator {
                    Operator::Above | Operator::AtLeast => *clear <= bound,
                    _ => *clear >= bound,
                };
                let literal = Literal::Number(bound);
                let clear = clear.filter(well);
                Comparison {
                    metric,
                    operator,
                    literal,
                    clear,
                }
            }
        ),
        (metric(), equal, literal).prop_map(|(metric, operator, literal)| {
            Comparison {
                metric,
                operator,
                literal,
                clear: None,
            }
        }),
    ]
}

fn subject() -> impl Strategy<Value = Subject> {
    prop_oneof![
        4 => prop::collection::vec(comparison(), 1..4).prop_map(Subject::Metrics),
        1 => prop::option::of(metric()).prop_map(Subject::Silence),
        1 => Just(Subject::Offline),
        1 => Just(Subject::SettingsPending),
    ]
}

proptest! {
    #[test]
    fn a_condition_reads_back_as_written(subject in subject(), seconds in 1_u32..604_800) {
        let condition = Condition { subject, hold: Span::from_seconds(seconds).unwrap() };
        let text = condition.to_string();
        prop_assume!(text.len() <= 1_000);
        prop_assert_eq!(parse(&text), Ok(condition), "{}", text);
    }

    #[test]
    fn whatever_is_read_never_panics(text in "[ -~é]{0,60}") {
        if let Ok(condition) = parse(&text) {
            prop_assert_eq!(parse(&condition.to_string()), Ok(condition));
        }
    }
}
