//! What both kernels share.

use proptest::prelude::*;

use super::*;
use crate::slot::Slot;

fn tokens(slot: u32, generation: u32) -> [Token; 10] {
    let connection = Watched::Connection(ConnectionKey { slot: Slot::new(slot), generation });
    let session = Watched::Session(SessionKey { slot: Slot::new(slot), generation });
    let (listener, cluster) = (Watched::Listener(generation), Watched::Cluster(generation));
    let [a, b, c, d] = [connection, session, listener, cluster].map(Token::Readable);
    let [e, f, g, h] = [connection, session, listener, cluster].map(Token::Writable);
    [a, b, c, d, e, f, g, h, Token::Doorbell, Token::Lost]
}

proptest! {
    #[test]
    fn tokens_are_unpacked_as_they_were_packed(slot in 0..=SLOT_MAX, generation: u32) {
        let tokens = tokens(slot, generation);
        for token in tokens {
            prop_assert_eq!(unpack(pack(token)), Some(token));
        }
        for (index, token) in tokens.iter().enumerate() {
            for other in &tokens[..index] {
                prop_assert_ne!(pack(*token), pack(*other));
            }
        }
    }

    #[test]
    fn own_kinds_are_no_tokens(kind in OWN_KINDS..16, slot in 0..=SLOT_MAX, generation: u32) {
        prop_assert_eq!(unpack(pack_parts(kind, slot, generation)), None);
        prop_assert_eq!(unpack_parts(pack_parts(kind, slot, generation)), (kind, slot, generation));
    }
}

fn listener() -> (OwnedFd, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (prepare_listener(listener).unwrap(), address)
}

#[test]
fn an_accepted_socket_has_tcp_nodelay_from_its_listener() {
    let (listener, address) = listener();
    assert!(matches!(accept(&listener), Accepted::Nothing));
    let client = std::net::TcpStream::connect(address).unwrap();
    let Accepted::Socket(socket, peer) = accept(&listener) else { panic!("one waits") };
    assert_eq!(peer, client.local_addr().unwrap());
    assert!(rustix::net::sockopt::tcp_nodelay(&socket).unwrap());
    let flags = rustix::io::fcntl_getfd(&socket).unwrap();
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC), "a child process would inherit it");
    assert!(matches!(accept(&listener), Accepted::Nothing));
}

#[test]
fn a_listener_that_was_shut_down_has_no_connections_and_does_not_block() {
    let (listener, _) = listener();
    rustix::net::shutdown(&listener, Shutdown::Both).unwrap();
    assert!(matches!(accept(&listener), Accepted::Nothing));
}

/// In a thread with a descriptor table of its own, so that other tests keep theirs.
#[test]
fn without_a_descriptor_a_connection_waits_and_the_error_is_reported() {
    let (listener, address) = listener();
    let _client = std::net::TcpStream::connect(address).unwrap();
    let exhausted = std::thread::spawn(move || {
        crate::worker::sys::own_descriptor_table().unwrap();
        let mut taken = Vec::new();
        while let Ok(another) = listener.try_clone() {
            taken.push(another);
        }
        let exhausted = accept(&listener);
        taken.truncate(1);
        assert!(matches!(accept(&listener), Accepted::Socket(..)), "the connection has waited");
        exhausted
    });
    let exhausted = exhausted.join().unwrap();
    assert!(
        matches!(&exhausted, Accepted::Exhausted(why) if why.contains("LimitNOFILE")),
        "{exhausted:?}"
    );
}
