//! Authentication of API requests: finds the app and checks the signature (PROTOCOL.md rules 48 to 51, 60).
//!
//! Everybody can send a request that fails here, so a failure is cheaper than any request that succeeds. The checks
//! come in the order of their cost: app id, number of parameters, key, form of the signature, then the HMAC. All
//! work is linear in the request, whose head `limits::HTTP_HEAD_BYTES_MAX` bounds.

use std::borrow::Cow;

use subtle::ConstantTimeEq;

use super::routes::{resources, target};
use super::{Context, Denied};
use crate::app::{App, AppIndex};
use crate::cause::{Cause, Detail};
use crate::http1::query::{decode_form, percent_decode, raw_pairs};
use crate::http1::request::Request;
use crate::http1::response::Response;
use crate::limits::API_PARAMETERS_MAX;
use crate::pusher::signature;
use crate::text::shown_up_to;

/// Finds the app and checks the request's signature.
pub(super) fn authenticate(
    request: &Request,
    app_id: &str,
    context: &mut Context<'_>,
) -> Result<AppIndex, Denied> {
    let what = Detail::Request(request.method(), request.path());
    let Some(index) = context.apps.by_id(app_id) else {
        let text = format!("No matching application for ID [{app_id}].");
        let id = Detail::text(app_id);
        return Err(context.deny(Response::text(404, &text), None, Cause::UnknownAppId, &[id]));
    };
    let apps = context.apps;
    let app = apps.get(index);
    let Some(given) = Given::read(request.query()) else {
        let text = format!(
            "The query has more than {API_PARAMETERS_MAX} parameters, which is the limit of this server: a signed \
             request has about six. Send several values of one parameter separated by commas."
        );
        let (response, cause) = (Response::text(400, &text), Cause::TooManyParameters);
        let values = [what, Detail::count(API_PARAMETERS_MAX)];
        return Err(context.deny(response, Some(index), cause, &values));
    };
    let key_is_right = given.key_is(app);
    let signed = (key_is_right && signature::has_form(given.signature.as_bytes()))
        .then(|| signed_query(&given.pairs, &request.body));
    let verified = signed
        .as_ref()
        .is_some_and(|signed| signature_is(signed, &given.signature, request, context.prefix, app));
    if !verified {
        return Err(mismatch(index, &given, signed, request, context));
    }
    // After the signature: only a holder of the secret learns about this server's clock.
    check_timestamp(&signed.unwrap_or_default(), index, what, context)?;
    Ok(index)
}

/// Name and value of a query parameter.
type Pair<'a> = (Cow<'a, str>, Cow<'a, str>);

/// The query as it was sent: names are decoded and in lower case, values are still encoded.
struct Given<'a> {
    /// What the signature covers.
    pairs: Vec<(Cow<'a, str>, &'a str)>,
    key: Cow<'a, str>,
    signature: Cow<'a, str>,
}

/// Reverb leaves these out of the signed text; they are routing leftovers of its framework.
const UNSIGNED: [&str; 3] = ["appid", "appkey", "channelname"];

impl<'a> Given<'a> {
    /// `None`: there are more parameters than `API_PARAMETERS_MAX`.
    fn read(query: &'a str) -> Option<Self> {
        if memchr::memchr_iter(b'&', query.as_bytes()).nth(API_PARAMETERS_MAX - 1).is_some() {
            return None;
        }
        let mut given = Self { pairs: Vec::with_capacity(8), key: "".into(), signature: "".into() };
        for (name, value) in raw_pairs(query) {
            let name = lower_case(decode_form(name));
            if name == "auth_signature" {
                given.signature = decode_form(value);
            } else if !UNSIGNED.contains(&&*name) {
                if base(&name) == "auth_key" {
                    given.key = decode_form(value);
                }
                given.pairs.push((name, value));
            }
        }
        Some(given)
    }

    /// Reverb never looks at the key; a request signed for another app must not pass (PROTOCOL.md rule 126).
    fn key_is(&self, app: &App) -> bool {
        bool::from(self.key.as_bytes().ct_eq(app.key.as_bytes()))
    }
}

