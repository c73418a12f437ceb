//! `ringverb top`: a running server at a glance in the terminal, from its admin listener.
//!
//! Asks for `/api/overview` once a second, or twice with `--once`, and makes rates of two answers. Owns the terminal
//! while it draws and gives it back at the end; keys: q, Esc or Ctrl-C end it. `overview.rs` reads the answer,
//! `screen.rs` says what is shown, `styled.rs` makes lines of it, `terminal.rs` writes them. Text of the server is
//! shown without control characters. Never changes anything on the server.
//! Limit: `ANSWER_BYTES_MAX` of an answer. Cost: one request and one frame a second.

mod overview;
mod screen;
mod styled;
mod terminal;

use std::io::{self, IsTerminal};
use std::time::Duration;

use super::admin::{self, ExchangeLimits};
use super::outcome::{CommandFailure, TIMEOUT, escaped_text, print};
use crate::config::Config;
use crate::config::admin::{Admin, AdminPlace};
use crate::server::cli::TopArguments;
use overview::{Overview, Rates};
use screen::Screen;
use terminal::{Key, Terminal};

const INTERVAL: Duration = Duration::from_secs(1);
/// An answer is larger by some hundred bytes for each worker.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// The admin listener, with the token that it may demand.
struct AdminPeer(Admin);

pub(super) fn run(config: Config, arguments: &TopArguments) -> Result<(), CommandFailure> {
    let peer = AdminPeer::choose(config.admin)?;
    let first = peer.overview()?;
    if arguments.once {
        super::super::wait::sleep(INTERVAL);
        let now = peer.overview()?;
        let rates = Rates::between(&first, &now);
        return print(&screen::plain_text(&now, rates.as_ref()));
    }
    if !io::stdout().is_terminal() {
        return Err(CommandFailure::Usage(
            "standard output is no terminal, so there is nothing to draw on: use --once for text"
                .to_owned(),
        ));
    }
    watch(&peer, first)
}

/// Returns when a key ends it, or the terminal fails.
fn watch(peer: &AdminPeer, first: Overview) -> Result<(), CommandFailure> {
    let failed = |error: io::Error| CommandFailure::Server(format!("the terminal: {error}"));
    let mut terminal = Terminal::enter().map_err(failed)?;
    let mut screen = Screen::new(first);
    loop {
        let size = terminal.size().map_err(failed)?;
        terminal.show(&styled::frame(&screen.lines(size), size)).map_err(failed)?;
        match terminal.key(INTERVAL).map_err(failed)? {
            Some(Key::End) => return Ok(()),
            Some(Key::Other) if !screen.is_due(INTERVAL) => continue,
            Some(Key::Other) | None => {}
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

impl AdminPeer {
    /// The place comes from the configuration, to which `--admin` belongs.
    fn choose(admin: Admin) -> Result<Self, CommandFailure> {
        if admin.place == AdminPlace::Off {
            let text = "the admin listener is off (RINGVERB_ADMIN): `ringverb top` reads from it";
            return Err(CommandFailure::Usage(text.to_owned()));
        }
        Ok(Self(admin))
    }

    fn overview(&self) -> Result<Overview, CommandFailure> {
        let place = &self.0.place;
        let limits = ExchangeLimits { time: TIMEOUT, answer_bytes: ANSWER_BYTES_MAX };
        let answer = admin::exchange(&self.0, "GET", "/api/overview", "", limits).map_err(|error| {
            CommandFailure::Server(format!(
                "no answer from the admin listener at {place}: {error}; is ringverb running, and is RINGVERB_ADMIN the \
                 same?"
            ))
        })?;
        let strange = |what: &str| {
            CommandFailure::Server(format!(
                "{place} was reached, but {what}: does ringverb listen there?"
            ))
        };
        let (status, body) =
            admin::status_and_body(&answer).ok_or_else(|| strange("its answer is not HTTP"))?;
        let body = String::from_utf8_lossy(body);
        match status {
            200 => Overview::read(&body).ok_or_else(|| strange("its answer is no overview")),
            401 if self.0.token.is_some() => Err(CommandFailure::Server(format!(
                "{place} has refused the token of RINGVERB_ADMIN_TOKEN, which this command reads as the server does: \
                 from the environment, .env or ringverb.toml. Set the token of that server"
            ))),
            401 => Err(CommandFailure::Server(format!(
                "{place} wants the token of RINGVERB_ADMIN_TOKEN, which this command reads as the server does: from \
                 the environment, .env or ringverb.toml"
            ))),
            _ => Err(strange(&format!("it answers {status}: {}", escaped_text(body.trim())))),
        }
    }
}
