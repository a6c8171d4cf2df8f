//! A bare TCP connection, for bytes that no client would send.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Device, wait::within};

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
        let byte = |pair: &[u32]| u8::try_from(pair[0] * 16 + pair[1]).expect("a byte");
        let bytes: Vec<u8> = digits.chunks(2).map(byte).collect();
        self.send_bytes(&bytes).await;
    }

    /// Sends bytes.
    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        // The server may have closed already, which is what some tests are after.
        let _ = within("the bytes to be sent", self.0.write_all(bytes)).await;
    }

    /// Signs in as a device in MQTT 3.1.1, with a clean session, and takes the CONNACK.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn sign_in(&mut self, device: &Device, keep_alive: u16) {
        let [high, low] = keep_alive.to_be_bytes();
        let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 4, 0xc2, high, low];
        for text in [&device.serial, &device.serial, &device.token] {
            body.extend(u16::try_from(text.len()).expect("a short text").to_be_bytes());
            body.extend(text.as_bytes());
        }
        let length = u8::try_from(body.len()).expect("a short packet");
        // The length as a variable byte integer: seven bits a byte, the lowest first.
        let header = if length < 128 {
            vec![0x10, length]
        } else {
            vec![0x10, length, 1]
        };
        self.send_bytes(&[header, body].concat()).await;
        assert_eq!(self.read::<4>().await, [0x20, 2, 0, 0], "CONNACK");
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
