//! Webhooks of the running server: whose events reach which endpoint, and that a backend which hangs delays no other
//! (docs/PROTOCOL.md C10). Delivery itself is tested in src/webhook, with the Pusher libraries in tests/e2e.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::support::{
    Answer, Client, Endpoint, Finished, Handshake, Server, Setup, eventually, now, tls,
};
use rustix::process::Signal;
use serde_json::{Value, json};

fn of_app(server: &Server, key: &str) -> Client {
    Client::open(server, &Handshake::to(&format!("/app/{key}?protocol=7"))).established()
}

#[test]
fn each_endpoint_receives_the_wanted_events_of_its_app() {
    let (all, some, other) = (Endpoint::start(true), Endpoint::start(true), Endpoint::start(true));
    let file = format!(
        r#"
        [[apps]]
        id = "1"
        key = "first"
        secret = "app-secret"
        webhooks = [
            {{ url = "{}", events = ["channel_occupied", "channel_vacated"] }},
            {{ url = "{}", events = ["channel_occupied"], channel_prefixes = ["orders."] }},
        ]
        [[apps]]
        id = "2"
        key = "second"
        secret = "app-secret"
        webhooks = [{{ url = "{}", events = ["channel_occupied"] }}]
        "#,
        all.url, some.url, other.url
    );
    let setup = Setup::bare().workers(4).file("ringverb.toml", &file);
    let server = setup.env("RINGVERB_WEBHOOK_DEBOUNCE", "0").start();
    let (mut first, mut second) = (of_app(&server, "first"), of_app(&server, "second"));
    let occupied = |channel: &str, key: &str| json!({"name": "channel_occupied", "channel": channel, "key": key});
    first.subscribe("news");
    assert_eq!(all.next(), occupied("news", "first"));
    second.subscribe("orders.2");
    assert_eq!(other.next(), occupied("orders.2", "second"));
    first.subscribe("orders.1");
    assert_eq!(all.next(), occupied("orders.1", "first"));
    assert_eq!(some.next(), occupied("orders.1", "first"));
    first.unsubscribe("news");
    let vacated = json!({"name": "channel_vacated", "channel": "news", "key": "first"});
    assert_eq!(all.next(), vacated);
    first.close();
    second.close();
    server.stop();
    // The end flushed what was left, and nothing went where it did not belong.
    assert_eq!(all.next()["channel"], "orders.1");
    assert!(some.events.try_recv().is_err() && other.events.try_recv().is_err());
}

#[test]
fn a_backend_that_hangs_delays_no_other_endpoint() {
    let (hangs, works) = (Endpoint::start(false), Endpoint::start(true));
    let server = Setup::new()
        .workers(2)
        .env("RINGVERB_WEBHOOK_URL", &format!("{},{}", hangs.url, works.url))
        .env("RINGVERB_WEBHOOK_EVENTS", "channel_occupied")
        .env("RINGVERB_SHUTDOWN_GRACE", "2")
        .start();
    let mut client = server.connect();
    client.subscribe("first");
    assert_eq!(hangs.next()["channel"], "first");
    // From here on one endpoint owes an answer for 30 s.
    for number in 0..50 {
        let channel = format!("channel-{number}");
        client.subscribe(&channel);
        server.publish(&channel, "e", "x");
        assert_eq!(client.event()["channel"], json!(channel));
    }
    let mut told: Vec<String> =
        (0..51).map(|_| works.next()["channel"].as_str().expect("a name").to_owned()).collect();
    told.sort_unstable();
    told.dedup();
    assert_eq!(told.len(), 51, "{told:?}");
    client.close();
    server.signal(Signal::TERM);
    // `finish` waits 20 s, less than the backend would take.
    let finished = server.finish();
    assert_eq!(finished.code, Some(0));
    let what = format!("webhook {} of app 1001: 51 events discarded at the end", hangs.url);
    assert!(finished.stdout.contains(&what), "{}", finished.stdout);
    assert!(finished.stdout.contains("51 channel_occupied (\"first\")"), "{}", finished.stdout);
}

