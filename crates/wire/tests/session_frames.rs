//! Frames read back what was written, and hostile bytes are an error or a frame, never a panic.
#![allow(clippy::unwrap_used)]

use bytes::BytesMut;
use proptest::prelude::*;
use sluice_wire::ids::{Epoch, NodeId, StreamId, TenantId};
use sluice_wire::session::frame::*;

fn epochs() -> impl Strategy<Value = Epoch> {
    any::<(u32, u64)>().prop_map(|(number, random)| Epoch { number, random })
}

fn frames() -> impl Strategy<Value = Frame> {
    let hello = (
        "[a-z]{1,9}",
        "[A-Z.]{3,9}",
        any::<[u8; 16]>(),
        epochs(),
        prop::collection::vec(any::<u32>(), 0..5),
        any::<u32>(),
        ".{0,40}",
        any::<bool>(),
    )
        .prop_map(|(tenant, node, spool, epoch, versions, generation, agent, renews)| {
            let stream = StreamId {
                tenant: TenantId::new(&tenant).unwrap(),
                node: NodeId::new(&node).unwrap(),
                spool,
            };
            Frame::Hello(Hello {
                stream,
                epoch,
                versions,
                generation,
                agent,
                renews,
            })
        });
    let welcome = any::<(u32, u64, u32, u32, u32, u64, bool, bool)>().prop_map(
        |(version, session, max_batch_bytes, generation, max_in_flight, max_in_flight_bytes, renews, renewal_only)| {
            Frame::Welcome(Welcome {
                renews,
                renewal_only,
                version,
                session,
                max_batch_bytes,
                generation,
                max_in_flight,
                max_in_flight_bytes,
            })
        },
    );
    let refused = (any::<u32>(), ".{0,40}").prop_map(|(code, reason)| {
        Frame::Refused(Refused {
            code: RefusedCode::from_number(code),
            reason,
        })
    });
    let ack =
        (epochs(), any::<u64>(), any::<[u8; 32]>()).prop_map(|(epoch, seq, hash)| Frame::Ack(Ack { epoch, seq, hash }));
    let verdict = prop_oneof![
        any::<u32>().prop_map(|after_ms| Verdict::Retry { after_ms }),
        any::<u32>().prop_map(|after_ms| Verdict::Hold { after_ms }),
        Just(Verdict::Permanent),
    ];
    let nack = (epochs(), any::<u64>(), verdict, ".{0,40}").prop_map(|(epoch, seq, verdict, reason)| {
        Frame::Nack(Nack {
            epoch,
            seq,
            verdict,
            reason,
        })
    });
    let go_away = ".{0,40}".prop_map(|reason| Frame::GoAway(GoAway { reason }));
    let some = |most| prop::collection::vec(any::<u8>(), 0..most).prop_map(bytes::Bytes::from);
    let renew = (some(300), any::<u32>(), some(80))
        .prop_map(|(request, scheme, proof)| Frame::Renew(Renew { request, scheme, proof }));
    let renewed = prop::collection::vec(some(400), 1..=MAX_CERTIFICATES)
        .prop_map(|certificates| Frame::Renewed(Renewed { certificates }));
    let not_renewed =
        (any::<u32>(), ".{0,40}").prop_map(|(after_ms, reason)| Frame::NotRenewed(NotRenewed { after_ms, reason }));
    prop_oneof![hello, welcome, refused, ack, nack, go_away, renew, renewed, not_renewed]
}

proptest! {
    #[test]
    fn frames_read_back_in_order_however_they_are_cut(list in prop::collection::vec(frames(), 1..6), step in 1usize..50) {
        let sent: Vec<u8> = list.iter().flat_map(|f| f.encode().to_vec()).collect();
        let (mut received, mut read) = (BytesMut::new(), Vec::new());
        for piece in sent.chunks(step) {
            received.extend_from_slice(piece);
            while let Some(frame) = Frame::decode(&mut received).unwrap() {
                read.push(frame);
            }
        }
        prop_assert_eq!(read, list);
        prop_assert!(received.is_empty());
    }

    #[test]
    fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), frame in frames(), at: usize, with: u8) {
        let _ = Frame::decode(&mut BytesMut::from(&bytes[..]));
        let mut mutated = frame.encode().to_vec();
        let at = at % mutated.len();
        mutated[at] = with;
        let _ = Frame::decode(&mut BytesMut::from(&mutated[..]));
        for end in 0..mutated.len() {
            let _ = Frame::decode(&mut BytesMut::from(&mutated[..end]));
        }
    }

    #[test]
    fn preambles_read_back_and_hostile_ones_never_panic(epoch in epochs(), seq: u64, length: u32, bytes: [u8; 28], backlog: bool) {
        let lane = if backlog { Lane::Backlog } else { Lane::Live };
        let preamble = Preamble { lane, epoch, seq, length };
        prop_assert_eq!(Preamble::decode(&preamble.encode()).unwrap(), preamble);
        let _ = Preamble::decode(&bytes);
    }
}

