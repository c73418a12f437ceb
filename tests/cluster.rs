//! Several nodes that meet in a real Redis (PROTOCOL.md section C11). Needs `redis-server` or `valkey-server`.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use support::{DEADLINE, Redis, Setup};

#[test]
fn a_redis_of_the_tests_comes_and_goes_on_its_port() {
    let mut redis = Redis::start();
    let port = redis.port();
    assert_eq!(redis.command(&["SET", "name", "two words"]), "+OK\r\n");
    assert_eq!(redis.command(&["GET", "name"]), "$9\r\ntwo words\r\n");
    assert_eq!(redis.command(&["PUBSUB", "NUMSUB", "x"]), "*2\r\n$1\r\nx\r\n:0\r\n");
    assert!(redis.command(&["NONSENSE"]).starts_with("-ERR unknown command"));
    redis.stop();
    let refused = TcpStream::connect(("127.0.0.1", port)).expect_err("nobody listens");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    redis.restart();
    assert_eq!(redis.port(), port);
    assert_eq!(redis.command(&["GET", "name"]), "$-1\r\n");
    redis.restart();
    assert_eq!(redis.command(&["PING"]), "+PONG\r\n");
}

#[test]
fn a_redis_of_the_tests_hangs_and_goes_on() {
    let redis = Redis::start();
    let mut stream = TcpStream::connect(("127.0.0.1", redis.port())).expect("it listens");
    redis.pause();
    stream.write_all(b"PING\r\n").expect("a connection");
    stream.set_read_timeout(Some(Duration::from_millis(50))).expect("SO_RCVTIMEO");
    let silence = stream.read(&mut [0; 16]).expect_err("it is stopped");
    assert_eq!(silence.kind(), ErrorKind::WouldBlock);
    redis.go_on();
    stream.set_read_timeout(Some(DEADLINE)).expect("SO_RCVTIMEO");
    let mut reply = [0; 7];
    stream.read_exact(&mut reply).expect("an answer");
    assert_eq!(&reply, b"+PONG\r\n");
}

#[test]
fn the_start_message_says_where_nodes_meet() {
    let redis = Redis::with_password("hunter2");
    assert_eq!(redis.command(&["PING"]), "+PONG\r\n");
    let mut stranger = TcpStream::connect(("127.0.0.1", redis.port())).expect("it listens");
    stranger.write_all(b"PING\r\nQUIT\r\n").expect("a connection");
    let mut reply = String::new();
    stranger.read_to_string(&mut reply).expect("an answer");
    assert!(reply.starts_with("-NOAUTH"), "{reply}");
    let mut server = Setup::new().meeting_in(&redis).start();
    let line = server.line_with("  scaling  ");
    assert_eq!(line, format!("  scaling  redis 127.0.0.1:{}, prefix reverb", redis.port()));
    assert!(!server.stdout().contains("hunter2"), "{}", server.stdout());
    server.stop();
}
