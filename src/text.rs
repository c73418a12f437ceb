//! Text from outside, made safe for a log line or a terminal. PURE.
//!
//! Owns the rule which characters are hidden, and how they are written. Peers choose channel names, origins, paths,
//! error texts of Redis and much more: `shown` cuts and escapes such text before it reaches a log line. `LogLine` is
//! the second barrier: the log writes every line through it, so a line is bounded and free of control characters even
//! if a caller forgot `shown`. Does not know what a text means.
//!
//! Limits: `SHOWN_BYTES_MAX` for one text, the caller's for a line. Cost: linear in the bytes that are shown and not in
//! the length of the text; one allocation for a text.

use std::fmt::{self, Write};

/// Longest part of one text of a peer in a line, in bytes as written, without its quotes.
pub(crate) const SHOWN_BYTES_MAX: usize = 120;

/// A number of things, as people write it: `1 event`, `2 events`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counted(pub u64, pub &'static str);

impl fmt::Display for Counted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(count, thing) = self;
        write!(formatter, "{count} {thing}{}", if *count == 1 { "" } else { "s" })
    }
}

/// A text of a peer that is cut and escaped when it is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EscapedText<'a> {
    text: &'a [u8],
    bytes_max: usize,
}

/// A text of a peer for a line: in quotes, control characters escaped, at most `SHOWN_BYTES_MAX` bytes.
pub(crate) fn shown<T: AsRef<[u8]> + ?Sized>(text: &T) -> EscapedText<'_> {
    shown_up_to(text, SHOWN_BYTES_MAX)
}

/// `shown` for a place with more or less room: `bytes_max` bytes as written, without the quotes.
pub(crate) fn shown_up_to<T: AsRef<[u8]> + ?Sized>(text: &T, bytes_max: usize) -> EscapedText<'_> {
    EscapedText { text: text.as_ref(), bytes_max }
}

impl fmt::Display for EscapedText<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut escaped = LogLine::new(self.bytes_max);
        // An escaped character is never shorter than the original, so more input would not be shown.
        let looked_at = self.text.len().min(self.bytes_max + 1);
        for chunk in self.text[..looked_at].utf8_chunks() {
            for character in chunk.valid().chars() {
                if matches!(character, '"' | '\\') {
                    escaped.push_whole(&['\\', character]);
                } else {
                    escaped.push(character);
                }
            }
            if !chunk.invalid().is_empty() {
                escaped.push(char::REPLACEMENT_CHARACTER);
            }
        }
        formatter.write_char('"')?;
        formatter.write_str(escaped.as_str())?;
        formatter.write_str(if escaped.is_cut() { "…\"" } else { "\"" })
    }
}

/// One line of the log while it is written: escapes hidden characters, and discards what exceeds `bytes_max` bytes.
#[derive(Debug)]
pub(crate) struct LogLine {
    text: String,
    bytes_max: usize,
    is_cut: bool,
}

impl LogLine {
    #[must_use]
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { text: String::new(), bytes_max, is_cut: false }
    }

    #[must_use]
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Some text did not fit. Everything after it was discarded, too, so that a line never has a gap.
    #[must_use]
    pub(crate) fn is_cut(&self) -> bool {
        self.is_cut
    }

    fn push(&mut self, character: char) {
        let mut escaped = [' '; ESCAPE_CHARS_MAX];
        let length = escape(character, &mut escaped);
        self.push_whole(&escaped[..length]);
    }

    /// Appends all of these characters or none, so that an escape is never cut.
    fn push_whole(&mut self, characters: &[char]) {
        let bytes: usize = characters.iter().map(|character| character.len_utf8()).sum();
        if self.is_cut || self.text.len() + bytes > self.bytes_max {
            self.is_cut = true;
        } else {
            self.text.extend(characters);
        }
    }
}

/// Never fails: text that does not fit is discarded, and `is_cut` says so.
impl fmt::Write for LogLine {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            if self.is_cut {
                break;
            }
            self.push(character);
        }
        Ok(())
    }
}

/// Longest escape: `\u` and six digits.
const ESCAPE_CHARS_MAX: usize = 8;

/// Writes a character as it is shown, into the front of `out`. Returns how many characters that are.
fn escape(character: char, out: &mut [char; ESCAPE_CHARS_MAX]) -> usize {
    let short = match character {
        '\n' => Some('n'),
        '\r' => Some('r'),
        '\t' => Some('t'),
        _ => None,
    };
    if let Some(letter) = short {
        out[..2].copy_from_slice(&['\\', letter]);
        return 2;
    }
    if !is_hidden(character) {
        out[0] = character;
        return 1;
    }
    out[..2].copy_from_slice(&['\\', 'u']);
    // At least four digits, as JSON has it.
    let digits = (u32::from(character).max(1).ilog2() / 4 + 1).max(4) as usize;
    for (at, slot) in out[2..2 + digits].iter_mut().enumerate() {
        let digit = u32::from(character) >> (4 * (digits - 1 - at)) & 15;
        *slot = char::from_digit(digit, 16).unwrap_or('?');
    }
    2 + digits
}

/// Appends at most `length` characters of an untrusted text, with hidden characters escaped and a mark where it is cut.
/// Without quotes, for a column of a terminal.
pub(crate) fn visible(text: &str, length: usize, out: &mut String) {
    let mut chars = text.chars();
    for character in chars.by_ref().take(length) {
        let mut escaped = [' '; ESCAPE_CHARS_MAX];
        let count = escape(character, &mut escaped);
        out.extend(&escaped[..count]);
    }
    if chars.next().is_some() {
        out.push('…');
    }
}

