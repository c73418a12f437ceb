//! Private keys from PEM text, also those that a passphrase encrypts (PKCS#8 with PBES2, RFC 8018). PURE.
//!
//! Owns which encryption is accepted. OpenSSL has written this format since version 1.0.0. The format before it derives
//! keys with one round of MD5, so it is refused with the command that converts it. The cryptography is that of the
//! crate pkcs8. Does not read files, and keeps no key.
//!
//! Limits: the rounds and memory of a key derivation (`is_affordable`). Cost: once at the start and at each reload; at
//! the limits, about two seconds (PBKDF2) or an allocation of 256 MiB (scrypt).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pkcs8::{EncryptedPrivateKeyInfoRef, pkcs5};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::identity::IdentityError;

const ENCRYPTED_KEY_BEGIN: &[u8] = b"-----BEGIN ENCRYPTED PRIVATE KEY-----";
const ENCRYPTED_KEY_END: &[u8] = b"-----END ENCRYPTED PRIVATE KEY-----";
/// Most rounds of PBKDF2, which take about two seconds. OpenSSL writes 2,048.
const PBKDF2_ROUNDS_MAX: u32 = 10_000_000;
/// Most memory of scrypt: it needs 128 bytes for each unit of cost and block size. OpenSSL's default needs 16 MiB.
const SCRYPT_BYTES_MAX: u64 = 256 << 20;
const SCRYPT_PASSES_MAX: u16 = 16;
const OLD_ENCRYPTION_HEADER: &[u8] = b"Proc-Type: 4,ENCRYPTED";

/// Reads the first key of a PEM file. A plain key is preferred to one that is encrypted.
pub(super) fn read(
    pem: &[u8],
    passphrase: Option<&str>,
) -> Result<PrivateKeyDer<'static>, IdentityError> {
    if memchr::memmem::find(pem, OLD_ENCRYPTION_HEADER).is_some() {
        return Err(IdentityError::OldEncryption);
    }
    if let Ok(key) = PrivateKeyDer::from_pem_slice(pem) {
        return Ok(key);
    }
    let encrypted = encrypted_block(pem).ok_or(IdentityError::NoKey)?;
    decrypt(encrypted, passphrase.ok_or(IdentityError::EncryptedKey)?)
}

/// The text between the lines that begin and end an encrypted key.
fn encrypted_block(pem: &[u8]) -> Option<&[u8]> {
    let begin = memchr::memmem::find(pem, ENCRYPTED_KEY_BEGIN)? + ENCRYPTED_KEY_BEGIN.len();
    let rest = pem.get(begin..)?;
    rest.get(..memchr::memmem::find(rest, ENCRYPTED_KEY_END)?)
}

fn decrypt(block: &[u8], passphrase: &str) -> Result<PrivateKeyDer<'static>, IdentityError> {
    let text: Vec<u8> = block.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let unreadable = || IdentityError::UnusableKey("it is no PKCS#8".to_owned());
    let der = STANDARD.decode(text).map_err(|_| unreadable())?;
    let info = EncryptedPrivateKeyInfoRef::try_from(der.as_slice())
        .map_err(|_| IdentityError::UnknownEncryption)?;
    if !is_affordable(&info.encryption_algorithm) {
        return Err(IdentityError::CostlyEncryption);
    }
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

/// Whether the key of the encryption can be derived in seconds, in little memory and without a panic of the crate. The
/// file is that of an operator, but a mistake in it must not end or stop a server that reads it again.
fn is_affordable(scheme: &pkcs5::EncryptionScheme) -> bool {
    let pkcs5::EncryptionScheme::Pbes2(parameters) = scheme else { return true };
    match &parameters.kdf {
        pkcs5::pbes2::Kdf::Pbkdf2(kdf) => kdf.iteration_count <= PBKDF2_ROUNDS_MAX,
        pkcs5::pbes2::Kdf::Scrypt(kdf) => {
            let bytes = kdf.cost_parameter.checked_mul(128 * u64::from(kdf.block_size));
            kdf.cost_parameter > 1
                && kdf.cost_parameter.is_power_of_two()
                && kdf.block_size > 0
                && (1..=SCRYPT_PASSES_MAX).contains(&kdf.parallelization)
                && bytes.is_some_and(|bytes| bytes <= SCRYPT_BYTES_MAX)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let content = parts.concat();
        let length = u8::try_from(content.len()).unwrap();
        let long: &[u8] = if length < 128 { &[] } else { &[0x81] };
        [&[tag], long, &[length], &content].concat()
    }

    fn integer(value: u64) -> Vec<u8> {
        let bytes = value.to_be_bytes();
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count().min(7);
        let sign: &[u8] = if bytes[zeros] < 128 { &[] } else { &[0] };
        tlv(2, &[sign, &bytes[zeros..]])
    }

    /// What the server says of a key whose encryption has these parameters, and whose content is no key.
    fn reading(kdf: &[u8]) -> IdentityError {
        let aes = tlv(6, &[&[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 1, 0x2a]]);
        let cipher = tlv(0x30, &[&aes, &tlv(4, &[&[1; 16]])]);
        let pbes2 = tlv(6, &[&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 5, 0x0d]]);
        let scheme = tlv(0x30, &[&pbes2, &tlv(0x30, &[kdf, &cipher])]);
        let der = tlv(0x30, &[&scheme, &tlv(4, &[&[0x55; 48]])]);
        let pem = [
            ENCRYPTED_KEY_BEGIN,
            b"\n",
            STANDARD.encode(der).as_bytes(),
            b"\n",
            ENCRYPTED_KEY_END,
            b"\n",
        ]
        .concat();
        read(&pem, Some("secret")).unwrap_err()
    }

    fn pbkdf2(rounds: u64) -> Vec<u8> {
        let id = tlv(6, &[&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 5, 0x0c]]);
        let sha256 = tlv(6, &[&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 2, 9]]);
        let prf = tlv(0x30, &[&sha256, &tlv(5, &[])]);
        tlv(0x30, &[&id, &tlv(0x30, &[&tlv(4, &[b"12345678"]), &integer(rounds), &prf])])
    }

    fn scrypt(cost: u64, block: u64, passes: u64) -> Vec<u8> {
        let id = tlv(6, &[&[0x2b, 6, 1, 4, 1, 0xda, 0x47, 4, 0x0b]]);
        let salt = tlv(4, &[b"12345678"]);
        let numbers = [integer(cost), integer(block), integer(passes)];
        tlv(0x30, &[&id, &tlv(0x30, &[&salt, &numbers[0], &numbers[1], &numbers[2]])])
    }

    #[test]
    fn an_encryption_that_would_stop_the_server_is_refused_before_its_key_is_derived() {
        for kdf in [
            pbkdf2(2_000_000_000),
            scrypt(0, 8, 1),
            scrypt(1, 8, 1),
            scrypt(16_383, 8, 1),
            scrypt(16_384, 0, 1),
            scrypt(1 << 26, 8, 1),
            scrypt(1 << 63, 65_535, 1),
            scrypt(16_384, 8, 60_000),
        ] {
            assert_eq!(reading(&kdf), IdentityError::CostlyEncryption, "{kdf:02x?}");
        }
        for kdf in [pbkdf2(2_048), scrypt(1_024, 8, 1)] {
            assert_eq!(reading(&kdf), IdentityError::WrongPassphrase, "{kdf:02x?}");
        }
    }
}
