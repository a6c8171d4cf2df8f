//! Bytes that nobody would send on purpose.

use proptest::prelude::*;

use super::*;

/// Every first byte that a client may send, and some that it may not.
fn first() -> impl Strategy<Value = u8> {
    prop_oneof![
        Just(0x10),
        Just(0x30),
        Just(0x32),
        Just(0x34),
        Just(0x3D),
        Just(0x40),
        Just(0x50),
        Just(0x62),
        Just(0x70),
        Just(0x82),
        Just(0xA2),
        Just(0xC0),
        Just(0xE0),
        Just(0xF0),
        any::<u8>(),
    ]
}

fn framed(first: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    let mut length = body.len();
    loop {
        let more = length > 0x7F;
        frame.push(u8::try_from(length & 0x7F).unwrap() | if more { 0x80 } else { 0 });
        length >>= 7;
        if !more {
            break;
        }
    }
    frame.extend(body);
    frame
}

#[test]
fn short_packets_are_what_the_codec_makes_of_them() {
    let ids = [[0, 1], [1, 0], [0xFF, 0xFF]];
    let acks = ids.map(|[high, low]| vec![0x40, 2, high, low]);
    for frame in acks.into_iter().chain([vec![0xC0, 0], vec![0xE0, 0]]) {
        for version in [Version::V3, Version::V5] {
            let packet = short(&frame).expect("a short packet");
            assert_eq!(
                Wire::new(version).decode_by_codec(&frame),
                Ok(packet),
                "{frame:?}"
            );
        }
    }
    // No packet id, and anything else, is the codec's to judge.
    for frame in [
        &[0x40, 2, 0, 0][..],
        &[0x40, 3, 0, 1, 0],
        &[0xC0, 1, 0],
        &[0xE0, 1, 0],
    ] {
        assert!(short(frame).is_none(), "{frame:?}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_a_packet_or_a_breach(first in first(), body in prop::collection::vec(any::<u8>(), 0..200)) {
        let frame = framed(first, &body);
        for version in [Version::V3, Version::V5] {
            if let Ok(length) = frame_length(&frame, version, 1_000) {
                prop_assert_eq!(length, Some(frame.len()));
                // A panic of the codec is caught, but there should be none.
                if let Err(breach) = Wire::new(version).decode(&frame) {
                    prop_assert_ne!(breach.text, "the codec panicked");
                }
            }
        }
    }

    #[test]
    fn any_bytes_are_a_greeting_or_not(
        name in prop_oneof![Just(&b"\x00\x04MQTT\x05"[..]), Just(&b"\x00\x04MQTT\x04"[..]), Just(&b"\x00\x06MQIsdp\x03"[..]), Just(&b""[..])],
        flags in any::<u8>(),
        rest in prop::collection::vec(prop_oneof![Just(0_u8), Just(1), any::<u8>()], 0..80),
    ) {
        let mut body = name.to_vec();
        body.push(flags);
        body.extend(rest);
        match greet(&framed(0x10, &body)) {
            Err(Unwelcome::Close(text) | Unwelcome::Refuse(_, _, text)) => {
                prop_assert_ne!(text, "the codec panicked");
            }
            // What the layout lets through, the codec reads.
            Ok(greeting) => prop_assert_eq!(greeting.connect.clean_start, flags & 2 != 0),
        }
    }

    #[test]
    fn a_length_is_known_as_soon_as_its_bytes_are(length in 0_u32..300_000) {
        let frame = framed(0x30, &vec![0; usize::try_from(length).unwrap()]);
        let header = frame.len() - usize::try_from(length).unwrap();
        for end in 0..header {
            prop_assert_eq!(frame_length(&frame[..end], Version::V5, u32::MAX), Ok(None));
        }
        prop_assert_eq!(frame_length(&frame[..header], Version::V5, u32::MAX), Ok(Some(frame.len())));
        prop_assert_eq!(frame_length(&frame[..header], Version::V5, length.saturating_sub(1)).is_err(), length > 0);
    }
}
