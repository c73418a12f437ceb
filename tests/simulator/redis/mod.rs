//! A fake Redis: what it is sent waits until the test lets it go on, what it answers waits until it is taken.
//!
//! It answers as Redis 7.0 does, byte for byte (compared with a transcript of the real one), for the few commands that
//! a cluster needs. It speaks RESP with an encoder and a decoder of its own: a fault of the server's must not cancel
//! itself out. Bytes that are no command are a fault of the node's, and end the test.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

#[derive(Default)]
pub(crate) struct FakeRedis {
    /// By number, which is never given again; `None` once it is gone.
    connections: Vec<Option<Connection>>,
    /// Who gets what is published, in the order in which it subscribed.
    channels: BTreeMap<Vec<u8>, Vec<usize>>,
    stored: BTreeMap<Vec<u8>, Stored>,
    /// Every key and value that was stored, in order.
    history: Vec<(Vec<u8>, Vec<u8>)>,
    seconds: u64,
    own_messages_last: bool,
    /// What it answers to HELLO; it writes nothing then.
    is_replica: bool,
    /// Connections whose messages reach only these.
    partition: BTreeSet<usize>,
}

#[derive(Default)]
struct Connection {
    received: Vec<u8>,
    output: VecDeque<u8>,
    channels: BTreeSet<Vec<u8>>,
    /// It has sent HELLO 3.
    greeted: bool,
}

struct Stored {
    value: Vec<u8>,
    expires: Option<u64>,
}

impl FakeRedis {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Whether what a connection publishes to itself comes behind the reply, as in Redis 7.2 and later and in Valkey,
    /// instead of before it.
    pub(crate) fn set_own_messages_last(&mut self, last: bool) {
        self.own_messages_last = last;
    }

    /// By a failover, and back.
    pub(crate) fn set_replica(&mut self, is_replica: bool) {
        self.is_replica = is_replica;
    }

    pub(crate) fn is_replica(&self) -> bool {
        self.is_replica
    }

    /// What one of these connections publishes reaches these alone; they are sent everything.
    pub(crate) fn set_partition(&mut self, connections: BTreeSet<usize>) {
        self.partition = connections;
    }

    /// It may lose a connection without a fault of the node's.
    pub(crate) fn is_faulty(&self) -> bool {
        self.is_replica || !self.partition.is_empty()
    }

    /// The number of a new connection.
    pub(crate) fn connect(&mut self) -> usize {
        self.connections.push(Some(Connection::default()));
        self.connections.len() - 1
    }

    pub(crate) fn is_connected(&self, connection: usize) -> bool {
        self.get(connection).is_some()
    }

    /// Bytes arrive and wait; nothing is executed yet.
    pub(crate) fn receive(&mut self, connection: usize, bytes: &[u8]) {
        if let Some(connection) = self.get_mut(connection) {
            connection.received.extend_from_slice(bytes);
        }
    }

    /// A whole command waits.
    pub(crate) fn has_command(&self, connection: usize) -> bool {
        self.get(connection).is_some_and(|connection| decode(&connection.received).is_some())
    }

    /// Executes one command; false if none is whole.
    pub(crate) fn execute(&mut self, number: usize) -> bool {
        let Some(connection) = self.get_mut(number) else { return false };
        let Some((parts, length)) = decode(&connection.received) else { return false };
        connection.received.drain(..length);
        let parts: Vec<_> = parts.iter().map(Vec::as_slice).collect();
        if let Some((name, arguments)) = parts.split_first() {
            self.run(number, name, arguments);
        }
        true
    }

    pub(crate) fn has_output(&self, connection: usize) -> bool {
        self.get(connection).is_some_and(|connection| !connection.output.is_empty())
    }

    /// Up to so many bytes are on their way to the node.
    pub(crate) fn take_output(&mut self, connection: usize, most: usize) -> Vec<u8> {
        let Some(connection) = self.get_mut(connection) else { return Vec::new() };
        let end = most.min(connection.output.len());
        connection.output.drain(..end).collect()
    }

