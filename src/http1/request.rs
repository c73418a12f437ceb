//! The request reader: bytes in any cut to whole requests, pipelined or not. PURE.
//!
//! Owns the state of one incomplete request; knows nothing of sockets and paths. Resumable: the search for the end of
//! the head looks at new bytes only. A declared length is judged with the head; memory grows with the bytes that
//! arrive.
//!
//! Limits: the head by `limits::HTTP_HEAD_BYTES_MAX` and `HTTP_HEADERS_MAX`, head and body together by
//! `RequestLimits::request_size_max`, as Reverb counts. Cost: linear in the received bytes; one allocation and one copy
//! for a request that arrives whole, and the growth of a vector for one that does not.

use super::chunked::Chunked;
use super::head::Framing;
pub use super::head::Request;
pub use super::refusal::RequestRefusal;
use crate::limits::HTTP_HEAD_BYTES_MAX;

#[cfg(test)]
mod tests;

/// Empty lines tolerated before a request (RFC 9112 section 2.2 asks for one).
const LEADING_LINES_MAX: usize = 2;

#[derive(Clone, Copy, Debug)]
pub struct RequestLimits {
    /// Bytes of head and body together; for a chunked body its framing counts too.
    pub request_size_max: usize,
}

#[derive(Debug)]
pub enum Progress {
    /// More bytes are needed. `continue_expected` is true at most once per request: the client
    /// waits for `response::CONTINUE` before it sends the body.
    Incomplete {
        continue_expected: bool,
    },
    Complete(Request),
}

/// Reads the requests of one connection, one after the other. After a refusal the connection is to
/// be closed: where the next request starts is not known.
#[derive(Debug)]
pub struct RequestReader {
    limits: RequestLimits,
    /// Bytes at the front of the buffer that were searched for the end of the head.
    searched: usize,
    leading_lines: usize,
    open: Option<OpenRequest>,
}

/// A request whose head is complete, and whose body is not.
#[derive(Debug)]
struct OpenRequest {
    request: Request,
    body: BodyProgress,
    continue_expected: bool,
}

#[derive(Debug)]
enum BodyProgress {
    Length { remaining: usize },
    Chunked(Chunked),
}

impl RequestReader {
    #[must_use]
    pub fn new(limits: RequestLimits) -> Self {
        Self { limits, searched: 0, leading_lines: 0, open: None }
    }

