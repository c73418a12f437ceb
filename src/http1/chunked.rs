//! The chunked transfer coding (RFC 9112 section 7.1), resumable at every byte. PURE.
//!
//! Owns the state between two pieces of a body. Strict where a lax reader could be made to see another request than the
//! proxy before it: sizes are bare hexadecimal digits and every line ends with CRLF. Extensions and trailers are
//! skipped. Input: bytes in any cut. Output: how many of them were used, and the content. Does not know requests.
//!
//! Limits: `SIZE_DIGITS_MAX` digits of a size, `HTTP_HEAD_BYTES_MAX` for extensions and trailers, and the caller's
//! budget for content. Cost: one step for each byte of framing, one copy of the content, no allocation of its own.

use super::refusal::RequestRefusal;
use crate::limits::HTTP_HEAD_BYTES_MAX;

/// Digits of a chunk size: no 64-bit size has more, and leading zeros have no use.
const SIZE_DIGITS_MAX: u8 = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    SizeDigit,
    /// Blanks after the size, then `;` or the end of the line.
    SizeBlank,
    /// The rest of a size line after `;`.
    Extension,
    /// The LF of a size line, after its CR.
    SizeEnd,
    Data {
        remaining: usize,
    },
    DataCr,
    DataEnd,
    /// The first byte of a trailer line, or the CR of the empty line that ends the body.
    TrailerStart,
    Trailer,
    TrailerLf,
    LastLf,
    Nothing,
}

#[derive(Debug)]
pub(super) struct Chunked {
    expect: Expected,
    size: u64,
    digits: u8,
    /// Received bytes that the body may still have, framing included: what the head has left of the limit of a request.
    budget: usize,
    /// Bytes of extensions and trailers that are still accepted. They have no use here, so a large request limit does
    /// not widen this one.
    skipped_budget: usize,
}

impl Chunked {
    pub(super) fn new(budget: usize) -> Self {
        Self {
            expect: Expected::SizeDigit,
            size: 0,
            digits: 0,
            budget,
            skipped_budget: HTTP_HEAD_BYTES_MAX,
        }
    }

    /// Appends the data in `input` to `body`; returns the bytes used and whether the body is complete. Each input byte
    /// is looked at once. The unused bytes belong to the next request.
    pub(super) fn decode(
        &mut self,
        input: &[u8],
        body: &mut Vec<u8>,
    ) -> Result<(usize, bool), RequestRefusal> {
        let mut rest = input;
        while self.expect != Expected::Nothing {
            if let Expected::Data { remaining } = self.expect {
                let (data, after) = rest.split_at(rest.len().min(remaining));
                body.extend_from_slice(data);
                rest = after;
                let remaining = remaining - data.len();
                self.expect =
                    if remaining == 0 { Expected::DataCr } else { Expected::Data { remaining } };
            }
            let Some((&byte, after)) = rest.split_first() else { break };
            // The budget was charged for the data when its size was read.
            self.budget = self.budget.checked_sub(1).ok_or(RequestRefusal::TooLarge)?;
            self.expect = self.decode_step(byte)?;
            rest = after;
        }
        Ok((input.len() - rest.len(), self.expect == Expected::Nothing))
    }

    /// Handles one byte of framing. Returns what must follow it.
    fn decode_step(&mut self, byte: u8) -> Result<Expected, RequestRefusal> {
        Ok(match (self.expect, byte) {
            (Expected::SizeDigit, b' ' | b'\t' | b';' | b'\r') if self.digits > 0 => {
                self.expect = Expected::SizeBlank;
                self.decode_step(byte)?
            }
            (Expected::SizeDigit, _) => self.add_size_digit(byte)?,
            (Expected::SizeBlank, b' ' | b'\t') => self.skip_line(byte, Expected::SizeBlank)?,
            (Expected::SizeBlank, b';') => Expected::Extension,
            (Expected::SizeBlank | Expected::Extension, b'\r') => Expected::SizeEnd,
            (Expected::Extension, _) => self.skip_line(byte, Expected::Extension)?,
            (Expected::SizeEnd, b'\n') => self.start_data()?,
            (Expected::DataCr, b'\r') => Expected::DataEnd,
            (Expected::DataEnd, b'\n') => Expected::SizeDigit,
            (Expected::TrailerStart, b'\r') => Expected::LastLf,
            (Expected::Trailer, b'\r') => Expected::TrailerLf,
            (Expected::TrailerStart | Expected::Trailer, _) => {
                self.skip_line(byte, Expected::Trailer)?
            }
            (Expected::TrailerLf, b'\n') => Expected::TrailerStart,
            (Expected::LastLf, b'\n') => Expected::Nothing,
            _ => return Err(RequestRefusal::BadRequest),
        })
    }

