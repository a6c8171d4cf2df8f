//! The picture of a device's history: what is drawn where, and that it is safe to show.

use roxmltree::Document;
use serde_json::{Value, json};
use setpoint_tests::{Answer, Harness};

const PATH: &str = "/devices/HOME-1/telemetry.svg";
const DAY: &str = "from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z";

/// Where the plot begins and ends, in pixels of a picture that is 900 wide; all is drawn eight times larger.
const LEFT: f64 = 64.0;
const RIGHT: f64 = 876.0;
const SCALE: f64 = 8.0;
/// The colour of the first curve.
const FIRST: &str = "#006BB0";

async fn server(telemetry: Value, samples: Value) -> Harness {
    let server = Harness::start().await;
    let model = json!({"name": "thermo", "settings": {}, "telemetry": telemetry});
    server.api().post("/models").json(&model).await.expect(201);
    let device = json!({"serial": "HOME-1", "model": "thermo", "name": "Hall", "time_zone": "Asia/Tokyo"});
    server.api().post("/devices").json(&device).await.expect(201);
    if !samples.as_array().unwrap().is_empty() {
        let sent = server
            .api()
            .post("/devices/HOME-1/telemetry")
            .json(&samples)
            .await;
        assert_eq!(sent.json()["problems"], json!([]), "{sent:?}");
    }
    server
}

async fn picture(server: &Harness, query: &str) -> String {
    let answer = server.api().get(&format!("{PATH}?{query}")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), "image/svg+xml");
    answer.text
}

/// The texts that a picture shows.
fn texts(document: &Document<'_>) -> Vec<String> {
    let nodes = document.descendants().filter(|node| node.has_tag_name("text"));
    let texts = nodes.filter_map(|node| node.text().map(|text| text.trim().to_owned()));
    texts.filter(|text| !text.is_empty()).collect()
}

/// The points of the lines of a colour, in pixels.
fn lines(document: &Document<'_>, colour: &str) -> Vec<Vec<(f64, f64)>> {
    let nodes = document
        .descendants()
        .filter(|node| node.has_tag_name("polyline"));
    let points = |text: &str| {
        let pairs = text.split_whitespace().map(|pair| {
            let (x, y) = pair.split_once(',').unwrap();
            (
                x.parse::<f64>().unwrap() / SCALE,
                y.parse::<f64>().unwrap() / SCALE,
            )
        });
        pairs.collect()
    };
    nodes
        .filter(|node| node.attribute("stroke") == Some(colour))
        .map(|node| points(node.attribute("points").unwrap()))
        .collect()
}

fn close(one: f64, other: f64) -> bool {
    (one - other).abs() < 1.0
}

#[tokio::test]
async fn points_are_where_they_should_be() {
    let sample = |hour: u32, value: f64| json!({"t": value, "at": format!("2026-01-01T{hour:02}:30:00Z")});
    let samples = json!([
        sample(0, 0.0),
        sample(1, 10.0),
        sample(2, 5.0),
        sample(3, 5.0),
        // A gap, and two behind it.
        sample(18, 10.0),
        sample(19, 0.0),
    ]);
    let telemetry = json!({"t": {"unit": "°C", "title": "Temperature"}});
    let server = server(telemetry, samples).await;
    let svg = picture(&server, &format!("{DAY}&bucket=1h&width=900")).await;
    let document = Document::parse(&svg).unwrap();
    let root = document.root_element();
    assert_eq!(
        (root.attribute("width"), root.attribute("role")),
        (Some("900"), Some("img"))
    );

    let lines = lines(&document, FIRST);
    let lengths: Vec<usize> = lines.iter().map(Vec::len).collect();
    assert_eq!(lengths, [4, 2], "the line breaks where there is nothing");
    // In the middle of each bucket, which is where the samples are.
    let at = |hour: f64| LEFT + (RIGHT - LEFT) * (hour + 0.5) / 24.0;
    for ((x, _), hour) in lines.iter().flatten().zip([0.0, 1.0, 2.0, 3.0, 18.0, 19.0]) {
        assert!(close(*x, at(hour)), "{x} for {hour}");
    }
    let y: Vec<f64> = lines.iter().flatten().map(|(_, y)| *y).collect();
    assert!(
        close(y[0], y[5]) && close(y[1], y[4]) && close(y[2], y[3]),
        "{y:?}"
    );
    assert!(
        y[0] > y[2] && y[2] > y[1] && close(y[2], f64::midpoint(y[0], y[1])),
        "{y:?}"
    );

    let texts = texts(&document);
    for shown in ["Hall", "Temperature", "0 °C", "0", "10", "2 Jan", "12:00"] {
        assert!(texts.iter().any(|text| text == shown), "{shown}: {texts:?}");
    }
    let head = "1 Jan 2026 09:00 – 2 Jan 2026 09:00, Asia/Tokyo · mean of each 1 h";
    assert!(
        texts.iter().any(|text| text == head),
        "the device's own time: {texts:?}"
    );
}

