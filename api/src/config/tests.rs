use std::{fs, net::SocketAddr, path::Path, time::Duration};

use setpoint_model::Role;

use super::{Config, LogFormat, Sources};

fn environment(pairs: &[(&str, &str)]) -> Sources {
    let environment = pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    Sources {
        environment,
        ..Sources::default()
    }
}

fn error(sources: &Sources) -> String {
    Config::load(sources)
        .expect_err("the configuration was taken")
        .to_string()
}

fn written(text: &str) -> (tempfile::TempDir, Sources) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.toml");
    fs::write(&path, text).unwrap();
    (
        dir,
        Sources {
            file: Some(path),
            ..Sources::default()
        },
    )
}

#[test]
fn the_defaults_are_those_of_the_design() {
    let config = Config::load(&Sources::default()).unwrap();
    assert_eq!(config.data_dir, Path::new("./data"));
    assert_eq!(config.http.listen, SocketAddr::from(([127, 0, 0, 1], 8080)));
    assert_eq!(config.mqtt.listen, Some(SocketAddr::from(([127, 0, 0, 1], 1883))));
    assert_eq!(config.mqtt.websocket.as_deref(), Some("/mqtt"));
    assert_eq!(config.mqtt.shards, 64);
    assert_eq!(config.mqtt.broker(), setpoint_broker::Config::default());
    assert_eq!(config.mqtt.limits.connect_timeout, Duration::from_secs(5));
    assert_eq!(config.settings.max_document, 32 * 1024);
    assert_eq!(config.settings.max_depth, 8);
    assert_eq!(config.telemetry.max_batch, 1000);
    assert_eq!(config.mqtt.tls_address(), None);
    assert!(config.database.url.is_none());
}

#[test]
fn each_source_overrides_the_one_before() {
    let (_dir, mut sources) =
        written("[http]\nlisten = \"127.0.0.1:1\"\nmax_body = \"2 MiB\"\nrequest_timeout = \"1s\"");
    sources.environment = environment(&[
        ("SETPOINT_HTTP__LISTEN", "127.0.0.1:2"),
        ("SETPOINT_HTTP__REQUEST_TIMEOUT", "2s"),
        ("PATH", "/bin"),
    ])
    .environment;
    let config = Config::load(&sources.with("http.listen", "127.0.0.1:3")).unwrap();
    assert_eq!(config.http.listen.port(), 3);
    assert_eq!(config.http.request_timeout, Duration::from_secs(2));
    assert_eq!(config.http.max_body, 2 * 1024 * 1024);
}

#[test]
fn values_of_the_environment_take_the_type_of_their_key() {
    let config = Config::load(&environment(&[
        ("SETPOINT_DATA_DIR", "12"),
        ("SETPOINT_ADMIN__PASSWORD", "1234567890"),
        ("SETPOINT_MQTT__SHARDS", "8"),
        ("SETPOINT_ALLOW_PLAINTEXT", "true"),
        ("SETPOINT_LOG__FORMAT", "json"),
        ("SETPOINT_SIGN_IN__REQUIRE_TOTP_FOR", "[\"admin\", \"operator\"]"),
    ]))
    .unwrap();
    assert_eq!(config.sign_in.require_totp_for, [Role::Admin, Role::Operator]);
    assert_eq!(config.data_dir, Path::new("12"));
    assert_eq!(config.admin.password.as_deref(), Some("1234567890"));
    assert_eq!(config.mqtt.shards, 8);
    assert!(config.allow_plaintext);
    assert_eq!(config.log.format, LogFormat::Json);
}

