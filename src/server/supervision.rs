//! Notifications to systemd (Type=notify): readiness, the main process, the end, and the watchdog.
//!
//! Owns the heartbeats that the watchdog has seen last. A notification is one datagram with lines of text
//! (sd_notify(3)). Without NOTIFY_SOCKET nothing is sent. The watchdog is notified only if every worker has run since
//! the last notification: a worker that hangs keeps a part of all connections, and only a new process repairs that.
//! Does not decide when the server is ready or stops.
//! Limits: one short datagram at a time; a full socket of systemd delays the main thread, which serves no client. Cost:
//! three system calls for a notification.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::worker::Shared;

pub(super) fn notify_ready() {
    // The new process of a take-over is not the process that systemd started.
    notify(&format!("MAINPID={}\nREADY=1\n", std::process::id()));
}

pub(super) fn notify_stopping() {
    notify("STOPPING=1\n");
}

fn notify(state: &str) {
    #[expect(clippy::disallowed_methods, reason = "systemd sets it; it is no option of the server")]
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(&socket, state) {
        tracing::warn!(event = "systemd_not_notified", "systemd could not be notified: {error}");
    }
}

/// `socket`: a path, or with `@` in front an abstract name, which a container engine may use.
fn send(socket: &OsStr, state: &str) -> io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}

/// How often the watchdog wants a notification; `None` if it is off, or for another process.
fn watchdog_time() -> Option<Duration> {
    #[expect(clippy::disallowed_methods, reason = "systemd sets it; it is no option of the server")]
    let [time, process] = ["WATCHDOG_USEC", "WATCHDOG_PID"].map(std::env::var);
    watchdog_of(&time.ok()?, process.ok().as_deref(), std::process::id())
}

fn watchdog_of(micros: &str, process: Option<&str>, own: u32) -> Option<Duration> {
    let micros = micros.parse().ok().filter(|micros| *micros > 0)?;
    let is_meant = process.is_none_or(|process| process.parse() == Ok(own));
    is_meant.then(|| Duration::from_micros(micros))
}

pub(super) struct Watchdog {
    /// A third of the watchdog's time, so that one late look does not end the process. `None`: no watchdog.
    pub(super) interval: Option<Duration>,
    heartbeats: Vec<u64>,
}

impl Watchdog {
    pub(super) fn new(shared: &Shared) -> Self {
        let interval = watchdog_time().map(|time| time / 3);
        Self { interval, heartbeats: vec![0; shared.heartbeats.len()] }
    }

    /// To be called every `interval`. If a worker has not ticked since the last notification, none is sent, and a
    /// warning is logged.
    pub(super) fn feed_if_alive(&mut self, shared: &Shared) {
        let now: Vec<u64> =
            shared.heartbeats.iter().map(|beat| beat.load(Ordering::Relaxed)).collect();
        if now.iter().zip(&self.heartbeats).all(|(now, before)| now > before) {
            self.heartbeats = now;
            notify("WATCHDOG=1\n");
        } else {
            tracing::warn!(
                event = "worker_stalled",
                "a worker has not run since the last watchdog notification"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_is_for_the_process_that_systemd_names() {
        let second = Some(Duration::from_secs(1));
        assert_eq!(watchdog_of("1000000", Some("7"), 7), second);
        assert_eq!(watchdog_of("1000000", None, 7), second);
        for (micros, process) in
            [("1000000", Some("8")), ("1000000", Some("")), ("0", None), ("x", None)]
        {
            assert_eq!(watchdog_of(micros, process, 7), None, "{micros} {process:?}");
        }
    }

    #[test]
    fn a_notification_reaches_a_socket_with_an_abstract_name() {
        let name = format!("ringverb notify {}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        send(OsStr::new(&format!("@{name}")), "READY=1\n").unwrap();
        let mut buffer = [0; 16];
        let length = socket.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"READY=1\n");
        assert!(send(OsStr::new("/nonexistent/socket"), "READY=1\n").is_err());
    }
}
