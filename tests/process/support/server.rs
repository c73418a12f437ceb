//! The server as a process: started with a folder and an environment of its own, on a port that the kernel chooses.
//!
//! Owns the process, which is killed with its owner; that it still ran then is part of every test, unless the test
//! ended it. Does not configure it: `setup.rs` does. Lines of its output are read by threads, so that it never waits
//! for a test. Limit: `time::DEADLINE` for each wait. Cost: one process and two threads.

use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use rustls::ClientConfig;
use socket2::{Domain, Socket, Type};

use super::folder::Folder;
use super::time::{DEADLINE, now, pause};
use super::wire::Wire;

#[derive(Debug)]
pub(super) struct Output {
    pub(super) stdout: Receiver<String>,
    pub(super) stderr: Receiver<String>,
    /// Lines of stdout so far.
    pub(super) seen: String,
}

/// Output and exit code of a run that ended by itself.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A running server. Dropped, it is killed; that it was still running then is part of every test, unless the test asked
/// it to end.
#[derive(Debug)]
pub(crate) struct Server {
    pub(super) child: Child,
    pub(super) output: Output,
    pub(crate) address: SocketAddr,
    /// With TLS: the configuration of its clients.
    pub(crate) trust: Option<Arc<ClientConfig>>,
    done: bool,
    /// It was sent a signal on which it ends, so `Drop` must not require that it still runs.
    told_to_end: AtomicBool,
    _folder: Folder,
}

impl Server {
    pub(super) fn new(
        child: Child,
        output: Output,
        address: SocketAddr,
        trust: Option<Arc<ClientConfig>>,
        folder: Folder,
    ) -> Self {
        let told_to_end = AtomicBool::new(false);
        Self { child, output, address, trust, done: false, told_to_end, _folder: folder }
    }

    /// Waits for the start message.
    pub(crate) fn listens(&mut self) {
        let line = self.line_with("  address  ");
        self.listens_at(&line);
    }

    /// Takes the address from the line of the start message.
    pub(super) fn listens_at(&mut self, line: &str) {
        let address = line.trim_start_matches("  address  ").split('/').next();
        self.address = address.and_then(|text| text.parse().ok()).expect("an address");
    }

    /// Waits for a line of stdout that holds this text.
    pub(crate) fn line_with(&mut self, text: &str) -> String {
        loop {
            match self.output.stdout.recv_timeout(DEADLINE) {
                Ok(line) => {
                    self.output.seen.push_str(&line);
                    self.output.seen.push('\n');
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(error) => {
                    self.done = true;
                    // It may have ended by itself.
                    let _ = self.child.kill();
                    let (_, errors) = rest(&self.output.stderr, DEADLINE);
                    panic!("no line with {text:?} ({error}); stderr: {errors}");
                }
            }
        }
    }

    /// `line_with`, where the line may have come before the start message.
    pub(crate) fn line_so_far_with(&mut self, text: &str) -> String {
        let seen = self.output.seen.lines().find(|line| line.contains(text)).map(str::to_owned);
        seen.unwrap_or_else(|| self.line_with(text))
    }

    /// Whether a line that was written by now, and not looked at yet, holds this text.
    pub(crate) fn try_line_with(&mut self, text: &str) -> bool {
        while let Ok(line) = self.output.stdout.try_recv() {
            self.output.seen.push_str(&line);
            self.output.seen.push('\n');
            if line.contains(text) {
                return true;
            }
        }
        false
    }

    /// Waits for a line of stderr that holds this text.
    pub(crate) fn error_line_with(&mut self, text: &str) -> String {
        let mut seen = String::new();
        loop {
            match self.output.stderr.recv_timeout(DEADLINE) {
                Ok(line) if line.contains(text) => return line,
                Ok(line) => seen += &(line + "\n"),
                Err(error) => {
                    self.done = true;
                    // It may have ended by itself.
                    let _ = self.child.kill();
                    panic!("no line with {text:?} ({error}) on stderr: {seen}");
                }
            }
        }
    }

    /// All lines of stdout so far.
    pub(crate) fn stdout(&self) -> &str {
        &self.output.seen
    }

    pub(crate) fn wire(&self) -> Wire {
        let wire = Wire::new(TcpStream::connect(self.address).expect("the server accepts"));
        match &self.trust {
            None => wire,
            Some(config) => wire.secured(config),
        }
    }

    /// A connection from this address of 127.0.0.0/8.
    pub(crate) fn wire_from(&self, source: [u8; 4]) -> Wire {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from((source, 0)).into()).expect("an address of the loopback");
        socket.connect(&self.address.into()).expect("the server accepts");
        Wire::new(TcpStream::from(socket))
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills it, as the kernel does when memory is short, and waits until the process is gone.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("the process is there");
        self.child.wait().expect("an exit status");
        self.done = true;
    }

