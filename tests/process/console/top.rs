//! `ringverb top`: once, and on a terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::sync::mpsc;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::admin::AdminClient;
use crate::support::{Client, Setup, eventually};

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

#[test]
fn top_draws_on_a_terminal_and_gives_it_back() {
    let path = format!("{}/top-{}.sock", std::env::temp_dir().display(), std::process::id());
    let place = format!("unix:{path}");
    let server = Setup::new().env("RINGVERB_ADMIN", &place).workers(2).start();
    let _client = server.connect();
    let main = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&main).expect("its other end");
    unlockpt(&main).expect("its other end");
    let name = ptsname(&main, Vec::new()).expect("its name");
    let size = Winsize { ws_row: 30, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&main, size).expect("its size");
    let other =
        File::options().read(true).write(true).open(name.to_str().expect("a path")).expect("opens");
    let setup = Setup::new().args(&["top", "--admin", &place]);
    let mut command = setup.command();
    command.stdin(other.try_clone().expect("a copy")).stdout(other.try_clone().expect("a copy"));
    let mut child = command.stderr(other).env("TERM", "xterm").spawn().expect("it starts");
    let (mut reader, mut writer) =
        (File::from(main.try_clone().expect("a copy")), File::from(main));
    let (sender, chunks) = mpsc::channel();
    std::thread::spawn(move || {
        let mut chunk = [0; 4096];
        while let Ok(count) = reader.read(&mut chunk) {
            if sender.send(chunk[..count].to_vec()).is_err() {
                return;
            }
        }
    });
    let mut screen = Vec::new();
    let mut shows = |part: &str| {
        screen.extend(chunks.try_iter().flatten());
        String::from_utf8_lossy(&screen).contains(part)
    };
    for part in ["\u{1b}[?1049h", "ready", "connections", "cores", "refused"] {
        eventually(part, || shows(part).then_some(()));
    }
    writer.write_all(b"q").expect("a key");
    eventually("it ends", || {
        child.try_wait().expect("a child").map(|status| assert!(status.success()))
    });
    eventually("the terminal is as before", || shows("\u{1b}[?1049l").then_some(()));
}