    /// It is gone, and its subscriptions and unread output with it. Commands that wait are `executed` first, or lost.
    pub(crate) fn drop_connection(&mut self, connection: usize, executed: bool) {
        while executed && self.execute(connection) {}
        self.connections[connection] = None;
        self.channels.retain(|_, subscribers| {
            subscribers.retain(|subscriber| *subscriber != connection);
            !subscribers.is_empty()
        });
    }

    /// All connections are gone, all values forgotten: nothing was written to a disk.
    pub(crate) fn restart(&mut self) {
        self.connections.fill_with(|| None);
        self.channels.clear();
        self.stored.clear();
    }

    pub(crate) fn advance(&mut self, seconds: u64) {
        self.seconds += seconds;
        let now = self.seconds;
        self.stored.retain(|_, stored| stored.expires.is_none_or(|at| at > now));
    }

    /// Whether GET of this key has a value.
    pub(crate) fn has_stored(&self, key: &[u8]) -> bool {
        self.stored.contains_key(key)
    }

    /// All values that this key has had, the newest last.
    pub(crate) fn values_of<'a>(&'a self, key: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        self.history.iter().filter(move |(of, _)| of == key).map(|(_, value)| &**value)
    }

    pub(crate) fn subscribers(&self, channel: &[u8]) -> usize {
        self.channels.get(channel).map_or(0, Vec::len)
    }

    fn get(&self, connection: usize) -> Option<&Connection> {
        self.connections.get(connection)?.as_ref()
    }

    fn get_mut(&mut self, connection: usize) -> Option<&mut Connection> {
        self.connections.get_mut(connection)?.as_mut()
    }

    fn write(&mut self, connection: usize, bytes: &[u8]) {
        if let Some(connection) = self.get_mut(connection) {
            connection.output.extend(bytes);
        }
    }

    fn run(&mut self, number: usize, name: &[u8], arguments: &[&[u8]]) {
        let lower = name.to_ascii_lowercase();
        let greeted = self.get(number).is_some_and(|connection| connection.greeted);
        match (lower.as_slice(), arguments) {
            (b"hello", _) => self.hello(number, arguments),
            _ if !greeted => {
                self.write(number, b"-NOPROTO say HELLO 3 first: RESP3 alone is spoken here\r\n")
            }
            (b"set", _) if self.is_replica => {
                self.write(number, b"-READONLY You can't write against a read only replica.\r\n");
            }
            // Nothing is stored. What is published to its own publisher comes before or behind the reply, too.
            (b"eval", [_, b"2", _, _, _, _, channel, payload, _]) if self.is_replica => {
                let why = bulk(b"READONLY You can't write against a read only replica.");
                self.publish_and_answer(number, channel, payload, Some(&why));
            }
            // The one script that is known here.
            (b"eval", [script, b"2", key, number_key, value, seconds, channel, payload, turn])
                if script.starts_with(b"if tonumber(redis.call('GET',KEYS[2])") =>
            {
                let digits = |bytes: &[u8]| -> u64 {
                    String::from_utf8_lossy(bytes).parse().expect("a number")
                };
                let before = self.stored.get(*number_key).map_or(0, |stored| digits(&stored.value));
                if before >= digits(turn) {
                    return self.write(number, &integer(0));
                }
                self.set(number_key, turn, &[b"EX", b"3600"]);
                self.set(key, value, &[b"EX", seconds]);
                self.publish(number, channel, payload);
            }
            (b"set", [key, value, b"EX", seconds, b"NX"]) => {
                let reply: &[u8] = if self.stored.contains_key(*key) {
                    b"_\r\n"
                } else {
                    self.set(key, value, &[b"EX", seconds])
                };
                self.write(number, reply);
            }
            (b"ping", []) => self.write(number, b"+PONG\r\n"),
            (b"ping", [text]) => self.write(number, &bulk(text)),
            (b"subscribe", [_, ..]) => {
                arguments.iter().for_each(|name| self.subscribe(number, name))
            }
            (b"unsubscribe", []) => self.unsubscribe_all(number),
            (b"unsubscribe", _) => arguments.iter().for_each(|name| self.unsubscribe(number, name)),
            (b"publish", [channel, payload]) => self.publish(number, channel, payload),
            (b"set", [key, value, options @ ..]) => {
                let reply = self.set(key, value, options);
                self.write(number, reply);
            }
            (b"get", [key]) => {
                let stored = self.stored.get(*key);
                let reply = stored.map_or(b"_\r\n".to_vec(), |stored| bulk(&stored.value));
                self.write(number, &reply);
            }
            (b"ping" | b"subscribe" | b"publish" | b"set" | b"get", _) => {
                let name = String::from_utf8_lossy(&lower);
                let error = format!("-ERR wrong number of arguments for '{name}' command\r\n");
                self.write(number, error.as_bytes());
            }
            _ => self.write(number, &unknown_command(name, arguments)),
        }
    }

    fn hello(&mut self, number: usize, arguments: &[&[u8]]) {
        const WRONG_PASSWORD: &[u8] =
            b"-WRONGPASS invalid username-password pair or user is disabled.\r\n";
        match arguments {
            [b"3"] => {}
            // The user is there from the start, and any password will do.
            [b"3", auth, user, _] if auth.eq_ignore_ascii_case(b"auth") => {
                if *user != b"default" {
                    return self.write(number, WRONG_PASSWORD);
                }
            }
            [b"3", option, ..] => {
                let error: [&[u8]; 3] = [b"-ERR Syntax error in HELLO option '", option, b"'\r\n"];
                return self.write(number, &error.concat());
            }
            _ => return self.write(number, b"-NOPROTO unsupported protocol version\r\n"),
        }
        if let Some(connection) = self.get_mut(number) {
            connection.greeted = true;
        }
        let mut reply = b"%7\r\n".to_vec();
        for (name, value) in [
            ("server", bulk(b"redis")),
            ("version", bulk(b"7.0.15")),
            ("proto", b":3\r\n".to_vec()),
            // Redis counts from one.
            ("id", format!(":{}\r\n", number + 1).into_bytes()),
            ("mode", bulk(b"standalone")),
            ("role", bulk(if self.is_replica { b"replica" } else { b"master" })),
            ("modules", b"*0\r\n".to_vec()),
        ] {
            reply.extend(bulk(name.as_bytes()));
            reply.extend(value);
        }
        self.write(number, &reply);
    }

    fn subscribe(&mut self, number: usize, name: &[u8]) {
        let Some(connection) = self.get_mut(number) else { return };
        let is_new = connection.channels.insert(name.to_vec());
        let count = connection.channels.len();
        if is_new {
            self.channels.entry(name.to_vec()).or_default().push(number);
        }
        self.write(number, &push(b"subscribe", &bulk(name), &integer(count)));
    }

    fn unsubscribe(&mut self, number: usize, name: &[u8]) {
        let Some(connection) = self.get_mut(number) else { return };
        connection.channels.remove(name);
        let count = connection.channels.len();
        if let Some(subscribers) = self.channels.get_mut(name) {
            subscribers.retain(|subscriber| *subscriber != number);
            if subscribers.is_empty() {
                self.channels.remove(name);
            }
        }
        self.write(number, &push(b"unsubscribe", &bulk(name), &integer(count)));
    }

    fn unsubscribe_all(&mut self, number: usize) {
        let Some(connection) = self.get_mut(number) else { return };
        let names = connection.channels.clone();
        for name in &names {
            self.unsubscribe(number, name);
        }
        if names.is_empty() {
            self.write(number, &push(b"unsubscribe", b"_\r\n", &integer(0)));
        }
    }

    fn publish(&mut self, publisher: usize, channel: &[u8], payload: &[u8]) {
        self.publish_and_answer(publisher, channel, payload, None);
    }

    /// `answer`: instead of the number of receivers.
    fn publish_and_answer(
        &mut self,
        publisher: usize,
        channel: &[u8],
        payload: &[u8],
        answer: Option<&[u8]>,
    ) {
        let mut subscribers = self.channels.get(channel).cloned().unwrap_or_default();
        if self.partition.contains(&publisher) {
            subscribers.retain(|subscriber| self.partition.contains(subscriber));
        }
        let message = push(b"message", &bulk(channel), &bulk(payload));
        let is_late = |subscriber: usize, last: bool| last && subscriber == publisher;
        let last = self.own_messages_last;
        for subscriber in subscribers.iter().filter(|number| !is_late(**number, last)) {
            self.write(*subscriber, &message);
        }
        let count = integer(subscribers.len());
        self.write(publisher, answer.unwrap_or(&count));
        for subscriber in subscribers.iter().filter(|number| is_late(**number, last)) {
            self.write(*subscriber, &message);
        }
    }

    fn set(&mut self, key: &[u8], value: &[u8], options: &[&[u8]]) -> &'static [u8] {
        let expires = match options {
            [] => None,
            [option, seconds] if option.eq_ignore_ascii_case(b"ex") => {
                let seconds = std::str::from_utf8(seconds).ok().and_then(|text| text.parse().ok());
                let Some(seconds): Option<i64> = seconds else {
                    return b"-ERR value is not an integer or out of range\r\n";
                };
                match u64::try_from(seconds) {
                    Ok(seconds @ 1..) => Some(self.seconds.saturating_add(seconds)),
                    _ => return b"-ERR invalid expire time in 'set' command\r\n",
                }
            }
            _ => return b"-ERR syntax error\r\n",
        };
        self.stored.insert(key.to_vec(), Stored { value: value.to_vec(), expires });
        self.history.push((key.to_vec(), value.to_vec()));
        b"+OK\r\n"
    }
}

