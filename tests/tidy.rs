//! What the architecture says and Cargo can't enforce.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every file below the folders with one of the extensions: its path from the root, and its text.
fn files(folders: &[&str], extensions: &[&str]) -> Vec<(String, String)> {
    let (root, mut found) = (root(), Vec::new());
    let mut folders: Vec<PathBuf> = folders.iter().map(|folder| root.join(folder)).collect();
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if path.file_name().is_some_and(|name| name != "target") {
                    folders.push(path);
                }
            } else if path
                .extension()
                .is_some_and(|end| extensions.iter().any(|wanted| end == *wanted))
            {
                let name = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(!found.is_empty(), "nothing to look at");
    found.sort();
    found
}

/// Whether a file holds tests alone.
fn is_test(name: &str) -> bool {
    name.ends_with("tests.rs")
        || name.contains("/tests/")
        || name.starts_with("tests/")
        || name.contains("/testing")
}

/// The code of a file: no comments, and nothing from its `mod tests` on.
fn code(text: &str) -> String {
    let before_tests = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    let lines = before_tests
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The production code of these folders.
fn sources(folders: &[&str]) -> Vec<(String, String)> {
    let all = files(folders, &["rs"])
        .into_iter()
        .filter(|(name, _)| !is_test(name));
    all.map(|(name, text)| (name, code(&text))).collect()
}

#[track_caller]
fn none(found: Vec<String>, rule: &str) {
    assert!(found.is_empty(), "{rule}:\n{}", found.join("\n"));
}

/// Files of `folders` whose code holds one of `words`.
fn holding(folders: &[&str], words: &[&str]) -> Vec<String> {
    let hit = |(name, code): &(String, String)| {
        words
            .iter()
            .find(|word| code.contains(*word))
            .map(|word| format!("{name}: {word}"))
    };
    sources(folders).iter().filter_map(hit).collect()
}

#[test]
fn heavy_dependencies_stand_in_one_manifest_each() {
    for (dependency, home) in [
        ("sqlx", "store"),
        ("rumqttd", "broker"),
        ("axum", "api"),
        ("figment", "api"),
        ("rumqttc", "device-sim"),
    ] {
        for member in ["model", "store", "broker", "api", "device-sim"] {
            let manifest = fs::read_to_string(root().join(member).join("Cargo.toml")).unwrap();
            let production = manifest.split("[dev-dependencies]").next().unwrap();
            let there = production.lines().any(|line| {
                line.starts_with(&format!("{dependency}.")) || line.starts_with(&format!("{dependency} "))
            });
            assert_eq!(there, member == home, "{dependency} in {member}/Cargo.toml");
        }
    }
}

#[test]
fn members_depend_downwards_alone() {
    for (member, allowed) in [
        ("model", &[][..]),
        ("store", &["setpoint-model"]),
        ("broker", &["setpoint-model"]),
        ("device-sim", &["setpoint-model"]),
        ("api", &["setpoint-model", "setpoint-store", "setpoint-broker"]),
    ] {
        let manifest = fs::read_to_string(root().join(member).join("Cargo.toml")).unwrap();
        let production = manifest.split("[dev-dependencies]").next().unwrap();
        let (_, dependencies) = production.split_once("[dependencies]").unwrap();
        for ours in [
            "setpoint-model",
            "setpoint-store",
            "setpoint-broker",
            "setpoint-api",
            "device-sim",
        ] {
            let there = dependencies.lines().any(|line| line.starts_with(ours));
            assert!(!there || allowed.contains(&ours), "{member} depends on {ours}");
        }
    }
}

#[test]
fn use_cases_know_no_transport() {
    none(
        holding(&["api/src/app"], &["axum", "crate::http", "StatusCode"]),
        "app never names axum or http",
    );
    none(
        holding(&["api/src/http", "api/src/tasks"], &["sqlx", "query!("]),
        "SQL is the store's",
    );
    none(
        holding(&["store/src", "model/src"], &["axum", "rumqttd", "rumqttc"]),
        "neither the store nor the model",
    );
    none(
        holding(&["broker/src", "model/src"], &["sqlx", "setpoint_store"]),
        "the broker never sees SQL",
    );
    none(
        holding(&["model/src"], &["tokio::", "async fn"]),
        "the model is pure",
    );
    none(
        holding(&["store/src"], &["setpoint_broker", "setpoint_api"]),
        "the store knows neither broker nor api",
    );
}

#[test]
fn handlers_go_through_use_cases() {
    let direct = holding(
        &["api/src/http"],
        &["app.store", ".broker.publish", "setpoint_store::Store"],
    );
    none(direct, "http calls app, never the store or the broker");
}

#[test]
fn routes_are_described() {
    // Pages, and what describes or carries itself.
    let others = ["activate", "docs", "metrics", "openapi", "websocket"];
    let bare = holding(&["api/src/http"], &[".route("])
        .into_iter()
        .filter(|found| {
            !others
                .iter()
                .any(|name| found.starts_with(&format!("api/src/http/{name}")))
        });
    none(
        bare.collect(),
        "a route of the API is made with `routes!`, which also describes it",
    );
}

#[test]
fn topics_are_built_and_parsed_in_one_place() {
    let built = sources(&[
        "model/src",
        "store/src",
        "broker/src",
        "api/src",
        "device-sim/src",
    ])
    .into_iter()
    .filter(|(name, _)| name != "model/src/topic.rs")
    // Routes are made of paths, which begin with a slash.
    .filter(|(_, code)| code.contains("\"devices/") || code.contains("format!(\"devices"))
    .map(|(name, _)| name);
    none(
        built.collect(),
        "model/src/topic.rs alone builds and parses topics",
    );
}

#[test]
fn a_noun_has_the_same_name_at_every_layer() {
    let nouns = |folder: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(root().join(folder)).unwrap();
        let names = entries.map(|entry| {
            entry
                .unwrap()
                .path()
                .file_stem()
                .unwrap()
                .to_string_lossy()
                .into_owned()
        });
        names.collect()
    };
    let (http, app, store) = (nouns("api/src/http"), nouns("api/src/app"), nouns("store/src"));
    for noun in [
        "alerts",
        "audit",
        "changes",
        "credentials",
        "devices",
        "factory",
        "groups",
        "models",
        "owners",
        "schedules",
        "settings",
        "telemetry",
        "timeline",
        "tokens",
        "totp",
        "users",
        "webhooks",
    ] {
        for (layer, names) in [("http", &http), ("app", &app), ("store", &store)] {
            assert!(names.contains(noun), "{layer} has no file for {noun}");
        }
    }
}