#[test]
fn a_reload_that_reconnects_to_another_worker_causes_no_webhook() {
    let endpoint = Endpoint::start(true);
    let server = Setup::new()
        .workers(4)
        .env("RINGVERB_WEBHOOK_URL", &endpoint.url)
        .env("RINGVERB_WEBHOOK_EVENTS", "member_added,member_removed")
        .env("RINGVERB_WEBHOOK_DEBOUNCE", "4000")
        .start();
    let mut page = server.connect();
    page.join("presence-r", r#"{"user_id":7}"#);
    for _ in 0..20 {
        page.close();
        page = server.connect();
        page.join("presence-r", r#"{"user_id":7}"#);
    }
    let mut other = server.connect();
    other.join("presence-r", r#"{"user_id":8}"#);
    page.close_among_events();
    eventually("one is left", || {
        (server.get("/channels/presence-r/users") == r#"{"users":[{"id":"8"}]}"#).then_some(())
    });
    let told: Vec<(Value, Value)> = (0..3)
        .map(|_| endpoint.next())
        .map(|event| (event["name"].clone(), event["user_id"].clone()))
        .collect();
    let expected = [("member_added", "7"), ("member_added", "8"), ("member_removed", "7")];
    assert_eq!(told, expected.map(|(name, id)| (json!(name), json!(id))));
}

fn occupied_only(endpoint: &Endpoint) -> Setup {
    Setup::new()
        .workers(2)
        .env("RINGVERB_WEBHOOK_URL", &endpoint.url)
        .env("RINGVERB_WEBHOOK_EVENTS", "channel_occupied")
}

fn stopped(server: Server) -> Finished {
    server.signal(Signal::TERM);
    let finished = server.finish();
    assert_eq!(finished.code, Some(0), "{finished:?}");
    finished
}

/// Refuses requests that hold the channel.
fn refusing(channel: &'static str, status: u16, headers: &'static str) -> Endpoint {
    Endpoint::deciding(move |events| {
        let holds = events.iter().any(|event| event["channel"] == channel);
        if holds { Answer::Status(status, headers) } else { Answer::Status(200, "") }
    })
}

/// pusher-php-server throws on events of encrypted channels that it has no key for.
#[test]
fn a_channel_that_is_always_refused_delays_no_other_and_is_named_when_given_up() {
    let endpoint = refusing("poison", 500, "");
    let server = occupied_only(&endpoint).env("RINGVERB_WEBHOOK_RETRY", "4").start();
    let mut client = server.connect();
    client.subscribe("poison");
    assert_eq!(endpoint.next()["channel"], "poison");
    let mut expected: Vec<String> = (0..60).map(|number| format!("channel-{number:02}")).collect();
    expected.iter().for_each(|channel| client.subscribe(channel));
    let mut accepted = std::collections::BTreeSet::new();
    let mut refusals = 1;
    while accepted.len() < expected.len() || refusals < 4 {
        let event = endpoint.next();
        match event["channel"].as_str().expect("a name") {
            "poison" => refusals += 1,
            channel => drop(accepted.insert(channel.to_owned())),
        }
    }
    expected.sort_unstable();
    assert_eq!(accepted.into_iter().collect::<Vec<_>>(), expected);
    client.close();
    let finished = stopped(server);
    let given_up = "1 event given up: channel_occupied of \"poison\". Reason: the endpoint answered with HTTP 500";
    assert!(finished.stdout.contains(given_up), "{}", finished.stdout);
}

#[test]
fn a_final_answer_is_logged_and_the_event_is_not_sent_again() {
    for (status, advice) in [(400, "HTTP 400"), (404, "check that the URL is a POST route")] {
        let endpoint = refusing("poison", status, "");
        let server = occupied_only(&endpoint).start();
        let mut client = server.connect();
        client.subscribe("poison");
        assert_eq!(endpoint.next()["channel"], "poison");
        for channel in ["a", "b", "c"] {
            client.subscribe(channel);
            assert_eq!(endpoint.next()["channel"], channel, "after {status}");
        }
        client.close();
        let finished = stopped(server);
        let given_up = "1 event given up: channel_occupied of \"poison\"";
        assert!(finished.stdout.contains(given_up), "{}", finished.stdout);
        assert!(finished.stdout.contains(advice), "{}", finished.stdout);
        assert!(endpoint.events.try_recv().is_err(), "{status}: sent once");
    }
}

/// A backend in maintenance redirects (`php artisan down --redirect`).
#[test]
fn a_redirect_is_logged_and_not_followed_and_the_event_is_sent_again() {
    let count = std::sync::atomic::AtomicUsize::new(0);
    let endpoint = Endpoint::deciding(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => Answer::Status(302, "Location: /elsewhere\r\n"),
        1 => Answer::Status(307, "Location: /elsewhere\r\n"),
        _ => Answer::Status(200, ""),
    });
    let server = occupied_only(&endpoint).start();
    let mut client = server.connect();
    client.subscribe("a");
    for _ in 0..3 {
        assert_eq!(endpoint.next()["channel"], "a");
    }
    client.subscribe("b");
    assert_eq!(endpoint.next()["channel"], "b");
    client.close();
    let log = stopped(server).stdout;
    assert!(log.contains("answered with HTTP 302; redirects are not followed"), "{log}");
    assert!(!log.contains("given up"), "{log}");
}

#[test]
fn a_busy_backend_gets_the_event_again_after_the_time_that_it_asks_for() {
    let count = std::sync::atomic::AtomicUsize::new(0);
    let endpoint = Endpoint::deciding(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => Answer::Status(429, "Retry-After: 2\r\n"),
        _ => Answer::Status(200, ""),
    });
    let server = occupied_only(&endpoint).start();
    let mut client = server.connect();
    let asked = now();
    client.subscribe("a");
    assert_eq!(endpoint.next()["channel"], "a");
    client.subscribe("b");
    let mut told = [(); 2].map(|()| endpoint.next()["channel"].as_str().map(str::to_owned));
    told.sort_unstable();
    assert_eq!(told, [Some("a".to_owned()), Some("b".to_owned())]);
    assert!(asked.elapsed() >= Duration::from_millis(1_900), "{:?}", asked.elapsed());
    client.close();
    let finished = stopped(server);
    assert!(!finished.stdout.contains("given up"), "{}", finished.stdout);
}

/// The host's store of authorities is that of SSL_CERT_FILE, as for curl and PHP.
#[test]
fn a_certificate_of_the_hosts_authorities_is_trusted_and_every_other_one_is_refused_and_logged() {
    let endpoint = Endpoint::over_tls();
    let server = |authorities: &str| {
        let setup = Setup::new().file("empty.pem", "").env("RINGVERB_WEBHOOK_URL", &endpoint.url);
        setup.env("SSL_CERT_FILE", authorities).env("RINGVERB_WEBHOOK_DEBOUNCE", "0").start()
    };
    let trusting = server(&tls::file("authority.pem"));
    let mut client = trusting.connect();
    client.subscribe("orders");
    assert_eq!(endpoint.next()["channel"], "orders");
    client.close();
    let log = stopped(trusting).stdout;
    assert!(!log.contains("cannot be trusted") && !log.contains("authorities"), "{log}");
    for (authorities, reason) in [
        ("empty.pem", "this host has no certificate authorities"),
        ("missing.pem", "not all certificate authorities of this host can be read"),
        (".", "which is no regular file"),
    ] {
        while endpoint.events.try_recv().is_ok() {}
        let mut server = server(authorities);
        let mut client = server.connect();
        client.subscribe("secret");
        server.line_with("cannot be trusted");
        let finished = stopped(server);
        assert!(finished.stdout.contains(reason), "{finished:?}");
        assert!(endpoint.events.try_recv().is_err(), "nothing is posted to a stranger");
    }
}

/// A regular file that cannot be opened, as on a file system that does not answer: another process has a lease on it
/// (fcntl(2), `F_SETLEASE`), and the kernel lets an open wait for the end of a lease, for up to 45 s.
struct LeasedFile {
    holder: Child,
    lines: BufReader<ChildStdout>,
}

impl LeasedFile {
    fn new(path: &std::path::Path) -> Self {
        let script = r#"
import fcntl, os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGURG])
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.fcntl(file, fcntl.F_SETSIG, signal.SIGURG)
fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("leased", flush=True)
signal.sigwait([signal.SIGURG])
print("wanted", flush=True)
sys.stdin.read()
"#;
        let holder = Command::new("python3")
            .args(["-c", script])
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut holder = holder.expect("python3");
        let lines = BufReader::new(holder.stdout.take().expect("a pipe"));
        let mut file = Self { holder, lines };
        file.says("leased");
        file
    }

    fn says(&mut self, expected: &str) {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("a line");
        assert_eq!(line.trim_end(), expected);
    }

    /// Waits until a process opens the file.
    fn is_wanted(&mut self) {
        self.says("wanted");
    }

    /// Lets the open go on.
    fn release(mut self) {
        drop(self.holder.stdin.take());
        assert!(self.holder.wait().expect("an exit status").success());
    }
}

