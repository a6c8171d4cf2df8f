//! A gate between the server and its Postgres, which a test can close.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use reqwest::Url;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split},
    net::{TcpListener, TcpStream, UnixStream},
    sync::watch,
    task::{AbortHandle, JoinSet},
};

/// Where Postgres listens.
#[derive(Debug, Clone)]
enum Target {
    Socket(PathBuf),
    Tcp(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// Connections stand, but nothing passes: a Postgres that doesn't answer.
    Stalled,
    /// Connections break at once: a Postgres that is gone.
    Closed,
}

/// What all connections through a gate have in common.
#[derive(Debug, Clone)]
struct Door {
    state: watch::Sender<State>,
    /// How many more bytes of Postgres pass before it closes by itself.
    passes: Arc<AtomicUsize>,
}

impl Door {
    /// Waits until it is like this.
    async fn is(&self, wanted: State) {
        // The sender is here: this can't fail.
        let _ = self.state.subscribe().wait_for(|state| *state == wanted).await;
    }

    /// Takes note of bytes that Postgres sent; `false` if they pass no more.
    fn lets(&self, length: usize) -> bool {
        let open = self
            .passes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |passes| {
                passes.checked_sub(length)
            })
            .is_ok();
        if !open {
            self.state.send_replace(State::Closed);
        }
        open
    }
}

/// Forwards the server's connections to Postgres, as long as the test lets it.
#[derive(Debug)]
pub struct Gate {
    url: String,
    door: Door,
    task: AbortHandle,
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Gate {
    /// An open gate to the database at `url`.
    pub async fn new(url: &str) -> Self {
        let mut url: Url = url.parse().expect("a database's URL");
        let socket = url
            .query_pairs()
            .find_map(|(name, value)| (name == "host").then(|| PathBuf::from(value.into_owned())));
        let target = match socket {
            Some(folder) => Target::Socket(folder.join(".s.PGSQL.5432")),
            None => Target::Tcp(format!(
                "{}:{}",
                url.host_str().expect("a host"),
                url.port().unwrap_or(5432)
            )),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("its address").port();
        url.set_query(None);
        url.set_host(Some("127.0.0.1")).expect("a host");
        url.set_port(Some(port)).expect("a port");
        let door = Door {
            state: watch::Sender::new(State::Open),
            passes: Arc::new(AtomicUsize::new(usize::MAX)),
        };
        Self {
            url: url.to_string(),
            door: door.clone(),
            task: super::spawn(serve(listener, target, door)),
        }
    }

    /// The database's URL through the gate.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Breaks all connections, and lets no new one through.
    pub fn close(&self) {
        self.door.state.send_replace(State::Closed);
    }

    /// Closes once Postgres has sent so many bytes more.
    pub fn close_after(&self, bytes: usize) {
        self.door.passes.store(bytes, Ordering::Relaxed);
    }

    /// Leaves connections as they are, and lets nothing pass.
    pub fn stall(&self) {
        self.door.state.send_replace(State::Stalled);
    }

    /// Lets everything through again.
    pub fn open(&self) {
        self.door.passes.store(usize::MAX, Ordering::Relaxed);
        self.door.state.send_replace(State::Open);
    }
}

async fn serve(listener: TcpListener, target: Target, door: Door) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else {
            return;
        };
        while connections.try_join_next().is_some() {}
        let (target, door) = (target.clone(), door.clone());
        connections.spawn(async move {
            tokio::select! {
                biased;
                () = door.is(State::Closed) => {}
                () = connect(client, target, &door) => {}
            }
        });
    }
}

async fn connect(client: TcpStream, target: Target, door: &Door) {
    // A server that is not there is told by the closed connection.
    match target {
        Target::Socket(path) => {
            if let Ok(server) = UnixStream::connect(path).await {
                forward(client, server, door).await;
            }
        }
        Target::Tcp(address) => {
            if let Ok(server) = TcpStream::connect(address).await {
                forward(client, server, door).await;
            }
        }
    }
}

async fn forward(client: TcpStream, server: impl AsyncRead + AsyncWrite, door: &Door) {
    let (client_reader, client_writer) = split(client);
    let (server_reader, server_writer) = split(server);
    tokio::select! {
        () = pass(client_reader, server_writer, door, |_| true) => {}
        () = pass(server_reader, client_writer, door, |length| door.lets(length)) => {}
    }
}

/// Passes bytes on until either end closes, or they are not let through.
async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    door: &Door,
    lets: impl Fn(usize) -> bool,
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        door.is(State::Open).await;
        if !lets(length) || to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
