//! From the socket to whole packets.

use std::{
    mem::MaybeUninit,
    pin::Pin,
    sync::atomic::Ordering,
    task::{Context, Poll},
};

use bytes::BytesMut;
use rmqtt_codec::v5::{DisconnectReasonCode, Packet};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use super::{connection::Connection, finish::End};
use crate::{metrics::Limit, wire::frame_length};

/// Bytes read at once, into the stack.
const READ: usize = 8 * 1024;
/// Bytes of input that wait while the backend is busy; beyond them the socket is not read.
const STASH: usize = 16 * 1024;

impl<S> Connection<'_, S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    /// Whether another packet may be taken: the backend keeps up, and so does the client's allowance.
    pub(super) fn may_take(&self) -> bool {
        self.pending.is_none() && self.paused.is_none() && {
            let max = usize::from(self.core.config.receive_maximum);
            self.live.window(|window| window.len() < max)
        }
    }

    /// Whether the socket is read. While the backend is busy it still is, up to a point, for PINGREQ and
    /// acknowledgements: a database that is away for an hour must not look like a server that is.
    pub(super) fn is_listening(&self) -> bool {
        self.paused.is_none() && (self.input.len() < STASH || self.may_take())
    }

    /// Takes packets from `bytes` for as long as that is allowed; how many bytes they were.
    pub(super) fn consume(&mut self, bytes: &[u8], cx: &mut Context<'_>) -> Result<usize, End> {
        let mut used = 0;
        while self.may_take() {
            let Some(frame) = self.frame(bytes.get(used..).unwrap_or_default())? else {
                break;
            };
            used += frame.len();
            self.digest(frame)?;
            self.poll_pending(cx);
            self.acknowledge()?;
        }
        Ok(used)
    }

    /// While no other packet may be taken: answers PINGREQ and heeds acknowledgements among those that wait.
    fn sift(&mut self) -> Result<(), End> {
        let input = std::mem::take(&mut self.input);
        let mut kept = BytesMut::new();
        let mut at = 0;
        while self.paused.is_none()
            && let Some(frame) = self.frame(input.get(at..).unwrap_or_default())?
        {
            at += frame.len();
            match frame.first().map(|first| first >> 4) {
                // PUBACK, PUBREC, PUBREL, PUBCOMP, PINGREQ
                Some(4..=7 | 12) => self.digest(frame)?,
                _ => kept.extend_from_slice(frame),
            }
        }
        kept.extend_from_slice(input.get(at..).unwrap_or_default());
        self.input = kept;
        Ok(())
    }

    /// The packet at the head of `bytes`, if it is whole.
    fn frame<'b>(&self, bytes: &'b [u8]) -> Result<Option<&'b [u8]>, End> {
        let limit = self.core.config.max_packet_size;
        let length = frame_length(bytes, self.live.info.version, limit).inspect_err(|breach| {
            if breach.code == DisconnectReasonCode::PacketTooLarge {
                self.core.metrics.limit(Limit::PacketSize);
            }
        })?;
        Ok(length.and_then(|length| bytes.get(..length)))
    }

    /// Does what one packet asks for.
    fn digest(&mut self, frame: &[u8]) -> Result<(), End> {
        let packet = self.wire.decode(frame)?;
        self.heard = Instant::now();
        self.count(&packet, frame.len())?;
        self.handle(packet)
    }

    /// Counts a packet against the client's allowance. The acknowledgements it owes are free.
    fn count(&mut self, packet: &Packet, length: usize) -> Result<(), End> {
        let owed = match packet {
            Packet::PublishAck(_) | Packet::PublishReceived(_) | Packet::PublishComplete(_) => {
                self.live.session.lock().in_flight() > 0
            }
            Packet::PublishRelease(_) => self.live.session.lock().received.len() > 0,
            _ => false,
        };
        if owed {
            return Ok(());
        }
        let allowance = self.allowance();
        if self.rate.take(length, allowance, self.heard) {
            self.core.metrics.limit(Limit::RateSlowed);
        }
        if self.rate.slowed_for(self.heard) > self.core.config.rate_patience {
            self.core.metrics.limit(Limit::RateEnded);
            return Err(End::Limit(DisconnectReasonCode::MessageRateTooHigh));
        }
        self.paused = self.rate.pause(allowance, self.heard);
        Ok(())
    }

    /// Reads what there is, up to [`READ`] bytes, and takes the packets in it; whether there was anything.
    pub(super) fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let mut scratch = [const { MaybeUninit::uninit() }; READ];
        let mut buffer = ReadBuf::uninit(&mut scratch);
        match Pin::new(&mut self.io).poll_read(cx, &mut buffer) {
            Poll::Pending => return Ok(false),
            Poll::Ready(Err(_)) => return Err(End::Lost),
            Poll::Ready(Ok(())) => {}
        }
        let bytes = buffer.filled();
        if bytes.is_empty() {
            return Err(End::Lost);
        }
        let count = u64::try_from(bytes.len()).unwrap_or(0);
        self.live.traffic.bytes_in.fetch_add(count, Ordering::Relaxed);
        if self.input.is_empty() && self.may_take() {
            let used = self.consume(bytes, cx)?;
            self.input = BytesMut::from(bytes.get(used..).unwrap_or_default());
        } else {
            self.input.extend_from_slice(bytes);
        }
        if !self.input.is_empty() && !self.may_take() {
            self.sift()?;
        }
        Ok(true)
    }
}
