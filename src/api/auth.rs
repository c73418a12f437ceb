//! Authentication of API requests: finds the app and checks the signature (docs/PROTOCOL.md rules 48 to 51, 60).
//!
//! Owns the decision whether a request is from the app's backend. Does not know what is asked. Everybody can send a
//! request that fails here, so the checks come in the order of their cost: app id, number of parameters, key, form of
//! the signature, HMAC.
//!
//! Limits: `limits::API_PARAMETERS_MAX` parameters; `limits::HTTP_HEAD_BYTES_MAX` bounds the query. Cost: linear in the
//! request; one allocation for the parameters of a usual request, one MD5 over the body, and one HMAC for each secret
//! of the app and each form of the path that is tried.

use std::borrow::Cow;

use subtle::ConstantTimeEq;

use super::routes::{candidate_resources, target};
use super::{Denied, RequestContext};
use crate::app::{App, AppIndex};
use crate::cause::{Cause, Detail};
use crate::http1::query::{decode_form, percent_decode, split_at_byte};
use crate::http1::request::Request;
use crate::http1::response::Response;
use crate::limits::API_PARAMETERS_MAX;
use crate::pusher::signature::{self, Signature};
use crate::text::shown_up_to;

/// Finds the app and checks the request's signature. The timestamp is judged last, by `check_timestamp`.
pub(super) fn authenticate(
    request: &Request,
    app_id: &str,
    context: &mut RequestContext<'_>,
) -> Result<AppIndex, Denied> {
    let Some(index) = context.apps.by_id(app_id) else {
        let text = format!("No matching application for ID [{app_id}].");
        let id = Detail::text(app_id);
        return Err(context.deny(Response::text(404, &text), None, Cause::UnknownAppId, &[id]));
    };
    let apps = context.apps;
    let app = apps.get(index);
    let body_md5;
    let Some(mut given) = QueryCredentials::read(request.query()) else {
        return Err(too_many_parameters(index, request, context));
    };
    let signature = if given.has_key_of(app) { given.signature() } else { None };
    let verified = if let Some(signature) = signature {
        // The body counts; a GET has none, and the `body_md5` of the client is only signed (PyPI `pusher`).
        let body = request.body();
        body_md5 = (!body.is_empty()).then(|| signature::body_md5_hex(body));
        given.build_signed_form(body_md5.as_ref());
        let mut query = context.validator.take_space();
        query.clear();
        write_signed_query(&given.parameters, &mut query);
        let is_valid = has_valid_signature(&query, signature, request, context.prefix, app);
        context.validator.put_space(query);
        is_valid
    } else {
        false
    };
    if !verified {
        return Err(signature_fault(index, &given, signature.is_some(), request, context));
    }
    // After the signature: only a holder of the secret learns about this server's clock.
    check_timestamp(&given.parameters, index, request, context)?;
    Ok(index)
}

fn too_many_parameters(
    index: AppIndex,
    request: &Request,
    context: &mut RequestContext<'_>,
) -> Denied {
    let text = format!(
        "The query has more than {API_PARAMETERS_MAX} parameters, which is the limit of this server: a signed \
         request has about six. Send several values of one parameter separated by commas."
    );
    let (response, cause) = (Response::text(400, &text), Cause::TooManyParameters);
    let values = [request_line_detail(request), Detail::count(API_PARAMETERS_MAX)];
    context.deny(response, Some(index), cause, &values)
}

fn request_line_detail(request: &Request) -> Detail<'_> {
    Detail::Request(request.method(), request.path())
}

/// A parameter that the signature covers: all but `auth_signature` and `UNSIGNED_PARAMETERS`.
struct Parameter<'a> {
    /// Decoded and in lower case, as in the signed text (docs/PROTOCOL.md rule 48).
    name: Cow<'a, str>,
    /// Length of the name without what PHP appends to the name of an array, as in `info[]`.
    base_bytes: usize,
    /// Encoded as received, until `QueryCredentials::build_signed_form` decodes it: a request with a wrong key is
    /// refused without that work.
    value: Cow<'a, str>,
}

impl Parameter<'_> {
    fn base_name(&self) -> &str {
        self.name.get(..self.base_bytes).unwrap_or_default()
    }

    fn is_list(&self) -> bool {
        self.base_bytes < self.name.len()
    }
}

/// What the query contains for the authentication. Nothing of it is checked yet.
struct QueryCredentials<'a> {
    parameters: Vec<Parameter<'a>>,
    key: Cow<'a, str>,
    signature: Cow<'a, str>,
    /// The MD5 of the body by the client, for the log only: the one that is checked is computed from the body.
    body_md5: Option<&'a str>,
    /// The query has `%` or `+`. Without them no name and no value is decoded, and none is copied.
    has_escapes: bool,
}

/// Reverb leaves these out of the signed text, because its router adds them to the query (docs/PROTOCOL.md rule 49).
const UNSIGNED_PARAMETERS: [&str; 3] = ["appid", "appkey", "channelname"];

