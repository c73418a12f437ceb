//! JSON of untrusted origin: validated by simd-json, then read as raw spans. PURE.
//!
//! Owns the scratch space of a validation. Does not build a tree: `data` must reach subscribers byte for byte
//! (docs/PROTOCOL.md rule 5), and simd-json rewrites its input while parsing. So it validates a scratch copy, and
//! `members` walks the original, which by then is known to be well-formed. Never takes a span from text that was not
//! validated.
//!
//! Limits: the depth that simd-json accepts (1,024); `SCRATCH_BYTES_KEPT` of the scratch copy are kept between two
//! texts. The caller bounds the text. Cost: one copy of the bytes, one validation, one walk over the top level.

use std::borrow::Cow;

use simd_json::{Buffers, Tape};

use crate::text::{repeated, zero_bytes};

/// Reusable space for validation: after the first messages no allocation happens.
pub struct Validator {
    copy: Vec<u8>,
    buffers: Buffers,
    tape: Option<Tape<'static>>,
}

impl Default for Validator {
    fn default() -> Self {
        Self { copy: Vec::new(), buffers: Buffers::new(1024), tape: Some(Tape(Vec::new())) }
    }
}

/// The scratch space of a larger message is released, so that one large batch does not keep it.
const SCRATCH_BYTES_KEPT: usize = 64 * 1024;

impl Validator {
    /// `text` as UTF-8 if it is one well-formed JSON value, otherwise `None`.
    pub fn check<'a>(&mut self, text: &'a [u8]) -> Option<&'a str> {
        let utf8 = simdutf8::basic::from_utf8(text).ok()?;
        self.copy.clear();
        self.copy.extend_from_slice(text);
        let mut tape = self.tape.take().unwrap_or(Tape(Vec::new())).reset();
        let well_formed =
            simd_json::fill_tape(&mut self.copy, &mut self.buffers, &mut tape).is_ok();
        self.tape = Some(tape.reset());
        if self.copy.capacity() > SCRATCH_BYTES_KEPT {
            *self = Self::default();
        }
        well_formed.then_some(utf8)
    }

    /// Takes the space of the copy, to build a value in it from the checked text. The caller returns it with
    /// `put_space`.
    pub fn take_space(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.copy)
    }

    pub fn put_space(&mut self, space: Vec<u8>) {
        if space.capacity() <= SCRATCH_BYTES_KEPT {
            self.copy = space;
        }
    }

    /// `None` also for a value that is no object.
    pub fn check_object<'a>(&mut self, text: &'a [u8]) -> Option<ObjectMembers<'a>> {
        let text = self.check(text)?;
        members(text)
    }
}

/// The members of a validated object, in the order they came; names and values as raw spans.
#[derive(Clone)]
pub struct ObjectMembers<'a> {
    rest: &'a str,
}

/// The elements of a validated array as raw spans.
#[derive(Clone)]
pub struct Elements<'a> {
    rest: &'a str,
}

/// `text` must have passed `Validator::check`, or be a span of such text. `None` when it is not an object.
#[must_use]
pub fn members(text: &str) -> Option<ObjectMembers<'_>> {
    let inside = text.trim_ascii().strip_prefix('{')?.strip_suffix('}')?;
    Some(ObjectMembers { rest: inside })
}

/// `text` must have passed `Validator::check`, or be a span of such text. `None` when it is not an array.
#[must_use]
pub fn elements(text: &str) -> Option<Elements<'_>> {
    let inside = text.trim_ascii().strip_prefix('[')?.strip_suffix(']')?;
    Some(Elements { rest: inside })
}

impl<'a> Iterator for ObjectMembers<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let text = self.rest.trim_ascii_start();
        if text.is_empty() {
            return None;
        }
        let (name, rest) = split_value(text)?;
        let (value, rest) =
            split_value(rest.trim_ascii_start().strip_prefix(':')?.trim_ascii_start())?;
        self.rest = after_comma(rest);
        Some((name, value))
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<Self::Item> {
        let text = self.rest.trim_ascii_start();
        if text.is_empty() {
            return None;
        }
        let (value, rest) = split_value(text)?;
        self.rest = after_comma(rest);
        Some(value)
    }
}

