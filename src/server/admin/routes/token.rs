//! The token of the admin listener, which a request must have.
//!
//! Owns no state. A request has it as `Authorization: Bearer TOKEN`, and it is compared in constant time. A listener
//! that other hosts reach serves nothing without a token: the configuration is refused earlier, and this is the second
//! barrier. Does not look at `Host` (`routes.rs`).
//! No limits: the head of a request bounds the field. Cost: two hashes of a few hundred bytes for a request with a
//! token.

use std::net::{IpAddr, Ipv6Addr};

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::app::Secret;
use crate::http1::request::Request;
use crate::http1::response::Response;

/// `token`: that of the configuration in use. `is_public`: other hosts can reach the listener.
pub(super) fn check_token(
    token: Option<&Secret>,
    is_public: bool,
    request: &Request,
) -> Result<(), Response> {
    let Some(token) = token else {
        let text =
            "Other hosts can reach this listener, and it has no token: set RINGVERB_ADMIN_TOKEN.\n";
        return if is_public { Err(Response::text(403, text)) } else { Ok(()) };
    };
    let given = request.header("authorization");
    let given = given.as_deref().and_then(bearer);
    if given.is_some_and(|given| is_token(token, given)) {
        return Ok(());
    }
    let text =
        "This needs the token of RINGVERB_ADMIN_TOKEN: send `Authorization: Bearer TOKEN`.\n";
    let challenge = "Bearer realm=\"ringverb admin\"";
    Err(Response::text(401, text).with_header("WWW-Authenticate", challenge))
}

/// The token of an `Authorization` field. Its scheme is compared without regard to case (RFC 9110 section 11.1).
pub(super) fn bearer(field: &str) -> Option<&str> {
    let (scheme, token) = field.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Compares digests, so that neither the bytes nor the length show in the time.
pub(super) fn is_token(token: &Secret, given: &str) -> bool {
    let digest = |text: &str| Sha256::digest(text.as_bytes());
    digest(token.reveal()).ct_eq(&digest(given)).into()
}

/// Whether the value of `Host` names this host by an address or a name that no other host can have.
pub(super) fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if port.is_empty() || port.starts_with(':') => {
                return address
                    .parse::<Ipv6Addr>()
                    .is_ok_and(|address| address.to_canonical().is_loopback());
            }
            _ => return false,
        },
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}
