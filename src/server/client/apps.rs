//! `ringverb reload` and `ringverb app`: changes of a running server, over its admin listener.
//!
//! Owns the form of options on the command line. Prints what the server answers. Options are sent as they were written:
//! the server knows their rules. A secret on the command line shows in the list of processes, so a value may come from
//! a file or from standard input. Without an admin listener, `reload` sends SIGHUP to the process that has the server's
//! port. Does not check the values of options.
//! Limits: those of `admin.rs`, and `READ_BYTES_MAX` for a value that is read. Cost: one request.

use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;

use rustix::process::{Signal, kill_process};
use serde_json::{Map, Value};

use super::admin::{self, AdminResponse};
use super::http::percent_encoded;
use super::outcome::{CommandFailure, escaped_text, print, print_to_stderr};
use crate::config::Config;
use crate::config::admin::{Admin, AdminPlace};
use crate::config::options::{OptionKind, Scope, boolean, of_scope};
use crate::server::cli::AppCommand;
use crate::server::doctor::port::live_holder;

/// The most that the admin listener accepts in one request, so a longer value would be refused there.
const READ_BYTES_MAX: u64 = 64 * 1024;

pub(super) fn reload(config: &Config) -> Result<(), CommandFailure> {
    let Some(answer) = admin::ask(&config.admin, "POST", "/api/reload", "")? else {
        return reload_by_signal(config);
    };
    let body = body_of_success(answer)?;
    let mut text = format!("configuration {} is in use\n", body["configuration"]);
    for (name, list) in [
        ("apps added", &body["apps"]["added"]),
        ("apps changed", &body["apps"]["changed"]),
        ("apps removed", &body["apps"]["removed"]),
        ("changed", &body["changed"]),
        ("unchanged until a take-over (SIGUSR2, keeps connections)", &body["needs_takeover"]),
    ] {
        let list = shown_texts(list);
        if !list.is_empty() {
            text.push_str(&format!("{name}: {}\n", list.join(", ")));
        }
    }
    shown_texts(&body["warnings"]).iter().for_each(|warning| print_to_stderr(warning));
    print(&text)?;
    let problems = shown_texts(&body["certificate_problems"]);
    if problems.is_empty() {
        return Ok(());
    }
    Err(CommandFailure::Server(format!(
        "the certificates were not reloaded, and the earlier ones stay in use: {}. Correct the files, and reload again",
        problems.join("; ")
    )))
}

fn reload_by_signal(config: &Config) -> Result<(), CommandFailure> {
    let address = SocketAddr::new(config.host, config.port);
    let place = &config.admin.place;
    let Some(process) = live_holder(address).and_then(|holder| holder.server()) else {
        return Err(CommandFailure::Server(format!(
            "no admin listener answers at {place} (RINGVERB_ADMIN), and no ringverb that this user may see has \
             {address}: is it running? Give the address of its admin listener with --admin, or send SIGHUP to it"
        )));
    };
    kill_process(process, Signal::HUP).map_err(|error| {
        CommandFailure::Server(format!("SIGHUP cannot be sent to process {process}: {error}"))
    })?;
    print(&format!(
        "no admin listener answers at {place}, so SIGHUP was sent to process {process}: its log has the outcome\n"
    ))
}

pub(super) fn run(config: &Config, command: &AppCommand) -> Result<(), CommandFailure> {
    let of = |id: &str| format!("/api/apps/{}", percent_encoded(id));
    let (method, path, body) = match command {
        AppCommand::List => ("GET", "/api/apps".to_owned(), String::new()),
        AppCommand::Add { options } => {
            let body = options_object(options, io::stdin())?;
            ("POST", "/api/apps".to_owned(), body.to_string())
        }
        AppCommand::Set { id, options } => {
            ("PATCH", of(id), options_object(options, io::stdin())?.to_string())
        }
        AppCommand::Enable { id } => ("POST", format!("{}/enable", of(id)), String::new()),
        AppCommand::Disable { id } => ("POST", format!("{}/disable", of(id)), String::new()),
        AppCommand::Remove { id } => ("DELETE", of(id), String::new()),
    };
    let Some(answer) = admin::ask(&config.admin, method, &path, &body)? else {
        return Err(CommandFailure::Server(format!(
            "no admin listener answers at {} (RINGVERB_ADMIN): is the server running? --admin gives another address",
            config.admin.place
        )));
    };
    if let Some(sentence) = missing_access(&config.admin, answer.status) {
        return Err(CommandFailure::Server(sentence));
    }
    let body = body_of_success(answer)?;
    match command {
        AppCommand::List => print(&apps_table(&body["apps"])),
        AppCommand::Add { .. } => {
            let field = |name: &str| shown_text(&body["app"][name]);
            print(&format!(
                "REVERB_APP_ID={}\nREVERB_APP_KEY={}\nREVERB_APP_SECRET={}\n",
                field("id"),
                field("key"),
                field("secret")
            ))
        }
        AppCommand::Set { id, .. } => print(&format!("app {} changed\n", escaped_text(id))),
        AppCommand::Enable { id } => print(&format!("app {} enabled\n", escaped_text(id))),
        AppCommand::Disable { id } => print(&format!("app {} disabled\n", escaped_text(id))),
        AppCommand::Remove { id } => print(&format!("app {} removed\n", escaped_text(id))),
    }
}

