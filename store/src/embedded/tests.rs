use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::LazyLock,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, Uid},
};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use super::{account::Account, *};
use crate::{PoolOptions, Store};

/// An empty data directory that Postgres's user can reach.
fn data_dir() -> TempDir {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::Builder::new()
        .prefix("setpoint-embedded-")
        .tempdir_in(throwaway::base_directory())
        .unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

/// A data directory with a new cluster, copied from one that is made once.
fn data_dir_with_cluster() -> TempDir {
    static MADE: LazyLock<PathBuf> = LazyLock::new(|| {
        let dir = data_dir().keep();
        // Goes when this process has ended.
        guard::spawn(std::process::id(), &dir, "QUIT", Some(&dir)).unwrap();
        let home = Home::create(&dir).unwrap();
        let account = Account::choose(&home.data).unwrap();
        let binaries = binaries::find(
            None,
            Fetch::Never,
            &Search::system(),
            &home.binaries,
            &home.data,
            None,
        )
        .unwrap();
        cluster::initdb(&home.data, &binaries, account.as_ref(), "C", &["--no-sync"]).unwrap();
        home.home
    });
    let dir = data_dir();
    let copied = Command::new("cp")
        .arg("-a")
        .arg(&*MADE)
        .arg(dir.path())
        .status()
        .unwrap();
    assert!(copied.success());
    dir
}

fn config(dir: &Path) -> EmbeddedConfig {
    EmbeddedConfig {
        fetch: Fetch::Never,
        ..EmbeddedConfig::new(dir)
    }
}

async fn open(embedded: &Embedded) -> Store {
    Store::open(&embedded.connect_options(), &PoolOptions::default())
        .await
        .unwrap()
}

async fn write(store: &Store, value: i32) {
    sqlx::raw_sql("CREATE TABLE IF NOT EXISTS kept (value int)")
        .execute(&store.pool)
        .await
        .unwrap();
    sqlx::query("INSERT INTO kept VALUES ($1)")
        .bind(value)
        .execute(&store.pool)
        .await
        .unwrap();
}

async fn read(store: &Store) -> crate::Result<Vec<i32>> {
    Ok(sqlx::query_scalar("SELECT value FROM kept ORDER BY value")
        .fetch_all(&store.pool)
        .await?)
}

/// Tries until the answer comes; errors may only be "unavailable".
async fn read_when_back(store: &Store) -> Vec<i32> {
    let read = async {
        loop {
            match read(store).await {
                Ok(values) => return values,
                Err(error) => assert!(error.is_unavailable(), "{error:?}"),
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(60), read)
        .await
        .expect("Postgres comes back")
}

#[tokio::test]
async fn data_survive_a_stop_and_a_start() {
    let dir = data_dir();
    let embedded = start(config(dir.path())).await.unwrap();
    let pid = embedded.pid().unwrap();
    let store = open(&embedded).await;
    write(&store, 1).await;
    store.close().await;
    embedded.stop().await;
    assert!(kill(Pid::from_raw(pid), None).is_err(), "Postgres has ended");
    assert!(
        !dir.path().join("postgres/data/postmaster.pid").exists(),
        "in order"
    );

    let embedded = start(config(dir.path())).await.unwrap();
    let store = open(&embedded).await;
    assert_eq!(read(&store).await.unwrap(), [1]);
    let settings: (String, String, String) = sqlx::query_as(
        "SELECT current_setting('listen_addresses'), current_setting('fsync'), current_setting('data_checksums')",
    )
    .fetch_one(&store.pool)
    .await
    .unwrap();
    assert_eq!(settings, (String::new(), "on".to_owned(), "on".to_owned()));
    store.close().await;
    embedded.stop().await;
}

#[tokio::test]
async fn a_second_server_on_the_same_data_is_told_who_has_them() {
    let dir = data_dir_with_cluster();
    let embedded = start(config(dir.path())).await.unwrap();
    let error = start(config(dir.path())).await.unwrap_err();
    let home = fs::canonicalize(dir.path()).unwrap().join("postgres");
    let expected = format!(
        "another Setpoint server (process {}) already uses {}",
        std::process::id(),
        home.display()
    );
    assert_eq!(error.to_string(), expected);
    // The first one is unharmed.
    open(&embedded).await.ping().await.unwrap();
    embedded.stop().await;
}

#[tokio::test]
async fn postgres_is_started_again_after_a_kill_and_the_pool_finds_it() {
    let dir = data_dir_with_cluster();
    let embedded = start(config(dir.path())).await.unwrap();
    let store = open(&embedded).await;
    write(&store, 7).await;
    let first = embedded.pid().unwrap();
    kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
    assert_eq!(read_when_back(&store).await, [7]);
    // Once more: the pause grows, the result is the same.
    let second = timeout(Duration::from_secs(60), async {
        loop {
            match embedded.pid() {
                Some(pid) if pid != first => return pid,
                _ => sleep(Duration::from_millis(5)).await,
            }
        }
    });
    kill(Pid::from_raw(second.await.unwrap()), Signal::SIGKILL).unwrap();
    assert_eq!(read_when_back(&store).await, [7]);
    store.close().await;
    embedded.stop().await;
}

#[tokio::test]
async fn a_stop_during_the_pause_before_a_restart_ends_at_once() {
    let dir = data_dir_with_cluster();
    let embedded = start(config(dir.path())).await.unwrap();
    let pid = embedded.pid();
    kill(Pid::from_raw(pid.unwrap()), Signal::SIGKILL).unwrap();
    // On a busy machine the pause may be over, and the next one there.
    while embedded.pid() == pid {
        sleep(Duration::from_millis(1)).await;
    }
    timeout(Duration::from_secs(60), embedded.stop()).await.unwrap();
    let embedded = start(config(dir.path())).await.unwrap();
    open(&embedded).await.close().await;
    embedded.stop().await;
}

#[tokio::test]
async fn a_path_too_long_for_a_socket_gets_a_short_one() {
    let dir = data_dir();
    let long = dir.path().join("d".repeat(90));
    let embedded = start(config(&long)).await.unwrap();
    let socket = embedded.socket.clone();
    assert!(!socket.starts_with(dir.path()));
    assert!(socket.join(cluster::SOCKET_NAME).as_os_str().len() <= 103);
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&socket).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o700);
    open(&embedded).await.ping().await.unwrap();
    embedded.stop().await;
    fs::remove_dir_all(socket).unwrap();
}

#[tokio::test]
async fn an_interrupted_initdb_is_done_again() {
    let dir = data_dir();
    let unfinished = dir.path().join("postgres/data.new");
    fs::create_dir_all(unfinished.join("base")).unwrap();
    fs::write(unfinished.join("PG_VERSION"), "15\n").unwrap();
    let embedded = start(config(dir.path())).await.unwrap();
    assert!(!unfinished.exists());
    open(&embedded).await.ping().await.unwrap();
    embedded.stop().await;
}

#[tokio::test]
async fn what_is_no_cluster_is_left_alone() {
    let dir = data_dir();
    let data = dir.path().join("postgres/data");
    fs::create_dir_all(&data).unwrap();
    fs::write(data.join("precious"), "mine").unwrap();
    let error = start(config(dir.path())).await.unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("is not a PostgreSQL data directory (it has no PG_VERSION)"),
        "{error}"
    );
    assert_eq!(fs::read_to_string(data.join("precious")).unwrap(), "mine");
}

