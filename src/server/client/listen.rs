//! `ringverb listen`: prints the events of channels, until Ctrl-C or until `--count` is reached.
//!
//! Owns the order of sign-in and subscriptions, and the pauses between connections. Events of the app and of its
//! clients are results; what the protocol says (`pusher:`, `pusher_internal:`) is a note. A lost connection is opened
//! again. A refusal ends the command, because it would be repeated. Input: frames of one `ClientSocket`. Output: lines
//! (`show.rs`). Does not store an event.
//! Limits: `SILENCE_SECONDS_MAX` without input of the server, then a ping with `TIMEOUT`; pauses of at most `PAUSE_MAX`
//! between two connections. Cost: one connection; one write of standard output for each event.

use std::borrow::Cow;
use std::io;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::outcome::{
    CommandFailure, TIMEOUT, escaped_text, member, print, print_to_stderr, quoted,
};
use super::peer::ServerPeer;
use super::show::{self, ShownEvent};
use super::socket::{ClientSocket, ServerInput};
use crate::pusher::channel_name::{Access, classify};
use crate::pusher::json::{self, Validator};
use crate::pusher::signature;
use crate::server::cli::ListenArguments;
use crate::server::wait;

/// A member of its own name, so that people who see it in a presence channel know what it is.
const USER: &str = "ringverb-listen";
const USER_CHANNEL: &str = "#server-to-user-";
/// pusher-js asks at least that often whether the server is there (docs/PROTOCOL.md rule 12).
const SILENCE_SECONDS_MAX: u64 = 120;
/// The pause between two attempts to connect. It is doubled after each failure up to `PAUSE_MAX`, and begins here again
/// after a connection.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(8);

const PING: &str = r#"{"event":"pusher:ping","data":{}}"#;
const PONG: &str = r#"{"event":"pusher:pong","data":{}}"#;

pub(super) fn run(
    peer: &ServerPeer,
    arguments: &ListenArguments,
    color: bool,
) -> Result<(), CommandFailure> {
    let steps = subscription_steps(arguments).map_err(CommandFailure::Usage)?;
    end_on_signal()?;
    let mut listener = Listener {
        peer,
        json: arguments.json,
        color,
        user: arguments.user.as_deref().unwrap_or(USER),
        events_left: arguments.count,
        pause: None,
        validator: Validator::default(),
    };
    let mut shown_reason = String::new();
    loop {
        let why = match listener.attempt(&steps) {
            Ok(()) => return Ok(()),
            Err(Stop::Failed(failure)) => return Err(failure),
            Err(Stop::Lost(why)) => why,
        };
        // One sentence for a server that stays away, not one for each attempt.
        let was_connected = listener.pause == Some(PAUSE_MIN);
        if was_connected || why != shown_reason {
            print_to_stderr(&format!("{why}; reconnecting"));
            shown_reason = why;
        }
        let pause = listener.pause.unwrap_or(PAUSE_MIN);
        wait::sleep(pause);
        listener.pause = Some((pause * 2).min(PAUSE_MAX));
    }
}

/// Ctrl-C is how listening ends, so it is no failure.
fn end_on_signal() -> Result<(), CommandFailure> {
    let failed =
        |error: io::Error| CommandFailure::Server(format!("cannot wait for signals: {error}"));
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(failed)?;
    let wait = move || {
        signals.forever().next();
        // With the lock no line is cut in two.
        let _stdout = io::stdout().lock();
        std::process::exit(0);
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(wait).map_err(failed)?;
    Ok(())
}

/// What has to be asked of the server, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
enum ListenStep {
    SignIn(String),
    Subscribe(String),
}

impl ListenStep {
    fn describe(&self) -> String {
        match self {
            Self::SignIn(user) => format!("the sign-in of user {}", escaped_text(user)),
            Self::Subscribe(channel) => format!("the subscription to {}", escaped_text(channel)),
        }
    }
}

fn subscription_steps(arguments: &ListenArguments) -> Result<Vec<ListenStep>, String> {
    let mut steps = Vec::new();
    let mut user = None;
    for channel in &arguments.channels {
        let subscribe = ListenStep::Subscribe(channel.clone());
        if let Some(id) = channel.strip_prefix(USER_CHANNEL) {
            let other =
                [user, arguments.user.as_deref()].into_iter().flatten().find(|it| *it != id);
            if let Some(other) = other {
                return Err(format!(
                    "one connection is signed in as one user, and these are two: {} and {}",
                    escaped_text(other),
                    escaped_text(id)
                ));
            }
            user = Some(id);
        }
        if !steps.contains(&subscribe) {
            steps.push(subscribe);
        }
    }
    if let Some(user) = user {
        steps.insert(0, ListenStep::SignIn(user.to_owned()));
    }
    Ok(steps)
}

/// Why a connection ended before `--count` events were shown.
enum Stop {
    /// Another attempt may succeed: the network failed, or the server restarts.
    Lost(String),
    Failed(CommandFailure),
}

impl From<CommandFailure> for Stop {
    fn from(failure: CommandFailure) -> Self {
        Self::Failed(failure)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Lost(format!("the connection broke: {error}"))
    }
}

/// Names as text, the rest as raw spans of a text that `Validator` has passed.
struct ServerMessage<'a> {
    text: &'a str,
    name: Cow<'a, str>,
    channel: Cow<'a, str>,
    data: Option<&'a str>,
}

