//! What tests ask of the system: ports, files that are executed, memory and CPU time of a process.
//!
//! Owns the counter of free ports. Does not start servers. Limits: a range of ports that the kernel gives to no other
//! process. Cost: some system calls.

use std::io::{ErrorKind, Read};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// The tests may have as many sockets as this process may.
pub(crate) fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("the soft limit may be as high as the hard one");
}

/// Reads until the server ends the connection, however it does.
pub(crate) fn drain(stream: &mut TcpStream) {
    let mut chunk = [0; 64 * 1024];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) => {
                assert_ne!(error.kind(), ErrorKind::WouldBlock, "the server holds the connection");
                return;
            }
        }
    }
}

/// The resident set of a process.
pub(crate) fn resident_bytes(process: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/statm")).expect("it runs");
    let pages = text.split(' ').nth(1).and_then(|text| text.parse::<u64>().ok());
    pages.expect("a number of pages") * rustix::param::page_size() as u64
}

/// The processor time of a process so far.
pub(crate) fn processor_time(process: u32) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("it runs");
    let (_, behind_name) = text.rsplit_once(") ").expect("a name in brackets");
    let fields: Vec<&str> = behind_name.split(' ').collect();
    let ticks = |index: usize| fields[index].parse::<u64>().expect("a number of ticks");
    let per_second = rustix::param::clock_ticks_per_second();
    Duration::from_millis((ticks(11) + ticks(12)) * 1_000 / per_second)
}

/// A free port for a server that must know it before it starts. The kernel gives no port of this range to a process
/// that asks for any port, so none of the tests that run beside this one gets it.
pub(crate) fn free_port() -> u16 {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 20_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let mut ports = (0..COUNT).map(|_| {
        // Another run of the tests begins elsewhere.
        let number =
            std::process::id().wrapping_mul(97).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        u16::try_from(FIRST + number % COUNT).expect("a port")
    });
    ports.find(is_free).expect("a free port")
}

/// All Rust files of a folder, one after the other.
pub(crate) fn rust_text_below(folder: &std::path::Path) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            text.push_str(&rust_text_below(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&std::fs::read_to_string(path).expect("a source file"));
        }
    }
    text
}

/// Makes a file that is to be executed: with `text`, or a copy of `from`.
///
/// Another process writes it. A test that starts a server at that moment would pass a descriptor open for writing to
/// its child until that executes, and the kernel refuses to execute a file that anybody has open for writing.
pub(crate) fn make_program(path: &std::path::Path, content: Content<'_>) {
    let mut command = std::process::Command::new("sh");
    match content {
        Content::Copy(from) => command.args(["-c", "cp \"$1\" \"$2\"", "sh", from]),
        Content::Script(text) => {
            command.args(["-c", "printf %s \"$1\" >\"$2\" && chmod 755 \"$2\"", "sh", text])
        }
    };
    assert!(command.arg(path).status().expect("a shell").success());
}

/// What `make_program` writes.
#[derive(Clone, Copy)]
pub(crate) enum Content<'a> {
    Copy(&'a str),
    Script(&'a str),
}