#[test]
fn what_is_wrong_is_told_in_one_line_that_names_key_and_source() {
    let (dir, sources) = written("[http]\nlisen = \"127.0.0.1:1\"");
    let told = error(&sources);
    assert!(
        told.starts_with("http.lisen: unknown key; known: listen, max_body,"),
        "{told}"
    );
    assert!(told.contains("x.toml"), "{told}");
    drop(dir);

    for (name, value, expected) in [
        (
            "SETPOINT_HTTP__LISEN",
            "x",
            "http.lisen: unknown key; known: listen,",
        ),
        ("SETPOINT_HTP__LISTEN", "x", "htp: unknown key; known: data_dir,"),
        ("SETPOINT_LISTEN", "x", "listen: unknown key"),
        (
            "SETPOINT_MQTT__SHARDS",
            "many",
            "mqtt.shards: usize is needed, not string \"many\"",
        ),
        ("SETPOINT_MQTT__SHARDS", "0", "mqtt.shards: 1 to 1024"),
        (
            "SETPOINT_TELEMETRY__ROLLUP_LAG",
            "2days",
            "telemetry.rollup_lag: 0s to 1day",
        ),
        (
            "SETPOINT_TELEMETRY__ROLLUP_RETENTION_1M",
            "1h",
            "telemetry.rollup_retention_1m: 1day to 36525days",
        ),
        (
            "SETPOINT_TELEMETRY__ROLLUP_RETENTION_1H",
            "90days",
            "telemetry.rollup_retention_1h: at least telemetry.retention",
        ),
        ("SETPOINT_HTTP__LISTEN", "nowhere", "http.listen: "),
        (
            "SETPOINT_MQTT__LIMITS__CONNECT_TIMEOUT",
            "5",
            "mqtt.limits.connect_timeout: a duration such as",
        ),
        (
            "SETPOINT_MQTT__LIMITS__CONNECT_TIMEOUT",
            "0s",
            "mqtt.limits: connect_timeout must not be zero",
        ),
        (
            "SETPOINT_MQTT__LIMITS__MAX_KEEP_ALIVE",
            "20h",
            "mqtt.limits.max_keep_alive: whole seconds",
        ),
        ("SETPOINT_HTTP__MAX_BODY", "big", "http.max_body: a size such as"),
        ("SETPOINT_LOG__FORMAT", "xml", "log.format: "),
        (
            "SETPOINT_SIGN_IN__OIDC__CLIENT_ID",
            "setpoint",
            "sign_in.oidc.issuer: needed with client_id",
        ),
        (
            "SETPOINT_SIGN_IN__OIDC__ISSUER",
            "https://login.example",
            "sign_in.oidc.client_id: needed with issuer",
        ),
        (
            "SETPOINT_SIGN_IN__OIDC__ISSUER",
            "http://login.example",
            "sign_in.oidc.issuer: an address such as",
        ),
        (
            "SETPOINT_SIGN_IN__OIDC__ROLES",
            "{a = \"king\"}",
            "sign_in.oidc.roles",
        ),
        (
            "SETPOINT_SIGN_IN__REQUIRE_TOTP_FOR",
            "[\"king\"]",
            "sign_in.require_totp_for",
        ),
        (
            "SETPOINT_MQTT__TLS__CERT",
            "a.pem",
            "mqtt.tls.key: needed with mqtt.tls.cert",
        ),
        (
            "SETPOINT_MQTT__TLS__ENROL_MODEL",
            "home",
            "mqtt.tls.client_ca: needed with mqtt.tls.enrol_model",
        ),
        (
            "SETPOINT_MQTT__TLS__ENROL_MODEL",
            "Home!",
            "mqtt.tls.enrol_model: 1 to 64 of a-z 0-9",
        ),
        (
            "SETPOINT_MQTT__TLS__ENROL_PER_MINUTE",
            "0",
            "mqtt.tls.enrol_per_minute: at least 1",
        ),
        (
            "SETPOINT_MQTT__WEBSOCKET",
            "mqtt",
            "mqtt.websocket: a path such as",
        ),
    ] {
        let told = error(&environment(&[(name, value)]));
        assert!(told.starts_with(expected), "{name}={value}: {told}");
        assert!(!told.contains('\n'), "{told}");
    }
    let told = error(&environment(&[("SETPOINT_HTTP__LISEN", "x")]));
    assert!(
        told.ends_with("(environment variable SETPOINT_HTTP__LISEN)"),
        "{told}"
    );
    let told = error(&environment(&[("SETPOINT_HTP__LISTEN", "x")]));
    assert!(
        told.ends_with("(environment variable SETPOINT_HTP__LISTEN)"),
        "{told}"
    );
    let told = error(&Sources::default().with("http.x", "1"));
    assert!(told.ends_with("(on the command line)"), "{told}");
}

#[test]
fn a_file_that_is_not_there_or_not_toml_is_one_line() {
    let told = error(&Sources {
        file: Some("/nowhere/x.toml".into()),
        ..Sources::default()
    });
    assert!(told.starts_with("/nowhere/x.toml: "), "{told}");
    let (_dir, sources) = written("a = = 1");
    let told = error(&sources);
    assert!(
        told.contains("line 1") && told.contains("x.toml") && !told.contains('\n'),
        "{told}"
    );
    let absent = Sources {
        default_file: Some("/nowhere/x.toml".into()),
        ..Sources::default()
    };
    assert!(Config::load(&absent).is_ok());
}

