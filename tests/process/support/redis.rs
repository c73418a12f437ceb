//! A real Redis (or Valkey) as a process: its own folder, a free port that stays its own also while it is down.
//!
//! Owns the process, which is killed with its owner; that it ran as long as it should have is part of every test. Does
//! not know what nodes store in it. Limit: `time::DEADLINE` for each wait. Cost: one process; a command is a connection
//! of its own.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Error, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use rustix::process::{Pid, Signal, kill_process};
use socket2::{Domain, Socket, Type};

use super::folder::Folder;
use super::time::{DEADLINE, eventually, pause};

/// Its output and that of `restart`, in its folder.
const LOG: &str = "redis.log";

/// A Redis. Dropped, it is killed; that it ran as long as it should have is part of every test.
#[derive(Debug)]
pub(crate) struct Redis {
    /// Bound, and never listening: the kernel gives the port to no other process, not even to a client of this one
    /// while it is down, whose connection to its own port would succeed.
    _hold: Socket,
    port: u16,
    password: Option<String>,
    /// `None` while it is stopped.
    child: Option<Child>,
    folder: Folder,
}

impl Redis {
    pub(crate) fn start() -> Self {
        Self::launch(None)
    }

    /// One that requires this password.
    pub(crate) fn with_password(password: &str) -> Self {
        Self::launch(Some(password.to_owned()))
    }

    fn launch(password: Option<String>) -> Self {
        let hold = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        // Redis sets it, too: then both may be bound, as long as one of them listens.
        hold.set_reuse_address(true).expect("SO_REUSEADDR");
        hold.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
        let address = hold.local_addr().ok().and_then(|address| address.as_socket());
        let port = address.expect("an address").port();
        let folder = Folder::new("redis");
        let mut redis = Self { _hold: hold, port, password, child: None, folder };
        redis.restart();
        redis
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    /// Kills it: its connections end, new ones are refused, and its data is lost.
    pub(crate) fn stop(&mut self) {
        assert!(self.child.is_some(), "it is stopped already");
        self.kill();
    }

    fn kill(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let ended = child.try_wait().expect("a child");
        // It may have ended by itself.
        let _ = child.kill();
        child.wait().expect("an exit status");
        if std::thread::panicking() {
            eprintln!("Redis said: {}", self.log());
        } else {
            assert!(ended.is_none(), "Redis ended by itself: {ended:?}\n{}", self.log());
        }
    }

    /// Starts it on the same port, after stopping it if it runs, and waits until it answers.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.child = Some(self.spawn());
        eventually("Redis answers", || {
            let pong = self.ask(&["PING"]).is_ok_and(|reply| reply == "+PONG\r\n");
            if !pong {
                let ended =
                    self.child.as_mut().and_then(|child| child.try_wait().expect("a child"));
                assert!(ended.is_none(), "Redis ended: {ended:?}\n{}", self.log());
            }
            pong.then_some(())
        });
    }

    fn spawn(&self) -> Child {
        let log = File::options().append(true).create(true).open(self.folder.0.join(LOG));
        let log = log.expect("a file for its log");
        for program in ["redis-server", "valkey-server"] {
            let mut command = Command::new(program);
            command
                .args(["--save", "", "--appendonly", "no", "--bind", "127.0.0.1"])
                .args(["--port", &self.port.to_string(), "--dir"])
                .arg(&self.folder.0)
                .stdin(Stdio::null())
                .stdout(log.try_clone().expect("a descriptor"))
                .stderr(log.try_clone().expect("a descriptor"));
            if let Some(password) = &self.password {
                command.args(["--requirepass", password]);
            }
            match command.spawn() {
                Ok(child) => return child,
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => panic!("{program}: {error}"),
            }
        }
        panic!(
            "neither redis-server nor valkey-server is installed, and the tests of the cluster use a real one: \
             apt-get install redis-server"
        );
    }

    /// Stops the process (SIGSTOP): it keeps its connections and answers nothing, as a host that hangs.
    pub(crate) fn pause(&self) {
        pause(self.child.as_ref().expect("it runs"));
    }

