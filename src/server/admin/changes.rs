//! The admin API: reload the configuration, and change apps while the server runs.
//!
//! Reads a request, asks the main thread (`server/change`), and writes its answer as JSON. Owns no state. Who may ask,
//! and from which pages, is decided in `routes.rs`. Does not change anything itself.
//! Limits: those of `connection.rs`, and `ANSWER_TIME_MAX` for the main thread, which may be busy with a take-over.
//! Cost: one message to the main thread, and a look at its answer every 2 ms.

use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::time::Duration;

use monoio::time::sleep;
use serde_json::{Map, Value as Json};

use super::owed::OwedAnswers;
use crate::http1::query::percent_decode;
use crate::http1::request::Request;
use crate::http1::response::Response;
use crate::server::change::{
    AppChange, AppEdit, CHANGE_TIME_MAX, ChangeCommand, ChangeOutcome, ChangeRequest, PendingReload,
};
use crate::server::takeover::Order;
use crate::server::takeover::transfer::SEND_TIME_MAX;
use crate::text::shown;

/// Longer than the main thread needs for this change, after one that is under way and one attempt to send its
/// connections to a new process. More changes may wait before this one.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);
const _: () = assert!(
    ANSWER_TIME_MAX.as_millis() > SEND_TIME_MAX.as_millis() + 2 * CHANGE_TIME_MAX.as_millis()
);
/// Between two looks for its answer: there is no wake-up between threads of this runtime.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Orders to the main thread, reloads that wait for it, and whether it still changes anything.
type MainThread<'a> = (&'a Sender<Order>, &'a PendingReload, &'a OwedAnswers);

/// `api/mod.rs` answers the other paths below `/api/`.
pub(super) fn is_change(path: &str) -> bool {
    matches!(path, "/api/reload" | "/api/apps") || path.starts_with("/api/apps/")
}

/// `routes.rs` has checked token, page and content type of the request.
pub(super) async fn answer(request: &Request, main: MainThread<'_>) -> Response {
    let outcome = match requested_change(request) {
        Err(outcome) => outcome,
        Ok(what) => ask(what, main).await,
    };
    let path = path_segments(request);
    to_response(&outcome, allowed_methods(path.each_ref().map(Option::as_deref)))
}

/// The segments of the path below `/api/`, decoded: an app id may have any character.
fn path_segments(request: &Request) -> [Option<String>; 4] {
    let mut segments = request.path().split('/').skip(2).map(decode_segment);
    [segments.next(), segments.next(), segments.next(), segments.next()]
}

/// What a path takes, for `Allow`. `None`: there is no such path.
fn allowed_methods(parts: [Option<&str>; 4]) -> Option<&'static str> {
    match parts {
        [Some("reload"), None, ..] | [Some("apps"), Some(_), Some("enable" | "disable"), None] => {
            Some("POST")
        }
        [Some("apps"), None, ..] => Some("GET, HEAD, POST"),
        [Some("apps"), Some(_), None, _] => Some("GET, HEAD, PUT, PATCH, DELETE"),
        _ => None,
    }
}

async fn ask(what: ChangeCommand, (orders, pending, owed): MainThread<'_>) -> ChangeOutcome {
    let (answer, outcome) = mpsc::channel();
    let request = match what {
        // A reload that waits already answers this one, too.
        ChangeCommand::Reload => pending.request(Some(answer)),
        what => Some(ChangeRequest { what, answer: Some(answer), pending: None }),
    };
    let ends = || ChangeOutcome::error(503, "the server ends, and changes nothing any longer");
    let sent = request.map(|request| orders.send(Order::Change(Box::new(request))));
    if sent.is_some_and(|sent| sent.is_err()) {
        return ends();
    }
    let looks = ANSWER_TIME_MAX.as_millis() / LOOK_EVERY.as_millis();
    for _ in 0..looks {
        // Read first: an outcome that comes before the end of all changes is received below.
        let changes_end = owed.changes_end();
        match (outcome_if_ready(&outcome), changes_end) {
            (Some(Ok(outcome)), _) => return outcome,
            (None | Some(Err(())), Some(true)) => {
                let text =
                    "another process takes over, and nothing was changed: send the request again";
                return ChangeOutcome::error(503, text);
            }
            (Some(Err(())), _) | (None, Some(false)) => return ends(),
            (None, None) => sleep(LOOK_EVERY).await,
        }
    }
    no_outcome_in_time()
}

