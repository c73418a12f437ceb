//! SIGUSR2: the same process runs a new version of its program, so a supervisor sees no exit; what fails on the way
//! leaves a process that serves. The test is the supervisor: it waits for its child.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::support::{
    Client, Content, PING, PONG, Redis, Server, Setup, eventually, free_port, make_program,
};
use rustix::process::Signal;

const SERVER: &str = env!("CARGO_BIN_EXE_ringverb");
/// What the stand-in says when it serves.
const STANDS_IN: &str = "serves while this process loads the new program";
/// Of the start message.
const BANNER: &str = "  address  ";

/// A folder with a program that is replaced while it runs.
pub(crate) struct Installed(PathBuf);

impl Installed {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("exchange-{}-{number}", std::process::id());
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&folder).expect("a folder");
        let installed = Self(folder);
        fs::hard_link(SERVER, installed.program()).expect("the same file system");
        installed
    }

    pub(crate) fn program(&self) -> PathBuf {
        self.0.join("ringverb")
    }

    /// Puts another file in its place, as a package manager does.
    pub(crate) fn replace(&self, put: impl FnOnce(&Path)) {
        let new = self.0.join("new");
        put(&new);
        fs::rename(new, self.program()).expect("renamed");
    }

    /// A new version: another file with the same bytes.
    pub(crate) fn upgrade(&self) {
        self.replace(|path| make_program(path, Content::Copy(SERVER)));
    }

    /// A program that does something before it is the server; `$*` are its arguments. bash keeps signals held back that
    /// were held back for it; dash does not.
    pub(crate) fn script(&self, first: &str) {
        self.replace(|path| {
            let text = format!("#!/bin/bash\n{first}\nexec {SERVER} \"$@\"\n");
            make_program(path, Content::Script(&text));
        });
    }

    fn setup(&self) -> Setup {
        let port = free_port().to_string();
        let setup = Setup::new().workers(2).program(&self.program());
        setup.args(&["--host", "127.0.0.1", "--port", &port])
    }

    fn start(&self) -> Server {
        self.setup().start_as_configured()
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        // Left over, it does no harm: it is below the target folder.
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn on_stage(stage: &str, first: &str) -> String {
    format!("case \"$*\" in *--{stage}=*) {first} ;; esac")
}

fn inode(path: impl AsRef<Path>) -> u64 {
    fs::metadata(path).expect("a file").ino()
}

/// Children of a process, dead ones included.
fn children(process: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_child = |number: &u32| {
        let status = fs::read_to_string(format!("/proc/{number}/status")).unwrap_or_default();
        status.lines().any(|line| {
            line.strip_prefix("PPid:").is_some_and(|id| id.trim() == process.to_string())
        })
    };
    numbers.filter(is_child).collect()
}

/// The process has ended, and its parent has not waited for it yet.
#[track_caller]
fn becomes_zombie(server: &Server) {
    eventually("the process has ended", || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", server.id())).ok()?;
        stat.contains(") Z ").then_some(())
    });
}

fn subscribed(server: &Server) -> Client {
    let mut client = server.connect();
    client.subscribe("news");
    client
}

