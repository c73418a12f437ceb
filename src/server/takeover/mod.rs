//! Taking over: a new process receives the listeners of a running server, and its connections with them.
//!
//! Owns the protocol between the two processes, which the diagram below shows. `rendezvous.rs`: where they find each
//! other, and whom they trust. `message.rs`: the messages. `new_side.rs` and `old_side.rs`: what each process does.
//! `transfer.rs`: the connections, with the workers' part in `worker/transfer`. `replacement.rs`: SIGUSR2, two
//! take-overs within one process id. Listeners move as descriptors (SCM_RIGHTS), so that connections in their accept
//! queues are not reset. Does not read a record of a connection.
//! Limits: `message.rs` has those of messages, `rendezvous.rs` and the two sides those of times. Cost: five messages;
//! the workers' part is linear in connections.

// The conversation:
//
//     new process                              old process
//         | ---- take over N ----------------------> |
//         |                                          |  changes of the configuration wait
//         | <- listeners FORMAT WORKERS CLOCK ADMIN  |  with the descriptors; ADMIN is 1 if the last one is the admin's
//         |                                          |
//         |  only the listeners move:                |
//         | ---- accepting ------------------------> |  point of no return
//         | <--- retiring -------------------------- |  it closes its connections with 4200
//         |                                          |
//         |  or the connections move too:            |
//         | ---- bring WORKERS NONCE --------------> |  HTTP requests end, workers pause, mail runs dry
//         | <=== connections, worker to worker ===== |  records and descriptors
//         | ---- taken ----------------------------> |  point of no return
//         | <--- retiring -------------------------- |
//         | ---- (closes) -------------------------> |  it may exit
//
// If a side stops before the point of no return, no connection and no state is lost: the old process continues. Only
// requests that had arrived in part have been refused with 503. At any time before the point of no return the old
// process may send `failed` and shut its end. A write of `taken` then fails. If `taken` was written before the
// shutdown, the old process finds it in its receive buffer and treats the take-over as completed. If `taken` is
// refused and there is no `failed` to read, the old process has died, and the new process has the only copy of
// everything. From the first answer on, the old process carries out no change of the configuration, and the new one
// reads what may have changed since it started. A failed take-over ends the wait, and a completed one refuses the
// changes.

mod message;
mod new_process;
mod new_side;
mod old_side;
mod order;
pub(super) mod rendezvous;
pub(super) mod replacement;
pub(super) mod transfer;

pub(super) use message::{ServesAppsError, explain_error};
pub(super) use new_process::NewProcess;
pub(super) use new_side::{OldProcess, Running, ask, ask_orphan};
pub(super) use old_side::{Offer, Offering, offer};
pub(super) use order::{Order, OrderQueue};

#[cfg(test)]
mod tests {
    use super::message::send_text;
    use super::rendezvous::Places;
    use super::*;
    use crate::limits::WORKERS_MAX;
    use crate::server::control::Control;
    use crate::server::port::listening;
    use crate::worker::transfer::FORMAT;
    use std::io::{self, Read, Write};
    use std::net::{SocketAddr, TcpListener};
    use std::sync::mpsc::{self, Sender};

    fn of(address: SocketAddr, listener: TcpListener) -> Offer {
        Offer {
            address,
            listeners: vec![listener.into()],
            workers: 1,
            clock_start_nanos: 7,
            can_transfer: true,
            admin: None,
        }
    }

    fn offer_to_others(what: Offer, asked: Sender<Order>) -> Control {
        let control = Control::start().unwrap();
        offer(&control, what, &Places::without_directories(), holding(asked, true)).unwrap();
        control
    }

    /// A main thread that reports at once that changes wait, and passes on all other orders.
    pub(super) fn holding(asked: Sender<Order>, is_development: bool) -> Sender<Order> {
        let (sender, orders) = mpsc::channel();
        std::thread::spawn(move || {
            for order in orders {
                match order {
                    Order::HoldChanges(report) => report.report(is_development),
                    Order::ResumeChanges => {}
                    // The test may have ended.
                    order => drop(asked.send(order)),
                }
            }
        });
        sender
    }

    #[test]
    fn listeners_move_with_the_connections_in_their_backlog() {
        let (listener, address) = listening();
        let (asked, asks) = mpsc::channel();
        offer_to_others(of(address, listener), asked);
        let mut waiting = std::net::TcpStream::connect(address).unwrap();
        let (old_process, listeners) = ask(&[address], &Places::without_directories(), true)
            .unwrap()
            .expect("somebody is there");
        assert!(asks.try_recv().is_err(), "nothing is decided yet");
        old_process.retire().unwrap();
        assert!(matches!(asks.recv().unwrap(), Order::Retire(_)));
        let (mut accepted, _) = listeners[0].accept().unwrap();
        accepted.write_all(b"here").unwrap();
        let mut received = [0; 4];
        waiting.read_exact(&mut received).unwrap();
        assert_eq!(&received, b"here");
        assert!(
            ask(&[address], &Places::without_directories(), true).unwrap().is_none(),
            "it offers no more"
        );
    }

