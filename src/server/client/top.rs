//! `ringverb top`: a running server at a glance in the terminal, from its admin listener.
//!
//! Asks for `/api/overview` once a second, or twice with `--once`, and makes rates of two answers. Owns the terminal
//! while it draws and gives it back at the end; keys: q, Esc or Ctrl-C end it. `overview.rs` reads the answer,
//! `screen.rs` draws it. Text of the server is shown without control characters. Limits: `ANSWER_BYTES_MAX`.

mod overview;
mod screen;

use std::io::{self, IsTerminal, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

use super::{CommandFailure, TIMEOUT, print, shown};
use crate::app::Secret;
use crate::config::Config;
use crate::config::admin::AdminPlace;
use crate::server::cli::TopArguments;
use overview::{Overview, Rates};
use screen::Screen;

const INTERVAL: Duration = Duration::from_secs(1);
/// An answer is larger by some hundred bytes for each worker.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// Where the admin listener is, and what it wants to see.
struct AdminPeer {
    place: AdminPlace,
    token: Option<Secret>,
}

pub(super) fn run(config: Config, arguments: &TopArguments) -> Result<(), CommandFailure> {
    let peer = AdminPeer::choose(config, arguments)?;
    let first = peer.overview()?;
    if arguments.once {
        super::super::wait::sleep(INTERVAL);
        let now = peer.overview()?;
        let rates = Rates::between(&first, &now);
        return print(&screen::plain(&now, rates.as_ref()));
    }
    if !io::stdout().is_terminal() {
        return Err(CommandFailure::Usage(
            "standard output is no terminal, so there is nothing to draw on: use --once for text"
                .to_owned(),
        ));
    }
    let mut terminal = ratatui::init();
    let ended = watch(&peer, &mut terminal, first);
    ratatui::restore();
    ended
}

/// Draws until a key ends it.
fn watch(
    peer: &AdminPeer,
    terminal: &mut ratatui::DefaultTerminal,
    first: Overview,
) -> Result<(), CommandFailure> {
    let failed = |error: io::Error| CommandFailure::Server(format!("the terminal failed: {error}"));
    let mut screen = Screen::new(first);
    loop {
        terminal.draw(|frame| screen.draw(frame)).map_err(failed)?;
        // A key or a new size is drawn at once; without one, the next answer is due.
        if event::poll(INTERVAL).map_err(failed)? {
            if is_end(&event::read().map_err(failed)?) {
                return Ok(());
            }
            if !screen.is_due(INTERVAL) {
                continue;
            }
        }
        match peer.overview() {
            Ok(now) => screen.show(now),
            Err(CommandFailure::Usage(sentence) | CommandFailure::Server(sentence)) => {
                screen.fail(sentence);
            }
            Err(CommandFailure::OutputClosed) => return Ok(()),
        }
    }
}

fn is_end(event: &Event) -> bool {
    let Event::Key(key) = event else { return false };
    let is_interrupt =
        key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c');
    key.kind == KeyEventKind::Press
        && (is_interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc))
}

impl AdminPeer {
    /// The place of the command line, or that of the configuration.
    fn choose(config: Config, arguments: &TopArguments) -> Result<Self, CommandFailure> {
        let place = match &arguments.admin {
            None => config.admin.place,
            Some(text) => AdminPlace::parse(text)
                .map_err(|why| CommandFailure::Usage(format!("--admin {}: {why}", shown(text))))?,
        };
        if place == AdminPlace::Off {
            let text = "the admin listener is off (RINGVERB_ADMIN): `ringverb top` reads from it";
            return Err(CommandFailure::Usage(text.to_owned()));
        }
        Ok(Self { place, token: config.admin.token })
    }

    fn overview(&self) -> Result<Overview, CommandFailure> {
        let answer = self.ask().map_err(|error| {
            CommandFailure::Server(format!(
                "no answer from the admin listener at {}: {error}; is ringverb running, and is RINGVERB_ADMIN the same?",
                self.place
            ))
        })?;
        let strange = |what: &str| {
            let place = &self.place;
            CommandFailure::Server(format!(
                "{place} was reached, but {what}: does ringverb listen there?"
            ))
        };
        let text = String::from_utf8_lossy(&answer);
        let (head, body) =
            text.split_once("\r\n\r\n").ok_or_else(|| strange("its answer is not HTTP"))?;
        let status = head.split(' ').nth(1).unwrap_or_default();
        match status {
            "200" => Overview::read(body).ok_or_else(|| strange("its answer is no overview")),
            "401" if self.token.is_some() => Err(CommandFailure::Server(format!(
                "{} has refused the token of RINGVERB_ADMIN_TOKEN, which this command reads as the server does: from \
                 the environment, .env or ringverb.toml. Set the token of that server",
                self.place
            ))),
            "401" => Err(CommandFailure::Server(format!(
                "{} wants the token of RINGVERB_ADMIN_TOKEN, which this command reads as the server does: from the \
                 environment, .env or ringverb.toml",
                self.place
            ))),
            _ => Err(strange(&format!("it answers {}: {}", shown(status), shown(body.trim())))),
        }
    }

    /// One request on a connection of its own, as the listener wants it.
    fn ask(&self) -> io::Result<Vec<u8>> {
        match &self.place {
            AdminPlace::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, TIMEOUT)?;
                stream.set_read_timeout(Some(TIMEOUT))?;
                stream.set_write_timeout(Some(TIMEOUT))?;
                self.exchange(stream, &address.to_string())
            }
            AdminPlace::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(TIMEOUT))?;
                stream.set_write_timeout(Some(TIMEOUT))?;
                self.exchange(stream, "localhost")
            }
            AdminPlace::Off => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn exchange(&self, mut stream: impl Read + Write, host: &str) -> io::Result<Vec<u8>> {
        let token = self.token.as_ref();
        let token = token.map_or_else(String::new, |token| {
            format!("Authorization: Bearer {}\r\n", token.reveal())
        });
        let request = format!("GET /api/overview HTTP/1.1\r\nHost: {host}\r\n{token}\r\n");
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
        Ok(answer)
    }
}
