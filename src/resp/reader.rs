//! The decoder: bytes, cut anywhere, to whole replies and pushes. PURE.
//!
//! Owns the bytes of one incomplete value; knows nothing of commands. It reads lines and blobs, and adds each to the
//! value under construction at once: no byte is parsed twice, however the input is cut, and nesting levels are entries
//! of a list, not of the call stack. Memory grows with the received bytes, never with a declared length.
//!
//! Limits: `VALUE_BYTES_MAX` for one value (twice that while a vector grows), `LEVELS_MAX`, `TEXT_BYTES_MAX` of a line.
//! Over one of them the input is malformed, and the connection ends. Cost: each byte is searched_bytes once and copied
//! at most three times; an allocation for each text, blob and list.

use super::Value;

#[cfg(test)]
mod tests;

/// What one value may cost: its payload bytes, and `size_of::<Value>()` for each element of its lists and maps, which
/// may be three bytes on the wire. Far above anything that nodes send each other; a bound, not a budget.
pub const VALUE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Lists, maps and attributes inside one another. Redis answers with two or three.
pub const LEVELS_MAX: usize = 8;

/// A line, and everything that becomes text: status, error, verbatim string. Redis keeps its own lines to as much.
pub const TEXT_BYTES_MAX: usize = 64 * 1024;

/// Elements for which room is allocated before any has arrived.
const ELEMENTS_AT_ONCE_MAX: usize = 16;

/// An error of a stream. The stream cannot be continued, because the start of the next value is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MalformedReply {
    /// A value starts with a byte that is no type.
    UnknownType,
    /// A lone CR or LF, or no line end after a blob.
    LineEnd,
    /// No number where there must be one, or one that does not fit; also the lengths of streamed values (`?`).
    Number,
    /// A verbatim string without its format, or a null with something in it.
    Form,
    /// A push inside another value.
    NestedPush,
    /// More than `LEVELS_MAX` levels.
    TooDeep,
    /// More than `VALUE_BYTES_MAX`, declared or added up, or text of more than `TEXT_BYTES_MAX`.
    TooLarge,
}

impl MalformedReply {
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::UnknownType => "unknown type of a value",
            Self::LineEnd => "a line that does not end with CRLF",
            Self::Number => "not a number",
            Self::Form => "a verbatim string or a null of the wrong form",
            Self::NestedPush => "a push inside another value",
            Self::TooDeep => "too many levels",
            Self::TooLarge => "a value that is too large",
        }
    }
}

#[derive(Debug, Default)]
pub struct Reader {
    /// Received bytes, of which the first `used_bytes` are decoded.
    input: Vec<u8>,
    used_bytes: usize,
    /// Bytes of the line at `used_bytes`, after its type, that are known to contain no line end.
    searched_bytes: usize,
    blob: Option<OpenBlob>,
    /// Incomplete aggregates, from the outermost to the innermost.
    open_groups: Vec<OpenGroup>,
    /// Bytes charged for the value under construction: at most `VALUE_BYTES_MAX`.
    charged_bytes: usize,
    /// The first error, which all later calls return.
    malformed: Option<MalformedReply>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BlobKind {
    Bytes,
    Error,
    Verbatim,
}

#[derive(Debug)]
struct OpenBlob {
    kind: BlobKind,
    length: usize,
    bytes: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GroupKind {
    List,
    Map,
    Push,
    /// Attributes of the following value, which are ignored: counted as a value, they would be mistaken for a reply.
    Attribute,
}

#[derive(Debug)]
struct OpenGroup {
    kind: GroupKind,
    /// Elements as the header declares them: two for each pair of a map.
    count: usize,
    elements: Vec<Value>,
}

/// The content of a line.
enum ParsedLine {
    Value(Value),
    Blob(BlobKind, usize),
    Group(GroupKind, usize),
}

impl Reader {
    /// Call `next` until it returns `None` after this, so that only the start of a line or of a blob's end stays in
    /// `input`.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.malformed.is_some() {
            return;
        }
        // Only when fewer bytes are moved than freed, so that each byte is moved at most once.
        if self.used_bytes >= self.input.len().div_ceil(2) {
            self.input.drain(..self.used_bytes);
            self.used_bytes = 0;
        }
        self.input.extend_from_slice(bytes);
    }

