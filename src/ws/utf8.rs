//! UTF-8 validation of text that arrives in pieces (RFC 6455 section 8.1). PURE.
//!
//! Owns four bytes: at most three bytes of a character cut short, and how many. Does not keep the text. Fails at the
//! first byte that no continuation could make valid, so a bad message is refused before it is complete (RFC 3629
//! section 4, as the standard library checks it). Limit: those four bytes for each message under way. Cost: linear, one
//! pass of simdutf8 over the bytes; no allocation.

use simdutf8::compat::from_utf8;

/// The bytes are not, and cannot become, UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidUtf8;

/// Validator of one text; `Default` starts a new one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Utf8 {
    cut_character: [u8; 3],
    cut_len: u8,
}

impl Utf8 {
    /// The next bytes of the text, cut anywhere.
    ///
    /// # Errors
    /// When what was pushed so far is not a prefix of any UTF-8 text.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), InvalidUtf8> {
        let rest = self.complete_cut(bytes)?;
        match from_utf8(rest) {
            Ok(_) => Ok(()),
            // No error length: the text ends inside a character that may still become whole.
            Err(error) if error.error_len().is_none() => {
                rest.iter().skip(error.valid_up_to()).try_for_each(|&byte| self.push_cut_byte(byte))
            }
            Err(_) => Err(InvalidUtf8),
        }
    }

    /// # Errors
    /// When the text ends inside a character.
    pub fn finish(&self) -> Result<(), InvalidUtf8> {
        if self.cut_len == 0 { Ok(()) } else { Err(InvalidUtf8) }
    }

    /// Feeds the character cut short by the previous push, byte by byte; returns what follows it.
    fn complete_cut<'a>(&mut self, mut bytes: &'a [u8]) -> Result<&'a [u8], InvalidUtf8> {
        while self.cut_len > 0
            && let Some((&byte, rest)) = bytes.split_first()
        {
            bytes = rest;
            self.extend_cut(byte)?;
        }
        Ok(bytes)
    }

    fn extend_cut(&mut self, byte: u8) -> Result<(), InvalidUtf8> {
        let [a, b, c] = self.cut_character;
        let candidate: &[u8] = match self.cut_len {
            1 => &[a, byte],
            2 => &[a, b, byte],
            _ => &[a, b, c, byte],
        };
        match std::str::from_utf8(candidate) {
            Ok(_) => {
                self.cut_len = 0;
                Ok(())
            }
            Err(error) if error.error_len().is_none() => self.push_cut_byte(byte),
            Err(_) => Err(InvalidUtf8),
        }
    }

    /// Appends to the cut character. A fourth byte always completes or refutes it: there is room.
    fn push_cut_byte(&mut self, byte: u8) -> Result<(), InvalidUtf8> {
        let slot = self.cut_character.get_mut(usize::from(self.cut_len)).ok_or(InvalidUtf8)?;
        *slot = byte;
        self.cut_len += 1;
        Ok(())
    }
}

const _: () = assert!(size_of::<Utf8>() == 4);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn validate(pieces: &[&[u8]]) -> Result<(), InvalidUtf8> {
        let mut utf8 = Utf8::default();
        for piece in pieces {
            utf8.push(piece)?;
        }
        utf8.finish()
    }

    #[test]
    fn characters_of_every_length_cut_anywhere() {
        let text = "a é € 𐍈 \u{10ffff} \u{d7ff} \u{e000} ".repeat(20);
        let text = text.as_bytes();
        for cut in 0..=text.len() {
            assert_eq!(validate(&[&text[..cut], &text[cut..]]), Ok(()));
        }
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(validate(&bytes), Ok(()));
    }

    #[test]
    fn an_end_inside_a_character_is_refused() {
        assert_eq!(validate(&[b"\xe2\x82"]), Err(InvalidUtf8));
        assert_eq!(validate(&[b"\xf0", b"\x90\x8d"]), Err(InvalidUtf8));
    }

    #[test]
    fn impossible_prefixes_fail_at_once() {
        let impossible: [&[u8]; 9] = [
            b"\xc0",
            b"\xc1",
            b"\xe0\x80",
            b"\xed\xa0",
            b"\xf0\x80",
            b"\xf4\x90",
            b"\xf5",
            b"\x80",
            b"\xff",
        ];
        for bytes in impossible {
            assert_eq!(Utf8::default().push(bytes), Err(InvalidUtf8), "{bytes:x?}");
            let mut utf8 = Utf8::default();
            let outcome = bytes.iter().try_for_each(|byte| utf8.push(&[*byte]));
            assert_eq!(outcome, Err(InvalidUtf8), "{bytes:x?} byte by byte");
        }
    }

    /// Mostly UTF-8, sometimes damaged: pure noise would almost never get past its second byte.
    fn text_like() -> impl Strategy<Value = Vec<u8>> {
        let characters = proptest::collection::vec(any::<char>(), 0..40);
        let damage = proptest::option::of((any::<prop::sample::Index>(), any::<u8>()));
        (characters, damage).prop_map(|(characters, damage)| {
            let mut bytes = characters.into_iter().collect::<String>().into_bytes();
            if let Some((index, byte)) = damage
                && !bytes.is_empty()
            {
                let at = index.index(bytes.len());
                bytes[at] = byte;
            }
            bytes
        })
    }

    proptest! {
        #[test]
        fn agrees_with_std_however_it_is_cut(bytes in text_like(), size in 1_usize..7) {
            let mut utf8 = Utf8::default();
            let mut fed = 0;
            let mut failed = false;
            for piece in bytes.chunks(size) {
                fed += piece.len();
                // Fails exactly when the prefix holds an error, not merely an unfinished character.
                let prefix = std::str::from_utf8(&bytes[..fed]);
                let doomed = prefix.is_err_and(|error| error.error_len().is_some());
                failed = utf8.push(piece).is_err();
                prop_assert_eq!(failed, doomed);
                if failed {
                    break;
                }
            }
            let valid = !failed && utf8.finish().is_ok();
            prop_assert_eq!(valid, std::str::from_utf8(&bytes).is_ok());
        }
    }
}
