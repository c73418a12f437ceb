//! What the tests of the running server share: the server itself, a WebSocket client, an HTTP client, a Redis.
//!
//! Blocking and plain, so that a test reads as a transcript. Every wait is for a condition and has a deadline, no port
//! is fixed, and each server has a folder and an environment of its own. The encoders here are not the server's: a
//! fault on one side must not cancel itself out on the other.

mod client;
pub(crate) mod cluster;
mod endpoint;
mod folder;
mod gate;
mod http;
mod protocol;
mod redis;
mod server;
mod setup;
mod system;
mod time;
pub(crate) mod tls;
mod wire;

use std::net::TcpStream;

use socket2::{Domain, Socket, Type};

pub(crate) use client::{Client, Handshake};
pub(crate) use endpoint::{Answer, Endpoint};
pub(crate) use http::{Http, Request, connections_in};
pub(crate) use protocol::{
    APP_ID, APP_KEY, APP_SECRET, INVALID, PING, PONG, channel_auth, data, error_event, json, sign,
    sign_with, succeeded,
};
pub(crate) use redis::Redis;
pub(crate) use server::{Finished, Server};
pub(crate) use setup::Setup;
pub(crate) use system::{
    Content, drain, free_port, make_program, processor_time, raise_descriptor_limit,
    resident_bytes, rust_text_below,
};
pub(crate) use time::{DEADLINE, eventually, now, poll_pause, schedule, unix_seconds, within};
pub(crate) use wire::{Frame, Head, Reply, Wire, frame};

/// A connection whose kernel takes little before its reader does.
pub(crate) fn small_window(server: &Server) -> Client {
    Client::open_on(wire_with_small_window(server), &Handshake::new()).established()
}

/// A connection whose client's kernel keeps little for it.
pub(crate) fn wire_with_small_window(server: &Server) -> Wire {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4096).expect("SO_RCVBUF");
    socket.connect(&server.address.into()).expect("the server accepts");
    Wire::new(TcpStream::from(socket))
}
