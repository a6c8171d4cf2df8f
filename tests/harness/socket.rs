//! A bare TCP connection, for bytes that no client would send.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::wait::within;

/// A TCP connection to the MQTT port.
#[derive(Debug)]
pub struct Socket(TcpStream);

impl Socket {
    /// Connects to a loopback port.
    pub async fn connect(port: u16) -> Self {
        let connecting = TcpStream::connect(("127.0.0.1", port));
        let stream = within("a TCP connection", connecting).await.expect("connect");
        stream.set_nodelay(true).expect("no delay");
        Self(stream)
    }

    /// Sends the bytes that `hex` spells; blanks are for the reader.
    pub async fn send(&mut self, hex: &str) {
        let digits: Vec<u32> = hex.chars().filter_map(|digit| digit.to_digit(16)).collect();
        let bytes: Vec<u8> = digits
            .chunks(2)
            .map(|pair| u8::try_from(pair[0] * 16 + pair[1]).expect("a byte"))
            .collect();
        // The server may have closed already, which is what some tests are after.
        let _ = within("the bytes to be sent", self.0.write_all(&bytes)).await;
    }

    /// What comes until the server closes.
    pub async fn until_closed(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // A reset is a close as well.
        let _ = within("the server to close", self.0.read_to_end(&mut bytes)).await;
        bytes
    }

    /// The next `N` bytes.
    pub async fn read<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let read = within(format!("{N} bytes"), self.0.read_exact(&mut bytes)).await;
        read.expect("more bytes before the end");
        bytes
    }

    /// Closes with RST, as a device does that lost its power.
    #[expect(
        deprecated,
        reason = "a zero linger does not block: it is the way to send RST"
    )]
    pub fn reset(self) {
        self.0
            .set_linger(Some(std::time::Duration::ZERO))
            .expect("linger");
    }
}