impl<'a> ServerMessage<'a> {
    fn read(bytes: &'a [u8], validator: &mut Validator) -> Option<Self> {
        let text = validator.check(bytes)?;
        Some(Self {
            text,
            name: member(text, "event").and_then(json::string)?,
            channel: member(text, "channel").and_then(json::string).unwrap_or_default(),
            data: member(text, "data"),
        })
    }

    /// The object in `data`, which may be in a string.
    fn data_object(&self) -> String {
        let data = self.data.unwrap_or("{}");
        json::string(data).map_or_else(|| data.to_owned(), Cow::into_owned)
    }
}

/// The code and text of `pusher:error` (`code`, `message`) or `pusher:subscription_error` (`status`, `error`). The code
/// is 0 if there is none.
fn error_of(inner: &str, validator: &mut Validator) -> (u16, String) {
    let Some(inner) = validator.check(inner.as_bytes()) else { return (0, escaped_text(inner)) };
    let either = |first, second| member(inner, first).or_else(|| member(inner, second));
    let code = either("code", "status").and_then(|code| code.parse().ok()).unwrap_or_default();
    let text = either("message", "error").and_then(json::string).unwrap_or_default();
    (code, escaped_text(&text))
}

struct Listener<'a> {
    peer: &'a ServerPeer,
    json: bool,
    color: bool,
    user: &'a str,
    /// Events that are still to be shown. `None` without `--count`.
    events_left: Option<u64>,
    /// The pause before the next attempt. `None` until a first connection was established: until then a failure ends
    /// the command.
    pause: Option<Duration>,
    validator: Validator,
}

