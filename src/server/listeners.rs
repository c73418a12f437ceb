//! The listeners of a start: one for each worker on one port, and the wait for a port that is in use.
//!
//! Owns no listener: it returns them. A start binds once without SO_REUSEPORT to find another server, and then once for
//! each worker with it, so that the kernel spreads connections over the workers. Listeners that come from a running
//! server do not come this way (`takeover/mod.rs`). Does not accept: workers do.
//! Limits: `PORT_WAIT_MS` for a port that is in use, `BACKLOG` connections in the kernel's queue of each listener.
//! Cost: once at the start, six system calls for each worker; a wait binds every 20 ms.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use socket2::Socket;

use super::doctor::port::live_holder;
use super::port::{is_in_use, socket};
use super::probe::StartError;
use super::wait::sleep;
use crate::worker::time::Clock;

/// Length of the kernel's accept queue for each worker; net.core.somaxconn caps it.
const BACKLOG: i32 = 4096;
/// How long a start waits for a port that is in use. The kernel closes the connections of a process that was killed
/// before it frees the port: 36 µs each were measured, 0.5 s for 15,000.
const PORT_WAIT_MS: u64 = 10_000;
/// Between two looks at a port.
pub(super) const PORT_WAIT_STEP: Duration = Duration::from_millis(20);
/// How long a start waits for a process that listens: it may be about to end.
const HOLDER_WAIT_MS: u64 = 500;

/// # Errors
/// The sentence for the operator, with the process that has the port if this user may see it.
pub(super) fn bind(address: SocketAddr, workers: usize) -> Result<Vec<TcpListener>, StartError> {
    let failed = |error| StartError::Bind(address, error);
    // With SO_REUSEPORT a second server would share the port in silence. A bind without it finds the first one.
    let probe = socket(address).map_err(failed)?;
    if is_in_use(address) {
        wait_for_holder(address, || Some(live_holder(address)?.sentence(address, false)))?;
    }
    wait_for_port(&probe, address).map_err(failed)?;
    let address_bound = probe.local_addr().map_err(failed)?.as_socket().unwrap_or(address);
    drop(probe);
    share_port(address_bound, workers).map_err(failed)
}

/// Waits up to `HOLDER_WAIT_MS` for a process that listens on the port to end. `sentence` says why the start fails
/// otherwise; `None` if no such process is known.
///
/// `sentence` is asked at the start and at the end only. To find the process, it may have to read the descriptors of
/// all processes of the host, which takes a second where these are some hundred thousand.
///
/// # Errors
/// When the process still listens.
pub(super) fn wait_for_holder(
    address: SocketAddr,
    sentence: impl Fn() -> Option<String>,
) -> Result<(), StartError> {
    if sentence().is_none() {
        return Ok(());
    }
    let clock = Clock::start();
    while is_in_use(address) {
        if clock.now().0 >= HOLDER_WAIT_MS {
            return sentence().map_or(Ok(()), |sentence| Err(StartError::Held(sentence)));
        }
        sleep(PORT_WAIT_STEP);
    }
    Ok(())
}

/// Tries again until `PORT_WAIT_MS` is over: the kernel may be closing the connections of a process that was killed.
fn wait_for_port(probe: &Socket, address: SocketAddr) -> io::Result<()> {
    let clock = Clock::start();
    let mut is_first = true;
    loop {
        match probe.bind(&address.into()) {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse && clock.now().0 < PORT_WAIT_MS =>
            {
                if std::mem::take(&mut is_first) {
                    tracing::warn!(
                        event = "port_in_use",
                        "{address} is in use; waiting up to {} s for it. After a crash the kernel frees the port when \
                         it has closed the connections",
                        PORT_WAIT_MS / 1_000
                    );
                }
                sleep(PORT_WAIT_STEP);
            }
            result => return result,
        }
    }
}

pub(super) fn share_port(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    (0..count)
        .map(|_| {
            let socket = socket(address)?;
            socket.set_reuse_port(true)?;
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
            socket.set_nonblocking(true)?;
            Ok(socket.into())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::port::listening;
    use std::cell::Cell;

    /// To find the process can take a second. When each step of the wait did so, a start beside 60,000 open
    /// descriptors took 22 s to say that the port is in use.
    #[test]
    fn the_process_that_listens_is_looked_for_twice_at_most() {
        let (_listener, address) = listening();
        let looked = Cell::new(0);
        let result = wait_for_holder(address, || {
            looked.set(looked.get() + 1);
            Some("in use".to_owned())
        });
        assert!(matches!(result, Err(StartError::Held(sentence)) if sentence == "in use"));
        assert_eq!(looked.get(), 2);
    }

    #[test]
    fn a_process_that_ends_during_the_wait_is_no_reason_to_fail() {
        let (listener, address) = listening();
        let listener = Cell::new(Some(listener));
        let end = || {
            drop(listener.take());
            Some("in use".to_owned())
        };
        wait_for_holder(address, end).unwrap();
        // The process has ended, and the kernel has not freed the port yet.
        let (_listener, address) = listening();
        let asked = Cell::new(false);
        wait_for_holder(address, || (!asked.replace(true)).then(|| "in use".to_owned())).unwrap();
    }
}
