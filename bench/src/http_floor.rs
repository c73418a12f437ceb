//! The floor under `publish`: a bare server that answers 200 to whatever it reads.
//!
//! Owns its sockets. No parsing, no signature, no event: never an answer to a wrong request. To be compared with as a
//! server of its own: `compare --server "floor=ws://127.0.0.1:6441 ringverb-bench http-floor --port 6441" ... --
//! publish --subscribers 0`. No limits: as many connections as descriptors. Cost: one thread; two system calls a
//! request, one receive and one send.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use crate::sys::{self, Epoll, READABLE};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[arg(long)]
    port: u16,
}

/// As long as ringverb's answer to a publish.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\
    Connection: keep-alive\r\n\r\n{}";

/// Serves until SIGTERM.
pub(crate) fn run(args: &Args) -> io::Result<()> {
    sys::exit_on_sigterm()?;
    let listener = TcpListener::bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, args.port))?;
    listener.set_nonblocking(true)?;
    let mut epoll = Epoll::new()?;
    let token = |descriptor: i32| u64::try_from(descriptor).map_err(io::Error::other);
    let listening = token(listener.as_raw_fd())?;
    epoll.add(listener.as_raw_fd(), READABLE, listening)?;
    let mut sockets: HashMap<u64, TcpStream> = HashMap::new();
    let mut ready = Vec::new();
    let mut chunk = vec![0; 64 * 1024];
    loop {
        ready.clear();
        epoll.wait(Duration::from_secs(60), &mut ready)?;
        for &key in &ready {
            if key == listening {
                while let Ok((socket, _)) = listener.accept() {
                    socket.set_nodelay(true)?;
                    let key = token(socket.as_raw_fd())?;
                    epoll.add(socket.as_raw_fd(), READABLE, key)?;
                    sockets.insert(key, socket);
                }
                continue;
            }
            let Some(socket) = sockets.get_mut(&key) else { continue };
            // A client's request comes in one piece; a client that fails is closed.
            let answered = match socket.read(&mut chunk) {
                Ok(count) if count > 0 => socket.write_all(ANSWER).is_ok(),
                _ => false,
            };
            if !answered {
                sockets.remove(&key);
            }
        }
    }
}