    /// Ends `pause`.
    pub(crate) fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        kill_process(Pid::from_child(child), signal).expect("the process is there");
    }

    /// One command on a connection of its own. Returns the bytes of the reply, also of an error.
    pub(crate) fn command(&self, words: &[&str]) -> String {
        let reply = self.ask(words);
        reply.unwrap_or_else(|error| panic!("{words:?}: {error}\n{}", self.log()))
    }

    fn ask(&self, words: &[&str]) -> io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(DEADLINE))?;
        let mut commands = self.password().map(|word| encode(&["AUTH", word])).unwrap_or_default();
        commands += &encode(words);
        // Its answer ends the stream, so no reply needs to be understood to know where it ends.
        commands += &encode(&["QUIT"]);
        stream.write_all(commands.as_bytes())?;
        let mut replies = Vec::new();
        stream.read_to_end(&mut replies)?;
        let replies = String::from_utf8_lossy(&replies);
        let greeting = if self.password.is_some() { "+OK\r\n" } else { "" };
        let reply = replies.strip_prefix(greeting).and_then(|rest| rest.strip_suffix("+OK\r\n"));
        let cut = || Error::new(ErrorKind::InvalidData, format!("replies {replies:?}"));
        reply.map(str::to_owned).ok_or_else(cut)
    }

    /// Publishes to a topic, as no node would. Returns how many connections received it.
    pub(crate) fn publish_bytes(&self, topic: &str, payload: &[u8]) -> usize {
        let mut stream = self.connect();
        let head = format!("*3\r\n$7\r\nPUBLISH\r\n${}\r\n{topic}\r\n", topic.len());
        let length = format!("${}\r\n", payload.len());
        let command = [head.as_bytes(), length.as_bytes(), payload, b"\r\n"].concat();
        stream.write_all(&command).expect("a connection");
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).expect("a reply");
        let count = line.strip_prefix(':').and_then(|rest| rest.trim_end().parse().ok());
        count.unwrap_or_else(|| panic!("a number is no {line:?}"))
    }

    /// All commands that it receives from now on (MONITOR), line by line, until it ends.
    pub(crate) fn monitor(&self) -> Receiver<String> {
        let mut stream = self.connect();
        stream.set_read_timeout(None).expect("SO_RCVTIMEO");
        stream.write_all(b"MONITOR\r\n").expect("a connection");
        let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
        assert_eq!(lines.next().as_deref(), Some("+OK"));
        let (sender, receiver) = channel();
        std::thread::spawn(move || lines.try_for_each(|line| sender.send(line)));
        receiver
    }

    /// Subscribes the test itself to a topic.
    pub(crate) fn tap(&self, topic: &str) -> Tap {
        let mut stream = self.connect();
        stream.write_all(encode(&["SUBSCRIBE", topic]).as_bytes()).expect("a connection");
        let mut tap = Tap(BufReader::new(stream));
        assert_eq!(tap.reply(), [b"subscribe", topic.as_bytes(), b":1"]);
        tap
    }

    /// A connection that is authenticated.
    fn connect(&self) -> TcpStream {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("it listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("SO_RCVTIMEO");
        if let Some(password) = self.password() {
            stream.write_all(encode(&["AUTH", password]).as_bytes()).expect("a connection");
            stream.read_exact(&mut [0; 5]).expect("+OK");
        }
        stream
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.0.join(LOG)).unwrap_or_default()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A subscription of a test to one topic.
#[derive(Debug)]
pub(crate) struct Tap(BufReader<TcpStream>);

impl Tap {
    /// The next message.
    pub(crate) fn next(&mut self) -> Vec<u8> {
        let [kind, _, payload] = self.reply();
        assert_eq!(kind, b"message");
        payload
    }

    /// A push is a list of three: texts, or a number at the end.
    fn reply(&mut self) -> [Vec<u8>; 3] {
        assert_eq!(self.line(), "*3");
        [(); 3].map(|()| {
            let line = self.line();
            let Some(length) = line.strip_prefix('$') else { return line.into_bytes() };
            let mut text = vec![0; length.parse::<usize>().expect("a length") + 2];
            self.0.read_exact(&mut text).expect("a text");
            text.truncate(text.len() - 2);
            text
        })
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    }
}

/// A command in RESP.
fn encode(words: &[&str]) -> String {
    let word = |word: &&str| format!("${}\r\n{word}\r\n", word.len());
    format!("*{}\r\n{}", words.len(), words.iter().map(word).collect::<String>())
}
