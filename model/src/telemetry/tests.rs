use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;

use super::*;

fn arrival() -> DateTime<Utc> {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

fn window() -> Window {
    Window {
        oldest: arrival() - TimeDelta::days(365),
        newest: arrival() + TimeDelta::minutes(5),
    }
}

fn read(payload: &str) -> Result<Parsed<'_>, Malformed> {
    parse(payload.as_bytes(), &Limits::default(), window())
}

/// The samples as `metric=value@time`, and the problems as people read them.
fn told(payload: &str) -> (Vec<String>, Vec<String>) {
    let parsed = read(payload).unwrap();
    let samples = parsed.samples.iter().map(|sample| {
        let value = serde_json::to_string(&sample.value).unwrap();
        let at = sample.at.resolve(arrival()).format("%FT%T%.f");
        format!("{}={value}@{at}", sample.metric)
    });
    (
        samples.collect(),
        parsed.problems.listed().iter().map(ToString::to_string).collect(),
    )
}

fn good(payload: &str) -> Vec<String> {
    let (samples, problems) = told(payload);
    assert_eq!(problems, Vec::<String>::new());
    samples
}

#[test]
fn one_object_is_a_sample_per_metric() {
    assert_eq!(
        good(r#"{"temperature":21.5,"humidity":40,"at":"2026-01-01T12:00:00Z"}"#),
        [
            "temperature=21.5@2026-01-01T12:00:00",
            "humidity=40@2026-01-01T12:00:00"
        ]
    );
    assert_eq!(
        good(r#"{"open":true,"mode":"eco"}"#),
        [
            "open=true@2026-03-01T12:00:00",
            r#"mode="eco"@2026-03-01T12:00:00"#
        ]
    );
}

#[test]
fn the_time_may_stand_anywhere_and_in_any_zone_and_is_cut_to_microseconds() {
    assert_eq!(
        good(r#"{"at":"2026-01-01T13:00:00.123456789+01:00","t":1}"#),
        ["t=1@2026-01-01T12:00:00.123456"]
    );
}

#[test]
fn objects_without_a_time_stay_apart() {
    assert_eq!(
        good(r#"[{"t":1},{"t":2},{"t":3,"at":"2026-01-01T12:00:00Z"},{"t":4}]"#),
        [
            "t=1@2026-03-01T12:00:00",
            "t=2@2026-03-01T12:00:00.000001",
            "t=3@2026-01-01T12:00:00",
            "t=4@2026-03-01T12:00:00.000002",
        ]
    );
}

#[test]
fn a_clock_ahead_of_time_is_flagged_and_its_samples_stored_at_arrival() {
    let parsed =
        read(r#"[{"t":1,"at":"2026-03-01T12:05:00Z"},{"t":2,"at":"2026-03-01T12:05:01Z"}]"#).unwrap();
    assert_eq!(parsed.skewed, 1);
    assert_eq!(
        parsed.samples[0].at,
        Stamp::Device(arrival() + TimeDelta::minutes(5))
    );
    assert_eq!(parsed.samples[1].at, Stamp::Arrival(0));
    assert!(parsed.problems.is_empty());
}

#[test]
fn a_bad_item_is_named_and_the_others_are_kept() {
    let (samples, problems) = told(
        r#"[{"t":1},7,{"t":null,"u":2},{"t":3,"at":"yesterday"},{"t":[1,{"x":2}]},{"t":4}, null, [1], "x", {}]"#,
    );
    assert_eq!(
        samples,
        [
            "t=1@2026-03-01T12:00:00",
            "u=2@2026-03-01T12:00:00.000001",
            "t=4@2026-03-01T12:00:00.000003"
        ]
    );
    assert_eq!(
        problems,
        [
            "item 1: must be an object of metrics",
            "item 2: `t`: null is not a value",
            "item 3: `at`: must be a time in RFC 3339: \"2026-01-01T12:00:00Z\"",
            "item 4: `t`: must be a number, a boolean or a text",
            "item 6: must be an object of metrics",
            "item 7: must be an object of metrics",
            "item 8: must be an object of metrics",
            "item 9: has no metric",
        ]
    );
}

#[test]
fn each_bad_value_has_its_own_answer() {
    for (payload, problem) in [
        (r#"{"at":"2026-01-01T12:00:00Z"}"#, "has no metric".to_owned()),
        (
            r#"{"t":1,"at":1767268800}"#,
            "`at`: must be a text in RFC 3339: \"2026-01-01T12:00:00Z\"".into(),
        ),
        (
            r#"{"t":1,"at":"2020-01-01T12:00:00Z"}"#,
            "`at`: is older than telemetry is kept".into(),
        ),
        (
            r#"{"at":"2026-01-01T12:00:00Z","t":1,"at":"2026-01-01T12:00:00Z"}"#,
            "`at`: is there twice".into(),
        ),
        (r#"{"t":1,"t":2}"#, "`t`: is there twice".into()),
        (
            r#"{"a b":1}"#,
            "`a b`: a metric name is 1 to 64 of A-Z a-z 0-9 . _ - and begins with a letter or digit".into(),
        ),
        (
            &format!(r#"{{"t":"{}"}}"#, "x".repeat(257)),
            "`t`: a text has at most 256 bytes".into(),
        ),
        (r#"{"t":"a\u0000b"}"#, "`t`: a text has no NUL character".into()),
        (r#"{"t":1e999}"#, "`t`: number out of range".into()),
        (r#"{"t":"\ud800"}"#, "`t`: unexpected end of hex escape".into()),
    ] {
        assert_eq!(told(payload), (vec![], vec![problem]), "{payload}");
    }
}

#[test]
fn what_json_readers_trip_over_costs_that_value_alone() {
    let deep = "[".repeat(500) + &"]".repeat(500);
    let (samples, problems) = told(&format!(
        r#"[{{"t":1,"u":-1e400}},{{"t":2,"d":{deep}}},{{"t":3,"s":"\ud83d"}},{{"\ud800":1}},{{"t":4}}]"#
    ));
    assert_eq!(samples.len(), 4, "{samples:?}");
    assert_eq!(
        problems,
        [
            "item 0: `u`: number out of range",
            "item 1: `d`: must be a number, a boolean or a text",
            "item 2: `s`: unexpected end of hex escape",
            "item 3: unexpected end of hex escape",
        ]
    );
}

#[test]
fn a_metric_that_stands_twice_takes_no_other_with_it() {
    let (samples, problems) = told(r#"[{"a":1},{"a":1,"b":2,"a":3,"c":4,"a":5}]"#);
    assert_eq!(
        samples,
        [
            "a=1@2026-03-01T12:00:00",
            "b=2@2026-03-01T12:00:00.000001",
            "c=4@2026-03-01T12:00:00.000001"
        ]
    );
    assert_eq!(problems, ["item 1: `a`: is there twice"]);
}

#[test]
fn the_number_of_metrics_and_items_is_bounded() {
    let object = |count: usize| {
        let fields: Vec<String> = (0..count).map(|index| format!(r#""m{index}":{index}"#)).collect();
        format!("{{{}}}", fields.join(","))
    };
    assert_eq!(good(&object(64)).len(), 64);
    assert_eq!(
        told(&object(65)),
        (vec![], vec!["more than 64 metrics".to_owned()])
    );

    let array = |count: usize| format!("[{}]", vec![r#"{"t":1}"#; count].join(","));
    assert_eq!(good(&array(1_000)).len(), 1_000);
    assert_eq!(read(&array(1_001)), Err(Malformed::TooMany(1_000)));
    assert_eq!(good("[]"), Vec::<String>::new());
}

#[test]
fn only_so_many_problems_are_told_one_by_one() {
    let parsed = parse(b"[1,2]", &Limits::default(), window()).unwrap();
    assert_eq!(
        parsed.problems.sentence().as_deref(),
        Some("item 0: must be an object of metrics; and 1 more problem")
    );
    let payload = format!("[{}]", vec!["1"; 1_000].join(","));
    let parsed = read(&payload).unwrap();
    assert_eq!(
        (parsed.problems.listed().len(), parsed.problems.count()),
        (100, 1_000)
    );
    assert_eq!(
        parsed.problems.sentence().as_deref(),
        Some("item 0: must be an object of metrics; and 999 more problems")
    );
}

#[test]
fn what_is_no_payload_at_all_is_refused_whole() {
    for shape in ["1", "null", "true", r#""x""#] {
        assert_eq!(read(shape), Err(Malformed::Shape), "{shape}");
    }
    for broken in [
        "",
        " ",
        "{",
        r#"{"t":1"#,
        r#"[{"t":1},"#,
        r#"{"t":NaN}"#,
        r#"{"t":1}x"#,
        "{'t':1}",
        "1e999",
    ] {
        assert!(
            matches!(read(broken), Err(Malformed::Json(_))),
            "{broken}: {:?}",
            read(broken)
        );
    }
    assert!(matches!(
        parse(b"{\"t\":\"\xff\"}", &Limits::default(), window()),
        Err(Malformed::Json(_))
    ));
}

#[test]
fn escaped_names_are_the_names_they_spell() {
    assert_eq!(good(r#"{"\u0074emp":1}"#), ["temp=1@2026-03-01T12:00:00"]);
}

#[test]
fn metric_names() {
    for name in ["a", "0", "temp.in", "a_b-c", &"x".repeat(64)] {
        assert!(is_metric_name(name), "{name}");
    }
    for name in ["", "at", "_a", ".a", "a b", "a,b", "é", "a\0", &"x".repeat(65)] {
        assert!(!is_metric_name(name), "{name}");
    }
}

#[test]
fn buckets_and_aggregates() {
    for (text, seconds) in [
        ("1s", 1),
        ("5m", 300),
        ("1h", 3_600),
        ("1d", 86_400),
        ("1w", 604_800),
        ("366d", 31_622_400),
    ] {
        assert_eq!(text.parse::<Bucket>().map(Bucket::seconds), Ok(seconds), "{text}");
    }
    for text in [
        "",
        "m",
        "5",
        "0s",
        "-1s",
        "+1s",
        "1.5h",
        "367d",
        "9999999999s",
        "5 m",
        "1é",
        "1y",
    ] {
        assert_eq!(text.parse::<Bucket>(), Err(InvalidBucket), "{text}");
    }
    assert_eq!("last".parse(), Ok(Aggregate::Last));
    assert_eq!("median".parse::<Aggregate>(), Err(InvalidAggregate));
}

#[test]
fn metric_lists() {
    assert_eq!("a, b,a".parse::<MetricList>().unwrap().as_slice(), ["a", "b"]);
    for text in ["", "a,", "a,b c"] {
        assert_eq!(text.parse::<MetricList>(), Err(InvalidMetrics), "{text}");
    }
}

fn scalar() -> impl Strategy<Value = serde_json::Value> {
    prop_oneof![
        any::<i32>().prop_map(Into::into),
        (-1e300..1e300_f64).prop_map(Into::into),
        any::<bool>().prop_map(Into::into),
        "[a-z \"\\\\é]{0,40}".prop_map(Into::into),
    ]
}

proptest! {
    /// Whatever comes in, nothing panics and the bounds hold.
    #[test]
    fn any_bytes_are_safe(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&bytes, &Limits::default(), window());
    }

    /// Texts close to JSON reach deeper.
    #[test]
    fn any_json_like_text_is_safe(text in r#"[\[\]{}",:0-9eE.+\-atnulrfs\\ ]{0,80}"#) {
        let limits = Limits { items: 3, metrics: 2, text: 4 };
        if let Ok(parsed) = parse(text.as_bytes(), &limits, window()) {
            prop_assert!(parsed.samples.len() <= 6);
            prop_assert!(parsed.problems.listed().len() <= MAX_PROBLEMS_TOLD);
            for sample in &parsed.samples {
                prop_assert!(is_metric_name(&sample.metric));
            }
        }
    }

    /// What is well-formed comes back as it was written, in order.
    #[test]
    fn good_objects_are_read_as_written(
        items in prop::collection::vec(prop::collection::btree_map("[b-z][a-z0-9._-]{0,20}", scalar(), 1..8), 0..20)
    ) {
        let payload = serde_json::to_vec(&items).unwrap();
        let parsed = parse(&payload, &Limits::default(), window()).unwrap();
        prop_assert!(parsed.problems.is_empty());
        let expected: Vec<_> = items
            .iter()
            .enumerate()
            .flat_map(|(index, item)| item.iter().map(move |(name, value)| (index, name.clone(), value.clone())))
            .collect();
        prop_assert_eq!(parsed.samples.len(), expected.len());
        for (sample, (index, name, value)) in parsed.samples.iter().zip(expected) {
            prop_assert_eq!(&*sample.metric, &name);
            prop_assert_eq!(sample.at, Stamp::Arrival(u32::try_from(index).unwrap()));
            match &sample.value {
                Value::Number(number) => prop_assert_eq!(Some(*number), value.as_f64()),
                Value::Flag(flag) => prop_assert_eq!(Some(*flag), value.as_bool()),
                Value::Text(text) => prop_assert_eq!(Some(&**text), value.as_str()),
            }
        }
    }

    /// The careful second pass agrees with the first on whatever the first can read.
    #[test]
    fn both_passes_agree(items in prop::collection::vec(prop::collection::btree_map("[a-z ]{1,3}", scalar(), 0..5), 0..10)) {
        let plain = serde_json::to_string(&items).unwrap();
        let first = read(&plain).unwrap();
        // One unreadable value at the end makes the whole be read again.
        let joint = if items.is_empty() { "" } else { "," };
        let careful = format!("{}{joint}{{\"x\":1e999}}]", plain.strip_suffix(']').unwrap());
        let second = read(&careful).unwrap();
        prop_assert_eq!(&second.samples, &first.samples);
        prop_assert_eq!(second.problems.count(), first.problems.count() + 1);
    }
}

const MAX_PROBLEMS_TOLD: usize = 100;
