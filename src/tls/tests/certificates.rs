//! Certificates: which one a name chooses, and pairs, dates and chains that are refused.

use super::{Pair, any_client, random, server_identity};
use crate::tls::identity::{Identity, IdentityError, IdentityWarning, acceptor};

#[test]
fn the_name_that_the_client_asks_for_chooses_the_certificate() {
    let other = Identity::read(certificate!("other"), certificate!("other.key"), None).unwrap();
    let server = acceptor(vec![server_identity(), other], &[], random).unwrap();
    for (name, is_served) in [
        ("localhost", true),
        ("other.test", true),
        ("a.wild.test", true),
        // The first certificate is sent, and the client refuses it.
        ("unknown.test", false),
    ] {
        let mut pair = Pair::named(any_client(), &server, usize::MAX, name);
        assert_eq!(pair.settle().is_ok(), is_served, "{name}");
    }
}

#[test]
fn a_pair_that_cannot_be_used_is_refused_with_its_reason() {
    let key = certificate!("server.key");
    let read = |certificate: &[u8], key: &[u8]| Identity::read(certificate, key, None).unwrap_err();
    assert_eq!(read(b"", key), IdentityError::NoCertificate);
    assert_eq!(read(key, key), IdentityError::NoCertificate);
    assert_eq!(read(certificate!("server"), b""), IdentityError::NoKey);
    assert_eq!(read(certificate!("server"), certificate!("server")), IdentityError::NoKey);
    assert_eq!(
        read(certificate!("server"), certificate!("other.key")),
        IdentityError::KeyDoesNotFit
    );
    assert_eq!(
        read(certificate!("server"), certificate!("encrypted.key")),
        IdentityError::EncryptedKey
    );
    let with = |key: &[u8], passphrase| {
        Identity::read(certificate!("server"), key, Some(passphrase)).map(drop)
    };
    assert_eq!(with(certificate!("encrypted.key"), "secret"), Ok(()));
    let wrong = Err(IdentityError::WrongPassphrase);
    assert_eq!(with(certificate!("encrypted.key"), "Secret"), wrong);
    // A passphrase is no harm to a plain key.
    assert_eq!(with(key, "secret"), Ok(()));
    let old = b"-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n";
    assert_eq!(with(old, "secret"), Err(IdentityError::OldEncryption));
    let unknown = Err(IdentityError::UnknownEncryption);
    assert_eq!(with(certificate!("encrypted-3des.key"), "secret"), unknown);
    let broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert_eq!(read(broken, key), IdentityError::UnreadableCertificate);
    let broken = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    assert!(matches!(read(certificate!("server"), broken), IdentityError::UnusableKey(_)));
    for error in [IdentityError::NoKey, IdentityError::KeyDoesNotFit, IdentityError::EncryptedKey] {
        assert!(error.to_string().contains("RINGVERB_TLS_KEY"), "{error}");
    }
}

#[test]
fn dates_and_chains_of_certificates_are_checked() {
    const NOW: i64 = 1_800_000_000;
    let identity = server_identity();
    assert_eq!((identity.check_dates(NOW), identity.warning), (Ok(()), None));
    let dates = |certificate: &[u8], key: &[u8]| {
        Identity::read(certificate, key, None).unwrap().check_dates(NOW).unwrap_err()
    };
    let expired = dates(certificate!("expired"), certificate!("expired.key"));
    assert!(expired.to_string().contains("expired at 2021-01-01 00:00 UTC"), "{expired}");
    assert!(expired.to_string().contains("shows 2027-01-15 08:00 UTC"), "{expired}");
    let future = dates(certificate!("future"), certificate!("future.key"));
    assert!(future.to_string().contains("valid from 2120-01-01 00:00 UTC"), "{future}");
    let text = std::str::from_utf8(certificate!("server")).unwrap();
    let end = "-----END CERTIFICATE-----\n";
    let leaf = text.split_inclusive(end).next().unwrap();
    let warning = |text: &str| {
        Identity::read(text.as_bytes(), certificate!("server.key"), None).unwrap().warning
    };
    assert_eq!(warning(leaf), Some(IdentityWarning::NoChain));
    assert_eq!(warning(&leaf.repeat(2)), Some(IdentityWarning::Disordered));
}