/// Parameters of a request of the official libraries: the list is allocated once.
const PARAMETERS_USUAL: usize = 6;

impl<'a> QueryCredentials<'a> {
    /// `None` if there are more than `API_PARAMETERS_MAX` parameters. A parameter without a name counts, because it
    /// costs work, too.
    fn read(query: &'a str) -> Option<Self> {
        let has_escapes = memchr::memchr2(b'%', b'+', query.as_bytes()).is_some();
        let decoded = |text| if has_escapes { decode_form(text) } else { Cow::Borrowed(text) };
        let mut given = Self {
            parameters: Vec::with_capacity(PARAMETERS_USUAL),
            key: "".into(),
            signature: "".into(),
            body_md5: None,
            has_escapes,
        };
        let (mut rest, mut separators) = (Some(query), 0);
        while let Some(text) = rest {
            let (pair, behind) = split_at_byte(text, b'&')
                .map_or((text, None), |(pair, behind)| (pair, Some(behind)));
            rest = behind;
            separators += usize::from(behind.is_some());
            if separators == API_PARAMETERS_MAX {
                return None;
            }
            if pair.is_empty() {
                continue;
            }
            let (name, value) = split_at_byte(pair, b'=').unwrap_or((pair, ""));
            let (name, base_bytes) = match name {
                "auth_signature" => {
                    given.signature = decoded(value);
                    continue;
                }
                "auth_key" | "auth_timestamp" | "auth_version" | "body_md5" => {
                    (Cow::Borrowed(name), name.len())
                }
                _ => {
                    let name = lower_case(decoded(name));
                    let base_bytes = name.bytes().position(|byte| byte == b'[');
                    let base_bytes = base_bytes.unwrap_or(name.len());
                    (name, base_bytes)
                }
            };
            let parameter = Parameter { name, base_bytes, value: Cow::Borrowed(value) };
            match &*parameter.name {
                "auth_signature" => {
                    given.signature = decoded(value);
                    continue;
                }
                "body_md5" => given.body_md5 = Some(value),
                name if UNSIGNED_PARAMETERS.contains(&name) => continue,
                _ if parameter.base_name() == "auth_key" => given.key = decoded(value),
                _ => {}
            }
            given.parameters.push(parameter);
        }
        Some(given)
    }

    /// Reverb never looks at the key; a request signed for another app must not pass (docs/PROTOCOL.md rule 126).
    fn has_key_of(&self, app: &App) -> bool {
        bool::from(self.key.as_bytes().ct_eq(app.key.as_bytes()))
    }

    fn signature(&self) -> Option<Signature> {
        Signature::parse(self.signature.as_bytes())
    }

    /// Turns the parameters into the signed form: sorted by name, each once, with this MD5 of the body.
    ///
    /// The last of equal names counts. PHP reads `info[]=a&info[]=b` as one array, and an array is signed joined by
    /// commas. The sort is stable and puts equal names next to each other, so each is folded in its original order. The
    /// work is linear except for the sort of at most `API_PARAMETERS_MAX` names.
    fn build_signed_form(&mut self, body_md5: Option<&'a [u8; 32]>) {
        if self.has_escapes {
            for parameter in &mut self.parameters {
                if let Cow::Borrowed(value) = parameter.value {
                    parameter.value = decode_form(value);
                }
            }
        }
        if let Some(hex) = body_md5 {
            let value = Cow::Borrowed(str::from_utf8(hex).unwrap_or_default());
            let last = self.parameters.iter_mut().rfind(|found| found.base_name() == "body_md5");
            match last.filter(|last| !last.is_list()) {
                Some(last) => last.value = value,
                None => {
                    let (name, base_bytes) = (Cow::Borrowed("body_md5"), "body_md5".len());
                    self.parameters.push(Parameter { name, base_bytes, value });
                }
            }
        }
        if self.parameters.is_sorted_by(|left, right| left.base_name() < right.base_name()) {
            return;
        }
        self.parameters.sort_by(|left, right| left.base_name().cmp(right.base_name()));
        self.parameters.dedup_by(|later, earlier| {
            let is_same = later.base_name() == earlier.base_name();
            if is_same && later.is_list() && !earlier.value.is_empty() {
                let list = earlier.value.to_mut();
                list.push(',');
                list.push_str(&later.value);
            } else if is_same {
                earlier.value = std::mem::take(&mut later.value);
            }
            is_same
        });
    }
}

fn lower_case(name: Cow<'_, str>) -> Cow<'_, str> {
    let is_plain = name.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase());
    let is_lower = is_plain || !name.chars().any(char::is_uppercase);
    if is_lower { name } else { Cow::Owned(name.to_lowercase()) }
}

