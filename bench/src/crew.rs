//! A crowd that may be spread over several processes: one descriptor table holds 20,000 connections on many machines,
//! and an epoll loop uses one core.
//!
//! Owns the child processes, which end with it. Does not measure: the scenario reads the server's counters. A child
//! receives commands as words, one a line, on standard input, and answers each with a line of JSON when it is done. In
//! between it serves its connections. The end of its input ends it. Limit: 256 processes (`idle`). Cost: one process
//! and one pipe for each; in the child, one thread that reads lines.

use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddrV4;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, TryRecvError};
use std::time::Duration;

use serde_json::{Value, json};

use crate::app::{self, App};
use crate::pool::Pool;
use crate::report::Violations;
use crate::subscribers::Subscribers;
use crate::sys;
use crate::telemetry::Telemetry;

#[derive(Clone, clap::Args)]
pub(crate) struct Task {
    #[arg(long)]
    pub(crate) connections: usize,
    /// Number of its first connection among all.
    #[arg(long)]
    pub(crate) first: usize,
    /// Channels of each connection.
    #[arg(long)]
    pub(crate) channels: usize,
    #[arg(long)]
    pub(crate) shared: bool,
}

struct Own {
    app: App,
    task: Task,
    pool: Pool,
    crowd: Subscribers,
}

impl Own {
    fn new(app: &App, task: &Task) -> io::Result<Self> {
        let pool = Pool::of(app)?;
        Ok(Self { app: app.clone(), task: task.clone(), pool, crowd: Subscribers::new(0) })
    }

    fn connect(&mut self, telemetry: &Telemetry) -> io::Result<()> {
        self.crowd.connect(&mut self.pool, telemetry, self.task.connections)
    }

    fn subscribe(&mut self, telemetry: &Telemetry) -> io::Result<()> {
        let Task { first, channels, shared, .. } = self.task;
        let name = |number, channel| match shared {
            true => format!("private-idle-{channel}"),
            false => format!("private-idle-{}-{channel}", first + number),
        };
        self.crowd.subscribe(&mut self.pool, telemetry, &self.app, channels, name)
    }

    fn serve(&mut self, time: Duration) -> io::Result<()> {
        self.crowd.serve_for(&mut self.pool, time)
    }
}

struct Worker {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Worker {
    fn start(app: &App, task: &Task, cpu: Option<usize>) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        // Its members ask nothing of the HTTP API.
        let App { address, api_address: _, tls, sources, prefix, id, key, secret } = app;
        let scheme = if *tls { "wss" } else { "ws" };
        command.args(["--url", &format!("{scheme}://{address}{prefix}"), "--app-id", id]);
        command.args(["--key", key, "--secret", secret]);
        // The parent has checked that it may reach the address.
        command.args(app::reach_flags(!address.ip().is_loopback(), sources));
        if let Some(cpu) = cpu {
            command.args(["--pin", &cpu.to_string()]);
        }
        command.arg("crew-child");
        command.args(["--connections", &task.connections.to_string()]);
        command.args(["--first", &task.first.to_string()]);
        command.args(["--channels", &task.channels.to_string()]);
        if task.shared {
            command.arg("--shared");
        }
        sys::end_with_us(&mut command);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let orders = child.stdin.take().expect("its input is piped");
        let answers = BufReader::new(child.stdout.take().expect("its output is piped"));
        Ok(Self { child, orders, answers })
    }

    fn order(&mut self, word: &str) -> io::Result<()> {
        writeln!(self.orders, "{word}")
    }