    /// The next value; `None` if more bytes are needed.
    ///
    /// # Errors
    /// The stream is not RESP, or exceeds a limit. Every later call returns the same error.
    #[expect(clippy::should_implement_trait, reason = "an iterator ends, a stream only pauses")]
    pub fn next(&mut self) -> Result<Option<Value>, MalformedReply> {
        if let Some(malformed) = self.malformed {
            return Err(malformed);
        }
        let outcome = self.read();
        if let Err(malformed) = outcome {
            *self = Self { malformed: Some(malformed), ..Self::default() };
        }
        outcome
    }

    fn read(&mut self) -> Result<Option<Value>, MalformedReply> {
        loop {
            let value = if let Some(blob) = self.blob.take() {
                let Some(value) = self.read_blob(blob)? else { return Ok(None) };
                self.add_value(value)
            } else {
                let Some(line) = self.read_line()? else { return Ok(None) };
                match line {
                    ParsedLine::Value(value) => {
                        self.charge(text_bytes(&value))?;
                        self.add_value(value)
                    }
                    ParsedLine::Blob(kind, length) => {
                        self.open_blob(kind, length)?;
                        None
                    }
                    ParsedLine::Group(kind, count) => self.open_group(kind, count)?,
                }
            };
            if value.is_some() {
                self.charged_bytes = 0;
                return Ok(value);
            }
        }
    }

    fn read_line(&mut self) -> Result<Option<ParsedLine>, MalformedReply> {
        let rest = self.input.get(self.used_bytes..).unwrap_or_default();
        let Some((&kind, text)) = rest.split_first() else { return Ok(None) };
        if !b"+-:$*_#,(!=%~>|".contains(&kind) {
            return Err(MalformedReply::UnknownType);
        }
        let unseen = text.get(self.searched_bytes..).unwrap_or_default();
        let found = memchr::memchr2(b'\r', b'\n', unseen).map(|at| self.searched_bytes + at);
        let end = found.unwrap_or(text.len());
        if end > TEXT_BYTES_MAX {
            return Err(MalformedReply::TooLarge);
        }
        let (text, ending) = text.split_at(end);
        match ending {
            [] | [b'\r'] => {
                self.searched_bytes = end;
                return Ok(None);
            }
            [b'\r', b'\n', ..] => {}
            _ => return Err(MalformedReply::LineEnd),
        }
        let line = parse_line(kind, text)?;
        (self.used_bytes, self.searched_bytes) = (self.used_bytes + 1 + end + 2, 0);
        Ok(Some(line))
    }

    /// The value of a blob if it is complete; otherwise waits for more bytes.
    fn read_blob(&mut self, mut blob: OpenBlob) -> Result<Option<Value>, MalformedReply> {
        let rest = self.input.get(self.used_bytes..).unwrap_or_default();
        let missing = blob.length - blob.bytes.len();
        let (piece, after) = rest.split_at(missing.min(rest.len()));
        blob.bytes.extend_from_slice(piece);
        self.used_bytes += piece.len();
        let ending = after.get(..2);
        if piece.len() < missing || ending.is_none() {
            self.blob = Some(blob);
            return Ok(None);
        }
        if ending != Some(b"\r\n") {
            return Err(MalformedReply::LineEnd);
        }
        self.used_bytes += 2;
        blob.close().map(Some)
    }

    fn open_blob(&mut self, kind: BlobKind, length: usize) -> Result<(), MalformedReply> {
        let is_text = kind != BlobKind::Bytes;
        if is_text && length > TEXT_BYTES_MAX {
            return Err(MalformedReply::TooLarge);
        }
        // U+FFFD, which replaces a byte that is not UTF-8, has three bytes.
        self.charge(if is_text { 3 * length } else { length })?;
        self.blob = Some(OpenBlob { kind, length, bytes: Vec::new() });
        Ok(())
    }

    /// Opens a group, or returns the value that an empty one completes.
    fn open_group(
        &mut self,
        kind: GroupKind,
        count: usize,
    ) -> Result<Option<Value>, MalformedReply> {
        if self.open_groups.len() == LEVELS_MAX {
            return Err(MalformedReply::TooDeep);
        }
        if kind == GroupKind::Push && !self.open_groups.is_empty() {
            return Err(MalformedReply::NestedPush);
        }
        let pairs = matches!(kind, GroupKind::Map | GroupKind::Attribute);
        let count = count.checked_mul(1 + usize::from(pairs)).ok_or(MalformedReply::TooLarge)?;
        self.charge(count.checked_mul(size_of::<Value>()).ok_or(MalformedReply::TooLarge)?)?;
        let group = OpenGroup {
            kind,
            count,
            elements: Vec::with_capacity(count.min(ELEMENTS_AT_ONCE_MAX)),
        };
        if count == 0 {
            return Ok(group.close().and_then(|value| self.add_value(value)));
        }
        self.open_groups.push(group);
        Ok(None)
    }