fn after_comma(rest: &str) -> &str {
    let rest = rest.trim_ascii_start();
    rest.strip_prefix(',').unwrap_or(rest)
}

/// Splits well-formed JSON after its first value. The text starts with that value.
fn split_value(text: &str) -> Option<(&str, &str)> {
    let bytes = text.as_bytes();
    let end = match bytes.first()? {
        b'"' => string_end(bytes, 0)?,
        b'{' | b'[' => nested_end(bytes)?,
        _ => bytes
            .iter()
            .position(|byte| {
                matches!(byte, b',' | b'}' | b']' | b':' | b' ' | b'\t' | b'\r' | b'\n')
            })
            .unwrap_or(bytes.len()),
    };
    text.split_at_checked(end)
}

/// The index after the closing quote of the string that opens at `start`.
fn string_end(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    loop {
        at += quote_or_escape(bytes.get(at..)?)?;
        if bytes.get(at) == Some(&b'"') {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// The position of the next quote or backslash. Names are short and escapes may be dense, so the first bytes are
/// searched a word at a time: starting a vector search costs more.
fn quote_or_escape(bytes: &[u8]) -> Option<usize> {
    const NEAR: usize = 32;
    let mut at = 0;
    while let Some(word) = bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        if at == NEAR {
            return Some(at + memchr::memchr2(b'"', b'\\', bytes.get(at..)?)?);
        }
        let word = u64::from_le_bytes(*word);
        let found = zero_bytes(word ^ repeated(b'"')) | zero_bytes(word ^ repeated(b'\\'));
        if found != 0 {
            return Some(at + found.trailing_zeros() as usize / 8);
        }
        at += size_of::<u64>();
    }
    let rest = bytes.get(at..)?.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
    Some(at + rest)
}

/// The index after the bracket that closes the one at the start. A counter suffices, because the text is well-formed.
fn nested_end(bytes: &[u8]) -> Option<usize> {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at = string_end(bytes, at)?;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// The text of a raw string span; `None` when the span is another kind of value. Borrowed when nothing is escaped.
#[must_use]
pub fn string(span: &str) -> Option<Cow<'_, str>> {
    let inside = span.strip_prefix('"')?.strip_suffix('"')?;
    let mut rest = inside;
    let mut text = String::new();
    // Inside a string, a quote only follows a backslash.
    while let Some(at) = quote_or_escape(rest.as_bytes()) {
        if text.capacity() == 0 {
            // An escape is never shorter than its character.
            text.reserve_exact(inside.len());
        }
        let (plain, escape) = rest.split_at_checked(at)?;
        let (character, after) = unescape(escape)?;
        text.push_str(plain);
        text.push(character);
        rest = after;
    }
    if text.capacity() == 0 {
        return Some(Cow::Borrowed(inside));
    }
    text.push_str(rest);
    Some(Cow::Owned(text))
}

/// Whether the text of a raw string span has more than `characters_max` characters. A span that is as short is not
/// decoded.
#[must_use]
pub fn has_more_characters(span: &str, characters_max: usize) -> bool {
    span.len() > characters_max
        && string(span).is_some_and(|text| text.chars().nth(characters_max).is_some())
}

/// Whether a raw name span is this name. Escapes in names are legal, if odd.
///
/// Nothing is allocated, and nothing is decoded that is longer than `name` can be: a client may send thousands of
/// members with escaped names, and each is compared with several names.
#[must_use]
pub fn is_name(span: &str, name: &str) -> bool {
    /// The longest spelling of one byte is `\u0041`.
    const ESCAPE_BYTES_MAX: usize = 6;
    let Some(rest) = span.strip_prefix('"').and_then(|span| span.strip_suffix('"')) else {
        return false;
    };
    if rest == name {
        return true;
    }
    if rest.len() <= name.len() || rest.len() > ESCAPE_BYTES_MAX * name.len() {
        return false;
    }
    after_prefix(rest, name).is_some_and(str::is_empty)
}

/// Whether the text of a raw string span starts with this. Decodes no more than it compares.
#[must_use]
pub fn starts_with(span: &str, start: &str) -> bool {
    let inside = span.strip_prefix('"').and_then(|span| span.strip_suffix('"'));
    inside.is_some_and(|inside| after_prefix(inside, start).is_some())
}

/// The rest of a string after this text, if the string starts with it.
fn after_prefix<'a>(inside: &'a str, text: &str) -> Option<&'a str> {
    let mut rest = inside;
    for expected in text.chars() {
        let (given, after) = match rest.chars().next()? {
            '\\' => unescape(rest)?,
            plain => (plain, rest.get(plain.len_utf8()..)?),
        };
        if given != expected {
            return None;
        }
        rest = after;
    }
    Some(rest)
}