#[tokio::test]
async fn numbers_have_a_band_and_booleans_steps() {
    let at = |minute: u32| format!("2026-01-01T12:{minute:02}:00Z");
    let samples = json!([
        {"a": 1, "b": 5, "on": true, "at": at(0)},
        {"a": 9, "b": 5, "on": true, "at": at(5)},
        {"a": 5, "b": 5, "on": false, "at": at(20)},
        {"a": 5, "b": 5, "on": true, "mode": "eco", "at": at(40)},
    ]);
    let telemetry = json!({"a": {"unit": "W"}, "b": {"unit": "W"}});
    let server = server(telemetry, samples).await;
    let query = "from=2026-01-01T12:00:00Z&to=2026-01-01T13:00:00Z&bucket=20m&width=900";
    let svg = picture(&server, query).await;
    let document = Document::parse(&svg).unwrap();
    let bands = document.descendants().filter(|node| node.has_tag_name("polygon"));
    assert_eq!(bands.count(), 1, "of `a`, and none where all are the same");
    let (a, b, on) = (
        lines(&document, FIRST),
        lines(&document, "#C55A00"),
        lines(&document, "#008060"),
    );
    assert_eq!((a[0].len(), b[0].len()), (3, 3));
    assert!(
        close(a[0][0].1, b[0][0].1),
        "one unit, one axis: the mean of both is 5"
    );
    let x = |minute: f64| LEFT + (RIGHT - LEFT) * minute / 60.0;
    let steps: Vec<f64> = on[0].iter().map(|(x, _)| *x).collect();
    for (step, minute) in steps.iter().zip([0.0, 20.0, 20.0, 40.0, 40.0, 60.0]) {
        assert!(close(*step, x(minute)), "{steps:?}");
    }
    let high: Vec<bool> = on[0].iter().map(|(_, y)| close(*y, on[0][0].1)).collect();
    assert_eq!(high, [true, true, false, false, true, true]);
    let texts = texts(&document);
    assert!(
        texts.iter().any(|text| text.ends_with("· not drawn: mode")),
        "{texts:?}"
    );
    let one = picture(&server, &format!("{query}&metric=on")).await;
    assert!(
        lines(&Document::parse(&one).unwrap(), "#006BB0")[0].len() == 6,
        "the first colour is the first's"
    );
}

#[tokio::test]
async fn without_samples_it_says_so() {
    let server = server(json!({}), json!([])).await;
    for query in [
        DAY,
        "metric=nothing",
        "from=-1h&to=-1h",
        "from=-1d&to=-1d&bucket=1d&height=200",
    ] {
        let svg = picture(&server, query).await;
        let document = Document::parse(&svg).unwrap();
        assert!(
            texts(&document)
                .iter()
                .any(|text| text == "no data in this range"),
            "{query}"
        );
    }
}