fn lower_case(name: Cow<'_, str>) -> Cow<'_, str> {
    let is_lower = !name.chars().any(char::is_uppercase);
    if is_lower { name } else { Cow::Owned(name.to_lowercase()) }
}

/// The name of a parameter without what PHP appends to the names of arrays.
fn base(name: &str) -> &str {
    name.split_once('[').map_or(name, |(base, _)| base)
}

/// The parameters that are signed, sorted by name, each once.
///
/// A name given twice counts as it was given last. PHP reads `info[]=a&info[]=b` as one array, and an array is signed
/// joined by commas. The sort is stable and brings equal names together, so each is folded in the order in which it
/// was given, and the work is linear but for the sort of at most `API_PARAMETERS_MAX` names.
fn signed_query<'a>(pairs: &'a [(Cow<'a, str>, &'a str)], body: &[u8]) -> Vec<Pair<'a>> {
    let mut sorted: Vec<(&str, bool, Cow<'a, str>)> = pairs
        .iter()
        .map(|(name, value)| (base(name), name.contains('['), decode_form(value)))
        .collect();
    // The body is what counts; a GET has none, and what the client says of it is only signed (PyPI `pusher`).
    if !body.is_empty() {
        sorted.push(("body_md5", false, Cow::Owned(signature::body_md5(body))));
    }
    sorted.sort_by(|left, right| left.0.cmp(right.0));
    let mut signed: Vec<Pair<'a>> = Vec::with_capacity(sorted.len());
    for (name, is_list, value) in sorted {
        match signed.last_mut().filter(|(last, _)| last == name) {
            Some((_, list)) if is_list && !list.is_empty() => {
                let list = list.to_mut();
                list.push(',');
                list.push_str(&value);
            }
            Some((_, last)) => *last = value,
            None => signed.push((Cow::Borrowed(name), value)),
        }
    }
    signed
}