/// Why the listener does not let this command in, and what to change. Its own text is for the console's page.
fn missing_access(admin: &Admin, status: u16) -> Option<String> {
    const WHERE: &str = "RINGVERB_ADMIN_TOKEN in .env, or admin_token in ringverb.toml";
    let place = &admin.place;
    match (status, &admin.token, place) {
        (401, None, _) => Some(format!(
            "the admin listener at {place} needs a token, and none is configured here: set the one of the server \
             ({WHERE})"
        )),
        (401, Some(_), _) => Some(format!(
            "the admin listener at {place} has another token than the one that is configured here: set the one of the \
             server ({WHERE})"
        )),
        (403, None, AdminPlace::Tcp(address)) if address.ip().is_loopback() => Some(format!(
            "the admin listener at {place} does not show or change apps without a token, because every user of its \
             host can connect to it: set a token of 16 characters or more ({WHERE}) and run `ringverb reload`; or use \
             a socket file (RINGVERB_ADMIN=unix:/path in .env, or admin = \"unix:/path\" in ringverb.toml) and restart \
             the server. To add or change apps, set RINGVERB_APPS_FILE or apps_file, too"
        )),
        _ => None,
    }
}

/// `name=value`, `name=@file`, `name=-` and `name:=JSON` as an object; a dot leads into an inner one.
fn options_object(options: &[String], mut input: impl Read) -> Result<Value, CommandFailure> {
    let mut object = Map::new();
    let from_input = options.iter().filter(|option| option.ends_with("=-")).count();
    if from_input > 1 {
        return Err(CommandFailure::Usage(format!(
            "{from_input} options are -, but standard input has one value only: give the others as NAME=@FILE"
        )));
    }
    for option in options {
        let Some((name, value)) = option.split_once('=') else {
            return Err(CommandFailure::Usage(format!(
                "{} is no NAME=VALUE; docs/OPTIONS.md lists the names",
                escaped_text(option)
            )));
        };
        let (name, value) = match name.strip_suffix(':') {
            Some(name) => (name, parse_json(name, value)?),
            None => match value.strip_prefix('@') {
                Some(path) => {
                    let file =
                        File::open(path).map_err(|error| read_failure(name, path, &error))?;
                    (name, typed_value(name, &read_value(name, path, file)?))
                }
                None if value == "-" => {
                    (name, typed_value(name, &read_value(name, "standard input", &mut input)?))
                }
                None => (name, typed_value(name, value)),
            },
        };
        insert_at_path(&mut object, name, value);
    }
    Ok(Value::Object(object))
}

/// A value from elsewhere, without the line end that editors and `echo` add.
fn read_value(name: &str, place: &str, from: impl Read) -> Result<String, CommandFailure> {
    let mut text = String::new();
    let read = from.take(READ_BYTES_MAX + 1).read_to_string(&mut text);
    read.map_err(|error| read_failure(name, place, &error))?;
    let value = text.strip_suffix('\n').unwrap_or(&text);
    let value = value.strip_suffix('\r').unwrap_or(value);
    let problem = match value.len() as u64 {
        0 => "is empty: NAME= takes an option away".to_owned(),
        length if length > READ_BYTES_MAX => format!("has more than {READ_BYTES_MAX} bytes"),
        _ => return Ok(value.to_owned()),
    };
    let (name, place) = (escaped_text(name), escaped_text(place));
    Err(CommandFailure::Usage(format!("{place}, which has the value of {name}, {problem}")))
}

fn read_failure(name: &str, place: &str, error: &io::Error) -> CommandFailure {
    let (name, place) = (escaped_text(name), escaped_text(place));
    CommandFailure::Usage(format!(
        "cannot read {place}, which has the value of {name}: {error}. A value that begins with @ is written as \
         {name}:=\"@...\""
    ))
}

fn parse_json(name: &str, text: &str) -> Result<Value, CommandFailure> {
    serde_json::from_str(text).map_err(|error| {
        CommandFailure::Usage(format!("the value of {} is no JSON: {error}", escaped_text(name)))
    })
}

/// A value in the type that its option has; empty takes the option away.
fn typed_value(name: &str, value: &str) -> Value {
    let kind = of_scope(Scope::App).find(|option| option.key == name);
    match kind.map(|option| &option.accepts.kind) {
        _ if value.is_empty() => Value::Null,
        Some(OptionKind::Bool) => boolean(value).map_or_else(|| value.into(), Value::Bool),
        Some(OptionKind::Number { .. }) => {
            value.parse::<i64>().map_or_else(|_| value.into(), Into::into)
        }
        _ => value.into(),
    }
}

fn insert_at_path(object: &mut Map<String, Value>, name: &str, value: Value) {
    let Some((outer, inner)) = name.split_once('.') else {
        object.insert(name.to_owned(), value);
        return;
    };
    let entry = object.entry(outer).or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(entry) = entry {
        insert_at_path(entry, inner, value);
    }
}

