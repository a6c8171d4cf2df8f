use std::os::unix::fs::symlink;

use super::*;

/// A directory with an `initdb`, and a `postgres` of that version.
fn install(dir: &Path, version: &str) {
    fs::create_dir_all(dir).unwrap();
    for (name, text) in [
        ("initdb", String::new()),
        ("postgres", format!("echo 'postgres (PostgreSQL) {version}'")),
    ] {
        fs::write(dir.join(name), format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
}

fn version(major: u32, minor: u32) -> Version {
    Version { major, minor }
}

/// Reads the version that [`install`] wrote, without running the script.
fn written_version(dir: &Path) -> Option<Version> {
    Version::parse(&fs::read_to_string(dir.join("postgres")).ok()?)
}

#[test]
fn versions_are_read_from_every_vendors_text() {
    for (text, found) in [
        (
            "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)",
            Some(version(15, 18)),
        ),
        ("postgres (PostgreSQL) 17.10", Some(version(17, 10))),
        ("postgres (PostgreSQL) 17.2 (Homebrew)", Some(version(17, 2))),
        ("postgres (PostgreSQL) 19beta1", Some(version(19, 0))),
        ("postgres (PostgreSQL) 9.6.24", Some(version(9, 6))),
        ("command not found", None),
    ] {
        assert_eq!(Version::parse(text), found, "{text}");
    }
}

#[test]
fn path_comes_first_then_the_newest_installed_and_links_are_followed_once() {
    let root = tempfile::tempdir().unwrap();
    let at = |path: &str| fs::canonicalize(root.path()).unwrap().join(path);
    install(&at("usr/lib/postgresql/9.6/bin"), "9.6.24");
    install(&at("usr/lib/postgresql/15/bin"), "15.8");
    install(&at("usr/lib/postgresql/16/bin"), "16.4");
    install(&at("usr/pgsql-17/bin"), "17.1");
    install(&at("Cellar/postgresql@18/18.1/bin"), "18.1");
    fs::create_dir_all(at("opt/homebrew/opt")).unwrap();
    symlink(
        at("Cellar/postgresql@18/18.1"),
        at("opt/homebrew/opt/postgresql@18"),
    )
    .unwrap();
    // The directory in PATH links to one program alone; initdb is beside the real one.
    fs::create_dir_all(at("bin")).unwrap();
    symlink(at("usr/lib/postgresql/15/bin/postgres"), at("bin/postgres")).unwrap();
    // No initdb: a client-only or broken installation.
    install(&at("usr/pgsql-18/bin"), "18.1");
    fs::remove_file(at("usr/pgsql-18/bin/initdb")).unwrap();

    let path = std::env::join_paths([PathBuf::from("relative"), at("empty"), at("bin")]).unwrap();
    let search = Search {
        path: Some(path),
        root: at(""),
    };
    assert_eq!(
        search.candidates(),
        [
            at("usr/lib/postgresql/15/bin"),
            at("usr/lib/postgresql/16/bin"),
            at("usr/lib/postgresql/9.6/bin"),
            at("usr/pgsql-17/bin"),
            at("Cellar/postgresql@18/18.1/bin"),
        ]
    );

    let chosen = |made_by| choose(search.candidates(), made_by, written_version).map(|found| found.version);
    assert_eq!(chosen(None), Ok(version(15, 8)));
    assert_eq!(chosen(Some(17)), Ok(version(17, 1)));
    assert_eq!(chosen(Some(14)).unwrap_err().unwrap().version, version(9, 6));
    assert_eq!(Search::nowhere().candidates(), Vec::<PathBuf>::new());
}

#[test]
fn only_one_that_is_too_old_is_named_in_the_message() {
    let root = tempfile::tempdir().unwrap();
    let dir = fs::canonicalize(root.path())
        .unwrap()
        .join("usr/lib/postgresql/14/bin");
    install(&dir, "14.2");
    let search = Search {
        path: None,
        root: root.path().to_owned(),
    };
    let nothing = root.path().join("nothing");
    let error = find(None, Fetch::Never, &search, &nothing, &nothing, None).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "PostgreSQL 14.2 in {} is too old: Setpoint needs 15 or newer",
            dir.display()
        )
    );
    let error = find(None, Fetch::Never, &search, &nothing, &nothing, Some(16)).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("no PostgreSQL 16 found: install it"),
        "{error}"
    );
}

#[test]
fn the_directory_given_is_used_alone_and_has_to_fit_the_data() {
    let root = tempfile::tempdir().unwrap();
    let root = fs::canonicalize(root.path()).unwrap();
    install(&root.join("bin"), "17.1");
    let given =
        |dir: &str, made_by| check_given(&root.join(dir), Path::new("data"), made_by, written_version);
    assert_eq!(
        given("bin", None).unwrap(),
        Binaries {
            dir: root.join("bin"),
            version: version(17, 1)
        }
    );
    assert!(given("bin", Some(17)).is_ok());
    assert_eq!(
        given("bin", Some(15)).unwrap_err().to_string(),
        "data was made by PostgreSQL 15, but database.embedded.bin is 17.1"
    );
    assert!(matches!(given("elsewhere", None), Err(Error::NotBinaries { .. })));
}