/// Appends the parameters as `k=v` joined by `&`. They must be in the signed form (`build_signed_form`).
fn write_signed_query(signed: &[Parameter<'_>], out: &mut Vec<u8>) {
    for (index, parameter) in signed.iter().enumerate() {
        if index > 0 {
            out.push(b'&');
        }
        out.extend_from_slice(parameter.base_name().as_bytes());
        out.push(b'=');
        out.extend_from_slice(parameter.value.as_bytes());
    }
}

/// Whether the signature is over the path as it was sent, or over a form of it that can only mean the same resource.
///
/// Clients differ in what they sign: with or without the server's prefix, whether the request then arrives below it or
/// not, and some HTTP libraries encode the path after it was signed (rules 49, 51).
fn has_valid_signature(
    query: &[u8],
    signature: Signature,
    request: &Request,
    prefix: &str,
    app: &App,
) -> bool {
    let method = request.method().as_bytes();
    let is_over = |path: &str| {
        let parts = [method, b"\n", path.as_bytes(), b"\n", query];
        app.secrets().any(|secret| signature.matches_parts(secret, parts.iter().copied()))
    };
    is_over(request.path()) || equivalent_paths(request, prefix).iter().any(|path| is_over(path))
}

/// Forms of the path that can only mean the same resource as the path that was sent.
fn equivalent_paths<'a>(request: &'a Request, prefix: &str) -> Vec<Cow<'a, str>> {
    let raw = request.path();
    let decoded = decoded_if_unambiguous(request, prefix);
    let mut paths = Vec::with_capacity(4);
    let mut add = |form: Cow<'a, str>| {
        if form != raw && !paths.contains(&form) {
            paths.push(form);
        }
    };
    for path in [Some(Cow::Borrowed(raw)), decoded.map(Cow::Owned)].into_iter().flatten() {
        let resource = candidate_resources(&path, prefix).next().map(str::to_owned);
        let below_prefix = resource.as_ref().filter(|_| !prefix.is_empty());
        let below_prefix = below_prefix.map(|resource| format!("{prefix}{resource}"));
        add(path);
        [resource, below_prefix].into_iter().flatten().for_each(|form| add(Cow::Owned(form)));
    }
    paths
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

/// The first part of the authentication that is wrong, for the log. The answer is one for all of them, as in Reverb, so
/// that a stranger cannot find out which part was right.
fn signature_fault(
    index: AppIndex,
    given: &QueryCredentials<'_>,
    is_well_formed: bool,
    request: &Request,
    context: &mut RequestContext<'_>,
) -> Denied {
    let response = Response::text(401, "Authentication signature invalid.");
    let request_line = request_line_detail(request);
    let apps = context.apps;
    let app = apps.get(index);
    let mut deny =
        |cause, values: &[Detail<'_>]| context.deny(response.clone(), Some(index), cause, values);
    if given.key.is_empty() {
        return deny(Cause::ApiKeyMissing, &[request_line]);
    }
    if !given.has_key_of(app) {
        return deny(Cause::ApiKeyWrong, &[Detail::text(&*given.key), Detail::Own(&app.id)]);
    }
    if given.signature.is_empty() {
        return deny(Cause::ApiSignatureMissing, &[request_line]);
    }
    if !is_well_formed {
        return deny(
            Cause::ApiSignatureForm,
            &[request_line, Detail::count(given.signature.len())],
        );
    }
    let signed = &given.parameters;
    let computed_md5 = signed.iter().find(|parameter| parameter.base_name() == "body_md5");
    if let (Some(sent), Some(computed)) = (given.body_md5, computed_md5)
        && sent != computed.value
    {
        return deny(Cause::ApiBodyChanged, &[request_line, Detail::text(sent)]);
    }
    if given.body_md5.is_none() && !request.body().is_empty() {
        return deny(Cause::ApiBodyUnsigned, &[request_line]);
    }
    let text = if context.debug { signed_text(signed, request) } else { String::new() };
    let values = [request_line, Detail::Own(&text)];
    context.deny(response, Some(index), Cause::ApiSignatureMismatch, &values)
}

/// The text that should have been signed, for a developer to compare with. It contains no secret.
fn signed_text(signed: &[Parameter<'_>], request: &Request) -> String {
    const SHOWN_BYTES_MAX: usize = 240;
    let mut query = Vec::new();
    write_signed_query(signed, &mut query);
    let query = String::from_utf8_lossy(&query);
    let text = format!("{}\n{}\n{query}", request.method(), request.path());
    format!("; the signed text should be {}", shown_up_to(&text, SHOWN_BYTES_MAX))
}

/// A captured request must not work for ever (docs/PROTOCOL.md rule 50).
fn check_timestamp(
    signed: &[Parameter<'_>],
    index: AppIndex,
    request: &Request,
    context: &mut RequestContext<'_>,
) -> Result<(), Denied> {
    let Some(window) = context.apps.get(index).auth_window_seconds else { return Ok(()) };
    let given = signed.iter().find(|parameter| parameter.base_name() == "auth_timestamp");
    let given = given.and_then(|parameter| parameter.value.parse::<u64>().ok());
    let Some(given) = given else {
        let text = "Authentication timestamp missing: sign auth_timestamp too.";
        let response = Response::text(401, text);
        return Err(context.deny(
            response,
            Some(index),
            Cause::TimestampMissing,
            &[request_line_detail(request)],
        ));
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
