use serde_json::json;

use super::*;

fn reading() -> Reading {
    Reading {
        dry_run: false,
        model: "home".to_owned(),
        max_bytes: 1 << 20,
    }
}

fn read_all(file: impl Read, reading: &Reading) -> Result<Batch, Unreadable> {
    let (batches, mut received) = mpsc::channel(64);
    let outcome = read(file, reading, &batches);
    drop(batches);
    let mut all = Batch::default();
    while let Some(batch) = received.blocking_recv() {
        all.counted += batch.counted;
        all.error_count += batch.error_count;
        all.lines.extend(batch.lines);
        all.errors.extend(batch.errors);
    }
    outcome.map(|()| all)
}

fn errors(file: &str) -> Vec<(i64, String)> {
    let batch = read_all(file.as_bytes(), &reading()).unwrap();
    batch
        .errors
        .into_iter()
        .map(|error| (error.line, error.field))
        .collect()
}

#[test]
fn columns_stand_in_any_order_and_what_is_empty_has_its_default() {
    let file = "\u{feff}secret, Serial ,tags,name\ns1,A-1,site=oslo; floor=2;spare=true,\"Hall, \"\"1\"\"\"\n,A-2,,\r\n";
    let batch = read_all(file.as_bytes(), &reading()).unwrap();
    assert_eq!((batch.counted, batch.error_count), (2, 0), "{:?}", batch.errors);
    let [first, second] = &batch.lines[..] else {
        panic!("{batch:?}")
    };
    assert_eq!(first.device.serial.as_str(), "A-1");
    assert_eq!(first.device.description.name, "Hall, \"1\"");
    assert_eq!(
        first.device.description.tags.to_json(),
        json!({"site": "oslo", "floor": 2, "spare": true})
    );
    assert!(first.secret.unwrap().matches(&SecretHash::of(b"s1")));
    assert_eq!((first.line, second.line), (2, 3));
    assert_eq!(
        (second.device.description.model.as_str(), second.secret.is_none()),
        ("home", true)
    );
}

#[test]
fn what_is_wrong_is_told_by_line_and_column() {
    let file = "serial,secret,tags\nA,s,\n-,s,\nB\nC,s,x\nD,s,a=1;a=2\n";
    let expected = [(3, "serial"), (4, "line"), (5, "tags"), (6, "tags")];
    let expected: Vec<_> = expected.map(|(line, field)| (line, field.to_owned())).into();
    assert_eq!(errors(file), expected);
    let broken = [&b"serial\nA\n\xff\nB\n"[..]].concat();
    let batch = read_all(&broken[..], &reading()).unwrap();
    assert_eq!((batch.lines.len(), batch.errors[0].line), (2, 3));
}

#[test]
fn errors_are_counted_all_and_told_in_part() {
    let mut file = "serial\n".to_owned();
    for _ in 0..2 * MAX_ERRORS {
        file.push_str("-\n");
    }
    let batch = read_all(file.as_bytes(), &reading()).unwrap();
    assert_eq!(batch.error_count, 2 * MAX_ERRORS as i64);
    assert_eq!(batch.errors.len(), MAX_ERRORS);
}

#[test]
fn a_header_that_will_not_do_is_refused() {
    for (file, named) in [
        ("", "serial"),
        ("A-1,secret\n", "A-1"),
        ("secret\nx\n", "serial"),
        ("serial,serial\n", "serial"),
        ("serial,colour\n", "colour"),
    ] {
        match read_all(file.as_bytes(), &reading()) {
            Err(Unreadable::Column { column, .. }) => assert_eq!(column, named, "{file}"),
            other => panic!("{file}: {other:?}"),
        }
    }
}

#[test]
fn neither_a_file_nor_a_line_is_read_beyond_its_limit() {
    let small = Reading {
        max_bytes: 20_000,
        ..reading()
    };
    let long = "serial\n".to_owned() + &"A\n".repeat(20_000);
    let outcome = read_all(long.as_bytes(), &small);
    assert!(
        matches!(outcome, Err(Unreadable::TooLarge { limit: 20_000 })),
        "{outcome:?}"
    );
    // A quote that never ends would gather the whole file.
    let endless = io::Cursor::new(b"serial\n\"").chain(io::repeat(b'A'));
    let unbounded = Reading {
        max_bytes: u64::MAX,
        ..reading()
    };
    let outcome = read_all(endless, &unbounded);
    assert!(matches!(outcome, Err(Unreadable::Broken(_))), "{outcome:?}");
}