    /// Adds a value to the innermost group, that group to the next one if it is complete, and so on. Returns a complete
    /// value that is in no group.
    fn add_value(&mut self, value: Value) -> Option<Value> {
        let mut whole = Some(value);
        while let Some(value) = whole.take() {
            let Some(mut group) = self.open_groups.pop() else { return Some(value) };
            group.elements.push(value);
            if group.elements.len() < group.count {
                self.open_groups.push(group);
            } else {
                whole = group.close();
            }
        }
        None
    }

    fn charge(&mut self, bytes: usize) -> Result<(), MalformedReply> {
        self.charged_bytes =
            self.charged_bytes.checked_add(bytes).ok_or(MalformedReply::TooLarge)?;
        if self.charged_bytes > VALUE_BYTES_MAX { Err(MalformedReply::TooLarge) } else { Ok(()) }
    }
}

impl OpenBlob {
    fn close(self) -> Result<Value, MalformedReply> {
        Ok(match self.kind {
            BlobKind::Bytes => Value::Bytes(self.bytes),
            BlobKind::Error => Value::Error(text(&self.bytes)),
            BlobKind::Verbatim => match self.bytes.split_at_checked(4) {
                Some(([_, _, _, b':'], rest)) => Value::Text(text(rest)),
                _ => return Err(MalformedReply::Form),
            },
        })
    }
}

impl OpenGroup {
    /// `None` for an attribute.
    fn close(self) -> Option<Value> {
        Some(match self.kind {
            GroupKind::List => Value::List(self.elements),
            GroupKind::Push => Value::Push(self.elements),
            GroupKind::Attribute => return None,
            GroupKind::Map => {
                let mut pairs = Vec::with_capacity(self.elements.len() / 2);
                let mut elements = self.elements.into_iter();
                while let (Some(key), Some(value)) = (elements.next(), elements.next()) {
                    pairs.push((key, value));
                }
                Value::Map(pairs)
            }
        })
    }
}

fn parse_line(kind: u8, line: &[u8]) -> Result<ParsedLine, MalformedReply> {
    Ok(match (kind, line) {
        (b'$' | b'*', b"-1") | (b'_', b"") => ParsedLine::Value(Value::Null),
        (b'_', _) => return Err(MalformedReply::Form),
        (b'+', _) => ParsedLine::Value(Value::Text(text(line))),
        (b'-', _) => ParsedLine::Value(Value::Error(text(line))),
        (b':', _) => ParsedLine::Value(Value::Integer(integer(line)?)),
        (b'#' | b',' | b'(', _) => ParsedLine::Value(Value::Other),
        (b'$', _) => ParsedLine::Blob(BlobKind::Bytes, length(line)?),
        (b'!', _) => ParsedLine::Blob(BlobKind::Error, length(line)?),
        (b'=', _) => ParsedLine::Blob(BlobKind::Verbatim, length(line)?),
        (b'*' | b'~', _) => ParsedLine::Group(GroupKind::List, length(line)?),
        (b'%', _) => ParsedLine::Group(GroupKind::Map, length(line)?),
        (b'>', _) => ParsedLine::Group(GroupKind::Push, length(line)?),
        (b'|', _) => ParsedLine::Group(GroupKind::Attribute, length(line)?),
        _ => return Err(MalformedReply::UnknownType),
    })
}

fn integer(digits: &[u8]) -> Result<i64, MalformedReply> {
    let digits = std::str::from_utf8(digits).map_err(|_| MalformedReply::Number)?;
    digits.parse().map_err(|_| MalformedReply::Number)
}

/// Digits and nothing else: the parser of the standard library would accept a sign.
fn length(digits: &[u8]) -> Result<usize, MalformedReply> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err(MalformedReply::Number);
    }
    usize::try_from(integer(digits)?).map_err(|_| MalformedReply::Number)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn text_bytes(value: &Value) -> usize {
    match value {
        Value::Text(text) | Value::Error(text) => text.len(),
        _ => 0,
    }
}
