//! HMAC-SHA256 signatures of the protocol, made and compared in constant time (PROTOCOL.md C7). PURE.

use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::app::{App, Secret};

/// Length of a signature in lowercase hex.
const HEX_LEN: usize = 64;

/// Signs the concatenation of `parts`; lowercase hex.
#[must_use]
pub fn sign(secret: &Secret, parts: &[&[u8]]) -> [u8; HEX_LEN] {
    let digest = mac(secret, parts).finalize().into_bytes();
    let mut hex = [0; HEX_LEN];
    encode_hex(&digest, &mut hex);
    hex
}

/// Whether `given` is the signature of `parts`, compared in constant time. Hex digits are lowercase by contract.
#[must_use]
pub fn verify(secret: &Secret, parts: &[&[u8]], given: &[u8]) -> bool {
    has_form(given) && bool::from(sign(secret, parts).ct_eq(given))
}

/// Whether this can be a signature at all: `verify` computes one only to compare it with such a text.
#[must_use]
pub fn has_form(given: &[u8]) -> bool {
    given.len() == HEX_LEN && given.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Which part of a channel authorisation is wrong: told to the log, and to nobody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthError {
    /// No `auth`, or it is not `key:signature`.
    Malformed,
    /// The key before the colon is another app's.
    WrongKey,
    /// The signature does not match the secret.
    Mismatch,
    /// The signature is that of the channel without the `channel_data` that came along.
    DataNotSigned,
}

/// Checks the `auth` of a subscription: `key:hex` over `socket_id:channel[:channel_data]` (PROTOCOL.md rules
/// 25, 45, 46).
///
/// # Errors
/// Which part does not fit.
pub fn check_channel(
    app: &App,
    socket_id: &str,
    channel: &str,
    channel_data: Option<&str>,
    auth: Option<&str>,
) -> Result<(), AuthError> {
    let signature = signature_part(app, auth)?;
    let plain = [socket_id.as_bytes(), b":", channel.as_bytes()];
    let Some(data) = channel_data else {
        return matches(app, &plain, signature);
    };
    let parts = [plain[0], plain[1], plain[2], b":", data.as_bytes()];
    matches(app, &parts, signature).map_err(|error| match matches(app, &plain, signature) {
        Ok(()) => AuthError::DataNotSigned,
        Err(_) => error,
    })
}

/// Checks the `auth` of a sign-in: `key:hex` over `socket_id::user::user_data` (PROTOCOL.md rule 47).
///
/// # Errors
/// Which part does not fit.
pub fn check_user(
    app: &App,
    socket_id: &str,
    user_data: &str,
    auth: Option<&str>,
) -> Result<(), AuthError> {
    let signature = signature_part(app, auth)?;
    matches(app, &[socket_id.as_bytes(), b"::user::", user_data.as_bytes()], signature)
}

/// What follows the key in `auth`.
fn signature_part<'a>(app: &App, auth: Option<&'a str>) -> Result<&'a str, AuthError> {
    let (key, signature) =
        auth.and_then(|auth| auth.split_once(':')).ok_or(AuthError::Malformed)?;
    if bool::from(key.as_bytes().ct_eq(app.key.as_bytes())) {
        Ok(signature)
    } else {
        Err(AuthError::WrongKey)
    }
}

fn matches(app: &App, parts: &[&[u8]], signature: &str) -> Result<(), AuthError> {
    if verify(&app.secret, parts, signature.as_bytes()) { Ok(()) } else { Err(AuthError::Mismatch) }
}

/// MD5 of an HTTP body in lowercase hex, the `body_md5` of PROTOCOL.md rule 48.
#[must_use]
pub fn body_md5(body: &[u8]) -> String {
    let mut hex = [0; 32];
    encode_hex(&Md5::digest(body), &mut hex);
    hex.iter().map(|byte| char::from(*byte)).collect()
}

fn mac(secret: &Secret, parts: &[&[u8]]) -> Hmac<Sha256> {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length (RFC 2104)")]
    let mut mac =
        Hmac::<Sha256>::new_from_slice(secret.reveal().as_bytes()).expect("any key length");
    for part in parts {
        mac.update(part);
    }
    mac
}

fn encode_hex(bytes: &[u8], hex: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in hex.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The secret of the worked examples in PROTOCOL.md C7.
    fn secret() -> Secret {
        Secret::new("7ad3773142a6692b25b8")
    }

    #[test]
    fn worked_examples() {
        let data = r#"{"user_id":10,"user_info":{"name":"Mr. Channels"}}"#;
        let presence: [&[u8]; 2] = [b"1234.1234:presence-foobar:", data.as_bytes()];
        let cases: [(&[&[u8]], &str); 3] = [
            (
                &[b"1234.1234:private-foobar"],
                "58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4",
            ),
            (&presence, "31935e7d86dba64c2a90aed31fdc61869f9b22ba9d8863bba239c03ca481bc80"),
            (
                &[b"1234.1234::user::{\"id\":\"12345\"}"],
                "4708d583dada6a56435fb8bc611c77c359a31eebde13337c16ab43aa6de336ba",
            ),
        ];
        for (parts, expected) in cases {
            assert!(verify(&secret(), parts, expected.as_bytes()), "{expected}");
            assert!(!verify(&secret(), parts, expected.to_uppercase().as_bytes()), "hex case");
            assert!(!verify(&secret(), parts, &expected.as_bytes()[1..]), "length");
        }
    }

    #[test]
    fn http_example() {
        let text = "POST\n/apps/3/events\nauth_key=278d425bdf160c739803&auth_timestamp=1353088179\
            &auth_version=1.0&body_md5=ec365a775a4cd0599faeb73354201b6f";
        let expected = "da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c";
        assert!(verify(&secret(), &[text.as_bytes()], expected.as_bytes()));
        let body = r#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#;
        assert_eq!(body_md5(body.as_bytes()), "ec365a775a4cd0599faeb73354201b6f");
    }
}