/// Joins a reason and an explanation: one full stop between them, and the explanation with a capital letter. Its first
/// word stays as it is if it is not plain, such as the name of a protocol event.
#[must_use]
pub(crate) fn two_sentences(reason: &str, explanation: &str) -> String {
    let word = explanation.split(' ').next().unwrap_or_default();
    let is_plain = word.bytes().all(|byte| byte.is_ascii_alphabetic());
    let mut text = format!("{}. ", reason.trim_end_matches('.'));
    let start = text.len();
    text.push_str(explanation);
    if is_plain && let Some(first) = text.get_mut(start..=start) {
        first.make_ascii_uppercase();
    }
    text
}

/// Control characters, line separators, characters without width, and those that change the direction of text.
#[must_use]
pub(crate) fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}'
        )
}

/// The index of the first such byte, searched a word at a time: for texts so short that a vector search takes longer to
/// start.
#[must_use]
pub(crate) fn find_near(text: &[u8], byte: u8) -> Option<usize> {
    let (words, rest) = text.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let found = zero_bytes(u64::from_le_bytes(*word) ^ repeated(byte));
        if found != 0 {
            return Some(8 * index + found.trailing_zeros() as usize / 8);
        }
    }
    Some(8 * words.len() + rest.iter().position(|found| *found == byte)?)
}

/// A word whose eight bytes are all `byte`.
#[must_use]
pub(crate) const fn repeated(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

/// Sets the top bit of each byte that is zero. Bits of bytes below the lowest zero byte are never set; those above it
/// may be set wrongly, so only the lowest one counts.
#[must_use]
pub(crate) const fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(repeated(1)) & !word & repeated(0x80)
}

/// Compares a document that is generated from a table with what is in `path`, below the folder of the sources. With
/// `RINGVERB_WRITE_DOCS` set, it writes the document instead.
#[cfg(test)]
#[track_caller]
#[expect(clippy::disallowed_methods, reason = "a test that writes a document when it is asked to")]
pub(crate) fn assert_document(path: &str, generated: &str) {
    let file = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("RINGVERB_WRITE_DOCS").is_some() {
        std::fs::write(&file, generated).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    let advice = "RINGVERB_WRITE_DOCS=1 cargo test --lib the_document";
    assert!(written == generated, "{path} is not up to date: {advice}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_byte_is_found_at_its_first_place() {
        for length in 0..40 {
            for at in 0..=length {
                for other in [b'a', b'<', b'>', b'=' | 0x80, 0, 0xff] {
                    let mut text = vec![other; length];
                    text[at..].fill(b'=');
                    let expected = (at < length).then_some(at);
                    assert_eq!(find_near(&text, b'='), expected, "{at} {length} {other}");
                }
            }
        }
    }

    #[test]
    fn a_peers_text_is_quoted_escaped_and_cut() {
        let written = |text: &[u8]| shown(text).to_string();
        assert_eq!(written(b"https://a.test"), "\"https://a.test\"");
        assert_eq!(written(b"a\"b\\c"), r#""a\"b\\c""#);
        assert_eq!(written(b"\x1b[2J\r\n\t\0\x7f"), r#""\u001b[2J\r\n\t\u0000\u007f""#);
        assert_eq!(written("\u{202e}x\u{9b}".as_bytes()), r#""\u202ex\u009b""#);
        assert_eq!(written(b"\xff\xc3"), "\"\u{fffd}\u{fffd}\"");
        assert_eq!(written(&[b'x'; 120]), format!("\"{}\"", "x".repeat(120)));
        assert_eq!(written(&[b'x'; 121]), format!("\"{}…\"", "x".repeat(120)));
        assert_eq!(written(&[1; 9_000]), format!("\"{}…\"", r"\u0001".repeat(20)));
        assert_eq!(written(&[b'\\'; 9_000]), format!("\"{}…\"", r"\\".repeat(60)));
    }

    #[test]
    fn an_explanation_follows_a_reason_as_a_sentence_of_its_own() {
        assert_eq!(
            two_sentences("Bad request.", "a client speaks"),
            "Bad request. A client speaks"
        );
        assert_eq!(two_sentences("Not allowed", "origin x"), "Not allowed. Origin x");
        assert_eq!(
            two_sentences("Invalid", "pusher:subscribe has"),
            "Invalid. pusher:subscribe has"
        );
        assert_eq!(two_sentences("Invalid", "\"x\" is"), "Invalid. \"x\" is");
        assert_eq!(two_sentences("Invalid", ""), "Invalid. ");
    }

    #[test]
    fn a_line_takes_no_more_than_its_bytes() {
        let mut line = LogLine::new(6);
        let _ = write!(line, "ab\n{}", 7);
        assert_eq!((line.as_str(), line.is_cut()), ("ab\\n7", false));
        let _ = write!(line, "é");
        let _ = write!(line, "x");
        assert_eq!((line.as_str(), line.is_cut()), ("ab\\n7", true), "nothing after the cut");
    }

    proptest! {
        #[test]
        fn any_bytes_are_harmless_and_bounded(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let text = shown(&bytes).to_string();
            prop_assert!(text.len() <= SHOWN_BYTES_MAX + "\"…\"".len());
            prop_assert!(!text.chars().any(is_hidden), "{}", text);
        }

        #[test]
        fn any_text_is_harmless_and_bounded_in_a_line(text in any::<String>(), most in 0_usize..300) {
            let mut line = LogLine::new(most);
            let _ = write!(line, "{text}{text}");
            prop_assert!(line.as_str().len() <= most);
            prop_assert!(!line.as_str().chars().any(is_hidden), "{}", line.as_str());
        }

        #[test]
        fn short_plain_text_is_unchanged(text in "[a-zA-Z0-9é _.,;:/-]{0,50}") {
            prop_assert_eq!(shown(&text).to_string(), format!("\"{text}\""));
        }
    }
}