/// Not 503: that says that nothing was changed, and asks for the request again, which could add an app twice.
fn no_outcome_in_time() -> ChangeOutcome {
    let seconds = ANSWER_TIME_MAX.as_secs();
    let text = format!(
        "the server has not answered within {seconds} s, and may still carry out the request: is a take-over under \
         way? The log has the outcome"
    );
    ChangeOutcome::error(504, &text)
}

fn outcome_if_ready(outcome: &Receiver<ChangeOutcome>) -> Option<Result<ChangeOutcome, ()>> {
    match outcome.try_recv() {
        Ok(outcome) => Some(Ok(outcome)),
        Err(TryRecvError::Empty) => None,
        Err(TryRecvError::Disconnected) => Some(Err(())),
    }
}

fn to_response(outcome: &ChangeOutcome, methods: Option<&'static str>) -> Response {
    let mut body = outcome.body.to_string();
    body.push('\n');
    let response = Response::json(outcome.status, body);
    match outcome.status {
        405 => response.with_header("Allow", methods.unwrap_or_default()),
        503 => response.with_header("Retry-After", "1"),
        _ => response,
    }
}

/// # Errors
/// The answer to a request that is wrong by itself: the main thread does not learn of it.
fn requested_change(request: &Request) -> Result<ChangeCommand, ChangeOutcome> {
    let method = request.method();
    let path = path_segments(request);
    let parts = path.each_ref().map(Option::as_deref);
    match (method, parts) {
        ("POST", [Some("reload"), None, ..]) => Ok(ChangeCommand::Reload),
        ("GET" | "HEAD", [Some("apps"), None, ..]) => Ok(ChangeCommand::ListApps),
        ("GET" | "HEAD", [Some("apps"), Some(id), None, _]) => {
            Ok(ChangeCommand::ShowApp(id.to_owned()))
        }
        ("POST", [Some("apps"), None, ..]) => {
            Ok(change_app(None, AppEdit::Add(options_of_body(request)?)))
        }
        ("PUT", [Some("apps"), Some(id), None, _]) => {
            Ok(change_app(Some(id), AppEdit::Replace(options_of_body(request)?)))
        }
        ("PATCH", [Some("apps"), Some(id), None, _]) => {
            Ok(change_app(Some(id), AppEdit::Merge(options_of_body(request)?)))
        }
        ("DELETE", [Some("apps"), Some(id), None, _]) => Ok(change_app(Some(id), AppEdit::Remove)),
        ("POST", [Some("apps"), Some(id), Some(how @ ("enable" | "disable")), None]) => {
            Ok(change_app(Some(id), AppEdit::Enable(how == "enable")))
        }
        _ if allowed_methods(parts).is_some() => {
            let text = format!(
                "{} is not for this path: docs/OPERATIONS.md has the admin API",
                shown(method)
            );
            Err(ChangeOutcome::error(405, &text))
        }
        _ => Err(ChangeOutcome::error(
            404,
            "no such path: the admin API has /api/reload, /api/apps, /api/apps/{id}, /api/apps/{id}/enable and \
             /api/apps/{id}/disable",
        )),
    }
}

fn change_app(id: Option<&str>, edit: AppEdit) -> ChangeCommand {
    ChangeCommand::ChangeApp(AppChange { id: id.map(str::to_owned), edit })
}

fn decode_segment(segment: &str) -> String {
    String::from_utf8_lossy(&percent_decode(segment)).into_owned()
}