/// The character of the escape at the start of `text`, and the rest. `None` for an escape that no well-formed JSON
/// string contains, such as half a surrogate pair.
fn unescape(text: &str) -> Option<(char, &str)> {
    let [b'\\', kind, ..] = *text.as_bytes() else { return None };
    let after = text.get(2..)?;
    let character = match kind {
        b'"' | b'\\' | b'/' => char::from(kind),
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => return unescape_unicode(after),
        _ => return None,
    };
    Some((character, after))
}

/// The four digits after `\u`, and the second half of a surrogate pair if they are the first half.
fn unescape_unicode(text: &str) -> Option<(char, &str)> {
    let (first, after) = four_hex_digits(text)?;
    if !(0xd800..0xdc00).contains(&first) {
        return Some((char::from_u32(first)?, after));
    }
    let (second, after) = four_hex_digits(after.strip_prefix("\\u")?)?;
    if !(0xdc00..0xe000).contains(&second) {
        return None;
    }
    let scalar = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
    Some((char::from_u32(scalar)?, after))
}

fn four_hex_digits(text: &str) -> Option<(u32, &str)> {
    let (digits, after) = text.split_at_checked(4)?;
    let digit = |value: u32, digit: char| Some(value << 4 | digit.to_digit(16)?);
    Some((digits.chars().try_fold(0, digit)?, after))
}

/// Appends `text` as a JSON string with its quotes. Only what JSON demands is escaped (RFC 8259 section 7).
pub fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    write_escaped(text, out);
    out.push(b'"');
}

/// Bytes at the start that need no escape, in whole words: most texts contain only such bytes.
fn unescaped_len(bytes: &[u8]) -> usize {
    let (words, rest) = bytes.as_chunks::<8>();
    let needs_escape = |word: &[u8; 8]| {
        let word = u64::from_le_bytes(*word);
        let quotes = zero_bytes(word ^ repeated(b'"')) | zero_bytes(word ^ repeated(b'\\'));
        (quotes | zero_bytes(word & repeated(0xe0))) != 0
    };
    let plain = words.iter().position(needs_escape);
    let is_plain = |byte: &u8| !matches!(byte, b'"' | b'\\' | 0x00..=0x1f);
    match plain {
        Some(word) => 8 * word,
        None => 8 * words.len() + rest.iter().position(|b| !is_plain(b)).unwrap_or(rest.len()),
    }
}

/// `write_string` without the quotes, for a string that is assembled from pieces.
pub fn write_escaped(text: &str, out: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    let mut copied = 0;
    for (at, byte) in bytes.iter().enumerate().skip(unescaped_len(bytes)) {
        let escape: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0x00..=0x1f => b"",
            _ => continue,
        };
        out.extend_from_slice(bytes.get(copied..at).unwrap_or_default());
        if escape.is_empty() {
            out.extend_from_slice(format!("\\u{byte:04x}").as_bytes());
        } else {
            out.extend_from_slice(escape);
        }
        copied = at + 1;
    }
    out.extend_from_slice(bytes.get(copied..).unwrap_or_default());
}

#[cfg(test)]
mod tests;