impl Listener<'_> {
    /// Returns once there were enough events, or when the connection ends.
    fn attempt(&mut self, steps: &[ListenStep]) -> Result<(), Stop> {
        let mut socket = match ClientSocket::open(self.peer) {
            // It was there before: a server that restarts is away for a moment.
            Err(CommandFailure::Server(why)) if self.pause.is_some() => {
                return Err(Stop::Lost(why));
            }
            opened => opened?,
        };
        let (socket_id, silence) = self.receive_greeting(&mut socket)?;
        self.pause = Some(PAUSE_MIN);
        self.run_connection(&mut socket, &socket_id, silence, steps)
    }

    /// The socket id, and the silence after which the server is to be asked whether it is there.
    fn receive_greeting(&mut self, socket: &mut ClientSocket) -> Result<(String, Duration), Stop> {
        let bytes = match socket.receive(TIMEOUT)? {
            ServerInput::Text(bytes) => bytes,
            ServerInput::Closed(reason) => return Err(self.stop_after_close(reason)),
            ServerInput::Silence => {
                return Err(self.unexpected_message("sends nothing on its WebSocket"));
            }
        };
        let message = ServerMessage::read(&bytes, &mut self.validator);
        let Some(message) = message else {
            return Err(self.unexpected_message("does not speak the Pusher protocol"));
        };
        let inner = message.data_object();
        if message.name == "pusher:error" {
            let reason = error_of(&inner, &mut self.validator);
            return Err(self.stop_after_close(Some(reason)));
        }
        let inner = self.validator.check(inner.as_bytes()).unwrap_or("{}");
        let id = member(inner, "socket_id").and_then(json::string);
        let Some(id) = id.filter(|_| message.name == "pusher:connection_established") else {
            return Err(
                self.unexpected_message("does not start with pusher:connection_established")
            );
        };
        let seconds = member(inner, "activity_timeout").and_then(|seconds| seconds.parse().ok());
        let seconds = seconds.unwrap_or(SILENCE_SECONDS_MAX).clamp(1, SILENCE_SECONDS_MAX);
        Ok((id.into_owned(), Duration::from_secs(seconds)))
    }

    fn run_connection(
        &mut self,
        socket: &mut ClientSocket,
        socket_id: &str,
        silence: Duration,
        steps: &[ListenStep],
    ) -> Result<(), Stop> {
        let mut steps_left = steps.iter();
        let mut step = self.begin_step(steps_left.next(), socket, socket_id)?;
        let mut is_pinged = false;
        loop {
            let wait = if step.is_some() || is_pinged { TIMEOUT } else { silence };
            let bytes = match (socket.receive(wait)?, step) {
                (ServerInput::Text(bytes), _) => bytes,
                (ServerInput::Closed(reason), _) => return Err(self.stop_after_close(reason)),
                (ServerInput::Silence, Some(step)) => {
                    return Err(
                        self.unexpected_message(&format!("does not answer {}", step.describe()))
                    );
                }
                (ServerInput::Silence, None) if is_pinged => {
                    let seconds = TIMEOUT.as_secs();
                    return Err(Stop::Lost(format!("no answer to a ping within {seconds} s")));
                }
                (ServerInput::Silence, None) => {
                    socket.send(PING)?;
                    is_pinged = true;
                    continue;
                }
            };
            is_pinged = false;
            let Some(message) = ServerMessage::read(&bytes, &mut self.validator) else {
                print_to_stderr(&format!(
                    "ignored a message that is not of the protocol: {}",
                    escaped_text(&String::from_utf8_lossy(&bytes))
                ));
                continue;
            };
            if message.name == "pusher:ping" {
                socket.send(PONG)?;
            } else if message.name == "pusher:error" || message.name == "pusher:subscription_error"
            {
                self.on_error(&message, step)?;
            } else if step.is_some_and(|step| is_answer_to(&message, step)) {
                self.on_step_success(&message);
                step = self.begin_step(steps_left.next(), socket, socket_id)?;
            } else if message.name.starts_with("pusher:")
                || message.name.starts_with("pusher_internal:")
            {
                print_message(&message);
            } else if self.on_event(&message)? {
                // `--count` is reached. The close frame is only polite.
                socket.close().ok();
                return Ok(());
            }
        }
    }

    fn begin_step<'s>(
        &self,
        step: Option<&'s ListenStep>,
        socket: &mut ClientSocket,
        socket_id: &str,
    ) -> io::Result<Option<&'s ListenStep>> {
        match step {
            Some(ListenStep::SignIn(user)) => socket.send(&self.sign_in(user, socket_id))?,
            Some(ListenStep::Subscribe(channel)) => {
                socket.send(&self.subscription(channel, socket_id))?
            }
            None => {}
        }
        Ok(step)
    }

    fn subscription(&self, channel: &str, socket_id: &str) -> String {
        let name = quoted(channel);
        let data = match classify(channel).map(|kind| kind.access) {
            Ok(Access::Private) => {
                let auth = self.auth_json(&[socket_id, ":", channel]);
                format!("{{\"channel\":{name},\"auth\":{auth}}}")
            }
            Ok(Access::Presence) => {
                let user = quoted(self.user);
                let text = format!(
                    "{{\"user_id\":{user},\"user_info\":{{\"name\":\"ringverb listen\"}}}}"
                );
                let auth = self.auth_json(&[socket_id, ":", channel, ":", &text]);
                let text = quoted(&text);
                format!("{{\"channel\":{name},\"auth\":{auth},\"channel_data\":{text}}}")
            }
            _ => format!("{{\"channel\":{name}}}"),
        };
        format!("{{\"event\":\"pusher:subscribe\",\"data\":{data}}}")
    }

    fn sign_in(&self, user: &str, socket_id: &str) -> String {
        let text = format!("{{\"id\":{}}}", quoted(user));
        let auth = self.auth_json(&[socket_id, "::user::", &text]);
        let text = quoted(&text);
        format!("{{\"event\":\"pusher:signin\",\"data\":{{\"auth\":{auth},\"user_data\":{text}}}}}")
    }

    /// `auth` of a subscription or sign-in, as a JSON string.
    fn auth_json(&self, parts: &[&str]) -> String {
        let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
        let hex = signature::sign(&self.peer.app.secret, &parts);
        quoted(&format!("{}:{}", self.peer.app.key, String::from_utf8_lossy(&hex)))
    }

    fn on_step_success(&mut self, message: &ServerMessage<'_>) {
        if message.name == "pusher:signin_success" {
            return;
        }
        let inner = message.data_object();
        let inner = self.validator.check(inner.as_bytes()).unwrap_or("{}");
        let count = member(inner, "presence").and_then(|presence| member(presence, "count"));
        let users =
            count.map_or_else(String::new, |count| format!(", users: {}", escaped_text(count)));
        print_to_stderr(&format!("listening to {}{users}", escaped_text(&message.channel)));
    }

    /// An error while a step waits is its refusal.
    fn on_error(
        &mut self,
        message: &ServerMessage<'_>,
        step: Option<&ListenStep>,
    ) -> Result<(), Stop> {
        let (code, text) = error_of(&message.data_object(), &mut self.validator);
        let Some(step) = step else {
            print_to_stderr(&format!("the server sent {code} {text}"));
            return Ok(());
        };
        let remedy =
            if code == 4009 { "\nhint: does it run with the same REVERB_APP_SECRET?" } else { "" };
        let what = step.describe();
        Err(CommandFailure::Server(format!("the server refused {what} with {code} {text}{remedy}"))
            .into())
    }

    /// Returns whether `--count` events have been shown.
    fn on_event(&mut self, message: &ServerMessage<'_>) -> Result<bool, CommandFailure> {
        let event = ShownEvent {
            message: message.text,
            name: &message.name,
            channel: &message.channel,
            data: message.data,
            user_id: member(message.text, "user_id"),
        };
        let text = if self.json {
            show::one_line(&event)
        } else {
            show::lines(&event, crate::worker::time::unix_seconds(), self.color)
        };
        print(&text)?;
        self.events_left = self.events_left.map(|left| left.saturating_sub(1));
        Ok(self.events_left == Some(0))
    }

    /// What the end of the connection means: the codes after which pusher-js stops for good are refusals (rule 55).
    fn stop_after_close(&self, reason: Option<(u16, String)>) -> Stop {
        let Some((code, text)) = reason else {
            return Stop::Lost("the server closed the connection".to_owned());
        };
        let reason = format!("{code} {}", escaped_text(&text));
        match code {
            4001 => CommandFailure::Server(format!(
                "the server refused with {reason}: no app has the key {} at {}; does it run with the same \
                 configuration?",
                self.peer.app.key,
                self.peer.url()
            ))
            .into(),
            4000..=4099 | 4300..=4999 => {
                CommandFailure::Server(format!("the server refused with {reason}")).into()
            }
            _ => Stop::Lost(format!("the server closed the connection with {reason}")),
        }
    }

    fn unexpected_message(&self, what: &str) -> Stop {
        let url = self.peer.url();
        CommandFailure::Server(format!("{url} {what}: does ringverb listen there?")).into()
    }
}

