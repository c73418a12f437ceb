//! What a server of the tests starts with: folder, files, environment, arguments.
//!
//! Owns these until the server has started. Does not inherit the environment of the test program, so that a test does
//! not depend on the machine. No limits: a builder. Cost: some files in a folder of its own.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver};

use super::folder::Folder;
use super::protocol::{APP_ID, APP_KEY, APP_SECRET};
use super::redis::Redis;
use super::server::{Finished, Output, Server};
use super::system::free_port;
use super::time::eventually;
use super::tls;

/// How a server is to be started.
#[derive(Debug)]
pub(crate) struct Setup {
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    program: PathBuf,
    user: Option<u32>,
    /// Limits of the shell that starts it, such as `-n 100`.
    ulimits: Vec<String>,
    /// Clients of the server speak TLS.
    is_secure: bool,
    folder: Folder,
}

#[expect(clippy::disallowed_methods, reason = "the whole suite runs on either kernel")]
fn io() -> Option<std::ffi::OsString> {
    std::env::var_os("RINGVERB_IO")
}

impl Setup {
    /// With the app of the recorded traffic.
    pub(crate) fn new() -> Self {
        Self::bare()
            .env("REVERB_APP_ID", APP_ID)
            .env("REVERB_APP_KEY", APP_KEY)
            .env("REVERB_APP_SECRET", APP_SECRET)
    }

    /// With nothing configured.
    pub(crate) fn bare() -> Self {
        Self {
            arguments: Vec::new(),
            environment: Vec::new(),
            program: env!("CARGO_BIN_EXE_ringverb").into(),
            user: None,
            ulimits: Vec::new(),
            is_secure: false,
            folder: Folder::new("server"),
        }
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The port is TLS, with the certificate of the tests.
    pub(crate) fn secure(self) -> Self {
        let [certificate, key] = tls::pair("server");
        let setup = self.env("RINGVERB_TLS_CERT", &certificate).env("RINGVERB_TLS_KEY", &key);
        Self { is_secure: true, ..setup }
    }

    /// A path in the folder the server starts in.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.0.join(name)
    }