    fn answer(&mut self) -> io::Result<Value> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            return Err(io::Error::other("a child of the crew has ended"));
        }
        let answer: Value = serde_json::from_str(&line)?;
        match answer["error"].as_str() {
            Some(text) => Err(io::Error::other(text.to_owned())),
            None => Ok(answer),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Its input ends with the field; it may also be at work on an order.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

enum Hands {
    Own(Box<Own>),
    Workers(Vec<Worker>),
}

pub(crate) struct Crew(Hands);

impl Crew {
    /// With one process and one server, this process has all connections. Otherwise so many children have them, on the
    /// servers in turn.
    pub(crate) fn new(
        app: &App,
        addresses: &[SocketAddrV4],
        task: &Task,
        processes: usize,
        cpu: Option<usize>,
    ) -> io::Result<Self> {
        if processes == 1 && addresses.len() == 1 {
            return Ok(Self(Hands::Own(Box::new(Own::new(app, task)?))));
        }
        if processes < addresses.len() {
            return Err(io::Error::other("fewer processes than servers: some would get nobody"));
        }
        let start = |number: usize| {
            let (begin, end) = share(task.connections, processes, number);
            let task = Task { connections: end - begin, first: begin, ..task.clone() };
            let app = App { address: addresses[number % addresses.len()], ..app.clone() };
            Worker::start(&app, &task, cpu)
        };
        let workers = (0..processes).map(start).collect::<io::Result<_>>()?;
        Ok(Self(Hands::Workers(workers)))
    }

    fn all(workers: &mut [Worker], word: &str) -> io::Result<Vec<Value>> {
        workers.iter_mut().try_for_each(|worker| worker.order(word))?;
        workers.iter_mut().map(Worker::answer).collect()
    }

    pub(crate) fn connect(&mut self, telemetry: &Telemetry) -> io::Result<()> {
        match &mut self.0 {
            Hands::Own(own) => own.connect(telemetry),
            Hands::Workers(workers) => {
                telemetry.phase("connect", 0);
                Self::all(workers, "connect").map(|_| ())
            }
        }
    }

    pub(crate) fn subscribe(&mut self, telemetry: &Telemetry) -> io::Result<()> {
        match &mut self.0 {
            Hands::Own(own) => own.subscribe(telemetry),
            Hands::Workers(workers) => {
                telemetry.phase("subscribe", 0);
                Self::all(workers, "subscribe").map(|_| ())
            }
        }
    }

    /// Keeps all connections for `time`. Children do so by themselves.
    pub(crate) fn serve(&mut self, time: Duration) -> io::Result<()> {
        match &mut self.0 {
            Hands::Own(own) => own.serve(time),
            Hands::Workers(_) => {
                std::thread::sleep(time);
                Ok(())
            }
        }
    }

    /// Closes all connections. Returns how many pings were answered, and the violations.
    pub(crate) fn finish(self) -> io::Result<(u64, Violations)> {
        match self.0 {
            Hands::Own(mut own) => {
                own.crowd.close_all(&mut own.pool);
                Ok((own.crowd.pings, own.crowd.violations))
            }
            Hands::Workers(mut workers) => {
                let mut violations = Violations::default();
                let mut pings = 0;
                for answer in Self::all(&mut workers, "finish")? {
                    pings += answer["pings"].as_u64().unwrap_or(0);
                    violations.append(Violations::from_json(&answer["violations"]));
                }
                Ok((pings, violations))
            }
        }
    }
}

/// The connections of process `number`: the first, and the one after the last.
fn share(count: usize, processes: usize, number: usize) -> (usize, usize) {
    (count * number / processes, count * (number + 1) / processes)
}

/// The main loop of a child: see the comment of the module.
pub(crate) fn run_child(app: &App, task: &Task) -> io::Result<()> {
    let telemetry = Telemetry::start(Vec::new());
    let mut own = Own::new(app, task)?;
    let (sender, orders) = mpsc::channel();
    std::thread::spawn(move || {
        for line in io::stdin().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    loop {
        let word = match orders.try_recv() {
            Ok(word) => word,
            Err(TryRecvError::Disconnected) => return Ok(()),
            Err(TryRecvError::Empty) => {
                own.serve(Duration::from_millis(20))?;
                continue;
            }
        };
        let done = match word.as_str() {
            "connect" => own.connect(&telemetry),
            "subscribe" => own.subscribe(&telemetry),
            _ => Ok(()),
        };
        let answer = match done {
            Ok(()) => json!({
                "pings": own.crowd.pings,
                "violations": own.crowd.violations.as_json(),
            }),
            Err(error) => json!({ "error": error.to_string() }),
        };
        println!("{answer}");
        if word == "finish" {
            own.crowd.close_all(&mut own.pool);
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_cover_each_connection_once() {
        let shares: Vec<_> = (0..6).map(|number| share(100_000, 6, number)).collect();
        assert_eq!((shares[0].0, shares[5].1), (0, 100_000));
        assert!(shares.windows(2).all(|pair| pair[0].1 == pair[1].0));
        assert!(shares.iter().all(|(begin, end)| end - begin <= 16_667));
    }
}
