//! Clients of other libraries: OpenSSL, Python and curl. A machine without one of them skips nothing: the tests fail.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc;

use crate::support::{DEADLINE, Server, Setup, eventually, free_port, sign, tls, unix_seconds};

fn server() -> Server {
    Setup::new().secure().start()
}

/// Runs a program that speaks to the server, with this on its standard input; what it writes.
#[track_caller]
fn run(program: &str, arguments: &[&str], input: &[u8]) -> String {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    // A program that has refused to start reads nothing.
    let _ = child.stdin.take().expect("a pipe").write_all(input);
    let output = child.wait_with_output().expect("its output");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, error) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{program} {arguments:?}: {out}\n{error}");
    out + &error
}

const GET: &[u8] = b"GET /up HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

#[test]
fn openssl_is_served_in_each_version_and_suite() {
    let server = server();
    let address = server.address.to_string();
    let authority = tls::file("authority.pem");
    for (version, suite) in [
        ("-tls1_3", "TLS_AES_128_GCM_SHA256"),
        ("-tls1_3", "TLS_AES_256_GCM_SHA384"),
        ("-tls1_3", "TLS_CHACHA20_POLY1305_SHA256"),
        ("-tls1_2", "ECDHE-ECDSA-AES128-GCM-SHA256"),
        ("-tls1_2", "ECDHE-ECDSA-AES256-GCM-SHA384"),
        ("-tls1_2", "ECDHE-ECDSA-CHACHA20-POLY1305"),
    ] {
        let option = if version == "-tls1_3" { "-ciphersuites" } else { "-cipher" };
        let arguments = [
            "s_client",
            "-connect",
            &address,
            "-CAfile",
            &authority,
            "-verify_return_error",
            "-servername",
            "localhost",
            "-alpn",
            "http/1.1",
            "-ign_eof",
            version,
            option,
            suite,
        ];
        let said = run("openssl", &arguments, GET);
        assert!(said.contains("HTTP/1.1 200"), "{suite}: {said}");
        assert!(
            said.contains(suite) && said.contains("ALPN protocol: http/1.1"),
            "{suite}: {said}"
        );
    }
}

#[test]
fn openssl_updates_keys_and_is_refused_a_renegotiation() {
    let server = server();
    let address = server.address.to_string();
    let authority = tls::file("authority.pem");
    let of = |version| s_client(&address, &authority, &[version]);
    // A line with one of these letters is a command: k and K update the keys, K asks the server for the same.
    let answer = "HTTP/1.1 200";
    let script = [
        ("GET /up HTTP/1.1\r\nHost: x\r\n\r\n", answer),
        ("k\n", "KEYUPDATE"),
        ("K\n", "KEYUPDATE"),
        ("K\n", "KEYUPDATE"),
        ("GET /up HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", answer),
    ];
    let said = command_by_command("openssl", &of("-tls1_3"), || true, &script);
    assert_eq!(said.matches(answer).count(), 2, "{said}");
    assert_eq!(said.matches("KEYUPDATE").count(), 3, "{said}");
    let said =
        command_by_command("openssl", &of("-tls1_2"), || true, &[("R\n", "no renegotiation")]);
    assert!(said.contains("RENEGOTIATING"), "{said}");
}

/// Runs a program whose commands come one after the other, because a command is one only at the beginning of what the
/// program reads at once: each is sent when the text that the one before it causes has been printed. `is_ready`: the
/// first one can be sent. The program may end with an error. Returns what it has printed.
fn command_by_command(
    program: &str,
    arguments: &[&str],
    is_ready: impl Fn() -> bool,
    script: &[(&str, &str)],
) -> String {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let mut pipe = child.stdin.take().expect("a pipe");
    let (sender, received) = mpsc::channel();
    let outputs: [Box<dyn Read + Send>; 2] = [
        Box::new(child.stdout.take().expect("a pipe")),
        Box::new(child.stderr.take().expect("a pipe")),
    ];
    for (mut output, number) in outputs.into_iter().zip(0..) {
        let sender = sender.clone();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
                // A test that has failed receives nothing.
                let _ = sender.send((number, text));
            }
        });
    }
    drop(sender);
    eventually("it is ready", || is_ready().then_some(()));
    // Apart, so that no text of one output comes into the middle of a line of the other.
    let mut printed = [String::new(), String::new()];
    for (command, effect) in script {
        let times = |printed: &[String]| -> usize {
            printed.iter().map(|text| text.matches(effect).count()).sum()
        };
        let before = times(&printed);
        pipe.write_all(command.as_bytes()).expect("the program reads its commands");
        while times(&printed) == before {
            let (number, text): (usize, String) =
                received.recv_timeout(DEADLINE).unwrap_or_else(|_| {
                    panic!("{program}: no {effect:?} after {command:?}: {printed:?}")
                });
            printed[number].push_str(&text);
        }
    }
    drop(pipe);
    child.wait().expect("its end");
    received.into_iter().for_each(|(number, text)| printed[number].push_str(&text));
    printed.concat()
}

/// Arguments of `openssl s_client` for this server.
fn s_client<'a>(address: &'a str, authority: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let common =
        ["s_client", "-connect", address, "-CAfile", authority, "-servername", "localhost"];
    [&common[..], more].concat()
}

