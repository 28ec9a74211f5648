//! Renewal in the two halves of a session: who may ask, what an expired certificate is good for, how another one is gone over to.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use sluice_wire::ids::{Epoch, StreamId};
use sluice_wire::session::client::{self, Client, ClientOptions, Offer};
use sluice_wire::session::frame::{Ack, Frame, Hello, Lane, Preamble, RefusedCode, Renew, Renewed, Verdict};
use sluice_wire::session::server::{self, Server, ServerOptions};

fn stream() -> StreamId {
    StreamId {
        tenant: "acme".parse().unwrap(),
        node: "site-1".parse().unwrap(),
        spool: [7; 16],
    }
}

fn epoch() -> Epoch {
    Epoch {
        number: 3,
        random: 0xabcd,
    }
}

fn hello(renews: bool) -> Hello {
    let options = ClientOptions {
        renews,
        ..ClientOptions::new(stream(), epoch())
    };
    let mut client = Client::new(options, 0, 1);
    client.poll_action(0);
    client.handle_connected(0);
    match client.poll_action(0) {
        Some(client::Action::SendHello(hello)) => hello,
        other => panic!("{other:?}"),
    }
}

fn server(renews: bool) -> Server {
    let options = ServerOptions {
        renews,
        ..ServerOptions::default()
    };
    Server::new(options, stream().tenant, stream().node, 1, 0)
}

fn ask() -> Renew {
    Renew {
        request: Bytes::from_static(b"request"),
        scheme: 0x0403,
        proof: Bytes::from_static(b"proof"),
    }
}

fn offer(key: u64) -> Offer {
    Offer {
        key,
        epoch: epoch(),
        seq: key,
        hash: [key as u8; 32],
        bytes: 10,
        lane: Lane::Live,
    }
}

fn preamble() -> Preamble {
    Preamble {
        lane: Lane::Live,
        epoch: epoch(),
        seq: 1,
        length: 10,
    }
}

#[test]
fn an_older_peer_of_either_side_has_sessions_without_renewal() {
    for (edge_renews, gateway_renews) in [(false, true), (true, false)] {
        // An expired certificate is refused, as it always was.
        let mut expired = server(gateway_renews).for_renewal_only();
        expired.handle_frame(Frame::Hello(hello(edge_renews)));
        let answer = expired.poll_action();
        assert!(
            matches!(&answer, Some(server::Action::Send(Frame::Refused(r))) if r.code == RefusedCode::Identity),
            "{answer:?}"
        );
        // A valid one serves, and who asks nevertheless breaks the rules.
        let mut valid = server(gateway_renews);
        valid.handle_frame(Frame::Hello(hello(edge_renews)));
        assert!(matches!(valid.poll_action(), Some(server::Action::Send(Frame::Welcome(w))) if !w.renews));
        assert!(valid.handle_preamble(&preamble(), None).is_some());
        valid.handle_frame(Frame::Renew(ask()));
        assert!(matches!(
            valid.poll_action(),
            Some(server::Action::Send(Frame::Refused(r))) if r.code == RefusedCode::Protocol
        ));
    }
}

#[test]
fn p14_an_expired_certificate_renews_and_does_nothing_else() {
    let mut server = server(true).for_renewal_only();
    server.handle_frame(Frame::Hello(hello(true)));
    assert!(matches!(
        server.poll_action(),
        Some(server::Action::Send(Frame::Welcome(w))) if w.renews && w.renewal_only
    ));
    assert!(server.handle_preamble(&preamble(), None).is_none());
    assert!(matches!(
        server.poll_action(),
        Some(server::Action::Send(Frame::Nack(nack))) if matches!(nack.verdict, Verdict::Retry { .. })
    ));
    server.handle_frame(Frame::Renew(ask()));
    assert_eq!(server.poll_action(), Some(server::Action::Renew(ask())));
    let too_long = Renewed {
        certificates: vec![Bytes::from(vec![0; 40 << 10])],
    };
    server.handle_renewed(too_long);
    assert!(matches!(
        server.poll_action(),
        Some(server::Action::Send(Frame::NotRenewed(_)))
    ));
    // Nobody waits any more.
    server.handle_not_renewed(1, "late");
    assert_eq!(server.poll_action(), None);
    // One at a time.
    server.handle_frame(Frame::Renew(ask()));
    server.handle_frame(Frame::Renew(ask()));
    let second = [server.poll_action(), server.poll_action()];
    assert!(
        matches!(&second[1], Some(server::Action::Send(Frame::Refused(_)))),
        "{second:?}"
    );
}

#[test]
fn p5_another_certificate_is_gone_over_to_when_everything_is_answered() {
    let mut client = Client::new(ClientOptions::new(stream(), epoch()), 0, 1);
    assert_eq!(client.poll_action(0), Some(client::Action::Connect));
    client.handle_connected(0);
    client.poll_action(0);
    let mut server = server(false);
    server.handle_frame(Frame::Hello(hello(false)));
    let Some(server::Action::Send(welcome)) = server.poll_action() else {
        panic!("no WELCOME")
    };
    client.handle_frame(0, welcome);
    client.offer(offer(4));
    assert_eq!(client.poll_action(0), Some(client::Action::SendBatch { key: 4 }));

    client.handle_certificate(10);
    client.offer(offer(5));
    assert_eq!(client.poll_action(10), None, "nothing new is sent");
    let (epoch, seq, hash) = (epoch(), 4, [4; 32]);
    client.handle_frame(20, Frame::Ack(Ack { epoch, seq, hash }));
    let mut actions = Vec::new();
    while let Some(action) = client.poll_action(20) {
        actions.push(action);
    }
    assert!(
        matches!(
            &actions[..],
            [
                client::Action::Acked { key: 4 },
                client::Action::Close { again: true, .. },
                client::Action::Connect
            ]
        ),
        "{actions:?}"
    );
    assert_eq!(client.stats(20).resent, 0);
    // Where refusals made it wait, it waits no longer.
    for _ in 0..12 {
        client.handle_refused(30, "certificate is expired");
        while client.poll_action(client.next_wake(30).unwrap()) != Some(client::Action::Connect) {}
    }
    client.handle_refused(30, "certificate is expired");
    client.handle_certificate(31);
    assert!(client.next_wake(31).unwrap() <= 31);
}
