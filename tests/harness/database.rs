//! A gate between the server and its Postgres, which a test can close.

use std::path::PathBuf;

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

/// Forwards the server's connections to Postgres, as long as the test lets it.
#[derive(Debug)]
pub struct Gate {
    url: String,
    state: watch::Sender<State>,
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
        let (state, watched) = watch::channel(State::Open);
        Self {
            url: url.to_string(),
            state,
            task: super::spawn(serve(listener, target, watched)),
        }
    }

    /// The database's URL through the gate.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Breaks all connections, and lets no new one through.
    pub fn close(&self) {
        self.state.send_replace(State::Closed);
    }

    /// Leaves connections as they are, and lets nothing pass.
    pub fn stall(&self) {
        self.state.send_replace(State::Stalled);
    }

    /// Lets everything through again.
    pub fn open(&self) {
        self.state.send_replace(State::Open);
    }
}

async fn serve(listener: TcpListener, target: Target, state: watch::Receiver<State>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else {
            return;
        };
        while connections.try_join_next().is_some() {}
        let (target, mut closing, state) = (target.clone(), state.clone(), state.clone());
        connections.spawn(async move {
            tokio::select! {
                biased;
                _ = closing.wait_for(|state| *state == State::Closed) => {}
                () = connect(client, target, state) => {}
            }
        });
    }
}

async fn connect(client: TcpStream, target: Target, state: watch::Receiver<State>) {
    // A server that is not there is told by the closed connection.
    match target {
        Target::Socket(path) => {
            if let Ok(server) = UnixStream::connect(path).await {
                forward(client, server, state).await;
            }
        }
        Target::Tcp(address) => {
            if let Ok(server) = TcpStream::connect(address).await {
                forward(client, server, state).await;
            }
        }
    }
}

async fn forward(client: TcpStream, server: impl AsyncRead + AsyncWrite, state: watch::Receiver<State>) {
    let (client_reader, client_writer) = split(client);
    let (server_reader, server_writer) = split(server);
    tokio::select! {
        () = pass(client_reader, server_writer, state.clone()) => {}
        () = pass(server_reader, client_writer, state) => {}
    }
}

/// Passes bytes on until either end closes.
async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut state: watch::Receiver<State>,
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if state.wait_for(|state| *state == State::Open).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