#[test]
fn openssl_resumes_a_session() {
    let server = server();
    let (address, authority) = (server.address.to_string(), tls::file("authority.pem"));
    for version in ["-tls1_3", "-tls1_2"] {
        let session = format!("{}/session{version}", env!("CARGO_TARGET_TMPDIR"));
        let with = |option| {
            s_client(&address, &authority, &["-ign_eof", version, option, session.as_str()])
        };
        assert!(run("openssl", &with("-sess_out"), GET).contains("New, TLSv1"));
        let said = run("openssl", &with("-sess_in"), GET);
        assert!(said.contains("Reused, TLSv1"), "{version}: {said}");
    }
}

#[test]
fn no_ticket_offers_early_data() {
    let server = server();
    let (address, authority) = (server.address.to_string(), tls::file("authority.pem"));
    let session = format!("{}/session-early", env!("CARGO_TARGET_TMPDIR"));
    let first = ["-ign_eof", "-tls1_3", "-sess_out", session.as_str()];
    let said = run("openssl", &s_client(&address, &authority, &first), GET);
    assert!(said.contains("Max Early Data: 0"), "{said}");
}

#[test]
fn python_sends_and_receives_through_its_ssl_module() {
    let server = server();
    let script = r#"
import socket, ssl, sys
host, port, authority = sys.argv[1], int(sys.argv[2]), sys.argv[3]
for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
    context = ssl.create_default_context(cafile=authority)
    context.minimum_version = context.maximum_version = version
    with socket.create_connection((host, port)) as raw:
        with context.wrap_socket(raw, server_hostname="localhost") as tls:
            for _ in range(5):
                tls.sendall(b"GET /up HTTP/1.1\r\nHost: x\r\n\r\n")
                answer = b""
                while not answer.endswith(b"}"):
                    answer += tls.recv(1)
                assert answer.startswith(b"HTTP/1.1 200"), answer
            # close_notify goes both ways.
            raw = tls.unwrap()
            assert raw.recv(1) == b""
print("served", ssl.OPENSSL_VERSION)
"#;
    let (host, port) = (server.address.ip().to_string(), server.address.port().to_string());
    let authority = tls::file("authority.pem");
    let said = run("python3", &["-c", script, &host, &port, &authority], b"");
    assert!(said.contains("served"), "{said}");
}

#[test]
fn curl_publishes_over_https() {
    let server = server();
    let mut client = server.connect();
    client.subscribe("a");
    let body = r#"{"name":"e","channel":"a","data":"x"}"#;
    let md5 = ringverb::pusher::signature::body_md5(body.as_bytes());
    let query = format!(
        "auth_key=app-key&auth_timestamp={}&auth_version=1.0&body_md5={md5}",
        unix_seconds()
    );
    let signature = sign(&["POST\n/apps/1001/events\n", &query]);
    let port = server.address.port();
    let url =
        format!("https://localhost:{port}/apps/1001/events?{query}&auth_signature={signature}");
    let resolve = format!("localhost:{port}:127.0.0.1");
    let authority = tls::file("authority.pem");
    for options in [&["--http1.1"][..], &["--http2"], &["--tlsv1.2", "--tls-max", "1.2"]] {
        let arguments = [
            &["-sS", "--fail", "--cacert", &authority, "--resolve", &resolve, "-d", body][..],
            options,
            &[&url],
        ]
        .concat();
        assert_eq!(run("curl", &arguments, b""), "{}");
        assert_eq!(client.event()["data"], "x");
    }
}

/// `openssl s_server`, which accepts early data. It ends with this value.
struct ForeignServer(std::process::Child);

impl Drop for ForeignServer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn early_data_of_openssl_with_the_ticket_of_another_server_is_skipped() {
    let [certificate, key] = tls::pair("server");
    let foreign = std::net::SocketAddr::from(([127, 0, 0, 1], free_port())).to_string();
    let options = ["-tls1_3", "-early_data", "-max_early_data", "16384", "-quiet"];
    let child = Command::new("openssl")
        .args(["s_server", "-accept", &foreign, "-cert", &certificate, "-key", &key])
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl");
    let _foreign_server = ForeignServer(child);
    eventually("the other server accepts", || std::net::TcpStream::connect(&foreign).ok());
    let path =
        |name: &str| format!("{}/{name}-{}", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    let (session, early, authority) =
        (path("session-foreign"), path("early"), tls::file("authority.pem"));
    // A session of an earlier run is no session with this server.
    let _ = std::fs::remove_file(&session);
    let has_ticket = || {
        let session = std::fs::read_to_string(&session).unwrap_or_default();
        session.contains("END SSL SESSION PARAMETERS")
    };
    let arguments = s_client(&foreign, &authority, &["-sess_out", &session]);
    let said = command_by_command("openssl", &arguments, has_ticket, &[("Q\n", "DONE")]);
    assert!(said.contains("New, TLSv1.3"), "{said}");
    std::fs::write(&early, "e".repeat(16_384)).expect("a file");
    let server = server();
    let address = server.address.to_string();
    let with = ["-ign_eof", "-tls1_3", "-sess_in", &session, "-early_data", &early];
    let said = run("openssl", &s_client(&address, &authority, &with), GET);
    assert!(said.contains("Early data was rejected"), "{said}");
    assert!(said.contains("HTTP/1.1 200") && said.contains("New, TLSv1.3"), "{said}");
}