#[tokio::test]
async fn a_bad_setting_is_named_in_the_error() {
    let dir = data_dir_with_cluster();
    let config = EmbeddedConfig {
        shared_buffers: "lots".to_owned(),
        ..config(dir.path())
    };
    let error = start(config).await.unwrap_err().to_string();
    assert_eq!(
        error,
        r#"PostgreSQL did not start: invalid value for parameter "shared_buffers": "lots""#
    );
}

#[tokio::test]
async fn lock_files_that_name_a_living_stranger_do_not_stop_the_start() {
    let dir = data_dir_with_cluster();
    let embedded = start(config(dir.path())).await.unwrap();
    embedded.stop().await;
    // As after a crash, when the old process id belongs to another process by now.
    let stranger = std::process::id();
    let home = dir.path().join("postgres");
    let data = home.join("data");
    let text = format!(
        "{stranger}\n{}\n1700000000\n5432\n{}\n",
        data.display(),
        home.join("run").display()
    );
    fs::write(data.join("postmaster.pid"), &text).unwrap();
    fs::write(
        home.join("run").join(format!("{}.lock", cluster::SOCKET_NAME)),
        &text,
    )
    .unwrap();
    let embedded = start(config(dir.path())).await.unwrap();
    open(&embedded).await.ping().await.unwrap();
    embedded.stop().await;
}