impl Drop for LeasedFile {
    fn drop(&mut self) {
        // It has ended if it was released.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// A server whose store of certificates cannot be read before `LeasedFile::release`.
fn with_hanging_store(endpoint: &Endpoint, timeout: &str) -> (Server, LeasedFile) {
    let setup = occupied_only(endpoint);
    let store = setup.path("certs");
    std::fs::create_dir(&store).expect("a folder");
    let file = LeasedFile::new(&store.join("hanging.pem"));
    let setup = setup
        .env("SSL_CERT_FILE", &tls::file("authority.pem"))
        .env("SSL_CERT_DIR", store.to_str().expect("a path in UTF-8"))
        .env("RINGVERB_WEBHOOK_TIMEOUT", timeout)
        .env("RINGVERB_SHUTDOWN_GRACE", "60");
    (setup.start(), file)
}

/// A store of certificates on a hung network file system blocked all HTTPS endpoints without a log line.
#[test]
fn a_store_of_certificates_that_hangs_fails_attempts_in_time_and_is_used_when_it_answers() {
    let endpoint = Endpoint::over_tls();
    let (mut server, file) = with_hanging_store(&endpoint, "1");
    let mut client = server.connect();
    client.subscribe("first");
    server.line_with("webhooks over TLS wait for them");
    server.line_with("were not read in time");
    assert!(endpoint.events.try_recv().is_err(), "nothing is posted to a stranger");
    client.subscribe("second");
    file.release();
    let mut posted = [(); 2].map(|()| endpoint.next()["channel"].as_str().map(str::to_owned));
    posted.sort_unstable();
    assert_eq!(posted, [Some("first".to_owned()), Some("second".to_owned())]);
    client.close();
    let log = stopped(server).stdout;
    assert_eq!(log.matches("webhooks over TLS wait for them").count(), 1, "{log}");
    let failed =
        "was not tried, because the certificate authorities of this host (SSL_CERT_FILE names ";
    assert!(log.contains(failed) && log.contains("SSL_CERT_DIR names "), "{log}");
    assert!(!log.contains("given up") && !log.contains("discarded"), "{log}");
}

#[test]
fn a_store_of_certificates_that_hangs_does_not_delay_the_end() {
    let endpoint = Endpoint::over_tls();
    let (server, mut file) = with_hanging_store(&endpoint, "60");
    let mut client = server.connect();
    client.subscribe("first");
    file.is_wanted();
    client.close();
    let start = now();
    let log = stopped(server).stdout;
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}: {log}", start.elapsed());
    assert!(log.contains("1 event discarded at the end"), "{log}");
}
