//! The start of a process that takes the place of another one: it finds the old process and its listeners, agrees where
//! the workers meet, and takes over once its own workers run.
//!
//! Owns no state: the order of the steps of the new process. The protocol is `takeover/`. Without an old process a
//! start binds listeners of its own (`listeners.rs`). Does not move a connection: the workers of both processes do.
//! Limits: `OFFER_WAIT_MS` for the offer of a process that listens, and those of `takeover/`. Cost: once at the start;
//! without an old process, a few system calls that look for its socket.

use std::io;
use std::net::{SocketAddr, TcpListener};

use super::doctor::port::Holder;
use super::listeners::{PORT_WAIT_STEP, bind, share_port, wait_for_holder};
use super::port::is_in_use;
use super::probe::StartError;
use super::takeover::rendezvous::Places;
use super::takeover::replacement::Role;
use super::takeover::{self, OldProcess, Running, ServesAppsError, transfer};
use super::wait::sleep;
use crate::mailbox::Doorbell;
use crate::worker::Shared;
use crate::worker::time::Clock;
use crate::worker::transfer::{FORMAT, Rendezvous};

/// How long a take-over waits for the offer of a process that listens. A server listens before it offers, so a
/// deployment that follows a start at once finds a port in use and no offer.
const OFFER_WAIT_MS: u64 = 2_000;

/// The listeners of the old process, if this one takes over, or new ones. `has_apps`: this process has a configured
/// app.
pub(super) fn obtain_listeners(
    address: SocketAddr,
    tls_address: Option<SocketAddr>,
    workers: usize,
    is_takeover: bool,
    places: &Places,
    (role, has_apps): (Role, bool),
) -> Result<(Option<OldProcess>, Vec<TcpListener>), StartError> {
    let addresses: Vec<SocketAddr> = [address].into_iter().chain(tls_address).collect();
    let found = if is_takeover {
        wait_for_offer(address, || takeover::ask(&addresses, places, has_apps))
            .map_err(start_error)?
    } else if is_in_use(address) {
        match takeover::ask_orphan(&addresses, places, has_apps).map_err(start_error)? {
            Running::Unknown => None,
            Running::Orphan(old_process, listeners) => Some((old_process, listeners)),
            Running::Server(process) => {
                let holder = Holder::of_server(u32::try_from(process).unwrap_or_default());
                wait_for_holder(address, || Some(holder.sentence(address, true)))?;
                None
            }
        }
    } else {
        None
    };
    if let Some((old_process, mut listeners)) = found {
        for address in addresses {
            let there = |listener: &&TcpListener| listener.local_addr().ok() == Some(address);
            let more = workers.saturating_sub(listeners.iter().filter(there).count());
            let bound = share_port(address, more);
            listeners.extend(bound.map_err(|error| StartError::Bind(address, error))?);
        }
        return Ok((Some(old_process), listeners));
    }
    if let Role::StandIn(parent) = role {
        let text = format!("process {parent} does not serve {address}, or has ended");
        return Err(StartError::TakeOver(io::Error::new(io::ErrorKind::NotFound, text)));
    }
    if is_takeover {
        tracing::info!(
            event = "takeover_not_needed",
            "no running server at {address} to take over from: starting as usual"
        );
    }
    let mut listeners = bind(address, workers)?;
    if let Some(address) = tls_address {
        listeners.extend(bind(address, workers)?);
    }
    Ok((None, listeners))
}

/// Asks for the old process until it offers a take-over, for up to `OFFER_WAIT_MS` while a process listens there.
fn wait_for_offer<T>(
    address: SocketAddr,
    mut ask: impl FnMut() -> io::Result<Option<T>>,
) -> io::Result<Option<T>> {
    let clock = Clock::start();
    loop {
        let found = ask()?;
        if found.is_some() || !is_in_use(address) || clock.now().0 >= OFFER_WAIT_MS {
            return Ok(found);
        }
        sleep(PORT_WAIT_STEP);
    }
}

fn start_error(error: io::Error) -> StartError {
    match error.get_ref() {
        Some(inner) if inner.is::<ServesAppsError>() => StartError::NoAppsForTakeOver,
        _ => StartError::TakeOver(error),
    }
}

/// Agrees where the workers receive connections of the old process, and by which clock: moments in the state of a
/// connection are those of the old process's clock. `sender`: the old process, if its connections are to move.
pub(super) fn agree_on_transfer(
    sender: Option<&OldProcess>,
    workers: usize,
) -> Result<(Clock, Option<Rendezvous>), StartError> {
    let Some(sender) = sender else { return Ok((Clock::start(), None)) };
    let clock = Clock::started_at(sender.clock_start_nanos);
    match clock.filter(|_| sender.record_format == u64::from(FORMAT)) {
        Some(clock) => {
            let nonce = getrandom::u64().map_err(|_| StartError::Random)?;
            let rendezvous = Rendezvous { nonce, senders: sender.workers, receivers: workers };
            Ok((clock, Some(rendezvous)))
        }
        None => {
            tracing::info!(
                event = "takeover_listeners_only",
                "the running server has another version, or is in a cluster: its connections stay with it, and it \
                 closes them"
            );
            Ok((Clock::start(), None))
        }
    }
}

/// The connections move, too, if `agree_on_transfer` has agreed so.
pub(super) fn take_over(
    old_process: &OldProcess,
    shared: &Shared,
    doorbells: &[Doorbell],
) -> Result<(), StartError> {
    let retires = match shared.transfer.incoming {
        Some(rendezvous) => {
            transfer::receive(shared, doorbells, old_process, rendezvous.nonce)
                .map_err(StartError::TakeOver)?;
            old_process.wait_until_retiring()
        }
        None => old_process.retire(),
    };
    if let Err(error) = retires {
        tracing::warn!(
            event = "takeover_not_confirmed",
            "the old process did not confirm that it closes its connections: {error}"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::port::listening;

    /// A server offers its take-over a moment after it listens. A deployment in between was refused with "in use".
    #[test]
    fn a_process_that_listens_is_asked_until_it_offers_a_take_over() {
        let (_listener, address) = listening();
        let mut asked = 0;
        let found = wait_for_offer(address, || {
            asked += 1;
            Ok((asked == 3).then_some("an offer"))
        });
        assert_eq!((found.unwrap(), asked), (Some("an offer"), 3));
    }

    #[test]
    fn a_free_port_is_no_reason_to_wait_for_an_offer() {
        let (listener, address) = listening();
        drop(listener);
        let mut asked = 0;
        let found = wait_for_offer(address, || {
            asked += 1;
            Ok(None::<()>)
        });
        assert_eq!((found.unwrap(), asked), (None, 1));
    }

    #[test]
    fn an_error_of_the_old_process_ends_the_wait() {
        let (_listener, address) = listening();
        let found = wait_for_offer(address, || Err::<Option<()>, _>(io::Error::other("refused")));
        assert_eq!(found.unwrap_err().to_string(), "refused");
    }
}