#[tokio::test]
async fn names_are_shown_and_never_run() {
    let evil = "</text><script>alert(1)</script>&\"'\u{1}";
    let telemetry = json!({"t": {"title": evil, "unit": "<b>"}});
    let server = server(telemetry, json!([{"t": 1, "at": "2026-01-01T12:00:00Z"}])).await;
    let named = json!({"name": evil});
    server.api().patch("/devices/HOME-1").json(&named).await;
    let svg = picture(&server, DAY).await;
    let document = Document::parse(&svg).unwrap();
    assert!(!document.descendants().any(|node| node.has_tag_name("script")));
    let shown = evil.replace('\u{1}', "\u{fffd}");
    let title = document
        .descendants()
        .find(|node| node.has_tag_name("title"))
        .unwrap();
    let name = title.text().unwrap();
    assert!(name == shown || name == "Hall", "{name}");
    assert!(
        texts(&document)
            .iter()
            .any(|text| *text == shown || text.contains("alert")),
        "{svg}"
    );
    let kinds: Vec<&str> = document
        .descendants()
        .filter(roxmltree::Node::is_element)
        .map(|node| node.tag_name().name())
        .collect();
    let known = [
        "svg", "title", "style", "rect", "line", "polyline", "polygon", "circle", "text",
    ];
    assert!(kinds.iter().all(|kind| known.contains(kind)), "{kinds:?}");
}

#[tokio::test]
async fn its_style_suits_the_dark_and_nothing_else_may_load() {
    let server = server(json!({}), json!([{"t": 1, "at": "2026-01-01T12:00:00Z"}])).await;
    let answer: Answer = server.api().get(&format!("{PATH}?{DAY}")).await;
    let policy = answer.header("content-security-policy");
    let document = Document::parse(&answer.text).unwrap();
    let style = document
        .descendants()
        .find(|node| node.has_tag_name("style"))
        .unwrap();
    let style = style.text().unwrap();
    let hash = ring::digest::digest(&ring::digest::SHA256, style.as_bytes());
    let hash = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, hash);
    assert_eq!(
        policy,
        format!(
            "default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
    );
    assert!(style.contains("@media(prefers-color-scheme:dark)"));
    // Every colour that is drawn has another by night.
    for node in document.descendants() {
        for attribute in ["fill", "stroke"] {
            let Some(colour) = node.attribute(attribute).filter(|colour| colour.starts_with('#')) else {
                continue;
            };
            let rule = format!("[{attribute}=\"{colour}\"]{{{attribute}:#");
            assert!(style.contains(&rule), "{colour} of {}", node.tag_name().name());
        }
    }
}

#[tokio::test]
async fn what_cannot_be_drawn_is_refused() {
    let server = server(json!({}), json!([{"t": 1, "u": 2, "at": "2026-01-01T12:00:00Z"}])).await;
    let many: Vec<String> = (0..13).map(|n| format!("m{n}")).collect();
    let many = format!("metric={}", many.join(","));
    for (query, field, message) in [
        ("width=299", "width", "300 to 4000"),
        ("width=4001", "width", "300 to 4000"),
        ("height=119", "height", "120 to 4000"),
        ("height=4001", "height", "120 to 4000"),
        (
            &format!("{DAY}&height=120"),
            "height",
            "at least 216 for what is drawn",
        ),
        (
            "bucket=5",
            "bucket",
            "a whole number with s, m, h, d or w, from 1s to 366d: `5m`",
        ),
        (
            "from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z&bucket=1s",
            "bucket",
            "86400 buckets of 12 series are more than 100000 points: take wider buckets, a shorter range or fewer metrics",
        ),
        ("from=-1h&to=-2h", "from", "must not be after `to`"),
        (&many, "metric", "at most 12 in one picture"),
    ] {
        let errors = server.api().get(&format!("{PATH}?{query}")).await.invalid();
        assert_eq!(errors, json!({field: message}), "{query}");
    }
    let errors = server.api().get(&format!("{PATH}?fill=0")).await.invalid();
    assert!(errors["fill"].is_string(), "{errors}");
    server
        .api()
        .get("/devices/NOBODY/telemetry.svg")
        .await
        .problem(404, "not_found");
    server
        .api()
        .anonymous()
        .get(PATH)
        .await
        .problem(401, "unauthenticated");
}