#[test]
fn p15_a_frame_above_the_limit_is_refused_before_it_is_received() {
    let mut bytes = BytesMut::from(&((MAX_FRAME_BYTES as u32) + 1).to_le_bytes()[..]);
    assert!(matches!(Frame::decode(&mut bytes), Err(FrameError::TooLarge { .. })));
}

#[test]
fn long_reasons_are_cut_between_characters() {
    let reason = "ü".repeat(MAX_FRAME_BYTES);
    let frame = Frame::GoAway(GoAway { reason });
    let mut bytes = BytesMut::from(&frame.encode()[..]);
    let Frame::GoAway(read) = Frame::decode(&mut bytes).unwrap().unwrap() else {
        panic!("other frame")
    };
    assert_eq!(read.reason, "ü".repeat(MAX_TEXT_BYTES / 2));
}

#[test]
fn p15_renewals_above_their_limits_are_refused() {
    let refused = |frame: Frame| Frame::decode(&mut BytesMut::from(&frame.encode()[..])).is_err();
    let of = |bytes: usize| bytes::Bytes::from(vec![7; bytes]);
    let renew = |request, proof| {
        let (request, proof) = (of(request), of(proof));
        Frame::Renew(Renew {
            request,
            scheme: 0x0403,
            proof,
        })
    };
    assert!(!refused(renew(MAX_RENEWAL_REQUEST_BYTES, MAX_RENEWAL_PROOF_BYTES)));
    assert!(refused(renew(MAX_RENEWAL_REQUEST_BYTES + 1, 1)));
    assert!(refused(renew(1, MAX_RENEWAL_PROOF_BYTES + 1)));
    let renewed = |sizes: &[usize]| {
        let certificates = sizes.iter().map(|bytes| of(*bytes)).collect();
        Frame::Renewed(Renewed { certificates })
    };
    assert!(!refused(renewed(&[MAX_CERTIFICATES_BYTES])));
    assert!(refused(renewed(&[])) && refused(renewed(&[1; MAX_CERTIFICATES + 1])));
    assert!(refused(renewed(&[MAX_CERTIFICATES_BYTES, 1])));
}

/// What builds before renewal said and understood: they skip what they do not know, and say nothing of it.
#[test]
fn an_older_peer_says_and_hears_nothing_of_renewal() {
    // A HELLO of the first build: stream, epoch number 1, version 1.
    let stream = b"acme/n/00000000000000000000000000000007";
    let mut body = vec![1u8, 0x0a, stream.len() as u8];
    body.extend_from_slice(stream);
    body.extend_from_slice(&[0x10, 1, 0x22, 1, 1]);
    let mut bytes = BytesMut::from(&(body.len() as u32).to_le_bytes()[..]);
    bytes.extend_from_slice(&body);
    let Some(Frame::Hello(read)) = Frame::decode(&mut bytes).unwrap() else {
        panic!("no HELLO")
    };
    assert!(!read.renews && read.versions == [1] && read.epoch.number == 1);
    // And what is new in WELCOME is left out where it is not granted, so that the bytes are those of before.
    let welcome = Welcome {
        version: 1,
        session: 2,
        max_batch_bytes: 3,
        generation: 4,
        max_in_flight: 5,
        max_in_flight_bytes: 6,
        renews: false,
        renewal_only: false,
    };
    let said = Frame::Welcome(welcome).encode();
    assert_eq!(
        said[4..],
        [2, 8, 1, 17, 2, 0, 0, 0, 0, 0, 0, 0, 24, 3, 32, 4, 40, 5, 48, 6]
    );
}
