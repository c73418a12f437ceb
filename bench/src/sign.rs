//! Signatures of the Pusher protocol (docs/PROTOCOL.md C7), made. PURE.
//!
//! Owns no state. Not the server's code, so that a fault of that one is found here; does not verify. No limits: the
//! caller's texts. Cost: one HMAC over the text and some allocations a signature, as a backend has.

use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use sha2::Sha256;

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| char::from(DIGITS[usize::from(value)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xF)]).collect()
}

fn hmac_sha256(secret: &str, text: &str) -> String {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key may have any length");
    mac.update(text.as_bytes());
    hex(&mac.finalize().into_bytes())
}

/// The `auth` of a subscription: `key:signature`.
pub(crate) fn channel_auth(
    key: &str,
    secret: &str,
    socket_id: &str,
    channel: &str,
    channel_data: Option<&str>,
) -> String {
    let signed = match channel_data {
        Some(channel_data) => format!("{socket_id}:{channel}:{channel_data}"),
        None => format!("{socket_id}:{channel}"),
    };
    format!("{key}:{}", hmac_sha256(secret, &signed))
}

/// The signed target of an API request: path and query. `query` must already be in the form in
/// which it is sent, with names that sort after `auth_version` and before nothing else's.
pub(crate) fn api_target(
    (key, secret): (&str, &str),
    method: &str,
    path: &str,
    query: &[(&str, &str)],
    body: &[u8],
    timestamp: u64,
) -> String {
    let mut parameters = vec![
        ("auth_key", key.to_owned()),
        ("auth_timestamp", timestamp.to_string()),
        ("auth_version", "1.0".to_owned()),
    ];
    if !body.is_empty() {
        parameters.push(("body_md5", hex(&Md5::digest(body))));
    }
    parameters.extend(query.iter().map(|&(name, value)| (name, value.to_owned())));
    parameters.sort_unstable();
    let query: Vec<String> =
        parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let query = query.join("&");
    let signature = hmac_sha256(secret, &format!("{method}\n{path}\n{query}"));
    format!("{path}?{query}&auth_signature={signature}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "278d425bdf160c739803";
    const SECRET: &str = "7ad3773142a6692b25b8";

    #[test]
    fn the_auth_of_a_private_channel_is_that_of_the_pusher_docs() {
        assert_eq!(
            channel_auth(KEY, SECRET, "1234.1234", "private-foobar", None),
            "278d425bdf160c739803:\
             58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4"
        );
    }

    #[test]
    fn the_auth_of_a_presence_channel_is_that_of_the_pusher_docs() {
        let channel_data = r#"{"user_id":10,"user_info":{"name":"Mr. Channels"}}"#;
        assert_eq!(
            channel_auth(KEY, SECRET, "1234.1234", "presence-foobar", Some(channel_data)),
            "278d425bdf160c739803:\
             31935e7d86dba64c2a90aed31fdc61869f9b22ba9d8863bba239c03ca481bc80"
        );
    }

    #[test]
    fn a_signed_publish_is_that_of_the_pusher_docs() {
        let body = br#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#;
        let target = api_target((KEY, SECRET), "POST", "/apps/3/events", &[], body, 1_353_088_179);
        assert_eq!(
            target,
            "/apps/3/events?auth_key=278d425bdf160c739803&auth_timestamp=1353088179\
             &auth_version=1.0&body_md5=ec365a775a4cd0599faeb73354201b6f\
             &auth_signature=da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c"
        );
    }

    #[test]
    fn a_query_is_sorted_into_the_signed_string() {
        let target = api_target(
            (KEY, SECRET),
            "GET",
            "/apps/3/channels",
            &[("info", "user_count"), ("filter_by_prefix", "presence-")],
            b"",
            1,
        );
        assert!(target.contains("auth_version=1.0&filter_by_prefix=presence-&info=user_count&"));
        assert!(!target.contains("body_md5"));
    }
}
