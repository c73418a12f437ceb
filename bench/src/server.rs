//! The server under test as a process: started and stopped here, or only looked at.

use std::io;
use std::net::{SocketAddrV4, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::proc::{self, Memory};
use crate::sys;

const START_DEADLINE: Duration = Duration::from_secs(20);
const STOP_DEADLINE: Duration = Duration::from_secs(30);

pub(crate) struct Server {
    /// Nothing about the process is reported when its id is not known.
    pub(crate) pid: Option<u32>,
    child: Option<Child>,
}

/// How the server left after SIGTERM.
pub(crate) struct Stopped {
    pub(crate) took: Duration,
    pub(crate) clean: bool,
}

impl Server {
    pub(crate) fn attach(pid: Option<u32>) -> Self {
        Self { pid, child: None }
    }

    /// Starts `command` in a shell that it replaces, on `cpus` (a list as taskset takes it), and
    /// waits until `address` accepts. What it prints goes to standard error.
    pub(crate) fn start(
        command: &str,
        cpus: Option<&str>,
        address: SocketAddrV4,
    ) -> io::Result<Self> {
        let script = format!("exec {command} 1>&2");
        let mut process = match cpus {
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
        // Its own group: an interrupt at the terminal ends the bench, which then stops the server.
        let child = process.stdin(Stdio::null()).process_group(0).spawn()?;
        let mut server = Self { pid: Some(child.id()), child: Some(child) };
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

    pub(crate) fn cpu_time(&self) -> Duration {
        self.pid.and_then(|pid| proc::cpu_time(pid).ok()).unwrap_or_default()
    }

    pub(crate) fn memory(&self) -> Memory {
        self.pid.and_then(|pid| proc::memory(pid).ok()).unwrap_or_default()
    }

    /// Ends the server if it was started here.
    pub(crate) fn stop(&mut self) -> io::Result<Option<Stopped>> {
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
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