    /// Memory of the request that is being read, in bytes, for the memory limit of the server. 0 before
    /// its head is complete.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.open.as_ref().map_or(0, |open| open.request.buffered_bytes())
    }

    /// Whether no byte of a request has been seen since the last one was complete. A connection in
    /// this state can be closed without harm.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.open.is_none() && self.searched == 0
    }

    /// Whether all it has seen of an incomplete request is still in the buffer: another reader can continue from there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_none()
    }

    /// Removes what it can use from the front of `buffer`; what follows a complete request stays.
    ///
    /// # Errors
    /// As soon as the bytes at hand cannot become an acceptable request.
    pub fn read(&mut self, buffer: &mut Vec<u8>) -> Result<Progress, RequestRefusal> {
        let mut used = 0;
        let progress = self.read_front(buffer, &mut used);
        buffer.drain(..used);
        progress
    }

    /// `read` that leaves the bytes where they are: it adds to `used` how many it has read from the front. Where many
    /// requests wait in one buffer, each costs no more than its own bytes.
    ///
    /// # Errors
    /// As `read`.
    pub fn read_front(
        &mut self,
        buffer: &[u8],
        used: &mut usize,
    ) -> Result<Progress, RequestRefusal> {
        let mut rest = buffer;
        let mut open = match self.open.take() {
            Some(open) => open,
            None => {
                let skipped = self.skip_leading_lines(rest)?;
                *used += skipped;
                rest = rest.get(skipped..).unwrap_or_default();
                let Some(head) = self.find_head(rest)? else {
                    return Ok(Progress::Incomplete { continue_expected: false });
                };
                let size = head.len();
                let open = OpenRequest::new(head, rest.len() - size, self.limits)?;
                *used += size;
                rest = rest.get(size..).unwrap_or_default();
                open
            }
        };
        let (body_bytes, is_complete) = open.read_body(rest)?;
        *used += body_bytes;
        if is_complete {
            *self = Self::new(self.limits);
            return Ok(Progress::Complete(open.request));
        }
        let continue_expected = std::mem::take(&mut open.continue_expected);
        self.open = Some(open);
        Ok(Progress::Incomplete { continue_expected })
    }

    /// The number of bytes of empty lines at the front, which RFC 9112 section 2.2 tells servers to ignore.
    fn skip_leading_lines(&mut self, buffer: &[u8]) -> Result<usize, RequestRefusal> {
        let lines = buffer.chunks_exact(2).take_while(|pair| pair == b"\r\n").count();
        if lines > 0 {
            self.leading_lines += lines;
            self.searched = 0;
        }
        let skipped = 2 * lines;
        // No request starts with a control byte, but TLS does: waiting for its end is useless.
        let is_other_protocol = match buffer.get(skipped..).unwrap_or_default() {
            [] | [b'\r'] => false,
            [first, ..] => first.is_ascii_control(),
        };
        if is_other_protocol || self.leading_lines > LEADING_LINES_MAX {
            return Err(RequestRefusal::BadRequest);
        }
        Ok(skipped)
    }

    /// The head at the front of `buffer`, once its blank line is there. A bare LF is refused: some
    /// take it for the end of a line and some do not (RFC 9112 section 2.2 leaves it open).
    fn find_head<'a>(&mut self, buffer: &'a [u8]) -> Result<Option<&'a [u8]>, RequestRefusal> {
        let size_max = self.limits.request_size_max.min(HTTP_HEAD_BYTES_MAX);
        let window = buffer.get(..size_max).unwrap_or(buffer);
        let search_start = self.searched.min(window.len());
        // One search for all lines, because to set one up costs as much as a line.
        for line_feed in memchr::memchr_iter(b'\n', window.get(search_start..).unwrap_or_default())
        {
            self.searched = search_start + line_feed + 1;
            let lines = window.get(..self.searched).unwrap_or(window);
            if !lines.ends_with(b"\r\n") {
                return Err(RequestRefusal::BadRequest);
            }
            if lines.ends_with(b"\r\n\r\n") {
                return Ok(Some(lines));
            }
        }
        self.searched = window.len();
        if window.len() < size_max {
            Ok(None)
        } else if size_max < HTTP_HEAD_BYTES_MAX {
            Err(RequestRefusal::TooLarge)
        } else {
            Err(RequestRefusal::HeadTooLarge)
        }
    }
}

impl OpenRequest {
    fn new(
        head: &[u8],
        bytes_after_head: usize,
        limits: RequestLimits,
    ) -> Result<Self, RequestRefusal> {
        let (request, framing) = Request::parse(head, bytes_after_head)?;
        let budget = limits.request_size_max.saturating_sub(head.len());
        let body = match framing {
            Framing::Chunked => BodyProgress::Chunked(Chunked::new(budget)),
            Framing::Length(length) => match usize::try_from(length) {
                Ok(remaining) if remaining <= budget => BodyProgress::Length { remaining },
                _ => return Err(RequestRefusal::TooLarge),
            },
        };
        let continue_expected = request.expects_continue()?;
        Ok(Self { request, body, continue_expected })
    }

    /// Consumes body bytes from the front of `input`; returns how many, and whether the body is complete.
    fn read_body(&mut self, input: &[u8]) -> Result<(usize, bool), RequestRefusal> {
        match &mut self.body {
            BodyProgress::Length { remaining } => {
                let body_bytes = input.get(..*remaining).unwrap_or(input);
                self.request.body_mut().extend_from_slice(body_bytes);
                *remaining -= body_bytes.len();
                Ok((body_bytes.len(), *remaining == 0))
            }
            BodyProgress::Chunked(chunked) => chunked.decode(input, self.request.body_mut()),
        }
    }
}