#[test]
fn files_have_one_subject_and_stay_short() {
    let folders = ["model", "store", "broker", "api", "device-sim", "tests"];
    let long = files(&folders, &["rs"]).into_iter().filter_map(|(name, text)| {
        let lines = text.lines().count();
        (lines > 400).then(|| format!("{name}: {lines} lines"))
    });
    none(long.collect(), "no file over 400 lines");
    let vague = files(&folders, &["rs"])
        .into_iter()
        .map(|(name, _)| name)
        .filter(|name| {
            let stem = Path::new(name).file_stem().unwrap();
            ["utils", "util", "common", "helpers", "misc"]
                .iter()
                .any(|vague| stem == *vague)
        });
    none(vague.collect(), "a file is named by its subject");
}

#[test]
fn every_migration_says_why() {
    let silent = files(&["migrations"], &["sql"])
        .into_iter()
        .filter(|(_, text)| !text.starts_with("-- "));
    none(
        silent.map(|(name, _)| name).collect(),
        "a migration begins with a comment",
    );
    let mut numbers: Vec<u32> = Vec::new();
    for (name, _) in files(&["migrations"], &["sql"]) {
        let file = name.strip_prefix("migrations/").unwrap();
        numbers.push(
            file[..4]
                .parse()
                .unwrap_or_else(|_| panic!("{name} has no number")),
        );
    }
    let mut unique = numbers.clone();
    unique.dedup();
    assert_eq!(numbers, unique, "each number once");
}

#[test]
fn every_file_says_what_it_is() {
    let folders = [
        "model/src",
        "store/src",
        "broker/src",
        "api/src",
        "device-sim/src",
        "tests",
    ];
    let silent = files(&folders, &["rs"])
        .into_iter()
        .filter(|(name, text)| !text.starts_with("//!") && !is_inner_test(name))
        .map(|(name, _)| name);
    none(silent.collect(), "a file begins with what it is about");
}

/// Unit tests beside their module need no words of their own.
fn is_inner_test(name: &str) -> bool {
    !name.starts_with("tests/") && is_test(name)
}

#[test]
fn nothing_is_left_for_later() {
    // Spelt so that this file is not found.
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("X", "XX"),
        concat!("unimpl", "emented!"),
    ];
    let folders = [
        "model",
        "store",
        "broker",
        "api",
        "device-sim",
        "tests",
        "migrations",
        "config",
        "docs",
    ];
    let found = files(&folders, &["rs", "sql", "toml", "md"])
        .into_iter()
        .flat_map(|(name, text)| {
            let hits = words.iter().filter(|word| text.contains(*word));
            hits.map(|word| format!("{name}: {word}")).collect::<Vec<_>>()
        });
    none(found.collect(), "what is there is done");
    let ignored = files(&folders, &["rs"])
        .into_iter()
        .filter(|(_, text)| text.contains(concat!("#[ign", "ore")));
    none(
        ignored.map(|(name, _)| name).collect(),
        "a test that doesn't run proves nothing",
    );
}

#[test]
fn every_configuration_key_is_explained() {
    let text = fs::read_to_string(root().join("config/default.toml")).unwrap();
    let mut unexplained = Vec::new();
    // A comment speaks for the keys that follow it, up to an empty line.
    let mut explained = false;
    for line in text.lines() {
        if line.is_empty() || line.starts_with('[') {
            explained = false;
        } else if line.starts_with('#') {
            explained = true;
        } else if !explained {
            unexplained.push(line.to_owned());
        }
    }
    none(unexplained, "config/default.toml explains every key");
}

#[test]
fn tests_wait_for_events_and_never_sleep() {
    let all = files(
        &[
            "tests",
            "model/src",
            "store/src",
            "broker/src",
            "api/src",
            "device-sim/src",
        ],
        &["rs"],
    );
    let sleeping = all
        .into_iter()
        .filter(|(name, _)| is_test(name) && name != "tests/harness/wait.rs" && name != "tests/tidy.rs")
        // Polling has a short pause; a pause of seconds hopes for something.
        .filter(|(_, text)| text.contains("sleep(Duration::from_secs"));
    none(
        sleeping.map(|(name, _)| name).collect(),
        "a test waits for the event",
    );
}
