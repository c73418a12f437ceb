//! Why a certificate or key cannot be used, and what to change. PURE.
//!
//! Plain values with the texts. Each text goes after the names of the files, and is shown at a start, by `ringverb
//! check`, and in the log when files change during the run. No text contains a part of a key. Does not check anything:
//! `identity.rs` does. No limits: a few sentences. Cost: once at a start or a reload, one allocation.

use std::fmt;

/// Why a pair cannot be used. The text goes after the names of the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityError {
    NoCertificate,
    UnreadableCertificate,
    NoKey,
    /// The key is encrypted, and no passphrase is configured.
    EncryptedKey,
    WrongPassphrase,
    /// The key is encrypted in OpenSSL's own format, which is older than PKCS#8.
    OldEncryption,
    /// PKCS#8 with a cipher that is not supported.
    UnknownEncryption,
    /// PKCS#8 whose key takes too long or too much memory to derive.
    CostlyEncryption,
    UnusableKey(String),
    KeyDoesNotFit,
    NotYetValid {
        from: i64,
        now: i64,
    },
    Expired {
        until: i64,
        now: i64,
    },
}

impl fmt::Display for IdentityError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCertificate => formatter.write_str(
                "the certificate file has no PEM block CERTIFICATE: RINGVERB_TLS_CERT must name a file such as \
                 fullchain.pem",
            ),
            Self::UnreadableCertificate => formatter.write_str(
                "the first certificate of the file cannot be read as X.509: is the file damaged, or not a server \
                 certificate?",
            ),
            Self::NoKey => formatter.write_str(
                "the key file has no PEM block PRIVATE KEY: RINGVERB_TLS_KEY must name a file such as privkey.pem",
            ),
            Self::EncryptedKey => formatter.write_str(
                "the key is encrypted, and no passphrase is set: set RINGVERB_TLS_KEY_PASSPHRASE, or write a plain \
                 copy with `openssl pkey -in KEY -out PLAIN`, readable by the server's user only, and name it in \
                 RINGVERB_TLS_KEY",
            ),
            Self::WrongPassphrase => formatter.write_str(
                "the key cannot be decrypted: RINGVERB_TLS_KEY_PASSPHRASE (in config/reverb.php: \
                 options.tls.passphrase) is not its passphrase, or the file is damaged",
            ),
            Self::OldEncryption => formatter.write_str(
                "the key is encrypted in the format of old OpenSSL (Proc-Type: 4,ENCRYPTED), which is not supported: \
                 write it again with `openssl pkcs8 -topk8 -in KEY -out NEW`, and name NEW in RINGVERB_TLS_KEY",
            ),
            Self::UnknownEncryption => formatter.write_str(
                "the key is encrypted with a cipher that is not supported (AES with PBKDF2 or scrypt is): write it \
                 again with `openssl pkcs8 -topk8 -v2 aes-256-cbc -in KEY -out NEW`, and name NEW in RINGVERB_TLS_KEY",
            ),
            Self::CostlyEncryption => formatter.write_str(
                "to derive the key of its encryption would take too long (limits: 10,000,000 rounds of PBKDF2; 256 MiB \
                 and 16 passes of scrypt): write it again with `openssl pkcs8 -topk8 -v2 aes-256-cbc -in KEY -out \
                 NEW`, and name NEW in RINGVERB_TLS_KEY",
            ),
            Self::UnusableKey(why) => write!(
                formatter,
                "the key cannot be used ({why}): RSA from 2048 to 8192 bits, ECDSA P-256 or P-384 and Ed25519 are \
                 supported",
            ),
            Self::KeyDoesNotFit => formatter.write_str(
                "the key does not belong to the certificate, or the certificate is not the first of its file: name a \
                 pair that was issued together in RINGVERB_TLS_CERT and RINGVERB_TLS_KEY",
            ),
            Self::NotYetValid { from, now } => write!(
                formatter,
                "the certificate is valid from {} on, and the clock of this host shows {}: check the clock, or name \
                 another certificate in RINGVERB_TLS_CERT",
                date(*from),
                date(*now)
            ),
            Self::Expired { until, now } => write!(
                formatter,
                "the certificate expired at {}, and the clock of this host shows {}: renew it (certbot renew), or \
                 name another one in RINGVERB_TLS_CERT",
                date(*until),
                date(*now)
            ),
        }
    }
}

/// A time for people: `2026-11-28 12:00 UTC`. `seconds`: since 1970.
#[must_use]
pub fn date(seconds: i64) -> String {
    let (days, time) = (seconds.div_euclid(86_400) + 719_468, seconds.rem_euclid(86_400));
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = year + 400 * era + next;
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02} UTC", time / 3_600, time / 60 % 60)
}