    /// The descriptor of the admin listener is the last one, and no worker gets it.
    #[test]
    fn the_admin_listener_moves_apart_from_the_others() {
        let (listener, address) = listening();
        let admin = TcpListener::bind("127.0.0.1:0").unwrap();
        let admin_address = admin.local_addr().unwrap();
        let (asked, _asks) = mpsc::channel();
        offer_to_others(Offer { admin: Some(admin.into()), ..of(address, listener) }, asked);
        let (mut old_process, listeners) = ask(&[address], &Places::without_directories(), true)
            .unwrap()
            .expect("somebody is there");
        assert_eq!(listeners.len(), 1);
        assert_eq!(listeners[0].local_addr().unwrap(), address);
        let admin = TcpListener::from(old_process.admin.take().expect("it has one"));
        assert_eq!(admin.local_addr().unwrap(), admin_address);
    }

    #[test]
    fn a_new_process_that_ends_or_sends_something_else_changes_nothing() {
        let (listener, address) = listening();
        let (asked, asks) = mpsc::channel();
        offer_to_others(of(address, listener), asked);
        drop(
            ask(&[address], &Places::without_directories(), true)
                .unwrap()
                .expect("somebody is there"),
        );
        let mut foreigner = Places::without_directories().find(address).unwrap().unwrap();
        send_text(&foreigner, "take over 9").unwrap();
        assert_eq!(foreigner.read(&mut [0; 1]).unwrap_or(0), 0);
        assert!(asks.try_recv().is_err());
        ask(&[address], &Places::without_directories(), true)
            .unwrap()
            .expect("it still offers")
            .0
            .retire()
            .unwrap();
        assert!(asks.recv().is_ok());
    }

    /// The pairs of workers are computed from the number: zero, or more than there can be, is refused.
    #[test]
    fn an_old_process_that_names_an_impossible_number_of_workers_is_refused() {
        for workers in [0, WORKERS_MAX + 1, 1 << 40] {
            let (listener, address) = listening();
            let (asked, _asks) = mpsc::channel();
            let offer_of_it = Offer { workers, ..of(address, listener) };
            offer_to_others(offer_of_it, asked);
            let refused = ask(&[address], &Places::without_directories(), true).err();
            assert_eq!(refused.map(|error| error.kind()), Some(io::ErrorKind::InvalidData));
        }
    }

    /// Asks for everything, as a new process does.
    fn begin() -> (OldProcess, NewProcess) {
        let (listener, address) = listening();
        let (asked, asks) = mpsc::channel();
        offer_to_others(of(address, listener), asked);
        let (old_process, _) = ask(&[address], &Places::without_directories(), true)
            .unwrap()
            .expect("somebody is there");
        assert_eq!((old_process.record_format, old_process.workers), (u64::from(FORMAT), 1));
        assert_eq!(old_process.clock_start_nanos, 7);
        old_process.request_transfer(3, 99).unwrap();
        let Order::Transfer(new_process) = asks.recv().unwrap() else { panic!("connections") };
        assert_eq!((new_process.workers, new_process.nonce), (3, 99));
        assert!(!new_process.has_confirmed().unwrap());
        old_process.check_sending().unwrap();
        (old_process, new_process)
    }

    #[test]
    fn a_confirmed_transfer_cannot_be_reclaimed() {
        let (old_process, new_process) = begin();
        old_process.confirm().unwrap();
        assert!(!new_process.reclaim(), "too late");
        new_process.report_outcome(true);
        old_process.wait_until_retiring().unwrap();
    }

    #[test]
    fn a_reclaimed_transfer_cannot_be_confirmed() {
        let (old_process, new_process) = begin();
        assert!(new_process.reclaim());
        old_process.confirm().unwrap_err();
        new_process.report_outcome(false);
        let (old_process, new_process) = begin();
        assert!(new_process.reclaim());
        old_process.check_sending().unwrap_err();
        new_process.report_outcome(false);
    }

    #[test]
    fn confirming_and_reclaiming_at_once_has_one_winner() {
        for _ in 0..200 {
            let (old_process, new_process) = begin();
            let (taken, kept) = std::thread::scope(|scope| {
                let take = scope.spawn(|| old_process.confirm().is_ok());
                let kept = new_process.reclaim();
                (take.join().unwrap(), kept)
            });
            assert_ne!(taken, kept, "both have them, or nobody");
        }
    }

    #[test]
    fn the_old_process_may_die_after_the_new_one_has_everything() {
        let (old_process, new_process) = begin();
        drop(new_process);
        // The task of the offer has the stream too, until it sees that the take-over has failed.
        while !old_process.has_closed().unwrap() {
            crate::server::wait::sleep(std::time::Duration::from_millis(1));
        }
        old_process.confirm().unwrap();
    }

    #[test]
    fn without_an_old_process_there_is_nothing_to_take_over() {
        let (_listener, address) = listening();
        assert!(ask(&[address], &Places::without_directories(), true).unwrap().is_none());
    }

    /// Every client would be refused. A development server may replace a development server.
    #[test]
    fn a_process_without_apps_takes_over_from_a_development_server_only() {
        for is_development in [false, true] {
            let (listener, address) = listening();
            let (asked, _asks) = mpsc::channel();
            let control = Control::start().unwrap();
            let orders = holding(asked, is_development);
            offer(&control, of(address, listener), &Places::without_directories(), orders).unwrap();
            match ask(&[address], &Places::without_directories(), false) {
                Ok(found) => assert!(is_development && found.is_some()),
                Err(error) => {
                    assert!(!is_development);
                    assert!(error.get_ref().is_some_and(|inner| inner.is::<ServesAppsError>()));
                    let found = ask(&[address], &Places::without_directories(), true).unwrap();
                    assert!(found.is_some(), "it still offers");
                }
            }
        }
    }
}
