//! The Redis over which nodes meet: reachable, answering, a master, with the rights of a node, and its clock.
//!
//! Owns no state. One connection, one write of a few commands, replies until a deadline. It subscribes to nothing and
//! writes nothing. Output: a `Finding` and the clock of Redis. Does not change a key or a setting.
//! Limits: the time that the caller passes, for each step; 64 reads. Cost: once in a command: name look-up, one
//! connection, one write, one or two reads.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use super::finding::{Finding, RemoteClock, Verdict};
use crate::config::Scaling;
use crate::resp::{Reader, Value, write_command};
use crate::text::shown;

pub(super) fn examine(scaling: &Scaling, step: Duration) -> (Finding, Option<RemoteClock>) {
    let place = scaling.address();
    match hello_and_time(scaling, step) {
        Ok(replies) => examine_replies(&place, &replies),
        Err(error) => {
            let why = connect_error_text(&error, step);
            let text = format!("cannot reach Redis at {place}: {why}");
            (Finding::new(Verdict::Problem, "redis", text), None)
        }
    }
}

fn connect_error_text(error: &io::Error, step: Duration) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => {
            "connection refused. Is it running, and are REDIS_HOST and REDIS_PORT right?".to_owned()
        }
        ErrorKind::WouldBlock | ErrorKind::TimedOut => format!(
            "no answer within {} s. Is something else listening there, or does a firewall drop packets?",
            step.as_secs()
        ),
        ErrorKind::UnexpectedEof => "it closed the connection without an answer".to_owned(),
        _ => error.to_string(),
    }
}

/// `Null` for a reply that did not come.
fn hello_and_time(scaling: &Scaling, step: Duration) -> io::Result<[Value; 2]> {
    let mut replies = exchange(scaling, step, &[&[b"TIME"]])?.into_iter();
    // A refused HELLO may end the connection.
    let mut next = || replies.next().unwrap_or(Value::Null);
    Ok([next(), next()])
}

