//! Certificates: what a start and `check` say of files that cannot be used, names, and reloading.

use rustix::process::Signal;
use rustls::pki_types::ServerName;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::admin::AdminClient;
use crate::support::{Finished, Server, Setup, Wire, eventually, tls};

fn with(certificate: &str, key: &str) -> Setup {
    Setup::new().env("RINGVERB_TLS_CERT", certificate).env("RINGVERB_TLS_KEY", key)
}

/// A start and a check with this pair fail with this text.
#[track_caller]
fn refused(certificate: &str, key: &str, text: &str) {
    let Finished { code, stderr, .. } = with(certificate, key).args(&["--port", "0"]).run();
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains(text), "{stderr}");
    for check in [&["check", "--port", "0"][..], &["check", "--offline"]] {
        let Finished { code, stdout, .. } = with(certificate, key).args(check).run();
        assert_eq!(code, Some(1), "{check:?}: {stdout}");
        assert!(stdout.contains(text), "{check:?}: {stdout}");
    }
}

#[test]
fn a_pair_that_cannot_be_used_is_refused_with_a_remedy() {
    let [certificate, key] = tls::pair("server");
    let [_, other_key] = tls::pair("other");
    refused(&certificate, &other_key, "the key does not belong to the certificate");
    refused(&key, &key, "the certificate file has no PEM block CERTIFICATE");
    refused(&certificate, &certificate, "the key file has no PEM block PRIVATE KEY");
    refused(&certificate, &tls::file("encrypted.key.pem"), "openssl pkey -in KEY -out PLAIN");
    refused("/nowhere/cert.pem", &key, "/nowhere/cert.pem cannot be read: No such file");
    let [expired, expired_key] = tls::pair("expired");
    refused(&expired, &expired_key, "the certificate expired at 2021-01-01 00:00 UTC");
    let [future, future_key] = tls::pair("future");
    refused(&future, &future_key, "the certificate is valid from 2120-01-01 00:00 UTC on");
}

#[test]
fn an_encrypted_key_is_used_with_its_passphrase_which_is_never_shown() {
    let [certificate, _] = tls::pair("server");
    let key = tls::file("encrypted.key.pem");
    let setup =
        |passphrase| with(&certificate, &key).env("RINGVERB_TLS_KEY_PASSPHRASE", passphrase);
    let server = setup("secret").start();
    assert!(serves(&server, "localhost"));
    let Finished { code, stderr, .. } = setup("hunter2").args(&["--port", "0"]).run();
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("RINGVERB_TLS_KEY_PASSPHRASE"), "{stderr}");
    assert!(!stderr.contains("hunter2"), "{stderr}");
    let php = format!(
        "<?php return ['servers' => ['reverb' => ['options' => ['tls' => ['local_cert' => '{certificate}', \
         'local_pk' => '{key}', 'passphrase' => 'secret']]]]];"
    );
    let server = Setup::new().file(".env", "A=b").file("config/reverb.php", &php).start();
    assert!(serves(&server, "localhost"));
}

/// The files do not change with the second reload: the passphrase does.
#[test]
fn a_reload_reads_an_encrypted_key_with_its_corrected_passphrase() {
    let read = |path: &str| std::fs::read_to_string(path).expect("a file");
    let [certificate, key] = tls::pair("server");
    let setup = with(&certificate, "k.pem").file("k.pem", &read(&key));
    let (environment, path) = (setup.path(".env"), setup.path("k.pem"));
    let mut server = setup.file(".env", "RINGVERB_TLS_KEY_PASSPHRASE=wrong\n").start();
    std::fs::write(path, read(&tls::file("encrypted.key.pem"))).expect("a file of the server");
    let line = server.line_with("certificates not reloaded");
    assert!(line.contains("RINGVERB_TLS_KEY_PASSPHRASE"), "{line}");
    std::fs::write(environment, "RINGVERB_TLS_KEY_PASSPHRASE=secret\n").expect("its .env");
    server.signal(Signal::HUP);
    server.line_with("certificates reloaded");
    assert!(serves(&server, "localhost"));
}

