//! Private keys from PEM text, also those that a passphrase encrypts (PKCS#8 with PBES2, RFC 8018). PURE.
//!
//! OpenSSL has written this format since version 1.0.0. The format before it derives keys with one round of MD5, so it
//! is refused with the command that converts it. The cryptography is that of the crate pkcs8.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pkcs8::{EncryptedPrivateKeyInfoRef, pkcs5};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::identity::IdentityError;

const BEGIN: &[u8] = b"-----BEGIN ENCRYPTED PRIVATE KEY-----";
const END: &[u8] = b"-----END ENCRYPTED PRIVATE KEY-----";
const OLD_ENCRYPTION: &[u8] = b"Proc-Type: 4,ENCRYPTED";

/// Reads the first key of a PEM file. A plain key is preferred to one that is encrypted.
pub(super) fn read(
    pem: &[u8],
    passphrase: Option<&str>,
) -> Result<PrivateKeyDer<'static>, IdentityError> {
    if memchr::memmem::find(pem, OLD_ENCRYPTION).is_some() {
        return Err(IdentityError::OldEncryption);
    }
    if let Ok(key) = PrivateKeyDer::from_pem_slice(pem) {
        return Ok(key);
    }
    let encrypted = encrypted_block(pem).ok_or(IdentityError::NoKey)?;
    decrypt(encrypted, passphrase.ok_or(IdentityError::EncryptedKey)?)
}

/// The text between the two lines.
fn encrypted_block(pem: &[u8]) -> Option<&[u8]> {
    let begin = memchr::memmem::find(pem, BEGIN)? + BEGIN.len();
    let rest = pem.get(begin..)?;
    rest.get(..memchr::memmem::find(rest, END)?)
}

fn decrypt(block: &[u8], passphrase: &str) -> Result<PrivateKeyDer<'static>, IdentityError> {
    let text: Vec<u8> = block.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let unreadable = || IdentityError::UnusableKey("it is no PKCS#8".to_owned());
    let der = STANDARD.decode(text).map_err(|_| unreadable())?;
    let info = EncryptedPrivateKeyInfoRef::try_from(der.as_slice())
        .map_err(|_| IdentityError::UnknownEncryption)?;
    let plain = info.decrypt(passphrase).map_err(|error| match error {
        pkcs8::Error::EncryptedPrivateKey(
            pkcs5::Error::UnsupportedAlgorithm { .. }
            | pkcs5::Error::NoPbes1CryptSupport
            | pkcs5::Error::AlgorithmParametersInvalid { .. },
        ) => IdentityError::UnknownEncryption,
        // A wrong passphrase may also decrypt to bytes that are no key.
        _ => IdentityError::WrongPassphrase,
    })?;
    Ok(PrivatePkcs8KeyDer::from(plain.as_bytes().to_vec()).into())
}