fn is_answer_to(message: &ServerMessage<'_>, step: &ListenStep) -> bool {
    match step {
        ListenStep::SignIn(_) => message.name == "pusher:signin_success",
        ListenStep::Subscribe(channel) => {
            message.name == "pusher_internal:subscription_succeeded" && message.channel == *channel
        }
    }
}

/// A message of the protocol: members that joined or left, a number of subscribers, a cache miss.
fn print_message(message: &ServerMessage<'_>) {
    if message.name == "pusher:pong" {
        return;
    }
    let (channel, name) = (escaped_text(&message.channel), escaped_text(&message.name));
    print_to_stderr(format!("{channel} {name} {}", escaped_text(&message.data_object())).trim());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(channels: &[&str], user: Option<&str>) -> ListenArguments {
        ListenArguments {
            channels: channels.iter().map(|channel| (*channel).to_owned()).collect(),
            user: user.map(str::to_owned),
            ..ListenArguments::default()
        }
    }

    #[test]
    fn sign_in_comes_first_and_channels_once() {
        let subscribe = |channel: &str| ListenStep::Subscribe(channel.to_owned());
        let found = subscription_steps(&arguments(&["a", "#server-to-user-7", "a"], None)).unwrap();
        let sign_in = ListenStep::SignIn("7".to_owned());
        assert_eq!(found, [sign_in, subscribe("a"), subscribe("#server-to-user-7")]);
        assert_eq!(
            subscription_steps(&arguments(&["presence-a"], Some("8"))).unwrap(),
            [subscribe("presence-a")]
        );
    }

    #[test]
    fn users_of_two_channels_are_an_error() {
        let both = ["#server-to-user-7", "#server-to-user-8"];
        assert!(subscription_steps(&arguments(&both, None)).unwrap_err().contains("7 and 8"));
        assert!(
            subscription_steps(&arguments(&both[..1], Some("9"))).unwrap_err().contains("9 and 7")
        );
        assert!(subscription_steps(&arguments(&both[..1], Some("7"))).is_ok());
    }

    #[test]
    fn errors_are_read_in_both_shapes() {
        let mut validator = Validator::default();
        let mut read = |text: &str| error_of(text, &mut validator);
        assert_eq!(read(r#"{"code":4009,"message":"no"}"#), (4009, "no".to_owned()));
        assert_eq!(
            read(r#"{"type":"AuthError","error":"no","status":401}"#),
            (401, "no".to_owned())
        );
        assert_eq!(read("rubbish\u{1b}"), (0, "rubbish\\u001b".to_owned()));
    }
}
