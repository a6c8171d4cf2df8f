use std::{collections::BTreeSet, fs, path::PathBuf, process::Command};

use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use serde_json::json;

use super::*;
use crate::{models::testing::arbitrary_definition, settings::testing::document};

fn model(fields: Value) -> Definition {
    Definition::parse(document(fields)).unwrap()
}

fn every_kind() -> Definition {
    model(json!({
        "title": "Home device",
        "settings": {
            "privacyMode": {"type": "boolean", "default": false, "title": "Privacy mode"},
            "reportInterval": {"type": "integer", "minimum": 10, "maximum": 3600, "default": 60,
                               "title": "Report interval", "unit": "s"},
            "temperatureUnit": {"type": "string", "enum": ["celsius", "fahrenheit"], "default": "celsius"},
            "label": {"type": "string", "maxLength": 40, "default": "", "title": "Label */ for ??/ people"},
            "offset": {"type": "number", "minimum": -5, "maximum": 5.5, "default": -0.5, "unit": "°C",
                       "x-min-firmware": "1.4.0", "description": "Added to what is measured."},
            "hardware": {"type": "string", "readOnly": true, "default": "rev \"B\""},
            "default": {"type": "integer"},
            "windows": {"type": "array", "items": {"type": "string"}, "default": ["22:00"]},
        },
        "telemetry": {"temperature": {"unit": "°C", "title": "Temperature"}, "door.open": {}},
    }))
}

#[test]
fn the_header_of_every_kind_of_setting() {
    let header = header(&"home".parse().unwrap(), 7, &every_kind());
    assert_eq!(header, include_str!("tests/home.h"));
}

/// What is left of C without its comments and literals, or `None` if one of them doesn't end.
fn bare(text: &str) -> Option<String> {
    let mut rest = text;
    let mut bare = String::new();
    while let Some(c) = rest.chars().next() {
        if let Some(comment) = rest.strip_prefix("/*") {
            let (inside, behind) = comment.split_once("*/")?;
            assert!(!inside.contains("/*") && !inside.contains('\n'), "{inside}");
            rest = behind;
        } else if let Some(mut literal) = rest.strip_prefix('"') {
            loop {
                let mut characters = literal.chars();
                match characters.next()? {
                    '"' => break,
                    '\n' => return None,
                    '\\' => assert!(matches!(characters.next()?, '"' | '\\' | '?' | '0'..='3')),
                    other => assert!(other.is_ascii(), "{other}"),
                }
                literal = characters.as_str();
            }
            rest = literal.strip_prefix('"')?;
            bare.push('S');
        } else {
            bare.push(c);
            rest = rest.strip_prefix(c)?;
        }
    }
    Some(bare)
}

proptest! {
#![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn nothing_a_model_says_gets_out_of_its_comment_or_literal(model in arbitrary_definition(), version in 1..i32::MAX) {
        let header = header(&"any".parse().unwrap(), version, &model);
        prop_assert!(!header.contains("??"), "a trigraph: {header}");
        let bare = bare(&header);
        prop_assert!(bare.is_some(), "an open comment or literal: {header}");
        let bare = bare.unwrap();
        prop_assert!(bare.chars().all(|c| c == '\n' || (' '..='~').contains(&c)), "{bare}");
        let known = ["#ifndef ", "#define ", "#include <std", "#endif ", "enum ", "struct ", "    ", "}", ""];
        for line in bare.lines() {
            prop_assert!(known.iter().any(|known| line.starts_with(known) && !known.is_empty()) || line.trim().is_empty(), "{line:?}");
        }
        let defined: Vec<&str> =
            bare.lines().filter_map(|line| line.strip_prefix("#define ")?.split(' ').next()).collect();
        let different: BTreeSet<&&str> = defined.iter().collect();
        prop_assert_eq!(different.len(), defined.len());
    }
}

/// A program that uses what a header declares.
fn program(name: &str, model: &Definition) -> String {
    let (macros, tag) = (upper(name), lower(name));
    let mut program = format!("#include \"{name}.h\"\n#include \"{name}.h\"\nint version_{tag}(void);\n");
    program.push_str(&format!(
        "int version_{tag}(void) {{ return SETPOINT_MODEL_{macros}_VERSION; }}\n"
    ));
    if !model.settings.is_empty() {
        program.push_str(&format!(
            "extern const struct setpoint_model_{tag}_settings defaults_{tag};\n\
             const struct setpoint_model_{tag}_settings defaults_{tag} = SETPOINT_MODEL_{macros}_DEFAULTS;\n"
        ));
    }
    program
}

#[test]
fn compilers_take_whatever_a_model_says() {
    if Command::new("cc").arg("--version").output().is_err() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut runner = TestRunner::deterministic();
    let arbitrary = arbitrary_definition();
    let mut models = vec![every_kind(), model(json!({"settings": {}}))];
    models.extend((0..100).map(|_| arbitrary.new_tree(&mut runner).unwrap().current()));
    let files: Vec<PathBuf> = (0_usize..)
        .zip(&models)
        .map(|(number, model)| {
            let name = format!("m{number}");
            let header = header(&name.parse().unwrap(), 1, model);
            fs::write(folder.path().join(format!("{name}.h")), header).unwrap();
            let file = folder.path().join(format!("{name}.c"));
            fs::write(&file, program(&name, model)).unwrap();
            file
        })
        .collect();
    for dialect in ["c99", "gnu17"] {
        let output = Command::new("cc")
            .args([
                &format!("-std={dialect}"),
                "-Wall",
                "-Wextra",
                "-Werror",
                "-fsyntax-only",
            ])
            .args(&files)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{dialect}: {said}");
    }
}

#[test]
fn names_that_meet_are_told_apart() {
    let model = model(json!({"settings": {
        "fooBar": {"type": "string", "enum": ["°", "é", ""]}, "foo_bar": {"type": "string", "enum": ["x"]},
        "foo.bar": {"type": "boolean"},
    }}));
    let header = header(&"a".parse().unwrap(), 1, &model);
    let fields: Vec<&str> = header
        .lines()
        .filter(|line| line.ends_with(';') && line.starts_with("    "))
        .collect();
    assert_eq!(
        fields,
        [
            "    bool foo_bar;",
            "    enum setpoint_model_a_foo_bar_2 foo_bar_2;",
            "    enum setpoint_model_a_foo_bar_3 foo_bar_3;",
        ]
    );
}
