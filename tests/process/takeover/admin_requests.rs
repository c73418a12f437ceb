//! Requests to the admin listener while the process is replaced: each that a process has accepted is answered by it.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use rustix::process::Signal;

use crate::admin::AdminClient;
use crate::support::{Reply, Server, Setup, eventually, free_port};

const COMPLETE: &str = "SIGUSR2 complete: ";
const STANDS_IN: &str = "serves while this process loads the new program";

fn start() -> (Server, AdminClient) {
    let port = free_port().to_string();
    let setup = Setup::new().workers(2).env("RINGVERB_ADMIN", "127.0.0.1:0");
    let setup = setup.env("RINGVERB_DEVELOPMENT", "true");
    let mut server = setup.args(&["--host", "127.0.0.1", "--port", &port]).start_as_configured();
    let admin = AdminClient::of(&mut server);
    (server, admin)
}

fn reload(admin: &AdminClient) -> String {
    let address = admin.address();
    format!(
        "POST /api/reload HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: \
         2\r\n\r\n{{}}"
    )
}

/// It was carried out, or was not and says so.
fn is_answer(reply: &Reply) -> bool {
    let is_refusal = reply.status == 503
        && reply.body.contains("nothing was changed")
        && reply.head.header("retry-after") == Some("1");
    reply.status == 200 || is_refusal
}

#[test]
fn requests_of_the_admin_api_are_answered_while_the_process_is_replaced() {
    let (mut server, admin) = start();
    let (is_over, answered) = (AtomicBool::new(false), AtomicU32::new(0));
    let reloaded = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let reply = admin.send(&reload(&admin));
                    assert!(is_answer(&reply), "{reply:?}");
                    answered.fetch_add(1, Ordering::Relaxed);
                    reloaded.fetch_add(u32::from(reply.status == 200), Ordering::Relaxed);
                }
            });
        }
        for _ in 0..8 {
            server.signal(Signal::USR2);
            server.line_with(COMPLETE);
            // The new program carries them out, too.
            let before = reloaded.load(Ordering::Relaxed);
            eventually("a reload", || (reloaded.load(Ordering::Relaxed) > before).then_some(()));
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert!(answered.load(Ordering::Relaxed) > 24, "{answered:?}");
    server.stop();
}

#[test]
fn a_request_that_ends_during_a_replacement_is_answered_by_the_process_that_has_its_beginning() {
    let (mut server, admin) = start();
    let mut late = admin.wire();
    let request = reload(&admin);
    let (first, last) = request.split_at(request.len() - 1);
    late.send(first.as_bytes());
    // The listener accepts in order, so it has accepted the one before.
    assert_eq!(admin.get("/live").status, 200);
    server.signal(Signal::USR2);
    server.line_with(STANDS_IN);
    late.send(last.as_bytes());
    let reply = late.reply(true);
    assert_eq!((reply.status, is_answer(&reply)), (503, true), "{reply:?}");
    late.ended();
    server.line_with(COMPLETE);
    assert_eq!(admin.send(&reload(&admin)).status, 200);
    server.stop();
}
