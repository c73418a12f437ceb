//! Who asks: the app and the signature of an API request (PROTOCOL.md rules 48 to 51, 60).

use std::borrow::Cow;

use subtle::ConstantTimeEq;

use super::Context;
use crate::app::{App, AppIndex};
use crate::http1::query::{parse_query, percent_decode};
use crate::http1::request::Request;
use crate::http1::response::Response;
use crate::pusher::signature;
use crate::text::shown_up_to;

/// Finds the app and checks the request's signature.
pub(super) fn authenticate(
    request: &Request,
    app_id: &str,
    context: &mut Context<'_>,
) -> Result<AppIndex, Response> {
    let Some(index) = context.apps.by_id(app_id) else {
        return Err(Response::text(404, &format!("No matching application for ID [{app_id}].")));
    };
    let app = context.apps.get(index);
    let parameters = Parameters::read(request);
    if !parameters.key_is(app) || !parameters.signature_is(request, context.prefix, app) {
        context.note = Some(parameters.mismatch(request, app));
        return Err(Response::text(401, "Authentication signature invalid."));
    }
    // After the signature: whoever holds the secret may be told about clocks.
    check_timestamp(&parameters, app, context.unix_seconds)?;
    Ok(index)
}

/// The signed part of the query, sorted by lowercase name, and the signature.
struct Parameters<'a> {
    signed: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    signature: Cow<'a, str>,
}

/// Reverb leaves these out of the signed text; they are routing leftovers of its framework.
const UNSIGNED: [&str; 3] = ["appid", "appkey", "channelname"];

impl<'a> Parameters<'a> {
    fn read(request: &'a Request) -> Self {
        let mut parameters = Self { signed: Vec::with_capacity(8), signature: Cow::Borrowed("") };
        for (name, value) in parse_query(request.query()) {
            let is_lower = !name.chars().any(char::is_uppercase);
            let name = if is_lower { name } else { Cow::Owned(name.to_lowercase()) };
            if name == "auth_signature" {
                parameters.signature = value;
            } else if !UNSIGNED.contains(&&*name) {
                parameters.add(name, value);
            }
        }
        // The body is what counts; a GET has none, and what the client says of it is only signed (PyPI `pusher`).
        if !request.body.is_empty() {
            let md5 = signature::body_md5(&request.body);
            parameters.add(Cow::Borrowed("body_md5"), Cow::Owned(md5));
        }
        parameters.signed.sort_by(|left, right| left.0.cmp(&right.0));
        parameters
    }

    /// A name given twice counts as it was given last. PHP reads `info[]=a&info[]=b` as one array, and an array is
    /// signed joined by commas.
    fn add(&mut self, name: Cow<'a, str>, value: Cow<'a, str>) {
        let base = name.split_once('[').map(|(base, _)| base.to_owned());
        let is_list = base.is_some();
        let name = base.map_or(name, Cow::Owned);
        match self.signed.iter_mut().find(|(known, _)| *known == name) {
            Some((_, list)) if is_list && !list.is_empty() => {
                *list = format!("{list},{value}").into()
            }
            Some((_, known)) => *known = value,
            None => self.signed.push((name, value)),
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.signed.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }

    /// Reverb never looks at the key; a request signed for another app must not pass (PROTOCOL.md rule 126).
    fn key_is(&self, app: &App) -> bool {
        let given = self.get("auth_key").unwrap_or_default();
        bool::from(given.as_bytes().ct_eq(app.key.as_bytes()))
    }

    /// Clients differ in what they sign as the path: with or without the server's prefix, encoded or not
    /// (rules 49, 51).
    fn signature_is(&self, request: &Request, prefix: &str, app: &App) -> bool {
        let raw = request.path();
        let decoded = percent_decode(raw);
        let decoded = String::from_utf8_lossy(&decoded);
        let mut paths: Vec<&str> = Vec::with_capacity(4);
        for path in [raw, &*decoded] {
            for path in [Some(path), path.strip_prefix(prefix)].into_iter().flatten() {
                if !paths.contains(&path) {
                    paths.push(path);
                }
            }
        }
        let query = self.canonical_query();
        let method = request.method().as_bytes();
        paths.into_iter().any(|path| {
            let parts = [method, b"\n", path.as_bytes(), b"\n", query.as_bytes()];
            signature::verify(&app.secret, &parts, self.signature.as_bytes())
        })
    }

    /// For the log: the text that should have been signed. It holds no secret.
    fn mismatch(&self, request: &Request, app: &App) -> String {
        const SHOWN_MAX: usize = 240;
        let (method, path) = (request.method(), request.path());
        let signed = format!("{method}\n{path}\n{}", self.canonical_query());
        let signed = shown_up_to(&signed, SHOWN_MAX);
        let why = if self.key_is(app) {
            "is REVERB_APP_SECRET the same in Laravel's .env?"
        } else {
            "auth_key is another app's; is REVERB_APP_KEY the same in Laravel's .env?"
        };
        format!("app {}: API signature does not match {signed}; {why}", app.id)
    }

    fn canonical_query(&self) -> String {
        let mut text = String::with_capacity(256);
        for (name, value) in &self.signed {
            let separator = if text.is_empty() { "" } else { "&" };
            for part in [separator, name, "=", value] {
                text.push_str(part);
            }
        }
        text
    }
}

/// A captured request must not work for ever (PROTOCOL.md rule 50).
fn check_timestamp(
    parameters: &Parameters<'_>,
    app: &App,
    unix_seconds: u64,
) -> Result<(), Response> {
    let Some(window) = app.auth_window_seconds else { return Ok(()) };
    let given = parameters.get("auth_timestamp").and_then(|text| text.parse::<u64>().ok());
    let Some(given) = given else {
        return Err(Response::text(
            401,
            "Authentication timestamp missing: sign auth_timestamp too.",
        ));
    };
    let distance = given.abs_diff(unix_seconds);
    if distance <= u64::from(window) {
        return Ok(());
    }
    Err(Response::text(
        401,
        &format!(
            "Authentication timestamp is {distance} s away from this server's clock, {window} s are \
             allowed: set both clocks by NTP, or RINGVERB_AUTH_WINDOW=0 to accept any."
        ),
    ))
}