#[test]
fn options_that_do_not_fit_together_are_refused() {
    let [certificate, key] = tls::pair("server");
    let refused = |setup: Setup, text: &str| {
        let Finished { code, stderr, .. } = setup.run();
        assert_eq!(code, Some(2), "{stderr}");
        assert!(stderr.contains(text), "{stderr}");
    };
    let only = Setup::new().env("RINGVERB_TLS_CERT", &certificate);
    refused(only, "RINGVERB_TLS_CERT names 1 file and RINGVERB_TLS_KEY names no file");
    let port = Setup::new().env("RINGVERB_TLS_PORT", "8443");
    refused(port, "RINGVERB_TLS_PORT is set, but there is no certificate");
    let same = with(&certificate, &key).env("RINGVERB_TLS_PORT", "8080");
    refused(same, "RINGVERB_TLS_PORT is 8080, which is the plain port");
}

#[test]
fn a_check_names_the_certificate_and_a_missing_chain() {
    let [certificate, key] = tls::pair("server");
    let check = |setup: Setup| setup.args(&["check", "--port", "0"]).run();
    let Finished { code, stdout, .. } = check(with(&certificate, &key));
    assert_eq!(code, Some(0), "{stdout}");
    assert!(
        stdout.contains(&format!("{certificate} is valid until 2125-01-01 00:00 UTC")),
        "{stdout}"
    );
    let text = std::fs::read_to_string(&certificate).expect("a certificate");
    let end = "-----END CERTIFICATE-----\n";
    let leaf = text.split_inclusive(end).next().expect("a certificate");
    let setup = with("leaf.pem", &key).file("leaf.pem", leaf);
    let Finished { code, stdout, .. } = check(setup);
    assert_eq!(code, Some(0), "{stdout}");
    assert!(stdout.contains("leaf.pem has one certificate and not that of its issuer"), "{stdout}");
    assert!(stdout.contains("fullchain.pem"), "{stdout}");
}

/// Whether a client that asks for this name accepts the certificate that it is sent.
fn serves(server: &Server, name: &'static str) -> bool {
    is_served(server.address, name)
}

fn is_served(address: SocketAddr, name: &'static str) -> bool {
    let stream = TcpStream::connect(address).expect("the server accepts");
    let name = ServerName::try_from(name).expect("a name");
    let mut client = rustls::ClientConnection::new(tls::client(), name).expect("a client");
    let mut wire = Wire::new(stream);
    while client.is_handshaking() {
        if client.complete_io(&mut wire.stream).is_err() {
            return false;
        }
    }
    true
}

#[test]
fn the_name_that_a_client_asks_for_chooses_the_certificate() {
    let [certificate, key] = tls::pair("server");
    let [other, other_key] = tls::pair("other");
    let server = with(&format!("{certificate}, {other}"), &format!("{key}, {other_key}")).start();
    assert!(serves(&server, "localhost") && serves(&server, "other.test"));
    assert!(serves(&server, "a.wild.test") && !serves(&server, "third.test"));
}

#[test]
fn files_that_change_are_read_again_and_a_broken_pair_leaves_the_earlier_one_in_use() {
    let read =
        |name: &str| tls::pair(name).map(|path| std::fs::read_to_string(path).expect("a file"));
    let [certificate, key] = read("server");
    let setup = with("c.pem", "k.pem").file("c.pem", &certificate).file("k.pem", &key);
    let paths = ["c.pem", "k.pem"].map(|name| setup.path(name));
    let write = |texts: [&str; 2]| {
        for (path, text) in paths.iter().zip(texts) {
            std::fs::write(path, text).expect("a file of the server");
        }
    };
    let mut server = setup.start();
    assert!(serves(&server, "localhost") && !serves(&server, "other.test"));
    server.trust = Some(tls::client());
    let mut client = server.connect();
    client.subscribe("a");
    write([&certificate, "broken"]);
    let line = server.line_with("certificates not reloaded");
    assert!(line.contains("the key file has no PEM block"), "{line}");
    assert!(serves(&server, "localhost"));
    let [other, other_key] = read("other");
    write([&other, &other_key]);
    server.line_with("certificates reloaded");
    eventually("all workers use it", || {
        (serves(&server, "other.test") && !serves(&server, "localhost")).then_some(())
    });
    // Established connections stay.
    client.sync();
}

