//! A transfer that fails leaves the old process serving.

use std::io::IoSlice;
use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use rustix::process::Signal;

use super::connections::{CHANNEL, expect_event, publish, setup, take_over_with};
use crate::support::{Client, Finished, Http, Request, Server};

/// A message of the two main threads.
pub(super) fn message(text: &str) -> Vec<u8> {
    format!("{text:<64}").into_bytes()
}

pub(super) fn receive(stream: &mut UnixStream) -> String {
    let mut heard = [0; 64];
    stream.read_exact(&mut heard).expect("a message");
    String::from_utf8(heard.to_vec()).expect("text").trim_end().to_owned()
}

/// Where the server of this address waits for others: a file in the directory that the tests' servers have.
pub(super) fn meeting_point(address: SocketAddr) -> PathBuf {
    let network = std::fs::read_link("/proc/self/ns/net").expect("a network");
    let network = network.to_string_lossy().replace(|char: char| !char.is_ascii_digit(), "");
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("ringverb-{network}-{address}.sock"))
}

const NONCE: u64 = 0x1234;

/// Something that asks for the connections as a new process would.
fn false_new_process(server: &Server) -> UnixStream {
    let mut stream = UnixStream::connect(meeting_point(server.address)).expect("it offers");
    stream.write_all(&message("take over 3")).expect("it listens");
    let offer = receive(&mut stream);
    assert!(offer.starts_with("listeners "), "{offer}");
    stream.write_all(&message(&format!("bring 1 {NONCE}"))).expect("it listens");
    stream
}

fn receiving_listener(nonce: u64) -> UnixListener {
    let name = UnixAddress::from_abstract_name(format!("ringverb {nonce:016x} 0"));
    UnixListener::bind_addr(&name.expect("a name")).expect("nobody has it")
}

/// However a new process fails, the old one serves on, and its clients miss nothing.
#[test]
fn a_failed_transfer_leaves_the_old_process_serving() {
    let server = setup(2).start();
    let mut clients: Vec<Client> = (0..300)
        .map(|_| {
            let mut client = server.connect();
            client.subscribe(CHANNEL);
            client
        })
        .collect();
    let mut kept = Http::new(&server);
    let mut number = 0;
    let mut check = |server: &Server| {
        number += 1;
        publish(server.address, CHANNEL, number);
        for client in &mut clients {
            expect_event(client, CHANNEL, number);
            client.sync();
        }
        assert_eq!(kept.ask(&Request::get("/channels")).status, 200);
    };
    check(&server);

    // It is gone as soon as it has asked.
    drop(false_new_process(&server));
    check(&server);
    // It reads no message.
    let mut stream = false_new_process(&server);
    assert_eq!(receive(&mut stream), "failed");
    check(&server);
    // It takes a part and dies; with it the descriptors it had.
    let listener = receiving_listener(NONCE);
    let stream = false_new_process(&server);
    let (mut worker, _) = listener.accept().expect("a worker connects");
    worker.read_exact(&mut [0; 1_000]).expect("a part of it");
    drop((worker, stream, listener));
    check(&server);
    // It takes all, but dies before it says so.
    let listener = receiving_listener(NONCE);
    let stream = false_new_process(&server);
    for _ in 0..2 {
        let (mut worker, _) = listener.accept().expect("each worker connects");
        worker.read_to_end(&mut Vec::new()).expect("all of it");
    }
    drop(stream);
    check(&server);
    // It has too few descriptors.
    let few = setup(1).reaching(&server).arg("--takeover").descriptors(100).run();
    assert_eq!(few.code, Some(1), "{}", few.stdout);
    assert!(few.stderr.contains("raise LimitNOFILE"), "{} {}", few.stdout, few.stderr);
    assert!(few.stderr.contains("the running server, which continues"), "{}", few.stderr);
    check(&server);
    // And then one that can.
    let new = take_over_with(&server, 2);
    let Finished { code, stdout, .. } = server.finish();
    assert_eq!(code, Some(0), "{stdout}");
    assert_eq!(
        stdout
            .matches("a take-over failed, and this process continues with its connections")
            .count(),
        5,
        "{stdout}"
    );
    check(&new);
}

/// A server of another version transfers its listeners, and keeps its connections to close them.
#[test]
fn of_another_version_only_the_listeners_are_taken() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("O_NONBLOCK");
    let address = listener.local_addr().expect("its address");
    // A server that a test killed may have left the file of this port.
    let _ = std::fs::remove_file(meeting_point(address));
    let point = UnixListener::bind(meeting_point(address)).expect("nobody has it");
    let old = std::thread::spawn(move || {
        let (mut stream, _) = point.accept().expect("the new server comes");
        assert_eq!(receive(&mut stream), "take over 3");
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let descriptors = [listener.as_fd()];
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)));
        let offer = message("listeners 999999 1 0 0");
        let offer = [IoSlice::new(&offer)];
        rustix::net::sendmsg(&stream, &offer, &mut ancillary, SendFlags::empty()).expect("sent");
        assert_eq!(receive(&mut stream), "accepting");
        drop(point);
        stream.write_all(&message("retiring")).expect("it listens");
    });
    let setup = setup(1).env("REVERB_SERVER_HOST", "127.0.0.1");
    let setup = setup.env("REVERB_SERVER_PORT", &address.port().to_string());
    let server = setup.arg("--takeover").start_as_configured();
    old.join().expect("what an old server hears");
    server.connect().sync();
    server.signal(Signal::TERM);
    let Finished { code, stdout, .. } = server.finish();
    assert_eq!(code, Some(0));
    assert!(stdout.contains("the running server has another version"), "{stdout}");
}