#[test]
fn a_closed_directory_above_the_data_is_named_with_the_cure() {
    use std::os::unix::fs::PermissionsExt;
    if !Uid::effective().is_root() {
        // Only root hands Postgres to another user; for anyone else every directory it can use will do.
        assert!(Account::choose(Path::new("/nowhere")).unwrap().is_none());
        return;
    }
    let dir = data_dir();
    let closed = dir.path().join("closed");
    fs::create_dir_all(closed.join("inner")).unwrap();
    let account = Account::choose(Path::new("/nowhere")).unwrap().unwrap();
    account.check_reach(&closed.join("inner")).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    let error = account
        .check_reach(&closed.join("inner"))
        .unwrap_err()
        .to_string();
    let closed = closed.display();
    assert!(
        error.contains(&format!("cannot enter {closed}: run chmod o+x {closed}")),
        "{error}"
    );
    assert_eq!(error.lines().count(), 1);
}

/// The environment variable that has a test below play the server that is to be killed, on that directory.
const SERVE: &str = "SETPOINT_TEST_SERVE";

/// Plays that server, and never returns, when told to.
async fn serve_if_told() {
    let Some(dir) = std::env::var_os(SERVE) else {
        return;
    };
    let embedded = start(config(Path::new(&dir))).await.unwrap();
    write(&open(&embedded).await, 42).await;
    println!("\nready {}", embedded.pid().unwrap());
    std::future::pending::<()>().await;
}

/// Starts this program again as a server on that directory; returns it and its postmaster.
fn server_process(test: &str, dir: &Path) -> (Child, i32) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("embedded::tests::{test}"), "--nocapture"])
        .env(SERVE, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap);
    let pid = lines
        .find_map(|line| line.strip_prefix("ready ")?.parse().ok())
        .expect("the server is ready");
    (child, pid)
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn kill_9_of_the_server_takes_postgres_along_and_the_next_start_just_works() {
    serve_if_told().await;
    let dir = data_dir_with_cluster();
    let (mut server, postmaster) = server_process(
        "kill_9_of_the_server_takes_postgres_along_and_the_next_start_just_works",
        dir.path(),
    );
    server.kill().unwrap();
    server.wait().unwrap();
    // At once, while the old Postgres is still shutting down.
    let embedded = start(config(dir.path())).await.unwrap();
    assert_ne!(embedded.pid(), Some(postmaster));
    let store = open(&embedded).await;
    assert_eq!(read(&store).await.unwrap(), [42]);
    store.close().await;
    embedded.stop().await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn kill_9_of_server_and_postgres_together_loses_nothing() {
    serve_if_told().await;
    let dir = data_dir_with_cluster();
    let (mut server, postmaster) =
        server_process("kill_9_of_server_and_postgres_together_loses_nothing", dir.path());
    kill(Pid::from_raw(postmaster), Signal::SIGKILL).unwrap();
    server.kill().unwrap();
    server.wait().unwrap();
    let embedded = start(config(dir.path())).await.unwrap();
    let store = open(&embedded).await;
    assert_eq!(read(&store).await.unwrap(), [42]);
    store.close().await;
    embedded.stop().await;
}