fn canonical(signed: &[Pair<'_>]) -> String {
    let mut text = String::with_capacity(256);
    for (name, value) in signed {
        let separator = if text.is_empty() { "" } else { "&" };
        for part in [separator, name, "=", value] {
            text.push_str(part);
        }
    }
    text
}

/// Whether the signature is over the path as it was sent, or over a form of it that can only mean the same resource.
///
/// Clients differ in what they sign: with or without the server's prefix, whether the request then arrives below it or
/// not, and some HTTP libraries encode the path after it was signed (rules 49, 51).
fn signature_is(
    signed: &[Pair<'_>],
    signature: &str,
    request: &Request,
    prefix: &str,
    app: &App,
) -> bool {
    let raw = request.path();
    let decoded = decoded_if_unambiguous(request, prefix);
    let mut paths: Vec<Cow<'_, str>> = Vec::with_capacity(4);
    for path in [Some(raw), decoded.as_deref()].into_iter().flatten() {
        let resource = resources(path, prefix).next();
        let below_prefix = resource.filter(|_| !prefix.is_empty());
        let below_prefix = below_prefix.map(|resource| Cow::Owned(format!("{prefix}{resource}")));
        let forms = [Some(Cow::Borrowed(path)), resource.map(Cow::Borrowed), below_prefix];
        for form in forms.into_iter().flatten() {
            if !paths.contains(&form) {
                paths.push(form);
            }
        }
    }
    let query = canonical(signed);
    let method = request.method().as_bytes();
    paths.into_iter().any(|path| {
        let parts = [method, b"\n", path.as_bytes(), b"\n", query.as_bytes()];
        signature::verify(&app.secret, &parts, signature.as_bytes())
    })
}

/// The path without its escapes, if it has some and the decoded text names no other resource.
///
/// `channels/presence-a%2Fusers` and `channels/presence-a/users` are different resources with one decoded path, so a
/// signature over the decoded path must not open both. An escaped `%` would start another escape once it is decoded.
/// Control characters are refused because a line feed ends the path in the signed text.
fn decoded_if_unambiguous(request: &Request, prefix: &str) -> Option<String> {
    let raw = request.path();
    let Cow::Owned(bytes) = percent_decode(raw) else { return None };
    let slashes = |text: &[u8]| memchr::memchr_iter(b'/', text).count();
    let has_more_segments = slashes(&bytes) > slashes(raw.as_bytes());
    let decoded = String::from_utf8_lossy(&bytes).into_owned();
    let is_another_route = || !target(request.method(), &decoded, prefix).is_refused();
    let has_escapes = || *percent_decode(&decoded) != *decoded.as_bytes();
    if bytes.iter().any(u8::is_ascii_control)
        || has_escapes()
        || (has_more_segments && is_another_route())
    {
        return None;
    }
    Some(decoded)
}

/// Which part of the signature is wrong. All parts have one answer, as in Reverb.
fn mismatch(
    index: AppIndex,
    given: &Given<'_>,
    signed: Option<Vec<Pair<'_>>>,
    request: &Request,
    context: &mut Context<'_>,
) -> Denied {
    let response = Response::text(401, "Authentication signature invalid.");
    let what = Detail::Request(request.method(), request.path());
    let apps = context.apps;
    let app = apps.get(index);
    let mut deny =
        |cause, values: &[Detail<'_>]| context.deny(response.clone(), Some(index), cause, values);
    if given.key.is_empty() {
        return deny(Cause::ApiKeyMissing, &[what]);
    }
    if !given.key_is(app) {
        return deny(Cause::ApiKeyWrong, &[Detail::text(&*given.key), Detail::Own(&app.id)]);
    }
    if given.signature.is_empty() {
        return deny(Cause::ApiSignatureMissing, &[what]);
    }
    let Some(signed) = signed else {
        return deny(Cause::ApiSignatureForm, &[what, Detail::count(given.signature.len())]);
    };
    let md5_given = given.pairs.iter().rev().find(|(name, _)| name == "body_md5");
    let md5_of_body = signed.iter().find(|(name, _)| name == "body_md5");
    if let (Some((_, given)), Some((_, right))) = (md5_given, md5_of_body)
        && *given != *right
    {
        return deny(Cause::ApiBodyChanged, &[what, Detail::text(*given)]);
    }
    if md5_given.is_none() && !request.body.is_empty() {
        return deny(Cause::ApiBodyUnsigned, &[what]);
    }
    let text = if context.debug { signed_text(&signed, request) } else { String::new() };
    let values = [what, Detail::Own(&text)];
    context.deny(response, Some(index), Cause::ApiSignatureMismatch, &values)
}

/// The text that should have been signed. It holds no secret.
fn signed_text(signed: &[Pair<'_>], request: &Request) -> String {
    const SHOWN_MAX: usize = 240;
    let text = format!("{}\n{}\n{}", request.method(), request.path(), canonical(signed));
    format!("; the signed text should be {}", shown_up_to(&text, SHOWN_MAX))
}

/// A captured request must not work for ever (PROTOCOL.md rule 50).
fn check_timestamp(
    signed: &[Pair<'_>],
    index: AppIndex,
    what: Detail<'_>,
    context: &mut Context<'_>,
) -> Result<(), Denied> {
    let Some(window) = context.apps.get(index).auth_window_seconds else { return Ok(()) };
    let given = signed.iter().find(|(name, _)| name == "auth_timestamp");
    let given = given.and_then(|(_, text)| text.parse::<u64>().ok());
    let Some(given) = given else {
        let text = "Authentication timestamp missing: sign auth_timestamp too.";
        let response = Response::text(401, text);
        return Err(context.deny(response, Some(index), Cause::TimestampMissing, &[what]));
    };
    let distance = given.abs_diff(context.unix_seconds);
    if distance <= u64::from(window) {
        return Ok(());
    }
    let text = format!(
        "Authentication timestamp is {distance} s away from this server's clock, {window} s are allowed: set both \
         clocks by NTP, or RINGVERB_AUTH_WINDOW=0 to accept any."
    );
    let values = [Detail::Number(distance), Detail::Number(window.into())];
    Err(context.deny(Response::text(401, &text), Some(index), Cause::TimestampFar, &values))
}