/// Publishes and expects it, once.
#[track_caller]
fn expect_event(server: &Server, client: &mut Client, text: &str) {
    server.publish("news", "e", text);
    client.expect(&format!(r#"{{"event":"e","data":"{text}","channel":"news"}}"#));
}

/// The program was replaced: the new one has said that it serves, and the stand-in has ended without a trace.
#[track_caller]
fn is_replaced(server: &mut Server) {
    server.line_with(STANDS_IN);
    server.line_with("SIGUSR2 complete: ");
    server.line_with(BANNER);
    eventually("the stand-in has ended and was waited for", || {
        children(server.id()).is_empty().then_some(())
    });
}

#[test]
fn the_program_is_replaced_in_the_same_process_and_no_client_notices() {
    let installed = Installed::new();
    let mut server = installed.start();
    let exe = format!("/proc/{}/exe", server.id());
    let mut client = subscribed(&server);
    let mut before = inode(&exe);
    for round in 0..3 {
        installed.upgrade();
        server.signal(Signal::USR2);
        // Publishes all the time, on each side of both take-overs.
        let mut count = 0;
        while inode(&exe) == before {
            count += 1;
            expect_event(&server, &mut client, &format!("{round}.{count}"));
        }
        is_replaced(&mut server);
        before = inode(&exe);
        assert_eq!(before, inode(installed.program()), "it runs what is at the path now");
        expect_event(&server, &mut client, "after");
        assert_eq!(server.open_connections(), 1);
    }
    let told = server.stdout();
    assert_eq!(told.matches("SIGUSR2 complete: 1 connection kept").count(), 3, "{told}");
    assert!(!told.contains("Stopped after") && !told.contains("has taken over"), "{told}");
    server.signal(Signal::TERM);
    assert_eq!(client.close_code_behind_events(), 4100);
    let finished = server.finish();
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{finished:?}");
}

#[test]
fn a_new_program_that_does_not_start_changes_nothing() {
    let installed = Installed::new();
    let mut server = installed.start();
    let mut client = subscribed(&server);
    installed.script("exit 7");
    server.signal(Signal::USR2);
    server.line_with("has ended: exit code 7");
    expect_event(&server, &mut client, "1");
    installed.replace(|path| fs::write(path, "no program").expect("written"));
    server.signal(Signal::USR2);
    server.line_with("does not start, so nothing changes");
    expect_event(&server, &mut client, "2");
    fs::remove_file(installed.program()).expect("removed");
    server.signal(Signal::USR2);
    server.line_with("does not start, so nothing changes");
    expect_event(&server, &mut client, "3");
    assert!(children(server.id()).is_empty(), "no zombie");
    installed.upgrade();
    server.signal(Signal::USR2);
    is_replaced(&mut server);
    expect_event(&server, &mut client, "4");
    client.close();
    server.stop();
}

/// The configuration breaks between the start of the stand-in and that of the new program.
#[test]
fn a_new_program_that_cannot_take_back_minds_the_stand_in_and_may_try_again() {
    let installed = Installed::new();
    let mut server = installed.start();
    let mut client = subscribed(&server);
    let broken = on_stage("takes-back-from", "echo broken > ringverb.toml");
    installed.script(&broken);
    server.signal(Signal::USR2);
    server.line_with(STANDS_IN);
    server.error_line_with("ringverb.toml");
    eventually("it minds", || {
        let line = fs::read(format!("/proc/{}/cmdline", server.id())).ok()?;
        String::from_utf8_lossy(&line).contains("--minds=").then_some(())
    });
    let stand_in = children(server.id());
    assert_eq!(stand_in.len(), 1, "{stand_in:?}");
    expect_event(&server, &mut client, "1");
    // Its folder is the server's.
    let folder = fs::read_link(format!("/proc/{}/cwd", stand_in[0])).expect("a folder");
    fs::remove_file(folder.join("ringverb.toml")).expect("removed");
    // It may not listen to signals yet: they are held back until then.
    server.signal(Signal::USR2);
    server.line_with(BANNER);
    eventually("the stand-in has ended", || children(server.id()).is_empty().then_some(()));
    expect_event(&server, &mut client, "2");
    client.close();
    server.stop();
}

#[test]
fn a_signal_to_end_reaches_a_stand_in_that_is_minded() {
    let installed = Installed::new();
    let mut server = installed.start();
    let mut client = subscribed(&server);
    installed.script(&on_stage("takes-back-from", "echo broken > ringverb.toml"));
    server.signal(Signal::USR2);
    server.line_with(STANDS_IN);
    server.error_line_with("ringverb.toml");
    expect_event(&server, &mut client, "1");
    server.signal(Signal::TERM);
    assert_eq!(client.close_code_behind_events(), 4100);
    assert_eq!(server.finish().code, Some(0));
}

/// Its supervisor starts the program again, and that takes over from the stand-in.
#[test]
fn the_next_start_takes_over_from_a_stand_in_whose_process_has_ended() {
    let installed = Installed::new();
    let mut server = installed.start();
    let mut client = subscribed(&server);
    installed.script(&on_stage("takes-back-from", "kill -9 $$"));
    server.signal(Signal::USR2);
    server.line_with(STANDS_IN);
    becomes_zombie(&server);
    expect_event(&server, &mut client, "1");
    let next = Setup::new().workers(2).reaching(&server).start_as_configured();
    assert_eq!(server.finish().code, None, "killed; the stand-in has ended, too");
    expect_event(&next, &mut client, "2");
    client.close();
    next.stop();
}

#[test]
fn a_second_signal_while_the_first_is_carried_out_is_ignored() {
    let installed = Installed::new();
    let mut server = installed.start();
    let mut client = subscribed(&server);
    installed.script(&on_stage("stand-in-for", "sleep 2"));
    server.signal(Signal::USR2);
    server.line_with("is starting");
    server.signal(Signal::USR2);
    server.line_with("SIGUSR2 ignored: process");
    is_replaced(&mut server);
    expect_event(&server, &mut client, "1");
    client.close();
    server.stop();
}

#[test]
fn a_signal_to_end_before_the_stand_in_has_taken_over_ends_both() {
    let installed = Installed::new();
    let mut server = installed.start();
    let mut client = subscribed(&server);
    let address = server.address;
    installed.script(&on_stage("stand-in-for", "sleep 2"));
    server.signal(Signal::USR2);
    server.line_with("is starting");
    server.signal(Signal::TERM);
    assert_eq!(client.close_code_behind_events(), 4100);
    // All output has ended, so the stand-in has, too.
    let finished = server.finish();
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(finished.stderr.contains("has ended"), "{finished:?}");
    assert!(std::net::TcpStream::connect(address).is_err(), "nobody listens");
}

#[test]
fn a_signal_to_end_while_the_program_is_replaced_counts_when_it_has_taken_back() {
    let installed = Installed::new();
    let mut server = installed.start();
    let mut client = subscribed(&server);
    installed.script(&on_stage("takes-back-from", "sleep 1"));
    server.signal(Signal::USR2);
    server.line_with(STANDS_IN);
    eventually("the new program runs", || {
        let line = fs::read(format!("/proc/{}/cmdline", server.id())).ok()?;
        String::from_utf8_lossy(&line).contains("--takes-back-from=").then_some(())
    });
    server.signal(Signal::TERM);
    assert_eq!(client.close_code_behind_events(), 4100);
    assert_eq!(server.finish().code, Some(0));
}

/// Another server may be there by the time the stand-in has started.
#[test]
fn a_stand_in_that_starts_after_its_process_has_ended_does_not_take_over() {
    let installed = Installed::new();
    let mut server = installed.start();
    installed.script(&on_stage("stand-in-for", "sleep 3"));
    server.signal(Signal::USR2);
    server.line_with("is starting");
    let next = Setup::new().workers(2).reaching(&server);
    server.signal(Signal::TERM);
    becomes_zombie(&server);
    let next = next.start_as_configured();
    let mut client = subscribed(&next);
    // All output has ended, so the stand-in has, too.
    let finished = server.finish();
    assert!(finished.stderr.contains("has ended"), "{finished:?}");
    expect_event(&next, &mut client, "1");
    assert!(!finished.stdout.contains(STANDS_IN), "{finished:?}");
    client.close();
    next.stop();
}

/// In a cluster the listeners move and clients come back by themselves; the process stays the same.
#[test]
fn in_a_cluster_the_process_stays_and_clients_come_back() {
    let installed = Installed::new();
    let redis = Redis::start();
    let setup = installed.setup().meeting_in(&redis).env("RINGVERB_SHUTDOWN_GRACE", "2");
    let mut server = setup.start_as_configured();
    let client = server.connect();
    installed.upgrade();
    server.signal(Signal::USR2);
    let mut client = client;
    assert_eq!(client.close_code_behind_events(), 4200);
    is_replaced(&mut server);
    let exe = format!("/proc/{}/exe", server.id());
    assert_eq!(inode(exe), inode(installed.program()));
    let mut client = server.connect();
    client.ask(PING, PONG);
    client.close();
    server.stop();
}
