//! A worker's accept loop on its own SO_REUSEPORT listener.
//!
//! Waits for readiness, then accepts all that wait: one poll a burst. Out of descriptors or memory it pauses,
//! logs at most once a second and goes on: the listener stays readable, so without the pause it would spin.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::lobby::Visit;
use super::notes::Who;
use super::{Worker, session};
use crate::cause::{Cause, Detail};

/// Accepted before other tasks get their turn.
const ACCEPTS_PER_TURN: usize = 64;
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);
/// For those that are served to be done.
const FULL_PAUSE: Duration = Duration::from_millis(1);
/// Before a listener is watched again that could not be watched.
const WATCH_AGAIN_PAUSE: Duration = Duration::from_secs(1);
/// Between two looks whether it may accept, when it is on its way to another process.
const MOVING_PAUSE: Duration = Duration::from_millis(5);

pub(super) async fn accept_loop(worker: Rc<Worker>, index: usize) {
    let listener = &worker.listeners[index];
    let readiness = listener.try_clone().and_then(monoio::net::TcpListener::from_std);
    let readiness = match readiness {
        Ok(readiness) => readiness,
        Err(error) => {
            tracing::error!("worker {} cannot accept: {error}", worker.index());
            return;
        }
    };
    while !worker.shared.phase.is_ending() {
        // Whoever waits when the phase has changed is another process's, or nobody's.
        if let Err(error) = readiness.readable(true).await {
            // The kernel goes on queueing connections for this listener, so giving up would leave them unanswered.
            tracing::error!("the listener of worker {} cannot be watched: {error}", worker.index());
            monoio::time::sleep(WATCH_AGAIN_PAUSE).await;
            continue;
        }
        if !worker.shared.phase.is_running() {
            // Perhaps this process goes on after all, or only begins.
            monoio::time::sleep(MOVING_PAUSE).await;
            continue;
        }
        for _ in 0..ACCEPTS_PER_TURN {
            // WebSockets need descriptors, too. A connection that waits makes room for one that may have something to
            // say; where none waits, those that are served now are done soon.
            let is_full = worker.lobby.sessions() >= worker.http_connections_max;
            if is_full && !worker.lobby.has_waiting() {
                let why = Detail::Own(
                    "all HTTP connections that this worker may have are being served; raise LimitNOFILE or ulimit -n",
                );
                worker.refuse(Cause::AcceptPaused, &[why], Who::default);
                monoio::time::sleep(FULL_PAUSE).await;
                break;
            }
            match listener.accept() {
                Ok((stream, peer)) => start_session(&worker, stream, peer),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if is_exhaustion(&error) => {
                    let why = format!("{error}; {}", advice(&error));
                    worker.refuse(Cause::AcceptPaused, &[Detail::Own(&why)], Who::default);
                    monoio::time::sleep(EXHAUSTED_PAUSE).await;
                    break;
                }
                // The peer gave up between its SYN and our accept, or the listener was shut down.
                Err(_) => break,
            }
        }
    }
}

fn start_session(worker: &Rc<Worker>, stream: std::net::TcpStream, from: SocketAddr) {
    let peer = from.ip();
    let who = || Who { peer: Some(from), ..Who::default() };
    let place = match worker.shared.overload.admission.enter_socket(peer) {
        Ok(place) => place,
        Err(most) => {
            let values = [Detail::Address(peer), Detail::Counted(most.into(), "HTTP connection")];
            worker.refuse(Cause::SocketsPerIp, &values, who);
            // Of the address's own connections one that waits makes room, if this worker has one.
            let makes_room = worker.lobby.end_longest_waiting_of(peer);
            match worker.shared.overload.admission.enter_socket_instead(peer, makes_room) {
                Some(place) => place,
                None => return,
            }
        }
    };
    // Only a connection that its address may have takes the place of another one.
    if worker.lobby.sessions() >= worker.http_connections_max {
        worker.lobby.end_longest_waiting();
    }
    // A frame leaves when its tick ends; Nagle would hold it back for up to 40 ms.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!("TCP_NODELAY: {error}");
    }
    match monoio::net::TcpStream::from_std(stream) {
        Ok(stream) => {
            drop(monoio::spawn(session::serve(Visit::new(worker.clone()), stream, peer, place)))
        }
        Err(error) => {
            worker.shared.overload.admission.leave_socket(place);
            let why = error.to_string();
            worker.refuse(Cause::SocketLost, &[Detail::Own(&why)], who);
        }
    }
}

fn is_exhaustion(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

fn advice(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EMFILE) => "raise LimitNOFILE or ulimit -n",
        Some(libc::ENFILE) => "raise the sysctl fs.file-max, or find who else has files open",
        _ => "the kernel is short of memory: look at sysctl net.ipv4.tcp_mem and at the host",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_will_pass_makes_accepting_pause() {
        for code in [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM] {
            assert!(is_exhaustion(&io::Error::from_raw_os_error(code)), "{code}");
        }
        // The connection's own faults: the next one is not concerned.
        for code in [libc::ECONNABORTED, libc::EPROTO, libc::EPERM, libc::EINTR, libc::EAGAIN] {
            assert!(!is_exhaustion(&io::Error::from_raw_os_error(code)), "{code}");
        }
        assert!(advice(&io::Error::from_raw_os_error(libc::EMFILE)).contains("LimitNOFILE"));
        assert!(advice(&io::Error::from_raw_os_error(libc::ENFILE)).contains("file-max"));
        assert!(advice(&io::Error::from_raw_os_error(libc::ENOMEM)).contains("memory"));
    }
}