#[test]
fn a_reload_names_a_certificate_that_does_not_fit_its_key_and_ends_with_1() {
    let read =
        |name: &str| tls::pair(name).map(|path| std::fs::read_to_string(path).expect("a file"));
    let [certificate, key] = read("server");
    let setup = with("c.pem", "k.pem").file("c.pem", &certificate).file("k.pem", &key);
    let path = setup.path("k.pem");
    let mut server = setup.env("RINGVERB_ADMIN", "127.0.0.1:0").start();
    let place = AdminClient::of(&mut server).address().to_string();
    let reload = || Setup::new().args(&["reload", "--admin", &place]).run();
    let finished = reload();
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{finished:?}");
    let [_, other_key] = read("other");
    std::fs::write(&path, other_key).expect("a file of the server");
    let finished = reload();
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.stdout.contains("configuration 3 is in use"), "{finished:?}");
    for part in ["the certificates were not reloaded", "k.pem", "reload again"] {
        assert!(finished.stderr.contains(part), "{part}\nnot in {finished:?}");
    }
    assert!(serves(&server, "localhost"));
    std::fs::write(&path, key).expect("a file of the server");
    assert_eq!(reload().code, Some(0));
}

#[test]
fn pairs_of_the_toml_file_are_chosen_by_name() {
    let tables = ["server", "other"].map(|name| {
        let [certificate, key] = tls::pair(name);
        format!("[[server.tls]]\ncert = \"{certificate}\"\nkey = \"{key}\"\n")
    });
    let server = Setup::new().file("ringverb.toml", &tables.concat()).start();
    assert!(serves(&server, "localhost") && serves(&server, "other.test"));
}

#[test]
fn the_certificate_of_reverbs_configuration_or_of_herd_is_used() {
    let [certificate, key] = tls::pair("server");
    let php = format!(
        "<?php return ['servers' => ['reverb' => ['options' => ['tls' => ['local_cert' => '{certificate}', 'local_pk' \
         => env('PK', '{key}')]]]]];"
    );
    let server = Setup::new().file(".env", "A=b").file("config/reverb.php", &php).start();
    assert!(serves(&server, "localhost"));
    let text = |path: &str| std::fs::read_to_string(path).expect("a file");
    for folder in [".config/valet", "Library/Application Support/Herd/config/valet"] {
        let file = |end: &str| format!("{folder}/Certificates/other.test.{end}");
        let [certificate, key] = tls::pair("other");
        let setup =
            Setup::new().file(&file("crt"), &text(&certificate)).file(&file("key"), &text(&key));
        let home = setup.path("");
        let setup = setup.env("HOME", home.to_str().expect("a path in UTF-8"));
        let server = setup.env("REVERB_HOST", "other.test").start();
        assert!(serves(&server, "other.test"));
    }
}

#[test]
fn metrics_have_the_end_of_each_certificate() {
    let [certificate, key] = tls::pair("server");
    let mut server = with(&certificate, &key).env("RINGVERB_ADMIN", "127.0.0.1:0").start();
    let text = AdminClient::of(&mut server).get("/metrics").body;
    let line = format!(
        "ringverb_tls_certificate_expires_seconds{{certificate=\"{certificate}\"}} 4891363200"
    );
    assert!(text.contains(&line), "{text}");
}

/// Makes handshakes until `is_over`; how many there were. Each must succeed with one of the two certificates.
fn knock(address: SocketAddr, is_over: &AtomicBool) -> usize {
    let mut count = 0;
    while !is_over.load(Ordering::Relaxed) {
        let is_served =
            ["localhost", "other.test"].into_iter().any(|name| is_served(address, name));
        assert!(is_served, "a handshake failed after {count}");
        count += 1;
    }
    count
}

#[test]
fn certificates_reload_under_load_and_no_handshake_fails() {
    let read =
        |name: &str| tls::pair(name).map(|path| std::fs::read_to_string(path).expect("a file"));
    let [certificate, key] = read("server");
    let setup = with("c.pem", "k.pem").file("c.pem", &certificate).file("k.pem", &key);
    let paths = ["c.pem", "k.pem"].map(|name| setup.path(name));
    // Several workers switch at different moments, and a client that tries both names could miss both.
    let mut server = setup.workers(1).start();
    let (address, is_over) = (server.address, AtomicBool::new(false));
    server.trust = Some(tls::client());
    let mut client = server.connect();
    client.subscribe("a");
    std::thread::scope(|scope| {
        let threads = [(); 2].map(|()| scope.spawn(|| knock(address, &is_over)));
        for name in ["other", "server"] {
            for (path, text) in paths.iter().zip(read(name)) {
                std::fs::write(path, text).expect("a file of the server");
            }
            server.line_with("certificates reloaded");
            client.sync();
        }
        is_over.store(true, Ordering::Relaxed);
        let counts = threads.map(|thread| thread.join().expect("handshakes"));
        assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
    });
}
