//! The servers under test as processes: started and stopped here, or only observed. Usually one; several when one
//! descriptor table is too small for the connections.
//!
//! Owns the processes that it starts: they end with the bench, whatever happens to it. Does not stop a server that it
//! did not start. Limits: `START_DEADLINE`, `STOP_DEADLINE`. Cost: one process for each server; reading CPU time is a
//! file read for each of its threads.

use std::io;
use std::net::{SocketAddrV4, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::proc::{self, Memory};
use crate::sys;

const START_DEADLINE: Duration = Duration::from_secs(30);
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// How a server is started.
pub(crate) struct Start<'a> {
    pub(crate) command: &'a str,
    /// A list as taskset takes it.
    pub(crate) cpus: Option<&'a str>,
    /// Whether to say its port on the command line.
    pub(crate) says_port: bool,
}

struct Server {
    /// `None`: unknown, so that its CPU and memory are not reported.
    pid: Option<u32>,
    child: Option<Child>,
    address: SocketAddrV4,
}

pub(crate) struct Stopped {
    pub(crate) took: Duration,
    pub(crate) clean: bool,
}

impl Server {
    /// Starts the command in a shell that it replaces, and waits until `address` accepts. What it
    /// prints goes to standard error.
    fn start(start: &Start<'_>, address: SocketAddrV4) -> io::Result<Self> {
        let port =
            if start.says_port { format!(" --port {}", address.port()) } else { String::new() };
        let script = format!("exec {}{port} 1>&2", start.command);
        let mut process = match start.cpus {
            Some(cpus) => {
                let mut process = Command::new("taskset");
                process.args(["-c", cpus, "sh", "-c", &script]);
                process
            }
            None => {
                let mut process = Command::new("sh");
                process.args(["-c", &script]);
                process
            }
        };
        if TcpStream::connect(address).is_ok() {
            return Err(io::Error::other(format!("something listens at {address} already")));
        }
        // Its own group: an interrupt at the terminal is for the bench, whose end then ends it.
        sys::end_with_us(&mut process);
        let child = process.stdin(Stdio::null()).process_group(0).spawn()?;
        let mut server = Self { pid: Some(child.id()), child: Some(child), address };
        let deadline = Instant::now() + START_DEADLINE;
        while TcpStream::connect(address).is_err() {
            if let Some(child) = &mut server.child
                && let Some(status) = child.try_wait()?
            {
                return Err(io::Error::other(format!("the server ended at once: {status}")));
            }
            if Instant::now() > deadline {
                return Err(io::Error::other(format!("nothing listens at {address}")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// Ends the server if it was started here.
    fn stop(&mut self) -> io::Result<Option<Stopped>> {
        let Some(mut child) = self.child.take() else { return Ok(None) };
        let begin = Instant::now();
        sys::terminate(child.id())?;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(Some(Stopped { took: begin.elapsed(), clean: status.success() }));
            }
            if begin.elapsed() > STOP_DEADLINE {
                child.kill()?;
                child.wait()?;
                return Ok(Some(Stopped { took: begin.elapsed(), clean: false }));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Only reached when a scenario failed half way: nothing is left to report to.
            child.kill().ok();
            child.wait().ok();
        }
    }
}

pub(crate) struct Servers {
    list: Vec<Server>,
}

impl Servers {
    pub(crate) fn attach(pid: Option<u32>, address: SocketAddrV4) -> Self {
        Self { list: vec![Server { pid, child: None, address }] }
    }

    /// Starts `count` servers, on the ports from `address` on.
    pub(crate) fn start(start: &Start<'_>, address: SocketAddrV4, count: u16) -> io::Result<Self> {
        let mut list = Vec::new();
        for number in 0..count {
            let port = address.port().checked_add(number);
            let port = port.ok_or_else(|| io::Error::other("no port is left for a server"))?;
            list.push(Server::start(start, SocketAddrV4::new(*address.ip(), port))?);
        }
        Ok(Self { list })
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddrV4> {
        self.list.iter().map(|server| server.address).collect()
    }

    pub(crate) fn pids(&self) -> Vec<u32> {
        self.list.iter().filter_map(|server| server.pid).collect()
    }

    /// Name and version for the report: of ringverb the output of `--version`, of others the command.
    pub(crate) fn name(&self) -> String {
        let Some(server) = self.list.first() else { return "no server".to_owned() };
        let Some(pid) = server.pid else { return format!("the server at {}", server.address) };
        let link = format!("/proc/{pid}/exe");
        let program = std::fs::read_link(&link).unwrap_or_default();
        if program.file_name().is_some_and(|name| name == "ringverb")
            && let Ok(output) = Command::new(&link).arg("--version").output()
            && output.status.success()
        {
            return String::from_utf8_lossy(&output.stdout).trim().to_owned();
        }
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<_> = words.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
        words.join(" ").trim().to_owned()
    }

    pub(crate) fn cpu_time(&self) -> Duration {
        self.pids().into_iter().map(|pid| proc::cpu_time(pid).unwrap_or_default()).sum()
    }

    /// Time that the servers were ready to run and other processes had the CPU.
    pub(crate) fn waiting_time(&self) -> Duration {
        self.pids().into_iter().map(|pid| proc::waiting_time(pid).unwrap_or_default()).sum()
    }

    pub(crate) fn memory(&self) -> Memory {
        let one = |pid| proc::memory(pid).unwrap_or_default();
        self.pids().into_iter().map(one).fold(Memory::default(), Memory::plus)
    }

    /// Ends the servers that were started here, one after the other.
    pub(crate) fn stop(&mut self) -> io::Result<Option<Stopped>> {
        let mut all: Option<Stopped> = None;
        for server in &mut self.list {
            let Some(one) = server.stop()? else { continue };
            let so_far = all.unwrap_or(Stopped { took: Duration::ZERO, clean: true });
            let took = so_far.took.max(one.took);
            all = Some(Stopped { took, clean: so_far.clean && one.clean });
        }
        Ok(all)
    }
}