#[test]
fn secrets_are_not_repeated() {
    for sources in [
        environment(&[("SETPOINT_DATABASE__URL", "mysql://u:hunter2@h/d")]),
        environment(&[("SETPOINT_ADMIN__PASSWORD", "hunter2")]),
        written("[admin]\npassword = 72727272").1,
        written("[sign_in.oidc]\nclient_secret = 72727272").1,
    ] {
        let told = error(&sources);
        assert!(!told.contains("hunter2") && !told.contains("72727272"), "{told}");
    }
    let config = Config::load(&environment(&[
        ("SETPOINT_DATABASE__URL", "postgres://u:hunter2@h/d"),
        ("SETPOINT_ADMIN__PASSWORD", "hunter2hunter2"),
        ("SETPOINT_SIGN_IN__OIDC__CLIENT_SECRET", "hunter2hunter2"),
    ]))
    .unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn plaintext_beyond_this_machine_has_to_be_allowed() {
    for key in ["http.listen", "mqtt.listen", "metrics.listen"] {
        let sources = Sources::default().with(key, "0.0.0.0:9");
        let told = error(&sources);
        assert!(
            told.starts_with(&format!("{key}: 0.0.0.0:9 can be reached")),
            "{told}"
        );
        assert!(Config::load(&sources.with("allow_plaintext", "true")).is_ok());
        assert!(Config::load(&Sources::default().with(key, "[::1]:9")).is_ok());
    }
    let tls = Sources::default()
        .with("mqtt.tls.cert", "c")
        .with("mqtt.tls.key", "k");
    let config = Config::load(&tls.with("mqtt.tls.listen", "0.0.0.0:8883")).unwrap();
    assert_eq!(
        config.mqtt.tls_address(),
        Some(SocketAddr::from(([0, 0, 0, 0], 8883)))
    );
}

#[test]
fn listeners_can_be_turned_off() {
    let config = Config::load(
        &Sources::default()
            .with("mqtt.listen", "off")
            .with("mqtt.websocket", "off"),
    )
    .unwrap();
    assert_eq!((config.mqtt.listen, config.mqtt.websocket), (None, None));
}

#[test]
fn the_example_for_production_is_valid() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/production.toml");
    let config = Config::load(&Sources {
        file: Some(file),
        ..Sources::default()
    })
    .unwrap();
    assert_eq!(config.log.format, LogFormat::Json);
}

#[test]
fn a_provider_needs_a_way_to_a_role() {
    let sources = Sources::default()
        .with("sign_in.oidc.issuer", "https://login.example")
        .with("sign_in.oidc.client_id", "setpoint");
    let told = error(&sources);
    assert!(
        told.starts_with("sign_in.oidc.roles: roles or default_role is needed"),
        "{told}"
    );
    let mapped = sources.with("sign_in.oidc.roles", "{staff = \"operator\"}");
    assert_eq!(
        Config::load(&mapped).unwrap().sign_in.oidc.roles["staff"],
        Role::Operator
    );
}

/// The compiled-in file explains every key: those with a value and, commented out, those without.
#[test]
fn the_default_file_names_every_key() {
    for optional in ["url", "bin", "password", "cert", "key", "client_ca"] {
        let line = format!("\n# {optional} = ");
        assert!(super::DEFAULTS.contains(&line), "{optional}");
    }
}

#[test]
fn webhooks_may_reach_what_is_named() {
    use setpoint_model::webhook::address::Allowed;
    let allowed = |value: &str| {
        let sources = Sources::default().with("webhooks.allow_private", value);
        Config::load(&sources).map(|config| config.webhooks.allow_private)
    };
    assert_eq!(allowed("true").unwrap(), Allowed::All);
    assert_eq!(allowed("false").unwrap(), Allowed::Networks(Vec::new()));
    let networks = vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
    assert_eq!(
        allowed("[\"10.0.0.0/8\", \"fd00::/8\"]").unwrap(),
        Allowed::Networks(networks)
    );
    let message = "webhooks.allow_private: networks such as [\"10.0.0.0/8\"], or true, are needed";
    for wrong in ["10.0.0.0/8", "[\"10.0.0.0\"]", "[\"10.0.0.0/40\"]", "7"] {
        let error = allowed(wrong).unwrap_err().to_string();
        assert!(error.starts_with(message), "{wrong}: {error}");
    }
}