fn bulk(bytes: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

fn integer(number: usize) -> Vec<u8> {
    format!(":{number}\r\n").into_bytes()
}

/// A push of three; the last two are encoded already.
fn push(kind: &[u8], second: &[u8], third: &[u8]) -> Vec<u8> {
    [b">3\r\n", bulk(kind).as_slice(), second, third].concat()
}

/// With what Redis quotes: 128 bytes of the name, and arguments until they come to as many.
fn unknown_command(name: &[u8], arguments: &[&[u8]]) -> Vec<u8> {
    const QUOTED_MAX: usize = 128;
    let mut quoted = Vec::new();
    for argument in arguments {
        if quoted.len() >= QUOTED_MAX {
            break;
        }
        let end = argument.len().min(QUOTED_MAX - quoted.len());
        quoted.extend_from_slice(&[b"'", &argument[..end], b"' "].concat());
    }
    let name = &name[..name.len().min(QUOTED_MAX)];
    let mut text =
        [b"ERR unknown command '", name, b"', with args beginning with: ", &quoted].concat();
    for byte in text.iter_mut().filter(|byte| matches!(byte, b'\r' | b'\n')) {
        *byte = b' ';
    }
    [b"-", text.as_slice(), b"\r\n"].concat()
}

/// The parts of the command that the bytes start with, and its length; `None` if it is not whole.
fn decode(bytes: &[u8]) -> Option<(Vec<Vec<u8>>, usize)> {
    let (count, mut at) = decode_length(bytes, 0, b'*')?;
    let mut parts = Vec::new();
    for _ in 0..count {
        let (length, start) = decode_length(bytes, at, b'$')?;
        let end = start + length;
        let ending = bytes.get(end..end + 2)?;
        assert_eq!(ending, b"\r\n", "no end of an argument: {}", bytes.escape_ascii());
        parts.push(bytes[start..end].to_vec());
        at = end + 2;
    }
    Some((parts, at))
}

/// The length in the line at `at`, and where the next line starts.
fn decode_length(bytes: &[u8], at: usize, kind: u8) -> Option<(usize, usize)> {
    let first = *bytes.get(at)?;
    assert_eq!(first, kind, "no command, at {at}: {}", bytes.escape_ascii());
    let line = &bytes[at + 1..];
    let end = line.windows(2).position(|pair| pair == b"\r\n");
    let digits = &line[..end.unwrap_or(line.len().saturating_sub(1))];
    assert!(
        digits.len() <= 9 && digits.iter().all(u8::is_ascii_digit),
        "no length, at {at}: {}",
        bytes.escape_ascii()
    );
    let length = std::str::from_utf8(&digits[..end?]).expect("digits").parse();
    Some((length.expect("a number"), at + 1 + end? + 2))
}

#[cfg(test)]
mod tests;