    pub(crate) fn arg(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    pub(crate) fn workers(self, count: u16) -> Self {
        self.arg("--workers").arg(&count.to_string())
    }

    /// Puts a file into the folder the server starts in.
    pub(crate) fn file(self, name: &str, text: &str) -> Self {
        let path = self.folder.0.join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder of the server");
        std::fs::write(path, text).expect("a file of the server");
        self
    }

    /// The server may have so many descriptors.
    pub(crate) fn descriptors(self, most: u32) -> Self {
        self.ulimit(&format!("-n {most}"))
    }

    /// A copy of the program.
    pub(crate) fn program(mut self, path: &Path) -> Self {
        self.program = path.to_owned();
        self
    }

    /// Runs as this user, which only root can ask for.
    pub(crate) fn user(mut self, user: u32) -> Self {
        self.user = Some(user);
        self
    }

    /// No directory is this server's own.
    pub(crate) fn without_runtime_directory(self) -> Self {
        self.env("XDG_RUNTIME_DIR", "")
    }

    /// A limit as the shell's `ulimit` takes it.
    pub(crate) fn ulimit(mut self, limit: &str) -> Self {
        self.ulimits.push(limit.to_owned());
        self
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = if self.ulimits.is_empty() {
            Command::new(&self.program)
        } else {
            let mut shell = Command::new("/bin/sh");
            let limits: String =
                self.ulimits.iter().map(|limit| format!("ulimit {limit} && ")).collect();
            shell.arg("-c").arg(limits + "exec \"$0\" \"$@\"").arg(&self.program);
            shell
        };
        // Many servers run at once, and the default place is one. The report of `check` shows each option that is set.
        let is_check = self.arguments.iter().any(|argument| argument == "check");
        let admin = (!is_check).then_some(("RINGVERB_ADMIN", "off"));
        // Its output is a pipe, and most tests read the text.
        let format = (!is_check).then_some(("RINGVERB_LOG_FORMAT", "text"));
        command
            .args(&self.arguments)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            // Not in /run, which the tests of root would fill.
            .env("XDG_RUNTIME_DIR", env!("CARGO_TARGET_TMPDIR"))
            .envs(admin)
            .envs(format)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.folder.0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(user) = self.user {
            // The folder may be out of that user's reach.
            command.uid(user).gid(user).current_dir("/");
        }
        command
    }

    /// Servers use the interface of the kernel that the environment of the tests names. The report of `check` shows
    /// each option that is set, so a test of `check` sets all of them itself.
    fn spawn(self) -> Server {
        let mut command = self.command();
        let is_check = self.arguments.iter().any(|argument| argument == "check");
        if !is_check && !self.environment.iter().any(|(name, _)| name == "RINGVERB_IO") {
            command.envs(io().map(|io| ("RINGVERB_IO", io)));
        }
        let mut child = command.spawn().expect("the server's program");
        let stdout = lines(child.stdout.take().expect("a pipe"));
        let stderr = lines(child.stderr.take().expect("a pipe"));
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let output = Output { stdout, stderr, seen: String::new() };
        let trust = self.is_secure.then(tls::client);
        Server::new(child, output, address, trust, self.folder)
    }

    /// Starts the server on a free port and waits until it listens.
    pub(crate) fn start(self) -> Server {
        self.arg("--host").arg("127.0.0.1").arg("--port").arg("0").start_as_configured()
    }

    /// Starts the server where its configuration says.
    pub(crate) fn start_as_configured(self) -> Server {
        let mut server = self.spawn();
        server.listens();
        server
    }

    /// Starts the server where its configuration says, and does not wait.
    pub(crate) fn starting(self) -> Server {
        self.spawn()
    }

    /// Starts the server where its configuration says, and waits for a line of stdout that holds this text.
    pub(crate) fn spawned(self, until: &str) -> Server {
        let mut server = self.spawn();
        server.line_with(until);
        server
    }

    /// `start` for a server that prints events: standard output is theirs alone.
    pub(crate) fn start_printing_events(self) -> Server {
        let setup = self.args(&["--print-events", "json", "--host", "127.0.0.1", "--port", "0"]);
        let mut server = setup.spawn();
        let line = server.error_line_with("  address  ");
        server.listens_at(&line);
        server
    }

    /// Starts the server with its output going here, on a port that was free a moment ago, and waits until it accepts.
    pub(crate) fn start_onto(self, stdout: impl Into<Stdio>, stderr: impl Into<Stdio>) -> Server {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let setup = self.args(&["--host", "127.0.0.1", "--port", &address.port().to_string()]);
        let mut command = setup.command();
        command.stdout(stdout).stderr(stderr);
        Self::launched(command, address, setup.folder)
    }

    /// The server that this command starts, once it accepts there; its output is not read.
    fn launched(mut command: Command, address: SocketAddr, folder: Folder) -> Server {
        let child = command.spawn().expect("the server's program");
        // It has its own copies of its output.
        drop(command);
        let unread = || mpsc::channel().1;
        let output = Output { stdout: unread(), stderr: unread(), seen: String::new() };
        let server = Server::new(child, output, address, None, folder);
        eventually("the server accepts", || TcpStream::connect(address).ok());
        server
    }

    /// With the app of the recorded traffic, for a command that connects to this server.
    pub(crate) fn client_of(server: &Server) -> Self {
        Self::new().reaching(server)
    }

    /// The same address as the server's.
    pub(crate) fn reaching(self, server: &Server) -> Self {
        let SocketAddr::V4(address) = server.address else { panic!("the tests listen on IPv4") };
        self.env("REVERB_SERVER_HOST", &address.ip().to_string())
            .env("REVERB_SERVER_PORT", &address.port().to_string())
    }

    /// A node of the cluster of this Redis.
    pub(crate) fn meeting_in(self, redis: &Redis) -> Self {
        let setup = self
            .env("REVERB_SCALING_ENABLED", "true")
            .env("REDIS_HOST", "127.0.0.1")
            .env("REDIS_PORT", &redis.port().to_string());
        // As Laravel's .env has it.
        setup.env("REDIS_PASSWORD", redis.password().unwrap_or("null"))
    }

    pub(crate) fn args(self, arguments: &[&str]) -> Self {
        arguments.iter().fold(self, |setup, argument| setup.arg(argument))
    }

    /// Starts a command that runs until something happens, and waits until it writes this text on stderr.
    pub(crate) fn launch(self, until: &str) -> Server {
        let mut running = self.spawn();
        running.error_line_with(until);
        running
    }

    /// Runs to the end: for commands that answer and runs that must fail.
    pub(crate) fn run(self) -> Finished {
        self.spawn().finish()
    }
}

impl Server {
    /// With the setup of `Setup::new`.
    pub(crate) fn start() -> Self {
        Setup::new().start()
    }
}

pub(super) fn lines(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}
