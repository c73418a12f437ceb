//! Credentials of an app that are generated: for a server without a configured app, and for `ringverb app add`.
//!
//! They have the form that `reverb:install` gives them: six digits, and twice 20 lowercase characters, from the
//! kernel's random numbers. Without random numbers the process ends, because credentials that can be guessed are worse
//! than no server. Owns no state, and does not store what it generates (`development.rs` does).
//! No limits: each text has a fixed length. Cost: one system call.

use crate::config::validate::DevelopmentApp;

/// The first digit of the id is not 0, so that it stays six digits where it is read as a number.
pub(super) fn generated_credentials() -> DevelopmentApp {
    let mut bytes = [0_u8; 48];
    if let Err(error) = getrandom::fill(&mut bytes) {
        panic!("the kernel returned no random numbers: {error}");
    }
    let text = |bytes: &[u8], alphabet: &[u8]| -> String {
        bytes.iter().map(|byte| char::from(alphabet[usize::from(*byte) % alphabet.len()])).collect()
    };
    const LOWERCASE: &[u8] = b"abcdefghijklmnopqrstuvwxyz012345";
    DevelopmentApp {
        id: text(&bytes[..1], b"123456789") + &text(&bytes[1..6], b"0123456789"),
        key: text(&bytes[6..26], LOWERCASE),
        secret: text(&bytes[26..46], LOWERCASE),
    }
}