    fn add_size_digit(&mut self, byte: u8) -> Result<Expected, RequestRefusal> {
        let digit = char::from(byte).to_digit(16).ok_or(RequestRefusal::BadRequest)?;
        if self.digits == SIZE_DIGITS_MAX {
            return Err(RequestRefusal::BadRequest);
        }
        self.digits += 1;
        // Sixteen digits fill the 64 bits exactly.
        self.size = self.size << 4 | u64::from(digit);
        Ok(Expected::SizeDigit)
    }

    /// A size line has ended. The whole chunk is charged to the budget before any of it arrives, so that a refusal
    /// comes early.
    fn start_data(&mut self) -> Result<Expected, RequestRefusal> {
        let size = usize::try_from(self.size).map_err(|_| RequestRefusal::TooLarge)?;
        self.budget = self.budget.checked_sub(size).ok_or(RequestRefusal::TooLarge)?;
        (self.size, self.digits) = (0, 0);
        Ok(if size == 0 { Expected::TrailerStart } else { Expected::Data { remaining: size } })
    }

    fn skip_line(&mut self, byte: u8, next: Expected) -> Result<Expected, RequestRefusal> {
        if byte.is_ascii_control() && byte != b'\t' {
            return Err(RequestRefusal::BadRequest);
        }
        self.skipped_budget =
            self.skipped_budget.checked_sub(1).ok_or(RequestRefusal::HeadTooLarge)?;
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes byte by byte and whole; both must agree. Gives the body and the bytes used.
    fn decode(input: &[u8], budget: usize) -> Result<Option<(Vec<u8>, usize)>, RequestRefusal> {
        let whole = decode_pieces(input, input.len().max(1), budget);
        assert_eq!(whole, decode_pieces(input, 1, budget));
        whole
    }

    fn decode_pieces(
        input: &[u8],
        size: usize,
        budget: usize,
    ) -> Result<Option<(Vec<u8>, usize)>, RequestRefusal> {
        let mut chunked = Chunked::new(budget);
        let (mut body, mut used) = (Vec::new(), 0);
        for piece in input.chunks(size) {
            let (taken, complete) = chunked.decode(piece, &mut body)?;
            used += taken;
            if complete {
                return Ok(Some((body, used)));
            }
        }
        Ok(None)
    }

    #[test]
    fn data_extensions_and_trailers() {
        let input = b"4\r\nWiki\r\n6;name=\"v\"\r\npedia \r\nE \r\nin \r\n\r\nchunks.\r\n000\r\n\
            Expires: never\r\nX: y\r\n\r\nGET";
        let (body, used) = decode(input, 1000).unwrap().unwrap();
        assert_eq!(body, b"Wikipedia in \r\n\r\nchunks.");
        assert_eq!(used, input.len() - 3);
    }

    #[test]
    fn unfinished_is_no_error() {
        let input = b"4\r\nWiki\r\n0\r\n\r\n";
        for cut in 0..input.len() {
            assert_eq!(decode(&input[..cut], 1000), Ok(None), "cut at {cut}");
        }
    }

    #[test]
    fn lax_framing_is_refused() {
        let inputs: [&[u8]; 13] = [
            b"\r\n",
            b"x\r\n",
            b"-1\r\n",
            b"0x5\r\n",
            b";a\r\n",
            b"5\n",
            b"5 5",
            b"5;a\nb",
            b"5\rx",
            b"1\r\naX",
            b"1\r\na\rX",
            b"0\r\nA: b\n\r\n",
            b"00000000000000001\r\n",
        ];
        for input in inputs {
            assert_eq!(decode(input, 1000), Err(RequestRefusal::BadRequest), "{input:?}");
        }
        assert_eq!(decode(b"0\r\n\rX", 1000), Err(RequestRefusal::BadRequest));
    }

    #[test]
    fn sizes_are_refused_when_declared() {
        assert_eq!(decode(b"ffffffffffffffff\r\n", 1000), Err(RequestRefusal::TooLarge));
        assert_eq!(decode(b"3e8\r\n", 1000), Err(RequestRefusal::TooLarge));
        let exact = b"4\r\nWiki\r\n0\r\n\r\n";
        assert!(decode(exact, exact.len()).unwrap().is_some());
        assert_eq!(decode(exact, exact.len() - 1), Err(RequestRefusal::TooLarge));
    }

    #[test]
    fn extensions_and_trailers_have_a_bound_of_their_own() {
        let long = "a".repeat(HTTP_HEAD_BYTES_MAX + 1);
        let extension = format!("1;{long}");
        assert_eq!(decode(extension.as_bytes(), usize::MAX), Err(RequestRefusal::HeadTooLarge));
        let trailer = format!("0\r\n{long}");
        assert_eq!(decode(trailer.as_bytes(), usize::MAX), Err(RequestRefusal::HeadTooLarge));
    }
}
