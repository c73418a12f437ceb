//! The control thread: everything of the server's management that waits for a descriptor or for a time.
//!
//! Owns one thread with a monoio runtime. Each concern is a task of it: signals (`life/threads.rs`), take-over requests
//! (`takeover/old_side.rs`), memory measurements (`watch.rs`), certificates (`certificates.rs`), the time limit of a
//! stand-in (`takeover/replacement.rs`). Tasks wait only with `Readable` and monoio's timers. Every other call is made
//! directly and must not block, because it would stop all tasks. Does not serve a client.
//! No limits: a fixed list of tasks; each file above bounds its own. Cost: one thread, and a few system calls a second
//! while nothing happens.

// These threads do not use the control thread, because their work blocks, takes longer, or exists without it:
// - `admin` (`admin/server.rs`): a thread of the same kind, because metrics of many apps take milliseconds to write;
// - the main thread (`life.rs`, `ending.rs`, `takeover/transfer.rs`): it drives take-overs and the drain in steps with
// waits;
// - `last-signal` (`ending.rs`): it empties the main thread's queue while that thread waits for webhooks;
// - `stand-in` (`takeover/replacement.rs`): `waitpid` has no descriptor before Linux 5.3;
// - `signals-late`, and a process that only waits for its stand-in (`takeover/replacement.rs`): they have no server.

use std::future::Future;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::time::Duration;

use monoio::time::sleep;
use monoio::{LegacyDriver, RuntimeBuilder};

/// Setups that wait for the control thread. The main thread waits for each, so there is at most one.
const SETUPS_MAX: usize = 1;
/// The pause after an error that would repeat at once, such as an `accept` without a free descriptor.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Creates a task on the control thread and reports whether that worked.
type Setup = Box<dyn FnOnce() + Send>;

/// Dropped, it ends nothing: the thread and its tasks end with the process.
pub(super) struct Control {
    setups: SyncSender<Setup>,
    wake_stream: UnixStream,
}

impl Control {
    /// # Errors
    /// When the thread or its runtime cannot be created.
    pub(super) fn start() -> io::Result<Self> {
        Self::start_thread("control")
    }

    /// A thread of the same kind with this name, for tasks that must not delay those of the control thread.
    ///
    /// # Errors
    /// When the thread or its runtime cannot be created.
    pub(super) fn start_thread(name: &str) -> io::Result<Self> {
        let (wake_stream, wake_receiver) = UnixStream::pair()?;
        wake_receiver.set_nonblocking(true)?;
        let (setups, queue) = mpsc::sync_channel(SETUPS_MAX);
        let (started, result) = mpsc::channel();
        let run = move || {
            // monoio's epoll driver, also where the workers use io_uring. Control traffic is a few calls a second, so a
            // ring has no benefit here. Without a ring, this thread needs no locked memory (`locked.rs`) and no seccomp
            // profile that allows io_uring, and it behaves the same on every host. monoio's own choice of a driver must
            // not be used: it does not notice a kernel that refuses only `io_uring_enter`, and then hangs.
            let built =
                RuntimeBuilder::<LegacyDriver>::new().with_entries(64).enable_timer().build();
            let mut runtime = match built {
                Ok(runtime) => runtime,
                Err(error) => {
                    // Fails only if the receiver has ended, and then nothing waits for it.
                    started.send(Err(error)).ok();
                    return;
                }
            };
            runtime.block_on(async move {
                let readable = Readable::of(&wake_receiver);
                // Fails only if the receiver has ended, and then nothing waits for it.
                started.send(readable.as_ref().map(|_| ()).map_err(copy_of_error)).ok();
                if let Ok(readable) = readable {
                    run_setups(&wake_receiver, &readable, &queue).await;
                }
                // The tasks that run do so until the process ends.
                std::future::pending().await
            })
        };
        std::thread::Builder::new().name(name.to_owned()).spawn(run)?;
        result
            .recv()
            .unwrap_or_else(|_| Err(control_thread_ended()))
            .map(|()| Self { setups, wake_stream })
    }

    /// Calls `setup` on the control thread, and runs what it returns there as a task. Waits for `setup` only.
    ///
    /// # Errors
    /// Those of `setup`.
    pub(super) fn run<Task>(
        &self,
        setup: impl FnOnce() -> io::Result<Task> + Send + 'static,
    ) -> io::Result<()>
    where
        Task: Future<Output = ()> + 'static,
    {
        let (done, result) = mpsc::channel();
        let setup = move || {
            // Fails only if the receiver has ended, and then nothing waits for it.
            done.send(setup().map(|task| drop(monoio::spawn(task)))).ok();
        };
        self.setups.try_send(Box::new(setup)).map_err(|_| control_thread_ended())?;
        (&self.wake_stream).write_all(&[1])?;
        result.recv().unwrap_or_else(|_| Err(control_thread_ended()))
    }
}

async fn run_setups(wake_receiver: &UnixStream, readable: &Readable, queue: &Receiver<Setup>) {
    let mut wake_bytes = [0; 16];
    loop {
        readable.wait().await;
        if let Ok(0) = (&*wake_receiver).read(&mut wake_bytes) {
            return;
        }
        queue.try_iter().for_each(|setup| setup());
    }
}

fn control_thread_ended() -> io::Error {
    io::Error::other("the control thread has ended")
}

