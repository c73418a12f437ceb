//! `ringverb top`: once, and on a terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::admin::AdminClient;
use crate::support::{Client, Setup, eventually, now};

#[test]
fn top_prints_once_or_names_the_reason_that_it_cannot() {
    let token = "0123456789abcdef-token";
    let setup =
        Setup::new().env("RINGVERB_ADMIN", "127.0.0.1:0").env("RINGVERB_ADMIN_TOKEN", token);
    let mut server = setup.workers(3).start();
    let place = AdminClient::of(&mut server).address().to_string();
    let _clients: Vec<Client> = (0..5).map(|_| server.connect()).collect();
    let top = |arguments: &[&str], token: &str| {
        let setup = Setup::new().env("RINGVERB_ADMIN_TOKEN", token);
        setup.args(&["top", "--admin", &place]).args(arguments).run()
    };
    let once = top(&["--once"], token);
    assert_eq!(once.code, Some(0), "{once:?}");
    assert!(once.stdout.contains("connections 5, "), "{}", once.stdout);
    let cores = once.stdout.lines().filter(|line| line.contains(" % ")).count();
    assert_eq!(cores, 3, "{}", once.stdout);
    let wrong = top(&["--once"], "another-token-0123456789");
    assert_eq!(
        (wrong.code, wrong.stderr.contains("has refused the token of RINGVERB_ADMIN_TOKEN")),
        (Some(1), true),
        "{wrong:?}"
    );
    let without = Setup::new().args(&["top", "--once", "--admin", &place]).run();
    assert_eq!(
        (without.code, without.stderr.contains("wants the token of RINGVERB_ADMIN_TOKEN")),
        (Some(1), true),
        "{without:?}"
    );
    let no_terminal = top(&[], token);
    assert_eq!(
        (no_terminal.code, no_terminal.stderr.contains("--once")),
        (Some(2), true),
        "{no_terminal:?}"
    );
    let nobody = Setup::new().args(&["top", "--once", "--admin", "127.0.0.1:1"]).run();
    assert_eq!((nobody.code, nobody.stderr.contains("is ringverb running")), (Some(1), true));
}

/// The command on a terminal of its own.
struct TopOnTerminal {
    child: Child,
    keys: File,
    /// Its other end, for its modes.
    terminal: File,
    chunks: mpsc::Receiver<Vec<u8>>,
    screen: Vec<u8>,
}

impl TopOnTerminal {
    fn start(place: &str) -> Self {
        let main = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&main).expect("its other end");
        unlockpt(&main).expect("its other end");
        let name = ptsname(&main, Vec::new()).expect("its name");
        let size = Winsize { ws_row: 30, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&main, size).expect("its size");
        let name = name.to_str().expect("a path");
        let terminal = File::options().read(true).write(true).open(name).expect("opens");
        let setup = Setup::new().args(&["top", "--admin", place]);
        let copy = || terminal.try_clone().expect("a copy");
        let mut command = on_its_terminal(&setup.command());
        command.stdin(copy()).stdout(copy()).stderr(copy()).env("TERM", "xterm");
        let child = command.spawn().expect("it starts");
        let (mut reader, keys) = (File::from(main.try_clone().expect("a copy")), File::from(main));
        let (sender, chunks) = mpsc::channel();
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(count) = reader.read(&mut chunk) {
                if sender.send(chunk[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { child, keys, terminal, chunks, screen: Vec::new() }
    }

    #[track_caller]
    fn shows(&mut self, part: &str) {
        eventually(part, || {
            self.screen.extend(self.chunks.try_iter().flatten());
            String::from_utf8_lossy(&self.screen).contains(part).then_some(())
        });
    }

    fn is_raw(&self) -> bool {
        let modes = tcgetattr(&self.terminal).expect("a terminal");
        !modes.local_modes.contains(LocalModes::ECHO | LocalModes::ICANON)
    }

    /// The command ends, and the terminal is as before.
    #[track_caller]
    fn ends(mut self, code: i32) {
        eventually("it ends", || {
            self.child.try_wait().expect("a child").map(|end| assert_eq!(end.code(), Some(code)))
        });
        self.shows("\u{1b}[?1049l");
        assert!(!self.is_raw());
    }
}

/// The same command with standard input as its controlling terminal, as in a shell: Ctrl-C is a signal.
fn on_its_terminal(command: &Command) -> Command {
    let mut with_terminal = Command::new("setsid");
    with_terminal.env_clear().arg("--ctty").arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => with_terminal.env(name, value),
            None => with_terminal.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        with_terminal.current_dir(folder);
    }
    with_terminal
}

#[test]
fn top_draws_on_a_terminal_and_gives_it_back_at_a_key_or_a_signal() {
    let path = format!("{}/top-{}.sock", std::env::temp_dir().display(), std::process::id());
    let place = format!("unix:{path}");
    let server = Setup::new().env("RINGVERB_ADMIN", &place).workers(2).start();
    let _client = server.connect();
    let signals = [Signal::TERM, Signal::HUP, Signal::QUIT].map(Some);
    for signal in signals.into_iter().chain([None]) {
        let mut top = TopOnTerminal::start(&place);
        for part in ["\u{1b}[?1049h", "ready", "connections", "cores", "refused"] {
            top.shows(part);
        }
        assert!(top.is_raw());
        match signal {
            None => top.keys.write_all(b"q").expect("a key"),
            Some(signal) => {
                let process = Pid::from_child(&top.child);
                kill_process(process, signal).expect("it runs");
            }
        }
        top.ends(signal.map_or(0, |signal| 128 + signal.as_raw()));
    }
}

/// The server is asked once a second, and its answer is waited for up to 10 s.
#[test]
fn top_ends_at_ctrl_c_while_the_server_does_not_answer() {
    let path = format!("{}/top-c-{}.sock", std::env::temp_dir().display(), std::process::id());
    let place = format!("unix:{path}");
    let server = Setup::new().env("RINGVERB_ADMIN", &place).start();
    let mut top = TopOnTerminal::start(&place);
    top.shows("ready");
    server.pause();
    let asked = now();
    top.keys.write_all(b"\x03").expect("a key");
    top.ends(0);
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    server.signal(Signal::CONT);
}
