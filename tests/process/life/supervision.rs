//! What systemd receives, at a socket that stands in for its own: readiness, the watchdog, a new main process, the end.

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::admin::AdminClient;
use crate::change::{TOKEN, admin};
use crate::support::{DEADLINE, PING, PONG, Server, Setup, eventually, free_port};
use crate::takeover::new_program::{Installed, on_stage};
use rustix::process::Signal;

/// Where the messages go.
struct Systemd {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Drop for Systemd {
    fn drop(&mut self) {
        // Left over, it does no harm: it is below the target folder.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Systemd {
    fn new(name: &str) -> Self {
        let name = format!("{}-{name}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let socket = UnixDatagram::bind(&path).expect("a path that nobody has and a socket can");
        socket.set_read_timeout(Some(DEADLINE)).expect("SO_RCVTIMEO");
        Self { socket, path }
    }

    fn setup(&self) -> Setup {
        Setup::new().workers(2).env("NOTIFY_SOCKET", &self.path.display().to_string())
    }

    fn receive(&self) -> String {
        let mut message = [0; 4096];
        let count = self.socket.recv(&mut message).expect("a message");
        String::from_utf8(message[..count].to_vec()).expect("text")
    }

    /// A process that sends now has to wait.
    fn fill(&self) -> usize {
        let mut count = 0;
        // A sender is also stopped by its own buffer; a new one only by the queue, which systemd makes longer on its
        // hosts.
        loop {
            let sender = UnixDatagram::unbound().expect("a socket");
            sender.set_nonblocking(true).expect("O_NONBLOCK");
            let mut sent = 0;
            loop {
                match sender.send_to(b"FILL=1", &self.path) {
                    Ok(_) => sent += 1,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => panic!("{error}"),
                }
            }
            if sent == 0 {
                return count;
            }
            count += sent;
        }
    }
}

fn main_process_of(message: &str) -> u32 {
    let line = message.lines().find_map(|line| line.strip_prefix("MAINPID="));
    line.and_then(|text| text.parse().ok())
        .unwrap_or_else(|| panic!("no main process in {message:?}"))
}

#[test]
fn systemd_is_notified_of_start_watchdog_and_end() {
    let systemd = Systemd::new("life");
    let server = systemd.setup().env("WATCHDOG_USEC", "3000000").start();
    let ready = systemd.receive();
    assert!(ready.contains("READY=1"), "{ready:?}");
    assert_eq!(main_process_of(&ready), server.id());
    for _ in 0..2 {
        assert_eq!(systemd.receive().trim_end(), "WATCHDOG=1");
    }
    server.signal(Signal::TERM);
    while systemd.receive().trim_end() != "STOPPING=1" {}
    assert_eq!(server.finish().code, Some(0));
}

/// A monitor that polls the apps gives the main thread orders, each sooner than the watchdog's next look.
#[test]
fn orders_without_a_pause_do_not_keep_the_watchdog_from_its_notifications() {
    let systemd = Systemd::new("orders");
    let setup = systemd.setup().env("RINGVERB_ADMIN", "127.0.0.1:0");
    let setup = setup.env("RINGVERB_ADMIN_TOKEN", TOKEN);
    let mut server = setup.env("WATCHDOG_USEC", "3000000").start();
    assert!(systemd.receive().contains("READY=1"));
    let api = AdminClient::of(&mut server);
    systemd.socket.set_read_timeout(Some(Duration::from_millis(100))).expect("SO_RCVTIMEO");
    for _ in 0..2 {
        let message = eventually("a notification while orders come", || {
            assert_eq!(admin(&api, "GET", "/api/apps", "").0, 200);
            let mut message = [0; 64];
            match systemd.socket.recv(&mut message) {
                Ok(count) => Some(message[..count].to_vec()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => None,
                Err(error) => panic!("{error}"),
            }
        });
        assert_eq!(message, b"WATCHDOG=1\n");
    }
}

/// Two thirds of a second between looks, but one heartbeat a second: no worker has stalled.
#[test]
fn a_watchdog_shorter_than_three_heartbeats_is_notified_at_each_look() {
    let systemd = Systemd::new("short");
    let server = systemd.setup().env("WATCHDOG_USEC", "2000000").start();
    assert!(systemd.receive().contains("READY=1"));
    for _ in 0..6 {
        assert_eq!(systemd.receive().trim_end(), "WATCHDOG=1");
    }
    server.signal(Signal::TERM);
    let finished = server.finish();
    assert_eq!(finished.code, Some(0));
    let log = format!("{}{}", finished.stdout, finished.stderr);
    assert!(!log.contains("a worker has not run"), "{log}");
}

/// The commands of `tuning/ringverb.service`, as systemd runs them; `tests/packaging/run` verifies the unit.
#[test]
fn the_commands_of_the_unit_check_start_and_reload_a_server() {
    let unit = include_str!("../../../tuning/ringverb.service");
    let value = |name: &str| {
        let mut values = unit.lines().filter_map(|line| line.split_once('='));
        values.find(|(key, _)| *key == name).unwrap_or_else(|| panic!("the unit has no {name}")).1
    };
    let arguments = |name: &str| -> Vec<&str> {
        let mut words = value(name).split(' ');
        assert_eq!(words.next(), Some("/usr/local/bin/ringverb"), "{name}");
        words.collect()
    };
    assert_eq!(value("Type"), "notify");
    let port = free_port().to_string();
    let systemd = Systemd::new("unit");
    let setup = || {
        let setup = systemd.setup().env("REVERB_SERVER_HOST", "127.0.0.1");
        setup.env("REVERB_SERVER_PORT", &port).env("RINGVERB_ADMIN", "off")
    };
    let (name, forbidden) = value("Environment").split_once('=').expect("a name and a value");
    for command in ["ExecStartPre", "ExecStart"] {
        let without_app = Setup::bare().env(name, forbidden).args(&arguments(command)).run();
        let told = without_app.stderr.contains("no app is configured, and RINGVERB_DEVELOPMENT");
        assert!(without_app.code == Some(2) && told, "{command}: {without_app:?}");
    }
    let setup = || setup().env(name, forbidden);
    let checked = setup().args(&arguments("ExecStartPre")).run();
    assert_eq!(checked.code, Some(0), "{checked:?}");
    let mut server = setup().args(&arguments("ExecStart")).start_as_configured();
    let ready = systemd.receive();
    assert!(ready.contains("READY=1") && main_process_of(&ready) == server.id(), "{ready:?}");
    let mut client = server.connect();
    // The first command that fails ends the reload, and `systemctl reload` reports that.
    let reload = unit.lines().filter_map(|line| line.strip_prefix("ExecReload="));
    let reload: Vec<&str> = reload.collect();
    assert_eq!(reload[1..], ["/bin/kill -USR2 $MAINPID"]);
    let check = arguments("ExecReload");
    assert_eq!(setup().args(&check).run().code, Some(0));
    let missing = [("RINGVERB_TLS_CERT", "missing.pem"), ("RINGVERB_TLS_KEY", "missing.key")];
    for (wrong, code) in [(&[("REVERB_MAX_REQUEST_SIZE", "x")][..], 2), (&missing, 1)] {
        let setup = wrong.iter().fold(setup(), |setup, (name, value)| setup.env(name, value));
        let refused = setup.args(&check).run();
        let has_reason = (refused.stderr.clone() + &refused.stdout).contains(wrong[0].1);
        assert!(refused.code == Some(code) && has_reason, "{wrong:?}: {refused:?}");
    }
    client.sync();
    server.signal(Signal::USR2);
    server.line_with("SIGUSR2 complete");
    client.sync();
    server.signal(Signal::TERM);
    assert_eq!(value("KillSignal"), "SIGTERM");
    assert_eq!(server.finish().code, Some(0));
}

/// `systemctl reload` has returned before the new program reads the configuration.
#[test]
fn systemd_is_notified_of_a_replacement_that_fails_until_one_succeeds() {
    let systemd = Systemd::new("refused");
    let port = free_port().to_string();
    let setup = systemd.setup().args(&["--host", "127.0.0.1", "--port", &port]);
    let setup = setup.file("ringverb.toml", "");
    let path = setup.path("ringverb.toml");
    let server = setup.start_as_configured();
    assert!(systemd.receive().contains("READY=1"));
    std::fs::write(&path, "[server]\nwebhook_retry = \"x\"\n").expect("a file");
    server.signal(Signal::USR2);
    let status = systemd.receive();
    assert!(
        status.starts_with("STATUS=SIGUSR2 failed") && status.contains("exit code 2"),
        "{status}"
    );
    server.connect().sync();
    std::fs::write(&path, "").expect("a file");
    server.signal(Signal::USR2);
    let ready = systemd.receive();
    assert!(ready.contains("READY=1") && ready.contains("STATUS=\n"), "{ready:?}");
    server.signal(Signal::TERM);
    assert_eq!(systemd.receive(), "STOPPING=1\n");
    assert_eq!(server.finish().code, Some(0));
}

/// `systemctl reload` has returned by then, whichever stage fails.
#[test]
fn systemd_is_notified_of_a_replacement_that_fails_at_any_stage() {
    let (systemd, installed) = (Systemd::new("stages"), Installed::new());
    let port = free_port().to_string();
    let setup = systemd.setup().program(&installed.program());
    let mut server = setup.args(&["--host", "127.0.0.1", "--port", &port]).start_as_configured();
    assert!(systemd.receive().contains("READY=1"));
    let folder = std::fs::read_link(format!("/proc/{}/cwd", server.id())).expect("a folder");
    let fails = |how: &str| {
        server.signal(Signal::USR2);
        let status = systemd.receive();
        assert!(status.starts_with("STATUS=SIGUSR2 failed: ") && status.contains(how), "{status}");
        server.connect().sync();
    };
    // Nothing is executed.
    installed.replace(|path| std::fs::write(path, "no program").expect("written"));
    fails("does not start, so nothing changes");
    // It ends in order, but it has not taken over.
    installed.script(&on_stage("stand-in-for", "exit 0"));
    fails("has ended: exit code 0");
    // Step 2: the file is removed when the stand-in has started.
    let remove = format!("rm {}", installed.program().display());
    installed.script(&on_stage("stand-in-for", &remove));
    fails("could not be executed");
    // Again, from the process that minds the stand-in.
    fails("could not be executed");
    // Step 3.
    installed.script(&on_stage("takes-back-from", "echo broken > ringverb.toml"));
    fails("could not take back");
    std::fs::remove_file(folder.join("ringverb.toml")).expect("removed");
    server.signal(Signal::USR2);
    let ready = systemd.receive();
    assert!(ready.contains("READY=1") && ready.contains("STATUS=\n"), "{ready:?}");
    server.line_with("SIGUSR2 complete");
    server.signal(Signal::TERM);
    assert_eq!(systemd.receive(), "STOPPING=1\n");
    assert_eq!(server.finish().code, Some(0));
}

#[test]
fn systemd_is_notified_of_a_replacement_that_is_ignored() {
    let systemd = Systemd::new("ignored");
    let server = systemd.setup().env("RINGVERB_TAKEOVER", "false").start();
    assert!(systemd.receive().contains("READY=1"));
    server.signal(Signal::USR2);
    let status = systemd.receive();
    assert!(status.starts_with("STATUS=SIGUSR2 ignored: RINGVERB_TAKEOVER=false"), "{status}");
    server.signal(Signal::TERM);
    assert_eq!(systemd.receive(), "STOPPING=1\n");
    assert_eq!(server.finish().code, Some(0));
}

/// systemd takes the end of the main process for the end of the service, and ends all that is left of it. So the old
/// process must not end before systemd has received the new MAINPID.
#[test]
fn the_old_main_process_waits_until_the_new_one_is_known() {
    let systemd = Systemd::new("main");
    let mut old = systemd.setup().start();
    systemd.receive();
    let mut client = old.connect();
    // The new process serves already, but the notify socket is full, so systemd receives nothing.
    let waiting = systemd.fill();
    let setup = systemd.setup().reaching(&old).arg("--takeover");
    let new = std::thread::spawn(move || setup.start_as_configured());
    old.line_with("with all connections");
    // The new process serves during the wait: so long that the old one would have ended, if it did not wait.
    for _ in 0..100 {
        old.connect().sync();
        assert_ne!(state(&old), 'Z', "the old main process has ended too soon");
    }
    (0..waiting).for_each(|_| drop(systemd.receive()));
    let new = new.join().expect("it starts");
    assert_eq!(main_process_of(&systemd.receive()), new.id());
    assert_eq!(old.finish().code, Some(0));
    client.ask(PING, PONG);
}

/// The state of the main thread, as /proc has it.
fn state(server: &Server) -> char {
    let text = std::fs::read_to_string(format!("/proc/{}/stat", server.id())).expect("a process");
    // The name before it may hold anything.
    let state = text.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.expect("a state")
}

/// systemd watches one process. The stand-in of an exchange tells it nothing but that all workers tick.
#[test]
fn a_replaced_program_is_the_same_main_process_for_systemd() {
    let systemd = Systemd::new("replaced");
    let port = free_port().to_string();
    let setup = systemd.setup().args(&["--host", "127.0.0.1", "--port", &port]);
    let mut server = setup.env("WATCHDOG_USEC", "3000000").start_as_configured();
    assert_eq!(main_process_of(&systemd.receive()), server.id());
    let mut client = server.connect();
    server.signal(Signal::USR2);
    let next = std::iter::from_fn(|| Some(systemd.receive()));
    let ready = next.into_iter().find(|message| message.trim_end() != "WATCHDOG=1");
    let ready = ready.expect("a message");
    assert!(ready.contains("READY=1"), "{ready:?}");
    assert_eq!(main_process_of(&ready), server.id());
    server.line_with("serves while this process loads the new program");
    server.line_with("  address  ");
    client.ask(PING, PONG);
    for _ in 0..2 {
        assert_eq!(systemd.receive().trim_end(), "WATCHDOG=1");
    }
    server.signal(Signal::TERM);
    while systemd.receive().trim_end() != "STOPPING=1" {}
    assert_eq!(server.finish().code, Some(0));
}