/// The replies to `HELLO` and these commands: one for each, or fewer if the connection ends, but at least one.
pub(super) fn exchange(
    scaling: &Scaling,
    step: Duration,
    commands: &[&[&[u8]]],
) -> io::Result<Vec<Value>> {
    let mut last = io::Error::other("its name has no address");
    for address in (scaling.host.as_str(), scaling.port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, step) {
            Ok(stream) => return send_commands(stream, scaling, step, commands),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn send_commands(
    mut stream: TcpStream,
    scaling: &Scaling,
    step: Duration,
    commands: &[&[&[u8]]],
) -> io::Result<Vec<Value>> {
    stream.set_read_timeout(Some(step))?;
    stream.set_write_timeout(Some(step))?;
    let mut hello: Vec<&[u8]> = vec![b"HELLO", b"3"];
    if let Some(password) = &scaling.password {
        let user = scaling.username.as_deref().unwrap_or("default");
        hello.extend([&b"AUTH"[..], user.as_bytes(), password.reveal().as_bytes()]);
    }
    let mut bytes = Vec::new();
    write_command(&hello, &mut bytes);
    commands.iter().for_each(|command| write_command(command, &mut bytes));
    stream.write_all(&bytes)?;
    let mut reader = Reader::default();
    let mut replies = Vec::new();
    let mut chunk = [0; 4096];
    // Replies of a Redis take one or two reads; a peer that sends bytes one by one is no Redis.
    for _ in 0..64 {
        let length = stream.read(&mut chunk)?;
        if length == 0 {
            break;
        }
        reader.push(&chunk[..length]);
        loop {
            match reader.next() {
                Ok(Some(reply)) => replies.push(reply),
                Ok(None) => break,
                Err(_) => return Err(io::Error::other("the server there is not a Redis")),
            }
            if replies.len() > commands.len() {
                return Ok(replies);
            }
        }
    }
    if replies.is_empty() { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(replies) }
}

fn examine_replies(place: &str, [hello, time]: &[Value; 2]) -> (Finding, Option<RemoteClock>) {
    let problem = |text: String| (Finding::new(Verdict::Problem, "redis", text), None);
    let pairs = match hello {
        Value::Map(pairs) => pairs,
        Value::Error(error) => return problem(refusal_text(place, error)),
        _ => return problem(format!("the server at {place} is not a Redis")),
    };
    let field = |name: &str| {
        let found = pairs.iter().find(|(key, _)| value_text(key) == name);
        found.map(|(_, value)| value_text(value)).unwrap_or_default()
    };
    match (field("mode").as_str(), field("role").as_str()) {
        ("sentinel", _) => {
            return problem(format!(
                "{place} is a Redis Sentinel, which relays no messages: give the address of the master in REDIS_HOST \
                 and REDIS_PORT"
            ));
        }
        (_, "master") => {}
        (_, role) => {
            return problem(format!(
                "Redis at {place} has the role {}, and messages of a node reach the others only over the master: give \
                 the master's address",
                shown(role)
            ));
        }
    }
    let clock = match time {
        Value::List(parts) => parts.first().and_then(|seconds| value_text(seconds).parse().ok()),
        _ => None,
    };
    let clock = clock.map(|seconds| RemoteClock::new(&format!("Redis at {place}"), seconds));
    let version = field("version");
    let finding = if field("mode") == "cluster" {
        let text =
            format!("{place} is a Redis Cluster: cache channels do not work with it (CROSSSLOT)");
        Finding::new(Verdict::Warning, "redis", text)
    } else {
        Finding::new(
            Verdict::Good,
            "redis",
            format!("{place} answers, version {}", shown(&version)),
        )
    };
    (finding, clock)
}

fn refusal_text(place: &str, error: &str) -> String {
    let what = if error.starts_with("WRONGPASS") {
        "it does not accept REDIS_USERNAME and REDIS_PASSWORD"
    } else if error.starts_with("NOAUTH") {
        "it requires a password: set REDIS_PASSWORD"
    } else if error.contains("Sentinel") {
        "it is a Redis Sentinel, which relays no messages: give the address of the master"
    } else if error.starts_with("ERR unknown command") || error.starts_with("NOPROTO") {
        "it does not know HELLO 3, which needs Redis 6 or newer"
    } else {
        "it refused HELLO"
    };
    // Redis quotes arguments in some errors, and a password is one.
    let code = error.split(' ').next().unwrap_or_default();
    format!("Redis at {place} cannot be used: {what} (error {})", shown(code))
}

fn value_text(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::Integer(number) => number.to_string(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    const CUT: &str = "+O";

    /// What is found of a server that answers one connection with these bytes and keeps it open.
    fn found(answer: &'static str) -> (Verdict, String, Option<u64>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let serve = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(answer.as_bytes());
            if answer.is_empty() {
                return;
            }
            let _ = stream.read(&mut request);
        });
        let scaling = Scaling {
            host: "127.0.0.1".to_owned(),
            port,
            username: None,
            password: None,
            prefix: String::new(),
            timeout_seconds: 1,
        };
        // Only an answer that never becomes complete is waited for.
        let step = if answer == CUT { Duration::from_millis(300) } else { Duration::from_secs(20) };
        let (finding, clock) = examine(&scaling, step);
        serve.join().unwrap();
        (finding.verdict, finding.text, clock.map(|clock| clock.seconds))
    }

    #[test]
    fn each_kind_of_server_is_recognized() {
        const TIME: &str = "*2\r\n$10\r\n1700000000\r\n$1\r\n0\r\n";
        let good = "%3\r\n$7\r\nversion\r\n$5\r\n7.0.1\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\n\
                    master\r\n\
                    *2\r\n$10\r\n1700000000\r\n$1\r\n0\r\n";
        let (verdict, text, clock) = found(good);
        assert_eq!((verdict, clock), (Verdict::Good, Some(1_700_000_000)), "{text}");
        assert!(text.contains("7.0.1"), "{text}");
        assert!(good.ends_with(TIME));
        for (answer, part) in [
            ("%1\r\n$4\r\nrole\r\n$7\r\nreplica\r\n*0\r\n", "role \"replica\""),
            ("%1\r\n$4\r\nmode\r\n$8\r\nsentinel\r\n*0\r\n", "Sentinel"),
            (
                "-ERR Only HELLO messages are accepted by Sentinel instances.\r\n-ERR x\r\n",
                "Sentinel",
            ),
            (
                "-WRONGPASS invalid username-password pair hunter2\r\n-NOAUTH x\r\n",
                "REDIS_PASSWORD",
            ),
            (
                "-NOAUTH HELLO must be called with the client already authenticated\r\n-NOAUTH x\r\n",
                "set REDIS_PASSWORD",
            ),
            ("-ERR unknown command 'HELLO'\r\n-ERR x\r\n", "Redis 6"),
            ("HTTP/1.1 400 Bad Request\r\n\r\n", "not a Redis"),
            ("SSH-2.0-OpenSSH_9\r\n", "not a Redis"),
            (CUT, "no answer"),
            ("", "closed"),
        ] {
            let (verdict, text, _) = found(answer);
            assert!(verdict == Verdict::Problem && text.contains(part), "{answer:?}: {text}");
            assert!(!text.contains("hunter2"), "{text}");
        }
        let cluster = "%2\r\n$4\r\nmode\r\n$7\r\ncluster\r\n$4\r\nrole\r\n$6\r\nmaster\r\n*0\r\n";
        assert_eq!(found(cluster).0, Verdict::Warning);
    }
}
