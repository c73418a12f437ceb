//! HMAC-SHA256 signatures of the protocol, made and compared in constant time (docs/PROTOCOL.md C7). PURE.
//!
//! Owns what is signed for a channel, a user and a request body. A key is compared in constant time, too. Does not
//! decide what a wrong one costs: the caller does. An `AuthError` says which part is wrong. The log has it, and the
//! client only with verbose errors. Limits: those of the message or request that contains the texts. Cost: one HMAC
//! over the text for each secret of the app until one matches; if none does and there is `channel_data`, as many again.
//! No allocation, except in `body_md5`.

use hmac::Mac;
use md5::{Digest, Md5};
use subtle::ConstantTimeEq;

use crate::app::{App, Secret};

/// SHA-256 has 32 bytes, and each is two digits.
const HEX_LEN: usize = 64;

/// The signature of the concatenation of `parts`, in lowercase hex.
#[must_use]
pub fn sign(secret: &Secret, parts: &[&[u8]]) -> [u8; HEX_LEN] {
    let mut hex = [0; HEX_LEN];
    encode_hex(&digest(secret, parts.iter().copied()), &mut hex);
    hex
}

/// Whether `given` is the signature of `parts`, compared in constant time. Hex digits are lowercase by contract.
#[must_use]
pub fn verify(secret: &Secret, parts: &[&[u8]], given: &[u8]) -> bool {
    Signature::parse(given).is_some_and(|given| given.matches_parts(secret, parts.iter().copied()))
}

/// A signature as a peer sent it, read from hex. It may be wrong.
#[derive(Clone, Copy, Debug)]
pub struct Signature([u8; HEX_LEN / 2]);

impl Signature {
    /// `None`: the text cannot be a signature, so that none has to be computed for it.
    #[must_use]
    pub fn parse(given: &[u8]) -> Option<Self> {
        let given: &[u8; HEX_LEN] = given.try_into().ok()?;
        let (pairs, _) = given.as_chunks::<2>();
        let mut bytes = [0; HEX_LEN / 2];
        let mut digits_seen = 0;
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            let (high, low) = (hex_digit(*high), hex_digit(*low));
            digits_seen |= high | low;
            *byte = high << 4 | low;
        }
        // A byte that is no digit has set the upper bits. There is no early return, so the time says nothing of a byte.
        (digits_seen <= 15).then_some(Self(bytes))
    }

    /// Whether it is the signature of the concatenation of `parts`. The comparison takes constant time.
    #[must_use]
    pub fn matches_parts<'a>(
        &self,
        secret: &Secret,
        parts: impl Iterator<Item = &'a [u8]>,
    ) -> bool {
        digest(secret, parts).ct_eq(&self.0).into()
    }
}

/// The value of a lowercase hex digit; 255 for any other byte.
fn hex_digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => u8::MAX,
    }
}

/// The part of an authorization that is wrong. Its line is in the log, and the client receives it only with verbose
/// errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthError {
    /// No `auth`, or it is not `key:signature`.
    Malformed,
    /// The key before the colon is another app's.
    WrongKey,
    /// The signature does not match the secret.
    Mismatch,
    /// The signature is that of the channel without the `channel_data` that was sent.
    DataNotSigned,
}

/// Checks the `auth` of a subscription: `key:hex` over `socket_id:channel[:channel_data]` (docs/PROTOCOL.md rules
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

/// Checks the `auth` of a sign-in: `key:hex` over `socket_id::user::user_data` (docs/PROTOCOL.md rule 47).
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

/// The part of `auth` after the key, if the key is this app's.
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
    let is_of = |secret: &Secret| verify(secret, parts, signature.as_bytes());
    if app.secrets().any(is_of) { Ok(()) } else { Err(AuthError::Mismatch) }
}

/// MD5 of an HTTP body in lowercase hex, the `body_md5` of docs/PROTOCOL.md rule 48.
#[must_use]
pub fn body_md5(body: &[u8]) -> String {
    body_md5_hex(body).iter().map(|byte| char::from(*byte)).collect()
}

/// `body_md5` without an allocation.
#[must_use]
pub fn body_md5_hex(body: &[u8]) -> [u8; 32] {
    let mut hex = [0; 32];
    encode_hex(&Md5::digest(body), &mut hex);
    hex
}

fn digest<'a>(secret: &Secret, parts: impl Iterator<Item = &'a [u8]>) -> [u8; HEX_LEN / 2] {
    let mut mac = secret.hmac();
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

fn encode_hex(bytes: &[u8], hex: &mut [u8]) {
    let digit = |value: u8| value + if value < 10 { b'0' } else { b'a' - 10 };
    let (pairs, _) = hex.as_chunks_mut();
    for (pair, byte) in pairs.iter_mut().zip(bytes) {
        *pair = [digit(byte >> 4), digit(byte & 15)];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The secret of the worked examples in docs/PROTOCOL.md C7.
    fn secret() -> Secret {
        Secret::new("7ad3773142a6692b25b8")
    }

    #[test]
    fn signatures_are_those_of_the_pusher_docs() {
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
            for at in 0..HEX_LEN {
                for wrong in [b'0', b'f', b'g', b'/', b':', b'`', b'\xff'] {
                    let mut given = expected.as_bytes().to_vec();
                    let differs = std::mem::replace(&mut given[at], wrong) != wrong;
                    assert_eq!(verify(&secret(), parts, &given), !differs, "{at} {wrong}");
                }
            }
        }
    }

    #[test]
    fn a_secret_can_be_used_again_and_has_any_length() {
        use hmac::KeyInit;
        for length in [0, 1, 63, 64, 65, 200] {
            let text = "s".repeat(length);
            let secret = Secret::new(text.as_str());
            let mut plain = hmac::Hmac::<sha2::Sha256>::new_from_slice(text.as_bytes()).unwrap();
            plain.update(b"some text");
            let expected: [u8; 32] = plain.finalize().into_bytes().into();
            for _ in 0..2 {
                assert_eq!(digest(&secret, [&b"some "[..], b"text"].into_iter()), expected);
            }
            assert_eq!(format!("{secret:?}"), "********");
        }
    }

    #[test]
    fn a_request_signature_is_that_of_the_pusher_docs() {
        let text = "POST\n/apps/3/events\nauth_key=278d425bdf160c739803&auth_timestamp=1353088179\
            &auth_version=1.0&body_md5=ec365a775a4cd0599faeb73354201b6f";
        let expected = "da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c";
        assert!(verify(&secret(), &[text.as_bytes()], expected.as_bytes()));
        let body = r#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#;
        assert_eq!(body_md5(body.as_bytes()), "ec365a775a4cd0599faeb73354201b6f");
    }
}
