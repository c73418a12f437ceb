//! The simulated Redis answers as Redis does.

use super::*;

/// What Redis 7.0.15 was asked and answered, on one connection.
#[rustfmt::skip]
const TRANSCRIPT: &[(&[u8], &[u8])] = &[
    (b"HELLO 4", b"-NOPROTO unsupported protocol version\r\n"),
        (b"HELLO 3 AUTH someone pw", b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"),
        (b"HELLO 3 AUTH someone", b"-ERR Syntax error in HELLO option 'AUTH'\r\n"),
        (b"hello 3 auth default pw",
         b"%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$6\r\n7.0.15\r\n$5\r\nproto\r\n:3\r\n\
          $2\r\nid\r\n:3\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n\
          $7\r\nmodules\r\n*0\r\n"),
        (b"HELLO 3",
         b"%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$6\r\n7.0.15\r\n$5\r\nproto\r\n:3\r\n\
          $2\r\nid\r\n:3\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n\
          $7\r\nmodules\r\n*0\r\n"),
        (b"PING", b"+PONG\r\n"),
        (b"ping x\r\ny", b"$4\r\nx\r\ny\r\n"),
        (b"PING x y", b"-ERR wrong number of arguments for 'ping' command\r\n"),
        (b"SUBSCRIBE a b", b">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n>3\r\n$9\r\nsubscribe\r\n$1\r\nb\r\n:2\r\n"),
        (b"SUBSCRIBE a", b">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:2\r\n"),
        (b"subscribe c c", b">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:3\r\n>3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:3\r\n"),
        (b"SUBSCRIBE", b"-ERR wrong number of arguments for 'subscribe' command\r\n"),
        (b"PUBLISH a x\r\n\xff", b">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$4\r\nx\r\n\xff\r\n:1\r\n"),
        (b"PUBLISH nobody x", b":0\r\n"),
        (b"PUBLISH a", b"-ERR wrong number of arguments for 'publish' command\r\n"),
        (b"PING", b"+PONG\r\n"),
        (b"SET k v EX 10", b"+OK\r\n"),
        (b"set k v ex 0", b"-ERR invalid expire time in 'set' command\r\n"),
        (b"SET k v EX -1", b"-ERR invalid expire time in 'set' command\r\n"),
        (b"SET k v EX x", b"-ERR value is not an integer or out of range\r\n"),
        (b"SET k v EX", b"-ERR syntax error\r\n"),
        (b"SET k v ZZ 1", b"-ERR syntax error\r\n"),
        (b"SET k", b"-ERR wrong number of arguments for 'set' command\r\n"),
        (b"GET k", b"$1\r\nv\r\n"),
        (b"GET none", b"_\r\n"),
        (b"GET", b"-ERR wrong number of arguments for 'get' command\r\n"),
        (b"SET k w", b"+OK\r\n"),
        (b"get k", b"$1\r\nw\r\n"),
        (b"UNSUBSCRIBE a", b">3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:2\r\n"),
        (b"UNSUBSCRIBE zz", b">3\r\n$11\r\nunsubscribe\r\n$2\r\nzz\r\n:2\r\n"),
        (b"UNSUBSCRIBE b", b">3\r\n$11\r\nunsubscribe\r\n$1\r\nb\r\n:1\r\n"),
        (b"UNSUBSCRIBE", b">3\r\n$11\r\nunsubscribe\r\n$1\r\nc\r\n:0\r\n"),
        (b"UNSUBSCRIBE", b">3\r\n$11\r\nunsubscribe\r\n_\r\n:0\r\n"),
        (b"PUBLISH a x", b":0\r\n"),
        (b"FOO", b"-ERR unknown command 'FOO', with args beginning with: \r\n"),
        (b"fOO a b", b"-ERR unknown command 'fOO', with args beginning with: 'a' 'b' \r\n"),
        (b"FOO a\r\nb\xff", b"-ERR unknown command 'FOO', with args beginning with: 'a  b\xff' \r\n"),
        (b"FOO xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\
           xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx yyyyyy z",
         b"-ERR unknown command 'FOO', with args beginning with: 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\
           xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx' 'yyyyy' \r\
           \n"),
    ];

fn command(line: &[u8]) -> Vec<u8> {
    let parts: Vec<_> = line.split(|byte| *byte == b' ').collect();
    let mut bytes = format!("*{}\r\n", parts.len()).into_bytes();
    parts.iter().for_each(|part| bytes.extend(bulk(part)));
    bytes
}

/// The answer of a connection to a command.
fn ask(redis: &mut FakeRedis, connection: usize, line: &[u8]) -> String {
    redis.receive(connection, &command(line));
    assert!(redis.execute(connection), "{} is whole", line.escape_ascii());
    found(redis, connection)
}

fn found(redis: &mut FakeRedis, connection: usize) -> String {
    redis.take_output(connection, usize::MAX).escape_ascii().to_string()
}

/// A Redis with connections that have sent HELLO.
fn greeted(connections: usize) -> FakeRedis {
    let mut redis = FakeRedis::new();
    for _ in 0..connections {
        let connection = redis.connect();
        ask(&mut redis, connection, b"HELLO 3");
    }
    redis
}

const HI: &str = r">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$2\r\nhi\r\n";

#[test]
fn answers_are_those_of_redis() {
    let mut redis = FakeRedis::new();
    // It was the third connection of its server.
    let connection = [redis.connect(), redis.connect(), redis.connect()][2];
    for (line, expected) in TRANSCRIPT {
        let answer = ask(&mut redis, connection, line);
        assert_eq!(answer, expected.escape_ascii().to_string(), "{}", line.escape_ascii());
    }
}

#[test]
fn nothing_but_hello_comes_first() {
    let mut redis = FakeRedis::new();
    let connection = redis.connect();
    assert!(ask(&mut redis, connection, b"SUBSCRIBE a").starts_with("-NOPROTO"));
    assert_eq!(redis.subscribers(b"a"), 0);
}

#[test]
fn commands_wait_until_they_are_whole() {
    let mut redis = greeted(1);
    let bytes = [command(b"PING"), command(b"SET k v\r\n")].concat();
    for byte in &bytes[..command(b"PING").len()] {
        assert!(!redis.has_command(0) && !redis.execute(0));
        redis.receive(0, &[*byte]);
    }
    assert!(redis.has_command(0) && !redis.has_output(0));
    redis.receive(0, &bytes[command(b"PING").len()..]);
    assert!(redis.execute(0) && redis.has_command(0));
    assert_eq!(redis.take_output(0, 3), b"+PO");
    assert!(redis.execute(0) && !redis.has_command(0) && redis.has_output(0));
    assert_eq!(found(&mut redis, 0), r"NG\r\n+OK\r\n");
    assert!(!redis.has_output(0));
}

#[test]
fn messages_reach_subscribers_and_their_publisher_first() {
    let mut redis = greeted(3);
    for connection in [2, 0] {
        ask(&mut redis, connection, b"SUBSCRIBE a");
    }
    assert_eq!((redis.subscribers(b"a"), redis.subscribers(b"b")), (2, 0));
    assert_eq!(ask(&mut redis, 1, b"PUBLISH a hi"), r":2\r\n");
    assert_eq!(ask(&mut redis, 0, b"PUBLISH a hi"), format!(r"{HI}{HI}:2\r\n"));
    assert_eq!(found(&mut redis, 2), HI.repeat(2));
    redis.set_own_messages_last(true);
    assert_eq!(ask(&mut redis, 0, b"PUBLISH a hi"), format!(r":2\r\n{HI}"));
    assert_eq!(found(&mut redis, 2), HI);
}

#[test]
fn a_closed_connection_has_left_its_channels() {
    for executed in [false, true] {
        let mut redis = greeted(2);
        ask(&mut redis, 0, b"SUBSCRIBE a");
        ask(&mut redis, 1, b"SUBSCRIBE a");
        redis.receive(0, &[command(b"PUBLISH a hi"), b"*1\r\n$4\r\nPI".to_vec()].concat());
        redis.drop_connection(0, executed);
        assert!(!redis.is_connected(0) && redis.is_connected(1));
        assert_eq!(found(&mut redis, 1), if executed { HI } else { "" });
        assert_eq!(redis.subscribers(b"a"), 1);
        redis.receive(0, &command(b"PING"));
        assert!(!redis.has_command(0) && !redis.execute(0) && !redis.has_output(0));
        assert_eq!(found(&mut redis, 0), "");
        assert_eq!(redis.connect(), 2, "a number is not given again");
    }
}

#[test]
fn values_expire_and_a_restart_forgets() {
    let mut redis = greeted(1);
    ask(&mut redis, 0, b"SET k v EX 10");
    ask(&mut redis, 0, b"SET l w");
    redis.advance(9);
    assert_eq!(ask(&mut redis, 0, b"GET k"), r"$1\r\nv\r\n");
    redis.advance(1);
    assert_eq!(ask(&mut redis, 0, b"GET k"), r"_\r\n");
    ask(&mut redis, 0, b"SUBSCRIBE a");
    redis.restart();
    assert!(!redis.is_connected(0));
    assert_eq!(redis.subscribers(b"a"), 0);
    let connection = redis.connect();
    ask(&mut redis, connection, b"HELLO 3");
    assert_eq!(ask(&mut redis, connection, b"GET l"), r"_\r\n");
}

#[test]
fn no_command_is_the_nodes_fault() {
    for bytes in [b"PING\r\n".as_slice(), b"*x", b"*1\r\n:1\r\n", b"*1\r\n$1\r\nab\r\n", b"*-1\r\n"]
    {
        let fails = std::panic::catch_unwind(|| {
            let mut redis = greeted(1);
            redis.receive(0, &[bytes, b"\r\n"].concat());
            redis.has_command(0)
        });
        assert!(fails.is_err(), "{}", bytes.escape_ascii());
    }
}