/// # Errors
/// The server's own sentence, with all problems of the configuration.
fn body_of_success(answer: AdminResponse) -> Result<Value, CommandFailure> {
    let AdminResponse { status, body } = answer;
    if (200..300).contains(&status) {
        return Ok(body);
    }
    let error = shown_text(&body["error"]);
    let problems = shown_texts(&body["problems"]);
    let problems = match problems.is_empty() {
        true => String::new(),
        false => format!(": {}", problems.join("; ")),
    };
    Err(CommandFailure::Server(format!("{error}{problems}")))
}

fn shown_text(value: &Value) -> String {
    match value {
        Value::String(text) => escaped_text(text),
        Value::Null => String::new(),
        other => escaped_text(&other.to_string()),
    }
}

fn shown_texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().map(shown_text).collect()
}

fn apps_table(apps: &Value) -> String {
    let head = ["ID", "KEY", "STATE", "CONNECTIONS", "SOURCE"].map(str::to_owned);
    let row = |app: &Value| {
        let state = if app["enabled"] == Value::Bool(false) { "disabled" } else { "enabled" };
        let [id, key, connections, source] =
            ["id", "key", "connections", "source"].map(|name| shown_text(&app[name]));
        [id, key, state.to_owned(), connections, source]
    };
    let rows: Vec<[String; 5]> =
        std::iter::once(head).chain(apps.as_array().into_iter().flatten().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths = [0, 1, 2, 3].map(|column| width(column).unwrap_or_default());
    let lines = rows.iter().map(|[id, key, state, connections, source]| {
        let [first, second, third, fourth] = widths;
        format!("{id:<first$}  {key:<second$}  {state:<third$}  {connections:>fourth$}  {source}\n")
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_have_the_types_of_the_table() {
        let options = [
            "max_connections=5",
            "secret=0123",
            "rate_limiting.enabled=true",
            "rate_limiting.max_attempts=9",
            "second_secret=",
            "webhooks:=[{\"url\":\"http://a/\"}]",
        ];
        let object = options_object(&options.map(str::to_owned), io::empty()).ok().unwrap();
        let expected = serde_json::json!({
            "max_connections": 5, "secret": "0123",
            "rate_limiting": {"enabled": true, "max_attempts": 9},
            "second_secret": null, "webhooks": [{"url": "http://a/"}],
        });
        assert_eq!(object, expected);
        assert!(super::options_object(&["nothing".to_owned()], io::empty()).is_err());
        assert!(super::options_object(&["a:={".to_owned()], io::empty()).is_err());
    }

    #[test]
    fn a_value_is_read_from_a_file_or_from_standard_input() {
        let name = format!("ringverb-secret-{:x}", getrandom::u64().unwrap());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, "from=file \r\n").unwrap();
        let from_file = format!("secret=@{}", path.display());
        let object = |options: &[&str], input: &str| {
            let options: Vec<String> = options.iter().map(|&text| text.to_owned()).collect();
            options_object(&options, input.as_bytes()).ok()
        };
        assert_eq!(
            object(&[&from_file, "second_secret=-", "key:=\"@k\""], "from input\n"),
            Some(serde_json::json!({
                "secret": "from=file ", "second_secret": "from input", "key": "@k"
            }))
        );
        for (options, input) in [
            (&["secret=-"][..], ""),
            (&["secret=-"], "\n"),
            (&["secret=-", "second_secret=-"], "a"),
            (&["secret=@/nonexistent"], ""),
            (&["secret=-"], &*"x".repeat(70_000)),
        ] {
            assert_eq!(object(options, input), None, "{options:?}");
        }
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_listener_that_refuses_access_has_a_remedy_for_the_command() {
        let place = |text: &str| AdminPlace::parse(text).unwrap();
        let token = || Some(crate::app::Secret::new("0123456789abcdef"));
        for (at, token, status, parts) in [
            ("127.0.0.1:9601", None, 401, &["none is configured here", "admin_token"][..]),
            ("127.0.0.1:9601", token(), 401, &["has another token", "ringverb.toml"]),
            ("127.0.0.1:9601", None, 403, &[".env", "admin = \"unix:/path\"", "apps_file"]),
            ("unix:/a", None, 403, &[]),
            ("127.0.0.1:9601", None, 409, &[]),
        ] {
            let found =
                missing_access(&Admin { place: place(at), is_explicit: true, token }, status);
            assert_eq!(found.is_some(), !parts.is_empty(), "{at} {status}");
            let text = found.unwrap_or_default();
            assert!(parts.iter().all(|part| text.contains(part)), "{text}");
            assert!(!text.contains("0123456789abcdef") && !text.contains("here, or use"), "{text}");
        }
    }

    #[test]
    fn apps_are_a_table() {
        let apps = serde_json::json!([
            {"id": "1", "key": "k", "enabled": false, "connections": 12, "source": ".env"},
        ]);
        assert_eq!(
            apps_table(&apps),
            "ID  KEY  STATE     CONNECTIONS  SOURCE\n1   k    disabled           12  .env\n"
        );
    }
}