    pub(crate) fn signal(&self, signal: Signal) {
        if matches!(signal, Signal::TERM | Signal::INT) {
            self.told_to_end.store(true, Ordering::Relaxed);
        }
        kill_process(Pid::from_child(&self.child), signal).expect("the process is there");
    }

    /// Stops the process (SIGSTOP): it keeps its connections and answers nothing, until `Signal::CONT`.
    pub(crate) fn pause(&self) {
        pause(&self.child);
    }

    /// Waits for the end.
    pub(crate) fn finish(mut self) -> Finished {
        let (ended, stdout) = rest(&self.output.stdout, DEADLINE);
        self.output.seen.push_str(&stdout);
        if !ended {
            panic!("the server did not end within {DEADLINE:?}; it said {}", self.output.seen);
        }
        let (_, stderr) = rest(&self.output.stderr, DEADLINE);
        let status: ExitStatus = self.child.wait().expect("an exit status");
        self.done = true;
        Finished { code: status.code(), stdout: std::mem::take(&mut self.output.seen), stderr }
    }

    /// The exit code, if it ends within this time; its output is not read.
    pub(crate) fn ends_within(mut self, limit: Duration) -> Option<i32> {
        let start = now();
        let (_nobody_sends, pause) = mpsc::channel::<()>();
        while start.elapsed() < limit {
            if let Some(status) = self.child.try_wait().expect("a child") {
                self.done = true;
                return status.code();
            }
            let _: Result<(), RecvTimeoutError> = pause.recv_timeout(Duration::from_millis(5));
        }
        panic!("the server has not ended within {limit:?}");
    }

    /// Ends the server as its supervisor would.
    pub(crate) fn stop(self) {
        self.signal(Signal::TERM);
        let finished = self.finish();
        assert_eq!(finished.code, Some(0), "{finished:?}");
    }
}

/// Reads the rest of a pipe. Returns also whether it ended before the deadline.
fn rest(pipe: &Receiver<String>, limit: Duration) -> (bool, String) {
    let start = now();
    let mut text = String::new();
    loop {
        match pipe.recv_timeout(limit.saturating_sub(start.elapsed())) {
            Ok(line) => {
                text.push_str(&line);
                text.push('\n');
            }
            Err(RecvTimeoutError::Disconnected) => return (true, text),
            Err(RecvTimeoutError::Timeout) => return (false, text),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let ended = self.child.try_wait().expect("a child");
        // It may have ended by itself.
        let _ = self.child.kill();
        self.child.wait().expect("an exit status");
        let (_, errors) = rest(&self.output.stderr, DEADLINE);
        if std::thread::panicking() {
            let (_, said) = rest(&self.output.stdout, DEADLINE);
            eprintln!("the server's stdout: {}{said}\nits stderr: {errors}", self.output.seen);
        } else {
            let told_to_end = self.told_to_end.load(Ordering::Relaxed);
            assert!(
                ended.is_none() || told_to_end,
                "the server ended by itself: {ended:?} {errors}"
            );
        }
    }
}