/// # Errors
/// Status 400, if the body is no JSON object.
fn options_of_body(request: &Request) -> Result<Map<String, Json>, ChangeOutcome> {
    // The parser's own text may quote the body, which has secrets.
    let parsed = serde_json::from_slice(request.body()).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let text = format!(
            "the body is no JSON, from line {line}, column {column} on: send an object of options"
        );
        ChangeOutcome::error(400, &text)
    })?;
    match parsed {
        Json::Object(options) => Ok(options),
        _ => Err(ChangeOutcome::error(
            400,
            "the body is no JSON object: send {\"option\": value, ...}",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::request::{Progress, RequestLimits, RequestReader};

    fn request(head: &str, body: &str) -> Request {
        let text = format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let mut reader = RequestReader::new(RequestLimits { request_size_max: 100_000 });
        match reader.read(&mut text.into_bytes()) {
            Ok(Progress::Complete(request)) => request,
            _ => panic!("a request"),
        }
    }

    #[test]
    fn paths_and_bodies_that_are_wrong_have_a_remedy() {
        let json = "Host: a\r\nContent-Type: application/json";
        for (line, body, expected) in [
            ("GET /api/apps", "", 200),
            ("GET /api/apps/a%20b", "", 200),
            ("GET /api", "", 404),
            ("GET /api/apps/1/x/y", "", 404),
            ("POST /api/apps/1/enabel", "", 404),
            ("POST /api/apps/1/enable/x", "", 404),
            ("GET /api/apps/1/enable", "", 405),
            ("POST /api/apps/1/enable", "", 200),
            ("GET /api/reload", "", 405),
            ("GET /api/nothing", "", 404),
            ("POST /api/apps", "{}", 200),
            ("POST /api/apps", "[]", 400),
            ("PATCH /api/apps/1", "{\"secret\": \"hunter2\"", 400),
            ("PUT /api/apps", "{}", 405),
        ] {
            let found = requested_change(&request(&format!("{line} HTTP/1.1\r\n{json}"), body));
            match found {
                Ok(_) => assert_eq!(expected, 200, "{line}"),
                Err(outcome) => {
                    assert_eq!(outcome.status, expected, "{line}");
                    assert!(!outcome.body.to_string().contains("hunter2"));
                }
            }
        }
    }

    #[test]
    fn only_a_request_that_changed_nothing_is_to_be_sent_again() {
        let bytes = |outcome: &ChangeOutcome| {
            let mut text = Vec::new();
            to_response(outcome, None).write(&mut text, true, false);
            String::from_utf8(text).expect("a text")
        };
        let refused = bytes(&ChangeOutcome::error(503, "nothing was changed"));
        assert!(refused.contains("Retry-After: 1\r\n"), "{refused}");
        let unknown = bytes(&no_outcome_in_time());
        assert!(unknown.starts_with("HTTP/1.1 504 Gateway Timeout\r\n"), "{unknown}");
        assert!(!unknown.contains("Retry-After"), "{unknown}");
    }

    /// A client that learns the methods from the answer must not be refused again.
    #[test]
    fn the_methods_of_an_answer_are_those_that_the_path_takes() {
        let all = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
        let json = "Host: a\r\nContent-Type: application/json";
        for path in ["/api/reload", "/api/apps", "/api/apps/1", "/api/apps/1/disable"] {
            let outcome = |method: &str| {
                requested_change(&request(&format!("{method} {path} HTTP/1.1\r\n{json}"), "{}"))
            };
            let (taken, refused): (Vec<&str>, Vec<&str>) =
                all.into_iter().partition(|method| outcome(method).is_ok());
            let found = path_segments(&request(&format!("GET {path} HTTP/1.1\r\n{json}"), "{}"));
            let named = allowed_methods(found.each_ref().map(Option::as_deref));
            assert_eq!(named.map(str::to_owned), Some(taken.join(", ")), "{path}");
            for method in refused {
                let outcome = outcome(method).err().expect("refused");
                let answer = to_response(&outcome, named);
                let mut text = Vec::new();
                answer.write(&mut text, false, false);
                let allow = format!("\r\nAllow: {}\r\n", taken.join(", "));
                assert!(String::from_utf8_lossy(&text).contains(&allow), "{method} {path}");
            }
        }
    }
}