fn copy_of_error(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), error.to_string())
}

/// Waits until a descriptor is readable. Works for sockets, listeners, pipes and every other descriptor that epoll
/// takes; the descriptor stays its owner's, who makes the calls on it.
pub(super) struct Readable(monoio::net::UnixStream);

impl Readable {
    /// Registers a copy of the descriptor. Works on the control thread only, within a setup or a task.
    ///
    /// # Errors
    /// When the process has no descriptor left, or epoll refuses this one.
    pub(super) fn of(descriptor: impl AsFd) -> io::Result<Self> {
        let copy = descriptor.as_fd().try_clone_to_owned()?;
        // monoio only polls it, so it need not be a Unix stream.
        monoio::net::UnixStream::from_std(UnixStream::from(copy)).map(Self)
    }

    /// Returns when there is something to read, the other side has closed, or an error waits. It may return too early,
    /// so the call that follows must not block.
    pub(super) async fn wait(&self) {
        // Not `true`: with the epoll driver, that returns at once forever after the first time.
        if let Err(error) = self.0.readable(false).await {
            tracing::debug!(
                event = "descriptor_not_polled",
                "a descriptor cannot be polled: {error}"
            );
            sleep(RETRY_PAUSE).await;
        }
    }

    /// Returns when there is room to write, or an error waits. It may return too early, too.
    pub(super) async fn wait_for_room(&self) {
        if let Err(error) = self.0.writable(false).await {
            tracing::debug!(
                event = "descriptor_not_polled",
                "a descriptor cannot be polled: {error}"
            );
            sleep(RETRY_PAUSE).await;
        }
    }
}

/// After so many connections a task pauses, so that the runtime looks at its timers.
pub(super) const CONNECTIONS_IN_A_ROW: u32 = 64;

/// The wait of a task that accepts connections. A flood keeps its listener readable.
pub(super) struct AcceptWait<'a> {
    readable: &'a Readable,
    accepted_in_a_row: u32,
}

impl<'a> AcceptWait<'a> {
    pub(super) fn new(readable: &'a Readable) -> Self {
        Self { readable, accepted_in_a_row: 0 }
    }

    /// Returns when there may be a connection. Pauses after some: a flood of connections is always readable, and a
    /// runtime that never parks runs no timer.
    pub(super) async fn next(&mut self) {
        self.accepted_in_a_row += 1;
        if self.accepted_in_a_row == CONNECTIONS_IN_A_ROW {
            self.accepted_in_a_row = 0;
            sleep(Duration::from_millis(1)).await;
        }
        self.readable.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A runtime that spins reports nothing.
    const LATE: Duration = Duration::from_secs(20);

    #[test]
    fn a_task_runs_while_another_one_waits_for_its_descriptor() {
        let control = Control::start().unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let (events, log) = mpsc::channel();
        let of_reader = events.clone();
        let reader = move || {
            let readable = Readable::of(&theirs)?;
            Ok(async move {
                loop {
                    readable.wait().await;
                    let mut byte = [0];
                    match (&theirs).read(&mut byte) {
                        Ok(0) => break,
                        Ok(_) => of_reader.send(byte[0]).unwrap(),
                        Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
                    }
                }
                of_reader.send(b'e').unwrap();
            })
        };
        control.run(reader).unwrap();
        let timer = move || {
            Ok(async move {
                sleep(Duration::from_millis(5)).await;
                events.send(b't').unwrap();
            })
        };
        control.run(timer).unwrap();
        assert_eq!(log.recv_timeout(LATE).unwrap(), b't', "the reader has nothing to read yet");
        for byte in [b'1', b'2'] {
            (&ours).write_all(&[byte]).unwrap();
            assert_eq!(log.recv_timeout(LATE).unwrap(), byte);
        }
        drop(control);
        drop(ours);
        assert_eq!(log.recv_timeout(LATE).unwrap(), b'e', "tasks outlive the handle");
    }

    #[test]
    fn a_wait_for_nothing_does_not_spin() {
        let control = Control::start().unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let (read, log) = mpsc::channel();
        let count_returns = move || {
            let readable = Readable::of(&theirs)?;
            Ok(async move {
                let mut returns = 0;
                loop {
                    readable.wait().await;
                    returns += 1;
                    match (&theirs).read(&mut [0; 8]) {
                        Ok(0) => break,
                        Ok(_) => read.send(returns).unwrap(),
                        Err(_) => {}
                    }
                }
                read.send(returns).unwrap();
            })
        };
        control.run(count_returns).unwrap();
        for _ in 0..10 {
            (&ours).write_all(b"1").unwrap();
            log.recv_timeout(LATE).expect("the byte is read");
        }
        drop(ours);
        let returns: u32 = log.recv_timeout(LATE).expect("a task that parks");
        assert!(returns <= 11, "{returns} returns for ten bytes and an end");
    }

    #[test]
    fn a_setup_that_fails_is_reported_and_the_next_one_works() {
        let control = Control::start().unwrap();
        let file = std::fs::File::open("/proc/self/status").unwrap();
        let refused = control.run(move || {
            let readable = Readable::of(&file)?;
            Ok(async move { readable.wait().await })
        });
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::PermissionDenied, "no epoll");
        control.run(|| Ok(async {})).unwrap();
    }
}
