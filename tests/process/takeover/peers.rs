//! The place at which a new process finds the running one: other users and other containers cannot occupy it, flood it
//! or take a server over, and it can be switched off.
//!
//! Several users are needed, so most of these tests need root, as in the containers they run in.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::support::{
    Content, Server, Setup, eventually, free_port, make_program, now, poll_pause,
};
use rustix::process::{Signal, Uid};

/// Users that no other test uses.
const OWNER: u32 = 64_311;
const STRANGER: u32 = 64_312;

/// The program where other users can reach it.
struct Program(PathBuf);

impl Program {
    fn new() -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "this test acts as two users: run it as root"
        );
        let path =
            std::env::temp_dir().join(format!("ringverb-{}-{:?}", std::process::id(), now()));
        make_program(&path, Content::Copy(env!("CARGO_BIN_EXE_ringverb")));
        Self(path)
    }

    /// A server of a user who has no private directory, so that it meets others at an abstract name.
    fn owner(&self, setup: Setup) -> Setup {
        setup.program(&self.0).user(OWNER).without_runtime_directory()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Acts as another user of the host until it is dropped.
struct Stranger {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    pub(crate) acts: Arc<AtomicU64>,
}

impl Stranger {
    fn start(mut act: impl FnMut() + Send + 'static) -> Self {
        let (over, acts) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (is_over, count) = (over.clone(), acts.clone());
        let thread = std::thread::spawn(move || {
            let user = Uid::from_raw(STRANGER);
            rustix::thread::set_thread_res_uid(user, user, user).expect("root may");
            while !is_over.load(Ordering::Relaxed) {
                act();
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { over, thread: Some(thread), acts }
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        self.thread.take().expect("a thread").join().expect("the stranger");
    }
}

/// All abstract names that hold this.
fn abstract_names(part: &str) -> Vec<String> {
    let text = std::fs::read_to_string("/proc/net/unix").expect("the kernel's list");
    let names = text.lines().filter_map(|line| Some(line.split_once(" @")?.1.to_owned()));
    names.filter(|name| name.contains(part)).collect()
}

fn port_of(server: &Server) -> String {
    server.address.port().to_string()
}

fn takes_over(old: Server, new: Setup) -> Server {
    let mut client = old.connect();
    client.subscribe("news");
    let start = now();
    let new = new.reaching(&old).arg("--takeover").start_as_configured();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!(old.finish().code, Some(0));
    new.publish("news", "e", "1");
    assert_eq!(client.event()["event"], "e", "the connection has moved");
    new
}

#[test]
fn another_user_cannot_occupy_the_place() {
    let program = Program::new();
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let names = move || {
        let decoys = (0..200).map(|number| format!("ringverb {address} {number:016x}"));
        let names = decoys.chain([format!("ringverb {address}")]);
        let bind = |name| UnixListener::bind_addr(&UnixAddress::from_abstract_name(name)?);
        names.map(bind).collect::<std::io::Result<Vec<_>>>().expect("free names")
    };
    let mut held = None;
    let squatter = Stranger::start(move || {
        held.get_or_insert_with(&names);
        poll_pause();
    });
    eventually("the names are taken", || (squatter.acts.load(Ordering::Relaxed) > 0).then_some(()));
    let start = now();
    let setup = Setup::new().workers(1).env("REVERB_SERVER_HOST", "127.0.0.1");
    let old =
        program.owner(setup.env("REVERB_SERVER_PORT", &port.to_string())).start_as_configured();
    let took = start.elapsed();
    assert!(took < Duration::from_millis(1_900), "the start was delayed: {took:?}");
    let new = takes_over(old, program.owner(Setup::new().workers(1)));
    drop(squatter);
    new.stop();
}

#[test]
fn another_user_cannot_flood_the_place() {
    let program = Program::new();
    let old = program.owner(Setup::new().workers(1)).start();
    let port = port_of(&old);
    let names = move || abstract_names(&format!(":{port} "));
    let mut target = None;
    let flood = Stranger::start(move || {
        let name: &String = target.get_or_insert_with(|| names().pop().expect("an abstract name"));
        let name = UnixAddress::from_abstract_name(name).expect("a name");
        // Refused once the old process has retired.
        let _ = UnixStream::connect_addr(&name);
    });
    eventually("a flood", || (flood.acts.load(Ordering::Relaxed) > 20_000).then_some(()));
    let mut client = old.connect();
    client.subscribe("news");
    let new = program.owner(Setup::new().workers(1)).reaching(&old).arg("--takeover");
    let new = new.start_as_configured();
    drop(flood);
    let finished = old.finish();
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let refusals = finished.stdout.lines().filter(|line| line.contains("take-over refused"));
    let refusals: Vec<&str> = refusals.collect();
    assert_eq!(refusals.len(), 1, "one line a minute: {refusals:#?}");
    assert!(refusals[0].contains("user 64312"), "{refusals:?}");
    new.publish("news", "e", "1");
    assert_eq!(client.event()["event"], "e");
    new.stop();
}

/// While connections move, each worker listens at a name that everybody can list.
#[test]
fn another_user_cannot_disturb_connections_that_move() {
    let program = Program::new();
    let flood = Stranger::start(|| {
        for name in abstract_names("ringverb ") {
            let name = UnixAddress::from_abstract_name(name).expect("a name");
            drop(UnixStream::connect_addr(&name));
        }
    });
    let mut server = program.owner(Setup::new().workers(2)).start();
    let mut times = 0;
    // On a busy machine the flood may come late.
    while times < 5 || flood.acts.load(Ordering::Relaxed) <= 10 {
        server = takes_over(server, program.owner(Setup::new().workers(2)));
        times += 1;
        assert!(times < 100, "the flood never came");
    }
    drop(flood);
    server.stop();
}

#[test]
fn a_place_in_a_private_directory_is_out_of_reach() {
    let old = Setup::new().workers(1).start();
    let port = port_of(&old);
    assert!(abstract_names(&format!(":{port}")).is_empty(), "no abstract name");
    let file = std::fs::read_dir(env!("CARGO_TARGET_TMPDIR")).expect("the directory");
    let file = file.map(|entry| entry.expect("an entry").path());
    let file = file.filter(|path| path.to_string_lossy().ends_with(&format!(":{port}.sock")));
    let [file] = file.collect::<Vec<_>>().try_into().expect("one file");
    assert!(UnixStream::connect(&file).is_ok());
    let new = takes_over(old, Setup::new().workers(1));
    assert!(file.exists(), "the new process is there");
    new.stop();
    assert!(!file.exists(), "no file is left");
}

#[test]
fn take_overs_can_be_switched_off() {
    let mut server = Setup::new().workers(1).env("RINGVERB_TAKEOVER", "false").start();
    let new = Setup::new().workers(1).reaching(&server).arg("--takeover").run();
    assert_eq!(new.code, Some(1), "{new:?}");
    assert!(new.stderr.contains("is in use"), "{new:?}");
    server.signal(Signal::USR2);
    server.line_with("SIGUSR2 ignored: RINGVERB_TAKEOVER=false");
    server.connect().sync();
    server.stop();
    let wrong = Setup::new().env("RINGVERB_TAKEOVER", "perhaps").run();
    assert!(wrong.code == Some(2) && wrong.stderr.contains("RINGVERB_TAKEOVER"), "{wrong:?}");
}

/// Root of a container with a network of its own user's host: the same user, another place.
#[test]
fn a_process_of_another_container_may_not_take_over() {
    for namespaces in [&["--mount"][..], &["--pid", "--fork", "--mount-proc"]] {
        let mut old = Setup::new().workers(1).start();
        let setup = Setup::new().workers(1).reaching(&old).arg("--takeover");
        let inside = setup.command();
        let mut outside = Command::new("unshare");
        outside.args(namespaces).arg(inside.get_program()).args(inside.get_args());
        outside
            .env_clear()
            .envs(inside.get_envs().filter_map(|(name, value)| Some((name, value?))));
        outside.stdin(Stdio::null()).process_group(0);
        let refused = outside.output().expect("unshare, of util-linux");
        let told = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(1), "{namespaces:?}: {told}");
        let line = old.line_with("take-over refused");
        assert!(line.contains("namespace") && line.contains("SIGUSR2"), "{line}");
        old.connect().sync();
        old.stop();
    }
}
